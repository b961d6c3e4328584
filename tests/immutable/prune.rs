//! A whole prune with the pruner's credentials: what is locked stays and is told, what is not locked gives its bytes back.

use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::keys;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::ops::prune::{self, Report};
use synapse_backup::ops::retention::Keep;
use synapse_backup::repo::{Repository, snapshots};
use synapse_backup::store::Store;
use synapse_backup::store::versions::{LockMode, ObjectLock};

use crate::buckets::Bucket;
use crate::homeserver::Home;
use crate::rig::{LIMITS, backup, init, reopen, run};

/// A day is too long for a test: the bucket's clock is a real one.
pub(crate) const GRACE_SECONDS: u64 = 2;

fn options(dry_run: bool) -> prune::Options {
    prune::Options {
        dry_run,
        keep: Keep::everything(),
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: Some(SignedDuration::ZERO),
        spool_folder: "/var/tmp".into(),
        limits: LIMITS,
    }
}

async fn pass(pruner: &Repository, dry_run: bool) -> Report {
    try_pass(pruner, dry_run).await.unwrap()
}

/// A prune once what is there is old enough.
pub(crate) async fn try_pass(pruner: &Repository, dry_run: bool) -> anyhow::Result<Report> {
    tokio::time::sleep(std::time::Duration::from_secs(GRACE_SECONDS + 2)).await;
    prune::prune(pruner, &options(dry_run), &run()).await
}

/// A backup, everything forgotten, a prune that marks and one that deletes. Gives what is left, and the last report.
async fn all_is_dead(bucket: &Bucket) -> (usize, Report) {
    let writer = bucket.store_as("writer").await;
    Box::pin(all_is_dead_by(bucket, writer, bucket.store_as("pruner").await)).await
}

/// The same by the keys of another store.
pub(crate) async fn all_is_dead_by(bucket: &Bucket, writer: Arc<dyn Store>, pruner: Arc<dyn Store>) -> (usize, Report) {
    let home = Home::bare(crate::cluster::shared());
    let writer = init(writer).await;
    backup(&writer, &home).await;
    let info = RepositoryInfo {
        grace_seconds: GRACE_SECONDS,
        window_seconds: 1,
        ..writer.info().clone()
    };
    let body = info.to_json().unwrap().into();
    writer.store().put(keys::REPOSITORY, body).await.unwrap();
    let pruner = reopen(pruner).await;
    for key in snapshots::list(&pruner).await.unwrap() {
        pruner.store().delete(&key.key).await.unwrap();
    }
    let marked = pass(&pruner, false).await.applied.unwrap();
    assert!(marked.condemned > 0, "{marked:?}");
    let planned = pass(&pruner, true).await;
    assert_eq!(planned.applied, None);
    let report = pass(&pruner, false).await;
    assert_eq!(report.applied.as_ref().unwrap().deleted, marked.condemned);
    assert_eq!(report.problems, []);
    let gone = pruner.store().list_page(keys::PACKS, None).await.unwrap();
    assert_eq!(gone.objects, []);
    // What was deleted a moment ago is old a second later.
    let last = pass(&pruner, false).await;
    let packs = bucket.versions().await.into_iter().filter(|one| one.key.starts_with(keys::PACKS));
    (packs.filter(|one| one.bytes.is_some()).count(), last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_gives_the_bytes_of_old_versions_back() {
    let (left, report) = Box::pin(all_is_dead(&Bucket::versioned().await)).await;
    assert_eq!(left, 0);
    assert_eq!(report.versions.unwrap().held, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_under_object_lock_keeps_what_is_held_and_tells_it() {
    let lock = ObjectLock {
        mode: LockMode::Compliance,
        days: 4,
    };
    let (left, report) = Box::pin(all_is_dead(&Bucket::locked(lock).await)).await;
    assert!(left > 0, "versions of packs are held");
    let versions = report.versions.unwrap();
    assert!(versions.held >= left as u64, "{left} {versions:?}");
    assert_eq!(report.problems, []);
}
