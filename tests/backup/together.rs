//! Several runs at once into one repository, without a lock: each is whole.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use synapse_backup::store::Store;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::local;
use synapse_backup::store::wrappers::Latency;

use crate::homeserver::{Home, digest, item_of, noise, without_one_time_keys};
use crate::rig::{backup, cat, fresh_in, init, listed, memory, reopen, restore, restore_files_to, restore_to, ticking, verify};
use crate::tree::files;

#[tokio::test(flavor = "multi_thread")]
async fn two_homeservers_back_up_into_one_repository_at_once() {
    let bucket = tempfile::tempdir().unwrap();
    let open = || local::open(bucket.path(), true, Arc::new(Counters::default()));
    let slow = |store| Arc::new(Latency::new(store, Duration::from_millis(5))) as Arc<dyn Store>;
    let (alice, bob) = (Home::new(), Home::new());
    bob.write_config("bob.example.net", "");
    // Both have these bytes, and each has its own.
    for home in [&alice, &bob] {
        home.upload("SharedVideo0000000000001", &noise(1, 20 << 20));
    }
    alice.upload("OnlyAliceHasThis00000001", &noise(2, 10 << 20));
    bob.upload("OnlyBobHasThis0000000001", &noise(3, 10 << 20));
    let first = init(slow(open().await.unwrap())).await;
    let second = reopen(slow(open().await.unwrap())).await;
    for night in 1..=2 {
        let (one, two) = tokio::join!(backup(&first, &alice), backup(&second, &bob));
        assert_eq!((one.problem_count, two.problem_count), (0, 0), "night {night}");
        assert_eq!((one.media.files, two.media.files), (6, 6), "night {night}");
        assert_eq!(verify(&first, None).await, [], "night {night}");
        assert_eq!(listed(&first).await.len(), 2 * night);
    }
    for (home, name) in [(&alice, "latest:example.org"), (&bob, "latest:bob.example.net")] {
        let target = tempfile::tempdir().unwrap();
        let database = home.cluster.database("restored");
        let report = restore(&first, name, &restore_to(target.path(), home.cluster, &database))
            .await
            .unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(files(&target.path().join(home.root.strip_prefix("/").unwrap())), files(&home.root));
        assert_eq!(
            digest(home.cluster, &database),
            without_one_time_keys(digest(home.cluster, &home.database))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_of_one_homeserver_at_once_are_both_whole() {
    let home = Home::new();
    home.upload("SharedVideo0000000000001", &noise(1, 20 << 20));
    let memory = memory();
    fresh_in(&memory).await;
    let slow = || Arc::new(Latency::new(ticking(&memory), Duration::from_millis(10))) as Arc<dyn Store>;
    let (first, second) = (reopen(slow()).await, reopen(slow()).await);
    let (one, two) = tokio::join!(backup(&first, &home), backup(&second, &home));
    assert_ne!(one.snapshot, two.snapshot);
    assert_eq!(verify(&first, None).await, []);
    assert_eq!(listed(&first).await.len(), 2);
    let next = backup(&first, &home).await;
    assert_eq!((next.media.unchanged, next.media.new), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_two_within_a_second_is_the_newest() {
    // A fast repository can hold two snapshots of one second; their keys tell whole seconds only.
    let home = Home::new();
    let memory = memory();
    let repository = crate::rig::init(Arc::clone(&memory) as Arc<dyn Store>).await;
    for number in 0..6 {
        memory.clock().advance(SignedDuration::from_millis(100));
        home.upload(&format!("Picture{number:017}"), &noise(number, 1_000));
        let taken = backup(&repository, &home).await;
        assert_eq!(taken.media.new, if number == 0 { 5 } else { 1 }, "it inherits from the one before");
        let newest = cat(&repository, "latest", &item_of(&format!("Picture{number:017}"))).await.unwrap();
        assert!(newest == noise(number, 1_000));
    }
    assert_eq!(listed(&repository).await.len(), 6);
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repository, "latest", &restore_files_to(target.path())).await.unwrap();
    assert_eq!(report.media_files, 10);
}
