//! One segment of an index that was cut by blob is lost, and every pack is whole: nothing is lost, and nobody may be told so.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::format::keys;
use synapse_backup::ops::{Limits, hint_of, prune, verify};
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::Store;
use synapse_backup::store::memory::Memory;

use crate::retain::cut_by_blob;
use crate::rig::{self, backup, init, init_with_small_blobs, memory, noise, read, run};
use crate::sweep::prune_options;

/// How the segment is lost.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Deleted,
    Cut,
}

/// Two nights, of which one segment of two is lost; each names every pack of its night.
async fn without_a_segment(loss: Loss) -> (Arc<Memory>, Repository, String) {
    let memory = memory();
    let repository = init_with_small_blobs(memory.clone()).await;
    for night in [1, 2] {
        backup(&repository, &mut rig::Bytes::new(&noise(night, 200_000))).await.unwrap();
        memory.clock().advance(jiff::SignedDuration::from_hours(1));
    }
    let [_, upper] = cut_by_blob(&memory).await;
    match loss {
        Loss::Deleted => drop(memory.delete(&upper).await.unwrap()),
        Loss::Cut => memory.damage(&upper, Bytes::from_static(b"cut")),
    }
    let repository = open::open(memory.clone(), Ids::random()).await.unwrap();
    (memory, repository, upper)
}

/// Structure alone, within so much memory.
async fn verified_within(memory_bytes: u64, repository: &Repository, repair_index: bool) -> verify::Report {
    let options = verify::Options {
        snapshot: None,
        read_data: None,
        repair_index,
        tools: None,
        limits: Limits {
            memory_bytes,
            ..rig::LIMITS
        },
    };
    verify::verify(repository, &options, &run()).await.unwrap()
}

async fn verified(repository: &Repository, repair_index: bool) -> verify::Report {
    verified_within(rig::LIMITS.memory_bytes, repository, repair_index).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_what_a_refused_prune_advises_loses_no_snapshot() {
    for loss in [Loss::Deleted, Loss::Cut] {
        let (memory, repository, segment) = without_a_segment(loss).await;
        let refused = prune::prune(&repository, &prune_options(), &run()).await.unwrap_err();
        let (said, hint) = (format!("{refused:#}"), hint_of(&refused).unwrap());
        let repair = hint.find("`synapse-backup verify --repair-index`").unwrap();
        assert!(hint.find("forget").is_none_or(|forget| repair < forget), "{loss:?}: {hint}");
        assert_eq!(said.contains(&segment), loss == Loss::Cut, "{said}");
        assert_eq!(hint.contains("forget"), loss == Loss::Deleted, "{hint}");

        // The advice.
        let found = verified(&repository, true).await.problems;
        match loss {
            Loss::Deleted => assert_eq!(found, []),
            Loss::Cut => {
                assert_eq!(found.len(), 1, "{found:?}");
                let told = prune::prune(&repository, &prune_options(), &run()).await.unwrap().problems;
                assert!(told[0].item == segment && told[0].message.contains("is deleted"), "{told:?}");
                assert!(found[0].item == segment && found[0].message.contains("can be deleted"), "{found:?}");
                memory.delete(&segment).await.unwrap();
            }
        }
        let pruned = prune::prune(&repository, &prune_options(), &run()).await.unwrap();
        assert_eq!((pruned.snapshots.len(), pruned.problems), (2, vec![]), "{loss:?}");
        assert!(read(&repository, "latest").await.unwrap() == noise(2, 200_000), "{loss:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_no_segment_names_are_found_by_verify_though_every_pack_is_named() {
    for loss in [Loss::Deleted, Loss::Cut] {
        let (_, repository, segment) = without_a_segment(loss).await;
        let found = verified(&repository, false).await.problems;
        let named = |item: &str| found.iter().find(|problem| problem.item == item).map(|problem| &problem.message);
        let blobs = named("index").unwrap();
        let count: u64 = blobs.split_once(' ').unwrap().0.parse().unwrap();
        assert!(count > 10 && blobs.contains("`verify --repair-index`"), "{loss:?}: {blobs}");
        let damaged = named(&segment);
        assert_eq!(damaged.is_some(), loss == Loss::Cut, "{found:?}");
        assert!(damaged.is_none_or(|message| !message.contains("can be deleted")), "{damaged:?}");
        assert_eq!(found.len(), 1 + usize::from(loss == Loss::Cut), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_fit_into_memory_is_repaired_too() {
    let (_, repository, _) = without_a_segment(Loss::Deleted).await;
    // A quarter of this holds nineteen lines, and each of the two packs has more blobs.
    let little = 4 << 10;
    let repaired = verified_within(little, &repository, true).await.repaired.unwrap();
    assert!(repaired.tables == 2 && repaired.packs == 1 && repaired.blobs > 25, "{repaired:?}");
    prune::prune(&repository, &prune_options(), &run()).await.unwrap();
    assert_eq!(verified(&repository, false).await.problems, []);
    let again = verified_within(little, &repository, true).await.repaired.unwrap();
    assert_eq!((again.tables, again.packs), (repaired.tables, 0), "nothing is named twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_and_whose_segment_is_lost_is_not_given_up() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let common = noise(7, 2 << 20);
    let old = backup(&repository, &mut rig::Bytes::new(&[noise(1, 5 << 20), common.clone()].concat()))
        .await
        .unwrap();
    memory.clock().advance(jiff::SignedDuration::from_hours(1));
    let kept = [noise(3, 1 << 20), common].concat();
    backup(&repository, &mut rig::Bytes::new(&kept)).await.unwrap();
    memory.delete(&keys::snapshot(old.time, old.id).unwrap()).await.unwrap();
    let index = |memory: &Memory| -> BTreeSet<String> {
        let objects = memory.objects().into_keys();
        objects.filter(|key| key.starts_with(keys::INDEX)).collect()
    };
    let before = index(&memory);
    for _ in 0..2 {
        memory.clock().advance(jiff::SignedDuration::from_hours(48));
        prune::prune(&repository, &prune_options(), &run()).await.unwrap();
    }
    let moved: Vec<String> = index(&memory).difference(&before).cloned().collect();
    assert!(!moved.is_empty());
    for key in moved {
        memory.delete(&key).await.unwrap();
    }
    let found = verified(&repository, false).await.problems;
    assert!(found.iter().any(|problem| problem.item.starts_with("database/")), "{found:?}");
    let index = found.iter().find(|problem| problem.item == "index").unwrap();
    assert!(index.message.contains("`verify --repair-index`"), "{}", index.message);
    assert_eq!(verified(&repository, true).await.problems, []);
    assert!(read(&repository, "latest").await.unwrap() == kept);
}
