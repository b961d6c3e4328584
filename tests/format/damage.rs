//! Every truncation and every changed byte: an error with its place, never a panic, never wrong bytes.
//!
//! Tables, segments and snapshots carry digests of their own. Frames carry zstd's checksum. Lists and shards are blobs, whose
//! ids are checked by the reader; of them only "never a panic, and limits are kept" is asked here.

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use synapse_backup::format::frame::{FrameDecoder, FrameEncoder};
use synapse_backup::format::index::{decode_segment, encode_segment};
use synapse_backup::format::list::decode_list;
use synapse_backup::format::manifest::{decode_shard, decode_shard_ref, encode_shard};
use synapse_backup::format::pack::{TailRead, decode_table, encode_table};
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::format::{Error, Result};
use synapse_backup::format::{keys, snapshot};

use crate::golden::{golden, golden_hex};
use crate::pack::{EXAMPLE, blobs_of, pack_of};
use crate::values;

/// Every prefix but the whole, and every byte changed in each bit and in all; with what was done.
fn damages(good: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let cut = (0..good.len()).map(|length| (format!("cut at {length}"), good[..length].to_vec()));
    let flips = (0..good.len()).flat_map(|at| [1, 2, 4, 8, 16, 32, 64, 128, 255].map(|mask| (at, mask)));
    let flipped = flips.map(|(at, mask)| {
        let mut bad = good.to_vec();
        bad[at] ^= mask;
        (format!("byte {at} ^ {mask}"), bad)
    });
    let longer = [good, b"\0"].concat();
    cut.chain(flipped).chain(std::iter::once(("one byte longer".to_owned(), longer)))
}

