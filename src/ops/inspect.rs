//! Looking into a repository: `snapshots`, `show`, `ls`, `cat`.
//!
//! All of them read only, and late snapshots too when they are named (G4); what they print goes to the caller line by line
//! or byte by byte, so that no answer is held in memory.

use anyhow::Context;
use futures::stream::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::items::{self, Found, stop_if_cancelled};
use super::{Limits, Parts, Run, retention, signers};
use crate::format::ObjectId;
use crate::format::drill::Drill;
use crate::format::manifest::MediaEntry;
use crate::format::snapshot::{ConfigItem, ConfigKind, Problem, ProblemKind, Snapshot};
use crate::repo::reader::Reader;
use crate::repo::snapshots::Loaded;
use crate::repo::{Repository, drills, snapshots, tags};

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
    /// What is in it: all three parts, unless `--only` was given.
    pub parts: Parts,
    /// It landed too late and does not count.
    pub late: bool,
    /// Why it is not to be believed, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// How old it is, by the store's clock.
    pub age_seconds: i64,
    /// How many problems it carries.
    pub problems: u64,
    /// Raw bytes of everything in it.
    pub bytes: u64,
    /// Raw bytes that were new with it.
    pub new_bytes: u64,
    /// Media files in it.
    pub media_files: u64,
    /// The newest drill of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drilled: Option<Drilled>,
}

/// That a snapshot was brought back on trial.
#[derive(Debug, Clone, Serialize)]
pub struct Drilled {
    /// When, by the store's clock (RFC 3339).
    pub time: String,
    /// Every check was good.
    pub passed: bool,
}

impl From<&Drill> for Drilled {
    fn from(drill: &Drill) -> Self {
        Self {
            time: drill.time.to_string(),
            passed: drill.passed,
        }
    }
}

/// What `snapshots` gives, oldest first.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SnapshotsReport {
    /// All of them, late ones too.
    pub snapshots: Vec<SnapshotLine>,
    /// The repository is sealed: content opens only with an identity.
    pub sealed: bool,
    /// Snapshot objects that cannot be read, each named (exit code 1 when any).
    pub problems: Vec<Problem>,
}

/// List the snapshots.
pub async fn snapshots(repository: &Repository, run: &Run<'_>) -> anyhow::Result<SnapshotsReport> {
    let (loaded, damaged) = run.until_cancelled(snapshots::load_all(repository)).await?;
    let mut loaded = snapshots::unique(repository, loaded);
    signers::warn(repository, &loaded);
    let now = run.until_cancelled(repository.date()).await?;
    let unread = run.until_cancelled(tags::overlay(repository, &mut loaded)).await?;
    let ids: Vec<ObjectId> = loaded.iter().map(|one| one.snapshot.id).collect();
    let drills = run.until_cancelled(drills::newest(repository, &ids)).await?;
    let snapshots = loaded
        .iter()
        .map(|one| SnapshotLine {
            drilled: drills.get(&one.snapshot.id).map(Drilled::from),
            doubt: repository.doubt(one),
            ..line(one, now)
        })
        .collect();
    let damaged = damaged.into_iter().map(|(key, error)| (key.key, error)).chain(unread);
    let problems = damaged.map(|(item, error)| Problem {
        kind: ProblemKind::Damaged,
        item,
        message: format!("{:#}", anyhow::Error::from(error)),
    });
    Ok(SnapshotsReport {
        snapshots,
        sealed: repository.info().sealed,
        problems: problems.collect(),
    })
}

fn line(one: &Loaded, now: Timestamp) -> SnapshotLine {
    let snapshot = &one.snapshot;
    SnapshotLine {
        id: snapshot.id.to_string(),
        time: one.time().to_string(),
        server_name: snapshot.server_name.clone(),
        tags: one.tags.clone(),
        parts: retention::parts_of(snapshot),
        late: one.late,
        age_seconds: now.duration_since(one.time()).as_secs(),
        problems: snapshot.problem_count(),
        bytes: snapshot.raw_bytes(),
        new_bytes: snapshot.totals.new_bytes,
        media_files: snapshot.media.as_ref().map_or(0, |media| media.files),
        drilled: None,
        doubt: None,
    }
}

/// What `show` gives: the document itself; with `all_problems` those of single media files too.
#[derive(Debug)]
pub struct ShowReport {
    /// The document.
    pub snapshot: Snapshot,
    /// It landed too late.
    pub late: bool,
    /// The newest drill of it.
    pub drilled: Option<Drilled>,
    /// Who has signed it for this repository: what a restorer can pin.
    pub signer: Option<String>,
    /// Why it is not to be believed, where it is not.
    pub doubt: Option<String>,
    /// Problems of the document; when asked for, those of single media files too.
    pub problems: Vec<Problem>,
}

/// One snapshot.
pub async fn show(
    repository: &Repository,
    snapshot: &str,
    all_problems: bool,
    limits: Limits,
    run: &Run<'_>,
) -> anyhow::Result<ShowReport> {
    let mut found = run.until_cancelled(snapshots::find(repository, snapshot, true)).await?;
    run.until_cancelled(tags::overlay(repository, std::slice::from_mut(&mut found)))
        .await?;
    // What is shown are its tags now, not those that it was taken with.
    found.snapshot.tags.clone_from(&found.tags);
    let drills = run.until_cancelled(drills::newest(repository, &[found.snapshot.id])).await?;
    let mut problems = found.snapshot.problems.clone();
    if let (true, Some(media)) = (all_problems, &found.snapshot.media) {
        let reader = run
            .until_cancelled(Reader::open(repository, limits.memory_bytes, limits.connections))
            .await?;
        items::walk_media(&reader, media, b"", run, async |walked| {
            match walked.entries {
                Ok(shard) => problems.extend(shard.entries.into_iter().filter_map(media_problem)),
                Err(error) => problems.push(items::lost_shard(&walked.shard, &error)),
            }
            Ok(())
        })
        .await?;
    }
    Ok(ShowReport {
        signer: repository.signer_of(&found).map(|signer| signer.to_string()),
        doubt: repository.doubt(&found),
        drilled: drills.values().next().map(Drilled::from),
        snapshot: found.snapshot,
        late: found.late,
        problems,
    })
}

