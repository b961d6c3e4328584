//! Two hundred nights of a small homeserver: a backup, a retention and a prune each night, with a grace period of no length to
//! speak of. The bucket converges to what the kept snapshots need, no night takes more requests than those long before, and
//! every kept snapshot comes back.
//!
//! Blobs are a sixteenth of the usual size, and so is all else: as many blobs, rows and shards as a homeserver of a few hundred
//! megabytes has. The same over real servers is `scripts/bench nights`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use synapse_backup::format::chunk::ChunkSizes;
use synapse_backup::format::keys;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::ops::prune;
use synapse_backup::ops::{Part, copy, restore, retention};
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::Store;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::Record;

use crate::rig::{LIMITS, init, memory, read, read_stream, restore_options, run, verify};
use crate::small::Home;

const NIGHTS: usize = 200;
const SHORTEST_GRACE: SignedDuration = SignedDuration::from_secs(3);

/// A repository whose marked packs may go after two seconds. No program makes one, and none changes it later.
async fn hasty(store: Arc<dyn Store>) -> Repository {
    let made = init(Arc::clone(&store)).await;
    let info = RepositoryInfo {
        grace_seconds: 2,
        window_seconds: 1,
        chunk_sizes: ChunkSizes {
            min: 1 << 10,
            average: 4 << 10,
            max: 16 << 10,
        },
        ..made.info().clone()
    };
    store.put(keys::REPOSITORY, Bytes::from(info.to_json().unwrap())).await.unwrap();
    open::open(store, Ids::random()).await.unwrap()
}

fn options() -> prune::Options {
    prune::Options {
        dry_run: false,
        keep: retention::Keep {
            daily: Some(7),
            weekly: Some(4),
            monthly: Some(6),
            ..retention::Keep::everything()
        },
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: "/var/tmp".into(),
        limits: LIMITS,
    }
}

/// How many requests a night took.
struct Night {
    backup: usize,
    prune: usize,
}

type Figure = fn(&Night) -> usize;

/// A homeserver, where it is backed up to, and what each kept snapshot must bring back.
struct Story {
    memory: Arc<Memory>,
    repository: Repository,
    home: Home,
    kept: BTreeMap<String, Home>,
    nights: Vec<Night>,
}

impl Story {
    async fn begin() -> Self {
        let memory = memory();
        Self {
            repository: hasty(Arc::clone(&memory) as Arc<dyn Store>).await,
            memory,
            home: Home::new(),
            kept: BTreeMap::new(),
            nights: Vec::new(),
        }
    }

    async fn night(&mut self, night: usize) {
        self.home.day(night);
        let (repository, backup) = self.recorded().await;
        let snapshot = self.home.backup(&repository).await;
        self.kept.insert(snapshot.to_string(), self.home.clone());
        self.memory.clock().advance(SHORTEST_GRACE);
        let (repository, prune) = self.recorded().await;
        let report = prune::prune(&repository, &options(), &run()).await.unwrap();
        for gone in report.snapshots.iter().filter(|one| one.forgotten) {
            self.kept.remove(&gone.id.to_string()).unwrap();
        }
        self.nights.push(Night {
            backup: backup.calls().len(),
            prune: prune.calls().len(),
        });
        self.memory.clock().advance(SignedDuration::from_hours(24));
    }

    /// The repository through a store that counts.
    async fn recorded(&self) -> (Repository, Arc<Record>) {
        let record = Arc::new(Record::new(Arc::clone(&self.memory) as Arc<dyn Store>));
        let repository = open::open(Arc::clone(&record) as Arc<dyn Store>, Ids::random()).await.unwrap();
        (repository, record)
    }

    /// What the kept snapshots take in a repository that never had any other.
    async fn needed(&self) -> usize {
        let other = memory();
        other.clock().advance(self.memory.clock().now().duration_since(other.clock().now()));
        let fresh = hasty(Arc::clone(&other) as Arc<dyn Store>).await;
        let all = copy::Options {
            choice: copy::Choice::All,
            dry_run: false,
            limits: LIMITS,
        };
        let copied = copy::copy(&self.repository, &fresh, &all, &run()).await.unwrap();
        assert_eq!(copied.copied.len(), self.kept.len());
        stored(&other)
    }

    /// The mean of a figure over some nights.
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    fn mean(&self, nights: std::ops::Range<usize>, figure: Figure) -> f64 {
        let count = nights.len();
        self.nights[nights].iter().map(figure).sum::<usize>() as f64 / count as f64
    }
}

/// Everything in the bucket.
fn stored(memory: &Memory) -> usize {
    memory.objects().values().map(Bytes::len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_hundred_nights_the_bucket_is_as_large_as_what_is_kept_and_a_night_as_cheap_as_ever() {
    let mut story = Story::begin().await;
    for night in 1..=NIGHTS {
        story.night(night).await;
        if night % 50 == 0 {
            // What tonight's prune has marked goes with the next one.
            story.memory.clock().advance(SHORTEST_GRACE);
            prune::prune(&story.repository, &options(), &run()).await.unwrap();
            let (stored, needed) = (stored(&story.memory), story.needed().await);
            assert!(stored * 10 <= needed * 12, "night {night}: {stored} bytes, {needed} are needed");
        }
    }
    // By then three more snapshots are kept, of months that had not passed before: each is a GET.
    for (what, figure) in [("backup", (|night| night.backup) as Figure), ("prune", |night| night.prune)] {
        let (early, late) = (story.mean(50..100, figure), story.mean(150..200, figure));
        assert!(late <= early * 1.1, "requests of a {what}: {early}, then {late}");
    }
    assert_eq!(verify(&story.repository).await.problems, []);
    for (snapshot, home) in &story.kept {
        comes_back(&story.repository, snapshot, home).await;
    }
}

/// Streams and media, byte for byte.
async fn comes_back(repository: &Repository, snapshot: &str, home: &Home) {
    assert!(read(repository, snapshot).await.unwrap() == home.events(), "{snapshot}");
    assert!(
        read_stream(repository, snapshot, "state").await.unwrap() == home.state(),
        "{snapshot}"
    );
    let target = tempfile::tempdir().unwrap();
    let to = restore::Options {
        to: Some(target.path().to_owned()),
        parts: [Part::Media].into(),
        ..restore_options()
    };
    let restored = restore::restore(repository, snapshot, &to, &run()).await.unwrap();
    assert_eq!((restored.problems, restored.media_files), (Vec::new(), home.media().count() as u64));
    for (path, bytes) in home.media() {
        let file = target.path().join("media").join(path);
        assert!(std::fs::read(&file).unwrap() == bytes, "{snapshot}: {}", file.display());
    }
}
