//! A whole repository that was written once, in `tests/golden/format-1/`, and that must be read for ever.
//!
//! `tests/golden/format-1.json` says what is in it: written from what was put in, not from what came out. Today's
//! writer makes a repository of the same content, which must be read alike. To write both anew (only while the format
//! may still change, see the README in the folder), remove them and run
//! `SYNAPSE_BACKUP_TEST_WRITE_GOLDEN=1 cargo test --test golden_repository`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synapse_backup::format::{BlobId, FORMAT_VERSION};
use synapse_backup::ops::restore::{self, DatabaseTarget};
use synapse_backup::ops::{Limits, Part, Run, Tools, inspect, verify};
use synapse_backup::progress::Quiet;
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::counters::Counters;
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
    /// Name, length and SHA-256 of every item that has bytes.
    items: BTreeMap<String, (u64, String)>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
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
    for line in inspect::snapshots(repository, &run()).await.unwrap().snapshots {
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
        let problems = shown
            .problems
            .iter()
            .map(|problem| format!("{} {}", problem.kind.as_str(), problem.item));
        snapshots.push(ExpectedSnapshot {
            id: line.id,
            time: line.time,
            tags: line.tags,
            problems: problems.collect(),
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

/// Opened where it cannot be changed: reading a store in a folder asks for its time, and that makes a file.
async fn open_copy(folder: &Path, to: &Path) -> Repository {
    copy(folder, to);
    let store: Arc<dyn Store> = local::open(to, false, Arc::new(Counters::default())).await.unwrap();
    open::open(store, Ids::random()).await.unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repository_of_format_1_is_read_for_ever() {
    // The folder's files are as old as the checkout, so all snapshots are late: commands that look take them all the
    // same, a restore takes them when it is told to.
    let scratch = tempfile::tempdir().unwrap();
    let folder = golden().join(format!("format-{FORMAT_VERSION}"));
    let repository = open_copy(&folder, &scratch.path().join("repository")).await;
    assert_eq!(content(&repository).await, expected());
    assert_whole(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repository_of_format_1_is_restored_for_ever() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = golden().join(format!("format-{FORMAT_VERSION}"));
    let repository = open_copy(&folder, &scratch.path().join("repository")).await;
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
        late: true,
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

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test is told by its environment whether to write")]
async fn the_writer_of_today_makes_the_same_content() {
    let (objects, expected) = build::repository().await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("written");
    for (key, bytes) in &objects {
        let path = folder.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let repository = open_copy(&folder, &scratch.path().join("repository")).await;
    assert_eq!(content(&repository).await, expected);
    assert_whole(&repository).await;
    if std::env::var_os("SYNAPSE_BACKUP_TEST_WRITE_GOLDEN").is_some() {
        let golden = golden().join(format!("format-{FORMAT_VERSION}"));
        assert!(!golden.join("repository.json").exists(), "it is there already: it is written once");
        copy(&folder, &golden);
        let mut json = serde_json::to_vec_pretty(&expected).unwrap();
        json.push(b'\n');
        fs::write(golden.with_extension("json"), json).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_bytes_is_not_printed_as_if_it_were_empty() {
    let scratch = tempfile::tempdir().unwrap();
    let repository = open_copy(&golden().join("format-1"), &scratch.path().join("repository")).await;
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
