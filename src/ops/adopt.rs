//! `adopt`: make late snapshots count, as all are in a repository that was mirrored object by object (G4).
//!
//! Each is checked and committed as a backup commits (B4 to B6): written again under a fresh key with a `not_after` of now. The
//! document, its id and its time stay as they were, byte by byte; the late original goes when it may be deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use super::items::stop_if_cancelled;
use super::{Error, Limits, Run};
use crate::format::snapshot::{Problem, ProblemKind};
use crate::format::{BlobId, ObjectId, PackId};
use crate::repo::catalog::{self, Catalog};
use crate::repo::commit::{CheckFailed, commit_again};
use crate::repo::reader::Reader;
use crate::repo::snapshots::{self, Loaded, SnapshotKey};
use crate::repo::walk::{Sink, Walk};
use crate::repo::{self, Repository};

/// Packs that are named in a message.
const PACKS_SHOWN: usize = 3;

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
pub async fn adopt(repository: &Repository, names: &[String], limits: Limits, run: &Run<'_>) -> anyhow::Result<Report> {
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
    let mut places = Places::new(repository, limits).await?;
    run.progress.stage("adopt", None, Some(chosen.len() as u64));
    for one in &chosen {
        stop_if_cancelled(run)?;
        match run.until_cancelled(adopt_one(repository, one, &mut places)).await? {
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
        let hint = "what was mirrored was not whole: mirror it again, packs before snapshots; `cat` still gives single items";
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

/// B4 to B6 for one. Gives why it cannot count, if it cannot: what is not authentic stays late.
async fn adopt_one(repository: &Repository, one: &Loaded, places: &mut Places) -> anyhow::Result<Option<String>> {
    let Some((one, object)) = snapshots::load_object(repository, &one.key).await? else {
        return Ok(Some("it was forgotten meanwhile".into()));
    };
    if let Some(reason) = repository.doubt(&one) {
        return Ok(Some(format!("it is not authentic: {reason}")));
    }
    let relied = match places.of(repository, &one).await? {
        Ok(packs) => packs,
        Err(lost) => return Ok(Some(format!("{lost} of its blobs are gone"))),
    };
    match commit_again(repository, &relied, &object).await {
        Ok(_) => Ok(None),
        Err(CheckFailed::Gone(packs)) => Ok(Some(gone(&packs))),
        Err(CheckFailed::Error(error)) => Err(anyhow::Error::from(error).context(format!("adopt snapshot {}", one.snapshot.id))),
    }
}

/// Where blobs are now: the packs that a document names may have been repacked since it was written.
struct Places {
    limits: Limits,
    present: catalog::Presence,
    /// Read when a document names a pack that is gone.
    index: Option<Arc<Catalog>>,
}

impl Places {
    async fn new(repository: &Repository, limits: Limits) -> anyhow::Result<Self> {
        Ok(Self {
            limits,
            present: catalog::presence(repository).await?,
            index: None,
        })
    }

    /// The packs to rely on, or how many blobs are in none.
    async fn of(&mut self, repository: &Repository, one: &Loaded) -> anyhow::Result<Result<BTreeSet<PackId>, u64>> {
        let named: BTreeSet<PackId> = one.snapshot.packs.iter().copied().collect();
        if named.iter().all(|pack| self.present.packs.contains_key(pack)) {
            return Ok(Ok(named));
        }
        let half = self.limits.memory_bytes / 2;
        if self.index.is_none() {
            let entries_bytes = usize::try_from(half).unwrap_or(usize::MAX);
            self.index = Some(Arc::new(catalog::load(repository, entries_bytes).await?));
        }
        let index = self.index.clone().unwrap_or_default();
        let reader = Reader::with_catalog(repository, Arc::clone(&index), half, self.limits.connections);
        let mut found = Found {
            index,
            packs: BTreeSet::new(),
            lost: 0,
        };
        let mut walk = Walk::new(half / 8);
        walk.begin(&one.snapshot, &mut found)?;
        walk.finish(&reader, &mut found).await?;
        Ok(if found.lost == 0 { Ok(found.packs) } else { Err(found.lost) })
    }
}

/// A pack for each blob.
struct Found {
    index: Arc<Catalog>,
    packs: BTreeSet<PackId>,
    lost: u64,
}

impl Sink for Found {
    fn blob(&mut self, id: &BlobId, _: u32) -> repo::Result<()> {
        let usable = self.index.usable(id, |_| true).map(|location| location.pack);
        // One that is condemned but still there is copied by the check.
        let there = |pack: &PackId| self.index.pack(*pack).is_some_and(|pack| pack.present_bytes == Some(pack.bytes));
        let condemned = || self.index.copies(id).iter().map(|location| location.pack).find(there);
        match usable.or_else(condemned) {
            Some(pack) => {
                self.packs.insert(pack);
            }
            None => self.lost += 1,
        }
        Ok(())
    }

    fn unreadable(&mut self, _: &BlobId, _: repo::Error) -> repo::Result<()> {
        self.lost += 1;
        Ok(())
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
