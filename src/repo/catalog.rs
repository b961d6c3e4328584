//! The index as it is now: which usable pack holds which blob (rules G3, B1, R2).
//!
//! Loaded at the start of a run, in one go, into sorted arrays of 52 bytes a blob, as far as they fit the budget.
//! What does not fit costs bytes or a read of a pack's own table, never correctness.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use super::{Error, Repository, Result};
use crate::format::index::{self, SegmentEntry, SegmentRead};
use crate::format::pack::BlobEntry;
use crate::format::{self, BlobId, PackId, PackKind, keys};
use crate::store::{self, ByteRange, Listed};

#[cfg(test)]
use super::bugs::{Bug, planted};

/// Bytes one index entry takes in memory.
pub const ENTRY_BYTES: usize = size_of::<SegmentEntry>();
/// Segments up to this size are fetched several at once, larger ones alone: so that bodies take bounded memory.
const SEGMENT_SMALL_BYTES: u64 = 4 << 20;
/// Small segments that are fetched at once.
const SEGMENTS_AT_ONCE: usize = 4;

/// So many objects that are not ours are named.
pub const FOREIGN_NAMED_MAX: usize = 1000;

/// A pack as the index and the listings know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogPack {
    /// Its id.
    pub id: PackId,
    /// What it holds.
    pub kind: PackKind,
    /// Length of the object, as the index says.
    pub bytes: u64,
    /// Length of the object in the listing; `None` when it is not there.
    pub present_bytes: Option<u64>,
    /// A marker says that it will be swept.
    pub condemned: bool,
    /// The last snapshot relies on it: of several copies of a blob the one in here is taken.
    pub preferred: bool,
}

impl CatalogPack {
    /// Named by a segment, in `packs/`, not condemned.
    pub fn usable(&self) -> bool {
        self.present_bytes == Some(self.bytes) && !self.condemned
    }
}

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// The place in it.
    pub blob: BlobEntry,
}

/// The index in memory.
#[derive(Debug, Default)]
pub struct Catalog {
    packs: Vec<CatalogPack>,
    ordinals: HashMap<PackId, u32>,
    /// Sorted by blob id.
    entries: Vec<SegmentEntry>,
    /// Entries did not all fit.
    pub truncated: bool,
    /// How many segments there are.
    pub segments: usize,
    /// The store's time when the listings had been read.
    pub date: Option<Timestamp>,
    /// Segments that are damaged, with what is wrong; their packs can be read by their own tables.
    pub damaged: Vec<(String, String)>,
}

impl Catalog {
    /// The pack with this id, if a segment names it.
    pub fn pack(&self, id: PackId) -> Option<&CatalogPack> {
        self.ordinals.get(&id).map(|&ordinal| &self.packs[ordinal as usize])
    }

    /// All packs that segments name.
    pub fn packs(&self) -> &[CatalogPack] {
        &self.packs
    }

    /// The entries, sorted by blob id.
    pub fn entries(&self) -> &[SegmentEntry] {
        &self.entries
    }

