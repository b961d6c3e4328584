//! Somebody who can write into the bucket of a sealed repository, and what the other verbs make of it: he can plant, rename and
//! roll back, and nothing of his is signed over, counted, or let in the place of what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::list::List;
use synapse_backup::format::seal;
use synapse_backup::format::snapshot::{self, ConfigItem, ConfigKind, ConfigRole, Media, MediaIncluded, Snapshot};
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::format::{ItemPath, ObjectId, keys};
use synapse_backup::ops::retention::{Keep, Reason};
use synapse_backup::ops::{Tools, adopt, copy, drill, forget, inspect, prune};
use synapse_backup::repo::{Repository, drills, snapshots, tags};
use synapse_backup::store::memory::Memory;
use synapse_backup::store::{Store, local};

use crate::rig::{Bytes, Keys, LIMITS, adopting, backup, init, init_sealed, memory, noise, open_with, read, run, verify};

/// A sealed repository with one true snapshot in it, and who writes into its bucket.
struct Attacked {
    memory: Arc<Memory>,
    keys: Keys,
    repository: Repository,
    good: Snapshot,
}

impl Attacked {
    async fn new() -> Self {
        let (memory, keys) = (memory(), Keys::new(1));
        let repository = init_sealed(memory.clone(), &keys).await;
        let good = backup(&repository, &mut Bytes::new(&noise(1, 100_000))).await.unwrap();
        Self {
            memory,
            keys,
            repository,
            good,
        }
    }

    /// Like the true one, but another and so much later; sealed to whom it must be, unsigned or signed by a key of his own.
    async fn plant(&self, id: u8, later: SignedDuration, signed: bool, lands: SignedDuration) -> ObjectId {
        let forged = Snapshot {
            id: ObjectId::from_bytes([id; 16]),
            time: self.good.time + later,
            ..self.good.clone()
        };
        let own = WriterKey::new([9; 32].into());
        self.write(&forged, signed.then_some(&own), lands).await;
        forged.id
    }

    /// Any document, signed or not.
    async fn write(&self, forged: &Snapshot, signer: Option<&WriterKey>, lands: SignedDuration) {
        let not_after = self.memory.clock().now() + lands;
        let object = match signer {
            Some(signer) => snapshot::encode_signed(forged, not_after, signer),
            None => snapshot::encode(forged, not_after),
        };
        let sealed = seal::seal(&self.keys.all().recipients_of_metadata(), &object.unwrap()).unwrap();
        let key = keys::sealed(&keys::snapshot(forged.time, forged.id).unwrap());
        self.memory.put(&key, sealed.into()).await.unwrap();
    }
}

async fn ids(repository: &Repository) -> BTreeSet<ObjectId> {
    snapshots::list(repository).await.unwrap().into_iter().map(|key| key.id).collect()
}

