//! C1 to C4: many small index segments into few, so that a nightly run reads few.
//!
//! Segments of runs that may still be at work stay as they are, and so do large ones, until a quarter of their lines is dead: merging
//! them again and again would cost more than it gives. New segments are cut by blob id and hold no line whose pack is gone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use jiff::SignedDuration;
use serde::Serialize;

use super::NO_RUN;
use super::live::blocking;
use super::rows::{LINE_BYTES, Line};
use super::sorter::{Sorted, Sorter};
use super::survey::spooled;
use crate::format::index::{Segment, SegmentEntry, SegmentPack, encoded_segment_bytes};
use crate::format::{ObjectId, PACK_BLOBS_MAX, PackId, keys};
use crate::repo::catalog::{Catalog, each_listed, each_segment};
use crate::repo::writer::put_segment;
use crate::repo::{Error, Repository, Result};

#[cfg(test)]
use crate::repo::bugs::{Bug, planted, simulating};

/// A new segment is cut at this size: small enough to be read whole in little memory.
fn segment_bytes() -> usize {
    // A simulated world has few blobs.
    #[cfg(test)]
    if simulating() {
        return 1 << 10;
    }
    8 << 20
}

/// Segments of this size are left alone, until they shrink.
pub(super) fn is_large(bytes: u64) -> bool {
    bytes >= segment_bytes() as u64 / 2
}

/// What compaction is told.
#[derive(Debug, Clone)]
pub struct CompactOptions {
    /// Bound of memory.
    pub memory_bytes: u64,
    /// Where lines are spooled that do not fit.
    pub spool_folder: PathBuf,
    /// Merge small segments when there are at least so many.
    pub segments_min: usize,
    /// Keys of large segments that are to be written without their dead lines.
    pub shrink: BTreeSet<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Segments that were merged and deleted.
    pub merged: u64,
    /// Segments that were written in their place.
    pub written: u64,
    /// Lines in those.
    pub lines: u64,
}

/// What C1 read.
struct Read {
    catalog: Catalog,
    lines: Sorter<LINE_BYTES>,
    keys: Vec<String>,
}

/// Merge small segments, if there are enough of them, and shrink large ones.
pub async fn compact(repository: &Repository, options: &CompactOptions) -> Result<Compacted> {
    let Some(Merge { busy, is_small_too }) = what_to_merge(repository, options).await? else {
        return Ok(Compacted::default());
    };
    let shrinks = |key: &str| options.shrink.contains(key);
    let share = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let begin = || Read {
        catalog: Catalog::default(),
        lines: Sorter::new(share, &options.spool_folder),
        keys: Vec::new(),
    };
    #[cfg(test)]
    let early = if planted(Bug::CompactPacksFirst) {
        packs_present(repository).await?
    } else {
        HashSet::new()
    };
    // C1: load the index. (Lines that stay where they are need not be read.)
    let read = each_segment(
        repository,
        |object| shrinks(&object.key) || is_small_too && !is_large(object.bytes),
        begin,
        |read, listed, segment| {
            // One that is damaged stays: nobody knows what it names.
            let Ok(segment) = segment else { return Ok(()) };
            if busy.contains(&segment.run) {
                return Ok(());
            }
            let ordinals = read.catalog.ordinals(&segment);
            for entry in segment.entries() {
                let entry = entry.map_err(|source| Error::damaged(&listed.key, source))?;
                let pack = ordinals[entry.pack as usize];
                let pushed = read.lines.push(Line { pack, blob: entry.blob }.encode());
                pushed.map_err(|error| spooled(&options.spool_folder, error))?;
            }
            read.keys.push(listed.key.clone());
            Ok(())
        },
    )
    .await?;
    if read.keys.len() < options.segments_min.max(2) && !read.keys.iter().any(|key| shrinks(key)) {
        return Ok(Compacted::default());
    }
    // C2: then LIST packs/.
    let present = packs_present(repository).await?;
    #[cfg(test)]
    let present = mistaken_for_present(repository, &read.keys, present, early, options).await?;
    let Read { catalog, lines, keys } = read;
    #[cfg(test)]
    let keys = mistaken(repository, keys, options).await?;
    let lines = blocking(&options.spool_folder, move || lines.finish()).await?;
    let mut compacted = Compacted {
        merged: keys.len() as u64,
        ..Compacted::default()
    };
    // C3: PUT new segments with every line whose pack is in C2.
    write(repository, &catalog, &lines, &present, options, &mut compacted).await?;
    // C4: after all their answers, DELETE exactly the segments read in C1.
    for key in keys {
        repository.store.delete(&key).await?;
    }
    Ok(compacted)
}

/// LIST packs/.
async fn packs_present(repository: &Repository) -> Result<HashSet<PackId>> {
    let mut present = HashSet::new();
    each_listed(repository, keys::PACKS, |object| present.extend(keys::parse_pack(&object.key))).await?;
    Ok(present)
}

