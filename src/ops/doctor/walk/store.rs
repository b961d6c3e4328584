//! The files of a media store, in the order of the bytes of their paths: the order in which the rows come.
//!
//! One folder of each depth is in memory. Links are followed, as Synapse follows them; the depth that Synapse's paths have ends a link
//! that leads in a circle. What is no file in the end (a FIFO, a socket) is passed over: a row that wants it finds nothing.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::synapse::media::MediaKind;

/// `remote_thumbnail/server/aa/bb/rest/name`.
const DEPTH_MAX: usize = 6;

/// A file in the store.
#[derive(Debug)]
pub(super) struct StoredFile {
    /// Inside the store.
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) modified: Option<Timestamp>,
}

/// One step of the walk.
#[derive(Debug)]
pub(super) enum Walked {
    File(StoredFile),
    /// What, and why.
    Unreadable(String),
}

/// A walk.
pub(super) struct StoreWalk {
    root: PathBuf,
    /// Of each depth what is still to come, the next one last; a folder's name ends in a slash.
    levels: Vec<Vec<Vec<u8>>>,
    /// The path of the folder that the last level lies in, with a slash at its end; empty for the store.
    folders: Vec<u8>,
}

impl StoreWalk {
    pub(super) fn new(root: &Path) -> Self {
        let mut kinds: Vec<Vec<u8>> = MediaKind::ALL
            .iter()
            .map(|kind| format!("{}/", kind.folder()).into_bytes())
            .collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            root: root.to_owned(),
            levels: vec![kinds],
            folders: Vec::new(),
        }
    }

    /// The next file, or what is in the way; `None` at the end.
    pub(super) fn step(&mut self) -> Option<Walked> {
        loop {
            let Some(name) = self.levels.last_mut()?.pop() else {
                self.levels.pop();
                // Without the last folder's name.
                let above = self.folders[..self.folders.len().saturating_sub(1)]
                    .iter()
                    .rposition(|byte| *byte == b'/');
                self.folders.truncate(above.map_or(0, |at| at + 1));
                continue;
            };
            let mut path = self.folders.clone();
            path.extend_from_slice(&name);
            if name.ends_with(b"/") {
                match self.enter(path) {
                    Ok(()) => {}
                    Err(unreadable) => return Some(unreadable),
                }
            } else if let Some(step) = self.file(path) {
                return Some(step);
            }
        }
    }

    fn enter(&mut self, path: Vec<u8>) -> Result<(), Walked> {
        let mut names = match self.names(&path) {
            Ok(names) => names,
            // A kind that was never used, or a folder that is gone since.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Walked::Unreadable(format!("{}: {error}", String::from_utf8_lossy(&path)))),
        };
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(names);
        self.folders = path;
        Ok(())
    }

    /// What lies in a folder, folders with a slash.
    fn names(&self, path: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(path))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let is_folder = kind.is_dir() || kind.is_symlink() && fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
            let mut name = entry.file_name().into_vec();
            if is_folder && self.levels.len() < DEPTH_MAX {
                name.push(b'/');
            }
            names.push(name);
        }
        Ok(names)
    }

    fn file(&self, path: Vec<u8>) -> Option<Walked> {
        let metadata = fs::metadata(self.at(&path)).ok().filter(fs::Metadata::is_file)?;
        let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        Some(Walked::File(StoredFile {
            path: String::from_utf8(path).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            bytes: metadata.len(),
            modified,
        }))
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsString::from_vec(path.to_vec()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_whole_paths() {
        let folder = tempfile::tempdir().unwrap();
        // `-` is before `/`, and `/` before letters: folders do not sort as their names alone.
        let mut paths = vec![
            "local_content/aa/bb/c",
            "local_content/aa-/b",
            "local_content/aa/b-/c",
            "local_content/aab/x",
            "local_thumbnails/aa/bb/c/32-32",
            "url_cache/2024-01-31/x",
            "url_cache_thumbnails/2024-01-31/x/32",
            "remote_content/matrix.org/aa/bb/c",
            "remote_content/matrix.org:8448/aa/bb/c",
        ];
        for path in &paths {
            fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs::write(folder.path().join(path), path).unwrap();
        }
        fs::write(folder.path().join("not_media"), "x").unwrap();
        // A circle is left at the depth that Synapse's paths have.
        std::os::unix::fs::symlink("..", folder.path().join("local_content/aa/up")).unwrap();
        let mut walk = StoreWalk::new(folder.path());
        let mut found = Vec::new();
        while let Some(step) = walk.step() {
            match step {
                Walked::File(file) => found.push(file.path),
                Walked::Unreadable(what) => panic!("{what}"),
            }
        }
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(found, sorted);
        found.retain(|path| !path.contains("/up/"));
        paths.sort_unstable();
        assert_eq!(found, paths);
    }
}
