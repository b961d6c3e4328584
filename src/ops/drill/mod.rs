//! A drill: bring a snapshot back on trial, beside everything that lives, and compare.
//!
//! The databases are loaded by the same `restore` that a disaster would call, into scratch databases, and the files into
//! a scratch folder. Then the restored things are asked, not our own lists: rows, sequences, media against rows, keys
//! against the configuration. Nothing of it remains, however the drill ends; what was found is recorded in the repository.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::restore::{self, DatabaseTarget};
use super::{Limits, Part, Run, Tools, retention, signers};
use crate::format::FORMAT_VERSION;
use crate::format::drill::{Drill, DrillCheck};
use crate::format::snapshot::{Problem, ProblemKind, Snapshot};
use crate::repo::snapshots::{self, Loaded};
use crate::repo::{self, Repository, drills};

mod alive;
mod checks;
mod databases;
mod facts;
mod files;
mod folder;
mod media;

pub use checks::Check;
use checks::{Checks, Found};

/// Where the databases go.
#[derive(Clone)]
pub enum Databases {
    /// Into a throw-away cluster of our own (`--private-postgres`).
    Private,
    /// `--database NAME=CONNINFO`, each a scratch database on a server that is there.
    Given(Vec<(String, DatabaseTarget)>),
}

/// What is done about the media.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Media {
    /// All files are written and compared with their rows.
    All,
    /// All rows are compared with what was saved; so many percent of the files are written and hashed.
    Sample(f64),
    /// All files are read and hashed, none is written.
    HashOnly,
}

impl std::fmt::Display for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Sample(percent) => write!(f, "sample:{percent}"),
            Self::HashOnly => f.write_str("hash-only"),
        }
    }
}

/// What a drill is told.
#[derive(Clone)]
pub struct Options {
    /// Id prefix, `latest` or `latest:server_name`.
    pub snapshot: String,
    /// Where the databases go.
    pub databases: Databases,
    /// How much of the media.
    pub media: Media,
    /// The folder in which the scratch folder is made.
    pub folder: PathBuf,
    /// The settings' `synapse.path_map`: container path, path here. The configuration speaks of the former.
    pub container_path_map: Vec<(PathBuf, PathBuf)>,
    /// The settings' `synapse.working_directory`.
    pub working_directory: Option<PathBuf>,
    /// Start a Synapse on what came back with this command of a shell, and ask it.
    pub start_synapse: Option<String>,
    /// Take a late snapshot too.
    pub late: bool,
    /// Write no record into the repository.
    pub no_record: bool,
    /// Bounds.
    pub limits: Limits,
    /// PostgreSQL's programs.
    pub tools: Tools,
    /// For the record.
    pub tool_version: String,
}

/// What came of it. Any check that is not ok is exit code 1.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was brought back.
    pub snapshot: String,
    /// Whose it is.
    pub server_name: String,
    /// When it was taken, by the store's clock.
    pub time: String,
    /// Which media: `all`, `sample:PERCENT`, `hash-only`.
    pub media: String,
    /// Every check was good.
    pub passed: bool,
    /// The record stands in the repository.
    pub recorded: bool,
    /// How long it took to bring it back and to look at it, without clearing away.
    pub drill_seconds: f64,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What the checks found, one by one.
    pub problems: Vec<Problem>,
}

/// Bring a snapshot back on trial.
pub async fn drill(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let began = Instant::now();
    let found = run.until_cancelled(choose(repository, options)).await?;
    run.until_cancelled(signers::warn_of_others(repository)).await?;
    if let Databases::Given(given) = &options.databases {
        restore::check_names(&found.snapshot, given)?;
    }
    folder::sweep(&options.folder);
    let folder = folder::Folder::new(&options.folder, &found.snapshot)?;
    let mut stage = databases::Stage::default();
    let trial = Box::pin(try_out(repository, &found.snapshot, &folder, &mut stage, options, run));
    let ended = run.until_cancelled(trial).await;
    let took = began.elapsed();
    // However it ended: nothing of it remains.
    let cleaned = stage.clean().await.context("remove the scratch databases");
    let removed = folder.remove().await;
    let mut checks = ended.map_err(|error| databases::with_room(error, &options.folder))?;
    cleaned?;
    removed?;
    let passed = checks.all_ok();
    let drill_seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
    let recorded = !options.no_record && record(repository, &found.snapshot, &checks, took, options, run).await?;
    let problems = checks.take_problems();
    for problem in &problems {
        run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
    }
    Ok(Report {
        snapshot: found.snapshot.id.to_string(),
        server_name: found.snapshot.server_name.clone(),
        time: found.time().to_string(),
        media: options.media.to_string(),
        passed,
        recorded,
        drill_seconds,
        checks: checks.into_list(),
        problems,
    })
}

