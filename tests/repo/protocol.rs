//! The rules of `docs/protocol.md` for writers and readers, with somebody else at the store at the worst moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use jiff::SignedDuration;
use synapse_backup::format::snapshot::Snapshot;
use synapse_backup::format::{PackId, keys};
use synapse_backup::ops::restore::{self, DatabaseTarget};
use synapse_backup::ops::{Part, inspect};
use synapse_backup::repo::commit::{CheckFailed, check, commit_again};
use synapse_backup::repo::reader::Reader;
use synapse_backup::repo::{Ids, Repository, open, snapshots};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::{Fail, Fault, Record};

use crate::hook::Hook;
use crate::rig::{Bytes, backup, init, memory, noise, read, restore_options, run, verify};

/// What another machine does at once, between two of our calls.
fn now<T>(call: impl Future<Output = Result<T, synapse_backup::store::Error>>) -> T {
    call.now_or_never().unwrap().unwrap()
}

pub(crate) fn condemn(memory: &Memory, packs: &BTreeSet<PackId>) {
    for pack in packs {
        now(memory.put(&keys::condemned(*pack), bytes::Bytes::new()));
    }
}

fn delete(memory: &Memory, packs: &BTreeSet<PackId>) {
    for pack in packs {
        now(memory.delete(&keys::pack(*pack)));
    }
}

/// The packs of the dump itself, which a snapshot of `rig` needs first of all.
pub(crate) fn data_packs(snapshot: &Snapshot) -> BTreeSet<PackId> {
    snapshot.databases[0].streams[0]
        .list
        .entries
        .iter()
        .map(|entry| entry.pack)
        .collect()
}

/// Take an object away and put it back, an hour after its snapshot's window: it lands late.
fn make_late(memory: &Memory, key: &str) {
    let bytes = memory.objects()[key].clone();
    memory.clock().advance(SignedDuration::from_hours(13));
    now(memory.put(key, bytes));
}

