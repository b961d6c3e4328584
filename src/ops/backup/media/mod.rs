//! The media of a backup: rows in, shards out; what did not change is inherited unread.
//!
//! The rows of the database snapshot, sorted by path, are cut into groups. A group whose rows give the digest of a shard
//! of the last snapshot is that shard, without a look at any file. In the others only files whose row is new or has
//! changed are opened. So neither memory nor the traffic of an ordinary night depends on the number of files.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use futures::future::try_join;
use futures::stream::{self, FuturesOrdered, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::MediaReport;
use super::database::LiveRows;
use super::offsite::Offsite;
use super::patience::Patience;
use super::spool::Rows;
use crate::format::manifest::{EntryProblem, RowHasher, RowState, ShardCutter};
use crate::format::snapshot::{Media, MediaIncluded, Problem, ProblemKind};
use crate::format::{BlobId, ItemPath};
use crate::ops::Run;
use crate::repo::reader::Reader;
use crate::repo::writer::Writer;
use crate::synapse::media::{MediaItem, MediaKind, MediaRow, RowStates};

mod audit;
mod build;
mod previous;
mod shards;

pub(super) use audit::AuditShare;
use build::{Done, Group};
use previous::Previous;
use shards::ShardWriter;

/// Groups that are worked on at once.
const GROUPS_AT_ONCE: usize = 6;
/// Problems that a report names; the snapshot's shards have all.
pub(super) const PROBLEMS_NAMED_MAX: usize = 1_000;

/// What the media of a run are told.
pub(super) struct Task<'a> {
    pub(super) writer: &'a Writer,
    pub(super) reader: &'a Reader,
    /// Where files may be, best first; the first is the media store.
    pub(super) roots: Vec<PathBuf>,
    /// What a file's owner and mode are when its entry says nothing.
    pub(super) defaults: Defaults,
    /// The last snapshot's media, to inherit from.
    pub(super) previous: Option<&'a Media>,
    /// Open every file again.
    pub(super) full: bool,
    pub(super) included: MediaIncluded,
    /// Buckets where media may be that are in no folder here.
    pub(super) buckets: Vec<Offsite>,
    /// Items (`media/…`) whose loss is known and accepted: counted, no problems.
    pub(super) accepted_losses: &'a HashSet<String>,
    /// After this nothing more is read: the rest is deferred.
    pub(super) deadline: Option<Instant>,
    /// Which of the unchanged files are looked at in this run.
    pub(super) audit: Option<AuditShare>,
    /// Asked whether the rows of missing files are still there.
    pub(super) live: &'a LiveRows<'a>,
    /// With file systems that hang.
    pub(super) patience: Patience,
    pub(super) run: &'a Run<'a>,
}

/// Owner and mode of a file whose entry gives none.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
}

/// Counts that all groups share.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) report: MediaReport,
    pub(super) states: BTreeMap<String, u64>,
    pub(super) problems: Vec<Problem>,
    pub(super) problem_count: u64,
    /// Those that no shard names, for the document: of rows that make no path, and of files that were only looked at.
    pub(super) outside: Vec<Problem>,
    pub(super) outside_count: u64,
    pub(super) read_bytes: u64,
}

impl Counts {
    /// The problems for the document; of very many the first, and how many more.
    pub(super) fn for_document(&self) -> Vec<Problem> {
        let mut problems = self.outside.clone();
        let more = self.outside_count - problems.len() as u64;
        if more > 0 {
            problems.push(Problem {
                kind: ProblemKind::Missing,
                item: "media".into(),
                message: format!("{more} more media have problems of these kinds"),
            });
        }
        problems
    }
}

/// What became of the media.
#[derive(Debug)]
pub(super) struct StoredMedia {
    pub(super) media: Media,
    pub(super) counts: Counts,
}