/// The media that are lost, `each` told of one after the other. What was only put off to the next run is not lost. Where the list
/// itself cannot be read, it is not known what is lost, and that is an error.
pub async fn losses(
    repository: &Repository,
    snapshot: &str,
    limits: Limits,
    run: &Run<'_>,
    mut each: impl FnMut(Problem) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let found = run.until_cancelled(snapshots::find(repository, snapshot, true)).await?.snapshot;
    let is_loss = |problem: &Problem| problem.item.starts_with("media/") && problem.kind != ProblemKind::Deferred;
    for problem in found.problems.iter().filter(|problem| is_loss(problem)) {
        each(problem.clone())?;
    }
    let Some(media) = &found.media else { return Ok(()) };
    let reader = run
        .until_cancelled(Reader::open(repository, limits.memory_bytes, limits.connections))
        .await?;
    items::walk_media(&reader, media, b"", run, async |walked| {
        let shard = walked
            .entries
            .context("which media are lost is not known: a part of their list cannot be read")?;
        let problems = shard.entries.into_iter().filter_map(media_problem);
        problems.filter(is_loss).try_for_each(&mut each)
    })
    .await
}

fn media_problem(entry: MediaEntry) -> Option<Problem> {
    let problem = entry.problem?;
    Some(Problem {
        kind: problem.kind,
        item: items::media_name(&entry.path),
        message: problem.message,
    })
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

/// Where an `ls` line goes.
pub type LineSink<'a> = &'a mut (dyn FnMut(ItemLine) -> anyhow::Result<()> + Send);

/// List the items whose name begins with `prefix`, in order, one call of `line` each.
pub async fn ls(
    repository: &Repository,
    snapshot: &str,
    prefix: &str,
    limits: Limits,
    run: &Run<'_>,
    line: LineSink<'_>,
) -> anyhow::Result<()> {
    let found = run.until_cancelled(snapshots::find(repository, snapshot, true)).await?.snapshot;
    let mut small: Vec<ItemLine> = Vec::new();
    let has_bytes = |item: &&ConfigItem| item.kind == ConfigKind::File && item.sha256.is_some();
    for item in found.config.iter().filter(has_bytes) {
        small.push(ItemLine {
            name: items::config_name(item),
            bytes: item.bytes,
            sha256: item.sha256.map(|id| id.to_string()),
        });
    }
    small.sort_by(|a, b| a.name.cmp(&b.name));
    for database in &found.databases {
        for stream in &database.streams {
            small.push(ItemLine {
                name: format!("database/{}/{}", database.name, stream.name),
                bytes: stream.list.bytes,
                sha256: None,
            });
        }
    }
    for one in small.into_iter().filter(|one| one.name.starts_with(prefix)) {
        line(one)?;
    }
    let media_prefix = match prefix.strip_prefix("media/") {
        Some(rest) => rest,
        None if "media/".starts_with(prefix) => "",
        None => return Ok(()),
    };
    let Some(media) = &found.media else { return Ok(()) };
    let reader = run
        .until_cancelled(Reader::open(repository, limits.memory_bytes, limits.connections))
        .await?;
    items::walk_media(&reader, media, media_prefix.as_bytes(), run, async |walked| {
        for entry in walked.entries?.entries {
            if entry.sha256.is_some() && entry.path.as_bytes().starts_with(media_prefix.as_bytes()) {
                let sha256 = entry.sha256.map(|id| id.to_string());
                line(ItemLine {
                    name: items::media_name(&entry.path),
                    bytes: entry.bytes,
                    sha256,
                })?;
            }
        }
        Ok(())
    })
    .await
}

/// One item's bytes into `out`. `item` may be `mxc://server/media_id`.
pub async fn cat(
    repository: &Repository,
    snapshot: &str,
    item: &str,
    limits: Limits,
    run: &Run<'_>,
    out: &mut (dyn AsyncWrite + Send + Unpin),
) -> anyhow::Result<u64> {
    let found = run.until_cancelled(snapshots::find(repository, snapshot, true)).await?.snapshot;
    let reader = run
        .until_cancelled(Reader::open(repository, limits.memory_bytes, limits.connections))
        .await?;
    let bytes = match items::find(&reader, &found, item, run).await? {
        Found::List(list) => {
            let mut bytes = 0;
            let mut windows = std::pin::pin!(reader.windows(list));
            while let Some(window) = run.until_cancelled(async { windows.next().await.transpose() }).await? {
                for (_, blob) in window {
                    let blob = blob.with_context(|| format!("read {item}"))?;
                    out.write_all(&blob).await?;
                    bytes += blob.len() as u64;
                }
            }
            bytes
        }
        Found::Media(entry, wanted) => {
            if entry.sha256.is_none() {
                let reason = entry.problem.map_or_else(String::new, |problem| format!(": {}", problem.message));
                return Err(super::Error::failed(format!("{item} was not saved{reason}"), "an older snapshot may have it").into());
            }
            for blob in &wanted {
                stop_if_cancelled(run)?;
                for bytes in reader.fetch(std::slice::from_ref(blob)).await? {
                    out.write_all(&bytes.with_context(|| format!("read {item}"))?).await?;
                }
            }
            entry.bytes
        }
    };
    out.flush().await?;
    Ok(bytes)
}
