//! Pruning: what is dead goes, in its order and not before its time; what is live stays, whatever call a prune died in.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::index::{Segment, SegmentEntry, SegmentPack};
use synapse_backup::format::pack::BlobEntry;
use synapse_backup::format::snapshot::{ProblemKind, Snapshot};
use synapse_backup::format::{BlobId, PackKind, keys};
use synapse_backup::ops;
use synapse_backup::repo::sweep::{
    self, Applied, ApplyOptions, CompactOptions, Compacted, Plan, PlanOptions, Refused, StaleUpload, Survey, SurveyOptions, Why,
};
use synapse_backup::repo::writer::put_segment;
use synapse_backup::repo::{Ids, Repository, open, snapshots};
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::{Fail, Fault, Record};
use synapse_backup::store::{self, Store, local};
use tokio_util::sync::CancellationToken;

use crate::rig::{Bytes, Keys, backup, init, init_sealed, memory, noise, read, run, verify};

fn survey_options() -> SurveyOptions {
    SurveyOptions {
        memory_bytes: 64 << 20,
        connections: 4,
        spool_folder: "/var/tmp".into(),
        can_open_data: true,
        forgotten: BTreeSet::new(),
        reseal: None,
        known: Arc::default(),
        frames: false,
    }
}

fn apply_options() -> ApplyOptions {
    ApplyOptions {
        memory_bytes: 64 << 20,
        connections: 4,
        cancel: CancellationToken::new(),
    }
}

async fn look(repository: &Repository) -> (Survey, Result<Plan, Refused>) {
    let survey = sweep::survey(repository, &survey_options()).await.unwrap();
    let plan = sweep::plan(&survey, &PlanOptions::default());
    (survey, plan)
}

async fn compact(repository: &Repository) -> Compacted {
    let options = CompactOptions {
        memory_bytes: 64 << 20,
        spool_folder: "/var/tmp".into(),
        segments_min: 8,
        shrink: BTreeSet::new(),
    };
    sweep::compact(repository, &options).await.unwrap()
}

/// One whole prune.
async fn prune(repository: &Repository) -> (Plan, Applied) {
    let (survey, plan) = look(repository).await;
    let plan = plan.unwrap();
    let applied = sweep::apply(repository, &plan, &survey, &apply_options()).await.unwrap();
    (plan, applied)
}

fn days(memory: &Memory, days: i64) {
    memory.clock().advance(SignedDuration::from_hours(24 * days));
}

async fn forget(repository: &Repository, snapshot: &Snapshot) {
    for key in snapshots::list(repository).await.unwrap() {
        if key.id == snapshot.id {
            repository.store().delete(&key.key).await.unwrap();
        }
    }
}

fn bytes_under(memory: &Memory, prefix: &str) -> usize {
    let objects = memory.objects();
    let under = objects.iter().filter(|(key, _)| key.starts_with(prefix));
    under.map(|(_, body)| body.len()).sum()
}

