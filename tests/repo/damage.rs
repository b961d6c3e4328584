//! Bytes that come back are hashed before they are believed: whatever is flipped, nothing wrong is ever given out.

use std::process::Command;
use std::sync::Arc;

use synapse_backup::ops::{Limits, verify as verification};
use synapse_backup::repo::Repository;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::{Store, local};

use crate::rig::{Bytes, Keys, LIMITS, backup, init, init_sealed, memory, noise, read, run, verify};

/// Every object but `repository.json`, damaged at some places, cut short, or taken away.
#[tokio::test(flavor = "multi_thread")]
async fn no_damage_anywhere_gives_a_wrong_byte() {
    let store = memory();
    let repository = init(Arc::clone(&store) as Arc<dyn Store>).await;
    try_all_damages(&store, &repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_anywhere_in_a_sealed_repository_gives_a_wrong_byte() {
    let store = memory();
    let repository = init_sealed(Arc::clone(&store) as Arc<dyn Store>, &Keys::new(1)).await;
    try_all_damages(&store, &repository).await;
}

async fn try_all_damages(memory: &Memory, repository: &Repository) {
    let bytes = noise(1, 300_000);
    backup(repository, &mut Bytes::new(&bytes)).await.unwrap();
    let whole = memory.objects();
    let (mut refused, mut read_all_the_same) = (0, 0);
    for (key, object) in whole.iter().filter(|(key, _)| key.as_str() != "repository.json") {
        let step = (object.len() / 40).max(1);
        let flips = (0..object.len()).step_by(step).chain([object.len() - 1]).map(|place| {
            let mut damaged = object.to_vec();
            damaged[place] ^= 0x10;
            (format!("{key}: byte {place} flipped"), damaged)
        });
        let cuts = [0, 1, object.len() / 2, object.len() - 1].map(|length| (format!("{key}: cut to {length}"), object[..length].to_vec()));
        for (damage, damaged) in flips.chain(cuts) {
            memory.damage(key, damaged.into());
            match read(repository, "latest").await {
                Ok(got) => {
                    assert!(got == bytes, "{damage}: wrong bytes");
                    read_all_the_same += 1;
                }
                Err(_) => refused += 1,
            }
            let found = verify(repository).await.problems;
            assert!(!found.is_empty(), "{damage}: verify found nothing");
        }
        memory.damage(key, object.clone());
    }
    assert_eq!(verify(repository).await.problems, []);
    // Both happen: a pack's frame is lost, a pack's table or a segment is not needed where the other is whole.
    assert!(
        refused > 10 && read_all_the_same > 10,
        "{refused} refused, {read_all_the_same} read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_says_of_a_lost_pack_is_what_it_costs() {
    let memory = memory();
    let repository = init(Arc::clone(&memory) as Arc<dyn Store>).await;
    let snapshot = backup(&repository, &mut Bytes::new(&noise(1, 300_000))).await.unwrap();
    let packs: Vec<String> = memory.objects().into_keys().filter(|key| key.starts_with("packs/")).collect();
    for pack in packs {
        memory.delete(&pack).await.unwrap();
    }
    let problems = verify(&repository).await.problems;
    let id = &snapshot.id.to_string()[..8];
    let item = problems.iter().find(|problem| problem.item == "database/synapse/main").unwrap();
    assert!(
        item.message.contains("blobs are lost") && item.message.contains(id),
        "{}",
        item.message
    );
}

/// Every byte, in so little memory that no pack of some mebibytes fits.
async fn verify_in_pieces(repository: &Repository) -> verification::Report {
    let options = verification::Options {
        snapshot: None,
        read_data: Some(verification::ReadData::Percent(100)),
        repair_index: false,
        tools: None,
        limits: Limits {
            memory_bytes: 1 << 20,
            ..LIMITS
        },
    };
    verification::verify(repository, &options, &run()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_does_not_fit_into_memory_is_read_in_pieces_and_wholly() {
    for is_sealed in [false, true] {
        let (store, keys) = (memory(), Keys::new(1));
        let repository = if is_sealed {
            init_sealed(store.clone(), &keys).await
        } else {
            init(store.clone()).await
        };
        backup(&repository, &mut Bytes::new(&noise(1, 18 << 20))).await.unwrap();
        let (whole, pieces) = (verify(&repository).await, verify_in_pieces(&repository).await);
        assert_eq!((pieces.packs_read, pieces.blobs_read), (whole.packs_read, whole.blobs_read));
        assert_eq!(pieces.problems, []);
        let objects = store.objects();
        let (key, object) = objects.iter().max_by_key(|(_, object)| object.len()).unwrap();
        for (place, costs) in [
            (5_000, true),
            (9 << 20, true),
            (object.len() - 60_000, true),
            (object.len() - 10, false),
        ] {
            let mut damaged = object.to_vec();
            damaged[place] ^= 0x10;
            store.damage(key, damaged.into());
            let found = verify_in_pieces(&repository).await.problems;
            let named = |item: &str| found.iter().any(|problem| problem.item.starts_with(item));
            assert!(named("packs/"), "sealed: {is_sealed}, byte {place}: {found:?}");
            assert!(named("database/") || !costs, "sealed: {is_sealed}, byte {place}: {found:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_of_full_packs_stays_within_the_least_memory() {
    for is_sealed in [false, true] {
        let (folder, keys) = (tempfile::tempdir().unwrap(), Keys::new(1));
        let bucket = folder.path().join("bucket");
        let store = local::open(&bucket, true, Arc::new(Counters::default())).await.unwrap();
        let repository = if is_sealed {
            init_sealed(store, &keys).await
        } else {
            init(store).await
        };
        backup(&repository, &mut Bytes::new(&noise(1, 80 << 20))).await.unwrap();
        let identity = folder.path().join("identity");
        std::fs::write(&identity, &*keys.identity.to_text()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        // Not all, since what is saved here is no dump that `pg_restore` reads.
        command.args(["verify", "--read-data=99", "--json", "--repository"]);
        command.arg(format!("file://{}", bucket.display()));
        if is_sealed {
            command.arg("--identity").arg(&identity);
        }
        let ran = command.env("SYNAPSE_BACKUP_LIMITS_MEMORY", "96MiB").output().unwrap();
        let out = String::from_utf8(ran.stdout).unwrap();
        let report: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&report["exit_code"], &report["problems"]),
            (&0.into(), &serde_json::json!([])),
            "{report}"
        );
        let peak = report["peak_memory_bytes"].as_u64().unwrap();
        assert!(peak <= 96 << 20, "sealed: {is_sealed}: {peak} bytes");
    }
}
