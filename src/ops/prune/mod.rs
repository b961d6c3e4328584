//! Taking away what no snapshot needs: forget by policy, survey, plan, apply, and the index compacted behind it.
//!
//! Backups and restores may run beside it, and so may other prunes. A dry run ends after the plan, which is the one that would be
//! applied. Space comes back in two steps: what is dead is marked now, and deleted by a prune after the grace period.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use jiff::SignedDuration;
use serde::Serialize;

use super::items::stop_if_cancelled;
use super::retention::Keep;
use super::{Error, Limits, Run};
use crate::format::keys;
use crate::format::snapshot::{Problem, ProblemKind};
use crate::repo::Repository;
use crate::repo::old_versions::{self, Cleared, Do};
use crate::repo::snapshots::Loaded;
use crate::repo::sweep::{self, Applied, ApplyOptions, CompactOptions, Compacted, Plan, PlanOptions, Refused, Survey, SurveyOptions};

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

mod forget;
mod price;

pub use forget::{Judged, Sign};
pub use price::{PriceHint, StorageMin};

/// Small index segments are merged when there are so many.
const SEGMENTS_MIN: usize = 8;

/// What a prune is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Find out what would be done; delete and write nothing.
    pub dry_run: bool,
    /// Which snapshots stay.
    pub keep: Keep,
    /// Go on although signs say that the policy would let go of what is good.
    pub yes_really: bool,
    /// Move at most so many stored bytes (`--repack-limit`).
    pub repack_bytes_max: Option<u64>,
    /// The store charges each object for so long.
    pub storage_min: Option<StorageMin>,
    /// Delete for good what a bucket with versions has kept for so long after it was deleted.
    pub versions: Option<SignedDuration>,
    /// Where rows are spooled that do not fit into memory.
    pub spool_folder: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nothing was deleted or written.
    pub dry_run: bool,
    /// The snapshots, oldest first, each with what becomes of it.
    pub snapshots: Vec<Judged>,
    /// Signs that the policy would let go of what is good; only a dry run goes on to tell them, all others end there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped_by: Vec<Sign>,
    /// What there is.
    pub totals: Totals,
    /// What was to be done.
    pub plan: Plan,
    /// What was done of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// What became of the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compacted: Option<Compacted>,
    /// What became of old versions, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Cleared>,
    /// What the store charges for although it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceHint>,
    /// Packs that could not be moved, and uploads that could not be given up.
    pub problems: Vec<Problem>,
}

/// The repository as the survey saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Snapshots, late ones too.
    pub snapshots: u64,
    /// Packs that are there.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Of those, bytes of packs that are marked.
    pub condemned_bytes: u64,
    /// Live blobs.
    pub live_blobs: u64,
    /// Their raw bytes.
    pub live_raw_bytes: u64,
    /// Index segments.
    pub segments: u64,
}

/// Prune.
pub async fn prune(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    refuse_without_versions(repository, options)?;
    // P0: what the policy forgets. It is looked upon as gone, and goes when P6 has not refused, before anything else.
    let verdicts = run
        .until_cancelled(forget::judge(repository, &options.keep, options.yes_really))
        .await?;
    if let (Some(stop), false) = (forget::stop(&verdicts.signs), options.dry_run) {
        return Err(stop.into());
    }
    let (survey, plan) = look(repository, options, verdicts.keys.clone(), verdicts.known, run).await?;
    let mut report = Report {
        dry_run: options.dry_run,
        snapshots: verdicts.judged,
        stopped_by: verdicts.signs,
        totals: totals(&survey),
        price: options.storage_min.clone().map(|minimum| price::hint(&plan, minimum)),
        plan,
        applied: None,
        compacted: None,
        versions: None,
        problems: unread(&survey),
    };
    if options.dry_run {
        report.versions = versions(repository, options, run).await?;
        return Ok(report);
    }
    let applied = carry_out(repository, &verdicts.keys, &report.plan, &survey, options, run).await?;
    report.problems.extend(problems(&applied));
    report.applied = Some(applied);
    report.compacted = Some(compact(repository, survey, options, run).await?);
    report.versions = versions(repository, options, run).await?;
    report.problems.extend(report.versions.as_ref().and_then(not_cleared));
    Ok(report)
}

/// Old versions that are neither gone nor held.
fn not_cleared(cleared: &Cleared) -> Option<Problem> {
    let first = cleared.first_failed.as_ref()?;
    let others = if cleared.given_up {
        "; after several failures in a row the others were not asked for: the next prune goes on"
    } else {
        ""
    };
    Some(Problem {
        kind: ProblemKind::Deferred,
        item: first.key.clone(),
        message: format!(
            "{} of the old versions could not be deleted for good: {}{others}",
            cleared.failed, first.why
        ),
    })
}

/// Segments that cannot be read: what they name is not known, so nothing is marked or deleted.
fn unread(survey: &Survey) -> Vec<Problem> {
    let damaged = survey.damaged_segments.iter().map(|(key, why)| Problem {
        kind: ProblemKind::Damaged,
        item: key.clone(),
        message: format!(
            "{why}; no pack is marked or deleted until `verify --repair-index` has named anew what it named and this object is deleted"
        ),
    });
    damaged.collect()
}

