//! Object Lock in the life of a repository: what is written is held, what is needed is held longer, and that stays cheap.

use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::keys;
use synapse_backup::ops::{extend, rekey};
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::old_versions::{Do, clear};
use synapse_backup::store::Store;
use synapse_backup::store::versions::{LockMode, ObjectLock, Retention};

use crate::buckets::{Bucket, init_with, keys, reopen_with};
use crate::homeserver::Home;
use crate::rig::{LIMITS, backup, init, reopen, run, verify};
use crate::sealing::Keys;

const DAYS: ObjectLock = ObjectLock {
    mode: LockMode::Governance,
    days: 4,
};

async fn retention(store: &dyn Store, key: &str) -> Retention {
    store.versions().unwrap().retention(key).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_backup_writes_is_held() {
    for (mode, keyring) in [
        (LockMode::Governance, Keyring::default()),
        (LockMode::Compliance, Keys::new(1).all()),
    ] {
        let bucket = Bucket::locked(ObjectLock { mode, ..DAYS }).await;
        let home = Home::new();
        let repository = init_with(bucket.store_as("writer").await, keyring).await;
        let taken = backup(&repository, &home).await;
        let lock = taken.object_lock.unwrap();
        assert_eq!((lock.extended, lock.failed), (0, 0), "{:?}", lock.error);
        let store = bucket.store().await;
        let now = repository.date().await.unwrap();
        for key in keys(&*store).await {
            let held = retention(&*store, &key).await;
            assert_eq!(held.mode, mode, "{key}");
            assert!(held.until >= now + DAYS.promised(), "{key}: {}", held.until);
            assert!(held.until <= now + DAYS.promised() + DAYS.period(), "{key}: {}", held.until);
        }
        assert_eq!(verify(&repository, None).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_holds_what_is_needed_longer_and_asks_twice_for_nothing() {
    let bucket = Bucket::locked(DAYS).await;
    let home = Home::new();
    // Sealed, and without an identity: the server extends what it cannot read.
    let keys_of_server = Keys::new(1).of_server();
    let repository = init_with(bucket.store_as("writer").await, keys_of_server.clone()).await;
    backup(&repository, &home).await;
    let store = bucket.store().await;
    let now = repository.date().await.unwrap();
    let soon = now + SignedDuration::from_hours(1);
    let all = keys(&*store).await;
    for key in &all {
        bucket.shorten(key, soon).await;
    }

    let writer = reopen_with(bucket.store_as("writer").await, keys_of_server).await;
    let report = extend::extend(&writer, LIMITS, &run()).await.unwrap();
    assert_eq!(report.snapshots, 1);
    let lock = report.object_lock;
    assert_eq!(
        (lock.needed, lock.extended, lock.failed),
        (all.len() as u64, all.len() as u64, 0),
        "{:?}",
        lock.error
    );
    for key in &all {
        assert!(retention(&*store, key).await.until >= now + DAYS.promised(), "{key}");
    }
    let again = extend::extend(&writer, LIMITS, &run()).await.unwrap().object_lock;
    assert_eq!((again.extended, again.failed), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_holds_what_was_moved_into_packs_that_no_snapshot_names() {
    let bucket = Bucket::locked(DAYS).await;
    let home = Home::new();
    let all_keys = Keys::new(1).all();
    let repository = init_with(bucket.store().await, all_keys.clone()).await;
    backup(&repository, &home).await;
    let pruner = reopen_with(bucket.store_as("pruner").await, all_keys).await;
    let options = rekey::Options {
        packs: true,
        dry_run: false,
        spool_folder: std::env::temp_dir(),
        limits: LIMITS,
    };
    let report = rekey::rekey(&pruner, &options, &run()).await.unwrap();
    assert_eq!(report.problems, []);
    // As the next prune does it.
    for pack in &report.plan.unwrap().repack {
        pruner.store().delete(&keys::pack(pack.id)).await.unwrap();
    }
    let store = bucket.store().await;
    let now = repository.date().await.unwrap();
    let packs: Vec<String> = crate::buckets::keys(&*store)
        .await
        .into_iter()
        .filter(|key| key.starts_with(keys::PACKS))
        .collect();
    assert!(!packs.is_empty());
    for key in &packs {
        bucket.shorten(key, now + SignedDuration::from_hours(1)).await;
    }
    let lock = extend::extend(&pruner, LIMITS, &run()).await.unwrap().object_lock;
    assert_eq!((lock.extended, lock.failed), (packs.len() as u64, 0), "{:?}", lock.error);
    for key in &packs {
        assert!(retention(&*store, key).await.until >= now + DAYS.promised(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_longer_or_in_another_mode_is_no_failure() {
    let bucket = Bucket::locked(ObjectLock { days: 400, ..DAYS }).await;
    let home = Home::new();
    let repository = init(bucket.store_as("writer").await).await;
    backup(&repository, &home).await;
    // The settings say less now, and another mode.
    let less = bucket.with_lock(ObjectLock {
        mode: LockMode::Compliance,
        days: 4,
    });
    let writer = reopen(less.store_as("writer").await).await;
    let lock = extend::extend(&writer, LIMITS, &run()).await.unwrap().object_lock;
    assert_eq!((lock.extended, lock.failed), (0, 0), "{:?}", lock.error);
    let more = bucket.with_lock(ObjectLock {
        mode: LockMode::Compliance,
        days: 1000,
    });
    let writer = reopen(more.store_as("writer").await).await;
    let lock = extend::extend(&writer, LIMITS, &run()).await.unwrap().object_lock;
    assert_eq!((lock.extended, lock.failed), (lock.needed, 0), "{:?}", lock.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nightly_run_asks_for_nothing_whose_moment_has_not_come() {
    let bucket = Bucket::locked(DAYS).await;
    let home = Home::new();
    let repository = init(bucket.store_as("writer").await).await;
    backup(&repository, &home).await;
    let lock = backup(&repository, &home).await.object_lock.unwrap();
    assert!(lock.needed >= 4, "packs, segments, repository.json: {}", lock.needed);
    assert_eq!((lock.extended, lock.failed), (0, 0), "{:?}", lock.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_object_lock_in_the_settings_extend_is_a_wrong_call() {
    let bucket = Bucket::versioned().await;
    let repository = init(bucket.store().await).await;
    let error = extend::extend(&repository, LIMITS, &run()).await.unwrap_err();
    assert!(error.to_string().contains("no Object Lock is asked for"), "{error:#}");
    // The settings ask for it, and the bucket has none.
    let asked = bucket.with_lock(DAYS);
    let refused = asked.store().await.put(keys::REPOSITORY, bytes::Bytes::new()).await;
    let store: Arc<dyn Store> = asked.store().await;
    assert!(refused.is_err(), "{refused:?}");
    let error = extend::extend(&reopen(store).await, LIMITS, &run()).await.unwrap_err();
    assert!(error.to_string().contains("no retention could be extended"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_gives_its_bytes_back_when_nothing_holds_it_any_more() {
    let bucket = Bucket::locked(DAYS).await;
    let home = Home::new();
    let repository = init(bucket.store_as("writer").await).await;
    backup(&repository, &home).await;
    let pruner = reopen(bucket.store_as("pruner").await).await;
    let all = keys(&**pruner.store()).await;
    let packs: Vec<&String> = all.iter().filter(|key| key.starts_with(keys::PACKS)).collect();
    // As prune does it; one more is overwritten, which only a stranger does.
    let (deleted, overwritten) = (packs[0], packs[1]);
    pruner.store().delete(deleted).await.unwrap();
    pruner
        .store()
        .put(overwritten, bytes::Bytes::from_static(b"strange"))
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;

    let young = clear(&pruner, SignedDuration::from_hours(1), Do::Apply, 4).await.unwrap().unwrap();
    assert_eq!((young.versions, young.young, young.overwritten), (0, 1, 1), "{young:?}");
    let held = clear(&pruner, SignedDuration::ZERO, Do::Apply, 4).await.unwrap().unwrap();
    assert_eq!((held.versions, held.held), (0, 1), "{held:?}");
    let version = bucket
        .versions()
        .await
        .into_iter()
        .find(|one| one.key == *deleted && one.bytes.is_some())
        .unwrap();
    bucket.release(deleted, &version.id).await;
    let planned = clear(&pruner, SignedDuration::ZERO, Do::Plan, 4).await.unwrap().unwrap();
    assert_eq!((planned.versions, planned.bytes), (2, version.bytes.unwrap()));
    let cleared = clear(&pruner, SignedDuration::ZERO, Do::Apply, 4).await.unwrap().unwrap();
    assert_eq!(cleared, planned);
    assert_eq!(&cleared.overwritten_keys, std::slice::from_ref(overwritten));
    let left = bucket.versions().await;
    assert!(left.iter().all(|one| one.key != *deleted), "{left:?}");
    assert_eq!(left.iter().filter(|one| one.key == *overwritten).count(), 2);
}
