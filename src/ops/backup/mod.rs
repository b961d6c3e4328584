//! The story of a backup, stage by stage.

use serde::Serialize;

use super::{Limits, Parts, Run, Tools};
use crate::format::snapshot::Problem;
use crate::repo::Repository;
use crate::synapse::Homeserver;

/// What a backup is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to take.
    pub parts: Parts,
    /// Tags of the new snapshot.
    pub tags: Vec<String>,
    /// Read every media file again instead of trusting unchanged rows.
    pub full: bool,
    /// Find out what would be done; send nothing, commit nothing.
    pub dry_run: bool,
    /// Include `local_thumbnails` (default true).
    pub thumbnails: bool,
    /// Include `remote_content` and its thumbnails (default false).
    pub remote: bool,
    /// Include the URL preview cache (default false).
    pub url_cache: bool,
    /// Bounds.
    pub limits: Limits,
    /// PostgreSQL's programs.
    pub tools: Tools,
    /// Further databases from the settings, dumped after Synapse's own: name and libpq conninfo or URL.
    pub databases: Vec<(String, String)>,
    /// This program's version, for the snapshot.
    pub tool_version: String,
}

/// Media of one run, by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MediaReport {
    /// Files in the snapshot.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were read and sent, or found by content.
    pub new: u64,
    /// Files taken over from the last snapshot without opening them.
    pub unchanged: u64,
    /// Rows whose file is not there.
    pub missing: u64,
    /// Put off to the next run.
    pub deferred: u64,
    /// Thumbnails whose file is not there: they heal themselves.
    pub thumbnails_missing: u64,
}

/// A database of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseReport {
    /// `synapse`, `synapse-<label>`, or the settings' name.
    pub name: String,
    /// Raw bytes of its streams.
    pub read_bytes: u64,
    /// Raw bytes that the repository did not have.
    pub new_bytes: u64,
    /// How many streams.
    pub streams: u64,
    /// How many tables.
    pub tables: u64,
}

/// What a backup did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The new snapshot's id; `None` for a dry run.
    pub snapshot: Option<String>,
    /// The store's time of the database snapshot.
    pub time: Option<String>,
    /// Whose homeserver.
    pub server_name: String,
    /// Raw bytes read from the homeserver.
    pub read_bytes: u64,
    /// Raw bytes that the repository did not have.
    pub new_bytes: u64,
    /// Config items in the snapshot.
    pub config_items: u64,
    /// The media.
    pub media: MediaReport,
    /// The databases.
    pub databases: Vec<DatabaseReport>,
    /// What is wrong with single items (exit code 3 when any); at most 1,000 here, all in the snapshot.
    pub problems: Vec<Problem>,
    /// All of them.
    pub problem_count: u64,
}

/// Take a snapshot of a homeserver.
pub async fn backup(repository: &Repository, homeserver: &Homeserver, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let _ = (repository, homeserver, options, run);
    anyhow::bail!("being built")
}
