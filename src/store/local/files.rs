//! The blocking work of the local store: write, move into place, read, remove, and tell the time.
//!
//! Everything here is plain `std::fs` and `rustix`, to be called where blocking is allowed. A crash at any point leaves
//! at most a file in [`SCRATCH`], which no listing shows and which may be removed while nobody writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::super::error::Cause;
use super::super::uploads::OpenUpload;
use super::super::{ByteRange, Got, Head, Stamp, UploadId};

/// The folder of unfinished files, directly below the root.
pub(super) const SCRATCH: &str = ".unfinished";

/// Where the objects are.
#[derive(Debug)]
pub(super) struct Root {
    directory: PathBuf,
}

/// Keys name files below the root and nothing else.
pub(super) fn is_key(key: &str) -> bool {
    let parts_are_good = key.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    parts_are_good && key.split('/').next() != Some(SCRATCH)
}

/// Names in the scratch folder.
fn is_scratch(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_hexdigit())
}

impl Root {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn open(&self, directory: &Path, create: bool) -> io::Result<()> {
        if create && !directory.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            sync_directory(directory.parent())?;
        }
        let metadata = fs::metadata(&self.directory)?;
        if metadata.is_dir() {
            Ok(())
        } else {
            Err(ErrorKind::NotADirectory.into())
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        fs::metadata(&self.directory).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    /// A new name in the scratch folder, which is there afterwards.
    pub(super) fn scratch(&self) -> io::Result<PathBuf> {
        let folder = self.directory.join(SCRATCH);
        if let Err(error) = fs::create_dir(&folder)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(folder.join(hex::encode(name)))
    }

    /// What lies in the scratch folder: of runs that were killed, and of those at work.
    pub(super) fn scratch_files(&self) -> io::Result<Vec<OpenUpload>> {
        let entries = match fs::read_dir(self.directory.join(SCRATCH)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // One that is gone meanwhile has been finished.
            let Ok(metadata) = entry.metadata() else { continue };
            // What is not ours is left alone, so it is not told of either.
            if !is_scratch(&name) || !metadata.is_file() {
                continue;
            }
            found.push(OpenUpload {
                key: format!("{SCRATCH}/{name}"),
                id: UploadId(name),
                begun: changed(&metadata)?,
            });
        }
        Ok(found)
    }

    /// Remove what a killed run left in the scratch folder; fine if it is gone.
    pub(super) fn remove_scratch(&self, name: &str) -> io::Result<()> {
        if !is_scratch(name) {
            return Ok(());
        }
        match fs::remove_file(self.directory.join(SCRATCH).join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Make a new file in the scratch folder, let `fill` write it, sync it and move it to its key.
    pub(super) fn put(&self, key: &str, body: &[u8]) -> io::Result<Stamp> {
        let scratch = Scratch(self.scratch()?);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&scratch.0)?;
        file.write_all(body)?;
        file.sync_all()?;
        drop(file);
        self.place(&scratch.0, key)?;
        self.stamp()
    }

    pub(super) fn copy(&self, from: &str, to: &str) -> io::Result<Stamp> {
        let mut source = self.regular(from)?;
        let scratch = Scratch(self.scratch()?);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&scratch.0)?;
        io::copy(&mut source, &mut file)?;
        file.sync_all()?;
        drop(file);
        self.place(&scratch.0, to)?;
        self.stamp()
    }

    /// Give a finished file its name. An object that is there already stays: with the same bytes (two prunes may write
    /// the same marker) that is fine, with others it is an error.
    pub(super) fn place(&self, finished: &Path, key: &str) -> io::Result<()> {
        let target = self.path(key);
        let folder = target.parent().unwrap_or(&self.directory);
        self.make_folders(folder)?;
        match rename_without_overwrite(finished, &target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !same_bytes(finished, &target)? {
                    return Err(error);
                }
                fs::remove_file(finished)?;
            }
            result => result?,
        }
        sync_directory(Some(folder))
    }