impl Task<'_> {
    /// Record a problem and give it for the entry of a shard. One whose loss was accepted is only counted, but its entry
    /// carries it all the same: so the next run looks again, and it is a problem once more when it is accepted no longer.
    fn problem(&self, counts: &Mutex<Counts>, kind: ProblemKind, path: &str, mut message: String) -> EntryProblem {
        let accepted = self.note(counts, kind, path, message.clone()).is_none();
        if accepted {
            message.push_str(" (accepted)");
        }
        let state = if accepted { "accepted" } else { kind.as_str() };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.states.entry(state.to_owned()).or_default() += 1;
        EntryProblem { kind, message }
    }

    /// Record a problem that no shard has an entry for.
    fn problem_outside(&self, counts: &Mutex<Counts>, kind: ProblemKind, path: &str, message: String) {
        if let Some(problem) = self.note(counts, kind, path, message) {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.outside_count += 1;
            if counts.outside.len() < PROBLEMS_NAMED_MAX {
                counts.outside.push(problem);
            }
        }
    }

    /// Count it and tell of it; `None` when its loss was accepted.
    fn note(&self, counts: &Mutex<Counts>, kind: ProblemKind, path: &str, message: String) -> Option<Problem> {
        let item = format!("media/{path}");
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if kind != ProblemKind::Deferred && self.accepted_losses.contains(&item) {
            counts.report.accepted += 1;
            return None;
        }
        counts.problem_count += 1;
        counts.report.count(kind);
        let problem = Problem { kind, item, message };
        if counts.problems.len() < PROBLEMS_NAMED_MAX {
            // Beyond that nobody reads on; the snapshot has all.
            self.run.progress.problem(kind.as_str(), &problem.item, &problem.message);
            counts.problems.push(problem.clone());
        }
        Some(problem)
    }

    /// The time for media is over.
    fn is_out_of_time(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Send what is new, inherit what is not, and write the manifest.
pub(super) async fn store_media(task: &Task<'_>, rows: Rows, states: RowStates) -> anyhow::Result<StoredMedia> {
    let mut counts = Counts::default();
    counts.report.not_uploaded = states.not_uploaded;
    counts.report.quarantined = states.quarantined;
    let counts = Mutex::new(counts);
    let mut shards = ShardWriter::new(task.writer);
    build_all(task, rows, &counts, &mut shards).await?;
    let list = shards.finish().await.context("write the media manifest")?;
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let defaults = &task.defaults;
    let media = Media {
        root: ItemPath::from(task.roots[0].as_path()),
        mode: Some(defaults.mode),
        uid: Some(defaults.uid),
        gid: Some(defaults.gid),
        owner: defaults.owner.clone(),
        group: defaults.group.clone(),
        shards: list,
        files: counts.report.files,
        bytes: counts.report.bytes,
        counts: counts.states.clone().into_iter().chain(counts.report.notes()).collect(),
        included: task.included,
    };
    Ok(StoredMedia { media, counts })
}

/// Group after group, some at once, into shards in the order of their paths.
async fn build_all(task: &Task<'_>, rows: Rows, counts: &Mutex<Counts>, shards: &mut ShardWriter) -> anyhow::Result<()> {
    let previous = Previous::new(task.reader, task.previous.filter(|_| !task.full));
    let groups = stream::unfold(Some((rows, previous)), |state| async {
        let (mut rows, mut previous) = state?;
        match next_group(task, &mut rows, counts) {
            Ok(None) => None,
            Ok(Some(mut group)) => match previous.overlapping(&group.first(), &group.last()).await {
                Ok(overlapping) => {
                    group.overlapping = overlapping;
                    Some((Ok(group), Some((rows, previous))))
                }
                Err(error) => Some((Err(error), None)),
            },
            Err(error) => Some((Err(error), None)),
        }
    });
    // What is built is written by a future of its own: while that waits for memory, the groups that hold it must go on.
    let (out, mut built) = mpsc::channel(GROUPS_AT_ONCE);
    let build = async {
        let mut groups = std::pin::pin!(groups);
        let mut running = FuturesOrdered::new();
        let mut at_end = false;
        while !(at_end && running.is_empty()) {
            tokio::select! {
                Some((room, done)) = running.next(), if !running.is_empty() => {
                    let room: mpsc::OwnedPermit<Done> = room;
                    room.send(done?);
                }
                // There is room for what it comes to before a group is begun.
                next = with_room(&out, groups.as_mut()), if !at_end && running.len() < GROUPS_AT_ONCE => match next {
                    None => at_end = true,
                    Some((room, group)) => {
                        let group = group?;
                        running.push_back(async move { (room, build::build(task, group, counts).await) });
                    }
                },
            }
        }
        drop(out);
        anyhow::Ok(())
    };
    let write = async {
        while let Some(done) = built.recv().await {
            match done {
                Done::Inherited(shard) => shards.inherit(shard).await?,
                Done::Built {
                    shard,
                    first,
                    rows,
                    problems,
                    bytes,
                } => shards.push(shard, first, rows, problems, bytes).await?,
                Done::Empty => {}
            }
        }
        Ok(())
    };
    Box::pin(try_join(build, write)).await.map(|_| ())
}

/// The next group, and room for what it comes to. `None`: there is none, or nobody takes it any more.
async fn with_room<G>(out: &mpsc::Sender<Done>, mut groups: Pin<&mut impl Stream<Item = G>>) -> Option<(mpsc::OwnedPermit<Done>, G)> {
    let room = out.clone().reserve_owned().await.ok()?;
    Some((room, groups.next().await?))
}

/// The rows of the next shard.
fn next_group(task: &Task<'_>, rows: &mut Rows, counts: &Mutex<Counts>) -> anyhow::Result<Option<Group>> {
    let (mut group, mut cutter, mut hasher) = (Vec::new(), ShardCutter::new(), RowHasher::new());
    for row in rows.by_ref() {
        let row = match row.context("read the list of media back")? {
            MediaItem::File(row) => row,
            MediaItem::BadId { kind, text } => {
                bad_id(task, kind, &text, counts);
                continue;
            }
        };
        hasher.push(&row.path, &row_state(&row));
        let ends = cutter.push(&row.path, row.bytes);
        group.push(row);
        if ends {
            break;
        }
    }
    Ok((!group.is_empty()).then(|| Group {
        rows: group,
        digest: hasher.finish(),
        overlapping: Vec::new(),
    }))
}

/// A row that makes no path: nothing is opened, and what it says is lost stands in the document.
fn bad_id(task: &Task<'_>, kind: MediaKind, text: &str, counts: &Mutex<Counts>) {
    let counted = |count: fn(&mut MediaReport) -> &mut u64| {
        *count(&mut counts.lock().unwrap_or_else(PoisonError::into_inner).report) += 1;
    };
    if kind.heals() {
        return counted(|report| &mut report.thumbnails_missing);
    }
    counted(|report| &mut report.missing);
    let message = "its media id is not one that Synapse makes; nothing was opened".to_owned();
    task.problem_outside(counts, ProblemKind::Missing, text, message);
}

/// A row as the manifest remembers it.
fn row_state(row: &MediaRow) -> RowState {
    RowState {
        length: row.bytes,
        sha256: row.sha256.map(BlobId::from_bytes),
    }
}
