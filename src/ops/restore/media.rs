//! Media back into their store: shard by shard, in coalesced reads, each file under a temporary name until it is whole.
//!
//! The files of a few shards are read together in windows of bounded size. A file that is lost or cannot be written is
//! a problem; the rest is written. Folders are synced once at the end, not once a file.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::choice::Choice;
use super::plan::Plan;
use super::write::{self, Full, Ids, Pending};
use super::{Options, Report};
use crate::format::BlobId;
use crate::format::manifest::{MediaEntry, Shard};
use crate::format::snapshot::{Media, Problem, ProblemKind, Snapshot};
use crate::ops::items::{self, media_name};
use crate::ops::{Error, Run, owners};
use crate::repo::reader::{Reader, Wanted};

mod there;

pub(super) use there::count as count_there;

/// Mode of a file of which the snapshot says nothing.
const MODE: u32 = 0o640;
/// Windows of files that are read and written at once.
const WINDOWS_AT_ONCE: usize = 4;

/// What all files of a restore share.
struct Store<'a> {
    root: PathBuf,
    media: &'a Media,
    defaults: Ids,
    options: &'a Options,
    is_root: bool,
    /// With `--to` and `--resume`: the real folder that no link may lead out of. Otherwise there are no links below it yet.
    within: Option<PathBuf>,
}

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
    let mut waiting = Waiting::default();
    let mut lost = Vec::new();
    items::walk_media(reader, media, choice.prefix(), run, async |walked| {
        match walked.entries {
            Ok(shard) => lost.extend(waiting.add(&shard, &choice)),
            Err(error) => note(report, items::lost_shard(&walked.shard, &error), run),
        }
        if waiting.is_full(reader) {
            write_files(reader, &store, std::mem::take(&mut waiting), report, run).await?;
        }
        Ok(())
    })
    .await?;
    write_files(reader, &store, waiting, report, run).await?;
    if choice.is_part() {
        tell_of_part(lost, report, run)?;
    }
    let root = root.clone();
    let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(File::open(root)?).map_err(std::io::Error::from)).await?;
    synced.context("write the media to the disk")?;
    run.progress.done("media");
    Ok(())
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

