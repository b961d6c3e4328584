//! One group of rows becomes a shard: inherited whole, or entry by entry from the last snapshot, or read from disk.
//!
//! Only a row that is new, has changed or had a problem makes us open its file. What is odd about a file that was read is
//! compared here with what the database says of it; how groups are cut and written is decided by the neighbours.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::audit;
use super::previous::is_damage;
use super::{Counts, Task, row_state};
use crate::format::manifest::{MediaBlob, MediaEntry, RowDigest, Shard, ShardRef, decode_shard};
use crate::format::snapshot::ProblemKind;
use crate::format::{ItemPath, PackId, PackKind};
use crate::ops::backup::files::{self, Outcome, SavedFile};
use crate::ops::backup::offsite;
use crate::ops::items::DELETED;
use crate::repo::reader::Wanted;
use crate::synapse::media::MediaRow;

/// The rows of one shard-to-be and the old shards that may know their files.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) rows: Vec<MediaRow>,
    pub(super) digest: RowDigest,
    pub(super) overlapping: Vec<ShardRef>,
}

impl Group {
    pub(super) fn first(&self) -> ItemPath {
        self.rows
            .first()
            .map_or_else(|| ItemPath::from(""), |row| ItemPath::from(row.path.as_str()))
    }

    pub(super) fn last(&self) -> ItemPath {
        self.rows
            .last()
            .map_or_else(|| ItemPath::from(""), |row| ItemPath::from(row.path.as_str()))
    }
}

/// What a group came to.
#[derive(Debug)]
pub(super) enum Done {
    /// The old shard, unread.
    Inherited(ShardRef),
    /// A new one.
    Built {
        shard: Shard,
        first: ItemPath,
        rows: RowDigest,
        problems: u64,
        bytes: u64,
    },
    /// Nothing of it is to be saved.
    Empty,
}

/// An entry and the packs of its blobs, before the shard's own list of packs exists.
type Placed = (MediaEntry, Vec<PackId>);

pub(super) async fn build(task: &Task<'_>, group: Group, counts: &Mutex<Counts>) -> anyhow::Result<Done> {
    if let Some(shard) = inherit(task, &group) {
        note_inherited(&shard, group.rows.len() as u64, counts);
        audit::audit(task, group.rows, counts).await?;
        task.run.progress.advance("media", shard.bytes, shard.count);
        return Ok(Done::Inherited(shard));
    }
    let known = load_known(task, &group).await?;
    let mut placed: Vec<Option<Placed>> = Vec::with_capacity(group.rows.len());
    let mut to_read = Vec::new();
    for (place, row) in group.rows.iter().enumerate() {
        let kept = known
            .get(&ItemPath::from(row.path.as_str()))
            .and_then(|known| keep(task, row, known));
        if kept.is_none() {
            to_read.push(place);
        }
        placed.push(kept);
    }
    let kept = placed.iter().flatten().count() as u64;
    let kept_bytes: u64 = placed.iter().flatten().map(|(entry, _)| entry.bytes).sum();
    task.run.progress.advance("media", kept_bytes, kept);
    counts.lock().unwrap_or_else(PoisonError::into_inner).report.unchanged += kept;
    let unread = (0..group.rows.len())
        .filter(|place| placed[*place].is_some())
        .map(|place| group.rows[place].clone())
        .collect();
    audit::audit(task, unread, counts).await?;
    read(task, &group, &to_read, &mut placed, counts).await?;
    Ok(assemble(&group, placed, counts))
}

/// A shard without problems has an entry for each row but those of thumbnails that were missing.
fn note_inherited(shard: &ShardRef, rows: u64, counts: &Mutex<Counts>) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.report.files += shard.count;
    counts.report.unchanged += shard.count;
    counts.report.thumbnails_missing += rows.saturating_sub(shard.count);
    counts.report.bytes += shard.bytes;
    *counts.states.entry("present".into()).or_default() += shard.count;
}

