//! Pruning a real bucket: what only a forgotten snapshot needs is marked, stays for the grace period, and goes; what is kept
//! comes back byte for byte; and every prune takes a number of requests that can be told beforehand.
//!
//! The grace period stands in repository.json, which is written anew here before the first backup, so that it is some seconds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use synapse_backup::format::keys;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::ops::prune::{self, Report};
use synapse_backup::ops::{forget, retention};
use synapse_backup::repo::Repository;
use synapse_backup::store::counters::{Counters, Requests};

use crate::buckets::{Bucket, keys as keys_of};
use crate::homeserver::{Home, digest, noise, without_one_time_keys};
use crate::rig::{LIMITS, backup, init, listed, reopen, restore, restore_to, run, verify};
use crate::tree::files;

const GRACE_SECONDS: u64 = 20;
const WINDOW_SECONDS: u64 = 5;

/// A repository with a short grace period.
async fn hasty(bucket: &Bucket) -> (Repository, Arc<Counters>) {
    let made = init(bucket.store().await).await;
    let info = RepositoryInfo {
        grace_seconds: GRACE_SECONDS,
        window_seconds: WINDOW_SECONDS,
        ..made.info().clone()
    };
    let (store, counters) = bucket.counted().await;
    store.put(keys::REPOSITORY, Bytes::from(info.to_json().unwrap())).await.unwrap();
    (reopen(store).await, counters)
}

