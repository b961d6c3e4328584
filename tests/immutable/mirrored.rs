//! A bucket that was mirrored object by object into another one: all snapshots are late there, until they are adopted.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use synapse_backup::format::{seal, snapshot};
use synapse_backup::ops::adopt;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::store::{ByteRange, Store};

use crate::buckets::{Bucket, init_with, keys, reopen_with};
use crate::homeserver::{Home, digest, noise, without_one_time_keys};
use crate::rig::{backup, listed, options, restore, restore_to, run, verify};
use crate::sealing::Keys;
use crate::tree::files;

/// Every object of one bucket in the other, a day later: as nobody can wait so long, the snapshots' windows are moved instead.
async fn mirror(from: &Arc<dyn Store>, to: &Arc<dyn Store>, all_keys: &Keyring) {
    for key in keys(&**from).await {
        let got = from.get(&key, ByteRange::All).await.unwrap();
        let bytes = if key.starts_with("snapshots/") {
            let is_sealed = !all_keys.recipients.is_empty();
            let object = if is_sealed {
                seal::open(&got.bytes, &all_keys.identities).unwrap()
            } else {
                got.bytes.to_vec()
            };
            let (_, signed) = snapshot::decode(&object).unwrap();
            let not_after = signed.not_after - SignedDuration::from_hours(24);
            let object = snapshot::with_not_after(&object, not_after).unwrap();
            let recipients = all_keys.recipients_of_metadata();
            Bytes::from(if is_sealed {
                seal::seal(&recipients, &object).unwrap()
            } else {
                object
            })
        } else {
            got.bytes
        };
        to.put(&key, bytes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_bucket_is_adopted_and_restored() {
    adopted_and_restored(&Keyring::default()).await;
    adopted_and_restored(&Keys::new(1).all()).await;
}

async fn adopted_and_restored(all_keys: &Keyring) {
    let (here, there) = (Bucket::plain().await, Bucket::plain().await);
    let home = Home::new();
    home.upload("BobSmallImage00000000001", &noise(4, 1 << 20));
    let source = here.store().await;
    init_with(Arc::clone(&source), all_keys.clone()).await;
    let original = reopen_with(Arc::clone(&source), all_keys.clone()).await;
    backup(&original, &home).await;
    backup(&original, &home).await;
    let snapshots = BTreeSet::from_iter(listed(&original).await);
    mirror(&source, &there.store().await, all_keys).await;

    // A writer may not delete: the late originals stay, and do no harm.
    let repository = reopen_with(there.store_as("writer").await, all_keys.clone()).await;
    assert_eq!(listed(&repository).await, [] as [String; 0], "all are late");
    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("mirrored");
    let to = restore_to(target.path(), home.cluster, &database);
    let refused = restore(&repository, "latest", &to).await.unwrap_err();
    assert!(refused.contains("no snapshot `latest`"), "{refused}");
    let adopting = adopt::Options {
        limits: options().limits,
        spool_folder: "/var/tmp".into(),
    };
    let report = adopt::adopt(&repository, &[], &adopting, &run()).await.unwrap();
    assert_eq!((report.adopted.len(), report.originals_left), (2, 2));
    // Both are of one second, so no order of them is promised.
    assert_eq!(BTreeSet::from_iter(listed(&repository).await), snapshots);
    assert_eq!(verify(&repository, None).await, []);
    let report = restore(&repository, "latest", &to).await.unwrap();
    assert_eq!(report.problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&came_back), files(&home.root));
    let original = digest(home.cluster, &home.database);
    assert_eq!(digest(home.cluster, &database), without_one_time_keys(original));
}