/// What a compaction with a planted mistake takes for present.
#[cfg(test)]
async fn mistaken_for_present(
    repository: &Repository,
    read: &[String],
    mut present: HashSet<PackId>,
    early: HashSet<PackId>,
    options: &CompactOptions,
) -> Result<HashSet<PackId>> {
    if planted(Bug::CompactPacksFirst) {
        return Ok(early);
    }
    if planted(Bug::ShrinkDropsMarked) && read.iter().any(|key| options.shrink.contains(key)) {
        each_listed(repository, keys::CONDEMNED, |object| {
            if let Some(marked) = keys::parse_condemned(&object.key) {
                present.remove(&marked);
            }
        })
        .await?;
    }
    Ok(present)
}

/// What is deleted in the end, with a planted mistake; or it is deleted too early.
#[cfg(test)]
async fn mistaken(repository: &Repository, mut keys: Vec<String>, options: &CompactOptions) -> Result<Vec<String>> {
    if planted(Bug::ShrinkDeletesUnread) {
        keys.extend(options.shrink.iter().cloned());
    }
    if planted(Bug::CompactDeletesUnread) {
        keys.clear();
        each_listed(repository, keys::INDEX, |object| keys.push(object.key)).await?;
    }
    if planted(Bug::CompactDeletesFirst) {
        for key in &keys {
            repository.store.delete(key).await?;
        }
    }
    Ok(keys)
}

/// What is to be merged.
struct Merge {
    /// The runs that wrote a segment within the grace period: their segments stay.
    busy: HashSet<ObjectId>,
    /// There are enough small segments.
    is_small_too: bool,
}

/// `None` if there is nothing to merge in any case.
async fn what_to_merge(repository: &Repository, options: &CompactOptions) -> Result<Option<Merge>> {
    let now = repository.date().await?;
    let grace = SignedDuration::from_secs(i64::try_from(repository.info().grace_seconds).unwrap_or(i64::MAX));
    let mut small = 0;
    let mut recent = HashSet::new();
    each_listed(repository, keys::INDEX, |object| {
        small += usize::from(!is_large(object.bytes));
        if now.duration_since(object.last_modified) < grace {
            recent.insert(object.key);
        }
    })
    .await?;
    let is_small_too = small >= options.segments_min.max(2);
    if !is_small_too && options.shrink.is_empty() {
        return Ok(None);
    }
    let busy = each_segment(
        repository,
        |object| recent.contains(&object.key),
        HashSet::new,
        |runs, _, segment| {
            runs.extend(segment.ok().map(|segment| segment.run).filter(|run| *run != NO_RUN));
            Ok(())
        },
    )
    .await?;
    Ok(Some(Merge { busy, is_small_too }))
}

async fn write(
    repository: &Repository,
    catalog: &Catalog,
    lines: &Sorted<LINE_BYTES>,
    present: &HashSet<PackId>,
    options: &CompactOptions,
    compacted: &mut Compacted,
) -> Result<()> {
    let mut open = Open::default();
    for row in lines.iter() {
        let line = Line::decode(&row.map_err(|error| spooled(&options.spool_folder, error))?);
        let pack = &catalog.packs()[line.pack as usize];
        if !present.contains(&pack.id) {
            continue;
        }
        if open.is_full() {
            open.put(repository, compacted).await?;
        }
        let named = SegmentPack {
            id: pack.id,
            kind: pack.kind,
            bytes: pack.bytes,
        };
        open.add(named, line);
    }
    open.put(repository, compacted).await
}

/// A segment that is being filled.
#[derive(Default)]
struct Open {
    packs: Vec<SegmentPack>,
    ordinals: HashMap<PackId, u32>,
    entries: Vec<SegmentEntry>,
}

impl Open {
    fn is_full(&self) -> bool {
        encoded_segment_bytes(self.packs.len() + 1, self.entries.len() + 1) > segment_bytes()
    }

    fn add(&mut self, pack: SegmentPack, line: Line) {
        if self.entries.is_empty() {
            // Once: growing would hold it twice.
            self.entries
                .reserve_exact(segment_bytes() / size_of::<SegmentEntry>() + PACK_BLOBS_MAX);
        }
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        let ordinal = *self.ordinals.entry(pack.id).or_insert_with(|| {
            self.packs.push(pack);
            next
        });
        self.entries.push(SegmentEntry {
            pack: ordinal,
            blob: line.blob,
        });
    }

    async fn put(&mut self, repository: &Repository, compacted: &mut Compacted) -> Result<()> {
        let Self { packs, entries, .. } = std::mem::take(self);
        if entries.is_empty() {
            return Ok(());
        }
        compacted.written += 1;
        compacted.lines += entries.len() as u64;
        put_segment(
            repository,
            Segment {
                run: NO_RUN,
                packs,
                entries,
            },
        )
        .await
    }
}
