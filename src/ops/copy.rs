//! Snapshots into another repository: a second site, another vendor, other recipients.
//!
//! The rules of a restore at the source, those of a backup at the destination, with the destination's clock. Only what the
//! destination lacks is sent. A snapshot arrives as it was, to the byte, or not at all; a copy that was cut short goes on
//! where it was when it is run again, since what it sent is in the destination's index.

use std::collections::{BTreeSet, HashSet};

use anyhow::Context;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::items::{self, config_name, stop_if_cancelled};
use super::{Error, Limits, Run};
use crate::format::snapshot::{Problem, ProblemKind, Snapshot};
use crate::format::{ObjectId, PackKind};
use crate::repo::attempts::{self, Attempt};
use crate::repo::commit;
use crate::repo::reader::Reader;
use crate::repo::snapshots::{self, Loaded};
use crate::repo::transfer::Transfer;
use crate::repo::writer::{Budget, Writer};
use crate::repo::{self, Repository, catalog, tags};

/// Which snapshots.
#[derive(Debug, Clone)]
pub enum Choice {
    /// These; late ones are refused.
    Named(Vec<String>),
    /// All that count and whose time is not before this.
    Since(Timestamp),
    /// All that count.
    All,
}

/// What a copy is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which snapshots.
    pub choice: Choice,
    /// Tell what would be copied; send nothing.
    pub dry_run: bool,
    /// Bounds.
    pub limits: Limits,
}

/// A snapshot of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its id, the same on both sides.
    pub id: String,
    /// Its time.
    pub time: String,
    /// Whose homeserver.
    pub server_name: String,
}

/// What a copy did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Where to.
    pub to: String,
    /// Snapshots that are there now and were not before (with a dry run: that would be copied), oldest first.
    pub copied: Vec<Line>,
    /// How many were there already.
    pub present: u64,
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Raw bytes that the destination did not have.
    pub new_bytes: u64,
    /// Changes of tags that were brought along: of what was copied now, and of what was there already.
    pub tag_changes: u64,
    /// Snapshots that could not be copied whole: exit code 3.
    pub problems: Vec<Problem>,
}

/// Snapshots that are committed together: lists and shards that they share are read once.
const SNAPSHOTS_TOGETHER_MAX: usize = 16;
/// After so many new bytes what is whole is committed first.
const BYTES_TOGETHER_MAX: u64 = 4 << 30;

/// Reading has this share of `limits.memory`, writing the rest: of 256 MiB 64, with two windows of 8.
const READER_SHARE: u64 = 4;
const WINDOW_SHARE: u64 = 32;
const WINDOW_BYTES_MIN: u64 = 4 << 20;
const WINDOW_BYTES_MAX: u64 = 64 << 20;
/// A read that is on its way takes a piece of a pack and a frame; there is one for so many bytes of `limits.memory`.
const READ_SHARE_BYTES: u64 = 64 << 20;

/// Copy snapshots from one repository into another.
pub async fn copy(source: &Repository, destination: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    if source.info().id == destination.info().id {
        let hint = "give --to another repository, made by `synapse-backup init`";
        return Err(Error::usage("source and destination are the same repository", hint).into());
    }
    let chosen = run.until_cancelled(choose(source, &options.choice)).await?;
    let mut there: BTreeSet<ObjectId> = chosen.iter().map(|one| one.snapshot.id).collect();
    let (waiting, present) = run.until_cancelled(missing(destination, chosen)).await?;
    let mut report = Report {
        to: destination.url().to_owned(),
        present,
        ..Report::default()
    };
    if options.dry_run {
        for one in &waiting {
            match source.doubt(one) {
                None => report.copied.push(line(one)),
                Some(reason) => report
                    .problems
                    .push(problem(ProblemKind::Damaged, one, format!("it is not authentic: {reason}"))),
            }
        }
        return Ok(report);
    }
    let limits = options.limits;
    let reads = usize::try_from(limits.memory_bytes / READ_SHARE_BYTES).unwrap_or(usize::MAX);
    let reader = Reader::open(source, limits.memory_bytes / READER_SHARE, limits.connections.min(reads.max(1)));
    let reader = run
        .until_cancelled(async { reader.await.context("load the index of the source") })
        .await?
        .with_windows((limits.memory_bytes / WINDOW_SHARE).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX));
    let count = waiting.len() as u64;
    run.progress.stage("copy", None, Some(count));
    let mut rest = waiting.as_slice();
    while !rest.is_empty() {
        let taken = session(&reader, destination, rest, options, &mut report, run).await?;
        rest = &rest[taken..];
    }
    run.progress.done("copy");
    let copied: HashSet<&str> = report.copied.iter().map(|line| line.id.as_str()).collect();
    for one in waiting.iter().filter(|one| !copied.contains(one.snapshot.id.to_string().as_str())) {
        there.remove(&one.snapshot.id);
    }
    let (tag_changes, damaged) = run
        .until_cancelled(async {
            tags::carry(source, destination, &there)
                .await
                .context("bring the changes of tags along")
        })
        .await?;
    report.tag_changes = tag_changes;
    for (key, error) in damaged {
        tracing::warn!("{key} is passed over: {:#}", anyhow::Error::from(error));
    }
    if report.copied.is_empty() && !report.problems.is_empty() {
        let hint = "`synapse-backup verify` of the source tells what is lost; other snapshots may be whole";
        return Err(Error::failed(first_problem(&report), hint).into());
    }
    Ok(report)
}

