//! `adopt`: make late snapshots count, as all are in a repository that was mirrored object by object (G4).
//!
//! Each is checked and committed as a backup commits (B4 to B6): written again under a fresh key with a `not_after` of now. The
//! document, its id and its time stay as they were, byte by byte; the late original goes when it may be deleted. Every blob must be in a
//! pack that is there and named for it by a segment: a mirror that is not whole is told of here, not by the next restore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use super::items::stop_if_cancelled;
use super::{Error, Limits, Run};
use crate::format::snapshot::{Problem, ProblemKind, Snapshot};
use crate::format::{ObjectId, PackId};
use crate::repo::Repository;
use crate::repo::commit::{CheckFailed, commit_again};
use crate::repo::snapshots::{self, Loaded, SnapshotKey};
use crate::repo::sweep::{Holders, SurveyOptions};

/// Packs that are named in a message.
const PACKS_SHOWN: usize = 3;
/// How often one is tried when packs go while it is looked at: a prune moves what lives in them first.
const TRIES_MAX: usize = 3;

/// How.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Where rows are spooled that do not fit into memory.
    pub spool_folder: PathBuf,
}

/// What was done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Ids of those that count from now on, newest first.
    pub adopted: Vec<String>,
    /// Ids of those that were named and count already.
    pub listed_already: Vec<String>,
    /// Late originals that could not be deleted. They stay late, and stand in nobody's way.
    pub originals_left: u64,
    /// Those that cannot count any more, each with why.
    pub problems: Vec<Problem>,
}

/// Adopt the snapshots that these names mean, or all that are late.
pub async fn adopt(repository: &Repository, names: &[String], options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let (loaded, _) = run
        .until_cancelled(snapshots::load_all(repository))
        .await
        .context("load the snapshots")?;
    let mut originals: BTreeMap<ObjectId, Vec<SnapshotKey>> = BTreeMap::new();
    for one in loaded.iter().filter(|one| one.late) {
        originals.entry(one.snapshot.id).or_default().push(one.key.clone());
    }
    let mut report = Report::default();
    let chosen = choose(repository, names, loaded, &mut report, run).await?;
    run.progress.stage("adopt", None, Some(chosen.len() as u64));
    let look = Holders::look(repository, survey_options(options));
    let mut holders = run.until_cancelled(async { look.await.context("load the index") }).await?;
    let together: Vec<&Snapshot> = chosen.iter().map(|one| &one.snapshot).collect();
    if let [_, _, ..] = together.as_slice() {
        let walk = holders.walk_all(repository, &together);
        run.until_cancelled(async { walk.await.context("look for what the snapshots need") })
            .await?;
    }
    for one in &chosen {
        stop_if_cancelled(run)?;
        match run.until_cancelled(adopt_one(repository, one, &mut holders)).await? {
            None => {
                report.adopted.push(one.snapshot.id.to_string());
                report.originals_left += remove(repository, originals.get(&one.snapshot.id)).await;
            }
            Some(why) => {
                let problem = Problem {
                    kind: ProblemKind::Missing,
                    item: one.snapshot.id.to_string(),
                    message: why,
                };
                run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
                report.problems.push(problem);
            }
        }
        run.progress.advance("adopt", 0, 1);
    }
    run.progress.done("adopt");
    if let (true, Some(first)) = (report.adopted.is_empty(), report.problems.first()) {
        let hint = "what was mirrored was not whole: mirror it again, packs before snapshots (`verify --repair-index` writes an index that \
                    is missing); `cat` still gives single items";
        return Err(Error::failed(format!("snapshot {}: {}", first.item, first.message), hint).into());
    }
    Ok(report)
}

/// Late ones, newest first. `names` empty: all of them.
async fn choose(
    repository: &Repository,
    names: &[String],
    loaded: Vec<Loaded>,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<Vec<Loaded>> {
    let mut chosen: Vec<Loaded> = Vec::new();
    for name in names {
        let found = run.until_cancelled(snapshots::find(repository, name, true)).await?;
        if !found.late {
            report.listed_already.push(found.snapshot.id.to_string());
        } else if chosen.iter().all(|one| one.snapshot.id != found.snapshot.id) {
            chosen.push(found);
        }
    }
    if names.is_empty() {
        chosen = snapshots::unique(repository, loaded);
        chosen.retain(|one| one.late);
    }
    chosen.sort_by_key(|one| std::cmp::Reverse((one.time(), one.snapshot.id)));
    Ok(chosen)
}

/// As a prune looks.
fn survey_options(options: &Options) -> SurveyOptions {
    SurveyOptions {
        memory_bytes: options.limits.memory_bytes.saturating_sub(super::prune::PROGRAM_BYTES),
        connections: options.limits.connections,
        spool_folder: options.spool_folder.clone(),
        can_open_data: false,
        forgotten: BTreeSet::new(),
        reseal: None,
        known: Arc::default(),
        frames: false,
    }
}

/// B4 to B6 for one. Gives why it cannot count, if it cannot: what is not authentic stays late.
async fn adopt_one(repository: &Repository, one: &Loaded, holders: &mut Holders) -> anyhow::Result<Option<String>> {
    let Some((one, object)) = snapshots::load_object(repository, &one.key).await? else {
        return Ok(Some("it was forgotten meanwhile".into()));
    };
    if let Some(reason) = repository.doubt(&one) {
        return Ok(Some(format!("it is not authentic: {reason}")));
    }
    let mut tries = 1;
    loop {
        let held = holders.of(repository, &one.snapshot).await?;
        let why = match held.lost {
            0 => match commit_again(repository, &held.packs.into(), &object).await {
                Ok(_) => return Ok(None),
                Err(CheckFailed::Gone(packs)) => gone(&packs),
                Err(CheckFailed::Error(error)) => {
                    return Err(anyhow::Error::from(error).context(format!("adopt snapshot {}", one.snapshot.id)));
                }
            },
            lost => format!("{lost} of its blobs are in no pack that is there and indexed"),
        };
        // What was moved since the index was read is found by another look.
        if tries == TRIES_MAX || !holders.look_again(repository).await? {
            return Ok(Some(why));
        }
        tries += 1;
    }
}

/// The late objects of a snapshot that counts now. Gives how many could not be deleted.
async fn remove(repository: &Repository, originals: Option<&Vec<SnapshotKey>>) -> u64 {
    let mut left = 0;
    for original in originals.into_iter().flatten() {
        if let Err(error) = repository.store().delete(&original.key).await {
            tracing::debug!(key = original.key, %error, "the late original stays");
            left += 1;
        }
    }
    left
}

fn gone(packs: &[PackId]) -> String {
    let shown: Vec<String> = packs.iter().take(PACKS_SHOWN).map(ToString::to_string).collect();
    let more = if packs.len() > PACKS_SHOWN { " …" } else { "" };
    format!("{} of its packs are gone: {}{more}", packs.len(), shown.join(", "))
}
