//! Are the targets empty? Everything is looked at before anything is written (invariant 6).
//!
//! A file that is already there with exactly the bytes to be written is no obstacle and is left alone; anything else in
//! the way refuses the restore. Databases are looked at in `databases`.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use super::config::CONFIG_BYTES_MAX;
use super::plan::{Plan, PlannedItem};
use super::{Options, is_last, links};
use crate::format::snapshot::ConfigKind;
use crate::format::{BlobId, ItemPath};
use crate::ops::Error;

/// Whoever restores a second time has good data in the way.
const EARLIER: &str = "If an earlier restore has put it there, it may be whole: --resume writes only what is missing \
                       (--resume --dry-run tells what that is)";

/// Refuse a `--to` with something in it, a media store with something in it, and every file that is there already.
///
/// A file that is there with exactly the bytes that would be written (a system's own certificates, say) is no obstacle:
/// it is left alone. homeserver.yaml and signing key may not be there at all.
pub(super) fn check_files(plan: &mut Plan, options: &Options) -> anyhow::Result<()> {
    if let Some(to) = &options.to
        && !options.resume
        && !is_empty(to)?
    {
        let hint = "restore into a new or empty folder; what an earlier restore into this one has left out comes with --resume";
        return Err(Error::failed(format!("{} is not empty", to.display()), hint).into());
    }
    if let Some(media) = &plan.media
        && !options.resume
        && !is_empty(media)?
    {
        let hint =
            format!("nothing is ever merged. {EARLIER}\nElse move the media store away, or restore elsewhere with --to or --path-map");
        return Err(Error::failed(format!("the media store {} is not empty", media.display()), hint).into());
    }
    if let Some(to) = &options.to {
        links::refuse_outside(to, plan)?;
    }
    let mut there = Vec::new();
    let mut same = BTreeSet::new();
    for planned in &plan.config {
        match fs::symlink_metadata(&planned.target) {
            Ok(metadata) if metadata.is_dir() && planned.item.kind == ConfigKind::Directory => {}
            Ok(metadata) if (options.resume || !is_last(planned.item.role)) && is_the_same(planned, &metadata) => {
                same.insert(planned.target.clone());
            }
            Ok(_) => there.push(planned.target.display().to_string()),
            // A name that this file system cannot hold is found again, and recorded, when it is written.
            Err(error)
                if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()) => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => there.push(planned.target.display().to_string()),
            Err(error) => return Err(error).with_context(|| format!("look at {}", planned.target.display())),
        }
    }
    if there.is_empty() {
        plan.config.retain(|planned| !same.contains(&planned.target));
        plan.config_kept = same.len() as u64;
        return Ok(());
    }
    let more = if there.len() > 3 {
        format!(" and {} more", there.len() - 3)
    } else {
        String::new()
    };
    there.truncate(3);
    let hint =
        format!("nothing is ever overwritten. {EARLIER}\nElse move the old files away, or restore elsewhere with --to or --path-map");
    Err(Error::failed(format!("there already: {}{more}", there.join(", ").escape_debug()), hint).into())
}

/// What is there already is what would be written.
fn is_the_same(planned: &PlannedItem, metadata: &fs::Metadata) -> bool {
    let item = &planned.item;
    match item.kind {
        ConfigKind::File if metadata.is_file() && metadata.len() == item.bytes && item.bytes <= CONFIG_BYTES_MAX => {
            fs::read(&planned.target).is_ok_and(|bytes| item.sha256 == Some(BlobId::of(&bytes)))
        }
        ConfigKind::Symlink if metadata.is_symlink() => {
            let target = fs::read_link(&planned.target).map(|target| ItemPath::from(target.as_path()));
            target.is_ok_and(|target| item.target == Some(target))
        }
        _ => false,
    }
}

/// Missing, or a folder without entries.
fn is_empty(path: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look into {}", path.display())),
    }
}
