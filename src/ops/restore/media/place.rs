//! One file of the media store: where it goes and as whose, and how its bytes get there.
//!
//! Which files are written, and in which order, is decided in `media`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{PlannedFile, Unwritten, Written, bytes_at_once};
use crate::format::BlobId;
use crate::format::manifest::MediaEntry;
use crate::format::snapshot::{Media, Problem, ProblemKind};
use crate::ops::items::media_name;
use crate::ops::owners;
use crate::ops::restore::Options;
use crate::ops::restore::write::{self, Full, Ids, Pending};
use crate::repo::reader::{Reader, Wanted};

/// Mode of a file of which the snapshot says nothing.
const MODE: u32 = 0o640;

/// What all files of a restore share.
pub(super) struct Store<'a> {
    pub(super) root: PathBuf,
    media: &'a Media,
    pub(super) defaults: Ids,
    pub(super) options: &'a Options,
    is_root: bool,
    /// With `--to` and `--resume`: the real folder that no link may lead out of. Otherwise there are no links below it yet.
    within: Option<PathBuf>,
}

/// A file with all its bytes, ready to be written.
pub(super) struct Job {
    place: Place,
    content: Result<Vec<Bytes>, String>,
}

/// Where a file goes, and as whose.
pub(super) struct Place {
    name: String,
    pub(super) target: Result<PathBuf, String>,
    mode: u32,
    ids: Ids,
}

impl<'a> Store<'a> {
    pub(super) fn new(root: &Path, media: &'a Media, options: &'a Options) -> Self {
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

    pub(super) fn job(&self, file: &PlannedFile, blobs: &HashMap<BlobId, Result<Bytes, String>>) -> Job {
        let blob = |wanted: &Wanted| blobs.get(&wanted.id).cloned().unwrap_or_else(|| Err("it was not read".into()));
        Job {
            place: self.place(&file.entry),
            content: file.blobs.iter().map(blob).collect(),
        }
    }

    pub(super) fn place(&self, entry: &MediaEntry) -> Place {
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

/// A large file, as many blobs at a time as a window holds.
pub(super) async fn write_large(reader: &Reader, store: &Store<'_>, file: &PlannedFile) -> anyhow::Result<Written> {
    let place = Arc::new(store.place(&file.entry));
    let mut pending = match place.begin() {
        Ok(pending) => pending,
        Err(unwritten) => return Ok(Err(unwritten)),
    };
    let mut bytes = 0;
    let mut rest = file.blobs.as_slice();
    while !rest.is_empty() {
        let blobs;
        (blobs, rest) = rest.split_at(together(rest, bytes_at_once(reader)));
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

/// How many of these blobs hold so many bytes; at least one.
fn together(blobs: &[Wanted], bytes_max: u64) -> usize {
    let mut bytes = 0;
    let fit = blobs.iter().take_while(|blob| {
        bytes += u64::from(blob.length);
        bytes <= bytes_max
    });
    fit.count().max(1).min(blobs.len())
}

/// One after the other, as long as the disk takes any.
pub(super) fn write_all(jobs: Vec<Job>) -> Vec<Written> {
    let mut written = Vec::with_capacity(jobs.len());
    for job in jobs {
        written.push(job.write());
        if matches!(written.last(), Some(Err(Unwritten::All(_)))) {
            break;
        }
    }
    written
}
