//! Other keys: what is there is sealed anew, whatever call that died in, and a removed key opens nothing that is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::chunk::ChunkSizes;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::seal::{Header, Identity};
use synapse_backup::format::snapshot::Snapshot;
use synapse_backup::format::{PackKind, keys};
use synapse_backup::ops::{self, prune, rekey};
use synapse_backup::repo::commit::Relied;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::{Repository, snapshots, tags};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::{Fail, Fault};

use crate::rig::{Bytes, Keys, LIMITS, backup, init_sealed, memory, noise, open_with, read, run, verify};

fn options(packs: bool) -> rekey::Options {
    rekey::Options {
        packs,
        dry_run: false,
        spool_folder: "/var/tmp".into(),
        limits: LIMITS,
    }
}

async fn prune(repository: &Repository) -> prune::Report {
    let options = prune::Options {
        dry_run: false,
        keep: ops::retention::Keep::everything(),
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: "/var/tmp".into(),
        limits: LIMITS,
    };
    prune::prune(repository, &options, &run()).await.unwrap()
}

fn days(memory: &Memory, days: i64) {
    memory.clock().advance(SignedDuration::from_hours(24 * days));
}

/// The keys of everything sealed that this identity opens.
fn opened(memory: &Memory, identity: &Identity) -> Vec<String> {
    let sealed = memory.objects().into_iter().filter(|(key, _)| keys::unsealed(key).is_some());
    let opens = |body: &[u8]| !Header::read(body, std::slice::from_ref(identity)).unwrap().opened_by.is_empty();
    sealed.filter(|(_, body)| opens(body)).map(|(key, _)| key).collect()
}

/// Sealed to the desk and the safe; later to the safe alone.
struct Story {
    memory: Arc<Memory>,
    keys: Keys,
    desk: Identity,
}

impl Story {
    fn new() -> Self {
        Self {
            memory: memory(),
            keys: Keys::new(1),
            desk: Identity::generate(),
        }
    }

    /// Two snapshots, the second with most of the first, and one of them tagged.
    async fn before(&self, length: usize) -> [(Snapshot, Vec<u8>); 2] {
        let repository = init_sealed(self.memory.clone(), &self.keys).await;
        // Small blobs, so that short streams have lists of their own.
        let info = RepositoryInfo {
            chunk_sizes: ChunkSizes {
                min: 64,
                average: 256,
                max: 1024,
            },
            ..repository.info().clone()
        };
        let info = serde_json::to_vec(&info).unwrap();
        self.memory.put(keys::REPOSITORY, info.into()).await.unwrap();
        let both = Keyring {
            recipients: vec![self.keys.identity.recipient(), self.desk.recipient()],
            ..self.keys.of_server()
        };
        let repository = open_with(self.memory.clone(), both).await;
        let common = noise(1, 2 * length);
        let first = [noise(2, length), common.clone()].concat();
        let second = [common, noise(3, length)].concat();
        let one = backup(&repository, &mut Bytes::new(&first)).await.unwrap();
        days(&self.memory, 3);
        let two = backup(&repository, &mut Bytes::new(&second)).await.unwrap();
        let add = ["kept".to_owned()].into();
        let change = ops::tag::Options {
            add,
            ..ops::tag::Options::default()
        };
        ops::tag::tag(&repository, &one.id.to_string(), &change, &run()).await.unwrap();
        days(&self.memory, 3);
        [(one, first), (two, second)]
    }

    /// The store of the settings after `keys remove`.
    async fn after(&self, store: Arc<dyn Store>) -> Repository {
        open_with(store, self.keys.all()).await
    }

