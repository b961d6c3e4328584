//! The two roles: what the writer's credentials suffice for, and that they take nothing away; what pruning needs.

use std::sync::Arc;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::wrappers::{Fail, Fault};
use synapse_backup::store::{ByteRange, Error};

use crate::buckets::{Bucket, PREFIX, is_denied, keys};
use crate::homeserver::{Home, noise};
use crate::rig::{backup, init, listed, reopen, run, try_backup, verify};
use crate::support::minio;

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_backs_up_night_after_night_and_can_delete_nothing() {
    let bucket = Bucket::versioned().await;
    let home = Home::new();
    // More than a part, so that there is an upload in parts.
    home.upload("BobLargeVideo00000000004", &noise(4, 20 << 20));
    init(bucket.store().await).await;
    let writer = bucket.store_as("writer").await;
    let repository = reopen(Arc::clone(&writer)).await;
    for _ in 0..2 {
        assert_eq!(backup(&repository, &home).await.problems, []);
    }
    assert_eq!(listed(&repository).await.len(), 2);
    assert_eq!(verify(&repository, None).await, []);

    let before = bucket.versions().await;
    for version in &before {
        assert!(is_denied(&writer.delete(&version.key).await), "{}", version.key);
        let versions = writer.versions().unwrap();
        assert!(
            is_denied(&versions.delete_version(&version.key, &version.id).await),
            "{}",
            version.key
        );
        let questions = writer.bucket().unwrap();
        assert!(
            is_denied(&questions.delete_bypassing(&version.key, &version.id).await),
            "{}",
            version.key
        );
    }
    assert_eq!(bucket.versions().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_writer_overwrites_is_still_there_in_its_versions() {
    let bucket = Bucket::versioned().await;
    let home = Home::new();
    let repository = init(bucket.store_as("writer").await).await;
    backup(&repository, &home).await;
    let before = bucket.versions().await;
    for version in &before {
        repository
            .store()
            .put(&version.key, Bytes::from_static(b"overwritten"))
            .await
            .unwrap();
    }
    let after = bucket.versions().await;
    assert_eq!(after.len(), 2 * before.len());
    for version in before {
        assert!(after.iter().any(|one| one.id == version.id), "{}", version.key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_cannot_weaken_the_bucket_nor_look_beside_its_prefix() {
    let bucket = Bucket::versioned().await;
    let client = minio::shared().client_as(&bucket.user("writer"));
    let off = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    let suspended = client.put_bucket_versioning().bucket(&bucket.name).versioning_configuration(off);
    assert_eq!(suspended.send().await.unwrap_err().raw_response().unwrap().status().as_u16(), 403);
    let removed = client.delete_bucket().bucket(&bucket.name).send().await;
    assert_eq!(removed.unwrap_err().raw_response().unwrap().status().as_u16(), 403);
    for prefix in ["", "other/", "matri"] {
        let list = client.list_objects_v2().bucket(&bucket.name).prefix(prefix).send().await;
        assert!(list.is_err(), "{prefix:?}");
    }
    let outside = client.put_object().bucket(&bucket.name).key("other/key").send().await;
    assert!(outside.is_err());
    let inside = client.list_objects_v2().bucket(&bucket.name).prefix(format!("{PREFIX}/"));
    inside.send().await.unwrap();
}

/// B6: a writer that may not delete goes on under a new key, and both snapshots are complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_outcome_goes_on_although_it_cannot_be_withdrawn() {
    let bucket = Bucket::versioned().await;
    let home = Home::bare(crate::cluster::shared());
    init(bucket.store().await).await;
    backup(&reopen(bucket.store_as("writer").await).await, &home).await;
    // A night in which nothing changed writes a few objects: each PUT in turn loses its answer, the snapshot's among them.
    // Both objects have the id of the one snapshot, so they are counted in the bucket.
    let objects = async || {
        let all = keys(&*bucket.store().await).await;
        all.iter().filter(|key| key.starts_with("snapshots/")).count()
    };
    for at in (1..=6).chain(1..=6) {
        let before = objects().await;
        let fail = Fail::new(bucket.store_as("writer").await, at, Fault::After).only(&[Kind::Put]);
        let repository = reopen(Arc::new(fail)).await;
        try_backup(&repository, &home, &run()).await.unwrap();
        if objects().await == before + 2 {
            assert_eq!(verify(&repository, None).await, []);
            return;
        }
    }
    panic!("no snapshot's answer was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_aborts_its_own_uploads() {
    let bucket = Bucket::versioned().await;
    let writer = bucket.store_as("writer").await;
    let upload = writer.create_upload("packs/00/x.zst").await.unwrap();
    let tag = writer
        .put_part("packs/00/x.zst", &upload, 1, Bytes::from_static(b"part"))
        .await
        .unwrap();
    writer.abort_upload("packs/00/x.zst", &upload).await.unwrap();
    let completed = writer.complete_upload("packs/00/x.zst", &upload, vec![tag], 4).await;
    assert!(matches!(completed, Err(Error::Failed { .. })), "{completed:?}");
    assert_eq!(keys(&*writer).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pruner_may_do_what_pruning_does() {
    let bucket = Bucket::versioned().await;
    let home = Home::new();
    init(bucket.store().await).await;
    let writer = reopen(bucket.store_as("writer").await).await;
    backup(&writer, &home).await;

    let pruner = bucket.store_as("pruner").await;
    assert_eq!(verify(&reopen(Arc::clone(&pruner)).await, None).await, []);
    pruner.put("condemned/0123", Bytes::new()).await.unwrap();
    let upload = pruner.create_upload("packs/00/x.zst").await.unwrap();
    let tag = pruner
        .put_part("packs/00/x.zst", &upload, 1, Bytes::from_static(b"part"))
        .await
        .unwrap();
    pruner.complete_upload("packs/00/x.zst", &upload, vec![tag], 4).await.unwrap();
    let client = minio::shared().client_as(&bucket.user("pruner"));
    let uploads = client.list_multipart_uploads().bucket(&bucket.name).prefix(format!("{PREFIX}/"));
    uploads.send().await.unwrap();
    let abandoned = pruner.create_upload("packs/00/y.zst").await.unwrap();
    pruner.abort_upload("packs/00/y.zst", &abandoned).await.unwrap();
    for key in keys(&*pruner).await {
        pruner.delete(&key).await.unwrap();
    }
    assert_eq!(keys(&*pruner).await, [""; 0]);
    for version in bucket.versions().await {
        pruner.versions().unwrap().delete_version(&version.key, &version.id).await.unwrap();
    }
    assert_eq!(bucket.versions().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_reads_and_writes_nothing() {
    let bucket = Bucket::versioned().await;
    let home = Home::new();
    let writer = init(bucket.store_as("writer").await).await;
    backup(&writer, &home).await;
    let reader = bucket.store_as("reader").await;
    assert_eq!(verify(&reopen(Arc::clone(&reader)).await, None).await, []);
    assert!(is_denied(&reader.put("probe/x", Bytes::new()).await));
    assert!(is_denied(&reader.delete("repository.json").await));
    let version = bucket.versions().await.swap_remove(0);
    let versions = reader.versions().unwrap();
    assert!(versions.list_versions("", None).await.is_ok());
    versions.get_version(&version.key, &version.id, ByteRange::All).await.unwrap();
    assert!(is_denied(&versions.delete_version(&version.key, &version.id).await));
}
