//! The bucket as it was: after an attacker has deleted, overwritten and forged whatever his credentials let him.

use std::sync::Arc;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::store::versions::{LockMode, ObjectLock};
use synapse_backup::store::wrappers::At;
use synapse_backup::store::{ByteRange, Error, Store};

use crate::buckets::{Bucket, init_with, is_denied, keys, reopen_with};
use crate::homeserver::{Home, digest, noise, without_one_time_keys};
use crate::rig::{backup, listed, restore, restore_to, verify};
use crate::sealing::Keys;
use crate::support::minio;
use crate::tree::files;

/// A moment after everything that was answered, and before everything that comes later: a Date is the second that runs.
pub(crate) async fn moment(store: &dyn Store) -> Timestamp {
    let now = async || store.list_page("probe/", None).await.unwrap().date;
    let moment = now().await + SignedDuration::from_secs(1);
    while now().await <= moment {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    moment
}

async fn overwrite_everything(attacker: &Arc<dyn Store>) {
    for key in keys(&**attacker).await {
        attacker.put(&key, Bytes::from_static(b"overwritten")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attacker_with_everything_but_time_is_undone_by_looking_at_the_past() {
    let keys = Keys::new(1);
    undone_by_looking_at_the_past(&Keyring::default(), &Keyring::default()).await;
    undone_by_looking_at_the_past(&keys.of_server(), &keys.of_safe()).await;
}

async fn undone_by_looking_at_the_past(server: &Keyring, safe: &Keyring) {
    let lock = ObjectLock {
        mode: LockMode::Governance,
        days: 1,
    };
    let bucket = Bucket::locked(lock).await;
    let home = Home::new();
    home.upload("BobLargeVideo00000000004", &noise(4, 20 << 20));
    init_with(bucket.store().await, server.clone()).await;
    let writer = bucket.store_as("writer").await;
    backup(&reopen_with(Arc::clone(&writer), server.clone()).await, &home).await;
    let before = moment(&*writer).await;

    // The thief of the writer's credentials: he may put, and that is all.
    overwrite_everything(&writer).await;
    writer
        .put("snapshots/20990101T000000Z-00.json.zst", Bytes::from_static(b"forged"))
        .await
        .unwrap();
    assert!(is_denied(&writer.delete("repository.json").await));
    // The thief of the pruner's: he deletes, versions too. What is held stays, and so do the markers of what is not.
    let pruner = bucket.store_as("pruner").await;
    for key in keys(&*pruner).await {
        pruner.delete(&key).await.unwrap();
    }
    let (mut held, mut removed) = (0, 0);
    for version in bucket.versions().await {
        match pruner.versions().unwrap().delete_version(&version.key, &version.id).await {
            Ok(_) => removed += 1,
            Err(_) => held += 1,
        }
        let bypassed = pruner.bucket().unwrap().delete_bypassing(&version.key, &version.id).await;
        assert!(bypassed.is_err() || version.bytes.is_none(), "{version:?}");
    }
    assert!(held > 0 && removed > 0, "{held} {removed}");

    let reader = bucket.store_as("reader").await;
    let past: Arc<dyn Store> = Arc::new(At::new(reader, before).unwrap());
    let repository = reopen_with(past, safe.clone()).await;
    assert_eq!(listed(&repository).await.len(), 1);
    assert_eq!(verify(&repository, None).await, []);
    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("restored");
    let report = restore(&repository, "latest", &restore_to(target.path(), home.cluster, &database))
        .await
        .unwrap();
    assert_eq!(report.problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&came_back), files(&home.root));
    let original = digest(home.cluster, &home.database);
    assert_eq!(digest(home.cluster, &database), without_one_time_keys(original));
}

#[tokio::test(flavor = "multi_thread")]
async fn compliance_holds_against_the_owner_of_the_bucket() {
    let lock = ObjectLock {
        mode: LockMode::Compliance,
        days: 1,
    };
    let bucket = Bucket::locked(lock).await;
    let owner = bucket.store().await;
    owner.put("packs/00/x.zst", Bytes::from_static(b"x")).await.unwrap();
    let upload = owner.create_upload("packs/00/y.zst").await.unwrap();
    let tag = owner
        .put_part("packs/00/y.zst", &upload, 1, Bytes::from_static(b"y"))
        .await
        .unwrap();
    owner.complete_upload("packs/00/y.zst", &upload, vec![tag], 1).await.unwrap();
    owner.copy("packs/00/x.zst", "packs/00/z.zst").await.unwrap();
    let versions = owner.versions().unwrap();
    for version in bucket.versions().await {
        let retention = versions.retention(&version.key).await.unwrap().unwrap();
        assert_eq!(retention.mode, LockMode::Compliance, "{}", version.key);
        let held = retention.until.duration_since(version.last_modified);
        let wanted = SignedDuration::from_hours(48);
        assert!((held - wanted).abs() < SignedDuration::from_mins(1), "{}: {held}", version.key);
        owner
            .bucket()
            .unwrap()
            .delete_bypassing(&version.key, &version.id)
            .await
            .unwrap_err();
    }
    assert_eq!(bucket.versions().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_moment_shows_what_was_there_then() {
    let bucket = Bucket::versioned().await;
    let store = bucket.store().await;
    let empty = moment(&*store).await;
    store.put("a", Bytes::from_static(b"first")).await.unwrap();
    store.put("b", Bytes::from_static(b"stays")).await.unwrap();
    let one = moment(&*store).await;
    store.put("a", Bytes::from_static(b"second, longer")).await.unwrap();
    store.delete("b").await.unwrap();
    let two = moment(&*store).await;
    store.delete("a").await.unwrap();
    store.put("b", Bytes::from_static(b"again")).await.unwrap();
    store.put("c", Bytes::new()).await.unwrap();
    let three = moment(&*store).await;
    for (time, wanted) in [
        (empty, vec![]),
        (one, vec![("a", "first"), ("b", "stays")]),
        (two, vec![("a", "second, longer")]),
        (three, vec![("b", "again"), ("c", "")]),
    ] {
        let past = At::new(Arc::clone(&store), time).unwrap();
        let listed = past.list_page("", None).await.unwrap();
        let shown: Vec<(&str, u64)> = listed.objects.iter().map(|object| (object.key.as_str(), object.bytes)).collect();
        let lengths: Vec<(&str, u64)> = wanted.iter().map(|(key, body)| (*key, body.len() as u64)).collect();
        assert_eq!(shown, lengths, "{time}");
        // Without the listing's memory, too.
        let past = At::new(Arc::clone(&store), time).unwrap();
        for key in ["a", "b", "c"] {
            let body = wanted.iter().find(|(name, _)| *name == key).map(|(_, body)| *body);
            match (past.get(key, ByteRange::All).await, body) {
                (Ok(got), Some(body)) => assert_eq!(got.bytes, body, "{key} {time}"),
                (Err(Error::NotFound { .. }), None) => {}
                (other, _) => panic!("{key} at {time}: {other:?}"),
            }
        }
        assert!(past.put("d", Bytes::new()).await.is_err());
        assert!(past.delete("b").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_overwrites_and_keys_are_read_page_by_page() {
    let bucket = Bucket::versioned().await;
    let store = bucket.store().await;
    store.put("packs/00/a", Bytes::from_static(b"true")).await.unwrap();
    let keys: Vec<String> = (0..30).map(|number| format!("packs/01/{number:02}")).collect();
    for key in &keys {
        store.put(key, Bytes::from_static(b"true")).await.unwrap();
    }
    let before = moment(&*store).await;
    let put = |_| store.put("packs/00/a", Bytes::new());
    let mut done = futures::stream::StreamExt::buffer_unordered(futures::stream::iter((0..2100).map(put)), 32);
    while let Some(put) = futures::stream::StreamExt::next(&mut done).await {
        put.unwrap();
    }
    drop(done);
    let past = At::new(Arc::clone(&store), before).unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = past.list_page("packs/", after.as_deref()).await.unwrap();
        assert!(page.objects.len() <= 1000);
        seen.extend(page.objects.into_iter().map(|object| (object.key, object.bytes)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let wanted: Vec<(String, u64)> = ["packs/00/a".to_owned()].into_iter().chain(keys).map(|key| (key, 4)).collect();
    assert_eq!(seen, wanted);
    let past = At::new(Arc::clone(&store), before).unwrap();
    assert_eq!(past.get("packs/00/a", ByteRange::Last(2)).await.unwrap().bytes, "ue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_versioning_was_suspended_still_shows_its_past() {
    let bucket = Bucket::versioned().await;
    let store = bucket.store().await;
    store.put("a", Bytes::from_static(b"kept")).await.unwrap();
    let before = moment(&*store).await;
    let off = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    let client = minio::shared().client();
    let suspend = client.put_bucket_versioning().bucket(&bucket.name).versioning_configuration(off);
    suspend.send().await.unwrap();
    store.put("a", Bytes::from_static(b"without a version")).await.unwrap();
    let past = At::new(Arc::clone(&store), before).unwrap();
    assert_eq!(past.get("a", ByteRange::All).await.unwrap().bytes, "kept");
}
