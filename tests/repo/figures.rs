//! What `stats` tells, compared with the tables of the packs and the lists of the snapshots, as this test reads them by itself.
//!
//! The repository has everything that makes figures hard: frames of which a part is dead, packs in which all is, a pack that is
//! condemned and still needed, one that no segment names, and a late snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::frame::FrameDecoder;
use synapse_backup::format::index::decode_segment;
use synapse_backup::format::list::{List, decode_list};
use synapse_backup::format::manifest::{decode_shard, decode_shard_ref};
use synapse_backup::format::pack::{BlobEntry, PackTable, TailRead, decode_table};
use synapse_backup::format::snapshot::{self, Snapshot};
use synapse_backup::format::{BlobId, ObjectId, PackId, PackKind, keys};
use synapse_backup::ops::stats::{self, Figures};
use synapse_backup::repo::Repository;
use synapse_backup::store::Store;
use synapse_backup::store::memory::Memory;

use crate::rig::{Bytes, Keys, LIMITS, backup, init_sealed, init_with_small_blobs, memory, noise, run};
use crate::small::Home;

/// Everything in a bucket, read without the program's help but for the format.
struct Truth {
    packs: BTreeMap<PackId, (PackTable, u64)>,
    contents: HashMap<BlobId, Vec<u8>>,
    named: BTreeSet<PackId>,
    condemned: BTreeSet<PackId>,
    /// What each snapshot needs, with raw lengths.
    needs: BTreeMap<ObjectId, BTreeMap<BlobId, u64>>,
}

impl Truth {
    fn of(memory: &Memory) -> Self {
        let mut truth = Self {
            packs: BTreeMap::new(),
            contents: HashMap::new(),
            named: BTreeSet::new(),
            condemned: BTreeSet::new(),
            needs: BTreeMap::new(),
        };
        let objects = memory.objects();
        for (key, object) in &objects {
            if let Some(id) = keys::parse_pack(key) {
                truth.open(id, object);
            } else if let Some(id) = keys::parse_condemned(key) {
                truth.condemned.insert(id);
            } else if keys::parse_segment(key).is_some() {
                let segment = decode_segment(object).unwrap();
                truth.named.extend(segment.packs.iter().map(|pack| pack.id));
            }
        }
        for (_, object) in objects.iter().filter(|(key, _)| keys::parse_snapshot(key).is_some()) {
            let (document, _) = snapshot::decode(object).unwrap();
            let needed = truth.needed(&document);
            truth.needs.insert(document.id, needed);
        }
        truth
    }

    fn open(&mut self, id: PackId, object: &[u8]) {
        let TailRead::Table(table) = decode_table(object, object.len() as u64).unwrap() else {
            panic!("the whole pack is given");
        };
        let mut decoder = FrameDecoder::new().unwrap();
        for frame in frames(&table) {
            let start = frame[0].frame_offset as usize;
            let raw = decoder.decode(&object[start..start + frame[0].frame_length as usize]).unwrap();
            for blob in frame {
                let start = blob.offset_in_frame as usize;
                self.contents.insert(blob.id, raw[start..start + blob.raw_length as usize].to_vec());
            }
        }
        self.packs.insert(id, (table, object.len() as u64));
    }

    /// A list and what it names; gives the contents at its end.
    fn list(&self, list: &List, needed: &mut BTreeMap<BlobId, u64>) -> Vec<u8> {
        let mut level = list.entries.clone();
        for depth in (0..=list.depth).rev() {
            needed.extend(level.iter().map(|entry| (entry.id, u64::from(entry.length))));
            let bytes: Vec<&Vec<u8>> = level.iter().map(|entry| &self.contents[&entry.id]).collect();
            if depth == 0 {
                return bytes.into_iter().flatten().copied().collect();
            }
            level = bytes.into_iter().flat_map(|bytes| decode_list(bytes).unwrap()).collect();
        }
        Vec::new()
    }

    fn needed(&self, document: &Snapshot) -> BTreeMap<BlobId, u64> {
        let mut needed = BTreeMap::new();
        for stream in document.databases.iter().flat_map(|database| &database.streams) {
            self.list(&stream.list, &mut needed);
        }
        let media = document.media.as_ref();
        let lines = media.map(|media| self.list(&media.shards, &mut needed)).unwrap_or_default();
        for (number, line) in (1..).zip(lines.split_inclusive(|byte| *byte == b'\n')) {
            let line = decode_shard_ref(line, number).unwrap();
            needed.insert(line.blob, u64::from(line.length));
            let shard = decode_shard(&self.contents[&line.blob]).unwrap();
            let blobs = shard.entries.iter().flat_map(|entry| &entry.blobs);
            needed.extend(blobs.map(|blob| (blob.id, u64::from(blob.length))));
        }
        needed
    }

