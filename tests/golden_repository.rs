//! Two whole repositories of format 1, plain and sealed, that were written once and must be read for ever.
//!
//! They lie in `tests/golden/format-1/` and `format-1-sealed/`; `format-1.json` says what is in both: written from what was put in,
//! not from what came out. Today's writer makes repositories of the same content, which must be read alike. The format is
//! frozen, and so are these folders (`docs/format.md`, its last chapter).
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synapse_backup::format::keys;
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::format::{BlobId, FORMAT_VERSION};
use synapse_backup::ops::restore::{self, DatabaseTarget};
use synapse_backup::ops::{Limits, Part, Run, Tools, inspect, stats, verify};
use synapse_backup::progress::Quiet;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::counters::Counters;
use synapse_backup::store::memory::{Clock, Memory};
use synapse_backup::store::{Store, local};
use tokio_util::sync::CancellationToken;

#[path = "golden_repository/build.rs"]
mod build;

const LIMITS: Limits = Limits {
    memory_bytes: 256 << 20,
    connections: 4,
    dump_jobs: 2,
    load_jobs: 2,
};

/// What a repository holds, as a reader must find it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Expected {
    snapshots: Vec<ExpectedSnapshot>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExpectedSnapshot {
    id: String,
    time: String,
    tags: Vec<String>,
    /// `kind item`, of single media files too.
    problems: Vec<String>,
    /// That it was drilled, and whether it passed.
    drilled: Option<bool>,
    /// Name, length and SHA-256 of every item that has bytes.
    items: BTreeMap<String, (u64, String)>,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Golden {
    Plain,
    Sealed,
}

const BOTH: [Golden; 2] = [Golden::Plain, Golden::Sealed];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The identity that opens the sealed one, as `age-keygen` writes it.
fn identity_file() -> PathBuf {
    golden().join("format-1-sealed.identity.txt")
}

fn writer_key_file() -> PathBuf {
    golden().join("format-1-sealed.writer.key")
}

impl Golden {
    fn folder(self) -> PathBuf {
        let ending = if self == Self::Sealed { "-sealed" } else { "" };
        golden().join(format!("format-{FORMAT_VERSION}{ending}"))
    }

    /// Every key that there is.
    fn keyring(self) -> Keyring {
        if self == Self::Plain {
            return Keyring::default();
        }
        let identity = fs::read_to_string(identity_file()).unwrap();
        let identity: synapse_backup::format::seal::Identity =
            identity.lines().find(|line| !line.starts_with('#')).unwrap().parse().unwrap();
        Keyring {
            recipients: vec![identity.recipient()],
            writer: Some(WriterKey::from_text(&fs::read_to_string(writer_key_file()).unwrap()).unwrap()),
            identities: vec![identity],
            ..Keyring::default()
        }
    }

    /// In a folder of its own, since reading a store in a folder asks for its time, and that makes a file there. All files are as old as
    /// this copy, so both snapshots are late.
    async fn in_folder(self, to: &Path) -> Repository {
        copy(&self.folder(), to);
        let store: Arc<dyn Store> = local::open(to, false, Arc::new(Counters::default())).await.unwrap();
        open::open_with(store, Ids::random(), self.keyring()).await.unwrap()
    }

    /// In memory, each snapshot as old as it says.
    async fn in_memory(self) -> (Arc<Memory>, Repository) {
        let mut objects = BTreeMap::new();
        collect(&self.folder(), "", &mut objects);
        let clock = Clock::starting_at("2026-01-01T02:00:00Z".parse().unwrap());
        let memory = Arc::new(Memory::new(clock.clone()));
        for (key, bytes) in objects {
            let name = keys::unsealed(&key).unwrap_or(&key);
            if let Some((time, _)) = keys::parse_snapshot(name) {
                clock.advance(time.duration_since(clock.now()));
            }
            memory.put(&key, bytes.into()).await.unwrap();
        }
        let store: Arc<dyn Store> = memory.clone();
        let repository = open::open_with(store, Ids::random(), self.keyring()).await.unwrap();
        (memory, repository)
    }
}

fn expected() -> Expected {
    let json = fs::read(golden().join(format!("format-{FORMAT_VERSION}.json"))).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn run() -> Run<'static> {
    Run {
        progress: &Quiet,
        cancel: CancellationToken::new(),
    }
}

/// Everything that commands for looking give of a repository.
async fn content(repository: &Repository) -> Expected {
    let mut snapshots = Vec::new();
    let listed = inspect::snapshots(repository, &run()).await.unwrap();
    assert_eq!(listed.problems, []);
    for line in listed.snapshots {
        let mut names = Vec::new();
        let mut note = |item: inspect::ItemLine| {
            names.push(item);
            Ok(())
        };
        inspect::ls(repository, &line.id, "", LIMITS, &run(), &mut note).await.unwrap();
        let mut items = BTreeMap::new();
        for item in names {
            let mut bytes = Vec::new();
            let length = inspect::cat(repository, &line.id, &item.name, LIMITS, &run(), &mut bytes)
                .await
                .unwrap();
            let sha256 = BlobId::of(&bytes).to_string();
            assert_eq!((item.bytes, length), (bytes.len() as u64, bytes.len() as u64), "{}", item.name);
            assert!(item.sha256.is_none_or(|listed| listed == sha256), "{}", item.name);
            items.insert(item.name, (length, sha256));
        }
        let shown = inspect::show(repository, &line.id, true, LIMITS, &run()).await.unwrap();
        assert_eq!(shown.doubt, None);
        let problems = shown
            .problems
            .iter()
            .map(|problem| format!("{} {}", problem.kind.as_str(), problem.item));
        snapshots.push(ExpectedSnapshot {
            id: line.id,
            time: line.time,
            tags: line.tags,
            problems: problems.collect(),
            drilled: line.drilled.map(|drilled| drilled.passed),
            items,
        });
    }
    Expected { snapshots }
}

async fn assert_whole(repository: &Repository) {
    let options = verify::Options {
        snapshot: None,
        read_data: Some(verify::ReadData::Percent(100)),
        repair_index: false,
        tools: None,
        limits: LIMITS,
    };
    let report = verify::verify(repository, &options, &run()).await.unwrap();
    assert_eq!(report.problems, []);
    assert!(report.packs > 0 && report.packs_read == report.packs);
}

/// `stats` counts what is in it, and the condemned pack.
async fn assert_counted(repository: &Repository, expected: &Expected) {
    let options = stats::Options {
        limits: LIMITS,
        spool_folder: std::env::temp_dir(),
    };
    let report = stats::stats(repository, &options, &run()).await.unwrap();
    for (held, expected) in report.snapshots.iter().zip(&expected.snapshots) {
        let bytes: u64 = expected.items.values().map(|(bytes, _)| bytes).sum();
        assert_eq!((&held.id, held.raw_bytes), (&expected.id, bytes));
    }
    assert_eq!(report.snapshots.len(), expected.snapshots.len());
    assert!(report.all.condemned_bytes > 0);
}

fn copy(from: &Path, to: &Path) {
    let mut objects = BTreeMap::new();
    collect(from, "", &mut objects);
    for (key, bytes) in objects {
        let path = to.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// All files below a folder by their keys.
fn collect(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{key}/"), objects);
        } else if key != "README.md" {
            objects.insert(key, fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repositories_of_format_1_are_read_for_ever() {
    for golden in BOTH {
        let scratch = tempfile::tempdir().unwrap();
        let repository = golden.in_folder(&scratch.path().join("repository")).await;
        assert_eq!(content(&repository).await, expected(), "{golden:?}");
        assert_whole(&repository).await;
        assert_counted(&repository, &expected()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repositories_of_format_1_are_restored_for_ever() {
    for golden in BOTH {
        let scratch = tempfile::tempdir().unwrap();
        let (_, repository) = golden.in_memory().await;
        let to = scratch.path().join("there");
        let options = restore::Options {
            to: Some(to.clone()),
            databases: vec![("synapse".into(), DatabaseTarget::Skip)],
            create_database: false,
            parts: [Part::Config, Part::Media].into(),
            path_map: Vec::new(),
            container_path_map: Vec::new(),
            working_directory: None,
            settings_databases: Vec::new(),
            // Not whom the snapshot names, who may be nobody here.
            owner: Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())),
            dry_run: false,
            late: false,
            forget_remote_media: false,
            keep_remote_media_rows: false,
            prefix: None,
            media_share: None,
            uploaded: None,
            resume: false,
            limits: LIMITS,
            tools: Tools::default(),
        };
        let report = restore::restore(&repository, &expected().snapshots[0].id, &options, &run())
            .await
            .unwrap();
        assert_eq!(report.problems, []);
        build::assert_restored(&to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_into_a_repository_of_format_1_finds_everything_in_it() {
    for golden in BOTH {
        let (memory, repository) = golden.in_memory().await;
        let data_packs = async || {
            let known = synapse_backup::repo::catalog::load(&repository, 64 << 20).await.unwrap();
            let data = known
                .packs()
                .iter()
                .filter(|pack| pack.kind != synapse_backup::format::PackKind::Metadata);
            data.map(|pack| pack.id).collect::<std::collections::BTreeSet<_>>()
        };
        let before = data_packs().await;
        build::write_again(&repository, memory.clock().now()).await;
        assert_eq!(data_packs().await, before, "{golden:?}");
        let read = content(&repository).await.snapshots;
        let mut wanted = expected().snapshots;
        assert_eq!((read.len(), &read[2].items), (3, &wanted.swap_remove(1).items), "{golden:?}");
        assert_whole(&repository).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test is told by its environment whether to write")]
async fn the_writer_of_today_makes_the_same_content() {
    for golden in BOTH {
        let (objects, made) = build::repository(golden.keyring()).await;
        let scratch = tempfile::tempdir().unwrap();
        let written = scratch.path().join("written");
        for (key, bytes) in &objects {
            let path = written.join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        // Only while a new format is made: one that is frozen is never written again.
        if std::env::var_os("SYNAPSE_BACKUP_TEST_WRITE_GOLDEN").is_some() {
            assert!(
                !golden.folder().join("repository.json").exists(),
                "it is there already: it is written once"
            );
            copy(&written, &golden.folder());
            let mut json = serde_json::to_vec_pretty(&made).unwrap();
            json.push(b'\n');
            fs::write(self::golden().join(format!("format-{FORMAT_VERSION}.json")), json).unwrap();
        }
        assert_eq!(made, expected(), "{golden:?}");
        let store: Arc<dyn Store> = local::open(&written, false, Arc::new(Counters::default())).await.unwrap();
        let repository = open::open_with(store, Ids::random(), golden.keyring()).await.unwrap();
        assert_eq!(content(&repository).await, made, "{golden:?}");
        assert_whole(&repository).await;
    }
}

/// The program itself, as it is called.
fn call(repository: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
    let url = format!("file://{}", repository.display());
    command.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin");
    command.args(["--repository", &url]).args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reads_them_and_a_sealed_one_only_with_its_identity() {
    let id = expected().snapshots[0].id.clone();
    let identity = format!("--identity={}", identity_file().display());
    let owner = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for golden in BOTH {
        let scratch = tempfile::tempdir().unwrap();
        let repository = scratch.path().join("repository");
        copy(&golden.folder(), &repository);
        let to = scratch.path().join("there");
        let to_text = to.display().to_string();
        let restore = [
            "restore",
            &id,
            "--late",
            "--only",
            "config,media",
            "--owner",
            &owner,
            "--to",
            &to_text,
        ];
        let verbs: [&[&str]; 7] = [
            &["snapshots"],
            &["show", &id],
            &["ls", &id],
            &["cat", &id, "media/local_content/aa/bb/small"],
            &["stats"],
            &["verify"],
            &restore,
        ];
        for verb in verbs {
            if golden == Golden::Sealed {
                let without = call(&repository, verb);
                assert_eq!(
                    without.status.code(),
                    Some(12),
                    "{verb:?}: {}",
                    String::from_utf8_lossy(&without.stderr)
                );
                assert!(!to.exists(), "{verb:?}");
            }
            let with: Vec<&str> = match golden {
                Golden::Plain => verb.to_vec(),
                Golden::Sealed => [identity.as_str()].into_iter().chain(verb.iter().copied()).collect(),
            };
            let output = call(&repository, &with);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{golden:?} {verb:?}: {told}");
            assert!(!output.stdout.is_empty() || verb[0] == "verify" || verb[0] == "restore", "{verb:?}");
        }
        build::assert_restored(&to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_bytes_is_not_printed_as_if_it_were_empty() {
    let (_, repository) = Golden::Plain.in_memory().await;
    let id = &expected().snapshots[0].id;
    for (item, why) in [
        ("config/etc/matrix/secret", "was not saved"),
        ("config/etc/matrix-synapse/log.yaml", "is a link to"),
        ("config/etc/matrix-synapse", "is no file"),
        ("media/local_content/zz/aa/lost", "was not saved"),
        ("config/etc/passwd", "no item"),
    ] {
        let error = inspect::cat(&repository, id, item, LIMITS, &run(), &mut Vec::new())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains(why) && synapse_backup::ops::hint_of(&error).is_some(),
            "{item}: {error:#}"
        );
    }
}
