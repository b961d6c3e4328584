//! The media store behind links: where it goes, and that nothing leaves the folder of a copy.
//!
//! A backup saves a link as a link and what lies below it under the path behind it. The media store alone is named as
//! homeserver.yaml names it, so a restore leads it over the snapshot's own links, as all else was led.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

use super::plan::Plan;
use crate::format::ItemPath;
use crate::format::snapshot::{ConfigKind, Media, Snapshot};
use crate::ops::Error;

/// Links behind links, as in Linux.
const LINKS_MAX: usize = 40;

/// The media store's path behind the links of the snapshot that it is, or lies below.
pub(in crate::ops) fn media_root(snapshot: &Snapshot, media: &Media) -> ItemPath {
    let links: Vec<(&Path, &Path)> = snapshot
        .config
        .iter()
        .filter(|item| item.kind == ConfigKind::Symlink)
        .filter_map(|item| Some((path_of(&item.path), path_of(item.target.as_ref()?))))
        .collect();
    let mut root = path_of(&media.root).to_path_buf();
    for _ in 0..LINKS_MAX {
        let above = links.iter().filter(|(link, _)| root.starts_with(link));
        let Some((link, target)) = above.min_by_key(|(link, _)| link.components().count()) else {
            return ItemPath::from(root.as_path());
        };
        let behind = link.parent().unwrap_or(Path::new("/")).join(target);
        root = match root.strip_prefix(link) {
            Ok(rest) => normal(&behind.join(rest)),
            Err(_) => break,
        };
    }
    // They lead in a circle.
    media.root.clone()
}

fn path_of(path: &ItemPath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// Where the media store is made, or above it, no link can be: it was mapped there.
pub(super) fn leave_out_above_media(plan: &mut Plan) {
    let Some(media) = &plan.media else { return };
    let notes = &mut plan.notes;
    plan.config.retain(|planned| {
        let is_in_the_way = planned.item.kind == ConfigKind::Symlink && media.starts_with(&planned.target);
        if is_in_the_way {
            notes.push(format!(
                "leave out the link {}: the media store is made there",
                planned.target.display()
            ));
        }
        !is_in_the_way
    });
}

/// With `--to`, what an earlier restore has left there may hold links; nothing is written over one that leads out.
pub(super) fn refuse_outside(to: &Path, plan: &Plan) -> anyhow::Result<()> {
    let inside = match fs::canonicalize(to) {
        Ok(inside) => inside,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {}", to.display())),
    };
    let above = plan.config.iter().filter_map(|planned| planned.target.parent());
    let folders: BTreeSet<&Path> = above.chain(plan.media.as_deref()).collect();
    for folder in folders {
        let there = folder.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
        let Some(there) = there.filter(|there| there.starts_with(to)) else {
            continue;
        };
        if !fs::canonicalize(there).is_ok_and(|real| real.starts_with(&inside)) {
            let message = format!("{} leads out of {}, over a link", there.display(), to.display());
            return Err(Error::failed(message, "restore into a new folder, or say with --path-map where it goes").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_climbs_is_made_plain() {
        for (path, expected) in [("/a/./b/../c", "/a/c"), ("/../x", "/x"), ("/a/b/../../..", "/")] {
            assert_eq!(normal(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
