//! Is everything in place for tonight's backup?

use serde::Serialize;

use super::{Run, Tools};
use crate::repo::Repository;
use crate::synapse::Homeserver;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In place.
    Ok,
    /// Works, but somebody should look: exit code 3.
    Warning,
    /// A backup would fail: exit code 1.
    Failure,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// `configuration`, `database synapse`, `pg_dump`, `store` …
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do, unless all is well.
    pub cure: Option<String>,
}

/// What a doctor is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// PostgreSQL's programs.
    pub tools: Tools,
    /// Further databases from the settings.
    pub databases: Vec<(String, String)>,
}

/// All checks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// Look at everything a backup needs. What could not be opened is given as the error it ended with.
pub async fn doctor(
    repository: Result<Repository, anyhow::Error>,
    homeserver: Result<Homeserver, anyhow::Error>,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<Report> {
    let _ = (repository, homeserver, options, run);
    anyhow::bail!("being built")
}
