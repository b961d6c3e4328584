//! The keys of B2 and R2 as users of `MinIO` ([`crate::translated`]): the same stories as those of the policies, and where these
//! stores cannot say what a policy can, what stays all the same.

use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::format::keys;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::ops::doctor::Verdict;
use synapse_backup::repo::Repository;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::store::versions::{LockMode, ObjectLock};
use synapse_backup::store::wrappers::At;
use synapse_backup::store::{ByteRange, Store};

use crate::buckets::{Bucket, PREFIX, init_with, is_denied, keys as keys_of, reopen_with};
use crate::doctor::{assert_check, examined, worst_is};
use crate::homeserver::{Home, digest, noise, without_one_time_keys};
use crate::past::moment;
use crate::prune::{GRACE_SECONDS, all_is_dead_by, try_pass};
use crate::rig::{backup, init, listed, reopen, restore, restore_to, verify};
use crate::sealing::Keys;
use crate::translated;
use crate::tree::files;

const LOCK: ObjectLock = ObjectLock {
    mode: LockMode::Governance,
    days: 1,
};

/// A bucket as B2 has them, which always keep versions, and with the keys of its files.
async fn b2(lock: Option<ObjectLock>) -> Bucket {
    let bucket = match lock {
        Some(lock) => Bucket::locked(lock).await,
        None => Bucket::versioned().await,
    };
    for (role, policy) in translated::b2(&bucket.name) {
        bucket.add_user(&format!("b2-{role}"), &policy);
    }
    bucket
}

/// The tokens of R2, and its locks against them.
fn add_r2(bucket: &Bucket, role_prefix: &str, locks: &[String]) {
    for (role, policy) in translated::r2(&bucket.name, locks) {
        bucket.add_user(&format!("{role_prefix}-{role}"), &policy);
    }
}

