//! Is everything there that the snapshots name, and is it what it should be?
//!
//! Structure is checked from the index, the listings and the lists alone; with `read_data` packs are read whole, every
//! frame is decoded and every blob hashed. What is damaged is told in terms of what is lost: which item, which snapshots.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde::Serialize;

use super::{Limits, Run, Tools, signers};
use crate::format::snapshot::{Problem, ProblemKind, Snapshot};
use crate::format::{BlobId, PackId};
use crate::repo::catalog::Catalog;
use crate::repo::reader::{Reader, UNNAMED_MAX};
use crate::repo::{Repository, snapshots};

mod dumps;
mod packs;
mod repair;
mod structure;

pub use repair::Repaired;

use structure::Listed;

/// What a verification is told.
#[derive(Clone)]
pub struct Options {
    /// One snapshot; `None` is all of them.
    pub snapshot: Option<String>,
    /// `--read-data[=SHARE]`: open and hash the packs, or a share of them.
    pub read_data: Option<ReadData>,
    /// `--repair-index`: name again, in new segments, what no segment names.
    pub repair_index: bool,
    /// With all data read, `pg_restore` is asked as well whether the dumps are whole; found by these.
    pub tools: Option<Tools>,
    /// Bounds.
    pub limits: Limits,
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadData {
    /// This share of the packs (1 to 100), the same ones every time.
    Percent(u8),
    /// One of so many parts, another one every day: after as many days all have been read.
    OneOf(u32),
}

impl ReadData {
    fn is_all(self) -> bool {
        matches!(self, Self::Percent(100) | Self::OneOf(1))
    }
}

/// What was looked at. Any problem is exit code 1.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs that they rely on.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Blobs that the snapshots need (counted anew for each).
    pub blobs: u64,
    /// Blobs that were read, decompressed and hashed.
    pub blobs_read: u64,
    /// Dump streams that `pg_restore` has read to their end.
    pub streams_read: u64,
    /// What `--repair-index` has named again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    /// What is damaged and what it costs.
    pub problems: Vec<Problem>,
}

/// Findings that are named; of more only the number is told.
const FINDINGS_MAX: usize = 10_000;

/// Findings, each with the snapshots that it concerns.
#[derive(Debug, Default)]
struct Findings {
    by_item: BTreeMap<(String, String), BTreeSet<String>>,
    /// Beyond [`FINDINGS_MAX`], counted for each snapshot.
    more: u64,
}

impl Findings {
    fn add(&mut self, item: impl Into<String>, message: impl Into<String>, snapshot: Option<&Snapshot>) {
        let found = (item.into(), message.into());
        if self.by_item.len() >= FINDINGS_MAX && !self.by_item.contains_key(&found) {
            self.more += 1;
            return;
        }
        let snapshots = self.by_item.entry(found).or_default();
        snapshots.extend(snapshot.map(|snapshot| snapshot.id.to_string()[..8].to_owned()));
    }

    /// Is something wrong with this item already?
    fn names(&self, item: &str) -> bool {
        let from = (item.to_owned(), String::new());
        self.by_item.range(from..).next().is_some_and(|((first, _), _)| first == item)
    }

    /// A snapshot that is not authentic, as far as the keys at hand can tell.
    fn add_doubt(&mut self, repository: &Repository, loaded: &snapshots::Loaded) {
        if let Some(reason) = repository.doubt(loaded) {
            self.add(loaded.key.key.clone(), format!("it is not authentic: {reason}"), None);
        }
    }

    fn problems(self) -> Vec<Problem> {
        let name = |(item, message): (String, String), snapshots: BTreeSet<String>| {
            let concerned: Vec<String> = snapshots.into_iter().collect();
            let message = match concerned.as_slice() {
                [] => message,
                [one] => format!("{message} (snapshot {one})"),
                several => format!("{message} (snapshots {})", several.join(", ")),
            };
            Problem {
                kind: ProblemKind::Damaged,
                item,
                message,
            }
        };
        let more = (self.more > 0).then(|| Problem {
            kind: ProblemKind::Damaged,
            item: "repository".into(),
            message: format!("{} more findings, counted for each snapshot", self.more),
        });
        let named = self.by_item.into_iter().map(|(found, snapshots)| name(found, snapshots));
        named.chain(more).collect()
    }
}

/// Blobs whose copy in a pack was read and is bad.
type BadCopies = BTreeSet<(PackId, BlobId)>;

/// Check the repository's structure, and with `read_data` every byte.
pub async fn verify(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    run.until_cancelled(check(repository, options, run)).await
}

