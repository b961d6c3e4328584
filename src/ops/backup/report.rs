//! What a backup reports: how much was read and sent, what became of the media, and the problems.
//!
//! `cli` prints it for people and for programs; the names of its fields are those of the JSON report. What is counted on
//! the wire is not here: the store's counters know that.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Taken, Writer, media, read_bytes};
use crate::format::snapshot::{Problem, ProblemKind, Snapshot};
use crate::repo::extend::Extended;
use crate::synapse::Homeserver;

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
    /// Lost, and that is accepted.
    pub accepted: u64,
    /// Unchanged files that were looked at, though not opened.
    pub audited: u64,
    /// Thumbnails whose file is not there: they heal themselves.
    pub thumbnails_missing: u64,
    /// Files with fewer bytes than their row says.
    pub short: u64,
    /// Files with more bytes than their row says, or that changed while they were read.
    pub changed: u64,
    /// Files with another SHA-256 than Synapse recorded.
    pub hash_differs: u64,
    /// Files that could not be read.
    pub unreadable: u64,
    /// Folders, FIFOs and the like in the place of files.
    pub not_a_file: u64,
    /// Rows of uploads that are not finished: nothing to save yet, and no problem.
    pub not_uploaded: u64,
    /// Quarantined uploads; they are saved like all others.
    pub quarantined: u64,
    /// Rows whose file is gone because Synapse deleted the medium meanwhile; no problem.
    pub deleted: u64,
    /// Of the new files, those that were read from a storage provider.
    pub elsewhere: u64,
}

impl MediaReport {
    /// One more problem of a kind that has a count of its own.
    pub(super) fn count(&mut self, kind: ProblemKind) {
        match kind {
            ProblemKind::Short => self.short += 1,
            ProblemKind::Changed => self.changed += 1,
            ProblemKind::HashDiffers => self.hash_differs += 1,
            ProblemKind::Unreadable => self.unreadable += 1,
            ProblemKind::NotAFile => self.not_a_file += 1,
            _ => {}
        }
    }

    /// What is no problem and yet worth a look, for the document.
    pub(super) fn notes(&self) -> BTreeMap<String, u64> {
        let notes = [
            ("not_uploaded", self.not_uploaded),
            ("quarantined", self.quarantined),
            ("thumbnails_missing", self.thumbnails_missing),
        ];
        notes
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    }
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
    /// What was held longer under Object Lock, where the settings ask for it.
    pub object_lock: Option<Extended>,
}

/// The report of what was taken; of a dry run, where nothing was committed.
pub(super) fn of(committed: Option<&Snapshot>, taken: &Taken, writer: &Writer, homeserver: &Homeserver) -> Report {
    let media = taken.media.as_ref().map(|media| &media.counts);
    let mut problems = taken.config.problems.clone();
    let problem_count = problems.len() as u64 + media.map_or(0, |counts| counts.problem_count);
    problems.extend(media.into_iter().flat_map(|counts| counts.problems.iter().cloned()));
    problems.truncate(media::PROBLEMS_NAMED_MAX);
    Report {
        snapshot: committed.map(|snapshot| snapshot.id.to_string()),
        time: Some(taken.time.to_string()),
        server_name: homeserver.server_name.clone(),
        read_bytes: read_bytes(taken),
        new_bytes: writer.new_bytes(),
        config_items: taken.config.items.len() as u64,
        media: media.map(|counts| counts.report.clone()).unwrap_or_default(),
        databases: taken.databases.reports.clone(),
        problems,
        problem_count,
        object_lock: None,
    }
}
