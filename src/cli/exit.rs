//! How a run ended, and the exit code that tells it: the table of DESIGN §4, in one place.
//!
//! A verb that ended gives an [`Outcome`]; one that failed gives an error, whose chain is searched for what decides.

use std::path::PathBuf;

use serde::Serialize;

use crate::ops::{
    self, ErrorKind, adopt, backup, copy, doctor, drill, extend, forget, inspect, keys, prune, rekey, restore, stats, tag, verify,
};
use crate::synapse::{self, postgres};
use crate::{repo, store};

/// Done.
pub(super) const DONE: u8 = 0;
/// Failed, nothing committed.
pub(super) const FAILED: u8 = 1;
/// The call or the settings are wrong.
pub(super) const USAGE: u8 = 2;
/// Done with problems, or with warnings.
pub(super) const PROBLEMS: u8 = 3;
/// No bucket or no repository.json.
pub(super) const NO_REPOSITORY: u8 = 10;
/// Sealed, and no key here opens it.
pub(super) const NO_KEY: u8 = 12;
/// Told to stop.
pub(super) const INTERRUPTED: u8 = 130;

/// What must be known of a new sealed repository.
#[derive(Debug)]
pub(super) struct SealedTo {
    /// How many can open it.
    pub(super) recipients: u64,
    /// The key that stays on the server.
    pub(super) writer_key_file: PathBuf,
    /// Its public half, by which signatures are checked.
    pub(super) signer: String,
}

/// What a verb came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// `init`.
    Created {
        /// The new repository.
        url: String,
        /// If it is sealed.
        sealed: Option<SealedTo>,
    },
    /// `backup`.
    BackedUp(backup::Report),
    /// `snapshots`.
    Snapshots(inspect::SnapshotsReport),
    /// `show`.
    Shown(Box<inspect::ShowReport>),
    /// `restore`.
    Restored {
        /// What was done, or would be.
        report: restore::Report,
        /// Nothing was written.
        dry_run: bool,
    },
    /// `verify`.
    Verified(verify::Report),
    /// `prune`.
    Pruned(Box<prune::Report>),
    /// `drill`.
    Drilled(drill::Report),
    /// `copy`.
    Copied {
        /// What was done, or would be.
        report: copy::Report,
        /// Nothing was sent.
        dry_run: bool,
    },
    /// `forget`.
    Forgot(forget::Report),
    /// `tag`.
    Tagged(tag::Report),
    /// `stats`.
    Counted(Box<stats::Report>),
    /// `adopt`.
    Adopted(adopt::Report),
    /// `doctor`.
    Examined(doctor::Report),
    /// `extend`.
    Extended(extend::Report),
    /// `keys list`.
    Keys(keys::Report),
    /// `keys add` and `keys remove`.
    RecipientsChanged(RecipientsChanged),
    /// `rekey`.
    Rekeyed(Box<rekey::Report>),
    /// `ls`, `cat`, `completions`, `man`: all was said on standard output.
    Printed,
}

/// A change of the settings.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RecipientsChanged {
    /// The file.
    pub(super) settings: String,
    /// One more, or one less.
    pub(super) added: bool,
    /// Which.
    pub(super) recipient: String,
    /// All of them from now on.
    pub(super) recipients: Vec<String>,
}

/// The code of a run that ended.
pub(super) fn of_outcome(outcome: &Outcome) -> u8 {
    let found = |nothing: bool, code: u8| if nothing { DONE } else { code };
    match outcome {
        Outcome::Created { .. }
        | Outcome::Shown(_)
        | Outcome::Forgot(_)
        | Outcome::Tagged(_)
        | Outcome::RecipientsChanged(_)
        | Outcome::Printed => DONE,
        Outcome::Counted(report) => found(report.problems.is_empty(), PROBLEMS),
        Outcome::Keys(report) => found(report.problems.is_empty(), PROBLEMS),
        Outcome::Rekeyed(report) => found(report.problems.is_empty(), PROBLEMS),
        Outcome::Adopted(report) => found(report.problems.is_empty(), PROBLEMS),
        Outcome::BackedUp(report) => {
            let is_held = report.object_lock.as_ref().is_none_or(|lock| lock.failed == 0);
            found(report.problem_count == 0 && report.problems.is_empty() && is_held, PROBLEMS)
        }
        Outcome::Extended(report) => found(report.object_lock.failed == 0, PROBLEMS),
        Outcome::Restored { report, .. } => found(report.problems.is_empty(), PROBLEMS),
        Outcome::Copied { report, .. } => found(report.problems.is_empty(), PROBLEMS),
        Outcome::Snapshots(report) => found(report.problems.is_empty(), FAILED),
        Outcome::Verified(report) => found(report.problems.is_empty(), FAILED),
        // The dry run of what would fail.
        Outcome::Pruned(report) if !report.stopped_by.is_empty() => FAILED,
        Outcome::Pruned(report) => found(report.problems.is_empty(), PROBLEMS),
        Outcome::Drilled(report) => found(report.passed, FAILED),
        Outcome::Examined(report) => {
            let worst = |verdict| report.checks.iter().any(|check| check.verdict == verdict);
            if worst(doctor::Verdict::Failure) {
                FAILED
            } else {
                found(!worst(doctor::Verdict::Warning), PROBLEMS)
            }
        }
    }
}

