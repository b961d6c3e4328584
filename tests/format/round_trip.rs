//! What is written is read back the same, whatever the values; and what an older reader must forgive, it forgives.
//!
//! The strategies make values that the writer may make; damage is the next file's question.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};
use synapse_backup::format::frame::{FrameDecoder, FrameEncoder};
use synapse_backup::format::index::{Segment, SegmentEntry, SegmentPack, decode_segment, encode_segment};
use synapse_backup::format::list::{List, ListCutter, ListEntry, decode_list};
use synapse_backup::format::manifest::{MediaBlob, MediaEntry, RowHasher, RowState, Shard, ShardCutter, decode_shard, encode_shard};
use synapse_backup::format::pack::BlobEntry;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::snapshot::{self, ConfigKind, ConfigRole, ProblemKind, Snapshot, StreamFormat};
use synapse_backup::format::{BlobId, Error, ItemPath, ObjectId, PackId, PackKind};

use crate::pack::{blobs_of, pack_of};
use crate::values;

fn blob_id() -> impl Strategy<Value = BlobId> {
    any::<[u8; 32]>().prop_map(BlobId::from_bytes)
}

fn blob_entry() -> impl Strategy<Value = BlobEntry> {
    (blob_id(), 0_u32..1 << 26, 1_u32..1 << 20, 0_u32..4 << 20, 1_u32..4 << 20).prop_map(
        |(id, frame_offset, frame_length, offset_in_frame, raw_length)| BlobEntry {
            id,
            frame_offset,
            frame_length,
            offset_in_frame,
            raw_length,
        },
    )
}

fn segment() -> impl Strategy<Value = Segment> {
    let packs = vec((any::<[u8; 16]>(), 1_u8..4, 1_u64 << 27..1 << 32), 1..5);
    (any::<[u8; 16]>(), packs, vec((any::<u32>(), blob_entry()), 0..50)).prop_map(|(run, packs, entries)| {
        let packs: Vec<_> = packs
            .into_iter()
            .map(|(id, kind, bytes)| SegmentPack {
                id: PackId::from_bytes(id),
                kind: PackKind::from_byte(kind).unwrap(),
                bytes,
            })
            .collect();
        let count = u32::try_from(packs.len()).unwrap();
        let entries = entries
            .into_iter()
            .map(|(pack, blob)| SegmentEntry { pack: pack % count, blob })
            .collect();
        Segment {
            run: ObjectId::from_bytes(run),
            packs,
            entries,
        }
    })
}

fn media_entry(path: Vec<u8>, lengths: &[u32], row: RowState, mode: Option<u32>) -> MediaEntry {
    let blobs: Vec<_> = lengths
        .iter()
        .map(|length| MediaBlob {
            id: BlobId::of(&length.to_le_bytes()),
            length: *length,
            pack: 0,
        })
        .collect();
    let sha256 = match blobs.as_slice() {
        [] => None,
        [blob] => Some(blob.id),
        _ => Some(BlobId::of(&path)),
    };
    let bytes = lengths.iter().map(|length| u64::from(*length)).sum();
    let (uid, gid, owner, group, problem) = (mode, None, None, None, None);
    MediaEntry {
        path: ItemPath::from_bytes(path),
        bytes,
        sha256,
        blobs,
        mode,
        uid,
        gid,
        owner,
        group,
        row,
        problem,
    }
}

