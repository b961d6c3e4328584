//! Bringing a homeserver back: plan (pure), check that the targets are empty, load, write, keys last.

use std::path::PathBuf;

use serde::Serialize;

use super::{Limits, Parts, Run, Tools};
use crate::format::snapshot::Problem;
use crate::repo::Repository;

/// Where a database of the snapshot goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTarget {
    /// A libpq URL or `key=value` string.
    ConnInfo(String),
    /// `NAME=skip`: leave it out.
    Skip,
}

/// What a restore is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--to DIR`: everything under here; `None` is back in place.
    pub to: Option<PathBuf>,
    /// `--database NAME=CONNINFO`.
    pub databases: Vec<(String, DatabaseTarget)>,
    /// Create the databases as Synapse wants them.
    pub create_database: bool,
    /// What to bring back.
    pub parts: Parts,
    /// `--path-map OLD=NEW`, applied before `to`.
    pub path_map: Vec<(PathBuf, PathBuf)>,
    /// `--owner USER:GROUP` as ids; `None` takes the snapshot's when root.
    pub owner: Option<(u32, u32)>,
    /// Print the plan, write nothing.
    pub dry_run: bool,
    /// Take a late snapshot too.
    pub late: bool,
    /// Bounds.
    pub limits: Limits,
    /// PostgreSQL's programs.
    pub tools: Tools,
}

/// What a restore did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Which snapshot.
    pub snapshot: String,
    /// Config items written.
    pub config_items: u64,
    /// Media files written.
    pub media_files: u64,
    /// Bytes of config and media written.
    pub written_bytes: u64,
    /// Databases loaded.
    pub databases: Vec<String>,
    /// What would be done (dry run), or was done: one line each.
    pub plan: Vec<String>,
    /// What to do next, with this server's values.
    pub next_steps: Vec<String>,
    /// Damaged or unwritable items (exit code 3 when any).
    pub problems: Vec<Problem>,
}

/// Bring a snapshot back. `snapshot` is an id prefix, `latest` or `latest:server_name`.
pub async fn restore(repository: &Repository, snapshot: &str, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let _ = (repository, snapshot, options, run);
    anyhow::bail!("being built")
}