/// Until whatever is there is older than the grace period, by the store's clock.
async fn until_old(repository: &Repository) {
    let now = repository.date().await.unwrap();
    let until = now + SignedDuration::from_secs(i64::try_from(GRACE_SECONDS).unwrap() + 2);
    while repository.date().await.unwrap() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One prune, and the requests that it took.
async fn prune(repository: &Repository, counters: &Counters, dry_run: bool) -> (Report, Requests) {
    let options = prune::Options {
        dry_run,
        keep: retention::Keep::everything(),
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: std::env::temp_dir(),
        limits: LIMITS,
    };
    let before = counters.totals().requests;
    let report = prune::prune(repository, &options, &run()).await.unwrap();
    (report, since(before, counters.totals().requests))
}

fn since(before: Requests, after: Requests) -> Requests {
    Requests {
        put: after.put - before.put,
        create: after.create - before.create,
        part: after.part - before.part,
        complete: after.complete - before.complete,
        abort: after.abort - before.abort,
        copy: after.copy - before.copy,
        get: after.get - before.get,
        list: after.list - before.list,
        head: after.head - before.head,
        delete: after.delete - before.delete,
    }
}

fn under(all: &[String], prefix: &str) -> BTreeSet<String> {
    all.iter().filter(|key| key.starts_with(prefix)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_real_bucket_what_is_forgotten_is_marked_and_swept_and_what_is_kept_comes_back() {
    let bucket = Bucket::plain().await;
    let (repository, counters) = hasty(&bucket).await;
    let home = Home::new();
    home.upload("CarolLargeVideo000000004", &noise(4, 20 << 20));
    let first = backup(&repository, &home).await;
    std::fs::remove_file(home.media("CarolLargeVideo000000004")).unwrap();
    home.sql("DELETE FROM local_media_repository WHERE media_id = 'CarolLargeVideo000000004'");
    home.upload("DaveNewPicture0000000005", &noise(5, 300_000));
    backup(&repository, &home).await;
    let wanted = (files(&home.root), without_one_time_keys(digest(home.cluster, &home.database)));

    let gone = forget::Options {
        dry_run: false,
        yes_really: false,
    };
    let id = first.snapshot.unwrap();
    forget::forget(&repository, std::slice::from_ref(&id), gone, &run()).await.unwrap();
    // Young: nothing is touched.
    let (young, _) = prune(&repository, &counters, false).await;
    assert!(young.plan.is_empty(), "{:?}", young.plan);
    until_old(&repository).await;

    // Old: marked, and what lives in mostly dead packs is moved. Nothing is gone yet.
    let before = keys_of(&*bucket.store().await).await;
    let (dry, _) = prune(&repository, &counters, true).await;
    assert_eq!(keys_of(&*bucket.store().await).await, before);
    let (marked, requests) = prune(&repository, &counters, false).await;
    assert_eq!((&dry.plan.condemn, &dry.plan.repack), (&marked.plan.condemn, &marked.plan.repack));
    let applied = marked.applied.clone().unwrap();
    let given_up = marked.plan.condemn.len() + marked.plan.repack.len();
    assert!(given_up > 0 && marked.plan.bytes_after_grace > 20 << 20, "{:?}", marked.plan);
    assert_eq!((applied.condemned, applied.deleted), (given_up as u64, 0));
    let after = keys_of(&*bucket.store().await).await;
    assert!(under(&before, "packs/").is_subset(&under(&after, "packs/")));
    assert_eq!(under(&after, "condemned/").len(), given_up);
    // A marker each; a pack and a segment for what is moved. (Nothing moved here is larger than a part.)
    assert_eq!(
        (requests.put, requests.delete),
        (given_up as u64 + applied.new_packs + 1, 0),
        "{requests:?}"
    );
    let looked = bounded(&requests, &marked);
    assert_eq!(verify(&repository, None).await, []);
    until_old(&repository).await;

    // A grace period later they go, packs and markers, with two requests each.
    let (swept, requests) = prune(&repository, &counters, false).await;
    let deleted: BTreeSet<String> = swept.plan.delete.iter().map(|pack| keys::pack(pack.id)).collect();
    assert_eq!(deleted.len(), given_up);
    assert_eq!((requests.put, requests.delete), (0, 2 * given_up as u64), "{requests:?}");
    assert!(bounded(&requests, &swept) <= looked + 2, "{requests:?}");
    let left = keys_of(&*bucket.store().await).await;
    assert!(under(&left, "packs/").is_disjoint(&deleted) && under(&left, "condemned/").is_empty());
    let (idle, requests) = prune(&repository, &counters, false).await;
    assert!(idle.plan.is_empty(), "{:?}", idle.plan);
    bounded(&requests, &idle);
    assert_eq!((requests.put, requests.delete), (0, 0));

    assert_eq!(listed(&repository).await.len(), 1);
    assert_eq!(verify(&repository, None).await, []);
    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("restored");
    let restored = restore(&repository, "latest", &restore_to(target.path(), home.cluster, &database)).await;
    assert_eq!(restored.unwrap().problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!((files(&came_back), digest(home.cluster, &database)), wanted);
}

/// Looking takes so many requests and no more: three times the time (or so), one page of each listing here, each snapshot
/// twice, each segment once, a footer and a read for each pack of lists, and for each pack that is moved. Gives all but those.
fn bounded(requests: &Requests, report: &Report) -> u64 {
    let (snapshots, segments) = (report.totals.snapshots, report.totals.segments);
    let reads = requests.get - 2 * snapshots - segments;
    let most = 4 + 4 * report.plan.repack.len() as u64;
    assert!(
        requests.head <= 6 && requests.list <= 12 && reads <= most,
        "{requests:?}, {:?}",
        report.totals
    );
    requests.head + requests.list + reads
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_lists_an_upload_by_its_exact_key_alone_and_prune_leaves_it_to_minio() {
    let bucket = Bucket::plain().await;
    let (repository, counters) = hasty(&bucket).await;
    let store = bucket.store().await;
    let key = keys::pack(repository.ids().pack());
    let upload = store.create_upload(&key).await.unwrap();
    store.put_part(&key, &upload, 1, Bytes::from(noise(1, 6 << 20))).await.unwrap();
    let uploads = store.uploads().unwrap();
    let open = uploads.list_uploads(&key).await.unwrap();
    assert_eq!((open.len(), &open[0].key, &open[0].id), (1, &key, &upload));
    let now: Timestamp = repository.date().await.unwrap();
    assert!(
        now.duration_since(open[0].begun).abs() < SignedDuration::from_mins(5),
        "{now} {open:?}"
    );
    assert_eq!(uploads.list_uploads(keys::PACKS).await.unwrap(), []);
    until_old(&repository).await;
    let (report, _) = prune(&repository, &counters, false).await;
    assert!(report.plan.is_empty(), "{:?}", report.plan);
    // Told by its key it is given up like any other.
    store.abort_upload(&key, &upload).await.unwrap();
    assert_eq!(uploads.list_uploads(&key).await.unwrap(), []);
}