fn first_problem(report: &Report) -> String {
    let first = report.problems.first();
    first.map_or_else(String::new, |problem| format!("{}: {}", problem.item, problem.message))
}

fn problem(kind: ProblemKind, loaded: &Loaded, message: String) -> Problem {
    Problem {
        kind,
        item: format!("snapshot {}", loaded.snapshot.id),
        message,
    }
}

fn line(loaded: &Loaded) -> Line {
    Line {
        id: loaded.snapshot.id.to_string(),
        time: loaded.time().to_string(),
        server_name: loaded.snapshot.server_name.clone(),
    }
}

/// R1: the snapshots that are wanted, oldest first.
async fn choose(source: &Repository, choice: &Choice) -> anyhow::Result<Vec<Loaded>> {
    let mut chosen = Vec::new();
    match choice {
        Choice::Named(names) => {
            for name in names {
                chosen.push(snapshots::find(source, name, false).await?);
            }
        }
        Choice::All | Choice::Since(_) => {
            let (loaded, damaged) = snapshots::load_all(source).await.context("list the snapshots")?;
            for (key, error) in damaged {
                tracing::warn!("{} is passed over: {:#}", key.key, anyhow::Error::from(error));
            }
            let since = |one: &Loaded| !matches!(choice, Choice::Since(since) if one.time() < *since);
            chosen.extend(snapshots::unique(source, loaded).into_iter().filter(|one| !one.late && since(one)));
        }
    }
    chosen.sort_by_key(Loaded::time);
    let mut seen = HashSet::new();
    chosen.retain(|one| seen.insert(one.snapshot.id));
    Ok(chosen)
}

/// Those that the destination does not have, and how many it has.
async fn missing(destination: &Repository, chosen: Vec<Loaded>) -> anyhow::Result<(Vec<Loaded>, u64)> {
    let wanted: HashSet<ObjectId> = chosen.iter().map(|one| one.snapshot.id).collect();
    let mut there = HashSet::new();
    for key in snapshots::list(destination)
        .await
        .context("list the snapshots of the destination")?
    {
        let counts = |one: Loaded| !one.late && destination.doubt(&one).is_none();
        if wanted.contains(&key.id) && snapshots::load(destination, &key).await?.is_some_and(counts) {
            there.insert(key.id);
        }
    }
    let missing = chosen.into_iter().filter(|one| !there.contains(&one.snapshot.id));
    Ok((missing.collect(), there.len() as u64))
}

/// The first few of these, in one session of writing; gives how many were dealt with.
async fn session(
    reader: &Reader,
    destination: &Repository,
    snapshots: &[Loaded],
    options: &Options,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<usize> {
    let memory_bytes = options.limits.memory_bytes;
    let budget = Budget::new(memory_bytes - memory_bytes / READER_SHARE, options.limits.connections);
    let load = async || {
        let load = catalog::load_or_metadata(destination, budget.catalog_bytes);
        run.until_cancelled(async { load.await.context("load the index of the destination") })
            .await
    };
    let done = attempts::attempts(destination, &budget, load, async |writer, _| {
        let session = Session {
            reader,
            writer,
            choice: &options.choice,
            lookup_bytes: budget.catalog_bytes,
            run,
        };
        run.until_cancelled(Box::pin(session.attempt(snapshots))).await
    });
    let done = done.await?;
    report.problems.extend(done.problems);
    report.copied.extend(done.copied);
    report.blobs += done.blobs;
    report.new_bytes += done.new_bytes;
    Ok(done.taken)
}

/// Reading, writing, and who looks on.
struct Session<'a> {
    reader: &'a Reader,
    writer: &'a Writer,
    choice: &'a Choice,
    /// Blobs may wait in so many bytes until they are looked for in the destination's index, where that does not fit into them.
    lookup_bytes: usize,
    run: &'a Run<'a>,
}

/// What a session came to.
#[derive(Default)]
struct Done {
    taken: usize,
    copied: Vec<Line>,
    blobs: u64,
    new_bytes: u64,
    problems: Vec<Problem>,
}

