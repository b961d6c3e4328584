//! `tag`: put tags on a snapshot and take others off, without touching the snapshot.
//!
//! What is written is a change beside it (see [`crate::repo::tags`]), so a writer that may not delete can tag too.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Error, Run};
use crate::repo::{Repository, snapshots, tags};

/// The changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Put on.
    pub add: BTreeSet<String>,
    /// Taken off.
    pub remove: BTreeSet<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Its id.
    pub snapshot: String,
    /// Its tags now.
    pub tags: Vec<String>,
}

/// One call does not say two things about one tag.
pub fn check(options: &Options) -> Result<(), Error> {
    let Some(tag) = options.add.intersection(&options.remove).next() else {
        return Ok(());
    };
    let hint = "say once what is to become of each tag";
    Err(Error::usage(format!("`{tag}` would be put on and taken off at once"), hint))
}

/// Change the tags of the snapshot that `name` means; a late one too.
pub async fn tag(repository: &Repository, name: &str, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    check(options)?;
    let found = run.until_cancelled(snapshots::find(repository, name, true)).await?;
    let tags = run
        .until_cancelled(tags::change(repository, &found, &options.add, &options.remove))
        .await?;
    Ok(Report {
        snapshot: found.snapshot.id.to_string(),
        tags,
    })
}
