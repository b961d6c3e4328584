//! What happens to snapshots after they were taken: forgotten by hand, tagged, and adopted where they were mirrored.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use jiff::SignedDuration;
use synapse_backup::format::index::{decode_segment, encode_segment};
use synapse_backup::format::snapshot::{self, Snapshot};
use synapse_backup::format::{PackId, keys};
use synapse_backup::ops::inspect::{self, SnapshotLine};
use synapse_backup::ops::{self, Limits, adopt, copy, forget, hint_of, prune, retention, stats, tag};
use synapse_backup::repo::{Ids, Repository, catalog, open, snapshots};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;

use crate::hook::Hook;
use crate::rig::{Bytes, LIMITS, adopting, backup, init, init_with_small_blobs, memory, noise, read, run, verify};

/// A repository with a snapshot for each seed, an hour apart.
async fn with_nights(seeds: &[u64]) -> (Arc<Memory>, Repository, Vec<Snapshot>) {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let mut taken = Vec::new();
    for seed in seeds {
        taken.push(backup(&repository, &mut Bytes::new(&noise(*seed, 50_000))).await.unwrap());
        memory.clock().advance(SignedDuration::from_hours(1));
    }
    (memory, repository, taken)
}

async fn shown(repository: &Repository) -> Vec<SnapshotLine> {
    inspect::snapshots(repository, &run()).await.unwrap().snapshots
}

async fn ids(repository: &Repository) -> Vec<(String, bool)> {
    shown(repository).await.into_iter().map(|line| (line.id, line.late)).collect()
}

/// The same objects in another store, where all of them landed much later.
fn mirror(memory: &Memory) -> Arc<Memory> {
    let other = crate::rig::memory();
    other.clock().advance(SignedDuration::from_hours(24 * 30));
    for (key, bytes) in memory.objects() {
        other.put(&key, bytes).now_or_never().unwrap().unwrap();
    }
    other
}

async fn reopen(memory: &Arc<Memory>) -> Repository {
    open::open(memory.clone(), Ids::random()).await.unwrap()
}