/// The snapshot that is meant. One that was taken with `--only` cannot pass: in its place `latest` means the newest whole one of the
/// same homeserver, if there is any, which is told.
async fn choose(repository: &Repository, options: &Options) -> repo::Result<Loaded> {
    let found = snapshots::find(repository, &options.snapshot, options.late).await?;
    // First: what somebody planted is not passed over because he left something out.
    repository.trust(&found)?;
    let is_whole = |snapshot: &Snapshot| retention::parts_of(snapshot).len() == super::all_parts().len();
    let is_latest = options.snapshot == "latest" || options.snapshot.starts_with("latest:");
    if !is_latest || is_whole(&found.snapshot) {
        return Ok(found);
    }
    let [whole] = snapshots::newest_that(repository, Some(&found.snapshot.server_name), [&is_whole]).await?;
    let Some(whole) = whole else { return Ok(found) };
    tracing::warn!(
        "the newest snapshot {} was taken with --only: {} of {} is the newest that is whole",
        found.snapshot.id,
        whole.snapshot.id,
        whole.time()
    );
    Ok(Arc::unwrap_or_clone(whole))
}

/// Load, write, ask.
async fn try_out(
    repository: &Repository,
    snapshot: &Snapshot,
    folder: &folder::Folder,
    stage: &mut databases::Stage,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<Checks> {
    let mut checks = Checks::default();
    check_parts(snapshot, options, &mut checks);
    let trial = Trial {
        repository,
        snapshot,
        folder,
        options,
        run,
    };
    let loaded = databases::load(&trial, stage, &mut checks).await?;
    for database in &loaded {
        facts::check(database, &mut checks).await?;
    }
    files::restore(&trial, &mut checks).await?;
    files::check(&trial, &mut checks).await?;
    media::check(&trial, &loaded, &mut checks).await?;
    alive::check(&trial, &loaded, &mut checks).await?;
    Ok(checks)
}

/// What was left out (`--only`) does not live again, however well the rest comes back.
fn check_parts(snapshot: &Snapshot, options: &Options, checks: &mut Checks) {
    let there = retention::parts_of(snapshot);
    let lacking: Vec<&str> = super::all_parts().difference(&there).map(Part::word).collect();
    let mut found = Found::default();
    if !lacking.is_empty() {
        let message = format!("it has no {}: drill one that was taken without --only", lacking.join(" and no "));
        found.add(ProblemKind::Missing, format!("snapshot {}", snapshot.id), message);
    }
    let own = snapshot.databases.iter().filter(|database| database.name.starts_with("synapse"));
    for database in own.filter(|database| databases::is_skipped(database, options)) {
        let message = "it was left out of the drill, so nothing is known of it";
        found.add(ProblemKind::Missing, format!("database/{}", database.name), message);
    }
    if found.count() > 0 {
        checks.add("parts", format!("{} of 3", there.len()), found);
    }
}

/// What all steps of a drill share.
struct Trial<'a> {
    repository: &'a Repository,
    snapshot: &'a Snapshot,
    folder: &'a folder::Folder,
    options: &'a Options,
    run: &'a Run<'a>,
}

/// Into the repository, so that `snapshots` can tell. A repository that cannot be written to is no reason to fail.
async fn record(
    repository: &Repository,
    snapshot: &Snapshot,
    checks: &Checks,
    took: Duration,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<bool> {
    let check = |check: &Check| DrillCheck {
        name: check.name.clone(),
        ok: check.ok,
        figure: check.figure.clone(),
    };
    let write = async {
        let drill = Drill {
            format: FORMAT_VERSION,
            id: repository.ids().object(),
            snapshot: snapshot.id,
            time: repository.date().await?,
            tool_version: options.tool_version.clone(),
            passed: checks.all_ok(),
            seconds: took.as_secs(),
            media: options.media.to_string(),
            checks: checks.list().iter().map(check).collect(),
        };
        drills::record(repository, &drill).await
    };
    match run.until_cancelled(async { Ok::<_, anyhow::Error>(write.await) }).await? {
        Ok(()) => Ok(true),
        Err(error) => {
            tracing::warn!(
                "the drill could not be recorded in the repository: {:#}",
                anyhow::Error::from(error)
            );
            Ok(false)
        }
    }
}