    /// What all snapshots need.
    fn live(&self) -> BTreeMap<BlobId, u64> {
        self.needs.values().flatten().map(|(id, length)| (*id, *length)).collect()
    }

    /// The figures of a kind of packs, `None` for those that no segment names; and in how many frames some is dead and some is not.
    fn figures(&self, kind: Option<PackKind>) -> (Figures, u64) {
        let live = self.live();
        let (mut figures, mut mixed) = (Figures::default(), 0);
        for (id, (table, bytes)) in &self.packs {
            let is_named = self.named.contains(id);
            if is_named.then_some(table.kind) != kind {
                continue;
            }
            let (all, needed, raw, partly) = if is_named { weigh(table, &live) } else { (*bytes, 0, 0, 0) };
            mixed += partly;
            figures.packs += 1;
            figures.stored_bytes += bytes;
            figures.deduplicated_bytes += raw;
            figures.compressed_bytes += needed;
            if self.condemned.contains(id) {
                figures.condemned_bytes += bytes;
            } else {
                figures.dead_bytes += all - needed;
                figures.overhead_bytes += bytes - all;
            }
        }
        (figures, mixed)
    }

    /// What the blobs of one snapshot that no other needs take, raw and compressed.
    fn only(&self, snapshot: ObjectId) -> (u64, u64) {
        let others = self.needs.iter().filter(|(id, _)| **id != snapshot);
        let others: BTreeSet<BlobId> = others.flat_map(|(_, needed)| needed.keys().copied()).collect();
        let mut only = self.needs[&snapshot].clone();
        only.retain(|id, _| !others.contains(id));
        let named = self.packs.iter().filter(|(id, _)| self.named.contains(id));
        let stored = named.map(|(_, (table, _))| weigh(table, &only).1).sum();
        (only.values().sum(), stored)
    }
}

fn frames(table: &PackTable) -> impl Iterator<Item = &[BlobEntry]> {
    table.entries.chunk_by(|a, b| a.frame_offset == b.frame_offset)
}

/// Bytes of all frames of a pack, of what is needed (by raw length within a frame, rounded at both its ends), raw bytes of that, and
/// in how many frames only a part is.
fn weigh(table: &PackTable, needed: &BTreeMap<BlobId, u64>) -> (u64, u64, u64, u64) {
    let (mut all, mut stored, mut raw, mut mixed) = (0, 0, 0, 0);
    for frame in frames(table) {
        let length = u64::from(frame[0].frame_length);
        let whole: u64 = frame.iter().map(|blob| u64::from(blob.raw_length)).sum();
        all += length;
        let (mut before, mut count) = (0, 0);
        for blob in frame {
            let after = before + u64::from(blob.raw_length);
            if needed.contains_key(&blob.id) {
                stored += length * after / whole - length * before / whole;
                raw += after - before;
                count += 1;
            }
            before = after;
        }
        mixed += u64::from(count > 0 && count < frame.len());
    }
    (all, stored, raw, mixed)
}

async fn counted(repository: &Repository) -> stats::Report {
    let options = stats::Options {
        limits: LIMITS,
        spool_folder: "/var/tmp".into(),
    };
    stats::stats(repository, &options, &run()).await.unwrap()
}

