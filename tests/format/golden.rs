//! Bytes that stand in buckets: fixed values must give the committed bytes, and the committed bytes the fixed values.
//!
//! Compressed bytes may differ between versions of zstd, so those are compared by what they hold. A test that fails leaves what it found
//! under `target/tmp/`, to be looked at; whether the format or the code is wrong is for a person to say.

use std::fs;
use std::path::Path;

use synapse_backup::format::index::{decode_segment, encode_segment};
use synapse_backup::format::list::{ListCutter, decode_list};
use synapse_backup::format::manifest::{RowHasher, decode_shard, decode_shard_ref, encode_shard, encode_shard_ref};
use synapse_backup::format::pack::{TailRead, decode_table, encode_table};
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::snapshot;

use crate::values;

/// The committed file `tests/golden/<name>`.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `found` must be the committed file.
pub(crate) fn compare(name: &str, found: &[u8]) {
    let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&left, found).unwrap();
    assert!(
        found == golden(name),
        "tests/golden/{name} holds something else than {}",
        left.display()
    );
}

/// Bytes as lines of hex, 32 a line.
fn to_hex(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| hex::encode(line) + "\n").collect()
}

/// The bytes of a committed file of hex.
pub(crate) fn golden_hex(name: &str) -> Vec<u8> {
    let text = String::from_utf8(golden(name)).unwrap();
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn a_pack_table_has_its_golden_bytes() {
    let bytes = encode_table(&values::table(), 50).unwrap();
    compare("pack_table.hex", to_hex(&bytes).as_bytes());
    let object_bytes = bytes.len() as u64 + 50;
    assert_eq!(
        decode_table(&golden_hex("pack_table.hex"), object_bytes),
        Ok(TailRead::Table(values::table()))
    );
}

#[test]
fn a_segment_has_its_golden_bytes() {
    compare("segment.hex", to_hex(&encode_segment(values::segment()).unwrap()).as_bytes());
    assert_eq!(decode_segment(&golden_hex("segment.hex")), Ok(values::segment()));
}

#[test]
fn a_list_blob_has_its_golden_bytes() {
    let mut cutter = ListCutter::new();
    assert!(values::list_entries().into_iter().all(|entry| cutter.push(entry).is_none()));
    compare("list.hex", to_hex(&cutter.finish().unwrap()).as_bytes());
    assert_eq!(decode_list(&golden_hex("list.hex")), Ok(values::list_entries()));
}

#[test]
fn a_shard_has_its_golden_lines() {
    compare("shard.jsonl", &encode_shard(&values::shard()).unwrap());
    assert_eq!(decode_shard(&golden("shard.jsonl")), Ok(values::shard()));
}

#[test]
fn a_shard_list_has_its_golden_line() {
    let mut line = Vec::new();
    encode_shard_ref(&values::shard_ref(), &mut line).unwrap();
    compare("shard_list.jsonl", &line);
    assert_eq!(decode_shard_ref(&golden("shard_list.jsonl"), 1), Ok(values::shard_ref()));
}

#[test]
fn the_row_digest_is_the_golden_one() {
    let mut hasher = RowHasher::new();
    for entry in values::shard().entries {
        hasher.push(&entry.path, &entry.row);
    }
    compare("row_digest.hex", format!("{}\n", hasher.finish().0).as_bytes());
}

#[test]
fn a_snapshot_has_its_golden_document() {
    let snapshot = values::snapshot();
    let mut document = serde_json::to_vec_pretty(&snapshot).unwrap();
    document.push(b'\n');
    compare("snapshot.json", &document);
    assert_eq!(
        serde_json::from_slice::<snapshot::Snapshot>(&golden("snapshot.json")).unwrap(),
        snapshot
    );
}

#[test]
fn a_snapshot_object_is_read_for_ever() {
    let not_after = "2026-07-23T22:11:12.5Z".parse().unwrap();
    let object = snapshot::encode(&values::snapshot(), not_after).unwrap();
    fs::write(
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("snapshot.json.zst.hex"),
        to_hex(&object),
    )
    .unwrap();
    let (read, signed) = snapshot::decode(&golden_hex("snapshot.json.zst.hex")).unwrap();
    assert_eq!((read, signed.not_after), (values::snapshot(), not_after));
}

#[test]
fn repository_json_has_its_golden_text() {
    compare("repository.json", &values::repository().to_json().unwrap());
    assert_eq!(RepositoryInfo::from_json(&golden("repository.json")), Ok(values::repository()));
}
