//! A bucket that was mirrored object by object into another one: all snapshots are late there, until they are adopted.

use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use synapse_backup::format::snapshot;
use synapse_backup::ops::adopt;
use synapse_backup::store::{ByteRange, Store};

use crate::buckets::{Bucket, keys};
use crate::homeserver::{Home, digest, noise, without_one_time_keys};
use crate::rig::{backup, init, listed, options, reopen, restore, restore_to, run, verify};
use crate::tree::files;

/// Every object of one bucket in the other, a day later: as nobody can wait so long, the snapshots' windows are moved instead.
async fn mirror(from: &Arc<dyn Store>, to: &Arc<dyn Store>) {
    for key in keys(&**from).await {
        let got = from.get(&key, ByteRange::All).await.unwrap();
        let bytes = if key.starts_with("snapshots/") {
            let (_, signed) = snapshot::decode(&got.bytes).unwrap();
            let not_after = signed.not_after - SignedDuration::from_hours(24);
            Bytes::from(snapshot::with_not_after(&got.bytes, not_after).unwrap())
        } else {
            got.bytes
        };
        to.put(&key, bytes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_bucket_is_adopted_and_restored() {
    let (here, there) = (Bucket::plain().await, Bucket::plain().await);
    let home = Home::new();
    home.upload("BobSmallImage00000000001", &noise(4, 1 << 20));
    let source = here.store().await;
    init(Arc::clone(&source)).await;
    backup(&reopen(Arc::clone(&source)).await, &home).await;
    backup(&reopen(Arc::clone(&source)).await, &home).await;
    let snapshots = listed(&reopen(Arc::clone(&source)).await).await;
    mirror(&source, &there.store().await).await;

    // A writer may not delete: the late originals stay, and do no harm.
    let repository = reopen(there.store_as("writer").await).await;
    assert_eq!(listed(&repository).await, [] as [String; 0], "all are late");
    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("mirrored");
    let to = restore_to(target.path(), home.cluster, &database);
    let refused = restore(&repository, "latest", &to).await.unwrap_err();
    assert!(refused.contains("no snapshot `latest`"), "{refused}");
    let report = adopt::adopt(&repository, &[], options().limits, &run()).await.unwrap();
    assert_eq!((report.adopted.len(), report.originals_left), (2, 2));
    assert_eq!(listed(&repository).await, snapshots);
    assert_eq!(verify(&repository, None).await, []);
    let report = restore(&repository, "latest", &to).await.unwrap();
    assert_eq!(report.problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&came_back), files(&home.root));
    let original = digest(home.cluster, &home.database);
    assert_eq!(digest(home.cluster, &database), without_one_time_keys(original));
}