    /// The entries of one blob: its copies, in whatever packs.
    pub fn entries_of(&self, id: &BlobId) -> &[SegmentEntry] {
        let start = self.entries.partition_point(|entry| entry.blob.id < *id);
        let count = self.entries[start..].iter().take_while(|entry| entry.blob.id == *id).count();
        &self.entries[start..start + count]
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every known copy of a blob, those in usable packs first.
    pub fn copies(&self, id: &BlobId) -> Vec<Location> {
        let mut copies: Vec<(bool, Location)> = self
            .entries_of(id)
            .iter()
            .map(|entry| {
                let pack = &self.packs[entry.pack as usize];
                (
                    !pack.usable(),
                    Location {
                        pack: pack.id,
                        blob: entry.blob,
                    },
                )
            })
            .collect();
        copies.sort_by_key(|(unusable, _)| *unusable);
        copies.into_iter().map(|(_, location)| location).collect()
    }

    /// Where a blob has several copies, those in these packs are taken: what was healed once must not go back to the
    /// copy that was bad, and few packs are better than many.
    pub fn prefer(&mut self, packs: &[PackId]) {
        for id in packs {
            if let Some(&ordinal) = self.ordinals.get(id) {
                self.packs[ordinal as usize].preferred = true;
            }
        }
    }

    /// A copy of a blob in a usable pack that is also good enough for the caller; a preferred one if there is one.
    pub fn usable(&self, id: &BlobId, good: impl Fn(PackId) -> bool) -> Option<Location> {
        let mut found = None;
        for entry in self.entries_of(id) {
            let pack = &self.packs[entry.pack as usize];
            if pack.usable() && good(pack.id) {
                let blob = entry.blob;
                let location = Location { pack: pack.id, blob };
                if pack.preferred {
                    return Some(location);
                }
                found.get_or_insert(location);
            }
        }
        found
    }

    /// The entries of a segment that `wanted` says yes to, as far as there is room.
    pub(super) fn add(
        &mut self,
        segment: &SegmentRead<'_>,
        entries_max: usize,
        wanted: impl Fn(&index::SegmentPack) -> bool,
    ) -> format::Result<()> {
        let ordinals = self.ordinals(segment);
        for entry in segment.entries() {
            let entry = entry?;
            if !wanted(&segment.packs[entry.pack as usize]) {
                continue;
            }
            let pack = ordinals[entry.pack as usize];
            if self.entries.len() >= entries_max {
                self.truncated = true;
                return Ok(());
            }
            self.entries.push(SegmentEntry { pack, blob: entry.blob });
        }
        Ok(())
    }

    /// Where the packs of a segment stand among [`Catalog::packs`]; new ones are added.
    pub(super) fn ordinals(&mut self, segment: &SegmentRead<'_>) -> Vec<u32> {
        segment.packs.iter().map(|pack| self.ordinal(pack)).collect()
    }

    /// All segments are in: entries are looked up by their id from now on.
    pub(super) fn sort(&mut self) {
        self.entries.sort_unstable_by_key(|entry| (entry.blob.id, entry.pack));
        self.entries.dedup_by(|a, b| a.pack == b.pack && a.blob == b.blob);
    }

    /// What the listings say of the packs.
    pub(super) fn note(&mut self, presence: &Presence) {
        self.date = presence.date;
        for pack in &mut self.packs {
            pack.present_bytes = presence.packs.get(&pack.id).copied();
            pack.condemned = presence.condemned.contains(&pack.id);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "four thousand million packs of one object each do not fit a listing"
    )]
    fn ordinal(&mut self, pack: &index::SegmentPack) -> u32 {
        *self.ordinals.entry(pack.id).or_insert_with(|| {
            self.packs.push(CatalogPack {
                id: pack.id,
                kind: pack.kind,
                bytes: pack.bytes,
                present_bytes: None,
                condemned: false,
                preferred: false,
            });
            (self.packs.len() - 1) as u32
        })
    }
}

/// Which packs are there and which are condemned, read in this order (rule B4: markers, then packs).
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// `packs/`: id and length.
    pub packs: HashMap<PackId, u64>,
    /// `condemned/`.
    pub condemned: HashSet<PackId>,
    /// Objects under `packs/` that are not ours: the first thousand.
    pub foreign: Vec<String>,
    /// The store's time when both had been read.
    pub date: Option<Timestamp>,
}

/// LIST condemned/, and when that has ended, LIST packs/.
pub async fn presence(repository: &Repository) -> Result<Presence> {
    let mut presence = Presence::default();
    #[cfg(test)]
    if planted(Bug::PacksBeforeMarkers) {
        each_listed(repository, keys::PACKS, |object| {
            presence.packs.extend(keys::parse_pack(&object.key).map(|id| (id, object.bytes)));
        })
        .await?;
        each_listed(repository, keys::CONDEMNED, |object| {
            presence.condemned.extend(keys::parse_condemned(&object.key));
        })
        .await?;
        return Ok(presence);
    }
    each_listed(repository, keys::CONDEMNED, |object| {
        presence.condemned.extend(keys::parse_condemned(&object.key));
    })
    .await?;
    let date = each_listed(repository, keys::PACKS, |object| match keys::parse_pack(&object.key) {
        Some(id) => {
            presence.packs.insert(id, object.bytes);
        }
        None if presence.foreign.len() < FOREIGN_NAMED_MAX => presence.foreign.push(object.key),
        None => {}
    })
    .await?;
    presence.date = Some(date);
    Ok(presence)
}

/// Every object under a prefix, in key order, page by page; gives the store's time of the last page.
pub async fn each_listed(repository: &Repository, prefix: &str, mut each: impl FnMut(Listed)) -> Result<Timestamp> {
    let mut after: Option<String> = None;
    loop {
        let page = repository.store.list_page(prefix, after.as_deref()).await?;
        page.objects.into_iter().for_each(&mut each);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(page.date),
        }
    }
}

/// Load the index and what the listings say of its packs. `entries_bytes_max` bounds the memory of the entries.
///
/// Index first, listings after: a pack is usable when all three agree (B1). Segments that cannot be decoded are
/// named in [`Catalog::damaged`]; a segment that vanished meanwhile starts the load again (G3).
pub async fn load(repository: &Repository, entries_bytes_max: usize) -> Result<Catalog> {
    let entries_max = entries_bytes_max / ENTRY_BYTES;
    load_by(repository, |catalog, segment| catalog.add(segment, entries_max, |_| true)).await
}