const WINDOW: SignedDuration = SignedDuration::from_hours(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_signs_nothing_that_is_not_authentic_where_it_comes_from() {
    let from = Attacked::new().await;
    let unsigned = from.plant(1, SignedDuration::from_mins(1), false, WINDOW).await;
    let foreign = from.plant(2, SignedDuration::from_mins(2), true, WINDOW).await;
    let (store, ours) = (memory(), Keys::new(2));
    let to = init_sealed(store.clone(), &ours).await;
    let with = |choice, dry_run| copy::Options {
        choice,
        dry_run,
        limits: LIMITS,
    };
    for dry_run in [true, false] {
        let report = copy::copy(&from.repository, &to, &with(copy::Choice::All, dry_run), &run())
            .await
            .unwrap();
        let copied: Vec<String> = report.copied.iter().map(|line| line.id.clone()).collect();
        assert_eq!(copied, [from.good.id.to_string()], "{dry_run}");
        let named: Vec<&str> = report.problems.iter().map(|problem| problem.item.as_str()).collect();
        assert_eq!(named, [format!("snapshot {unsigned}"), format!("snapshot {foreign}")], "{dry_run}");
        assert!(report.problems.iter().all(|problem| problem.message.contains("not authentic")));
    }
    for id in [unsigned, foreign] {
        let named = with(copy::Choice::Named(vec![id.to_string()]), false);
        let refused = copy::copy(&from.repository, &to, &named, &run()).await.unwrap_err();
        assert!(format!("{refused:#}").contains("not authentic"), "{refused:#}");
    }
    assert_eq!(ids(&to).await, [from.good.id].into());
    assert!(read(&open_with(store.clone(), ours.of_safe()).await, "latest").await.unwrap() == noise(1, 100_000));
    // Sealed anew: who could read the source reads nothing here, not even names.
    let theirs = open_with(store, from.keys.all()).await;
    assert!(snapshots::load_all(&theirs).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_snapshot_under_the_name_of_a_true_one_does_not_keep_the_true_one_from_being_copied() {
    let (from, there) = (Attacked::new().await, Attacked::new().await);
    let forged = Snapshot {
        repository: there.repository.info().id,
        ..from.good.clone()
    };
    let object = snapshot::encode(&forged, there.memory.clock().now() + WINDOW).unwrap();
    let sealed = seal::seal(&there.keys.all().recipients_of_metadata(), &object).unwrap();
    let key = keys::sealed(&keys::snapshot(forged.time, forged.id).unwrap());
    there.memory.put(&key, sealed.into()).await.unwrap();
    let options = copy::Options {
        choice: copy::Choice::All,
        dry_run: false,
        limits: LIMITS,
    };
    let report = copy::copy(&from.repository, &there.repository, &options, &run()).await.unwrap();
    assert_eq!((report.copied.len(), report.present), (1, 0), "{:?}", report.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_authentic_is_not_adopted() {
    let here = Attacked::new().await;
    let forged = here
        .plant(1, SignedDuration::from_mins(1), true, SignedDuration::from_secs(-1))
        .await;
    let failed = adopt::adopt(&here.repository, &[], &adopting(LIMITS), &run()).await.unwrap_err();
    assert!(format!("{failed:#}").contains("not authentic"), "{failed:#}");
    let late = snapshots::find(&here.repository, &forged.to_string(), true).await.unwrap();
    assert!(late.late);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_snapshots_drive_no_true_one_out() {
    let here = Attacked::new().await;
    let mut forged = BTreeSet::new();
    for night in 1..=10 {
        forged.insert(
            here.plant(night, SignedDuration::from_mins(i64::from(night)), night % 2 == 0, WINDOW)
                .await,
        );
    }
    let options = prune::Options {
        dry_run: false,
        keep: Keep {
            last: Some(2),
            ..Keep::everything()
        },
        yes_really: true,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: std::env::temp_dir(),
        limits: LIMITS,
    };
    let report = prune::prune(&here.repository, &options, &run()).await.unwrap();
    let listed = inspect::snapshots(&here.repository, &run()).await.unwrap().snapshots;
    let doubted = listed.iter().filter(|line| line.doubt.is_some()).count();
    assert_eq!((listed.len(), doubted), (11, 10));
    let reasons: Vec<_> = report.snapshots.iter().map(|one| (one.id, one.reasons.clone())).collect();
    assert_eq!(reasons[0].0, here.good.id);
    assert!(!reasons[0].1.contains(&Reason::NotAuthentic), "{reasons:?}");
    assert!(reasons[1..].iter().all(|(_, why)| *why == [Reason::NotAuthentic]), "{reasons:?}");
    assert_eq!(ids(&here.repository).await.len(), 11);
    // By hand the forged ones go, and the true one does not by mistake, however many there are beside it.
    let options = forget::Options {
        dry_run: false,
        yes_really: false,
    };
    let true_one = forget::forget(&here.repository, &[here.good.id.to_string()], options, &run()).await;
    assert!(format!("{:#}", true_one.unwrap_err()).contains("last good one"));
    let names: Vec<String> = forged.iter().map(ToString::to_string).collect();
    forget::forget(&here.repository, &names, options, &run()).await.unwrap();
    assert_eq!(ids(&here.repository).await, [here.good.id].into());
    assert_eq!(verify(&here.repository).await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_in_the_place_of_a_new_one_is_refused_and_found() {
    let here = Attacked::new().await;
    here.memory.clock().advance(SignedDuration::from_hours(1));
    let new = backup(&here.repository, &mut Bytes::new(&noise(2, 100_000))).await.unwrap();
    let key = |one: &Snapshot| keys::sealed(&keys::snapshot(one.time, one.id).unwrap());
    let objects = here.memory.objects();
    let (old_key, new_key) = (key(&here.good), key(&new));
    // The old object, authentic as it is, under the name of the new one; and under that of one more that never was.
    here.memory.damage(&new_key, objects[&old_key].clone());
    let never = Snapshot {
        id: ObjectId::from_bytes([7; 16]),
        ..new.clone()
    };
    here.memory.put(&key(&never), objects[&old_key].clone()).await.unwrap();
    for id in [new.id, never.id] {
        let refused = read(&here.repository, &id.to_string()).await.unwrap_err();
        assert!(format!("{refused:#}").contains("its name"), "{refused:#}");
    }
    let found = verify(&here.repository).await.problems;
    for id in [new.id, never.id] {
        assert!(
            found
                .iter()
                .any(|problem| problem.item.contains(&id.to_string()) && problem.message.contains("its name")),
            "{id}: {found:?}"
        );
    }
    // What is true under its own name is still there.
    assert!(read(&here.repository, &here.good.id.to_string()).await.unwrap() == noise(1, 100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_too_large_to_be_ours_are_named_and_take_no_memory() {
    for sealed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = local::open(folder.path(), true, Arc::default()).await.unwrap();
        let repository = if sealed {
            init_sealed(store, &Keys::new(1)).await
        } else {
            init(store).await
        };
        let bytes = noise(1, 300_000);
        let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
        let (one, other) = (repository.ids().object(), repository.ids().object());
        let planted = [
            keys::snapshot(snapshot.time, one).unwrap(),
            keys::segment(one),
            keys::tags(snapshot.id, one),
            keys::drill(snapshot.id, other),
        ];
        // Longer than the memory of any machine; a file full of nothing.
        for key in &planted {
            let name = if sealed && keys::is_sealed_kind(key) {
                keys::sealed(key)
            } else {
                key.clone()
            };
            std::fs::create_dir_all(folder.path().join(&name).parent().unwrap()).unwrap();
            let file = std::fs::File::create(folder.path().join(&name)).unwrap();
            file.set_len(8 << 40).unwrap();
        }
        let (mut loaded, damaged) = snapshots::load_all(&repository).await.unwrap();
        assert_eq!((loaded.len(), damaged.len()), (1, 1), "sealed: {sealed}");
        assert_eq!(damaged[0].0.key, planted[0]);
        let named = tags::overlay(&repository, &mut loaded).await.unwrap();
        assert_eq!(named.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), planted[2..3]);
        assert!(drills::newest(&repository, &[snapshot.id]).await.unwrap().is_empty());
        let problems = verify(&repository).await.problems;
        for key in &planted[..2] {
            let message = problems
                .iter()
                .find(|problem| problem.item == *key)
                .map(|problem| problem.message.clone());
            assert!(message.unwrap_or_default().contains("over the limit"), "{key}: {problems:?}");
        }
        assert!(read(&repository, "latest").await.unwrap() == bytes);
        backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_does_not_pass_over_what_is_planted_because_it_lacks_a_part() {
    let here = Attacked::new().await;
    let whole = Snapshot {
        id: ObjectId::from_bytes([1; 16]),
        time: here.good.time + SignedDuration::from_mins(1),
        media: Some(Media {
            root: ItemPath::from("/media"),
            mode: None,
            uid: None,
            gid: None,
            owner: None,
            group: None,
            shards: List::default(),
            files: 0,
            bytes: 0,
            counts: BTreeMap::new(),
            included: MediaIncluded::default(),
        }),
        config: vec![ConfigItem {
            path: ItemPath::from("/etc/matrix-synapse"),
            kind: ConfigKind::Directory,
            role: ConfigRole::Other,
            mode: 0o700,
            uid: 0,
            gid: 0,
            owner: None,
            group: None,
            bytes: 0,
            sha256: None,
            list: List::default(),
            target: None,
        }],
        ..here.good.clone()
    };
    here.write(&whole, Some(&here.keys.writer), WINDOW).await;
    let planted = here.plant(2, SignedDuration::from_mins(2), false, WINDOW).await;
    let folder = tempfile::tempdir().unwrap();
    let options = drill::Options {
        snapshot: "latest".into(),
        databases: drill::Databases::Given(Vec::new()),
        media: drill::Media::All,
        folder: folder.path().to_owned(),
        container_path_map: Vec::new(),
        working_directory: None,
        start_synapse: None,
        late: false,
        no_record: true,
        limits: LIMITS,
        tools: Tools::default(),
        tool_version: "0".into(),
    };
    let refused = drill::drill(&here.repository, &options, &run()).await.unwrap_err();
    let said = format!("{refused:#}");
    assert!(said.contains("not authentic") && said.contains(&planted.to_string()), "{said}");
}
