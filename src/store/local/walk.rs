//! Listings of the local store: folders are walked in the order of keys, and only as far as a page needs.
//!
//! The order is that of whole keys, byte by byte, as on S3: the folder `a` stands where `a/` would stand, so `a.b`
//! comes before `a/b`. What is not ours (the scratch folder, names that are not UTF-8, sockets) is passed over.

use std::fs;
use std::io::{self, ErrorKind};

use jiff::Timestamp;

use super::super::{Listed, Page};
use super::files::{Root, SCRATCH, changed};

/// The next `page_objects` keys that begin with `prefix` and come after `after`.
pub(super) fn page(root: &Root, prefix: &str, after: Option<&str>, page_objects: usize) -> io::Result<Page> {
    fs::metadata(root.directory())?;
    let mut walk = Walk {
        root,
        prefix,
        after: after.unwrap_or(""),
        wanted: page_objects + 1,
        found: Vec::new(),
    };
    walk.folder("")?;
    let mut objects = walk.found;
    let more = objects.len() > page_objects;
    objects.truncate(page_objects);
    let next = if more { objects.last().map(|last| last.key.clone()) } else { None };
    let newest = objects
        .iter()
        .map(|listed| listed.last_modified)
        .max()
        .unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(Page {
        objects,
        next,
        date: root.now_or(newest)?,
    })
}

struct Walk<'a> {
    root: &'a Root,
    prefix: &'a str,
    after: &'a str,
    wanted: usize,
    found: Vec<Listed>,
}

impl Walk<'_> {
    /// `folder` is empty for the root, else it ends in a slash.
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.path(folder)) {
            // Gone since its name was read, or no folder at all.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            result => result?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // `metadata` follows links: a folder may lie on another disk.
            let Some(metadata) = gone_is_none(fs::metadata(entry.path()))? else {
                continue;
            };
            let key = format!("{folder}{name}{}", if metadata.is_dir() { "/" } else { "" });
            if self.may_hold(&key) {
                names.push((key, metadata));
            }
        }
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, metadata) in names {
            if self.found.len() == self.wanted {
                break;
            }
            if metadata.is_dir() {
                self.folder(&key)?;
            } else if metadata.is_file() {
                self.found.push(Listed {
                    key,
                    bytes: metadata.len(),
                    last_modified: changed(&metadata)?,
                });
            }
        }
        Ok(())
    }

    /// Whether this key, or for a folder one below it, can be wanted.
    fn may_hold(&self, key: &str) -> bool {
        let is_folder = key.ends_with('/');
        let fits_prefix = key.starts_with(self.prefix) || (is_folder && self.prefix.starts_with(key));
        let comes_later = key > self.after || (is_folder && self.after.starts_with(key));
        fits_prefix && comes_later && key.strip_suffix('/') != Some(SCRATCH)
    }
}

fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
