//! `rekey`: seal anew, to the recipients of the settings and the writer key at hand, what was sealed to others.
//!
//! Snapshots, index segments and packs of metadata always, packs of data on demand. Objects never change: each is written
//! again under a fresh key, and the old one goes by the delete order, packs by a marker and a prune after the grace period. Run
//! again after it was cut short, it goes on where it was. Backups, restores and prunes may run beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use super::items::stop_if_cancelled;
use super::{Error, Limits, Run};
use crate::format::snapshot::{Problem, ProblemKind};
use crate::format::{PackId, keys};
use crate::repo::sweep::{self, Applied, ApplyOptions, Plan, Refused, Reseal, Survey, SurveyOptions};
use crate::repo::{self, Repository};

mod snapshots;

pub use snapshots::Rewritten;

/// What a rekey is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Packs of databases and media too: reads and writes all of them, and needs an identity.
    pub packs: bool,
    /// Find out what would be done; write and delete nothing.
    pub dry_run: bool,
    /// Where rows are spooled that do not fit into memory.
    pub spool_folder: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Nothing was written.
    pub dry_run: bool,
    /// Packs of data were to be sealed anew as well.
    pub packs: bool,
    /// To whom, from the settings.
    pub recipients: Vec<String>,
    /// The writer key's public half.
    pub writer: Option<String>,
    /// Who signs.
    pub signer: Option<String>,
    /// What became of the snapshots.
    pub snapshots: Rewritten,
    /// Segments of the index that were written anew.
    pub segments: u64,
    /// What was to be done with the packs.
    pub plan: Option<Plan>,
    /// What was done of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// What stays as it was: exit code 3.
    pub problems: Vec<Problem>,
}

/// Seal anew.
pub async fn rekey(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    refuse(repository, options)?;
    anew(repository, options, run).await
}

/// What may be done is done: nothing below depends on whether it is sealed.
pub(super) async fn anew(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let (survey, plan) = look(repository, options, run).await?;
    let keyring = repository.keyring();
    let mut report = Report {
        dry_run: options.dry_run,
        packs: options.packs,
        recipients: keyring.recipients.iter().map(ToString::to_string).collect(),
        writer: keyring.writer.as_ref().map(|writer| writer.recipient().to_string()),
        signer: keyring.writer.as_ref().map(|writer| writer.signer().to_string()),
        plan: Some(plan.clone()),
        ..Report::default()
    };
    if options.dry_run {
        report.snapshots.resealed = survey.snapshots.len() as u64;
        report.segments = run.until_cancelled(sweep::segments_there(repository)).await?.len() as u64;
        return Ok(report);
    }
    segments(repository, &mut report, run).await?;
    // Before any pack is marked, so that what they rely on is there and stays.
    report.snapshots = snapshots::rewrite(repository, &relied(&survey).into(), &mut report.problems, run).await?;
    packs(repository, &plan, &survey, options, &mut report, run).await?;
    Ok(report)
}

/// What can be refused without a request.
fn refuse(repository: &Repository, options: &Options) -> anyhow::Result<()> {
    let keyring = repository.keyring();
    if !repository.info().sealed {
        let hint =
            "a repository is sealed from its beginning or never: `init` another one with `encryption.recipients`, and `copy` into it";
        return Err(Error::usage(format!("the repository at {} is not sealed", repository.url()), hint).into());
    }
    if options.packs && keyring.identities.is_empty() {
        return Err(repo::Error::NoKey {
            what: "the content".into(),
            needs: repo::keyring::Needs::Identity,
        }
        .into());
    }
    Ok(())
}

/// P1 to P5, and what follows from it.
async fn look(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<(Survey, Plan)> {
    run.progress.stage("look", None, None);
    let survey_options = SurveyOptions {
        memory_bytes: options.limits.memory_bytes.saturating_sub(super::prune::PROGRAM_BYTES),
        connections: options.limits.connections,
        spool_folder: options.spool_folder.clone(),
        can_open_data: options.packs,
        forgotten: BTreeSet::new(),
        known: Arc::default(),
        frames: false,
        reseal: Some(Reseal::of(repository, options.packs)),
    };
    let survey = run.until_cancelled(sweep::survey(repository, &survey_options)).await;
    let survey = survey.context("look at what is there")?;
    run.progress.done("look");
    let plan = sweep::plan_reseal(&survey).map_err(|refused| refused_by(&refused))?;
    Ok((survey, plan))
}

/// The same signs that keep a prune from deleting anything.
fn refused_by(refused: &Refused) -> Error {
    let hint = refused
        .hint()
        .replace("nothing was deleted", "nothing was touched")
        .replace("prune", "rekey");
    Error::failed(refused.to_string(), hint)
}

/// Every pack with something that some snapshot needs.
fn relied(survey: &Survey) -> BTreeSet<PackId> {
    let needed = survey.packs.iter().filter(|pack| pack.kept.blobs + pack.rescued.blobs > 0);
    needed.map(|pack| pack.id).collect()
}

async fn segments(repository: &Repository, report: &mut Report, run: &Run<'_>) -> anyhow::Result<()> {
    run.progress.stage("index", None, None);
    let done = run.until_cancelled(sweep::reseal_segments(repository)).await;
    let done = done.context("seal the index anew")?;
    run.progress.done("index");
    report.segments = done.resealed;
    for (key, error) in done.damaged {
        let message = format!("it stays as it is: {:#}", anyhow::Error::from(error));
        tell(report, run, ProblemKind::Damaged, key, message);
    }
    Ok(())
}

/// P8, moving and marking.
async fn packs(
    repository: &Repository,
    plan: &Plan,
    survey: &Survey,
    options: &Options,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<()> {
    stop_if_cancelled(run)?;
    run.progress.stage("packs", None, None);
    let apply_options = ApplyOptions {
        memory_bytes: options.limits.memory_bytes,
        connections: options.limits.connections,
        cancel: run.cancel.clone(),
    };
    let applied = sweep::apply(repository, plan, survey, &apply_options).await;
    stop_if_cancelled(run)?;
    let applied = applied.context("seal the packs anew")?;
    run.progress.done("packs");
    for pack in &applied.damaged {
        let message = "a blob that a snapshot needs is damaged in this pack or sealed to others; it stays as it is".to_owned();
        tell(report, run, ProblemKind::Damaged, keys::pack(*pack), message);
    }
    if let Some(first) = applied.not_opened.first() {
        let message = format!(
            "{} packs are sealed to keys of which none is at hand: they stay as they are, and whoever had those keys still opens them",
            applied.not_opened.len()
        );
        tell(report, run, ProblemKind::Unreadable, keys::pack(*first), message);
    }
    report.applied = Some(applied);
    Ok(())
}

fn tell(report: &mut Report, run: &Run<'_>, kind: ProblemKind, item: String, message: String) {
    run.progress.problem(kind.as_str(), &item, &message);
    report.problems.push(Problem { kind, item, message });
}
