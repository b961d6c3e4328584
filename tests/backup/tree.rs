//! A folder as a value: every path below it with what it is, its mode and its bytes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use synapse_backup::format::BlobId;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    File {
        mode: u32,
        owner: (u32, u32),
        bytes: u64,
        sha256: BlobId,
    },
    Folder {
        mode: u32,
        owner: (u32, u32),
    },
    Link {
        target: Vec<u8>,
    },
    Other,
}

impl Thing {
    /// Of a file or folder.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Self::File { owner, .. } | Self::Folder { owner, .. } => Some(*owner),
            Self::Link { .. } | Self::Other => None,
        }
    }
}

/// Everything below `root`, by its path relative to it.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Thing> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let (mode, owner) = (metadata.mode() & 0o7777, (metadata.uid(), metadata.gid()));
            let kind = metadata.file_type();
            let thing = if kind.is_dir() {
                open.push(path.clone());
                Thing::Folder { mode, owner }
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap().into_os_string().into_vec();
                Thing::Link { target }
            } else if kind.is_fifo() || kind.is_socket() {
                Thing::Other
            } else {
                let sha256 = BlobId::of(&fs::read(&path).unwrap());
                Thing::File {
                    mode,
                    owner,
                    bytes: metadata.len(),
                    sha256,
                }
            };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), thing);
        }
    }
    found
}

/// The same without folders: what is made on the way need not be as it was.
pub(crate) fn files(root: &Path) -> BTreeMap<PathBuf, Thing> {
    let mut tree = tree(root);
    tree.retain(|_, thing| !matches!(thing, Thing::Folder { .. }));
    tree
}