/// The code of a run that failed: the first link of the chain that decides, from outside in.
pub(super) fn of_error(error: &anyhow::Error) -> u8 {
    // A context is no link of the chain by itself: `downcast_ref` is the way to see it.
    let context = error.downcast_ref::<ops::Error>().and_then(|error| decides(error));
    context.or_else(|| error.chain().find_map(decides)).unwrap_or(FAILED)
}

fn decides(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = error.downcast_ref::<ops::Error>() {
        return match error.kind {
            ErrorKind::Usage => Some(USAGE),
            ErrorKind::Interrupted => Some(INTERRUPTED),
            // It may stand around a cause that says more.
            ErrorKind::Failed => None,
        };
    }
    match error.downcast_ref() {
        Some(repo::Error::NoRepository { .. }) => return Some(NO_REPOSITORY),
        Some(repo::Error::NoKey { .. }) => return Some(NO_KEY),
        Some(repo::Error::Sealing { .. }) => return Some(USAGE),
        // It shows through: only its own causes are links of the chain.
        Some(repo::Error::Store(error)) => return decides(error),
        Some(repo::Error::Session(error)) => return decides(&**error),
        _ => {}
    }
    match error.downcast_ref() {
        Some(store::Error::NoBucket { .. }) => return Some(NO_REPOSITORY),
        Some(store::Error::BadUrl { .. }) => return Some(USAGE),
        _ => {}
    }
    is_of_the_settings(error).then_some(USAGE)
}

/// What our own settings and flags say of databases and of Synapse's files, and cannot mean. (What stands in those files is not ours.)
fn is_of_the_settings(error: &(dyn std::error::Error + 'static)) -> bool {
    let connection = matches!(
        error.downcast_ref(),
        Some(postgres::Error::ConnInfo { .. } | postgres::Error::Unpassable { .. } | postgres::Error::NoUser)
    );
    let files = match error.downcast_ref() {
        Some(synapse::Error::NoConfig | synapse::Error::NotAbsolute { .. } | synapse::Error::Relative { .. }) => true,
        Some(synapse::Error::ConfigUnreadable { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    };
    connection || files
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::ops::doctor::{Check, Verdict};

    #[test]
    fn errors_get_the_codes_of_the_table() {
        let no_bucket = || store::Error::NoBucket { url: "s3://x".into() };
        let unreadable = |kind: std::io::ErrorKind| synapse::Error::ConfigUnreadable {
            path: "/x".into(),
            source: kind.into(),
        };
        let no_key = || repo::Error::NoKey {
            what: "x".into(),
            needs: repo::keyring::Needs::Identity,
        };
        let no_repository = || repo::Error::NoRepository { url: "s3://x".into() };
        for (error, code) in [
            (anyhow!("anything"), FAILED),
            (ops::Error::usage("x", "y").into(), USAGE),
            (ops::Error::failed("x", "y").into(), FAILED),
            (ops::Error::interrupted().into(), INTERRUPTED),
            (
                anyhow::Error::from(ops::Error::interrupted()).context("dump database `synapse`"),
                INTERRUPTED,
            ),
            (anyhow!("the upload was aborted").context(ops::Error::interrupted()), INTERRUPTED),
            (no_repository().into(), NO_REPOSITORY),
            (no_key().into(), NO_KEY),
            (anyhow::Error::from(no_bucket()).context("open the repository"), NO_REPOSITORY),
            (
                anyhow::Error::from(no_bucket()).context(ops::Error::failed("list snapshots", "look")),
                NO_REPOSITORY,
            ),
            (store::Error::BadUrl { message: "x".into() }.into(), USAGE),
            (
                anyhow::Error::from(postgres::Error::ConnInfo { reason: "x".into() }).context("where does database `synapse` go?"),
                USAGE,
            ),
            (postgres::Error::NoUser.into(), USAGE),
            (postgres::Error::Pooler.into(), FAILED),
            (unreadable(std::io::ErrorKind::NotFound).into(), USAGE),
            (unreadable(std::io::ErrorKind::PermissionDenied).into(), FAILED),
            (synapse::Error::NoServerName.into(), FAILED),
        ] {
            assert_eq!(of_error(&error), code, "{error:?}");
        }
    }

    #[test]
    fn a_doctor_is_as_bad_as_its_worst_check() {
        for (verdicts, code) in [
            (vec![], DONE),
            (vec![Verdict::Ok], DONE),
            (vec![Verdict::Warning, Verdict::Ok], PROBLEMS),
            (vec![Verdict::Warning, Verdict::Failure], FAILED),
        ] {
            let check = |verdict| Check {
                name: "store".into(),
                verdict,
                message: String::new(),
                cure: None,
            };
            let checks = verdicts.into_iter().map(check).collect();
            assert_eq!(of_outcome(&Outcome::Examined(doctor::Report { checks, media: None })), code);
        }
    }
}
