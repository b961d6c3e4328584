//! Looking: `snapshots`, `show`, `ls`, `cat`.

use serde::Serialize;
use tokio::io::AsyncWrite;

use super::Run;
use crate::format::snapshot::{Problem, Snapshot};
use crate::repo::Repository;

/// One line of `snapshots`.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotLine {
    /// 32 hex digits; a prefix names it.
    pub id: String,
    /// When the database snapshot was exported, by the store's clock (RFC 3339).
    pub time: String,
    /// Whose homeserver.
    pub server_name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// It landed too late and does not count.
    pub late: bool,
    /// How many problems it carries.
    pub problems: u64,
    /// Raw bytes of everything in it.
    pub bytes: u64,
    /// Raw bytes that were new with it.
    pub new_bytes: u64,
    /// Media files in it.
    pub media_files: u64,
}

/// What `snapshots` gives, oldest first.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SnapshotsReport {
    /// All of them, late ones too.
    pub snapshots: Vec<SnapshotLine>,
    /// Snapshot objects that cannot be read, each named (exit code 1 when any).
    pub problems: Vec<Problem>,
}

/// List the snapshots.
pub async fn snapshots(repository: &Repository, run: &Run<'_>) -> anyhow::Result<SnapshotsReport> {
    let _ = (repository, run);
    anyhow::bail!("being built")
}

/// What `show` gives: the document itself; with `all_problems` those of single media files too.
#[derive(Debug)]
pub struct ShowReport {
    /// The document.
    pub snapshot: Snapshot,
    /// It landed too late.
    pub late: bool,
    /// All problems, when asked for.
    pub problems: Vec<Problem>,
}

/// One snapshot.
pub async fn show(repository: &Repository, snapshot: &str, all_problems: bool, run: &Run<'_>) -> anyhow::Result<ShowReport> {
    let _ = (repository, snapshot, all_problems, run);
    anyhow::bail!("being built")
}

/// One line of `ls`.
#[derive(Debug, Clone, Serialize)]
pub struct ItemLine {
    /// `config/…`, `database/<name>/<stream>`, `media/…`.
    pub name: String,
    /// Raw bytes.
    pub bytes: u64,
    /// Where it is known without reading: everything but dump streams.
    pub sha256: Option<String>,
}

/// List the items whose name begins with `prefix`, in order, one call of `line` each.
pub async fn ls(
    repository: &Repository,
    snapshot: &str,
    prefix: &str,
    run: &Run<'_>,
    line: &mut (dyn FnMut(ItemLine) -> anyhow::Result<()> + Send),
) -> anyhow::Result<()> {
    let _ = (repository, snapshot, prefix, run, line);
    anyhow::bail!("being built")
}

/// One item's bytes into `out`. `item` may be `mxc://server/media_id`.
pub async fn cat(
    repository: &Repository,
    snapshot: &str,
    item: &str,
    run: &Run<'_>,
    out: &mut (dyn AsyncWrite + Send + Unpin),
) -> anyhow::Result<u64> {
    let _ = (repository, snapshot, item, run, out);
    anyhow::bail!("being built")
}