/// Twelve days of a homeserver, most of them forgotten.
async fn twelve_days(memory: &Arc<Memory>) -> Repository {
    let repository = init_with_small_blobs(memory.clone()).await;
    let mut home = Home::new();
    for day in 1..=12 {
        let id = home.backup(&repository).await;
        let is_of = |key: &&String| keys::parse_snapshot(key).is_some_and(|(_, of)| of == id);
        let key = memory.objects().keys().find(is_of).unwrap().clone();
        let object = memory.objects()[&key].clone();
        if day < 8 || day % 4 != 0 {
            memory.delete(&key).await.unwrap();
        }
        if day == 6 {
            let past = memory.clock().now() - SignedDuration::from_hours(1);
            memory
                .put(&key, snapshot::with_not_after(&object, past).unwrap().into())
                .await
                .unwrap();
        }
        memory.clock().advance(SignedDuration::from_hours(24));
        home.day(day);
    }
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_are_those_of_the_tables_and_the_lists() {
    let memory = memory();
    let repository = twelve_days(&memory).await;
    // A pack that is condemned and still needed, and one that no segment names: a copy, so its table is whole.
    let truth = Truth::of(&memory);
    let live = truth.live();
    let needed = |(table, _): &(PackTable, u64)| table.kind == PackKind::Database && weigh(table, &live).3 > 0;
    let condemned = *truth.packs.iter().find(|(_, pack)| needed(pack)).unwrap().0;
    memory.put(&keys::condemned(condemned), bytes::Bytes::new()).await.unwrap();
    let unnamed = keys::pack(repository.ids().pack());
    memory.copy(&keys::pack(condemned), &unnamed).await.unwrap();
    let truth = Truth::of(&memory);
    let report = counted(&repository).await;
    assert_eq!(report.problems, []);

    let (mut sum, mut partly_dead) = (Figures::default(), 0);
    for (name, kind) in [
        ("database", Some(PackKind::Database)),
        ("media", Some(PackKind::Media)),
        ("metadata", Some(PackKind::Metadata)),
        ("unnamed", None),
    ] {
        let (figures, mixed) = truth.figures(kind);
        assert_eq!(report.kinds[name], figures, "{name}");
        partly_dead += mixed;
        assert!(figures.dead_bytes > 0, "{name}");
        sum = Figures {
            packs: sum.packs + figures.packs,
            deduplicated_bytes: sum.deduplicated_bytes + figures.deduplicated_bytes,
            compressed_bytes: sum.compressed_bytes + figures.compressed_bytes,
            stored_bytes: sum.stored_bytes + figures.stored_bytes,
            dead_bytes: sum.dead_bytes + figures.dead_bytes,
            overhead_bytes: sum.overhead_bytes + figures.overhead_bytes,
            condemned_bytes: sum.condemned_bytes + figures.condemned_bytes,
        };
    }
    assert_eq!(report.all, sum);
    assert!(partly_dead > 5, "{partly_dead} frames, of which a part is dead");
    assert_eq!(sum.deduplicated_bytes, live.values().sum::<u64>());
    let stored: usize = memory
        .objects()
        .iter()
        .filter(|(key, _)| key.starts_with(keys::PACKS))
        .map(|(_, pack)| pack.len())
        .sum();
    assert_eq!(sum.stored_bytes, stored as u64);
    let index: usize = memory
        .objects()
        .iter()
        .filter(|(key, _)| key.starts_with(keys::INDEX))
        .map(|(_, body)| body.len())
        .sum();
    assert_eq!(report.index_bytes, index as u64);

    assert_eq!(report.snapshots.len(), 3);
    assert_eq!(report.snapshots.iter().filter(|held| held.late).count(), 1);
    for held in &report.snapshots {
        let only = truth.only(held.id.parse().unwrap());
        assert_eq!((held.only_raw_bytes, held.only_stored_bytes), only, "snapshot {}", held.id);
        assert!(only.0 > only.1 && only.1 > 0, "{only:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_are_those_of_the_items() {
    let memory = memory();
    let repository = init_with_small_blobs(memory.clone()).await;
    let mut home = Home::new();
    let mut raw = Vec::new();
    for day in 1..=3 {
        home.backup(&repository).await;
        memory.clock().advance(SignedDuration::from_hours(1));
        let media: usize = home.media().map(|(_, bytes)| bytes.len()).sum();
        raw.push((home.events().len() + home.state().len() + media) as u64);
        home.day(day);
    }
    let report = counted(&repository).await;
    assert_eq!(report.snapshots.iter().map(|held| held.raw_bytes).collect::<Vec<_>>(), raw);
    assert_eq!(report.raw_bytes, raw.iter().sum::<u64>());
    let content = report.all.deduplicated_bytes - report.kinds["metadata"].deduplicated_bytes;
    assert!(content < report.raw_bytes / 2 && content > raw[0] / 2, "{content} bytes, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sealed_packs_every_byte_is_told_of_too() {
    let memory = memory();
    let repository = init_sealed(memory.clone(), &Keys::new(1)).await;
    for seed in 1..=2 {
        backup(&repository, &mut Bytes::new(&noise(seed, 300_000))).await.unwrap();
    }
    let all = counted(&repository).await.all;
    assert_eq!(all.stored_bytes, all.compressed_bytes + all.overhead_bytes);
    let tables_alone = 200 * all.packs;
    assert!(
        all.overhead_bytes > tables_alone && all.overhead_bytes < all.stored_bytes / 50,
        "{all:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_cannot_be_read_is_told() {
    let memory = memory();
    let repository = init_with_small_blobs(memory.clone()).await;
    let taken = backup(&repository, &mut Bytes::new(&noise(1, 300_000))).await.unwrap();
    memory
        .put(&keys::segment(repository.ids().object()), bytes::Bytes::from_static(b"x"))
        .await
        .unwrap();
    let pack = taken.databases[0].streams[0].list.entries[0].pack;
    let report = counted(&repository).await;
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].item.starts_with(keys::INDEX));
    memory.delete(&keys::pack(pack)).await.unwrap();
    let report = counted(&repository).await;
    assert_eq!(report.problems.len(), 2, "{:?}", report.problems);
    assert_eq!(report.problems[1].item, format!("snapshot {}", taken.id));
}
