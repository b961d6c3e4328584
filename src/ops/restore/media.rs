//! Media back into their store: shard by shard, in coalesced reads, each file under a temporary name until it is whole.
//!
//! The files of a few shards are read together in windows of bounded size. A file that is lost or cannot be written is
//! a problem; the rest is written. Folders are synced once at the end, not once a file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use bytes::Bytes;
use futures::future;
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;

use self::place::{Store, write_all, write_large};
use super::choice::Choice;
use super::plan::Plan;
use super::write::{self, Full};
use super::{Options, Report};
use crate::format::BlobId;
use crate::format::manifest::{MediaEntry, Shard};
use crate::format::snapshot::{Media, Problem, Snapshot};
use crate::ops::items::{self, media_name};
use crate::ops::{Error, Run};
use crate::repo::reader::{Reader, Wanted};

mod place;
mod there;

pub(super) use there::count as count_there;

/// Windows of files that are read and written at once.
const WINDOWS_AT_ONCE: usize = 4;

/// A file and the blobs it is made of.
struct PlannedFile {
    entry: MediaEntry,
    blobs: Vec<Wanted>,
}

/// How writing one file ended.
type Written = Result<u64, Unwritten>;

/// Why a file could not be written.
enum Unwritten {
    /// It alone.
    One(Problem),
    /// Nor can any other.
    All(Full),
}

/// Write all media of the plan.
pub(super) async fn write(
    reader: &Reader,
    snapshot: &Snapshot,
    plan: &Plan,
    options: &Options,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<()> {
    let (Some(root), Some(media)) = (&plan.media, &snapshot.media) else {
        return Ok(());
    };
    let store = Store::new(root, media, options);
    write::make_folder(root, 0o755, store.defaults).map_err(|error| cannot(root, error))?;
    let choice = Choice::make(reader, snapshot, options, run).await?;
    run.progress.stage("media", Some(media.bytes), Some(media.files));
    let (plans, planned) = mpsc::channel(1);
    let planning = plan_files(reader, media, &choice, plans, run);
    let (planned, written) = future::join(planning, write_files(reader, &store, planned, report, run)).await;
    // A writer that has ended ends the planning too: its reason is the one to tell.
    written?;
    items::stop_if_cancelled(run)?;
    for problem in planned? {
        note(report, problem, run);
    }
    if choice.is_part() && report.media_files + report.media_kept == 0 && report.problems.is_empty() {
        let hint = "`ls SNAPSHOT media/` lists the media of a snapshot; another one may have them";
        return Err(Error::failed("no media of this snapshot are what was asked for", hint).into());
    }
    let root = root.clone();
    let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(File::open(root)?).map_err(std::io::Error::from)).await?;
    synced.context("write the media to the disk")?;
    run.progress.done("media");
    Ok(())
}

/// Walk the shards, and hand on what is to be written, some files at a time. Gives what is chosen and was not saved, if not all is chosen.
async fn plan_files(
    reader: &Reader,
    media: &Media,
    choice: &Choice,
    plans: mpsc::Sender<Waiting>,
    run: &Run<'_>,
) -> anyhow::Result<Vec<Problem>> {
    let mut waiting = Waiting::default();
    let mut not_saved = Vec::new();
    items::walk_media(reader, media, choice.prefix(), run, async |walked| {
        match walked.entries {
            Ok(shard) => not_saved.extend(waiting.add(&shard, choice)),
            Err(error) => waiting.problems.push(items::lost_shard(&walked.shard, &error)),
        }
        if waiting.is_full(reader) {
            plans.send(std::mem::take(&mut waiting)).await.context("nothing more is written")?;
        }
        Ok(())
    })
    .await?;
    plans.send(waiting).await.context("nothing more is written")?;
    Ok(not_saved)
}

fn cannot(path: &Path, error: std::io::Error) -> anyhow::Error {
    let hint = "run as root or as the user of Synapse, or restore with --to";
    match Full::of(path, error) {
        Ok(full) => full.into(),
        Err(error) => Error::failed(format!("{} cannot be made: {error}", path.display()), hint).into(),
    }
}

fn note(report: &mut Report, problem: Problem, run: &Run<'_>) {
    run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
    report.problems.push(problem);
}

fn not_saved(entry: &MediaEntry) -> Option<Problem> {
    let problem = entry.problem.as_ref()?;
    Some(Problem {
        kind: problem.kind,
        item: media_name(&entry.path),
        message: format!("it was not saved: {}", problem.message),
    })
}

/// Files that are planned and not yet written.
#[derive(Default)]
struct Waiting {
    files: Vec<PlannedFile>,
    bytes: u64,
    /// Shards that are lost.
    problems: Vec<Problem>,
}

/// Files that are planned before some are written.
const WAITING_FILES_MAX: usize = 8_192;

impl Waiting {
    /// Plan what is chosen of a shard; gives what is chosen and was not saved.
    fn add(&mut self, shard: &Shard, choice: &Choice) -> Vec<Problem> {
        let (saved, lost): (Vec<_>, Vec<_>) = shard
            .entries
            .iter()
            .filter(|entry| choice.has(entry))
            .partition(|entry| entry.sha256.is_some());
        for entry in saved {
            self.bytes += entry.bytes;
            self.files.push(PlannedFile {
                entry: entry.clone(),
                blobs: items::wanted(shard, entry),
            });
        }
        if choice.is_part() {
            lost.into_iter().filter_map(not_saved).collect()
        } else {
            Vec::new()
        }
    }

