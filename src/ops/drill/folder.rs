//! The scratch folder: private, marked as ours, removed at the end, and swept by the next drill if nobody could.
//!
//! A file in it holds our process id for people and a lock for the next drill: the kernel lets go of the lock however
//! this process ends, so a folder whose lock can be had belongs to nobody that lives.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::format::snapshot::Snapshot;
use crate::ops::Error;
use crate::synapse::postgres::private;

/// How the folders begin.
const PREFIX: &str = "synapse-backup-drill-";
/// The file that makes a folder one of ours.
const MARKER: &str = "scratch-of-a-synapse-backup-drill";

/// One scratch folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _marker: File,
}

impl Folder {
    /// A new one below `parent`.
    pub(super) fn new(parent: &Path, snapshot: &Snapshot) -> anyhow::Result<Self> {
        let made = || {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            // The account of the private cluster must get through, and see nothing else.
            fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
            let mut marker = File::create_new(folder.path().join(MARKER))?;
            marker.set_permissions(Permissions::from_mode(0o600))?;
            marker.try_lock()?;
            writeln!(marker, "process {} tries snapshot {} out here", std::process::id(), snapshot.id)?;
            fs::create_dir(folder.path().join("files"))?;
            fs::set_permissions(folder.path().join("files"), Permissions::from_mode(0o700))?;
            Ok::<_, std::io::Error>(Self {
                path: folder.keep(),
                _marker: marker,
            })
        };
        made().map_err(|error| {
            let message = format!("no scratch folder can be made in {}: {error}", parent.display());
            Error::failed(
                message,
                "choose another with --to, where there is room for the databases and the media",
            )
            .into()
        })
    }

    /// Where the restored files are.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// Where the private cluster is.
    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("pg")
    }

    /// Where a started Synapse keeps what it needs.
    pub(super) fn synapse(&self) -> PathBuf {
        self.path.join("synapse")
    }

    /// Away with it.
    pub(super) async fn remove(self) -> anyhow::Result<()> {
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await?;
        removed.with_context(|| format!("remove the scratch folder {}", self.path.display()))
    }
}

/// The marker goes last: a removal that is cut short is carried on by the next sweep.
fn remove(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() != MARKER {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    fs::remove_file(path.join(MARKER))?;
    fs::remove_dir(path)
}

/// Remove what killed drills have left below `parent`. What cannot be removed (another user's) stays, with a word in the log.
pub(super) fn sweep(parent: &Path) {
    for path in fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !named || fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            continue;
        }
        let Ok(marker) = File::open(path.join(MARKER)) else { continue };
        if marker.try_lock().is_err() {
            continue;
        }
        private::end_leftover(&path.join("pg"));
        match remove(&path) {
            Ok(()) => tracing::info!("removed {}, which a drill that was killed has left", path.display()),
            Err(error) => tracing::warn!("{} is left over from a drill and cannot be removed: {error}", path.display()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_are_ours_and_whose_drill_is_dead_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str, marked: bool| {
            let path = parent.path().join(name);
            fs::create_dir_all(path.join("files/deep")).unwrap();
            fs::write(path.join("files/deep/x"), "x").unwrap();
            if marked {
                fs::write(path.join(MARKER), "").unwrap();
            }
            path
        };
        let dead = make("synapse-backup-drill-dead", true);
        let alive = make("synapse-backup-drill-alive", true);
        let unmarked = make("synapse-backup-drill-of-a-person", false);
        let other = make("holidays", true);
        let lock = File::open(alive.join(MARKER)).unwrap();
        lock.try_lock().unwrap();
        sweep(parent.path());
        let left = [&dead, &alive, &unmarked, &other].map(|path| path.exists());
        assert_eq!(left, [false, true, true, true]);
        drop(lock);
        sweep(parent.path());
        assert!(!alive.exists());
    }
}