/// The old shard, when its rows are these rows, nothing of it is open, and everything it relies on is usable (B1).
fn inherit(task: &Task<'_>, group: &Group) -> Option<ShardRef> {
    let first = group.first();
    let shard = group
        .overlapping
        .iter()
        .find(|shard| shard.first == first && shard.rows == group.digest)?;
    let whole = shard.problems == 0 && shard.packs.iter().all(|pack| task.writer.usable(*pack));
    if task.full || !whole {
        return None;
    }
    let pack = task.writer.known(&shard.blob, Some(shard.pack))?;
    Some(ShardRef { pack, ..shard.clone() })
}

/// The entries of the overlapping old shards. One that cannot be read is passed over: its files are opened again.
async fn load_known(task: &Task<'_>, group: &Group) -> anyhow::Result<HashMap<ItemPath, Placed>> {
    let mut known = HashMap::new();
    if task.full || group.overlapping.is_empty() {
        return Ok(known);
    }
    let wanted: Vec<Wanted> = group
        .overlapping
        .iter()
        .map(|shard| Wanted {
            id: shard.blob,
            length: shard.length,
            hint: Some(shard.pack),
        })
        .collect();
    for blob in task.reader.fetch(&wanted).await? {
        let shard = blob.map_err(anyhow::Error::from).and_then(|bytes| Ok(decode_shard(&bytes)?));
        match shard {
            Ok(Shard { packs, entries }) => known.extend(entries.into_iter().map(|entry| {
                let used = entry.blobs.iter().map(|blob| packs[blob.pack as usize]).collect();
                (entry.path.clone(), (entry, used))
            })),
            Err(error) if is_damage(&error) => tracing::warn!("a media shard cannot be read ({error:#}); its files are opened again"),
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// An old entry is good when its row is the same, nothing is wrong with it, and its blobs are in usable packs.
fn keep(task: &Task<'_>, row: &MediaRow, (entry, packs): &Placed) -> Option<Placed> {
    if entry.problem.is_some() || entry.sha256.is_none() || entry.row != row_state(row) {
        return None;
    }
    let packs: Option<Vec<PackId>> = entry
        .blobs
        .iter()
        .zip(packs)
        .map(|(blob, pack)| {
            if task.writer.usable(*pack) {
                Some(*pack)
            } else {
                task.writer.known(&blob.id, None)
            }
        })
        .collect();
    Some((entry.clone(), packs?))
}

/// Read the files of these rows, batch by batch, and look elsewhere for those that are not in a folder here.
async fn read(
    task: &Task<'_>,
    group: &Group,
    to_read: &[usize],
    placed: &mut [Option<Placed>],
    counts: &Mutex<Counts>,
) -> anyhow::Result<()> {
    let sizes: Vec<u64> = to_read.iter().map(|&place| group.rows[place].bytes.unwrap_or(0)).collect();
    let mut missing = Vec::new();
    for batch in files::batches(&sizes) {
        let places = &to_read[batch];
        if task.is_out_of_time() {
            for &place in places {
                placed[place] = Some(defer(task, &group.rows[place], counts));
            }
            continue;
        }
        let paths = places
            .iter()
            .map(|&place| (candidates(task, &group.rows[place]), group.rows[place].bytes.unwrap_or(0)))
            .collect();
        let outcomes = files::save_batch(task.writer, PackKind::Media, paths, &task.patience)
            .await
            .context("send media")?;
        for (&place, outcome) in places.iter().zip(outcomes) {
            match outcome {
                Outcome::Missing => missing.push(place),
                outcome => placed[place] = Some(settle(task, &group.rows[place], outcome, counts).await?),
            }
        }
    }
    let missing = read_offsite(task, group, missing, placed, counts).await?;
    look_again(task, group, missing, placed, counts).await
}

/// What came of one file, as an entry.
async fn settle(task: &Task<'_>, row: &MediaRow, outcome: Outcome, counts: &Mutex<Counts>) -> anyhow::Result<Placed> {
    match outcome {
        Outcome::Saved(file) => {
            task.run.progress.advance("media", file.bytes, 1);
            saved(task, row, file, counts).await
        }
        Outcome::Failed(kind, message) => Ok(lost(task, row, kind, message, counts)),
        Outcome::Missing => Ok(lost(task, row, ProblemKind::Missing, NO_FILE.to_owned(), counts)),
    }
}

const NO_FILE: &str = "the database has a row for it, but there is no file";

/// Read from the media buckets what no folder has; gives what they do not have either.
async fn read_offsite(
    task: &Task<'_>,
    group: &Group,
    missing: Vec<usize>,
    placed: &mut [Option<Placed>],
    counts: &Mutex<Counts>,
) -> anyhow::Result<Vec<usize>> {
    if task.buckets.is_empty() {
        return Ok(missing);
    }
    let mut left = Vec::new();
    // All of them first: to settle one may wait for a block that another brings.
    let reads: Vec<(usize, Outcome)> =
        stream::iter(missing)
            .map(|place| async move {
                Ok::<_, anyhow::Error>((place, offsite::save(task.writer, &task.buckets, &group.rows[place].path).await?))
            })
            .buffer_unordered(OBJECTS_AT_ONCE)
            .try_collect()
            .await?;
    for (place, outcome) in reads {
        match outcome {
            Outcome::Missing => left.push(place),
            Outcome::Failed(..) if group.rows[place].kind.heals() => left.push(place),
            outcome => placed[place] = Some(settle(task, &group.rows[place], outcome, counts).await?),
        }
    }
    Ok(left)
}

/// Objects of a media bucket that one group reads at once.
pub(super) const OBJECTS_AT_ONCE: usize = 4;

/// Synapse deletes the file and then the row: a row that is gone by now is a deletion that went on meanwhile.
async fn look_again(
    task: &Task<'_>,
    group: &Group,
    missing: Vec<usize>,
    placed: &mut [Option<Placed>],
    counts: &Mutex<Counts>,
) -> anyhow::Result<()> {
    let there = still_there(task, missing.iter().map(|&place| &group.rows[place])).await?;
    for place in missing {
        let row = &group.rows[place];
        task.run.progress.advance("media", 0, 1);
        if row.kind.heals() {
            counts.lock().unwrap_or_else(PoisonError::into_inner).report.thumbnails_missing += 1;
        } else if there.contains(&row.path) {
            placed[place] = Some(lost(task, row, ProblemKind::Missing, NO_FILE.to_owned(), counts));
        } else {
            // The dump has its row all the same: a drill must know.
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.states.entry(DELETED.to_owned()).or_default() += 1;
            counts.report.deleted += 1;
        }
    }
    Ok(())
}

/// The paths of these rows that the live database still has; thumbnails are not asked for.
pub(super) async fn still_there<'a>(task: &Task<'_>, rows: impl Iterator<Item = &'a MediaRow>) -> anyhow::Result<HashSet<String>> {
    let asked = rows
        .filter(|row| !row.kind.heals())
        .map(|row| (row.kind, row.path.clone()))
        .collect();
    task.live.still_there(asked).await.context("look for rows whose files are missing")
}

/// Left for the next run, since the time for media is over.
fn defer(task: &Task<'_>, row: &MediaRow, counts: &Mutex<Counts>) -> Placed {
    counts.lock().unwrap_or_else(PoisonError::into_inner).report.deferred += 1;
    let message = "the time for media (`limits.media_time`) was over; the next run goes on from here".to_owned();
    lost(task, row, ProblemKind::Deferred, message, counts)
}

fn candidates(task: &Task<'_>, row: &MediaRow) -> Vec<PathBuf> {
    task.roots.iter().map(|root| root.join(&row.path)).collect()
}

/// The entry of a file that was read, with what is odd about it.
async fn saved(task: &Task<'_>, row: &MediaRow, file: SavedFile, counts: &Mutex<Counts>) -> anyhow::Result<Placed> {
    let problem = odd(row, &file).map(|(kind, message)| task.problem(counts, kind, &row.path, message));
    let mut packs = Vec::with_capacity(file.blobs.len());
    for blob in &file.blobs {
        packs.push(blob.pack(task.writer).await?);
    }
    {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.report.new += 1;
        counts.report.elsewhere += u64::from(file.elsewhere);
        counts.read_bytes += file.bytes;
    }
    let defaults = &task.defaults;
    let entry = MediaEntry {
        path: ItemPath::from(row.path.as_str()),
        bytes: file.bytes,
        sha256: Some(file.sha256),
        blobs: file
            .blobs
            .iter()
            .map(|blob| MediaBlob {
                id: blob.id,
                length: blob.length,
                pack: 0,
            })
            .collect(),
        mode: file.owner.map(|owner| owner.mode).filter(|mode| *mode != defaults.mode),
        uid: file.owner.map(|owner| owner.uid).filter(|uid| *uid != defaults.uid),
        gid: file.owner.map(|owner| owner.gid).filter(|gid| *gid != defaults.gid),
        owner: None,
        group: None,
        row: row_state(row),
        problem,
    };
    Ok((entry, packs))
}

/// What does not agree: with itself while it was read, with the row's length, with the SHA-256 that Synapse recorded.
fn odd(row: &MediaRow, file: &SavedFile) -> Option<(ProblemKind, String)> {
    if file.changed {
        return Some((ProblemKind::Changed, "it changed while it was read".into()));
    }
    if row.kind.heals() {
        // Synapse may make thumbnails anew at any time.
        return None;
    }
    match row.bytes {
        Some(expected) if file.bytes < expected => {
            return Some((ProblemKind::Short, format!("it has {} bytes, its row says {expected}", file.bytes)));
        }
        Some(expected) if file.bytes > expected => {
            return Some((
                ProblemKind::Changed,
                format!("it has {} bytes, its row says {expected}", file.bytes),
            ));
        }
        _ => {}
    }
    let differs = row.sha256.is_some_and(|expected| expected != *file.sha256.as_bytes());
    differs.then(|| (ProblemKind::HashDiffers, "its SHA-256 is not the one that Synapse recorded".into()))
}

/// The entry of a row whose bytes could not be had.
fn lost(task: &Task<'_>, row: &MediaRow, kind: ProblemKind, message: String, counts: &Mutex<Counts>) -> Placed {
    let problem = task.problem(counts, kind, &row.path, message);
    if kind == ProblemKind::Missing {
        counts.lock().unwrap_or_else(PoisonError::into_inner).report.missing += 1;
    }
    let entry = MediaEntry {
        path: ItemPath::from(row.path.as_str()),
        bytes: 0,
        sha256: None,
        blobs: Vec::new(),
        mode: None,
        uid: None,
        gid: None,
        owner: None,
        group: None,
        row: row_state(row),
        problem: Some(problem),
    };
    (entry, Vec::new())
}

/// Number the packs and count.
fn assemble(group: &Group, placed: Vec<Option<Placed>>, counts: &Mutex<Counts>) -> Done {
    let mut ordinals: BTreeMap<PackId, u32> = BTreeMap::new();
    let mut shard = Shard::default();
    let (mut problems, mut bytes, mut files) = (0, 0, 0);
    for (mut entry, packs) in placed.into_iter().flatten() {
        for (blob, pack) in entry.blobs.iter_mut().zip(packs) {
            let next = u32::try_from(shard.packs.len()).unwrap_or(u32::MAX);
            blob.pack = *ordinals.entry(pack).or_insert_with(|| {
                shard.packs.push(pack);
                next
            });
        }
        problems += u64::from(entry.problem.is_some());
        bytes += entry.bytes;
        files += u64::from(entry.sha256.is_some());
        shard.entries.push(entry);
    }
    if shard.entries.is_empty() {
        return Done::Empty;
    }
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.report.files += files;
    counts.report.bytes += bytes;
    *counts.states.entry("present".into()).or_default() += shard.entries.len() as u64 - problems;
    drop(counts);
    let first = shard.entries[0].path.clone();
    let first = if first < group.first() { first } else { group.first() };
    Done::Built {
        shard,
        first,
        rows: group.digest,
        problems,
        bytes,
    }
}