/// What was left as it is.
fn problems(applied: &Applied) -> Vec<Problem> {
    let damaged = applied.damaged.iter().map(|pack| Problem {
        kind: ProblemKind::Damaged,
        item: keys::pack(*pack),
        message: "a blob that a snapshot needs is damaged in this pack, which therefore stays; `verify --read-data` says what it costs"
            .into(),
    });
    let kept = applied.not_aborted.iter().map(|(key, why)| Problem {
        kind: ProblemKind::Deferred,
        item: key.clone(),
        message: format!("the upload that a killed run left is still there: {why}"),
    });
    let not_opened = applied.not_opened.iter().map(|pack| Problem {
        kind: ProblemKind::Unreadable,
        item: keys::pack(*pack),
        message:
            "no key here opens this pack, which therefore stays: it was sealed to others (`--identity FILE` of those days, or `rekey`)"
                .into(),
    });
    damaged.chain(not_opened).chain(kept).collect()
}

/// A wrong call, so it is told before anything is touched.
fn refuse_without_versions(repository: &Repository, options: &Options) -> Result<(), Error> {
    if options.versions.is_none() || repository.store().versions().is_some() {
        return Ok(());
    }
    let hint = "a deleted object is gone there already: leave --versions out";
    Err(Error::usage(format!("{} keeps no old versions", repository.url()), hint))
}

/// P1 to P7. What is forgotten is looked upon as gone; what is known need not be read again.
pub(super) async fn look(
    repository: &Repository,
    options: &Options,
    forgotten: BTreeSet<String>,
    known: BTreeMap<String, Loaded>,
    run: &Run<'_>,
) -> anyhow::Result<(Survey, Plan)> {
    run.progress.stage("look", None, None);
    let survey_options = SurveyOptions {
        memory_bytes: options.limits.memory_bytes.saturating_sub(PROGRAM_BYTES),
        connections: options.limits.connections,
        spool_folder: options.spool_folder.clone(),
        can_open_data: !repository.info().sealed || !repository.keyring().identities.is_empty(),
        forgotten,
        reseal: None,
        known: Arc::new(known),
        frames: false,
    };
    let survey = run.until_cancelled(sweep::survey(repository, &survey_options)).await;
    let survey = survey.context("look at what is there")?;
    run.progress.done("look");
    let plan_options = PlanOptions {
        repack_bytes_max: options.repack_bytes_max,
        storage_min: options.storage_min.as_ref().map(StorageMin::time),
    };
    let plan = sweep::plan(&survey, &plan_options).map_err(|refused| refused_by(&refused))?;
    Ok((survey, plan))
}

/// What the program itself takes: code, runtime, TLS, allocator slack.
pub(super) const PROGRAM_BYTES: u64 = 48 << 20;

fn refused_by(refused: &Refused) -> Error {
    Error::failed(refused.to_string(), refused.hint())
}

/// What P0 chose goes, answered, before anything of P8 is asked.
pub(super) async fn carry_out(
    repository: &Repository,
    forgotten: &BTreeSet<String>,
    plan: &Plan,
    survey: &Survey,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<Applied> {
    #[cfg(test)]
    if planted(Bug::PacksBeforeSnapshots) {
        let applied = apply(repository, plan, survey, options, run).await?;
        forget::forget(repository, forgotten, run).await?;
        return Ok(applied);
    }
    forget::forget(repository, forgotten, run).await?;
    apply(repository, plan, survey, options, run).await
}

/// P8.
async fn apply(repository: &Repository, plan: &Plan, survey: &Survey, options: &Options, run: &Run<'_>) -> anyhow::Result<Applied> {
    stop_if_cancelled(run)?;
    run.progress.stage("apply", None, None);
    let apply_options = ApplyOptions {
        memory_bytes: options.limits.memory_bytes,
        connections: options.limits.connections,
        cancel: run.cancel.clone(),
    };
    let applied = sweep::apply(repository, plan, survey, &apply_options).await;
    stop_if_cancelled(run)?;
    run.progress.done("apply");
    applied.context("apply the plan")
}

/// C1 to C4, of small segments and of those that the survey has seen to shrink.
pub(super) async fn compact(repository: &Repository, survey: Survey, options: &Options, run: &Run<'_>) -> anyhow::Result<Compacted> {
    run.progress.stage("index", None, None);
    let shrink = survey.segments.iter().filter(|segment| segment.shrinks);
    let shrink = shrink.map(|segment| segment.key.clone()).collect();
    // What is known of the blobs to be moved takes room that the index needs now.
    drop(survey);
    let compact_options = CompactOptions {
        memory_bytes: options.limits.memory_bytes.saturating_sub(PROGRAM_BYTES),
        spool_folder: options.spool_folder.clone(),
        segments_min: SEGMENTS_MIN,
        shrink,
    };
    let compacted = run.until_cancelled(sweep::compact(repository, &compact_options)).await;
    run.progress.done("index");
    compacted.context("compact the index")
}

/// Old versions come last: what was deleted just now is young, and stays for the next time.
async fn versions(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Option<Cleared>> {
    let Some(age) = options.versions else { return Ok(None) };
    run.progress.stage("versions", None, None);
    let what = if options.dry_run { Do::Plan } else { Do::Apply };
    let cleared = run
        .until_cancelled(old_versions::clear(repository, age, what, options.limits.connections))
        .await
        .context("clear old versions")?;
    run.progress.done("versions");
    Ok(cleared)
}

fn totals(survey: &Survey) -> Totals {
    let present = survey.packs.iter().filter_map(|pack| Some((pack, pack.present_bytes?)));
    let mut totals = Totals {
        snapshots: survey.snapshots.len() as u64,
        live_blobs: survey.live.blobs,
        live_raw_bytes: survey.live.raw_bytes,
        segments: survey.segments.len() as u64,
        ..Totals::default()
    };
    for (pack, bytes) in present {
        totals.packs += 1;
        totals.pack_bytes += bytes;
        if pack.marked.is_some() {
            totals.condemned_bytes += bytes;
        }
    }
    totals
}
