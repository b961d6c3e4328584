//! Snapshots in a second repository: they arrive as they were, only once, and only whole.

use std::sync::Arc;

use synapse_backup::ops::copy::{self, Choice, Report};
use synapse_backup::repo::{Repository, snapshots};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::wrappers::{Fail, Fault, Record};

use crate::homeserver::{Home, digest, item_of, noise, without_one_time_keys};
use crate::rig::{LIMITS, backup, cat, document, fresh, fresh_in, init, key_of, listed, memory, reopen, restore, restore_to, run, verify};
use crate::tree::files;

async fn copy(source: &Repository, destination: &Repository, choice: Choice) -> Result<Report, String> {
    let options = copy::Options {
        choice,
        dry_run: false,
        limits: LIMITS,
    };
    copy::copy(source, destination, &options, &run())
        .await
        .map_err(|error| format!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_snapshot_is_the_original_to_the_byte_and_restores_like_it() {
    let home = Home::new();
    home.upload("BobLargeVideo00000000004", &noise(4, 20 << 20));
    let here = memory();
    let source = fresh_in(&here).await;
    backup(&source, &home).await;
    home.upload("BobNewPicture00000000005", &noise(5, 300_000));
    backup(&source, &home).await;
    let there = memory();
    let record = Arc::new(Record::new(Arc::clone(&there) as Arc<dyn Store>));
    let destination = init(Arc::clone(&record) as Arc<dyn Store>).await;
    let report = copy(&source, &destination, Choice::All).await.unwrap();
    assert_eq!((report.copied.len(), report.present, report.problems.len()), (2, 0, 0));
    assert_eq!(listed(&destination).await, listed(&source).await);
    for id in listed(&source).await {
        assert_eq!(document(&destination, &id).await, document(&source, &id).await);
    }
    assert_eq!(verify(&destination, None).await, []);

    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("copied");
    let restored = restore(&destination, "latest", &restore_to(target.path(), home.cluster, &database))
        .await
        .unwrap();
    assert_eq!(restored.problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&came_back), files(&home.root));
    assert_eq!(
        digest(home.cluster, &database),
        without_one_time_keys(digest(home.cluster, &home.database))
    );

    // Once more: nothing is read but lists of keys, and nothing is written.
    let before = record.calls().len();
    let again = copy(&source, &destination, Choice::All).await.unwrap();
    assert_eq!((again.copied.len(), again.present, again.new_bytes), (0, 2, 0));
    let written = |kind| {
        matches!(
            kind,
            Kind::Put | Kind::Create | Kind::Part | Kind::Complete | Kind::Copy | Kind::Delete
        )
    };
    assert!(record.calls()[before..].iter().all(|call| !written(call.kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_destination_lacks_is_sent() {
    let home = Home::new();
    let source = fresh().await;
    let destination = fresh().await;
    backup(&source, &home).await;
    let first = copy(&source, &destination, Choice::Named(vec!["latest".into()])).await.unwrap();
    home.upload("BobNewPicture00000000005", &noise(5, 300_000));
    backup(&source, &home).await;
    let second = copy(&source, &destination, Choice::All).await.unwrap();
    assert_eq!((second.copied.len(), second.present), (1, 1));
    assert!(
        first.new_bytes > 0 && (300_000..700_000).contains(&second.new_bytes),
        "{}",
        second.new_bytes
    );
    assert_eq!(verify(&destination, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_at_any_call_lists_nothing_and_goes_on_when_it_is_run_again() {
    let home = Home::new();
    let source = fresh().await;
    backup(&source, &home).await;
    let mut failed = 0;
    for at in 1.. {
        let there = memory();
        let whole = fresh_in(&there).await;
        let fail = Arc::new(Fail::new(Arc::clone(&there) as Arc<dyn Store>, at, Fault::BeforeAndEver));
        // The first call opens the repository.
        let Ok(destination) =
            synapse_backup::repo::open::open(Arc::clone(&fail) as Arc<dyn Store>, synapse_backup::repo::Ids::random()).await
        else {
            continue;
        };
        let outcome = copy(&source, &destination, Choice::All).await;
        let count = listed(&whole).await.len();
        assert!(outcome.is_err() || count == 1, "call {at}: success without a snapshot");
        if outcome.is_ok() {
            assert!(failed > 5, "{failed} calls");
            break;
        }
        failed += 1;
        let again = copy(&source, &reopen(Arc::clone(&there) as Arc<dyn Store>).await, Choice::All)
            .await
            .unwrap();
        assert_eq!(
            (again.copied.len() as u64 + again.present, again.problems.len()),
            (1, 0),
            "call {at}"
        );
        assert_eq!(verify(&whole, None).await, [], "call {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_whole_is_named_and_the_others_are_copied() {
    let home = Home::new();
    let here = memory();
    let source = fresh_in(&here).await;
    home.upload("BobLostPicture0000000004", &noise(4, 300_000));
    let damaged = document(&source, &backup(&source, &home).await.snapshot.unwrap()).await;
    home.sql("DELETE FROM local_media_repository WHERE media_id = 'BobLostPicture0000000004'");
    let whole = document(&source, &backup(&source, &home).await.snapshot.unwrap()).await;
    // The picture's bytes are in a pack that the second snapshot does not need for anything else: damage only them.
    let bytes = noise(4, 300_000);
    for (key, object) in here.objects() {
        if let Some(at) = object.windows(64).position(|window| window == &bytes[1_000..1_064]) {
            let mut object = object.to_vec();
            object[at] ^= 1;
            here.delete(&key).await.unwrap();
            here.put(&key, object.into()).await.unwrap();
        }
    }
    assert!(
        cat(&source, &damaged.id.to_string(), &item_of("BobLostPicture0000000004"))
            .await
            .is_err()
    );
    let destination = fresh().await;
    let report = copy(&source, &destination, Choice::All).await.unwrap();
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].message.contains("BobLostPicture0000000004") || report.problems[0].message.contains("lost"));
    assert!(report.problems[0].item.contains(&damaged.id.to_string()));
    assert_eq!(listed(&destination).await, [whole.id.to_string()]);
    assert_eq!(verify(&destination, None).await, []);
    let error = copy(&source, &destination, Choice::Named(vec![damaged.id.to_string()]))
        .await
        .unwrap_err();
    assert!(error.contains("cannot be copied whole"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_not_copied_into_itself_and_a_late_snapshot_not_at_all() {
    let home = Home::new();
    let here = memory();
    let source = fresh_in(&here).await;
    let taken = document(&source, &backup(&source, &home).await.snapshot.unwrap()).await;
    assert!(
        copy(&source, &source, Choice::All)
            .await
            .unwrap_err()
            .contains("the same repository")
    );
    let object = here.objects()[&key_of(&taken)].clone();
    here.clock().advance(jiff::SignedDuration::from_hours(13));
    here.put(&key_of(&taken), object).await.unwrap();
    assert!(snapshots::find(&source, &taken.id.to_string(), true).await.unwrap().late);
    let destination = fresh().await;
    let report = copy(&source, &destination, Choice::All).await.unwrap();
    assert_eq!(report.copied, []);
    assert!(
        copy(&source, &destination, Choice::Named(vec![taken.id.to_string()]))
            .await
            .is_err()
    );
}
