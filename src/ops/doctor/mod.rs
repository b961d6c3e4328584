//! Is everything in place for tonight's backup?
//!
//! Each check is a line with a verdict and a cure: configuration and keys, databases as a dump would need them, the media
//! store, and a store that writes, reads back and lists. It goes on after a failure, so that one look tells all. Which rights
//! the credentials have is found out in `rights`, and what that means in a bucket as it is set up in `bucket`.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Access, access};
use serde::Serialize;

use super::{Run, Tools as ToolOptions};
use crate::repo::Repository;
use crate::synapse::{Finding, FindingKind, Homeserver};

mod bucket;
mod databases;
mod history;
mod media;
mod rights;
mod sealing;
mod walk;

pub use walk::{MediaWalk, WalkOptions, walk_media};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In place.
    Ok,
    /// Works, but somebody should look: exit code 3.
    Warning,
    /// A backup would fail: exit code 1.
    Failure,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// `configuration`, `database synapse`, `pg_dump`, `store` …
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do, unless all is well.
    pub cure: Option<String>,
}

/// What a doctor is told.
#[derive(Clone)]
pub struct Options {
    /// PostgreSQL's programs.
    pub tools: ToolOptions,
    /// This machine's clock.
    pub now: Timestamp,
    /// Further databases from the settings.
    pub databases: Vec<(String, String)>,
    /// Streams of a database that are dumped at once.
    pub dump_jobs: usize,
    /// The settings' `metrics.textfile`.
    pub textfile: Option<PathBuf>,
}

/// All checks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// The walk over the media store, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaWalk>,
}

/// How far the local clock may be from the store's before somebody should look.
const CLOCK_SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Look at everything a backup needs. What could not be opened is given as the error it ended with.
pub async fn doctor(
    repository: Result<Repository, anyhow::Error>,
    homeserver: Result<Homeserver, anyhow::Error>,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    run.until_cancelled(async {
        check_configuration(&homeserver, &mut report);
        if let Ok(homeserver) = &homeserver {
            databases::check(homeserver, options, &mut report).await;
            media::check_media(homeserver, &mut report).await;
        }
        let server_name = homeserver.as_ref().ok().map(|homeserver| homeserver.server_name.as_str());
        check_store(repository, server_name, options, &mut report).await;
        if let Some(path) = &options.textfile {
            check_textfile(path, &mut report);
        }
        anyhow::Ok(())
    })
    .await?;
    Ok(report)
}

impl Report {
    /// What a walk over the media store came to.
    pub fn add_walk(&mut self, walked: anyhow::Result<MediaWalk>) {
        match walked {
            Ok(walk) => {
                self.checks.push(walk.check());
                self.media = Some(walk);
            }
            Err(error) => self.error("media files", &error),
        }
    }

    fn warn(&mut self, name: &str, message: impl Into<String>, cure: impl Into<String>) {
        self.add(name, Verdict::Warning, message, Some(cure.into()));
    }

    fn fail(&mut self, name: &str, message: impl Into<String>, cure: impl Into<String>) {
        self.add(name, Verdict::Failure, message, Some(cure.into()));
    }

    fn add(&mut self, name: &str, verdict: Verdict, message: impl Into<String>, cure: Option<String>) {
        self.checks.push(Check {
            name: name.to_owned(),
            verdict,
            message: message.into(),
            cure,
        });
    }

    fn ok(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, Verdict::Ok, message, None);
    }

    fn error(&mut self, name: &str, error: &anyhow::Error) {
        self.add(name, Verdict::Failure, format!("{error:#}"), super::hint_of(error));
    }
}

fn check_configuration(homeserver: &Result<Homeserver, anyhow::Error>, report: &mut Report) {
    let homeserver = match homeserver {
        Ok(homeserver) => homeserver,
        Err(error) => return report.error("configuration", error),
    };
    let files = homeserver.files.len();
    report.ok(
        "configuration",
        format!("{}: {files} files, links and folders to save", homeserver.server_name),
    );
    for finding in homeserver.findings.iter().filter(|finding| finding.kind != FindingKind::Ignored) {
        let message = format!("{}: {}", finding.item.escape_debug(), finding.message);
        report.warn("configuration", message, cure_of(finding));
    }
    if homeserver.signing_key_missing {
        let cure = "find it: Synapse makes itself a new identity when it starts without its key";
        report.add("signing key", Verdict::Failure, "it is not there", Some(cure.into()));
    } else if homeserver.signing_keys.is_empty() {
        let cure = "run as a user who may read it; what is wrong with it stands above";
        report.fail("signing key", "it is there, and there is no key in it that can be read", cure);
    } else {
        let keys: Vec<&str> = homeserver.signing_keys.iter().map(|key| key.key_id.as_str()).collect();
        report.ok("signing key", keys.join(", "));
    }
}

/// Who follows it must not make things worse: without its key Synapse makes itself a new one.
fn cure_of(finding: &Finding) -> &'static str {
    match finding.kind {
        FindingKind::Missing if finding.item == "media" => "set `synapse.working_directory` or `synapse.path_map`",
        FindingKind::Missing => "put the file back or mend the path; remove the option only if nothing needs what it names",
        FindingKind::Unreadable => "run as a user who may read it",
        FindingKind::NotAFile => "mend the path: what is there is not what the option wants",
        FindingKind::LeftOut => "if Synapse reads it, name it in `files`",
        FindingKind::Damaged | FindingKind::Ignored => "mend the file: Synapse reads it when it starts",
    }
}

async fn check_store(repository: Result<Repository, anyhow::Error>, server_name: Option<&str>, options: &Options, report: &mut Report) {
    let repository = match repository {
        Ok(repository) => repository,
        Err(error) => return report.error("repository", &error),
    };
    report.ok("repository", format!("{} ({})", repository.url(), repository.info().id));
    sealing::check(&repository, report);
    match rights::probe(&repository).await {
        Ok((rights, date)) => {
            report.ok("store", "an object was written, read back and listed");
            check_clock(date, options.now, report);
            bucket::check(&repository, rights, report).await;
        }
        Err(error) => report.error("store", &error),
    }
    history::check(&repository, server_name, report).await;
}

fn check_clock(date: Timestamp, now: Timestamp, report: &mut Report) {
    let skew = date.duration_since(now).abs();
    if skew > CLOCK_SKEW_MAX {
        let cure = "set the clock: stores refuse requests whose time is off by more than a quarter of an hour".to_owned();
        report.add(
            "clock",
            Verdict::Warning,
            format!("it is {}s away from the store's", skew.as_secs()),
            Some(cure),
        );
    } else {
        report.ok("clock", "it agrees with the store's");
    }
}

/// A folder that nobody can write into would be noticed when the figures are missed.
fn check_textfile(path: &Path, report: &mut Report) {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => report.ok("metrics", path.display().to_string()),
        Err(error) => report.warn(
            "metrics",
            format!("{} cannot be written to: {error}", folder.display()),
            "make the folder, and let the user who backs up write into it; with systemd, name it in `ReadWritePaths`",
        ),
    }
}