    fn is_full(&self, reader: &Reader) -> bool {
        self.files.len() >= WAITING_FILES_MAX || self.bytes >= 2 * reader.window_bytes()
    }
}

/// Write the files as they are planned: small ones in windows, large ones as streams; so many at once, whichever plan they are of.
async fn write_files(
    reader: &Reader,
    store: &Store<'_>,
    plans: mpsc::Receiver<Waiting>,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<()> {
    let is_over = AtomicBool::new(false);
    let plans = stream::unfold(plans, async |mut plans| Some((plans.recv().await?, plans)));
    let steps = plans.then(|waiting| steps(reader, store, waiting)).flat_map(|steps| match steps {
        Ok(steps) => stream::iter(steps).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    });
    let steps = steps.take_while(|_| future::ready(!is_over.load(Ordering::Relaxed) && !run.cancel.is_cancelled()));
    let written = steps.map(|step| async {
        let step = step?;
        let files = write_window(reader, store, step.window, run).await?;
        anyhow::Ok((step.kept, step.problems, files))
    });
    let mut written = std::pin::pin!(written.buffer_unordered(WINDOWS_AT_ONCE));
    let mut ended = Ok(());
    while let Some(step) = written.next().await {
        let counted = step.and_then(|(kept, problems, files)| {
            report.media_kept += kept;
            for problem in problems {
                note(report, problem, run);
            }
            count(files, report, run)
        });
        // What is being written is waited for even then, so that nothing is written after the end.
        if let Err(error) = counted {
            is_over.store(true, Ordering::Relaxed);
            ended = ended.and(Err(error));
        }
    }
    ended
}

/// What is done at once: a window of files, with what became known before it.
#[derive(Default)]
struct Step {
    /// Files that are there already.
    kept: u64,
    problems: Vec<Problem>,
    window: Vec<PlannedFile>,
}

async fn steps(reader: &Reader, store: &Store<'_>, waiting: Waiting) -> anyhow::Result<Vec<Step>> {
    let mut files = waiting.files;
    let mut known = Step {
        problems: waiting.problems,
        ..Step::default()
    };
    if store.options.resume {
        (files, known.kept) = there::split(store, files).await?;
        there::sweep(store, &files).await.context("look at what is there")?;
    }
    // As they lie in the packs: what is read together lies together. An index that is not in memory is not asked for this alone.
    files.sort_by_key(|file| file.blobs.first().and_then(|blob| blob.hint));
    let first: Vec<Wanted> = files.iter().filter_map(|file| file.blobs.first().copied()).collect();
    let first = if reader.catalog().truncated { Vec::new() } else { first };
    let located = reader.locate(&first).await?.into_iter();
    let places: HashMap<BlobId, _> = located.map(|(blob, at)| (blob.id, (at.pack, at.blob.frame_offset))).collect();
    files.sort_by_key(|file| file.blobs.first().and_then(|blob| places.get(&blob.id)));
    let windows = windows(files, bytes_at_once(reader));
    let windows = windows.into_iter().map(|window| Step { window, ..Step::default() });
    Ok([known].into_iter().chain(windows).collect())
}

fn count(written: Vec<Written>, report: &mut Report, run: &Run<'_>) -> anyhow::Result<()> {
    for file in written {
        match file {
            Ok(bytes) => {
                report.media_files += 1;
                report.written_bytes += bytes;
            }
            Err(Unwritten::One(problem)) => note(report, problem, run),
            Err(Unwritten::All(full)) => return Err(full.into()),
        }
    }
    Ok(())
}

/// Bytes of files that are in memory for one of the windows.
fn bytes_at_once(reader: &Reader) -> u64 {
    reader.window_bytes() / WINDOWS_AT_ONCE as u64
}

/// Files that together fit a window; one that does not fit any stands alone.
fn windows(files: Vec<PlannedFile>, bytes_max: u64) -> Vec<Vec<PlannedFile>> {
    let mut windows: Vec<Vec<PlannedFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        bytes += file.entry.bytes;
        match windows.last_mut() {
            Some(window) if bytes <= bytes_max => window.push(file),
            _ => {
                bytes = file.entry.bytes;
                windows.push(vec![file]);
            }
        }
    }
    windows
}

async fn write_window(reader: &Reader, store: &Store<'_>, window: Vec<PlannedFile>, run: &Run<'_>) -> anyhow::Result<Vec<Written>> {
    if let [file] = window.as_slice()
        && file.entry.bytes > bytes_at_once(reader)
    {
        let written = write_large(reader, store, file).await?;
        run.progress.advance("media", file.entry.bytes, 1);
        return Ok(vec![written]);
    }
    let mut seen = HashSet::new();
    let wanted: Vec<Wanted> = window
        .iter()
        .flat_map(|file| &file.blobs)
        .filter(|blob| seen.insert(blob.id))
        .copied()
        .collect();
    let fetched = reader.fetch(&wanted).await?;
    let blobs: HashMap<BlobId, Result<Bytes, String>> = wanted
        .iter()
        .zip(fetched)
        .map(|(wanted, blob)| (wanted.id, blob.map_err(|error| format!("{:#}", anyhow::Error::from(error)))))
        .collect();
    let jobs: Vec<_> = window.iter().map(|file| store.job(file, &blobs)).collect();
    let bytes = window.iter().map(|file| file.entry.bytes).sum();
    let written = tokio::task::spawn_blocking(move || write_all(jobs)).await?;
    run.progress.advance("media", bytes, window.len() as u64);
    Ok(written)
}
