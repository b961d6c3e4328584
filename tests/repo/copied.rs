//! Copies in little memory: only what the destination lacks is sent, however little of its index fits, and `limits.memory` is kept.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::{BlobId, PackKind};
use synapse_backup::ops::{Limits, copy};
use synapse_backup::repo::Repository;
use synapse_backup::repo::catalog::{self, Catalog};
use synapse_backup::store::counters::{Counters, Kind};
use synapse_backup::store::wrappers::Record;
use synapse_backup::store::{Store, local};

use crate::rig::{Bytes, LIMITS, backup, init, init_with_small_blobs, memory, noise, read, run, verify};

async fn copied(source: &Repository, destination: &Repository, memory_bytes: u64) -> copy::Report {
    let options = copy::Options {
        choice: copy::Choice::All,
        dry_run: false,
        limits: Limits { memory_bytes, ..LIMITS },
    };
    copy::copy(source, destination, &options, &run()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_destination_has_is_not_sent_again_although_its_index_does_not_fit() {
    let here = memory();
    let source = init_with_small_blobs(here.clone()).await;
    let first = noise(1, 30 << 20);
    backup(&source, &mut Bytes::new(&first)).await.unwrap();
    let destination = init_with_small_blobs(memory()).await;
    // No line of any index fits, and not all blobs can wait at once.
    let little = 1 << 20;
    let all = copied(&source, &destination, little).await;
    assert_eq!((all.copied.len(), all.problems.len()), (1, 0));
    assert!(all.blobs > 6_000, "{} blobs", all.blobs);
    let lists = all.new_bytes - first.len() as u64;
    assert!(lists < first.len() as u64 / 20, "{lists} bytes of lists");
    // The same an hour later, and a little behind it.
    here.clock().advance(SignedDuration::from_hours(1));
    let second = [first.as_slice(), &noise(2, 100_000)].concat();
    backup(&source, &mut Bytes::new(&second)).await.unwrap();
    let more = copied(&source, &destination, little).await;
    assert_eq!((more.copied.len(), more.present), (1, 1));
    assert!(
        more.new_bytes < 100_000 + 2 * lists,
        "{} bytes were sent, and {lists} for all lists",
        more.new_bytes
    );
    assert!(read(&destination, "latest").await.unwrap() == second);
    assert_eq!(verify(&destination).await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_that_does_not_fit_metadata_stays_and_nothing_is_read_twice() {
    let record = Arc::new(Record::new(memory()));
    let repository = init_with_small_blobs(Arc::clone(&record) as Arc<dyn Store>).await;
    for night in 0..4 {
        backup(&repository, &mut Bytes::new(&noise(night, 4 << 20))).await.unwrap();
    }
    let whole = catalog::load(&repository, 64 << 20).await.unwrap();
    let metadata = |catalog: &Catalog| -> Vec<BlobId> {
        let entries = catalog.entries().iter();
        let metadata = entries.filter(|entry| catalog.packs()[entry.pack as usize].kind == PackKind::Metadata);
        metadata.map(|entry| entry.blob.id).collect()
    };
    let needed = metadata(&whole);
    assert!(!needed.is_empty() && needed.len() < whole.len() / 4);
    let begun = record.calls().len();
    let little = catalog::load_or_metadata(&repository, whole.len() / 2 * catalog::ENTRY_BYTES)
        .await
        .unwrap();
    assert!(little.truncated);
    assert_eq!((metadata(&little), little.len()), (needed.clone(), needed.len()));
    let gets = record.calls()[begun..].iter().filter(|call| call.kind == Kind::Get).count();
    assert_eq!(gets, whole.segments);
    let all = catalog::load_or_metadata(&repository, whole.len() * catalog::ENTRY_BYTES)
        .await
        .unwrap();
    assert_eq!((all.truncated, all.len()), (false, whole.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_stays_within_its_memory() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = async |folder: &Path| local::open(folder, true, Arc::new(Counters::default())).await.unwrap();
    let source = init(open(from.path()).await).await;
    backup(&source, &mut Bytes::new(&noise(1, 64 << 20))).await.unwrap();
    init(open(to.path()).await).await;
    let copy = |mebibytes: u64| {
        let ran = Command::new(env!("CARGO_BIN_EXE_synapse-backup"))
            .args(["copy", "--all", "--json", "--repository"])
            .arg(format!("file://{}", from.path().display()))
            .arg("--to")
            .arg(format!("file://{}", to.path().display()))
            .env("SYNAPSE_BACKUP_LIMITS_MEMORY", (mebibytes << 20).to_string())
            .output()
            .unwrap();
        let out = String::from_utf8(ran.stdout).unwrap();
        serde_json::from_str::<serde_json::Value>(out.lines().last().unwrap()).unwrap()
    };
    let refused = copy(127);
    assert_eq!(refused["exit_code"], 2, "{refused}");
    let report = copy(128);
    assert_eq!(
        (&report["exit_code"], report["copied"].as_array().unwrap().len()),
        (&0.into(), 1),
        "{report}"
    );
    let peak = report["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak <= 128 << 20, "{peak} bytes");
}