    async fn assert_whole(&self, before: &[(Snapshot, Vec<u8>)], what: &str) {
        let repository = self.after(self.memory.clone()).await;
        assert_eq!(verify(&repository).await.problems, [], "{what}");
        let (mut loaded, damaged) = snapshots::load_all(&repository).await.unwrap();
        assert!(damaged.is_empty(), "{what}");
        tags::overlay(&repository, &mut loaded).await.unwrap();
        for (snapshot, bytes) in before {
            let found = loaded.iter().find(|one| one.snapshot.id == snapshot.id && !one.late).unwrap();
            assert_eq!(&found.snapshot, snapshot, "{what}");
            assert_eq!(repository.doubt(found), None, "{what}");
            assert!(read(&repository, &snapshot.id.to_string()).await.unwrap() == *bytes, "{what}");
        }
        assert!(loaded.iter().any(|one| one.tags == ["kept"]), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_recipient_opens_nothing_after_a_rekey_the_grace_period_and_a_prune() {
    let story = Story::new();
    let before = story.before(120_000).await;
    let all = story.memory.objects().len();
    assert!(opened(&story.memory, &story.desk).len() > all / 2);
    let repository = story.after(story.memory.clone()).await;

    // A dry run tells what there is, and leaves it.
    let dry = rekey::Options {
        dry_run: true,
        ..options(true)
    };
    let planned = rekey::rekey(&repository, &dry, &run()).await.unwrap();
    assert_eq!((planned.snapshots.resealed, planned.segments), (2, 2));
    assert_eq!(story.memory.objects().len(), all);

    // Metadata alone: the content of old packs still opens.
    let report = rekey::rekey(&repository, &options(false), &run()).await.unwrap();
    assert_eq!(
        (report.snapshots.resealed, report.snapshots.signed, report.problems.len()),
        (2, 0, 0)
    );
    let kinds: Vec<PackKind> = report.plan.unwrap().repack.iter().map(|pack| pack.kind).collect();
    assert!(
        !kinds.is_empty() && kinds.iter().all(|kind| *kind == PackKind::Metadata),
        "{kinds:?}"
    );
    story.assert_whole(&before, "metadata").await;
    let left = opened(&story.memory, &story.desk);
    assert!(left.iter().all(|key| key.starts_with(keys::PACKS)), "{left:?}");

    let report = rekey::rekey(&repository, &options(true), &run()).await.unwrap();
    let plan = report.plan.unwrap();
    assert!(
        !plan.repack.is_empty() && plan.repack.iter().all(|pack| pack.kind != PackKind::Metadata),
        "done before"
    );
    assert_eq!(report.applied.unwrap().repacked, plan.repack.len() as u64);
    story.assert_whole(&before, "packs").await;
    let again = rekey::rekey(&repository, &options(true), &run()).await.unwrap();
    assert!(again.plan.unwrap().repack.is_empty(), "all packs are done");

    days(&story.memory, 2);
    prune(&repository).await;
    assert_eq!(opened(&story.memory, &story.desk), [""; 0]);
    story.assert_whole(&before, "prune").await;
    assert!(opened(&story.memory, &story.keys.identity).len() > 4);

    // The next backup builds on what was sealed anew, and is sealed to nobody else.
    let writer = open_with(story.memory.clone(), story.keys.of_server()).await;
    let stored: usize = story.memory.objects().values().map(bytes::Bytes::len).sum();
    backup(&writer, &mut Bytes::new(&before[1].1)).await.unwrap();
    let more: usize = story.memory.objects().values().map(bytes::Bytes::len).sum();
    // Lists name the packs, so they are new; the content of 360 kB is not.
    assert!(more - stored < 250_000, "{stored} {more}");
    assert_eq!(opened(&story.memory, &story.desk), [""; 0]);
}

/// Fails at call `n` of these kinds, for every n: nothing that is listed is lost, and the next rekey finishes.
async fn at_every_call(fault: Fault, kinds: &[Kind]) {
    for call in 1.. {
        let story = Story::new();
        let before = story.before(60_000).await;
        let whole = story.after(story.memory.clone()).await;
        let fail = Arc::new(Fail::new(story.memory.clone(), call, fault).only(kinds));
        let repository = story.after(Arc::clone(&fail) as Arc<dyn Store>).await;
        let ended = rekey::rekey(&repository, &options(true), &run()).await;
        let what = format!("{fault:?} at call {call}");
        assert_eq!(verify(&whole).await.problems, [], "{what}");
        let report = rekey::rekey(&whole, &options(true), &run()).await.unwrap();
        assert_eq!(report.problems, [], "{what}");
        days(&story.memory, 2);
        prune(&whole).await;
        assert_eq!(opened(&story.memory, &story.desk), [""; 0], "{what}");
        story.assert_whole(&before, &what).await;
        if fail.begun() < call {
            assert!(ended.is_ok(), "{ended:?}");
            assert!(call > 10, "{call}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_that_is_cut_off_at_any_write_costs_nothing_and_is_done_again() {
    Box::pin(at_every_call(Fault::BeforeAndEver, &[Kind::Put, Kind::Delete])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_that_loses_the_answer_to_a_write_costs_nothing() {
    Box::pin(at_every_call(Fault::After, &[Kind::Put, Kind::Delete])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_writer_key_is_replaced_by_who_holds_an_identity() {
    let (memory, mut keys) = (memory(), Keys::new(1));
    let old = keys.writer.signer();
    let content = noise(1, 2 << 20);
    let repository = init_sealed(memory.clone(), &keys).await;
    backup(&repository, &mut Bytes::new(&content)).await.unwrap();
    days(&memory, 1);

    keys.writer = Keys::new(2).writer;
    let new = keys.writer.signer();
    assert_ne!(old, new);
    // Nobody vouches for a stranger: without a pin the old snapshot keeps the old signature alone.
    let unpinned = open_with(memory.clone(), keys.all()).await;
    let report = rekey::rekey(&unpinned, &options(false), &run()).await.unwrap();
    assert_eq!(
        (report.snapshots.signed, report.snapshots.doubted.get(&old.to_string())),
        (0, Some(&1))
    );
    let server = open_with(memory.clone(), keys.of_server()).await;
    let (loaded, _) = snapshots::load_all(&server).await.unwrap();
    assert!(server.doubt(&loaded[0]).unwrap().contains(&old.to_string()));
    // The list of what there is opens all the same, so that nothing is sent twice.
    let stored = |memory: &Memory| -> usize { memory.objects().values().map(bytes::Bytes::len).sum() };
    let size = stored(&memory);
    backup(&server, &mut Bytes::new(&content)).await.unwrap();
    assert!(stored(&memory) - size < 100_000);

    // Pinned: it is signed by the new key as well, and the server believes it.
    let pinned = Keyring {
        signers: vec![old],
        ..keys.all()
    };
    let report = rekey::rekey(&open_with(memory.clone(), pinned).await, &options(false), &run())
        .await
        .unwrap();
    assert_eq!((report.snapshots.resealed, report.snapshots.signed), (2, 1));
    let server = open_with(memory.clone(), keys.of_server()).await;
    let (loaded, _) = snapshots::load_all(&server).await.unwrap();
    assert_eq!(loaded.len(), 2);
    for one in &loaded {
        assert_eq!((server.doubt(one), server.signer_of(one)), (None, Some(new)));
    }
    // The old pin still holds for the old snapshot.
    let old_pin = Keyring {
        signers: vec![old],
        ..keys.of_safe()
    };
    let safe = open_with(memory.clone(), old_pin).await;
    assert_eq!(loaded.iter().filter(|one| safe.doubt(one).is_none()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_snapshot_is_not_vouched_for_and_does_not_take_the_place_of_the_true_one() {
    let (memory, keys, thief) = (memory(), Keys::new(1), Keys::new(9));
    let repository = init_sealed(memory.clone(), &keys).await;
    let true_one = backup(&repository, &mut Bytes::new(&noise(1, 100_000))).await.unwrap();
    // Who knows the recipients can seal to them: the same id, another document, his own signature.
    let as_thief = Keyring {
        writer: Some(thief.writer.clone()),
        ..keys.of_server()
    };
    let thief_here = open_with(memory.clone(), as_thief).await;
    let packs = Relied::from(true_one.packs.iter().copied().collect::<BTreeSet<_>>());
    let forged = synapse_backup::repo::commit::commit(&thief_here, &packs, |_, _| Snapshot {
        server_name: "evil.example.org".into(),
        time: true_one.time + SignedDuration::from_secs(1),
        ..true_one.clone()
    });
    forged.await.unwrap();
    let report = rekey::rekey(&repository, &options(false), &run()).await.unwrap();
    assert_eq!((report.snapshots.resealed, report.snapshots.doubted.len()), (2, 1));
    let (loaded, _) = snapshots::load_all(&repository).await.unwrap();
    let believed: Vec<&Snapshot> = loaded
        .iter()
        .filter(|one| repository.doubt(one).is_none())
        .map(|one| &one.snapshot)
        .collect();
    assert_eq!(believed, [&true_one]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_objects_of_a_snapshot_the_authentic_one_is_read() {
    let (memory, keys, stranger) = (memory(), Keys::new(1), Keys::new(9));
    let repository = init_sealed(memory.clone(), &keys).await;
    let true_one = backup(&repository, &mut Bytes::new(&noise(1, 100_000))).await.unwrap();
    let as_stranger = Keyring {
        writer: Some(stranger.writer.clone()),
        ..keys.of_server()
    };
    // The other one landed earlier.
    memory.clock().advance(SignedDuration::from_mins(-30));
    let other = open_with(memory.clone(), as_stranger).await;
    let packs = Relied::from(true_one.packs.iter().copied().collect::<BTreeSet<_>>());
    let twice = synapse_backup::repo::commit::commit(&other, &packs, |_, _| Snapshot {
        time: true_one.time + SignedDuration::from_secs(1),
        ..true_one.clone()
    });
    twice.await.unwrap();
    memory.clock().advance(SignedDuration::from_mins(30));
    let (loaded, _) = snapshots::load_all(&repository).await.unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(snapshots::unique(&repository, loaded)[0].snapshot, true_one);
    for name in ["latest", &true_one.id.to_string()] {
        let found = snapshots::find(&repository, name, false).await.unwrap();
        assert_eq!((found.snapshot.time, repository.doubt(&found)), (true_one.time, None), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_that_open_what_is_there_are_counted() {
    let story = Story::new();
    story.before(100_000).await;
    let with_desk = Keyring {
        identities: vec![story.keys.identity.clone(), story.desk.clone()],
        ..story.keys.of_server()
    };
    let repository = open_with(story.memory.clone(), with_desk).await;
    let list = async |packs| {
        let options = ops::keys::Options { packs, limits: LIMITS };
        ops::keys::list(&repository, options, &run()).await.unwrap()
    };
    let report = list(true).await;
    let of = |kind: &str, key: &Identity| {
        let one = report.sealed.iter().find(|one| one.kind == kind).unwrap();
        (
            one.objects,
            one.opened_by.get(&key.recipient().to_string()).copied().unwrap_or_default(),
        )
    };
    assert_eq!(of("snapshots", &story.desk), (2, 2));
    assert_eq!(of("snapshots", story.keys.writer.identity()), (2, 2));
    let (packs, opened) = of("packs", story.keys.writer.identity());
    assert!(
        0 < opened && opened < packs,
        "the writer key opens metadata alone: {opened} of {packs}"
    );
    assert_eq!(of("packs", &story.desk), (packs, packs));
    assert_eq!(report.sealed[0].by_recipients, [(3, 2)].into());
    assert_eq!(
        (report.signed.len(), report.signed[0].known, report.signed[0].snapshots),
        (1, true, 2)
    );
    rekey::rekey(&repository, &options(true), &run()).await.unwrap();
    days(&story.memory, 2);
    prune(&repository).await;
    for sealed in list(true).await.sealed {
        assert_eq!(sealed.opened_by.get(&story.desk.recipient().to_string()), None, "{sealed:?}");
    }
}
