//! Putting one file, link or folder back: under a temporary name, with its mode and owner, then into place.
//!
//! Nothing is overwritten: the last step links the file under its name and fails if the name is taken. Folders that
//! are missing on the way are made, and belong to whom the file belongs.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::io::Errno;

/// Whose a file is; `None` leaves it to the process.
pub(super) type Ids = Option<(u32, u32)>;

/// A disk that takes nothing more: what is true of this file is true of all that come after it.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written", .path.display())]
pub(super) struct Full {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Full {
    /// Is it that? Else the error is of this one file.
    pub(super) fn of(path: &Path, error: io::Error) -> Result<Self, io::Error> {
        if is_full(&error) {
            Ok(Self {
                path: path.to_owned(),
                source: error,
            })
        } else {
            Err(error)
        }
    }
}

/// No room is left, or no quota, or the disk has become read-only.
pub(in crate::ops) fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
    Errno::from_io_error(error).is_some_and(|errno| full.contains(&errno))
}

/// Mode of folders that are made on the way.
const FOLDER_MODE: u32 = 0o755;

/// What temporary names begin with, and how many letters follow.
const PENDING_PREFIX: &str = ".synapse-backup-";
const PENDING_LETTERS: usize = 6;

/// Remove what a restore that was killed had begun in this folder (`--resume`). It may hold a secret, and nobody would ever look for it.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // Where we may not look, we have begun nothing, or cannot help it.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(());
        }
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PENDING_PREFIX));
        let is_pending = rest.is_some_and(|rest| rest.len() == PENDING_LETTERS && rest.chars().all(|c| c.is_ascii_alphanumeric()));
        if is_pending && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Make the folders above `path`. `below`: folders from here on up are not ours to make or to change.
pub(super) fn make_parents(path: &Path, ids: Ids) -> io::Result<()> {
    match path.parent() {
        Some(parent) => make_folder(parent, FOLDER_MODE, ids),
        None => Ok(()),
    }
}

/// Make a folder and those above it; one that is there stays as it is.
pub(super) fn make_folder(path: &Path, mode: u32, ids: Ids) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(io::Error::new(
                ErrorKind::NotADirectory,
                format!("{} is not a folder", path.display()),
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = path.parent() {
        make_folder(parent, FOLDER_MODE, ids)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    set(path, mode, ids)
}

/// A folder that the snapshot has: its mode and owner are set although it may be there already.
pub(super) fn put_folder(path: &Path, mode: u32, ids: Ids) -> io::Result<()> {
    make_folder(path, mode, ids)?;
    set(path, mode, ids)
}

fn set(path: &Path, mode: u32, ids: Ids) -> io::Result<()> {
    if let Some((uid, gid)) = ids {
        chown(path, Some(uid), Some(gid))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A file being written under a temporary name beside its place; gone again if it is dropped.
#[derive(Debug)]
pub(super) struct Pending {
    file: tempfile::NamedTempFile,
}

impl Pending {
    /// Begin. The folder must be there.
    pub(super) fn new(target: &Path) -> io::Result<Self> {
        let folder = target.parent().unwrap_or_else(|| Path::new("/"));
        let file = tempfile::Builder::new()
            .prefix(OsStr::new(PENDING_PREFIX))
            .rand_bytes(PENDING_LETTERS)
            .tempfile_in(folder)?;
        Ok(Self { file })
    }

    /// The next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file_mut().write_all(bytes)
    }

    /// Into place, with mode and owner. `durable`: its bytes are on the disk before its name is.
    pub(super) fn finish(self, target: &Path, mode: u32, ids: Ids, durable: bool) -> io::Result<()> {
        let file = self.file.as_file();
        if let Some((uid, gid)) = ids {
            std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        if durable {
            file.sync_all()?;
        }
        self.file.persist_noclobber(target).map_err(|error| error.error)?;
        if durable && let Some(folder) = target.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// A whole file whose blobs are at hand; its bytes are on the disk before its name is.
pub(super) fn put_file(target: &Path, blobs: &[Bytes], mode: u32, ids: Ids) -> io::Result<()> {
    make_parents(target, ids)?;
    let mut pending = Pending::new(target)?;
    for blob in blobs {
        pending.write(blob)?;
    }
    pending.finish(target, mode, ids, true)
}

/// A link, as it was.
pub(super) fn put_link(target: &Path, points_to: &Path, ids: Ids) -> io::Result<()> {
    make_parents(target, ids)?;
    symlink(points_to, target)?;
    match ids {
        Some((uid, gid)) => lchown(target, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