    /// Make the folders of a key, each synced into the one above it. Never the root itself: that it is missing is news.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        let mut missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|path| *path != self.directory && !path.is_dir())
            .collect();
        while let Some(path) = missing.pop() {
            match fs::create_dir(path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_directory(path.parent())?,
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &str, range: ByteRange) -> io::Result<Got> {
        let file = self.regular(key)?;
        let metadata = file.metadata()?;
        range.admit(key, metadata.len()).map_err(io::Error::other)?;
        let (start, end) = range.within(metadata.len());
        let length = usize::try_from(end - start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, start)?;
        let last_modified = changed(&metadata)?;
        Ok(Got {
            bytes: bytes.into(),
            object_bytes: metadata.len(),
            last_modified,
            date: self.now_or(last_modified)?,
        })
    }

    pub(super) fn head(&self, key: &str) -> io::Result<Head> {
        let metadata = self.regular(key)?.metadata()?;
        let last_modified = changed(&metadata)?;
        Ok(Head {
            bytes: metadata.len(),
            last_modified,
            date: self.now_or(last_modified)?,
        })
    }

    pub(super) fn delete(&self, key: &str) -> io::Result<Stamp> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(path.parent())?,
            // Also when there is no such folder; but not when the whole store has gone.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.is_missing() => {}
            Err(error) => return Err(error),
        }
        self.stamp()
    }

    fn regular(&self, key: &str) -> io::Result<File> {
        let file = match File::open(self.path(key)) {
            // `a/b` where `a` is an object: S3 has no folders, so there is simply no such object.
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(ErrorKind::NotFound.into()),
            result => result?,
        };
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(ErrorKind::NotFound.into())
        }
    }

    /// The file system's clock: the ctime of a file made just now, or of the root, touched, where there is no room for a file.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        let metadata = match self.made_now() {
            Err(error) if is_full(error.kind()) => self.touched()?,
            made => made?,
        };
        Ok(Stamp { date: changed(&metadata)? })
    }

    fn made_now(&self) -> io::Result<fs::Metadata> {
        let scratch = Scratch(self.scratch()?);
        OpenOptions::new().write(true).create_new(true).open(&scratch.0)?.metadata()
    }

    /// Times are changed in place. The file system takes them, and the ctime, from its own clock.
    pub(super) fn touched(&self) -> io::Result<fs::Metadata> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(CWD, &self.directory, &times, AtFlags::empty())?;
        fs::metadata(&self.directory)
    }

    /// The file system's clock, or, where it cannot be asked, the newest time seen there. That is never later than its clock,
    /// so it makes nothing look older than it is; and who cannot write commits nothing.
    pub(super) fn now_or(&self, newest: Timestamp) -> io::Result<Timestamp> {
        match self.stamp() {
            Err(error) if cannot_tell(error.kind()) => Ok(newest),
            result => result.map(|stamp| stamp.date),
        }
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Nothing can be written there by this user, or by anybody.
fn cannot_tell(kind: ErrorKind) -> bool {
    is_full(kind) || matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

/// A file that is removed when it is not needed any more; one that was moved away is gone already.
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is harmless: nothing looks into the scratch folder.
        let _ = fs::remove_file(&self.0);
    }
}

/// When the file landed: its inode's change time, which the move into place sets.
pub(super) fn changed(metadata: &fs::Metadata) -> io::Result<Timestamp> {
    let nanoseconds = i32::try_from(metadata.ctime_nsec()).map_err(io::Error::other)?;
    Timestamp::new(metadata.ctime(), nanoseconds).map_err(io::Error::other)
}

/// `renameat2(RENAME_NOREPLACE)`; file systems that do not know it get a hard link and an unlink.
fn rename_without_overwrite(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => result.map_err(io::Error::from),
    }
}

fn sync_directory(folder: Option<&Path>) -> io::Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems refuse to sync a directory; they have nothing better to offer.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// An `io::Error` in our own words.
pub(super) fn refused(why: &str) -> io::Error {
    io::Error::other(Cause::new(why))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_store_without_room_tells_the_time_and_can_be_read() {
        for error in [Errno::NOSPC, Errno::DQUOT] {
            assert!(is_full(io::Error::from(error).kind()), "{error}");
        }
        for error in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            assert!(cannot_tell(io::Error::from(error).kind()), "{error}");
        }
        assert!(!cannot_tell(io::Error::from(Errno::IO).kind()));
        // What takes the place of a new file: the same clock, and no file.
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let before = root.stamp().unwrap().date;
        let between = changed(&root.touched().unwrap()).unwrap();
        assert!(before <= between && between <= root.stamp().unwrap().date);
    }
}
