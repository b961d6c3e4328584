//! Objects that vanish, shrink or rot in the bucket: `verify` names what is lost, and the next backup is whole again.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use synapse_backup::format::snapshot::{Problem, ProblemKind};
use synapse_backup::format::{PackId, PackKind, keys};
use synapse_backup::ops::backup::Report;
use synapse_backup::repo::{Repository, catalog};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::Record;

use crate::homeserver::{Home, digest, item_of, noise, without_one_time_keys};
use crate::hook::Hook;
use crate::rig::{
    backup, cat, copy_of, document, fresh_in, keys_of, listed, memory, named, reopen, restore, restore_files_to, restore_to, run, ticking,
    try_backup, verify,
};

/// What can happen to an object behind our back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Deleted,
    Truncated,
    Flipped,
}

const DAMAGES: [Damage; 3] = [Damage::Deleted, Damage::Truncated, Damage::Flipped];

async fn damage(memory: &Memory, key: &str, damage: Damage) {
    let bytes = memory.objects()[key].clone();
    match damage {
        Damage::Deleted => {
            memory.delete(key).await.unwrap();
        }
        Damage::Truncated => memory.damage(key, bytes.slice(..bytes.len() * 2 / 3)),
        Damage::Flipped => {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 3;
            bytes[middle] ^= 0x20;
            memory.damage(key, Bytes::from(bytes));
        }
    }
}

/// The packs of one kind.
async fn packs(repository: &Repository, kind: PackKind) -> Vec<PackId> {
    let index = catalog::load(repository, 1 << 30).await.unwrap();
    let of_kind = |pack: &&catalog::CatalogPack| pack.kind == kind && pack.usable();
    index.packs().iter().filter(of_kind).map(|pack| pack.id).collect()
}

/// The only pack of a kind after the first backup of a small homeserver.
async fn only_pack(repository: &Repository, kind: PackKind) -> PackId {
    let packs = packs(repository, kind).await;
    assert_eq!(packs.len(), 1, "{kind:?}");
    packs[0]
}

/// A night of a homeserver.
async fn a_night() -> (Home, Arc<Memory>, Report) {
    let home = Home::new();
    let memory = memory();
    let taken = backup(&fresh_in(&memory).await, &home).await;
    (home, memory, taken)
}

fn names(problems: &[Problem], item: &str) -> bool {
    problems
        .iter()
        .any(|problem| problem.kind == ProblemKind::Damaged && problem.item.starts_with(item))
}