pub(crate) async fn over(memory: &Arc<Memory>, act: impl Fn(Kind, &str) + Send + Sync + 'static) -> Repository {
    let store: Arc<dyn Store> = Arc::clone(memory) as Arc<dyn Store>;
    open::open(Arc::new(Hook::new(store, act)), Ids::random()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_written_twice_even_when_answers_are_lost() {
    let bytes = noise(1, 9 << 20);
    for call in 1.. {
        let record = Arc::new(Record::new(memory()));
        let whole = init(Arc::clone(&record) as Arc<dyn Store>).await;
        let fail = Arc::new(Fail::new(Arc::clone(&record) as Arc<dyn Store>, call, Fault::After));
        if let Ok(repository) = open::open(Arc::clone(&fail) as Arc<dyn Store>, Ids::random()).await {
            let _ = backup(&repository, &mut Bytes::new(&bytes)).await;
        }
        backup(&whole, &mut Bytes::new(&bytes)).await.unwrap();
        let mut written: BTreeMap<String, usize> = BTreeMap::new();
        let writes = record.calls();
        let writes = writes
            .iter()
            .filter(|call| matches!(call.kind, Kind::Put | Kind::Create | Kind::Copy));
        for write in writes {
            *written.entry(write.key.clone()).or_default() += 1;
        }
        let twice: Vec<_> = written.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "a lost answer at call {call}: {twice:?}");
        if fail.begun() < call {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_takes_a_condemned_pack_for_gone_as_soon_as_it_is_marked() {
    let memory = memory();
    let repository = init(Arc::clone(&memory) as Arc<dyn Store>).await;
    let bytes = noise(1, 1 << 20);
    let old = data_packs(&backup(&repository, &mut Bytes::new(&bytes)).await.unwrap());
    // As it is: nothing to do.
    assert_eq!(check(&repository, &old.clone().into()).await.unwrap().packs, old);
    // Condemned, and nobody else has its blobs: a copy takes its place.
    condemn(&memory, &old);
    let copied = check(&repository, &old.clone().into()).await.unwrap().packs;
    assert!(copied.is_disjoint(&old) && copied.len() == old.len());
    // Gone, but the copies are there now: they are taken.
    delete(&memory, &old);
    assert_eq!(check(&repository, &old.clone().into()).await.unwrap().packs, copied);
    // Gone without a copy: the caller must send the blobs again.
    delete(&memory, &copied);
    let gone = check(&repository, &copied.clone().into()).await.unwrap_err();
    assert!(matches!(gone, CheckFailed::Gone(packs) if packs.iter().copied().collect::<BTreeSet<_>>() == copied));
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_condemned_at_any_moment_of_a_backup_are_not_relied_on() {
    let bytes = noise(1, 1 << 20);
    // Another machine condemns all that is there right before our n-th call, until n is behind the commit.
    for moment in 0.. {
        let memory = memory();
        let first = backup(&init(memory.clone()).await, &mut Bytes::new(&bytes)).await.unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let (at_store, counted) = (Arc::clone(&memory), Arc::clone(&calls));
        let old = data_packs(&first);
        let theirs = old.clone();
        let looked = Arc::new(AtomicUsize::new(0));
        let last_look = Arc::clone(&looked);
        let repository = over(&memory, move |kind, key| {
            let call = counted.fetch_add(1, Ordering::SeqCst);
            if kind == Kind::List && key == keys::CONDEMNED {
                last_look.store(call, Ordering::SeqCst);
            }
            if call == moment {
                condemn(&at_store, &theirs);
            }
        })
        .await;
        let second = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
        if calls.load(Ordering::SeqCst) <= moment {
            return;
        }
        // Markers that came after the last look at them are younger than its base: there the fence holds.
        let relies_on_them = second.packs.iter().any(|pack| old.contains(pack));
        assert_eq!(
            relies_on_them,
            moment > looked.load(Ordering::SeqCst),
            "condemned before call {moment}"
        );
        assert!(read(&repository, "latest").await.unwrap() == bytes, "call {moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_takes_longer_than_the_window_is_withdrawn_and_made_again() {
    let memory = memory();
    init(memory.clone()).await;
    let (at_store, stalls) = (Arc::clone(&memory), AtomicUsize::new(0));
    let repository = over(&memory, move |kind, key| {
        let stalls = kind == Kind::Put && key.starts_with("snapshots/") && stalls.fetch_add(1, Ordering::SeqCst) == 0;
        if stalls {
            at_store.clock().advance(SignedDuration::from_hours(13));
        }
    })
    .await;
    let bytes = noise(1, 100_000);
    let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let (all, damaged) = snapshots::load_all(&repository).await.unwrap();
    assert!(damaged.is_empty());
    assert_eq!(
        all.iter().map(|one| (one.snapshot.id, one.late)).collect::<Vec<_>>(),
        [(snapshot.id, false)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_took_half_the_window_is_made_again() {
    let memory = memory();
    init(memory.clone()).await;
    let (at_store, lists) = (Arc::clone(&memory), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&lists);
    let repository = over(&memory, move |kind, key| {
        // The first look at the markers is that of the beginning (B1), the second that of the check.
        if kind == Kind::List && key == keys::CONDEMNED && seen.fetch_add(1, Ordering::SeqCst) == 1 {
            at_store.clock().advance(SignedDuration::from_hours(7));
        }
    })
    .await;
    backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    assert_eq!(lists.load(Ordering::SeqCst), 3, "B1, the slow check, and one more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_does_not_count() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let early = backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    memory.clock().advance(SignedDuration::from_hours(1));
    let late = backup(&repository, &mut Bytes::new(&noise(2, 1000))).await.unwrap();
    make_late(&memory, &keys::snapshot(late.time, late.id).unwrap());
    assert_eq!(snapshots::find(&repository, "latest", false).await.unwrap().snapshot.id, early.id);
    assert!(snapshots::find(&repository, &late.id.to_string(), false).await.is_err());
    assert!(snapshots::find(&repository, &late.id.to_string(), true).await.unwrap().late);
    let shown = inspect::snapshots(&repository, &run()).await.unwrap();
    let marks: Vec<(String, bool)> = shown.snapshots.into_iter().map(|line| (line.id, line.late)).collect();
    assert_eq!(marks, [(early.id.to_string(), false), (late.id.to_string(), true)]);
    // When there is nothing else, the error says which and how.
    make_late(&memory, &keys::snapshot(early.time, early.id).unwrap());
    let error = snapshots::find(&repository, "latest", false).await.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains(&late.id.to_string()) && hint.contains("--late"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_is_restored_only_when_asked_for_and_only_whole() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let late = backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    make_late(&memory, &keys::snapshot(late.time, late.id).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut options = restore::Options {
        to: Some(folder.path().join("there")),
        parts: [Part::Config].into(),
        databases: vec![("synapse".into(), DatabaseTarget::Skip)],
        ..restore_options()
    };
    assert!(restore::restore(&repository, "latest", &options, &run()).await.is_err());
    options.late = true;
    restore::restore(&repository, "latest", &options, &run()).await.unwrap();
    delete(&memory, &data_packs(&late));
    let error = restore::restore(&repository, "latest", &options, &run()).await.unwrap_err();
    assert!(error.to_string().contains("late and no longer whole"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_vanishes_under_a_reader_is_found_in_its_other_place() {
    let memory = memory();
    let whole = init(memory.clone()).await;
    let bytes = noise(1, 1 << 20);
    let old = data_packs(&backup(&whole, &mut Bytes::new(&bytes)).await.unwrap());
    let (at_store, done) = (Arc::clone(&memory), AtomicUsize::new(0));
    // Before our first read of a pack another machine has copied it, written a segment for the copy, and swept the old one.
    let theirs = old.clone();
    let repository = over(&memory, move |kind, key| {
        if kind == Kind::Get && key.starts_with("packs/") && done.fetch_add(1, Ordering::SeqCst) == 0 {
            let (at_store, theirs) = (Arc::clone(&at_store), theirs.clone());
            std::thread::spawn(move || sweep(&at_store, &theirs)).join().unwrap();
        }
    })
    .await;
    assert!(read(&repository, "latest").await.unwrap() == bytes);
    assert!(
        verify(&whole)
            .await
            .problems
            .iter()
            .all(|problem| problem.message.starts_with("it is gone"))
    );
}

/// Condemn packs, let a check make copies of them, and delete them.
fn sweep(memory: &Arc<Memory>, packs: &BTreeSet<PackId>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let repository = open::open(Arc::clone(memory) as Arc<dyn Store>, Ids::random()).await.unwrap();
        condemn(memory, packs);
        check(&repository, &packs.clone().into()).await.unwrap();
        for pack in packs {
            memory.delete(&keys::pack(*pack)).await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_that_is_written_again_counts_under_its_own_id() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let late = backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    let key = keys::snapshot(late.time, late.id).unwrap();
    make_late(&memory, &key);
    let object = memory.objects()[&key].clone();
    let packs: BTreeSet<PackId> = late.packs.iter().copied().collect();
    let again = commit_again(&repository, &packs.clone().into(), &object).await.unwrap();
    assert_ne!(again, key, "G1");
    assert_eq!(snapshots::list(&repository).await.unwrap().len(), 2);
    let found = snapshots::find(&repository, "latest", false).await.unwrap();
    assert_eq!((found.snapshot, found.key.key), (late.clone(), again));
    assert!(!snapshots::find(&repository, &late.id.to_string()[..8], false).await.unwrap().late);
    let shown = inspect::snapshots(&repository, &run()).await.unwrap();
    assert_eq!(shown.snapshots.iter().map(|line| line.late).collect::<Vec<_>>(), [false]);
    delete(&memory, &packs);
    assert!(matches!(
        commit_again(&repository, &packs.clone().into(), &object).await,
        Err(CheckFailed::Gone(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_moved_is_found_although_the_index_does_not_fit_into_memory() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let bytes = noise(1, 6 << 20);
    let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let packs: BTreeSet<PackId> = snapshot.packs.iter().copied().collect();
    let swept = Arc::clone(&memory);
    std::thread::spawn(move || sweep(&swept, &packs)).join().unwrap();
    let list = &snapshot.databases[0].streams[0].list;
    let reader = Reader::open(&repository, 4_096, 4).await.unwrap();
    assert!(reader.catalog().truncated);
    assert!(reader.read_small(list, u64::MAX).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_hides_nothing_that_the_index_places() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let bytes = noise(1, 6 << 20);
    let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    for pack in data_packs(&snapshot) {
        let mut body = memory.objects()[&keys::pack(pack)].to_vec();
        let last = body.len() - 1;
        body[last] ^= 1;
        memory.damage(&keys::pack(pack), body.into());
    }
    let reader = Reader::open(&repository, 4_096, 4).await.unwrap();
    assert!(reader.catalog().truncated);
    let list = &snapshot.databases[0].streams[0].list;
    assert!(reader.read_small(list, u64::MAX).await.unwrap() == bytes);
    assert!(
        data_packs(&snapshot).is_subset(&reader.damaged_packs()),
        "nothing new relies on them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_goes_before_it_is_copied_is_gone() {
    let memory = memory();
    let whole = init(memory.clone()).await;
    let old = data_packs(&backup(&whole, &mut Bytes::new(&noise(1, 1 << 20))).await.unwrap());
    condemn(&memory, &old);
    let (at_store, theirs) = (Arc::clone(&memory), old.clone());
    let repository = over(&memory, move |kind, _| {
        if kind == Kind::Copy {
            delete(&at_store, &theirs);
        }
    })
    .await;
    let gone = check(&repository, &old.clone().into()).await.unwrap_err();
    assert!(matches!(gone, CheckFailed::Gone(packs) if packs.iter().copied().collect::<BTreeSet<_>>() == old));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_for_want_of_an_answer_leaves_no_snapshot() {
    for call in 1.. {
        let memory = memory();
        let fail = Arc::new(Fail::new(memory.clone(), call, Fault::Before).only(&[Kind::Head]));
        let whole = init(memory.clone()).await;
        let repository = open::open(Arc::clone(&fail) as Arc<dyn Store>, Ids::random()).await.unwrap();
        let taken = backup(&repository, &mut Bytes::new(&noise(1, 1000))).await;
        let there = snapshots::list(&whole).await.unwrap().len();
        assert_eq!(there, usize::from(taken.is_ok()), "HEAD {call}");
        if fail.begun() < call {
            return;
        }
    }
}