impl Session<'_> {
    async fn attempt(&self, snapshots: &[Loaded]) -> anyhow::Result<Attempt<Done>> {
        let mut done = Done::default();
        let mut whole: Vec<(&Loaded, Bytes)> = Vec::new();
        let mut transfer = Transfer::new(self.reader, self.writer, self.lookup_bytes);
        for loaded in snapshots.iter().take(SNAPSHOTS_TOGETHER_MAX) {
            done.taken += 1;
            match self.one(&mut transfer, loaded).await {
                Ok(Some(object)) => whole.push((loaded, object)),
                Ok(None) => done.problems.extend(self.forgotten(loaded)),
                Err(error) if is_damage(&error) => {
                    transfer.give_up();
                    // R3: the snapshot is gone, or this is damage.
                    let still = snapshots::list(self.reader.repository())
                        .await?
                        .iter()
                        .any(|key| key.key == loaded.key.key);
                    let problem = if still {
                        Some(self.problem(ProblemKind::Damaged, loaded, format!("it cannot be copied whole: {error:#}")))
                    } else {
                        self.forgotten(loaded)
                    };
                    done.problems.extend(problem);
                }
                Err(error) => return Err(error),
            }
            if transfer.done().new_bytes >= BYTES_TOGETHER_MAX {
                break;
            }
        }
        let transferred = transfer.finish().await.context("write the packs")?;
        (done.blobs, done.new_bytes) = (transferred.blobs, transferred.new_bytes);
        let relied = match attempts::finish(self.writer, &BTreeSet::new()).await.context("finish the packs")? {
            Attempt::Done(relied) => relied,
            Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
        };
        for (loaded, object) in whole {
            let committed = commit::commit_again(self.writer.repository(), &relied, &object).await;
            match Attempt::of(committed).context("commit the snapshot")? {
                Attempt::Done(_) => done.copied.push(line(loaded)),
                Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
            }
            self.run.progress.advance("copy", 0, 1);
        }
        Ok(Attempt::Done(done))
    }

    /// Somebody forgot it at the source after it was listed. Who asked for all did not ask for this one.
    fn forgotten(&self, loaded: &Loaded) -> Option<Problem> {
        let message = "it was forgotten meanwhile";
        if let Choice::Named(_) = self.choice {
            return Some(self.problem(ProblemKind::Missing, loaded, message.into()));
        }
        tracing::warn!("snapshot {}: {message}", loaded.snapshot.id);
        None
    }

    fn problem(&self, kind: ProblemKind, loaded: &Loaded, message: String) -> Problem {
        let problem = problem(kind, loaded, message);
        self.run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
        problem
    }

    /// All blobs of a snapshot; gives its object, or nothing if it was forgotten meanwhile. What is not authentic here must not be
    /// signed over there.
    async fn one(&self, transfer: &mut Transfer<'_>, loaded: &Loaded) -> anyhow::Result<Option<Bytes>> {
        let source = self.reader.repository();
        let Some((found, object)) = snapshots::load_object(source, &loaded.key).await? else {
            return Ok(None);
        };
        source.trust(&found)?;
        let snapshot = &found.snapshot;
        for database in &snapshot.databases {
            for stream in &database.streams {
                let copied = transfer.list(PackKind::Database, &stream.list).await;
                copied.with_context(|| format!("database/{}/{}", database.name, stream.name))?;
            }
        }
        for item in &snapshot.config {
            let copied = transfer.list(PackKind::Media, &item.list).await;
            copied.with_context(|| config_name(item))?;
        }
        self.media(transfer, snapshot).await?;
        transfer.settle().await?;
        Ok(Some(object))
    }

    async fn media(&self, transfer: &mut Transfer<'_>, snapshot: &Snapshot) -> anyhow::Result<()> {
        let Some(media) = &snapshot.media else { return Ok(()) };
        transfer.list(PackKind::Metadata, &media.shards).await.context("the media list")?;
        items::walk_media(self.reader, media, b"", self.run, async |walked| {
            stop_if_cancelled(self.run)?;
            if transfer.was_seen(walked.shard.blob) {
                return Ok(());
            }
            let shard = walked.entries.with_context(|| items::media_name(&walked.shard.first))?;
            for entry in &shard.entries {
                let copied = transfer.blobs(PackKind::Media, &items::wanted(&shard, entry)).await;
                copied.with_context(|| items::media_name(&entry.path))?;
            }
            transfer.blob(PackKind::Metadata, walked.shard.blob, walked.bytes).await?;
            Ok(())
        })
        .await
    }
}

/// The snapshot is at fault, not the store.
fn is_damage(error: &anyhow::Error) -> bool {
    let of = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(repo::Error::Lost { .. } | repo::Error::Damaged { .. } | repo::Error::NotAuthentic { .. }) => Some(true),
        // Any other error of the repository stands above what caused it.
        Some(_) => Some(false),
        None => cause.is::<crate::format::Error>().then_some(true),
    };
    error.chain().find_map(of).unwrap_or(false)
}