/// Each damage of `good` must be an error that names a place or a limit.
fn all_refused<T: std::fmt::Debug>(good: &[u8], decode: impl Fn(&[u8]) -> Result<T>) {
    assert!(decode(good).is_ok());
    for (damage, bad) in damages(good) {
        match decode(&bad) {
            Err(Error::Damaged { place, .. }) => assert!(!place.is_empty()),
            Err(Error::OverLimit { .. }) => {}
            other => panic!("{damage}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_table_is_an_error_with_its_place() {
    let good = encode_table(&values::table(), 50).unwrap();
    let object = |tail: &[u8]| decode_table(tail, 50 + tail.len() as u64);
    all_refused(&good, |bad| match object(bad)? {
        TailRead::Table(table) => Ok(table),
        TailRead::NeedTail(wanted) => {
            // A shorter object is asked for more than there is, or for all of it: the store then gives the same bytes again.
            assert!(wanted <= 50 + bad.len() as u64);
            Err(Error::Damaged {
                what: "pack table",
                place: "the store has no more".into(),
            })
        }
    });
}

#[test]
fn a_damaged_segment_is_an_error_with_its_place() {
    all_refused(&encode_segment(values::segment()).unwrap(), decode_segment);
}

#[test]
fn a_damaged_snapshot_is_an_error_with_its_place() {
    all_refused(&golden_hex("snapshot.json.zst.hex"), snapshot::decode);
}

#[test]
fn a_damaged_frame_is_an_error_with_its_place_or_the_same_bytes() {
    let mut encoder = FrameEncoder::new(3).unwrap();
    for blob in [
        b"a".to_vec(),
        b"again and again and again and again".to_vec(),
        values::noise(1, 300),
        values::copy_text(1, 4),
    ] {
        let good = encoder.encode(&[&blob]).unwrap();
        for (damage, bad) in damages(&good) {
            match FrameDecoder::new().unwrap().decode(&bad) {
                Err(Error::Damaged { place, .. }) => assert!(!place.is_empty()),
                Err(Error::OverLimit { .. }) => {}
                // zstd can say the same thing in several ways: a byte copied or repeated once, a period or two of it looked back.
                Ok(raw) => assert!(raw == blob, "{damage} gave wrong bytes"),
                Err(other) => panic!("{damage}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_damaged_pack_never_gives_wrong_bytes() {
    let good = pack_of(&EXAMPLE);
    for (damage, bad) in damages(&good) {
        let read = blobs_of(&bad);
        assert!(read.is_err(), "{damage}: {read:?}");
    }
}

#[test]
fn a_damaged_list_or_shard_never_panics_and_keeps_its_limits() {
    let list = golden_hex("list.hex");
    for (_, bad) in damages(&list) {
        if let Ok(entries) = decode_list(&bad) {
            assert!(entries.len() == bad.len() / 52 && entries.iter().all(|entry| (1..=8 << 20).contains(&entry.length)));
        }
    }
    for (damage, bad) in damages(&encode_shard(&values::shard()).unwrap()) {
        let read = decode_shard(&bad);
        assert!(
            read.is_err() || !(damage.starts_with("cut") || damage.starts_with("one")),
            "{damage}: {read:?}"
        );
        if let Ok(shard) = read {
            let blobs = shard.entries.iter().flat_map(|entry| &entry.blobs);
            assert!(
                blobs
                    .into_iter()
                    .all(|blob| (blob.pack as usize) < shard.packs.len() && (1..=8 << 20).contains(&blob.length))
            );
        }
    }
    for (_, bad) in damages(&golden("shard_list.jsonl")) {
        let _ = decode_shard_ref(&bad, 1);
    }
    for (_, bad) in damages(&golden("repository.json")) {
        let _ = RepositoryInfo::from_json(&bad);
    }
}

#[test]
fn a_shard_says_which_line_is_wrong() {
    let text = String::from_utf8(golden("shard.jsonl")).unwrap();
    let cases = [
        ("\"pack\":0", "\"pack\":2", "line 2: pack ordinal"),
        (
            "\"bytes\":8388611",
            "\"bytes\":8388612",
            "line 4: bytes is not the sum of the blobs",
        ),
        ("\"length\":8388608", "\"length\":8388609", "line 4: length of a blob"),
        (
            "local_content/cc/cc/gone",
            "local_content/aa/aa/gone",
            "line 5: paths do not ascend",
        ),
        ("path_base64\":\"", "path_base64\":\"!", "line 6: path_base64 is not base64"),
        (
            "\"mode\":\"0640\"",
            "\"mode\":\"0680\"",
            "line 6: a mode is up to four octal digits",
        ),
        ("\"entries\":5", "\"entries\":6", "line 7: missing"),
        ("\"entries\":5", "\"entries\":4", "line 6: more lines than entries"),
    ];
    for (from, to, wanted) in cases {
        assert!(text.contains(from), "{from}");
        let Err(Error::Damaged {
            what: "media shard",
            place,
        }) = decode_shard(text.replacen(from, to, 1).as_bytes())
        else {
            panic!("{to} was read")
        };
        assert!(place.starts_with(wanted), "{place}, not {wanted}");
    }
    let many = text.replacen("\"entries\":5", "\"entries\":4097", 1);
    assert!(matches!(
        decode_shard(many.as_bytes()),
        Err(Error::OverLimit {
            value: 4_097,
            limit: 4_096,
            ..
        })
    ));
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(decode_shard(newer.as_bytes()), Err(Error::Version { found: 2, .. })));
}

/// `good` with the bytes at `at` replaced and its digest made right again: damage that only a check of the values finds.
fn forged(good: &[u8], at: usize, with: &[u8], digest_at: usize) -> Vec<u8> {
    let mut bad = good.to_vec();
    bad[at..at + with.len()].copy_from_slice(with);
    let digest: [u8; 32] = Sha256::digest(&bad[..digest_at]).into();
    bad[digest_at..digest_at + 32].copy_from_slice(&digest);
    bad
}

#[test]
fn values_are_checked_even_where_the_digest_is_right() {
    let segment = encode_segment(values::segment()).unwrap();
    let end = segment.len() - 32;
    let first_entry = 36 + 2 * 25;
    for (at, value) in [
        (28, u32::MAX),
        (28, 1),
        (32, u32::MAX),
        (first_entry + 32, 2),
        (first_entry + 48, u32::MAX),
        (first_entry + 48, 0),
    ] {
        let read = decode_segment(&forged(&segment, at, &value.to_le_bytes(), end));
        assert!(matches!(read, Err(Error::Damaged { .. })), "{at} {value}: {read:?}");
    }
    let order = forged(&segment, first_entry, &[0xff; 32], end);
    assert_eq!(
        decode_segment(&order),
        Err(Error::Damaged {
            what: "index segment",
            place: "entry 1: order".into()
        })
    );
    let newer = decode_segment(&forged(&segment, 8, &2_u32.to_le_bytes(), end));
    assert_eq!(
        newer,
        Err(Error::Version {
            what: "index segment",
            found: 2,
            supported: 1
        })
    );

    let table = encode_table(&values::table(), 50).unwrap();
    let end = table.len() - 40;
    let read = |at, value: &[u8]| decode_table(&forged(&table, at, value, end), 50 + table.len() as u64);
    for (at, value) in [(0, 0x5a_u8), (4, 0), (20, 9), (37 + 32, 1), (37 + 36, 1), (37 + 48, 0)] {
        assert!(matches!(read(at, &[value]), Err(Error::Damaged { .. })), "{at}");
    }
    assert!(matches!(read(end - 8, &u32::MAX.to_le_bytes()), Err(Error::OverLimit { .. })));
    assert!(matches!(read(16, &[2]), Err(Error::Version { found: 2, .. })));
}

#[test]
fn a_trailer_of_a_later_version_may_be_longer_but_not_another() {
    let object = golden_hex("snapshot.json.zst.hex");
    let trailer = object.len() - 64;
    let mut longer = object[..object.len() - 32].to_vec();
    longer.extend_from_slice(b"a signature");
    longer[trailer + 4..trailer + 8].copy_from_slice(&(56_u32 + 11).to_le_bytes());
    let end = longer.len();
    longer.extend_from_slice(&[0; 32]);
    let longer = forged(&longer, 0, &[], end);
    assert_eq!(snapshot::decode(&longer), snapshot::decode(&object));
    let newer = snapshot::decode(&forged(&object, trailer + 16, &[2], object.len() - 32));
    assert!(
        matches!(
            newer,
            Err(Error::Version {
                what: "snapshot trailer",
                found: 2,
                supported: 1
            })
        ),
        "{newer:?}"
    );
    let late = snapshot::decode(&forged(&object, trailer + 20, &[0xff; 7], object.len() - 32));
    assert!(matches!(late, Err(Error::Damaged { .. })), "{late:?}");
}

/// The golden snapshot with a changed document, and everything else of it right.
fn with_document(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let object = golden_hex("snapshot.json.zst.hex");
    let mut document = serde_json::to_value(values::snapshot()).unwrap();
    change(&mut document);
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    let frame = compressor.compress(&serde_json::to_vec(&document).unwrap()).unwrap();
    let changed = [&frame, &object[object.len() - 64..]].concat();
    let end = changed.len() - 32;
    forged(&changed, 0, &[], end)
}

#[test]
fn a_snapshot_that_needs_more_than_this_program_knows_is_refused_by_name() {
    assert_eq!(snapshot::decode(&with_document(|_| ())).unwrap().0, values::snapshot());
    let needs = |features: serde_json::Value| {
        // The rest may be anything then.
        snapshot::decode(&with_document(|document| {
            document["features_required"] = features;
            document["media"] = serde_json::json!("on tape");
        }))
    };
    assert_eq!(needs(serde_json::json!(["tape"])), Err(Error::Feature { feature: "tape".into() }));
    assert!(matches!(needs(serde_json::json!([])), Err(Error::Damaged { .. })));
    let newer = snapshot::decode(&with_document(|document| *document = serde_json::json!({"format": 2})));
    assert!(
        matches!(
            newer,
            Err(Error::Version {
                what: "snapshot",
                found: 2,
                ..
            })
        ),
        "{newer:?}"
    );
}

#[test]
fn a_snapshot_under_the_name_of_another_one_is_refused() {
    let (object, snapshot) = (golden_hex("snapshot.json.zst.hex"), values::snapshot());
    let (id, other) = (snapshot.id, values::object_id(0x77));
    let later = snapshot.time + jiff::SignedDuration::from_secs(1);
    for (key, is_its_own) in [
        (keys::snapshot(snapshot.time, id), true),
        (keys::snapshot_again(snapshot.time, id, other), true),
        (keys::snapshot(snapshot.time, other), false),
        (keys::snapshot_again(snapshot.time, other, id), false),
        (keys::snapshot(later, id), false),
    ] {
        let key = key.unwrap();
        let read = snapshot::decode_named(&key, &object);
        assert_eq!(read.is_ok(), is_its_own, "{key}: {read:?}");
    }
}

#[test]
fn a_signature_stands_before_what_a_later_version_has_added() {
    let object = golden_hex("snapshot.json.zst.hex");
    let trailer = object.len() - 64;
    let mut longer = object[..object.len() - 32].to_vec();
    longer.extend_from_slice(b"a word");
    longer[trailer + 4..trailer + 8].copy_from_slice(&(56_u32 + 6).to_le_bytes());
    let end = longer.len();
    longer.extend_from_slice(&[0; 32]);
    let mut object = forged(&longer, 0, &[], end);
    let here = values::snapshot().repository;
    for seed in [7, 8] {
        object = snapshot::countersign(&object, here, &WriterKey::new([seed; 32].into())).unwrap();
    }
    let (_, signed) = snapshot::decode(&object).unwrap();
    assert!(
        signed.signatures.iter().all(|made| made.is_good && made.repository == here),
        "{signed:?}"
    );
    assert_eq!(signed.signatures.len(), 2);
    assert!(object[..object.len() - 32].ends_with(b"a word"));
}

#[test]
fn a_frame_without_size_or_checksum_or_with_too_much_is_refused_by_its_header() {
    let decode = |frame: &[u8]| FrameDecoder::new().unwrap().decode(frame);
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    let bare = compressor.compress(b"no checksum here").unwrap();
    assert_eq!(
        decode(&bare),
        Err(Error::Damaged {
            what: "frame",
            place: "byte 4: frame header descriptor".into()
        })
    );
    compressor.include_checksum(true).unwrap();
    let good = compressor.compress(b"twice").unwrap();
    assert_eq!(decode(&good).unwrap(), b"twice");
    assert!(
        decode(&[good.as_slice(), good.as_slice()].concat()).is_err(),
        "two frames are not one"
    );
    let large = compressor.compress(&vec![0; (8 << 20) + 1]).unwrap();
    assert_eq!(
        decode(&large),
        Err(Error::OverLimit {
            what: "content size of a frame",
            value: (8 << 20) + 1,
            limit: 8 << 20
        })
    );
    compressor.include_contentsize(false).unwrap();
    let sizeless = compressor.compress(b"no size here").unwrap();
    assert_eq!(
        decode(&sizeless),
        Err(Error::Damaged {
            what: "frame",
            place: "byte 5: content size".into()
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn noise_is_never_read_and_never_panics(data in proptest::collection::vec(any::<u8>(), 0..400), lead in 0_usize..6) {
        let starts: [&[u8]; 6] = [b"", b"SBKINDEX\x01\0\0\0", b"\x28\xb5\x2f\xfd", b"\x5b\x2a\x4d\x18", b"{\"version\":1,", b"\x28\xb5\x2f\xfd\x24\x05"];
        let data = [starts[lead], &data].concat();
        prop_assert!(decode_segment(&data).is_err());
        prop_assert!(snapshot::decode(&data).is_err());
        prop_assert!(decode_shard(&data).is_err());
        prop_assert!(!matches!(decode_table(&data, data.len() as u64), Ok(TailRead::Table(_))));
        let _ = decode_list(&data);
        let _ = FrameDecoder::new().unwrap().decode(&data);
    }
}