fn count_under(memory: &Memory, prefix: &str) -> usize {
    memory.objects().keys().filter(|key| key.starts_with(prefix)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_forgotten_snapshots_need_is_marked_and_goes_after_the_grace_period() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let first = backup(&repository, &mut Bytes::new(&noise(1, 3 << 20))).await.unwrap();
    days(&memory, 2);
    let kept = noise(2, 2 << 20);
    let second = backup(&repository, &mut Bytes::new(&kept)).await.unwrap();
    forget(&repository, &first).await;
    let before = bytes_under(&memory, "packs/");
    // Too young to judge: nothing is marked.
    let (plan, _) = prune(&repository).await;
    let dead: BTreeSet<_> = plan.condemn.iter().map(|pack| pack.id).collect();
    assert_eq!(dead, first.packs.iter().copied().collect::<BTreeSet<_>>());
    assert!(plan.condemn.iter().all(|pack| pack.why == Why::Dead) && plan.delete.is_empty() && plan.repack.is_empty());
    assert_eq!(bytes_under(&memory, "packs/"), before);
    assert_eq!(plan.bytes_after_grace, (before - second_bytes(&memory, &second)) as u64);
    // Marked, and not yet old enough.
    memory.clock().advance(SignedDuration::from_hours(24));
    assert!(prune(&repository).await.0.is_empty());
    memory.clock().advance(SignedDuration::from_secs(1));
    let (plan, applied) = prune(&repository).await;
    assert_eq!((plan.delete.len(), applied.deleted), (dead.len(), dead.len() as u64));
    assert_eq!(bytes_under(&memory, "packs/"), second_bytes(&memory, &second));
    assert_eq!(count_under(&memory, "condemned/"), 0);
    assert_eq!(verify(&repository).await.problems, []);
    assert!(read(&repository, "latest").await.unwrap() == kept);
}

fn second_bytes(memory: &Memory, snapshot: &Snapshot) -> usize {
    let objects = memory.objects();
    snapshot.packs.iter().map(|pack| objects[&keys::pack(*pack)].len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_are_mostly_dead_are_moved_and_nothing_live_is_lost() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let common = noise(7, 2 << 20);
    let old = [noise(1, 5 << 20), common.clone()].concat();
    let first = backup(&repository, &mut Bytes::new(&old)).await.unwrap();
    let kept = [noise(3, 1 << 20), common].concat();
    backup(&repository, &mut Bytes::new(&kept)).await.unwrap();
    forget(&repository, &first).await;
    days(&memory, 2);
    let (plan, applied) = prune(&repository).await;
    assert!(plan.repack.iter().any(|pack| pack.why == Why::MostlyDead), "{plan:?}");
    assert_eq!(applied.repacked, plan.repack.len() as u64);
    assert_eq!(verify(&repository).await.problems, []);
    days(&memory, 2);
    let (plan, _) = prune(&repository).await;
    assert!(!plan.delete.is_empty());
    assert_eq!(verify(&repository).await.problems, []);
    assert!(read(&repository, "latest").await.unwrap() == kept);
    let stored = bytes_under(&memory, "packs/");
    assert!(stored < kept.len() * 6 / 5, "{stored} bytes for {}", kept.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_stops_when_a_snapshot_needs_what_is_not_there() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let first = backup(&repository, &mut Bytes::new(&noise(1, 1 << 20))).await.unwrap();
    let second = backup(&repository, &mut Bytes::new(&noise(2, 1 << 20))).await.unwrap();
    let pack = second.databases[0].streams[0].list.entries[0].pack;
    memory.delete(&keys::pack(pack)).await.unwrap();
    days(&memory, 2);
    let (_, plan) = look(&repository).await;
    match plan.unwrap_err() {
        Refused::Missing(missing) => assert_eq!(missing.snapshots, [second.id]),
        other => panic!("{other}"),
    }
    forget(&repository, &second).await;
    prune(&repository).await;
    assert!(verify(&repository).await.problems.is_empty());
    assert!(read(&repository, &first.id.to_string()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_stops_when_the_times_of_the_store_cannot_be_believed() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    memory.clock().advance(SignedDuration::from_mins(-61));
    assert!(matches!(look(&repository).await.1, Err(Refused::Ahead { .. })));
    memory.clock().advance(SignedDuration::from_mins(1));
    assert!(look(&repository).await.1.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_is_in_the_order_of_the_protocol() {
    let record = Arc::new(Record::new(memory()));
    let repository = init(Arc::clone(&record) as Arc<dyn Store>).await;
    backup(&repository, &mut Bytes::new(&noise(1, 1 << 20))).await.unwrap();
    let before = record.calls().len();
    look(&repository).await.1.unwrap();
    let calls = record.calls().split_off(before);
    let begun = |kind: Kind, prefix: &str| {
        calls
            .iter()
            .position(|call| call.kind == kind && call.key.starts_with(prefix))
            .unwrap()
    };
    let order = [
        begun(Kind::Head, keys::REPOSITORY),
        begun(Kind::List, keys::CONDEMNED),
        begun(Kind::List, keys::SNAPSHOTS),
        begun(Kind::Get, keys::SNAPSHOTS),
        begun(Kind::List, keys::INDEX),
        begun(Kind::Get, keys::INDEX),
        begun(Kind::List, keys::PACKS),
    ];
    assert!(order.is_sorted(), "{order:?}: {calls:?}");
}

/// A prune that fails at each call in turn, at a moment when it has everything to do: what is listed stays whole, and
/// the prunes after it take away the same as if nothing had happened.
async fn at_every_call(fault: Fault) {
    for call in 1.. {
        let memory = memory();
        let whole = init(memory.clone()).await;
        let common = noise(7, 1_600_000);
        let gone = backup(&whole, &mut Bytes::new(&noise(1, 300_000))).await.unwrap();
        days(&memory, 2);
        forget(&whole, &gone).await;
        prune(&whole).await;
        days(&memory, 2);
        let old = backup(&whole, &mut Bytes::new(&[noise(2, 1_600_000), common.clone()].concat()))
            .await
            .unwrap();
        let kept = [noise(3, 300_000), common].concat();
        backup(&whole, &mut Bytes::new(&kept)).await.unwrap();
        forget(&whole, &old).await;
        days(&memory, 2);
        let fail = Arc::new(Fail::new(memory.clone(), call, fault));
        if let Ok(repository) = open::open(Arc::clone(&fail) as Arc<dyn Store>, Ids::random()).await
            && let Ok(survey) = sweep::survey(&repository, &survey_options()).await
            && let Ok(plan) = sweep::plan(&survey, &PlanOptions::default())
        {
            let _ = sweep::apply(&repository, &plan, &survey, &apply_options()).await;
        }
        assert_eq!(verify(&whole).await.problems, [], "{fault:?} at call {call}");
        for _ in 0..4 {
            days(&memory, 2);
            prune(&whole).await;
            assert_eq!(verify(&whole).await.problems, [], "{fault:?} at call {call}");
        }
        assert!(read(&whole, "latest").await.unwrap() == kept);
        assert_eq!(count_under(&memory, "condemned/"), 0, "{fault:?} at call {call}");
        let stored = bytes_under(&memory, "packs/");
        assert!(
            stored < kept.len() * 6 / 5,
            "{fault:?} at call {call}: {stored} bytes for {}",
            kept.len()
        );
        if fail.begun() < call {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_whose_call_never_arrives_can_be_carried_on_by_the_next() {
    at_every_call(Fault::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_whose_answer_is_lost_can_be_carried_on_by_the_next() {
    at_every_call(Fault::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_cut_off_can_be_carried_on_by_the_next() {
    at_every_call(Fault::BeforeAndEver).await;
    at_every_call(Fault::AfterAndEver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nights_leave_few_packs_and_segments_and_little_that_is_dead() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let mut bytes = noise(1, 4 << 20);
    let mut nights: Vec<Snapshot> = Vec::new();
    let mut requests = Vec::new();
    for night in 0..40_usize {
        // Some rows change, some come.
        let place = (night * 97_001) % (bytes.len() - 60_000);
        bytes.splice(place..place + 40_000, noise(100 + night as u64, 50_000));
        nights.push(backup(&repository, &mut Bytes::new(&bytes)).await.unwrap());
        if nights.len() > 5 {
            forget(&repository, &nights.remove(0)).await;
        }
        let (plan, _) = prune(&repository).await;
        compact(&repository).await;
        requests.push(plan.requests);
        days(&memory, 1);
        memory.clock().advance(SignedDuration::from_mins(1));
        if night % 10 == 9 {
            assert_eq!(verify(&repository).await.problems, [], "night {night}");
        }
    }
    for _ in 0..2 {
        days(&memory, 2);
        prune(&repository).await;
    }
    let needed = {
        let other = crate::rig::memory();
        let fresh = init(other.clone()).await;
        for snapshot in &nights {
            let kept = read(&repository, &snapshot.id.to_string()).await.unwrap();
            backup(&fresh, &mut Bytes::new(&kept)).await.unwrap();
        }
        bytes_under(&other, "packs/")
    };
    let stored = bytes_under(&memory, "packs/");
    assert!(stored < needed * 6 / 5, "{stored} bytes, {needed} are needed");
    assert!(count_under(&memory, "packs/") < 60, "{} packs", count_under(&memory, "packs/"));
    assert!(count_under(&memory, "index/") < 14, "{} segments", count_under(&memory, "index/"));
    assert!(requests.iter().skip(20).all(|count| *count < 200), "{requests:?}");
    assert!(read(&repository, "latest").await.unwrap() == bytes);
}

/// A large segment of a run that has ended: so many packs of some hundred blobs, which are names only. The first `gone` packs are
/// not there.
async fn large_segment(repository: &Repository, packs: u32, gone: u32) {
    const BLOBS_OF_A_PACK: u32 = 500;
    let mut segment = Segment {
        run: repository.ids().object(),
        packs: Vec::new(),
        entries: Vec::new(),
    };
    for number in 0..packs {
        let id = repository.ids().pack();
        if number >= gone {
            repository.store().put(&keys::pack(id), vec![0; 64].into()).await.unwrap();
        }
        segment.packs.push(SegmentPack {
            id,
            kind: PackKind::Database,
            bytes: 64,
        });
        segment.entries.extend((0..BLOBS_OF_A_PACK).map(|blob| SegmentEntry {
            pack: number,
            blob: BlobEntry {
                id: BlobId::of(&[number.to_le_bytes(), blob.to_le_bytes()].concat()),
                frame_offset: 0,
                frame_length: 60,
                offset_in_frame: blob * 4_000,
                raw_length: 4_000,
            },
        }));
    }
    put_segment(repository, segment).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_segment_shrinks_when_a_quarter_of_its_lines_is_dead() {
    let prune = async |repository: &Repository| {
        let options = ops::prune::Options {
            dry_run: false,
            keep: ops::retention::Keep::everything(),
            yes_really: false,
            repack_bytes_max: None,
            storage_min: None,
            versions: None,
            spool_folder: "/var/tmp".into(),
            // A fifth of the lines fits.
            limits: ops::Limits {
                memory_bytes: 56 << 20,
                ..crate::rig::LIMITS
            },
        };
        ops::prune::prune(repository, &options, &run()).await.unwrap().compacted.unwrap()
    };
    for (gone, shrinks) in [(0, false), (36, false), (54, true), (180, true)] {
        let memory = memory();
        let repository = init(memory.clone()).await;
        large_segment(&repository, 180, gone).await;
        let before = memory.objects();
        let compacted = prune(&repository).await;
        assert_eq!(compacted, Compacted::default(), "its run may be at work");
        days(&memory, 2);
        let compacted = prune(&repository).await;
        let after = synapse_backup::repo::catalog::load(&repository, 64 << 20).await.unwrap();
        if !shrinks {
            assert_eq!(compacted, Compacted::default(), "{gone} packs are gone");
            assert!(
                before
                    .keys()
                    .filter(|key| key.starts_with("index/"))
                    .all(|key| memory.objects().contains_key(key))
            );
            continue;
        }
        let lines = u64::from(180 - gone) * 500;
        assert_eq!((compacted.merged, compacted.lines), (1, lines), "{gone} packs are gone");
        assert_eq!((after.len() as u64, after.packs().len()), (lines, 180 - gone as usize));
        assert!(after.packs().iter().all(|pack| pack.present_bytes.is_some()));
        assert_eq!(prune(&repository).await, Compacted::default(), "there is nothing left to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_writes_before_it_deletes_and_loses_no_line() {
    let record = Arc::new(Record::new(memory()));
    let memory = memory();
    let repository = init(memory.clone()).await;
    for night in 0..10 {
        backup(&repository, &mut Bytes::new(&noise(night, 200_000))).await.unwrap();
        days(&memory, 1);
    }
    drop(record);
    let record = Arc::new(Record::new(memory.clone() as Arc<dyn Store>));
    let recorded = open::open(Arc::clone(&record) as Arc<dyn Store>, Ids::random()).await.unwrap();
    let before = synapse_backup::repo::catalog::load(&repository, 64 << 20).await.unwrap();
    days(&memory, 2);
    let compacted = compact(&recorded).await;
    assert_eq!((compacted.merged, compacted.written), (before.segments as u64, 1));
    let after = synapse_backup::repo::catalog::load(&repository, 64 << 20).await.unwrap();
    let lines = |catalog: &synapse_backup::repo::catalog::Catalog| -> BTreeSet<_> {
        let of = |entry: &synapse_backup::format::index::SegmentEntry| (catalog.packs()[entry.pack as usize].id, entry.blob);
        catalog.entries().iter().map(of).collect()
    };
    assert_eq!(lines(&before), lines(&after));
    let calls = record.calls();
    let at = |kind: Kind, prefix: &str, last: bool| {
        let is = |call: &synapse_backup::store::wrappers::Recorded| call.kind == kind && call.key.starts_with(prefix);
        if last {
            calls.iter().rposition(is)
        } else {
            calls.iter().position(is)
        }
        .unwrap()
    };
    assert!(at(Kind::Get, "index/", true) < at(Kind::List, "packs/", false));
    assert!(at(Kind::List, "packs/", true) < at(Kind::Put, "index/", false));
    assert!(at(Kind::Put, "index/", true) < at(Kind::Delete, "index/", false));
    assert_eq!(verify(&repository).await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_told_of_and_left_alone() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let snapshot = backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    let theirs = [
        "packs/00/readme.txt",
        "notes.txt",
        "tags/hello",
        "condemned/x",
        "probe/notes",
        "index/readme",
    ];
    let gone = "ab".repeat(16);
    let removed = [
        format!("probe/{gone}"),
        format!("tags/{gone}-{gone}"),
        format!("drills/{gone}-{gone}"),
    ];
    let kept = format!("tags/{}-{gone}", snapshot.id);
    for key in theirs.into_iter().chain(removed.iter().map(String::as_str)).chain([kept.as_str()]) {
        put(&memory, key).await;
    }
    assert!(prune(&repository).await.0.leftovers.is_empty(), "they are young");
    days(&memory, 2);
    let (plan, _) = prune(&repository).await;
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert_eq!(sorted(plan.foreign), sorted(theirs.map(str::to_owned).to_vec()));
    assert_eq!(sorted(plan.leftovers), sorted(removed.to_vec()));
    let left = memory.objects();
    assert!(theirs.iter().all(|key| left.contains_key(*key)) && left.contains_key(&kept));
    assert!(removed.iter().all(|key| !left.contains_key(key)));
}

async fn put(memory: &Memory, key: &str) -> store::Stamp {
    memory.put(key, bytes::Bytes::from_static(b"x")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_was_sending_is_given_up_after_the_grace_period() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let key = keys::pack(repository.ids().pack());
    memory.create_upload(&key).await.unwrap();
    assert!(prune(&repository).await.0.abort.is_empty(), "it may still be at work");
    days(&memory, 2);
    let theirs = memory.create_upload(&keys::pack(repository.ids().pack())).await.unwrap();
    let (plan, applied) = prune(&repository).await;
    assert_eq!((plan.abort.len(), applied.aborted), (1, 1));
    assert_eq!((plan.abort[0].key.as_str(), memory.open_uploads()), (key.as_str(), 1));
    assert_ne!(plan.abort[0].id, theirs.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_repository_gives_up_the_uploads_of_killed_runs_too() {
    let memory = memory();
    let repository = init_sealed(memory.clone(), &Keys::new(1)).await;
    let key = keys::pack(repository.ids().pack());
    repository.store().create_upload(&key).await.unwrap();
    days(&memory, 2);
    let (plan, applied) = prune(&repository).await;
    assert_eq!((plan.abort[0].key.as_str(), applied.aborted), (key.as_str(), 1));
    assert_eq!(memory.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_gives_up_what_a_killed_run_left_in_it() {
    for sealed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = local::open(folder.path(), true, Arc::default()).await.unwrap();
        let repository = if sealed {
            init_sealed(store, &Keys::new(1)).await
        } else {
            init(store).await
        };
        let left = folder.path().join(".unfinished/0123456789abcdef0123456789abcdef");
        std::fs::write(&left, "half").unwrap();
        let (survey, plan) = look(&repository).await;
        // A ctime cannot be set back: it is taken for old here.
        let open = repository.store().uploads().unwrap().list_uploads(keys::PACKS).await.unwrap();
        let plan = Plan {
            abort: open.iter().map(StaleUpload::from).collect(),
            ..plan.unwrap()
        };
        let applied = sweep::apply(&repository, &plan, &survey, &apply_options()).await.unwrap();
        assert_eq!((applied.aborted, applied.not_aborted), (1, Vec::new()), "sealed: {sealed}");
        assert!(!left.exists(), "sealed: {sealed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_store_does_not_give_up_is_told_of_and_stops_nothing() {
    let memory = memory();
    let fail = Arc::new(Fail::new(memory.clone(), 1, Fault::Before).only(&[Kind::Abort]));
    let repository = init(fail).await;
    let gone = backup(&repository, &mut Bytes::new(&noise(1, 300_000))).await.unwrap();
    let key = keys::pack(repository.ids().pack());
    memory.create_upload(&key).await.unwrap();
    days(&memory, 2);
    forget(&repository, &gone).await;
    let report = ops::prune::prune(&repository, &prune_options(), &run()).await.unwrap();
    assert!(report.plan.condemn.len() == gone.packs.len() && report.compacted.is_some());
    assert_eq!(count_under(&memory, "condemned/"), gone.packs.len());
    let problem = &report.problems[0];
    assert_eq!((problem.item.as_str(), problem.kind), (key.as_str(), ProblemKind::Deferred));
    assert!(problem.message.contains("the connection broke"), "{}", problem.message);
    let again = ops::prune::prune(&repository, &prune_options(), &run()).await.unwrap();
    assert_eq!((again.problems, memory.open_uploads()), (Vec::new(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_gives_up_no_upload_is_not_asked_for_all() {
    let memory = memory();
    let fail = Arc::new(Fail::new(memory.clone(), 2, Fault::Before).calls(3).only(&[Kind::Abort]));
    let repository = init(Arc::clone(&fail) as Arc<dyn Store>).await;
    for _ in 0..6 {
        memory.create_upload(&keys::pack(repository.ids().pack())).await.unwrap();
    }
    days(&memory, 2);
    let report = ops::prune::prune(&repository, &prune_options(), &run()).await.unwrap();
    assert_eq!((fail.begun(), memory.open_uploads()), (4, 5));
    let messages: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(
        messages.len() == 3 && messages[2].contains("2 others were not asked for"),
        "{messages:?}"
    );
}

/// Everything stays by policy.
pub(crate) fn prune_options() -> ops::prune::Options {
    ops::prune::Options {
        dry_run: false,
        keep: ops::retention::Keep::everything(),
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: "/var/tmp".into(),
        limits: crate::rig::LIMITS,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_keeps_its_blobs_and_stops_nothing() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let late = backup(&repository, &mut Bytes::new(&noise(1, 1 << 20))).await.unwrap();
    let key = keys::snapshot(late.time, late.id).unwrap();
    let object = memory.objects()[&key].clone();
    memory.clock().advance(SignedDuration::from_hours(13));
    memory.put(&key, object).await.unwrap();
    days(&memory, 2);
    assert!(prune(&repository).await.0.is_empty());
    // What it needs may be gone, since it does not count.
    let pack = late.databases[0].streams[0].list.entries[0].pack;
    memory.delete(&keys::pack(pack)).await.unwrap();
    assert!(look(&repository).await.1.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_mostly_dead_data_packs_are_marked_and_no_frame_is_read() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let common = noise(7, 2 << 20);
    let first = backup(&repository, &mut Bytes::new(&[noise(1, 5 << 20), common.clone()].concat()))
        .await
        .unwrap();
    let kept = [noise(3, 1 << 20), common].concat();
    backup(&repository, &mut Bytes::new(&kept)).await.unwrap();
    forget(&repository, &first).await;
    days(&memory, 2);
    let options = SurveyOptions {
        can_open_data: false,
        ..survey_options()
    };
    let survey = sweep::survey(&repository, &options).await.unwrap();
    let plan = sweep::plan(&survey, &PlanOptions::default()).unwrap();
    assert!(plan.condemn.iter().any(|pack| pack.why == Why::MostlyDead), "{plan:?}");
    assert!(plan.repack.is_empty());
    sweep::apply(&repository, &plan, &survey, &apply_options()).await.unwrap();
    // It stays for as long as something in it is nowhere else; the next backup sends that again.
    let marked = count_under(&memory, "condemned/");
    days(&memory, 2);
    let again = sweep::survey(&repository, &options).await.unwrap();
    assert!(sweep::plan(&again, &PlanOptions::default()).unwrap().delete.len() < marked);
    backup(&repository, &mut Bytes::new(&kept)).await.unwrap();
    let again = sweep::survey(&repository, &options).await.unwrap();
    assert_eq!(sweep::plan(&again, &PlanOptions::default()).unwrap().delete.len(), marked);
    assert!(read(&repository, "latest").await.unwrap() == kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_in_which_a_live_blob_is_damaged_is_not_given_up() {
    let (plain, sealed) = (memory(), memory());
    not_given_up(&plain, &init(plain.clone()).await).await;
    not_given_up(&sealed, &init_sealed(sealed.clone(), &Keys::new(1)).await).await;
}

async fn not_given_up(memory: &Memory, repository: &Repository) {
    let common = noise(7, 2_400_000);
    let first = backup(repository, &mut Bytes::new(&[common.clone(), noise(1, 6 << 20)].concat()))
        .await
        .unwrap();
    backup(repository, &mut Bytes::new(&[common, noise(3, 1 << 20)].concat()))
        .await
        .unwrap();
    forget(repository, &first).await;
    days(memory, 2);
    let live = first.databases[0].streams[0].list.entries[0];
    let pack = live.pack;
    let table = synapse_backup::repo::reader::read_table(repository, pack).await.unwrap();
    let place = table.entries.iter().find(|entry| entry.id == live.id).unwrap();
    let key = memory.objects().into_keys().find(|key| key.starts_with(&keys::pack(pack))).unwrap();
    let mut body = memory.objects()[&key].to_vec();
    body[(place.frame_offset + place.frame_length / 2) as usize] ^= 1;
    memory.damage(&key, body.into());
    let (plan, applied) = prune(repository).await;
    assert!(plan.repack.iter().any(|moved| moved.id == pack));
    assert_eq!((applied.damaged, applied.not_opened), (vec![pack], Vec::new()));
    assert!(!memory.objects().contains_key(&keys::condemned(pack)));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_segment_is_damaged_nothing_is_marked_or_deleted() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let gone = backup(&repository, &mut Bytes::new(&noise(1, 1 << 20))).await.unwrap();
    days(&memory, 2);
    forget(&repository, &gone).await;
    put(&memory, &keys::segment(repository.ids().object())).await;
    let report = ops::prune::prune(&repository, &prune_options(), &run()).await.unwrap();
    assert!(report.plan.condemn.is_empty() && report.plan.repack.is_empty(), "{:?}", report.plan);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].item.starts_with(keys::INDEX) && report.problems[0].message.contains("--repair-index"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_refuses_has_forgotten_nothing() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    backup(&repository, &mut Bytes::new(&noise(1, 1 << 20))).await.unwrap();
    days(&memory, 2);
    let kept = backup(&repository, &mut Bytes::new(&noise(2, 1 << 20))).await.unwrap();
    memory
        .delete(&keys::pack(kept.databases[0].streams[0].list.entries[0].pack))
        .await
        .unwrap();
    let options = ops::prune::Options {
        keep: ops::retention::Keep {
            last: Some(1),
            ..ops::retention::Keep::everything()
        },
        yes_really: true,
        ..prune_options()
    };
    let before = memory.objects();
    let refused = ops::prune::prune(&repository, &options, &run()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("in no pack that is there"), "{refused:#}");
    assert!(memory.objects() == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_pack_of_which_half_is_elsewhere_is_moved_as_a_whole() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let common = noise(7, 14 << 20);
    let bytes = [common.clone(), noise(1, 6 << 20)].concat();
    let first = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    // As if nothing were known of the first one.
    let again = [common, noise(3, 14 << 20)].concat();
    crate::rig::backup_with(&repository, &mut Bytes::new(&again), 0, None)
        .await
        .unwrap();
    days(&memory, 2);
    let (plan, applied) = prune(&repository).await;
    let moved = plan.repack.iter().find(|pack| first.packs.contains(&pack.id)).unwrap();
    assert!(
        moved.live_blobs > 0 && applied.repacked == plan.repack.len() as u64,
        "{plan:?} {applied:?}"
    );
    for _ in 0..2 {
        days(&memory, 2);
        prune(&repository).await;
        assert_eq!(verify(&repository).await.problems, []);
    }
    assert!(!memory.objects().contains_key(&keys::pack(moved.id)));
    assert!(read(&repository, &first.id.to_string()).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_moved_than_was_allowed() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let common = noise(7, 2 << 20);
    let first = backup(&repository, &mut Bytes::new(&[noise(1, 5 << 20), common.clone()].concat()))
        .await
        .unwrap();
    backup(&repository, &mut Bytes::new(&[noise(3, 1 << 20), common].concat()))
        .await
        .unwrap();
    forget(&repository, &first).await;
    days(&memory, 2);
    let survey = sweep::survey(&repository, &survey_options()).await.unwrap();
    for (limit, moved) in [(None, true), (Some(1 << 21), true), (Some(100), false)] {
        let options = PlanOptions {
            repack_bytes_max: limit,
            storage_min: None,
        };
        let plan = sweep::plan(&survey, &options).unwrap();
        assert_eq!(plan.bytes_moved > 100, moved, "{limit:?}");
        assert!(limit.is_none_or(|limit| plan.bytes_moved <= limit), "{limit:?}");
    }
    // Where a store charges for ninety days, nothing younger is moved.
    let options = PlanOptions {
        repack_bytes_max: None,
        storage_min: Some(SignedDuration::from_hours(24 * 90)),
    };
    assert!(sweep::plan(&survey, &options).unwrap().repack.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_the_plan_that_is_applied() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let common = noise(7, 1 << 20);
    for (seed, common) in [(1, common.clone()), (3, common)] {
        backup(&repository, &mut Bytes::new(&[noise(seed, 5 << 20), common].concat()))
            .await
            .unwrap();
        days(&memory, 2);
    }
    let options = |dry_run| ops::prune::Options {
        dry_run,
        keep: ops::retention::Keep {
            last: Some(1),
            ..ops::retention::Keep::everything()
        },
        ..prune_options()
    };
    let objects = memory.objects();
    let dry = ops::prune::prune(&repository, &options(true), &run()).await.unwrap();
    assert!(memory.objects() == objects && dry.applied.is_none() && !dry.plan.is_empty());
    let done = ops::prune::prune(&repository, &options(false), &run()).await.unwrap();
    assert_eq!((&dry.plan, &dry.snapshots), (&done.plan, &done.snapshots));
    assert_eq!(done.snapshots.iter().map(|one| one.forgotten).collect::<Vec<_>>(), [true, false]);
    assert_eq!(count_under(&memory, "snapshots/"), 1);
    assert_eq!(verify(&repository).await.problems, []);
    let applied = done.applied.unwrap();
    assert_eq!(applied.repacked, done.plan.repack.len() as u64);
    assert_eq!(applied.condemned, (done.plan.repack.len() + done.plan.condemn.len()) as u64);
}