/// What is lost with each kind of pack.
const LOST: [(PackKind, &[&str]); 3] = [
    (PackKind::Database, &["database/synapse/main"]),
    (PackKind::Media, &["media/local_content/Al/ic/eFirstPicture0000001", "config/"]),
    (PackKind::Metadata, &["media"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_is_named_with_what_it_costs_and_the_next_backup_is_whole() {
    let (home, before, taken) = a_night().await;
    let first = taken.snapshot.unwrap();
    for (kind, lost) in LOST {
        for how in DAMAGES {
            let at = format!("{kind:?} {how:?}");
            let memory = copy_of(&before).await;
            let repository = reopen(ticking(&memory)).await;
            let pack = only_pack(&repository, kind).await;
            damage(&memory, &keys::pack(pack), how).await;

            let problems = verify(&repository, None).await;
            assert!(names(&problems, &format!("packs/{pack}")), "{at}: {problems:#?}");
            assert!(problems.iter().all(|problem| problem.kind == ProblemKind::Damaged), "{at}");
            if how == Damage::Deleted {
                for item in lost {
                    assert!(names(&problems, item), "{at}: {item} is not in {problems:#?}");
                }
            }
            let concerned = |problem: &&Problem| !problem.item.starts_with("packs/");
            assert!(
                problems.iter().any(|problem| concerned(&problem)),
                "{at}: it is told what is lost: {problems:#?}"
            );
            assert!(
                problems
                    .iter()
                    .filter(concerned)
                    .all(|problem| problem.message.contains(&first[..8])),
                "{at}: {problems:#?}"
            );

            if how == Damage::Flipped {
                // Nobody reads at night what did not change. Once `verify --read-data` has named the pack, removing it is the cure.
                damage(&memory, &keys::pack(pack), Damage::Deleted).await;
            }
            let next = backup(&repository, &home).await;
            assert_eq!(next.problems, [], "{at}");
            let next = next.snapshot.unwrap();
            assert_eq!(verify(&repository, Some(&next)).await, [], "{at}");
            let picture = cat(&repository, &next, &item_of("AliceFirstPicture0000001")).await.unwrap();
            assert!(picture == noise(1, 40_000), "{at}");
            assert!(
                cat(&repository, &next, "database/synapse/main")
                    .await
                    .unwrap()
                    .starts_with(b"PGDMP"),
                "{at}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_the_run_finds_damaged_is_written_again() {
    let home = Home::new();
    // With an open problem the shard is read every night, as the list of shards is, and comes out as it was.
    home.row("MissingForEver0000000001", b"x");
    let lost = [(ProblemKind::Missing, item_of("MissingForEver0000000001"))];
    let before = memory();
    backup(&fresh_in(&before).await, &home).await;
    for part in ["shard", "list"] {
        let memory = copy_of(&before).await;
        let repository = reopen(ticking(&memory)).await;
        let pack = only_pack(&repository, PackKind::Metadata).await;
        let index = catalog::load(&repository, 1 << 20).await.unwrap();
        let blobs: Vec<_> = index
            .entries()
            .iter()
            .filter(|entry| index.packs()[entry.pack as usize].id == pack)
            .map(|entry| entry.blob)
            .collect();
        assert_eq!(blobs.len(), 2, "one shard, one piece of the list");
        let blob = blobs
            .iter()
            .max_by_key(|blob| {
                if part == "list" {
                    blob.frame_offset
                } else {
                    u32::MAX - blob.frame_offset
                }
            })
            .unwrap();
        let mut bytes = memory.objects()[&keys::pack(pack)].to_vec();
        bytes[(blob.frame_offset + blob.frame_length / 2) as usize] ^= 1;
        memory.damage(&keys::pack(pack), Bytes::from(bytes));
        for night in 2..=3 {
            let next = backup(&repository, &home).await;
            assert_eq!(named(&next.problems), lost, "{part}, night {night}");
            assert_eq!(verify(&repository, next.snapshot.as_deref()).await, [], "{part}, night {night}");
        }
        let picture = cat(&repository, "latest", &item_of("AliceFirstPicture0000001")).await.unwrap();
        assert!(picture == noise(1, 40_000), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_segment_is_named_and_costs_nothing() {
    let (home, before, taken) = a_night().await;
    let first = taken.snapshot.unwrap();
    for how in DAMAGES {
        let memory = copy_of(&before).await;
        let repository = reopen(ticking(&memory)).await;
        let segment = keys_of(&memory, "index/").remove(0);
        damage(&memory, &segment, how).await;
        let problems = verify(&repository, None).await;
        assert!(
            problems
                .iter()
                .all(|problem| problem.item.starts_with("packs/") || problem.item == segment),
            "{problems:#?}"
        );
        assert!(names(&problems, "packs/"), "{how:?}: packs that no segment names");
        assert_eq!(names(&problems, &segment), how != Damage::Deleted, "{how:?}: {problems:#?}");
        // Everything is found by the packs' own tables.
        let target = tempfile::tempdir().unwrap();
        let database = home.cluster.database("restored");
        let report = restore(&repository, &first, &restore_to(target.path(), home.cluster, &database))
            .await
            .unwrap();
        assert_eq!((report.problems.len(), report.media_files), (0, 4), "{how:?}");
        assert_eq!(
            digest(home.cluster, &database),
            without_one_time_keys(digest(home.cluster, &home.database))
        );
        let next = backup(&repository, &home).await.snapshot.unwrap();
        assert_eq!(without(verify(&repository, Some(&next)).await, &segment), [], "{how:?}");
    }
}

/// The damaged object itself stays damaged; all else must be well.
fn without(mut problems: Vec<Problem>, key: &str) -> Vec<Problem> {
    problems.retain(|problem| problem.item != key);
    problems
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_named_and_passed_over() {
    let (home, before, _) = a_night().await;
    for how in DAMAGES {
        let memory = copy_of(&before).await;
        let repository = reopen(ticking(&memory)).await;
        let key = keys_of(&memory, "snapshots/").remove(0);
        damage(&memory, &key, how).await;
        assert_eq!(names(&verify(&repository, None).await, &key), how != Damage::Deleted, "{how:?}");
        let error = restore(&repository, "latest", &restore_files_to(&home.at("never")))
            .await
            .unwrap_err();
        assert!(error.contains("no snapshot"), "{how:?}: {error}");
        let next = backup(&repository, &home).await;
        assert!(
            next.new_bytes < 400_000,
            "{how:?}: what is in the index is not sent again: {}",
            next.new_bytes
        );
        assert_eq!(verify(&repository, next.snapshot.as_deref()).await, [], "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_vanishes_during_the_run_is_noticed_and_sent_again() {
    for kind in [PackKind::Database, PackKind::Media, PackKind::Metadata] {
        let (home, memory, _) = a_night().await;
        let old = only_pack(&reopen(ticking(&memory)).await, kind).await;
        home.upload("BobLargeVideo00000000006", &noise(6, 12 << 20));
        let sweep = {
            let memory = Arc::clone(&memory);
            move || {
                let memory = Arc::clone(&memory);
                async move {
                    memory.delete(&keys::pack(old)).await.unwrap();
                }
                .boxed()
            }
        };
        // All packs of this run are answered when their segment is written; the check comes after that.
        let record = Arc::new(Record::new(ticking(&memory)));
        let hook = Hook::once(
            Arc::clone(&record) as Arc<dyn Store>,
            |call, key| call == Kind::Put && key.starts_with("index/"),
            sweep,
        );
        let repository = reopen(Arc::new(hook)).await;
        let taken = try_backup(&repository, &home, &run()).await.unwrap();
        assert_eq!(taken.problems, [], "{kind:?}");
        let snapshot = taken.snapshot.unwrap();
        assert_eq!(verify(&repository, Some(&snapshot)).await, [], "{kind:?}");
        assert!(!document(&repository, &snapshot).await.packs.contains(&old), "{kind:?}");
        assert_eq!(memory.open_uploads(), 0);
        let creates = record.calls().iter().filter(|call| call.kind == Kind::Create).count();
        assert_eq!(creates, 1, "{kind:?}: what the run had sent already is not sent twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_vanishes_with_its_files_leaves_problems_and_no_lie() {
    let (home, memory, _) = a_night().await;
    let old = only_pack(&reopen(ticking(&memory)).await, PackKind::Media).await;
    home.sql("INSERT INTO users VALUES ('@carol:example.org', 'x')");
    let picture = home.media("AliceFirstPicture0000001");
    let sweep = {
        let memory = Arc::clone(&memory);
        move || {
            let (memory, picture) = (Arc::clone(&memory), picture.clone());
            async move {
                fs::remove_file(picture).unwrap();
                memory.delete(&keys::pack(old)).await.unwrap();
            }
            .boxed()
        }
    };
    let hook = Hook::once(ticking(&memory), |call, key| call == Kind::Put && key.starts_with("index/"), sweep);
    let repository = reopen(Arc::new(hook)).await;
    let taken = try_backup(&repository, &home, &run()).await.unwrap();
    assert_eq!(
        named(&taken.problems),
        [(ProblemKind::Missing, item_of("AliceFirstPicture0000001"))]
    );
    assert_eq!(verify(&repository, taken.snapshot.as_deref()).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_condemned_during_the_run_is_copied() {
    for kind in [PackKind::Database, PackKind::Media, PackKind::Metadata] {
        let (home, memory, _) = a_night().await;
        let old = only_pack(&reopen(ticking(&memory)).await, kind).await;
        home.sql("INSERT INTO users VALUES ('@carol:example.org', 'x')");
        let condemn = {
            let memory = Arc::clone(&memory);
            move || {
                let memory = Arc::clone(&memory);
                async move {
                    memory.put(&keys::condemned(old), Bytes::new()).await.unwrap();
                }
                .boxed()
            }
        };
        let hook = Hook::once(
            ticking(&memory),
            |call, key| call == Kind::Put && key.starts_with("index/"),
            condemn,
        );
        let repository = reopen(Arc::new(hook)).await;
        let taken = try_backup(&repository, &home, &run()).await.unwrap();
        let snapshot = taken.snapshot.unwrap();
        assert!(
            !document(&repository, &snapshot).await.packs.contains(&old),
            "{kind:?}: a marker is final"
        );
        // The sweep, whenever it comes.
        memory.delete(&keys::pack(old)).await.unwrap();
        memory.delete(&keys::condemned(old)).await.unwrap();
        assert_eq!(verify(&repository, Some(&snapshot)).await, [], "{kind:?}");
        let next = backup(&repository, &home).await;
        assert_eq!(next.media.files, 4, "{kind:?}");
        assert_eq!(verify(&repository, next.snapshot.as_deref()).await, [], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_condemned_already_is_not_relied_on() {
    for kind in [PackKind::Database, PackKind::Media, PackKind::Metadata] {
        let (home, memory, _) = a_night().await;
        let repository = reopen(ticking(&memory)).await;
        let old = only_pack(&repository, kind).await;
        memory.put(&keys::condemned(old), Bytes::new()).await.unwrap();
        let taken = backup(&repository, &home).await;
        let snapshot = taken.snapshot.unwrap();
        assert!(!document(&repository, &snapshot).await.packs.contains(&old), "{kind:?}");
        memory.delete(&keys::pack(old)).await.unwrap();
        assert_eq!(verify(&repository, Some(&snapshot)).await, [], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_which_packs_keep_vanishing_is_told_to_be_one() {
    let home = Home::new();
    let memory = memory();
    fresh_in(&memory).await;
    let eaten = Arc::clone(&memory);
    let hook = Hook::new(ticking(&memory), move |call, key| {
        let memory = Arc::clone(&eaten);
        (call == Kind::Put && key.starts_with("index/")).then(|| {
            async move {
                for key in keys_of(&memory, "packs/") {
                    memory.delete(&key).await.unwrap();
                }
            }
            .boxed()
        })
    });
    let repository = reopen(Arc::new(hook)).await;
    let error = try_backup(&repository, &home, &run()).await.unwrap_err();
    assert!(error.contains("keep vanishing"), "{error}");
    assert_eq!(listed(&repository).await, [] as [String; 0]);
    assert_eq!(memory.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_has_sent_is_found_by_the_next_one() {
    let home = Home::new();
    home.upload("BobLargeVideo00000000006", &noise(6, 20 << 20));
    let memory = memory();
    fresh_in(&memory).await;
    // The process dies when its packs and segment are there and the snapshot is not.
    let hook = Hook::once(
        ticking(&memory),
        |call, key| call == Kind::Put && key.starts_with("snapshots/"),
        || std::future::pending().boxed(),
    );
    let repository = reopen(Arc::new(hook)).await;
    let cut = tokio::time::timeout(std::time::Duration::from_secs(20), try_backup(&repository, &home, &run())).await;
    assert!(cut.is_err(), "it never comes to its end");
    let sent: BTreeSet<String> = keys_of(&memory, "packs/").into_iter().collect();
    let repository = reopen(ticking(&memory)).await;
    let next = backup(&repository, &home).await;
    assert!(next.new_bytes < 1_000_000, "{}", next.new_bytes);
    let relied = document(&repository, &next.snapshot.unwrap()).await.packs;
    assert!(relied.iter().any(|pack| sent.contains(&keys::pack(*pack))));
    assert_eq!(verify(&repository, None).await, []);
}