/// The same; where that does not fit, of all entries only those of metadata: what leads to other blobs is always at hand.
pub async fn load_or_metadata(repository: &Repository, entries_bytes_max: usize) -> Result<Catalog> {
    let entries_max = entries_bytes_max / ENTRY_BYTES;
    let add = |catalog: &mut Catalog, segment: &SegmentRead<'_>| {
        if !catalog.truncated {
            catalog.add(segment, entries_max, |_| true)?;
            if !catalog.truncated {
                return Ok(());
            }
            // Here it turns out. What this segment has brought already comes twice, and one of the two goes in the end.
            let Catalog { packs, entries, .. } = catalog;
            entries.retain(|entry| packs[entry.pack as usize].kind == PackKind::Metadata);
        }
        catalog.add(segment, entries_max, |pack| pack.kind == PackKind::Metadata)
    };
    load_by(repository, add).await
}

/// Usable packs that hold these blobs, by streaming the whole index past them; a preferred one where there is a choice.
pub(super) async fn find(
    repository: &Repository,
    wanted: &HashSet<BlobId>,
    usable: impl Fn(&index::SegmentPack) -> bool,
    preferred: &BTreeSet<PackId>,
) -> Result<HashMap<BlobId, PackId>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    each_segment(
        repository,
        |_| true,
        HashMap::new,
        |found: &mut HashMap<BlobId, PackId>, _, segment| {
            // What a damaged segment names is as good as not indexed.
            let Ok(segment) = segment else { return Ok(()) };
            let usable: Vec<Option<PackId>> = segment.packs.iter().map(|pack| usable(pack).then_some(pack.id)).collect();
            for entry in segment.entries().flatten() {
                let Some(pack) = usable[entry.pack as usize] else { continue };
                if wanted.contains(&entry.blob.id) && (preferred.contains(&pack) || !found.contains_key(&entry.blob.id)) {
                    found.insert(entry.blob.id, pack);
                }
            }
            Ok(())
        },
    )
    .await
}

async fn load_by(repository: &Repository, add: impl Fn(&mut Catalog, &SegmentRead<'_>) -> format::Result<()>) -> Result<Catalog> {
    let mut catalog = each_segment(
        repository,
        |_| true,
        Catalog::default,
        |catalog, listed, segment| {
            catalog.segments += 1;
            if let Err(error) = segment.and_then(|segment| add(catalog, &segment)) {
                catalog.damaged.push((listed.key.clone(), error.to_string()));
            }
            Ok(())
        },
    )
    .await?;
    catalog.sort();
    catalog.note(&presence(repository).await?);
    Ok(catalog)
}

/// G3: LIST index/, GET all that are `chosen`; any 404: LIST again and `begin` anew, until one LIST was read whole.
///
/// `each` is told of one after the other, in no order; of several large ones only one is in memory. Of a segment that is
/// damaged it is told why.
pub async fn each_segment<T>(
    repository: &Repository,
    chosen: impl Fn(&Listed) -> bool,
    begin: impl Fn() -> T,
    mut each: impl FnMut(&mut T, &Listed, format::Result<SegmentRead<'_>>) -> Result<()>,
) -> Result<T> {
    'again: loop {
        let mut listed = Vec::new();
        each_listed(repository, keys::INDEX, |object| listed.push(object)).await?;
        // What is not ours names nothing, and stands in nobody's way.
        listed.retain(|object| keys::parse_segment(&object.key).is_some() && chosen(object));
        let (small, large): (Vec<Listed>, Vec<Listed>) = listed.into_iter().partition(|object| object.bytes <= SEGMENT_SMALL_BYTES);
        let mut into = begin();
        for (objects, at_once) in [(small, SEGMENTS_AT_ONCE), (large, 1)] {
            let mut segments = stream::iter(objects)
                .map(|object| async move {
                    let got = repository
                        .store
                        .get(&object.key, ByteRange::AtMost(format::SEGMENT_BYTES_MAX as u64))
                        .await;
                    (object, got.map_err(Error::from))
                })
                .buffer_unordered(at_once);
            while let Some(got) = segments.next().await {
                match got {
                    (object, Ok(got)) => each(&mut into, &object, index::read_segment(&got.bytes))?,
                    (_, Err(Error::Store(store::Error::NotFound { .. }))) => continue 'again,
                    (object, Err(Error::Damaged { source, .. })) => each(&mut into, &object, Err(source))?,
                    (object, Err(Error::NoKey { .. })) => each(&mut into, &object, Err(format::Error::NoKey))?,
                    (_, Err(error)) => return Err(error),
                }
            }
        }
        return Ok(into);
    }
}