fn shard() -> impl Strategy<Value = Shard> {
    let row = (any::<Option<u64>>(), proptest::option::of(blob_id())).prop_map(|(length, sha256)| RowState { length, sha256 });
    let file = (vec(1_u32..=8 << 20, 0..4), row, proptest::option::of(0_u32..=0o7777));
    btree_map(vec(any::<u8>(), 0..40), file, 0..20).prop_map(|files| {
        let entries = files
            .into_iter()
            .map(|(path, (lengths, row, mode))| media_entry(path, &lengths, row, mode))
            .collect();
        Shard {
            packs: vec![PackId::from_bytes([7; 16])],
            entries,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_pack_gives_its_blobs_back(frames in vec(vec(vec(any::<u8>(), 1..300), 1..5), 0..5)) {
        let borrowed: Vec<Vec<&[u8]>> = frames.iter().map(|blobs| blobs.iter().map(Vec::as_slice).collect()).collect();
        let borrowed: Vec<&[&[u8]]> = borrowed.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(blobs_of(&pack_of(&borrowed)).unwrap(), frames.concat());
    }

    #[test]
    fn a_segment_is_read_back_sorted(segment in segment()) {
        let read = decode_segment(&encode_segment(segment.clone()).unwrap()).unwrap();
        let mut sorted = segment;
        sorted.entries.sort_by_key(|entry| (entry.blob.id, entry.pack, entry.blob));
        sorted.entries.dedup_by_key(|entry| (entry.blob.id, entry.pack));
        prop_assert_eq!(read, sorted);
    }

    #[test]
    fn a_shard_is_read_back(shard in shard()) {
        prop_assert_eq!(decode_shard(&encode_shard(&shard).unwrap()).unwrap(), shard);
    }

    #[test]
    fn lists_are_read_back_in_order(ids in vec((blob_id(), 1_u32..=8 << 20), 0..2_000)) {
        let entries: Vec<ListEntry> = ids.iter().map(|(id, length)| ListEntry { id: *id, length: *length, pack: PackId::from_bytes([1; 16]) }).collect();
        let mut cutter = ListCutter::new();
        let mut blobs: Vec<Vec<u8>> = entries.iter().filter_map(|entry| cutter.push(*entry)).collect();
        blobs.extend(cutter.finish());
        let read: Vec<ListEntry> = blobs.iter().flat_map(|blob| decode_list(blob).unwrap()).collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn a_moment_is_read_back_from_the_trailer(second in -100_000_000_000_i64..200_000_000_000, nanosecond in 0_i32..1_000_000_000) {
        let not_after = jiff::Timestamp::new(second, 0).unwrap() + jiff::SignedDuration::new(0, nanosecond);
        let (read, signed) = snapshot::decode(&snapshot::encode(&values::snapshot(), not_after).unwrap()).unwrap();
        prop_assert_eq!((read, signed.not_after), (values::snapshot(), not_after));
    }
}

#[test]
fn a_frame_of_the_largest_blob_is_read_back_and_one_byte_more_is_refused() {
    let data = values::noise(9, (8 << 20) + 1);
    let (mut encoder, mut decoder) = (FrameEncoder::new(3).unwrap(), FrameDecoder::new().unwrap());
    let largest = &data[1..];
    let slices: Vec<&[u8]> = largest.chunks(65_537).collect();
    for blobs in [vec![largest], slices] {
        assert!(decoder.decode(&encoder.encode(&blobs).unwrap()).unwrap() == largest);
    }
    assert!(matches!(encoder.encode(&[&data]), Err(Error::OverLimit { .. })));
    assert!(matches!(encoder.encode(&[]), Err(Error::Invalid { .. })));
    assert!(matches!(encoder.encode(&[b""]), Err(Error::Invalid { .. })));
    assert_eq!(decoder.decode(&encoder.encode(&[b"still works"]).unwrap()).unwrap(), b"still works");
    for level in [0, -1, 23] {
        assert!(FrameEncoder::new(level).is_err(), "{level}");
    }
}

#[test]
fn a_list_ends_at_its_limit_even_where_no_id_says_so() {
    let entry = ListEntry {
        id: BlobId::from_bytes([1; 32]),
        length: 1,
        pack: PackId::from_bytes([1; 16]),
    };
    let mut cutter = ListCutter::new();
    let ends: Vec<usize> = (1..=10_000).filter(|_| cutter.push(entry).is_some()).collect();
    assert_eq!(ends, [4_096, 8_192]);
    let zero = ListEntry {
        id: BlobId::from_bytes([0; 32]),
        ..entry
    };
    assert_eq!(decode_list(&cutter.push(zero).unwrap()).unwrap().len(), 10_000 - 8_192 + 1);
    assert_eq!(cutter.finish(), None);
}

#[test]
fn a_root_that_cannot_be_is_refused() {
    let good = values::list();
    assert_eq!(good.validate(), Ok(()));
    assert_eq!(List::default().validate(), Ok(()));
    let entry = good.entries[0];
    let bad = [
        List { bytes: 1, ..good.clone() },
        List { blobs: 4, ..good.clone() },
        List { depth: 1, ..good.clone() },
        List {
            depth: 9,
            entries: vec![ListEntry { length: 52, ..entry }],
            ..good.clone()
        },
        List {
            depth: 1,
            entries: Vec::new(),
            ..good.clone()
        },
        List {
            blobs: 513,
            bytes: 513 * 5,
            entries: vec![entry; 513],
            ..good.clone()
        },
        List {
            blobs: 1,
            bytes: 0,
            entries: vec![ListEntry { length: 0, ..entry }],
            ..good
        },
    ];
    for list in bad {
        assert!(list.validate().is_err(), "{list:?}");
    }
}

#[test]
fn shards_end_where_paths_say_and_at_their_limits() {
    let path = |at: u32| format!("local_content/{at:08}");
    let mut cutter = ShardCutter::new();
    let shards = (0..100_000).filter(|at| cutter.push(path(*at), Some(1_000))).count();
    assert!((300..480).contains(&shards), "{shards} shards of 100,000 files");
    let quiet = (0..100)
        .map(path)
        .find(|path| !synapse_backup::format::manifest::cuts_after(path))
        .unwrap();
    let mut cutter = ShardCutter::new();
    assert_eq!((1..=4_096).filter(|_| cutter.push(&quiet, None)).collect::<Vec<_>>(), [4_096]);
    assert!(cutter.push(&quiet, Some(u64::MAX)));
    assert!(!cutter.push(&quiet, Some(32_767 << 23)));
    assert!(cutter.push(&quiet, Some(1)));
}

#[test]
fn rows_that_differ_give_different_digests() {
    let some = |length, sha256| RowState { length, sha256 };
    let (a, b) = (BlobId::of(b"a"), BlobId::of(b"b"));
    let rows: [&[(&str, RowState)]; 9] = [
        &[],
        &[("a", some(None, None))],
        &[("a", some(Some(0), None))],
        &[("a", some(None, Some(a)))],
        &[("a", some(None, Some(b)))],
        &[("a", some(Some(0), Some(a)))],
        &[("a", some(None, None)), ("b", some(None, None))],
        &[("ab", some(None, None))],
        &[("", some(None, None)), ("ab", some(None, None))],
    ];
    let mut hasher = RowHasher::new();
    let digests: std::collections::HashSet<_> = rows
        .iter()
        .map(|rows| {
            rows.iter().for_each(|(path, row)| hasher.push(path, row));
            hasher.finish()
        })
        .collect();
    assert_eq!(digests.len(), rows.len());
}

#[test]
fn a_million_entries_are_sorted_and_read_back() {
    let mut random = values::SplitMix(10);
    let mut id = || std::array::from_fn(|_| random.next().to_le_bytes()[0]);
    let packs = vec![SegmentPack {
        id: values::pack_id(1),
        kind: PackKind::Database,
        bytes: 64 << 20,
    }];
    let blob = |id| BlobEntry {
        id: BlobId::from_bytes(id),
        frame_offset: 5,
        frame_length: 6,
        offset_in_frame: 7,
        raw_length: 8,
    };
    let entries = (0..1_000_000).map(|_| SegmentEntry { pack: 0, blob: blob(id()) }).collect();
    let bytes = encode_segment(Segment {
        run: values::object_id(2),
        packs: packs.clone(),
        entries,
    })
    .unwrap();
    assert_eq!(decode_segment(&bytes).unwrap().entries.len(), 1_000_000);
    let too_many = vec![
        SegmentEntry {
            pack: 0,
            blob: blob([0; 32])
        };
        1_300_000
    ];
    let distinct = too_many.into_iter().enumerate().map(|(at, mut entry)| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&at.to_le_bytes());
        entry.blob.id = BlobId::from_bytes(id);
        entry
    });
    let segment = Segment {
        run: values::object_id(2),
        packs,
        entries: distinct.collect(),
    };
    assert!(matches!(encode_segment(segment), Err(Error::OverLimit { .. })));
}

/// The golden document, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Snapshot {
    let mut document = serde_json::to_value(values::snapshot()).unwrap();
    change(&mut document);
    serde_json::from_value(document).unwrap()
}

#[test]
fn fields_and_kinds_of_later_versions_do_not_break_a_reader() {
    let read = changed(|document| {
        document["later"] = json!({"a": [1, 2]});
        document["databases"][0]["later"] = json!(true);
        document["databases"][0]["streams"][0]["format"] = json!("ranges");
        document["config"][0]["later"] = json!(null);
        document["config"][0]["role"] = json!("oracle");
        document["config"][1]["kind"] = json!("door");
        document["problems"][0]["kind"] = json!("eaten");
        document["media"]["included"]["later"] = json!(1);
    });
    assert_eq!(read.databases[0].streams[0].format, StreamFormat::Unknown);
    assert_eq!(read.config[0].role, ConfigRole::Other);
    assert_eq!(read.config[1].kind, ConfigKind::Unknown);
    assert_eq!(read.problems[0].kind, ProblemKind::Unknown);
    let mut shard = String::from_utf8(encode_shard(&values::shard()).unwrap()).unwrap();
    shard = shard
        .replace(r#""kind":"missing""#, r#""later":{},"kind":"eaten""#)
        .replace(r#"{"version":1"#, r#"{"later":2,"version":1"#);
    assert_eq!(
        decode_shard(shard.as_bytes()).unwrap().entries[3].problem.as_ref().unwrap().kind,
        ProblemKind::Unknown
    );
}

#[test]
fn a_repository_that_this_program_cannot_read_says_why() {
    let read = |change: fn(&mut Value)| {
        let mut json: Value = serde_json::from_slice(&values::repository().to_json().unwrap()).unwrap();
        change(&mut json);
        RepositoryInfo::from_json(&serde_json::to_vec(&json).unwrap())
    };
    assert_eq!(read(|json| json["later"] = json!(1)), Ok(values::repository()));
    assert_eq!(
        read(|json| *json = json!({"format": 2})),
        Err(Error::Version {
            what: "repository.json",
            found: 2,
            supported: 1
        })
    );
    let feature = |feature: &str| Err(Error::Feature { feature: feature.into() });
    assert_eq!(read(|json| json["features_required"] = json!(["tape"])), feature("tape"));
    for wrong in [
        read(|json| json["chunk_sizes"]["max"] = json!(1)),
        read(|json| json["sealed"] = json!(true)),
        read(|json| json["features_required"] = json!(["sealed"])),
        read(|json| json["window_seconds"] = json!(86_400)),
        read(|json| json["id"] = json!("BB")),
        read(|json| json["created"] = json!("yesterday")),
        RepositoryInfo::from_json(b""),
    ] {
        assert!(
            matches!(
                wrong,
                Err(Error::Damaged {
                    what: "repository.json",
                    ..
                })
            ),
            "{wrong:?}"
        );
    }
    let error = RepositoryInfo::from_json(&vec![b' '; (1 << 20) + 1]);
    assert!(matches!(error, Err(Error::OverLimit { .. })));
}