/// Whoever asks for some media is told which of them the backup did not get, and that there are none at all.
fn tell_of_part(lost: Vec<Problem>, report: &mut Report, run: &Run<'_>) -> Result<(), Error> {
    for problem in lost {
        note(report, problem, run);
    }
    if report.media_files + report.media_kept == 0 && report.problems.is_empty() {
        let hint = "`ls SNAPSHOT media/` lists the media of a snapshot; another one may have them";
        return Err(Error::failed("no media of this snapshot are what was asked for", hint));
    }
    Ok(())
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

/// Write these files: small ones in windows, large ones as streams.
async fn write_files(reader: &Reader, store: &Store<'_>, waiting: Waiting, report: &mut Report, run: &Run<'_>) -> anyhow::Result<()> {
    let mut files = waiting.files;
    if store.options.resume {
        let there;
        (files, there) = there::split(store, files).await?;
        there::sweep(store, &files).await.context("look at what is there")?;
        report.media_kept += there;
    }
    // Files of the same pack together: they are read in few requests.
    files.sort_by_key(|file| file.blobs.first().and_then(|blob| blob.hint));
    let is_over = AtomicBool::new(false);
    let mut windows = stream::iter(windows(files, reader.window_bytes() / WINDOWS_AT_ONCE as u64))
        .map(|window| async {
            if is_over.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
            write_window(reader, store, window, run).await
        })
        .buffer_unordered(WINDOWS_AT_ONCE);
    let mut ended = Ok(());
    while let Some(written) = windows.next().await {
        // What is being written is waited for even then, so that nothing is written after the end.
        if let Err(error) = written.and_then(|written| count(written, report, run)) {
            is_over.store(true, Ordering::Relaxed);
            ended = ended.and(Err(error));
        }
    }
    ended
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
        && file.entry.bytes > reader.window_bytes() / WINDOWS_AT_ONCE as u64
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

/// One after the other, as long as the disk takes any.
fn write_all(jobs: Vec<Job>) -> Vec<Written> {
    let mut written = Vec::with_capacity(jobs.len());
    for job in jobs {
        written.push(job.write());
        if matches!(written.last(), Some(Err(Unwritten::All(_)))) {
            break;
        }
    }
    written
}

/// A file with all its bytes, ready to be written.
struct Job {
    place: Place,
    content: Result<Vec<Bytes>, String>,
}

/// Where a file goes, and as whose.
struct Place {
    name: String,
    target: Result<PathBuf, String>,
    mode: u32,
    ids: Ids,
}

impl<'a> Store<'a> {
    fn new(root: &Path, media: &'a Media, options: &'a Options) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let (uid, gid) = (media.uid.unwrap_or(0), media.gid.unwrap_or(0));
        let as_it_was = owners::Owners::default().ids(media.owner.as_deref(), media.group.as_deref(), uid, gid);
        Self {
            root: root.to_owned(),
            media,
            defaults: is_root.then(|| options.owner.unwrap_or(as_it_was)),
            options,
            is_root,
            within: options
                .to
                .as_ref()
                .filter(|to| options.resume && root.starts_with(to))
                .and_then(|to| fs::canonicalize(to).ok()),
        }
    }

    /// Would this be written outside of `--to`, over a link that an earlier restore has left?
    fn leads_out(&self, target: &Path) -> bool {
        let Some(within) = &self.within else { return false };
        let there = target.ancestors().skip(1).find(|path| fs::symlink_metadata(path).is_ok());
        there.is_some_and(|there| !fs::canonicalize(there).is_ok_and(|real| real.starts_with(within)))
    }

    fn job(&self, file: &PlannedFile, blobs: &HashMap<BlobId, Result<Bytes, String>>) -> Job {
        let blob = |wanted: &Wanted| blobs.get(&wanted.id).cloned().unwrap_or_else(|| Err("it was not read".into()));
        Job {
            place: self.place(&file.entry),
            content: file.blobs.iter().map(blob).collect(),
        }
    }

    fn place(&self, entry: &MediaEntry) -> Place {
        let relative = Path::new(OsStr::from_bytes(entry.path.as_bytes()));
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
        let target = self.root.join(relative);
        let target = if !inside {
            Err("its path leads out of the media store".to_owned())
        } else if self.leads_out(&target) {
            Err(format!("a link above {} leads out of the folder of --to", target.display()))
        } else {
            Ok(target)
        };
        let ids = if self.is_root && self.options.owner.is_none() && (entry.uid.is_some() || entry.gid.is_some()) {
            let (uid, gid) = self.defaults.unwrap_or((0, 0));
            Some((entry.uid.unwrap_or(uid), entry.gid.unwrap_or(gid)))
        } else {
            self.defaults
        };
        Place {
            name: media_name(&entry.path),
            target,
            mode: entry.mode.or(self.media.mode).unwrap_or(MODE),
            ids,
        }
    }
}

impl Place {
    fn problem(&self, kind: ProblemKind, message: String) -> Problem {
        Problem {
            kind,
            item: self.name.clone(),
            message,
        }
    }

    fn damaged(&self, message: String) -> Unwritten {
        Unwritten::One(self.problem(ProblemKind::Damaged, message))
    }

    fn target(&self) -> Result<&Path, Unwritten> {
        self.target.as_deref().map_err(|message| self.damaged(message.clone()))
    }

    fn io(&self, target: &Path, error: std::io::Error) -> Unwritten {
        match Full::of(target, error) {
            Ok(full) => Unwritten::All(full),
            Err(error) => Unwritten::One(self.problem(ProblemKind::Unreadable, format!("cannot be written: {error}"))),
        }
    }

    fn begin(&self) -> Result<Pending, Unwritten> {
        let target = self.target()?;
        let begun = write::make_parents(target, self.ids).and_then(|()| Pending::new(target));
        begun.map_err(|error| self.io(target, error))
    }

    fn write(&self, pending: &mut Pending, blob: &Bytes) -> Result<u64, Unwritten> {
        let target = self.target()?;
        let written = pending.write(blob).map(|()| blob.len() as u64);
        written.map_err(|error| self.io(target, error))
    }

    fn finish(&self, pending: Pending) -> Result<(), Unwritten> {
        let target = self.target()?;
        let finished = pending.finish(target, self.mode, self.ids, false);
        finished.map_err(|error| self.io(target, error))
    }
}

impl Job {
    fn write(self) -> Written {
        let content = self.content.map_err(|message| self.place.damaged(message))?;
        let mut pending = self.place.begin()?;
        let mut bytes = 0;
        for blob in content {
            bytes += self.place.write(&mut pending, &blob)?;
        }
        self.place.finish(pending)?;
        Ok(bytes)
    }
}

/// A large file, a few blobs at a time.
async fn write_large(reader: &Reader, store: &Store<'_>, file: &PlannedFile) -> anyhow::Result<Written> {
    let place = Arc::new(store.place(&file.entry));
    let mut pending = match place.begin() {
        Ok(pending) => pending,
        Err(unwritten) => return Ok(Err(unwritten)),
    };
    let mut bytes = 0;
    for blobs in file.blobs.chunks(2) {
        for blob in reader.fetch(blobs).await? {
            let blob = match blob {
                Ok(blob) => blob,
                Err(error) => return Ok(Err(place.damaged(format!("{:#}", anyhow::Error::from(error))))),
            };
            let to = Arc::clone(&place);
            let (back, written) = tokio::task::spawn_blocking(move || {
                let written = to.write(&mut pending, &blob);
                (pending, written)
            })
            .await?;
            pending = back;
            match written {
                Ok(more) => bytes += more,
                Err(unwritten) => return Ok(Err(unwritten)),
            }
        }
    }
    Ok(place.finish(pending).map(|()| bytes))
}
