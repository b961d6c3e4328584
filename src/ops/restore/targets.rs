//! Are the targets empty? Everything is looked at before anything is written.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use super::Options;
use super::plan::Plan;
use crate::format::snapshot::ConfigKind;
use crate::ops::Error;

/// Refuse a `--to` with something in it, a media store with something in it, and every file that is there already.
pub(super) fn check_files(plan: &Plan, options: &Options) -> anyhow::Result<()> {
    if let Some(to) = &options.to
        && !is_empty(to)?
    {
        return Err(Error::failed(format!("{} is not empty", to.display()), "restore into a new or empty folder").into());
    }
    if let Some(media) = &plan.media
        && !is_empty(media)?
    {
        let hint = "nothing is ever merged: move the media store away, or restore elsewhere with --to or --path-map";
        return Err(Error::failed(format!("the media store {} is not empty", media.display()), hint).into());
    }
    let mut there = Vec::new();
    for planned in &plan.config {
        match fs::symlink_metadata(&planned.target) {
            Ok(metadata) if metadata.is_dir() && planned.item.kind == ConfigKind::Directory => {}
            Ok(_) => there.push(planned.target.display().to_string()),
            // A name that this file system cannot hold is found again, and recorded, when it is written.
            Err(error)
                if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()) => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => there.push(planned.target.display().to_string()),
            Err(error) => return Err(error).with_context(|| format!("look at {}", planned.target.display())),
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    let more = if there.len() > 3 {
        format!(" and {} more", there.len() - 3)
    } else {
        String::new()
    };
    there.truncate(3);
    let hint = "nothing is ever overwritten: move the old files away, or restore elsewhere with --to or --path-map";
    Err(Error::failed(format!("there already: {}{more}", there.join(", ").escape_debug()), hint).into())
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
