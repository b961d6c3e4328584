//! A failure at every call to the store of a whole backup: what is listed is complete, at every instant.

use std::fs;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use synapse_backup::ops::backup;
use synapse_backup::repo::{Ids, open};
use synapse_backup::store::Store;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::{Fail, Fault};

use crate::homeserver::{Home, item_of, noise};
use crate::rig::{self, cat, copy_of, fresh_in, listed, memory, options, reopen, run, ticking, verify};

/// Runs that are tried at once.
const AT_ONCE: usize = 3;

/// A homeserver of which a night is in the store, and on which the day has brought something of every kind.
async fn a_night_and_a_day() -> (Home, Arc<Memory>) {
    let home = Home::new();
    let memory = memory();
    let repository = fresh_in(&memory).await;
    rig::backup(&repository, &home).await;
    home.upload("BobNewPicture00000000005", &noise(5, 50_000));
    // In parts, since it is larger than one.
    home.upload("BobLargeVideo00000000006", &noise(6, 12 << 20));
    home.sql("DELETE FROM local_media_repository WHERE media_id = 'AliceSecondPicture000002'");
    fs::remove_file(home.media("AliceSecondPicture000002")).unwrap();
    home.sql("INSERT INTO users VALUES ('@carol:example.org', 'x')");
    (home, memory)
}

/// Run a backup that fails at call `n`; false when there is no such call any more.
async fn at_call(call: u64, fault: Fault, home: &Home, before: &Memory) -> bool {
    let memory = copy_of(before).await;
    let bare = reopen(ticking(&memory)).await;
    let fail = Arc::new(Fail::new(ticking(&memory), call, fault));
    let ended = match open::open(Arc::clone(&fail) as Arc<dyn Store>, Ids::random()).await {
        Ok(repository) => backup::backup(&repository, &home.discover(), &options(), &run()).await,
        Err(error) => Err(error.into()),
    };
    let at = format!("{fault:?} at call {call}");
    assert_eq!(verify(&bare, None).await, [], "{at}");
    let snapshots = listed(&bare).await;
    if let Ok(report) = &ended {
        assert!(snapshots.contains(report.snapshot.as_ref().unwrap()), "{at}");
    }
    if fault == Fault::Before || ended.is_ok() {
        assert_eq!(memory.open_uploads(), 0, "{at}");
    }
    // What the run that failed had sent is found by the next one, which is whole.
    let next = rig::backup(&bare, home).await;
    assert_eq!(next.problems, [], "{at}");
    assert_eq!(verify(&bare, next.snapshot.as_deref()).await, [], "{at}");
    let video = cat(&bare, &next.snapshot.unwrap(), &item_of("BobLargeVideo00000000006"))
        .await
        .unwrap();
    assert!(video == noise(6, 12 << 20), "{at}");
    if fail.begun() >= call {
        return true;
    }
    assert!(ended.is_ok(), "without a fault it succeeds");
    false
}

async fn at_every_call(fault: Fault) {
    let (home, memory) = a_night_and_a_day().await;
    let mut tried = stream::iter(1..)
        .map(|call| Box::pin(at_call(call, fault, &home, &memory)))
        .buffered(AT_ONCE);
    let mut calls = 0;
    while tried.next().await == Some(true) {
        calls += 1;
    }
    assert!(calls > 15, "only {calls} calls were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listed_snapshot_is_complete_whatever_call_never_arrives() {
    at_every_call(Fault::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listed_snapshot_is_complete_whatever_answer_is_lost() {
    at_every_call(Fault::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listed_snapshot_is_complete_whenever_the_network_is_gone_for_good() {
    at_every_call(Fault::BeforeAndEver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listed_snapshot_is_complete_whenever_the_last_answer_is_lost() {
    at_every_call(Fault::AfterAndEver).await;
}
