//! The verbs in short: a store in memory, a repository in it, and options as `cli` would make them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::keys;
use synapse_backup::format::snapshot::{Problem, ProblemKind, Snapshot};
use synapse_backup::ops::backup::{self, Report};
use synapse_backup::ops::restore::{self, DatabaseTarget};
use synapse_backup::ops::{Limits, Run, Tools, all_parts, inspect, verify};
use synapse_backup::progress::{Progress, Quiet};
use synapse_backup::repo::{Ids, Repository, open, snapshots};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::{Clock, Memory};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, SUPERUSER, shared};
use crate::homeserver::Home;
use crate::hook::Hook;

/// The least memory, so that little waits in it.
pub(crate) const LIMITS: Limits = Limits {
    memory_bytes: 96 << 20,
    connections: 4,
    dump_jobs: 2,
    load_jobs: 2,
};

/// A store whose clock stands at a fixed time.
pub(crate) fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(Clock::starting_at("2026-11-01T00:00:00Z".parse().unwrap())))
}

/// The same store, whose clock goes on by a second with every snapshot, so that one of them is the newest.
pub(crate) fn ticking(memory: &Arc<Memory>) -> Arc<dyn Store> {
    let clock = memory.clock().clone();
    Arc::new(Hook::new(Arc::clone(memory) as Arc<dyn Store>, move |kind, key| {
        if kind == Kind::Put && key.starts_with(keys::SNAPSHOTS) {
            clock.advance(SignedDuration::from_secs(1));
        }
        None
    }))
}

/// A repository in a store of its own.
pub(crate) async fn fresh() -> Repository {
    fresh_in(&memory()).await
}

/// A new repository in this store.
pub(crate) async fn fresh_in(memory: &Arc<Memory>) -> Repository {
    init(ticking(memory)).await
}

/// The same objects in another store of the same time.
pub(crate) async fn copy_of(memory: &Memory) -> Arc<Memory> {
    let copy = Arc::new(Memory::new(Clock::starting_at(memory.clock().now())));
    for (key, bytes) in memory.objects() {
        copy.put(&key, bytes).await.unwrap();
    }
    copy
}

pub(crate) async fn init(store: Arc<dyn Store>) -> Repository {
    open::init(store, Ids::random()).await.unwrap()
}

pub(crate) async fn reopen(store: Arc<dyn Store>) -> Repository {
    open::open(store, Ids::random()).await.unwrap()
}

pub(crate) fn run() -> Run<'static> {
    run_with(&Quiet)
}

pub(crate) fn run_with(progress: &dyn Progress) -> Run<'_> {
    Run {
        progress,
        cancel: CancellationToken::new(),
    }
}

pub(crate) fn tools() -> Tools {
    Tools {
        path: vec![shared().bin.clone()],
        ..Tools::default()
    }
}

pub(crate) fn options() -> backup::Options {
    backup::Options {
        parts: all_parts(),
        tags: Vec::new(),
        full: false,
        audit_percent: 0.0,
        accepted_losses: HashSet::new(),
        media_time: None,
        dry_run: false,
        thumbnails: true,
        remote: false,
        url_cache: false,
        limits: LIMITS,
        tools: tools(),
        databases: Vec::new(),
        spool_folder: std::env::temp_dir(),
        tool_version: "0".into(),
    }
}

/// A backup that must end well; with what it reports.
pub(crate) async fn backup(repository: &Repository, home: &Home) -> Report {
    backup::backup(repository, &home.discover(), &options(), &run()).await.unwrap()
}

/// A backup that may fail; the whole chain of the error is its text.
pub(crate) async fn try_backup(repository: &Repository, home: &Home, run: &Run<'_>) -> Result<Report, String> {
    backup::backup(repository, &home.discover(), &options(), run)
        .await
        .map_err(|error| format!("{error:#}"))
}

/// Every byte of these snapshots: all of them, or one.
pub(crate) async fn verify(repository: &Repository, snapshot: Option<&str>) -> Vec<Problem> {
    let options = verify::Options {
        snapshot: snapshot.map(str::to_owned),
        read_data: Some(verify::ReadData::Percent(100)),
        repair_index: false,
        tools: Some(tools()),
        limits: LIMITS,
    };
    verify::verify(repository, &options, &run()).await.unwrap().problems
}

/// What `show --problems` names: kind and item, sorted.
pub(crate) async fn shown(repository: &Repository, snapshot: &str) -> Vec<(ProblemKind, String)> {
    let report = inspect::show(repository, snapshot, true, LIMITS, &run()).await.unwrap();
    named(&report.problems)
}

/// Kind and item of problems, sorted.
pub(crate) fn named(problems: &[Problem]) -> Vec<(ProblemKind, String)> {
    let mut named: Vec<_> = problems.iter().map(|problem| (problem.kind, problem.item.clone())).collect();
    named.sort();
    named
}

/// Ids of the snapshots that are listed.
pub(crate) async fn listed(repository: &Repository) -> Vec<String> {
    let report = inspect::snapshots(repository, &run()).await.unwrap();
    assert_eq!(report.problems, []);
    report.snapshots.into_iter().filter(|one| !one.late).map(|one| one.id).collect()
}

pub(crate) async fn document(repository: &Repository, id: &str) -> Snapshot {
    snapshots::find(repository, id, true).await.unwrap().snapshot
}

/// What `cat` gives.
pub(crate) async fn cat(repository: &Repository, snapshot: &str, item: &str) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    inspect::cat(repository, snapshot, item, LIMITS, &run(), &mut out).await?;
    Ok(out)
}

/// The keys in a store that begin so.
pub(crate) fn keys_of(memory: &Memory, prefix: &str) -> Vec<String> {
    memory.objects().into_keys().filter(|key| key.starts_with(prefix)).collect()
}

/// The key under which a snapshot is.
pub(crate) fn key_of(snapshot: &Snapshot) -> String {
    keys::snapshot(snapshot.time, snapshot.id).unwrap()
}

/// `--to` this folder, and the database into that one.
pub(crate) fn restore_to(to: &Path, cluster: &Cluster, database: &str) -> restore::Options {
    restore::Options {
        to: Some(to.to_owned()),
        databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(conninfo(cluster, database)))],
        create_database: false,
        parts: all_parts(),
        prefix: None,
        media_share: None,
        uploaded: None,
        resume: false,
        forget_remote_media: false,
        keep_remote_media_rows: false,
        path_map: Vec::new(),
        container_path_map: Vec::new(),
        working_directory: None,
        settings_databases: Vec::new(),
        owner: None,
        dry_run: false,
        late: false,
        limits: LIMITS,
        tools: tools(),
    }
}

/// `--to` this folder, without any database.
pub(crate) fn restore_files_to(to: &Path) -> restore::Options {
    restore::Options {
        databases: vec![("synapse".into(), DatabaseTarget::Skip)],
        ..restore_to(to, shared(), "")
    }
}

pub(crate) fn conninfo(cluster: &Cluster, database: &str) -> String {
    format!(
        "host={} port={} user={SUPERUSER} dbname='{database}'",
        cluster.socket.display(),
        cluster.port
    )
}

pub(crate) async fn restore(repository: &Repository, snapshot: &str, options: &restore::Options) -> Result<restore::Report, String> {
    restore::restore(repository, snapshot, options, &run())
        .await
        .map_err(|error| format!("{error:#}"))
}
