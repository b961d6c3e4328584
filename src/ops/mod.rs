//! The verbs: free functions that read as a table of contents, and what they share.
//!
//! This is the only floor where the homeserver (`synapse`) and the repository (`repo`) meet. Each verb takes its
//! `Options`, gives back a `Report` that `cli` prints, and knows nothing of terminals, arguments or the environment.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;

pub mod adopt;
pub mod backup;
mod connect;
pub mod copy;
mod debug;
pub mod doctor;
pub mod drill;
pub mod extend;
pub mod forget;
pub mod inspect;
mod items;
pub mod keys;
pub mod owners;
pub mod prune;
pub mod rekey;
pub mod restore;
pub mod retention;
mod signers;
pub mod stats;
pub mod tag;
pub mod verify;

#[cfg(test)]
mod simulation;

/// What every verb is given beside its options: who looks on, and how it is told to stop.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// Sees stages, bytes and problems.
    pub progress: &'a dyn Progress,
    /// Cancelled by Ctrl-C or SIGTERM: the verb cleans up and fails with [`ErrorKind::Interrupted`].
    pub cancel: CancellationToken,
}

impl Run<'_> {
    /// Wait for `work`, unless the run is cancelled first: then it is dropped, and the verb ends as interrupted.
    pub(crate) async fn until_cancelled<T, E: Into<anyhow::Error>>(&self, work: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
        tokio::select! {
            done = work => done.map_err(Into::into),
            () = self.cancel.cancelled() => Err(Error::interrupted().into()),
        }
    }
}

/// What a snapshot is made of, for `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Everything that is neither database nor media: configuration, keys, templates, extra files.
    Config,
    /// The databases.
    Database,
    /// The media store.
    Media,
}

impl Part {
    /// As `--only` has it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Database => "database",
            Self::Media => "media",
        }
    }
}

/// The chosen parts; all three unless `--only` was given.
pub type Parts = BTreeSet<Part>;

/// All parts.
pub fn all_parts() -> Parts {
    [Part::Config, Part::Database, Part::Media].into()
}

/// A share of many things, chosen by their names alone; another salt chooses others.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Of a hundred.
    pub percent: f64,
    /// What makes this choice unlike the next one.
    pub salt: Vec<u8>,
}

impl Share {
    /// Is the thing with this name among the chosen?
    pub fn has(&self, name: &[u8]) -> bool {
        let digest = crate::format::BlobId::of(&[self.salt.as_slice(), name].concat());
        let [a, b, c, d, ..] = *digest.as_bytes();
        f64::from(u32::from_le_bytes([a, b, c, d])) < self.percent / 100.0 * (f64::from(u32::MAX) + 1.0)
    }
}

/// Bounds of a run (settings `limits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bound of the process's memory in bytes; at least 96 MiB. Default 256 MiB.
    pub memory_bytes: u64,
    /// Requests to the store at once. Default 8.
    pub connections: usize,
    /// Dumps (`pg_dump`) of one database at once. Default: the cores, at most 4.
    pub dump_jobs: usize,
    /// Loads (`pg_restore`) into one database at once. Default: the cores, at most 4.
    pub load_jobs: usize,
}

/// Where programs of PostgreSQL are looked for, and the environment that libpq may see.
#[derive(Clone, Default)]
pub struct Tools {
    /// Folders of `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// Exactly this `pg_dump` (settings `postgres.pg_dump`); `psql` and `pg_restore` are taken from beside it.
    pub pg_dump: Option<PathBuf>,
    /// The `PG*` variables of our environment and `HOME`.
    pub environment: Vec<(String, String)>,
}

/// Why a verb failed, where the exit code or the hint depends on it; everything else is exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Exit code 2: the call or the settings are wrong; nothing was touched.
    Usage,
    /// Exit code 1.
    Failed,
    /// Exit code 130.
    Interrupted,
}

/// An error of a verb: one line, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// One line, lower case, no full stop.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Error {
    /// A wrong call: exit code 2.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Usage,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// A failure with a cure: exit code 1.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Failed,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// Told to stop: exit code 130.
    pub fn interrupted() -> Self {
        Self {
            kind: ErrorKind::Interrupted,
            message: "interrupted".into(),
            hint: None,
        }
    }
}

/// The innermost hint of an error's chain: what the user can do.
pub fn hint_of(error: &anyhow::Error) -> Option<String> {
    let hint = |cause: &(dyn std::error::Error + 'static)| {
        let ours = cause.downcast_ref::<Error>().and_then(|error| error.hint.clone());
        ours.or_else(|| cause.downcast_ref::<crate::repo::Error>().and_then(crate::repo::Error::hint))
            .or_else(|| cause.downcast_ref::<crate::store::Error>().and_then(crate::store::Error::hint))
            .or_else(|| cause.downcast_ref::<crate::format::Error>().and_then(crate::format::Error::hint))
            .or_else(|| cause.downcast_ref::<crate::synapse::Error>().and_then(crate::synapse::Error::hint))
            .or_else(|| {
                cause
                    .downcast_ref::<crate::synapse::postgres::Error>()
                    .and_then(crate::synapse::postgres::Error::hint)
            })
    };
    error.chain().filter_map(hint).last()
}