/// Everything as it was, database and files.
async fn comes_back(repository: &Repository, home: &Home) {
    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("restored");
    let report = restore(repository, "latest", &restore_to(target.path(), home.cluster, &database))
        .await
        .unwrap();
    assert_eq!(report.problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&came_back), files(&home.root));
    let original = digest(home.cluster, &home.database);
    assert_eq!(digest(home.cluster, &database), without_one_time_keys(original));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_b2_that_writes_can_hide_everything_and_take_nothing_away() {
    for lock in [None, Some(LOCK)] {
        let bucket = b2(lock).await;
        let home = Home::new();
        home.upload("BobLargeVideo00000000004", &noise(4, 20 << 20));
        let writer = bucket.store_as("b2-writer").await;
        let repository = init(Arc::clone(&writer)).await;
        for _ in 0..2 {
            assert_eq!(backup(&repository, &home).await.problems, []);
        }
        assert_eq!(verify(&repository, None).await, []);
        let before = moment(&*writer).await;

        let versions = bucket.versions().await;
        for version in &versions {
            let deleted = writer.versions().unwrap().delete_version(&version.key, &version.id).await;
            assert!(is_denied(&deleted), "{}", version.key);
            let bypassed = writer.bucket().unwrap().delete_bypassing(&version.key, &version.id).await;
            assert!(is_denied(&bypassed), "{}", version.key);
        }
        for key in keys_of(&*writer).await {
            writer.put(&key, Bytes::from_static(b"overwritten")).await.unwrap();
            writer.delete(&key).await.unwrap();
        }
        assert_eq!(keys_of(&*writer).await, [""; 0]);
        let after = bucket.versions().await;
        for version in &versions {
            assert!(after.iter().any(|one| one.id == version.id), "{}", version.key);
        }

        let reader = bucket.store_as("b2-reader").await;
        let past: Arc<dyn Store> = Arc::new(At::new(Arc::clone(&reader), before).unwrap());
        let past = reopen(past).await;
        assert_eq!(listed(&past).await.len(), 2);
        assert_eq!(verify(&past, None).await, []);
        comes_back(&past, &home).await;
        assert!(is_denied(&reader.put("probe/x", Bytes::new()).await));
        assert!(is_denied(&reader.delete(keys::REPOSITORY).await));
        assert!(is_denied(
            &reader.versions().unwrap().delete_version(&versions[0].key, &versions[0].id).await
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_b2_stay_below_their_prefix() {
    let bucket = b2(None).await;
    for role in ["b2-writer", "b2-pruner", "b2-reader"] {
        let client = crate::support::minio::shared().client_as(&bucket.user(role));
        let inside = client.list_objects_v2().bucket(&bucket.name).prefix(format!("{PREFIX}/"));
        inside.send().await.unwrap();
        for prefix in ["", "other/"] {
            let outside = client.list_objects_v2().bucket(&bucket.name).prefix(prefix);
            assert!(outside.send().await.is_err(), "{role} {prefix:?}");
        }
        let put = client.put_object().bucket(&bucket.name).key("other/key").send().await;
        assert!(put.is_err(), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_b2_that_prunes_gives_back_what_is_not_held() {
    for lock in [None, Some(LOCK)] {
        let bucket = b2(lock).await;
        let (writer, pruner) = (bucket.store_as("b2-writer").await, bucket.store_as("b2-pruner").await);
        let (left, report) = Box::pin(all_is_dead_by(&bucket, writer, pruner)).await;
        assert_eq!(report.problems, []);
        let held = report.versions.unwrap().held;
        assert_eq!((left > 0, held > 0), (lock.is_some(), lock.is_some()), "{left} {held}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_at_b2_says_that_the_writer_may_hide() {
    let bucket = b2(Some(LOCK)).await;
    init(bucket.store().await).await;
    let checks = examined(bucket.store_as("b2-writer").await).await;
    assert!(worst_is(&checks, Verdict::Warning), "{checks:#?}");
    assert_check(&checks, "rights", Verdict::Warning, "hide every backup (old versions stay)");
    assert_check(&checks, "versions", Verdict::Ok, "keeps them");
    assert_check(&checks, "object lock", Verdict::Ok, "governance mode for 1 days");
    assert_check(&checks, "lifecycle", Verdict::Ok, "cannot be seen with these credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_r2_cover_what_backups_rely_on_and_nothing_that_must_go() {
    let locks = translated::r2_locks();
    let is_locked = |key: &str| locks.iter().any(|lock| format!("{PREFIX}/{key}").starts_with(lock.as_str()));
    for (key, locked) in [
        (keys::REPOSITORY, true),
        (keys::PACKS, true),
        (keys::INDEX, true),
        (keys::SNAPSHOTS, true),
        (keys::CONDEMNED, false),
        (keys::DRILLS, false),
        (keys::TAGS, false),
        (keys::PROBES, false),
    ] {
        assert_eq!(is_locked(key), locked, "{key}");
    }
    let seals = Keys::new(1);
    for (server, safe) in [(Keyring::default(), Keyring::default()), (seals.of_server(), seals.of_safe())] {
        // It keeps versions only so that a second writing of a key would be seen: to R2 that is an overwriting, which a lock refuses.
        let bucket = Bucket::versioned().await;
        add_r2(&bucket, "r2", &locks);
        let home = Home::new();
        home.upload("BobLargeVideo00000000004", &noise(4, 20 << 20));
        let writer = bucket.store_as("r2-writer").await;
        init_with(Arc::clone(&writer), server.clone()).await;
        for night in 0..3 {
            home.upload(&format!("BobOfNight00000000000{night}"), &noise(night, 1 << 20));
            let repository = reopen_with(Arc::clone(&writer), server.clone()).await;
            assert_eq!(backup(&repository, &home).await.problems, []);
        }
        let mut written: Vec<String> = bucket.versions().await.into_iter().map(|version| version.key).collect();
        assert!(written.iter().all(|key| is_locked(key)), "{written:?}");
        let count = written.len();
        written.sort_unstable();
        written.dedup();
        assert_eq!(count, written.len(), "a key was written twice: {written:?}");

        for key in &written {
            assert!(is_denied(&writer.delete(key).await), "{key}");
        }
        let reader = bucket.store_as("r2-reader").await;
        assert!(is_denied(&reader.put("probe/x", Bytes::new()).await));
        assert!(is_denied(&reader.delete("probe/x").await));
        let reader = reopen_with(reader, safe).await;
        assert_eq!(verify(&reader, None).await, []);
        comes_back(&reader, &home).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_under_the_locks_of_r2_takes_nothing_and_goes_on_when_they_end() {
    let bucket = Bucket::plain().await;
    add_r2(&bucket, "r2", &translated::r2_locks());
    // As the same tokens are once the objects are old enough.
    add_r2(&bucket, "later", &[]);
    let home = Home::bare(crate::cluster::shared());
    let writer = init(bucket.store_as("r2-writer").await).await;
    backup(&writer, &home).await;
    let info = RepositoryInfo {
        grace_seconds: GRACE_SECONDS,
        window_seconds: 1,
        ..writer.info().clone()
    };
    let body = info.to_json().unwrap().into();
    bucket.store().await.put(keys::REPOSITORY, body).await.unwrap();
    // Nobody needs the packs: the lock of the snapshot alone has ended.
    for key in keys_of(&*bucket.store().await).await {
        if key.starts_with(keys::SNAPSHOTS) {
            bucket.store().await.delete(&key).await.unwrap();
        }
    }
    let packs = async || {
        let all = keys_of(&*bucket.store().await).await;
        all.into_iter().filter(|key| key.starts_with(keys::PACKS)).count()
    };
    let count = packs().await;
    let locked = reopen(bucket.store_as("r2-pruner").await).await;
    let marked = try_pass(&locked, false).await.unwrap();
    assert!(marked.applied.unwrap().condemned > 0);
    let refused = format!("{:#}", try_pass(&locked, false).await.unwrap_err());
    assert!(refused.contains("does not allow DELETE of `packs/"), "{refused}");
    assert_eq!(packs().await, count);
    let ended = reopen(bucket.store_as("later-pruner").await).await;
    let done = try_pass(&ended, false).await.unwrap();
    assert_eq!(done.problems, []);
    assert_eq!(packs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_at_r2_warns_although_locks_may_hold() {
    let bucket = Bucket::plain().await;
    add_r2(&bucket, "r2", &translated::r2_locks());
    init(bucket.store().await).await;
    let writer = bucket.store_as("r2-writer").await;
    writer.get(keys::REPOSITORY, ByteRange::All).await.unwrap();
    let checks = examined(writer).await;
    assert!(worst_is(&checks, Verdict::Warning), "{checks:#?}");
    assert_check(&checks, "rights", Verdict::Warning, "delete every backup");
}
