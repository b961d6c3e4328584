//! Half a million blobs, more than fit: a prune, its statistics and an adoption in the least memory stay within it. The blobs are names only.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::index::{Segment, SegmentEntry, SegmentPack};
use synapse_backup::format::list::ListEntry;
use synapse_backup::format::pack::BlobEntry;
use synapse_backup::format::snapshot::{self, Snapshot};
use synapse_backup::format::{BlobId, PackId, PackKind, keys};
use synapse_backup::repo::commit::{Relied, commit};
use synapse_backup::repo::writer::{Budget, ListWriter, Stored, Writer, put_segment};
use synapse_backup::store::counters::Counters;
use synapse_backup::store::local;

use crate::rig::{LIMITS, document, init};

const BLOBS: u32 = 500_000;
const BLOBS_OF_A_PACK: u32 = 2_000;
const PACKS_OF_A_SEGMENT: u32 = 50;
const MEMORY: u64 = 96 << 20;

/// As random as a SHA-256, and quicker.
fn id(number: u32) -> BlobId {
    let mut bytes = [0; 32];
    let mut state = u64::from(number) + 1;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ (state >> 7);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    BlobId::from_bytes(bytes)
}

fn pack(number: u32) -> PackId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&id(number ^ 0xffff_0000).as_bytes()[..16]);
    PackId::from_bytes(bytes)
}

fn entry(number: u32) -> BlobEntry {
    BlobEntry {
        id: id(number),
        frame_offset: 0,
        frame_length: 60,
        offset_in_frame: number % BLOBS_OF_A_PACK * 4_000,
        raw_length: 4_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_many_blobs_stays_within_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = local::open(folder.path(), true, Arc::new(Counters::default())).await.unwrap();
    let repository = init(store).await;
    let packs = BLOBS / BLOBS_OF_A_PACK;
    for first in (0..packs).step_by(PACKS_OF_A_SEGMENT as usize) {
        let numbers = first..(first + PACKS_OF_A_SEGMENT).min(packs);
        for number in numbers.clone() {
            let body = bytes::Bytes::from_static(&[0; 64]);
            repository.store().put(&keys::pack(pack(number)), body).await.unwrap();
        }
        let blobs = numbers.start * BLOBS_OF_A_PACK..numbers.end * BLOBS_OF_A_PACK;
        let segment = Segment {
            run: repository.ids().object(),
            packs: numbers
                .clone()
                .map(|number| SegmentPack {
                    id: pack(number),
                    kind: PackKind::Database,
                    bytes: 64,
                })
                .collect(),
            entries: blobs
                .map(|number| SegmentEntry {
                    pack: number / BLOBS_OF_A_PACK - first,
                    blob: entry(number),
                })
                .collect(),
        };
        put_segment(&repository, segment).await.unwrap();
    }
    let budget = Budget::new(LIMITS.memory_bytes, LIMITS.connections);
    let writer = Writer::open(&repository, Arc::default(), BTreeSet::new(), &budget);
    let mut list = ListWriter::new(&writer);
    let live = |number: &u32| number % 10 < 7;
    for number in (0..BLOBS).filter(live) {
        let entry = ListEntry {
            id: id(number),
            length: 4_000,
            pack: pack(number / BLOBS_OF_A_PACK),
        };
        list.push(entry).await.unwrap();
    }
    let list = list.finish().await.unwrap();
    let finished = writer.finish().await.unwrap();
    let stored = Stored {
        list,
        read_bytes: 0,
        new_bytes: 0,
    };
    let time = repository.date().await.unwrap();
    let relied = Relied::from(finished.packs);
    let committed = commit(&repository, &relied, |id, packs| Snapshot {
        id,
        packs: packs.iter().copied().collect(),
        ..document(&repository, &stored, time)
    });
    committed.await.unwrap();

    let report = in_little_memory(&["prune", "--dry-run"], folder.path());
    let lists = u64::from(BLOBS / 10 * 7);
    let live = report["totals"]["live_blobs"].as_u64().unwrap();
    assert!(live > lists && live < lists + lists / 50, "{live} live blobs");
    let report = in_little_memory(&["stats"], folder.path());
    let raw = report["kinds"]["database"]["deduplicated_bytes"].as_u64().unwrap();
    assert_eq!(raw, lists * 4_000);

    // The same snapshot, late, and it names a pack that is gone: where its blobs are now is found within the same bound.
    let late = Snapshot {
        id: repository.ids().object(),
        packs: vec![repository.ids().pack()],
        ..document(&repository, &stored, time)
    };
    let object = snapshot::encode(&late, time - SignedDuration::from_hours(1)).unwrap();
    let key = keys::snapshot(late.time, late.id).unwrap();
    repository.store().put(&key, object.into()).await.unwrap();
    let report = in_little_memory(&["adopt", "--all"], folder.path());
    assert_eq!(report["adopted"], serde_json::json!([late.id.to_string()]));
}

/// What the program reports, with so little memory.
fn in_little_memory(words: &[&str], folder: &Path) -> serde_json::Value {
    let ran = Command::new(env!("CARGO_BIN_EXE_synapse-backup"))
        .args(words)
        .args(["--json", "--repository"])
        .arg(format!("file://{}", folder.display()))
        .env("SYNAPSE_BACKUP_LIMITS_MEMORY", MEMORY.to_string())
        .output()
        .unwrap();
    let out = String::from_utf8(ran.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(report["exit_code"], 0, "{report}");
    let peak = report["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak <= MEMORY, "{words:?}: {peak} bytes");
    report
}