const FORGET: forget::Options = forget::Options {
    dry_run: false,
    yes_really: false,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_is_forgotten_and_nothing_else_is_touched() {
    let (memory, repository, taken) = with_nights(&[1, 2, 3]).await;
    let names = [taken[0].id.to_string(), "latest".to_owned()];
    let before = memory.objects();
    let planned = forget::forget(&repository, &names, forget::Options { dry_run: true, ..FORGET }, &run())
        .await
        .unwrap();
    assert!(planned.dry_run && memory.objects() == before, "a dry run deletes nothing");
    let done = forget::forget(&repository, &names, FORGET, &run()).await.unwrap();
    assert_eq!(done.forgotten, planned.forgotten);
    assert_eq!(ids(&repository).await, [(taken[1].id.to_string(), false)]);
    let left = memory.objects();
    let gone: Vec<&String> = before.keys().filter(|key| !left.contains_key(*key)).collect();
    assert!(
        gone.len() == 2 && gone.iter().all(|key| key.starts_with(keys::SNAPSHOTS)),
        "{gone:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_wrong_forgets_nothing() {
    let (memory, repository, taken) = with_nights(&[1, 2]).await;
    let before = memory.objects();
    let good = taken[0].id.to_string();
    for (name, wanted) in [
        ("ffffffff", "no snapshot `ffffffff`"),
        ("latest:other.org", "no snapshot `latest:other.org`"),
        ("x", "no snapshot `x`"),
        ("latest-of-nowhere", "no snapshot `latest-of-nowhere`"),
        ("latestexample.org", "no snapshot `latestexample.org`"),
        ("", "no snapshot ``"),
    ] {
        let failed = forget::forget(&repository, &[good.clone(), name.to_owned()], FORGET, &run())
            .await
            .unwrap_err();
        assert!(failed.to_string().starts_with(wanted), "{failed}");
    }
    assert!(memory.objects() == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_one_is_forgotten_only_by_who_means_it() {
    let (_, repository, taken) = with_nights(&[1, 2]).await;
    let all: Vec<String> = taken.iter().map(|one| one.id.to_string()).collect();
    let refused = forget::forget(&repository, &all, FORGET, &run()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("snapshot {} is the last good one of `example.org` with the database", all[1])
    );
    assert_eq!(ids(&repository).await.len(), 2);
    let options = forget::Options {
        yes_really: true,
        ..FORGET
    };
    forget::forget(&repository, &all, options, &run()).await.unwrap();
    assert_eq!(ids(&repository).await, []);
}

async fn change(repository: &Repository, name: &str, add: &[&str], remove: &[&str]) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let options = tag::Options {
        add: words(add),
        remove: words(remove),
    };
    tag::tag(repository, name, &options, &run()).await.unwrap().tags
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_what_was_said_last_even_within_a_second_and_in_a_mirror() {
    let (memory, repository, taken) = with_nights(&[1]).await;
    let name = taken[0].id.to_string();
    // The clock stands still: all of these have the same time of the store.
    assert_eq!(change(&repository, &name, &["a", "b"], &[]).await, ["a", "b"]);
    for _ in 0..4 {
        assert_eq!(change(&repository, &name, &[], &["a"]).await, ["b"]);
        assert_eq!(change(&repository, &name, &["a"], &[]).await, ["a", "b"]);
    }
    assert_eq!(change(&repository, "latest", &["c"], &["a"]).await, ["b", "c"]);
    let changes = |memory: &Memory| memory.objects().keys().filter(|key| key.starts_with(keys::TAGS)).count();
    assert_eq!(changes(&memory), 10);
    assert_eq!(change(&repository, &name, &["c"], &["a"]).await, ["b", "c"]);
    assert_eq!(changes(&memory), 10, "what is so already is not written");
    for memory in [memory.clone(), mirror(&memory)] {
        let repository = reopen(&memory).await;
        assert_eq!(shown(&repository).await[0].tags, ["b", "c"]);
        let show = inspect::show(&repository, &name, false, LIMITS, &run()).await.unwrap();
        assert_eq!(show.snapshot.tags, ["b", "c"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_brings_changes_of_tags_along_and_keeps_them_in_step() {
    let (_, source, taken) = with_nights(&[1, 2]).await;
    let [first, second] = [&taken[0], &taken[1]].map(|one| one.id.to_string());
    change(&source, &first, &["forever", "wrong"], &[]).await;
    let there = memory();
    there.clock().advance(SignedDuration::from_hours(3));
    let destination = init(there.clone()).await;
    let copied = async || {
        let all = copy::Options {
            choice: copy::Choice::All,
            dry_run: false,
            limits: LIMITS,
        };
        let report = copy::copy(&source, &destination, &all, &run()).await.unwrap();
        (report.copied.len(), report.tag_changes)
    };
    let tags = async |of: &Repository, id: &str| {
        let line = shown(of).await.into_iter().find(|line| line.id == id).unwrap();
        line.tags.into_iter().collect::<Vec<String>>()
    };
    assert_eq!(copied().await, (2, 1));
    assert_eq!(tags(&destination, &first).await, ["forever", "wrong"]);
    // Once more: nothing. Then one there, and two here, of which the second site hears.
    assert_eq!(copied().await, (0, 0));
    change(&destination, &second, &["seen"], &[]).await;
    change(&source, &first, &[], &["wrong"]).await;
    change(&source, &second, &["monthly"], &[]).await;
    assert_eq!(copied().await, (0, 2));
    assert_eq!(tags(&destination, &first).await, ["forever"]);
    assert_eq!(tags(&destination, &second).await, ["monthly", "seen"]);
    assert_eq!(tags(&source, &second).await, ["monthly"]);
    assert_eq!(copied().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_tags_that_is_damaged_is_named_and_hides_nothing() {
    let (memory, repository, taken) = with_nights(&[1]).await;
    change(&repository, "latest", &["a"], &[]).await;
    let key = keys::tags(taken[0].id, repository.ids().object());
    memory.put(&key, bytes::Bytes::from_static(b"{")).await.unwrap();
    let report = inspect::snapshots(&repository, &run()).await.unwrap();
    assert_eq!(report.snapshots[0].tags, ["a"]);
    assert_eq!(
        report.problems.iter().map(|problem| problem.item.as_str()).collect::<Vec<_>>(),
        [key]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_repository_is_adopted_whole() {
    let (memory, _, taken) = with_nights(&[1, 2]).await;
    let mirrored = mirror(&memory);
    let repository = reopen(&mirrored).await;
    let late: Vec<(String, bool)> = taken.iter().map(|one| (one.id.to_string(), true)).collect();
    assert_eq!(ids(&repository).await, late);
    let error = read(&repository, "latest").await;
    assert!(error.is_ok(), "who only looks may look at a late one");
    let error = anyhow::Error::from(snapshots::find(&repository, "latest", false).await.unwrap_err());
    let hint = hint_of(&error).unwrap();
    for word in [late[1].0.as_str(), "adopt --all", "--late"] {
        assert!(hint.contains(word), "{hint}");
    }
    let report = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await.unwrap();
    assert_eq!(report.adopted, [late[1].0.clone(), late[0].0.clone()], "newest first");
    assert_eq!((report.originals_left, report.problems.len()), (0, 0));
    let listed: Vec<(String, bool)> = late.iter().map(|(id, _)| (id.clone(), false)).collect();
    assert_eq!(ids(&repository).await, listed);
    // The document is the same, byte by byte, and so is its time.
    let found = snapshots::find(&repository, "latest", false).await.unwrap();
    assert_eq!(found.snapshot, taken[1]);
    assert_eq!(found.time(), taken[1].time);
    assert!(read(&repository, "latest").await.unwrap() == noise(2, 50_000));
    assert_eq!(verify(&repository).await.problems, []);
    let again = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await.unwrap();
    assert!(again.adopted.is_empty() && again.problems.is_empty());
    let named = adopt::adopt(&repository, &[listed[0].0.clone()], &adopting(LIMITS), &run())
        .await
        .unwrap();
    assert_eq!(named.listed_already, [listed[0].0.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_whole_is_not_adopted_and_the_others_are() {
    let (memory, _, taken) = with_nights(&[1, 2]).await;
    let mirrored = mirror(&memory);
    let repository = reopen(&mirrored).await;
    let data = taken[1].databases[0].streams[0].list.entries[0].pack;
    mirrored.delete(&keys::pack(data)).await.unwrap();
    let report = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await.unwrap();
    assert_eq!(report.adopted, [taken[0].id.to_string()]);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].item, taken[1].id.to_string());
    let named = [taken[1].id.to_string()];
    let refused = adopt::adopt(&repository, &named, &adopting(LIMITS), &run()).await.unwrap_err();
    assert!(refused.to_string().contains("in no pack that is there"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_segment_names_is_not_adopted_until_the_index_is_written_anew() {
    let (memory, _, taken) = with_nights(&[1]).await;
    let mirrored = mirror(&memory);
    for key in memory.objects().keys().filter(|key| key.starts_with(keys::INDEX)) {
        mirrored.delete(key).await.unwrap();
    }
    let repository = reopen(&mirrored).await;
    let refused = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await.unwrap_err();
    assert!(hint_of(&refused).unwrap().contains("--repair-index"), "{refused}");
    let options = ops::verify::Options {
        snapshot: None,
        read_data: None,
        repair_index: true,
        tools: None,
        limits: LIMITS,
    };
    ops::verify::verify(&repository, &options, &run()).await.unwrap();
    let report = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await.unwrap();
    assert_eq!(report.adopted, [taken[0].id.to_string()]);
    assert_eq!(verify(&repository).await.problems, []);
}

/// Segments as compaction writes them: cut by blob id, so that each of the two names every pack.
pub(crate) async fn cut_by_blob(memory: &Memory) -> [String; 2] {
    let segments: Vec<_> = memory
        .objects()
        .into_iter()
        .filter(|(key, _)| key.starts_with(keys::INDEX))
        .collect();
    let mut halves = [None, None];
    for (key, object) in segments {
        let segment = decode_segment(&object).unwrap();
        for (half, upper) in [false, true].into_iter().enumerate() {
            let mut part = segment.clone();
            part.entries.retain(|entry| (entry.blob.id.as_bytes()[0] >= 0x80) == upper);
            assert!(!part.entries.is_empty());
            let new = keys::segment(Ids::random().object());
            memory.put(&new, encode_segment(part).unwrap().into()).await.unwrap();
            halves[half].get_or_insert(new);
        }
        memory.delete(&key).await.unwrap();
    }
    halves.map(Option::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lacks_one_segment_of_an_index_cut_by_blob_is_not_adopted() {
    for nights in [[1].as_slice(), &[1, 2]] {
        let memory = memory();
        let repository = init_with_small_blobs(memory.clone()).await;
        for night in nights {
            backup(&repository, &mut Bytes::new(&noise(*night, 200_000))).await.unwrap();
        }
        let mirrored = mirror(&memory);
        let [_, upper] = cut_by_blob(&mirrored).await;
        let object = mirrored.objects()[&upper].clone();
        mirrored.delete(&upper).await.unwrap();
        let named = decode_segment(&object).unwrap().packs;
        let repository = reopen(&mirrored).await;
        let index = catalog::load(&repository, usize::MAX).await.unwrap();
        assert!(
            named.iter().all(|pack| index.pack(pack.id).unwrap().usable()),
            "each pack is named and there"
        );
        let report = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await;
        // The first night is in the first segment.
        let whole = nights.len() - 1;
        match report {
            Ok(report) => assert_eq!((report.adopted.len(), report.problems.len()), (whole, 1), "{:?}", report.problems),
            Err(refused) => {
                assert_eq!(whole, 0);
                assert!(refused.to_string().contains("in no pack that is there and indexed"), "{refused}");
                assert!(hint_of(&refused).unwrap().contains("mirror it again"), "{refused}");
            }
        }
        mirrored.put(&upper, object).await.unwrap();
        let report = adopt::adopt(&repository, &[], &adopting(LIMITS), &run()).await.unwrap();
        assert_eq!((report.adopted.len(), report.problems), (nights.len() - whole, vec![]));
        assert_eq!(verify(&repository).await.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_repacked_before_it_was_mirrored_is_adopted_from_where_it_is_now() {
    let (memory, repository, taken) = with_nights(&[1]).await;
    // A second backup without an index sends everything into other packs; then those of the first go.
    let second = crate::rig::backup_with(&repository, &mut Bytes::new(&noise(1, 50_000)), 0, None)
        .await
        .unwrap();
    let old: BTreeSet<_> = taken[0].packs.iter().filter(|pack| !second.packs.contains(pack)).collect();
    assert!(!old.is_empty());
    let mirrored = mirror(&memory);
    for pack in old {
        mirrored.delete(&keys::pack(*pack)).await.unwrap();
    }
    let repository = reopen(&mirrored).await;
    let report = adopt::adopt(&repository, &[taken[0].id.to_string()], &adopting(LIMITS), &run())
        .await
        .unwrap();
    assert_eq!(report.adopted.len(), 1);
    assert!(read(&repository, &taken[0].id.to_string()).await.unwrap() == noise(1, 50_000));
}

async fn pruned(repository: &Repository) -> prune::Report {
    let options = prune::Options {
        dry_run: false,
        keep: retention::Keep::everything(),
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: "/var/tmp".into(),
        limits: LIMITS,
    };
    prune::prune(repository, &options, &run()).await.unwrap()
}

/// A late snapshot of some fifteen hundred small blobs, most of them in a pack that another one filled and that is mostly dead by now.
/// A prune has moved them, and what it marked is older than the grace period. Gives what is in it, and that pack.
async fn moved_and_late() -> (Arc<Memory>, Repository, Snapshot, Vec<u8>, PackId) {
    let memory = memory();
    let repository = init_with_small_blobs(memory.clone()).await;
    let common = noise(1, 6 << 20);
    let first = [common.as_slice(), &noise(2, 9 << 20)].concat();
    let first = backup(&repository, &mut Bytes::new(&first)).await.unwrap();
    let late = backup(&repository, &mut Bytes::new(&common)).await.unwrap();
    let pack = late.databases[0].streams[0].list.entries[0].pack;
    let holds = |one: &Snapshot| one.packs.iter().copied().collect::<BTreeSet<_>>();
    let shared: Vec<PackId> = holds(&first).intersection(&holds(&late)).copied().collect();
    for one in [&first, &late] {
        let key = keys::snapshot(one.time, one.id).unwrap();
        let object = memory.objects()[&key].clone();
        memory.delete(&key).await.unwrap();
        if one.id == late.id {
            let past = one.time - SignedDuration::from_hours(1);
            memory
                .put(&key, snapshot::with_not_after(&object, past).unwrap().into())
                .await
                .unwrap();
        }
    }
    memory.clock().advance(SignedDuration::from_hours(48));
    let report = pruned(&repository).await;
    assert!(report.plan.repack.iter().any(|pack| shared.contains(&pack.id)), "{:?}", report.plan);
    memory.clock().advance(SignedDuration::from_hours(48));
    let data = shared
        .iter()
        .find(|id| report.plan.repack.iter().any(|pack| pack.id == **id))
        .copied();
    (memory, repository, late, common, data.unwrap_or(pack))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_whose_blobs_were_moved_is_adopted_however_little_memory_there_is() {
    let (memory, repository, late, bytes, moved) = moved_and_late().await;
    pruned(&repository).await;
    assert!(!memory.objects().contains_key(&keys::pack(moved)));
    // Of the lines of the index a tenth would fit.
    let limits = Limits {
        memory_bytes: 8 << 10,
        ..LIMITS
    };
    let report = adopt::adopt(&repository, &[], &adopting(limits), &run()).await.unwrap();
    assert_eq!((report.adopted, report.problems), (vec![late.id.to_string()], vec![]));
    assert_eq!(ids(&repository).await, [(late.id.to_string(), false)]);
    assert!(read(&repository, "latest").await.unwrap() == bytes);
    assert_eq!(verify(&repository).await.problems, []);
}

/// The pack, its marker and its lines in the index.
fn sweep_away(memory: &Memory, pack: PackId) {
    for (key, object) in memory.objects().into_iter().filter(|(key, _)| key.starts_with(keys::INDEX)) {
        let mut segment = decode_segment(&object).unwrap();
        segment.entries.retain(|entry| segment.packs[entry.pack as usize].id != pack);
        let without = encode_segment(segment).unwrap();
        memory
            .put(&keys::segment(Ids::random().object()), without.into())
            .now_or_never()
            .unwrap()
            .unwrap();
        memory.delete(&key).now_or_never().unwrap().unwrap();
    }
    for key in [keys::pack(pack), keys::condemned(pack)] {
        memory.delete(&key).now_or_never().unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_while_it_is_adopted_is_looked_for_again() {
    let (memory, _, late, bytes, moved) = moved_and_late().await;
    let (store, once) = (memory.clone(), AtomicBool::new(false));
    // The check asks for the store's time first: then a prune and a compaction are done with the old pack.
    let hook = Hook::new(memory.clone(), move |kind, _| {
        if kind == Kind::Head && !once.swap(true, Ordering::Relaxed) {
            sweep_away(&store, moved);
        }
    });
    let hooked = open::open(Arc::new(hook), Ids::random()).await.unwrap();
    let report = adopt::adopt(&hooked, &[], &adopting(LIMITS), &run()).await.unwrap();
    assert_eq!((report.adopted, report.problems), (vec![late.id.to_string()], vec![]));
    assert!(!memory.objects().contains_key(&keys::pack(moved)));
    let repository = reopen(&memory).await;
    assert!(read(&repository, "latest").await.unwrap() == bytes);
    assert_eq!(verify(&repository).await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_objects_of_a_snapshot_are_forgotten_together() {
    let (_, repository, taken) = with_nights(&[1, 2]).await;
    // The same snapshot written again, and a late original that nobody could delete.
    let key = keys::snapshot(taken[0].time, taken[0].id).unwrap();
    let object = repository.store().get(&key, synapse_backup::store::ByteRange::All).await.unwrap();
    let past = taken[0].time - SignedDuration::from_hours(1);
    let late = snapshot::with_not_after(&object.bytes, past).unwrap();
    let again = keys::snapshot_again(taken[0].time, taken[0].id, repository.ids().object()).unwrap();
    repository.store().put(&again, bytes::Bytes::from(late)).await.unwrap();
    assert_eq!(ids(&repository).await.len(), 2);
    forget::forget(&repository, &[taken[0].id.to_string()], FORGET, &run())
        .await
        .unwrap();
    assert_eq!(ids(&repository).await, [(taken[1].id.to_string(), false)]);
}

async fn counted(repository: &Repository) -> stats::Report {
    let options = stats::Options {
        limits: LIMITS,
        spool_folder: "/var/tmp".into(),
    };
    stats::stats(repository, &options, &run()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_one_snapshot_holds_is_what_dies_with_it() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let (common, tail) = (noise(1, 3_000_000), noise(2, 700_000));
    let longer = [common.as_slice(), &tail].concat();
    let nights = [common.clone(), longer.clone(), noise(3, 400_000), longer, noise(4, 900_000)];
    let mut taken = Vec::new();
    for night in &nights {
        taken.push(backup(&repository, &mut Bytes::new(night)).await.unwrap());
        memory.clock().advance(SignedDuration::from_hours(1));
    }
    let before = counted(&repository).await;
    assert_eq!(before.raw_bytes, nights.iter().map(|night| night.len() as u64).sum::<u64>());
    assert_eq!(
        before.kinds.values().map(|kind| kind.stored_bytes).sum::<u64>(),
        before.all.stored_bytes
    );
    assert_eq!((before.all.condemned_bytes, before.snapshots.len()), (0, 5));
    assert!(before.all.compressed_bytes <= before.all.stored_bytes);
    for (at, one) in taken.iter().enumerate() {
        let held = before.snapshots.iter().find(|held| held.id == one.id.to_string()).unwrap();
        let without = crate::rig::memory();
        for (key, bytes) in memory.objects() {
            if !key.contains(&held.id) {
                without.put(&key, bytes).await.unwrap();
            }
        }
        let after = counted(&reopen(&without).await).await;
        let died = before.all.deduplicated_bytes - after.all.deduplicated_bytes;
        assert_eq!(held.only_raw_bytes, died, "night {at}");
        assert_eq!(died >= 400_000, at == 2 || at == 4, "night {at}: {died}");
        assert!(at == 0 || at == 2 || at == 4 || died == 0, "night {at} is there twice");
        assert_eq!(after.all.dead_bytes > before.all.dead_bytes, died > 0, "night {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_is_counted_as_such() {
    let (memory, repository, taken) = with_nights(&[1]).await;
    let before = counted(&repository).await;
    let pack = taken[0].databases[0].streams[0].list.entries[0].pack;
    memory.put(&keys::condemned(pack), bytes::Bytes::new()).await.unwrap();
    let after = counted(&repository).await;
    assert_eq!(after.all.condemned_bytes, memory.objects()[&keys::pack(pack)].len() as u64);
    assert_eq!(after.all.deduplicated_bytes, before.all.deduplicated_bytes, "it is still needed");
}