async fn check(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let mut findings = Findings::default();
    let snapshots = load(repository, options, &mut findings).await?;
    let mut report = Report::default();
    if options.repair_index {
        report.repaired = Some(repair::repair(repository, options.limits, &mut findings, run).await?);
    }
    let reader = Reader::open(repository, options.limits.memory_bytes, options.limits.connections).await?;
    let catalog = reader.catalog();
    let Listed { gone, unnamed } = structure::check_packs(repository, &catalog, &snapshots, &mut findings).await?;
    let relied = relied(&snapshots, &catalog, &gone);
    damaged_segments(&catalog, options.repair_index, &mut findings);
    report.snapshots = snapshots.len() as u64;
    report.packs = relied.len() as u64;
    let bad = match options.read_data {
        Some(share) => {
            let chosen = packs::choose(repository, &relied, share).await?;
            packs::read(
                repository,
                &catalog,
                chosen,
                options.limits.memory_bytes,
                &mut report,
                &mut findings,
                run,
            )
            .await?
        }
        None => BadCopies::new(),
    };
    let mut any_lost = false;
    for snapshot in &snapshots {
        let lost = structure::check_snapshot(&reader, snapshot, &bad, &mut report, &mut findings, run)
            .await
            .with_context(|| format!("check snapshot {}", snapshot.id))?;
        any_lost |= lost;
        // Where nothing is lost, `prune` has moved what was in them; a snapshot that was copied here names those of its origin.
        let is_ours = snapshot.repository == repository.info().id;
        for id in snapshot.packs.iter().filter(|id| lost && is_ours && gone.contains(id)) {
            findings.add(format!("packs/{id}"), "it is gone", Some(snapshot));
        }
    }
    unnamed_blobs(reader.unnamed(), &mut findings);
    if any_lost && unnamed > 0 && !options.repair_index {
        // What prune moved is where no list says, but in the segment that the move wrote.
        let message =
            "are named by no segment, and what is lost may be in them: `verify --repair-index` looks, before anything is given up";
        findings.add("index", format!("{unnamed} packs {message}"), None);
    }
    if let (Some(share), Some(tools)) = (options.read_data, &options.tools)
        && share.is_all()
    {
        dumps::read(&reader, &snapshots, tools, &mut report, &mut findings, run).await?;
    }
    report.problems = findings.problems();
    for problem in &report.problems {
        run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
    }
    Ok(report)
}

/// The packs that hold what the snapshots need: those they name, and when some of these are gone, all others too, since
/// `prune` may have moved blobs into them.
fn relied(snapshots: &[Snapshot], catalog: &Catalog, gone: &BTreeSet<PackId>) -> BTreeSet<PackId> {
    let named = snapshots.iter().flat_map(|snapshot| snapshot.packs.iter().copied());
    let mut relied: BTreeSet<PackId> = named.filter(|id| !gone.contains(id)).collect();
    if !gone.is_empty() {
        let usable = catalog.packs().iter().filter(|pack| pack.usable());
        relied.extend(usable.map(|pack| pack.id));
    }
    relied
}

/// A segment that cannot be read costs nothing but requests as long as the packs have their tables. That others name every
/// pack says nothing: a compacted segment is cut by blob.
fn damaged_segments(catalog: &Catalog, repaired: bool, findings: &mut Findings) {
    let cost = if repaired {
        "nothing is lost with it: every pack is named by another segment, so this object can be deleted"
    } else {
        "what it names is found by the tables of its packs; `verify --repair-index` names it again"
    };
    for (key, reason) in &catalog.damaged {
        findings.add(key.clone(), format!("{reason}; {cost}"), None);
    }
}

/// Nothing is lost with them, but `prune` and `adopt` go by the index.
fn unnamed_blobs(count: usize, findings: &mut Findings) {
    if count > 0 {
        let at_least = if count < UNNAMED_MAX { "" } else { "at least " };
        let message = format!(
            "{at_least}{count} blobs that snapshots need are named by no segment, and found by the tables of their packs; \
             `verify --repair-index` names them again"
        );
        findings.add("index", message, None);
    }
}

/// The snapshots to check; those that cannot be read are findings.
async fn load(repository: &Repository, options: &Options, findings: &mut Findings) -> anyhow::Result<Vec<Snapshot>> {
    if let Some(name) = &options.snapshot {
        let found = snapshots::find(repository, name, true).await?;
        findings.add_doubt(repository, &found);
        return Ok(vec![found.snapshot]);
    }
    let (loaded, damaged) = snapshots::load_all(repository).await?;
    let loaded = snapshots::unique(repository, loaded);
    for (key, error) in damaged {
        findings.add(key.key, format!("this snapshot is lost: {:#}", anyhow::Error::from(error)), None);
    }
    for one in &loaded {
        findings.add_doubt(repository, one);
    }
    signers::warn(repository, &loaded);
    Ok(loaded.into_iter().map(|one| one.snapshot).collect())
}

/// Is this blob in a pack that is there, whole and not known to be bad?
fn good_copy(catalog: &Catalog, id: &BlobId, length: u32, bad: &BadCopies) -> bool {
    catalog.copies(id).iter().any(|location| {
        let present = catalog
            .pack(location.pack)
            .is_some_and(|pack| pack.present_bytes == Some(pack.bytes));
        present && location.blob.raw_length == length && !bad.contains(&(location.pack, *id))
    })
}
