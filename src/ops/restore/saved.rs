//! What the snapshot's own configuration says, whether it is restored or not: read once, before anything is written.
//!
//! Where the databases were, in which file that stands, and with which files Synapse is started. The order of the files
//! is the snapshot's (`config_paths`); links that were saved are followed, as Synapse followed them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

use super::config::CONFIG_BYTES_MAX;
use super::{Options, plan};
use crate::format::ItemPath;
use crate::format::snapshot::{ConfigItem, ConfigKind, Snapshot};
use crate::ops::Error;
use crate::ops::items::config_name;
use crate::repo::reader::Reader;
use crate::synapse::config::{self, Remembered};

/// Links that are followed to a configuration file.
const LINKS_MAX: usize = 16;

/// The configuration of the snapshot.
pub(super) struct Saved {
    pub(super) says: Remembered,
    /// The item that says where the databases are.
    pub(super) database_item: Option<DatabaseItem>,
    /// What paths in it are relative to, and how they are to be read here.
    pub(super) options: config::Options,
}

/// The item that has the section about databases, and so Synapse's password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DatabaseItem {
    pub(super) name: String,
    /// A line of it begins with `database`, so that `grep` finds the section.
    has_plain_key: bool,
}

impl DatabaseItem {
    /// What prints the section, of this snapshot.
    pub(super) fn command(&self, snapshot: &str) -> String {
        let cat = format!("synapse-backup cat {} {}", shell_word(snapshot), shell_word(&self.name));
        if self.has_plain_key {
            format!("{cat} | grep -A 9 '^database'")
        } else {
            cat
        }
    }
}

impl Saved {
    /// The folder that Synapse is started in, where it is after the restore, if the media store tells.
    pub(super) fn working_directory(&self, snapshot: &Snapshot, options: &Options) -> Option<String> {
        let media = snapshot.media.as_ref()?;
        let folder = self.says.working_directory(Path::new(OsStr::from_bytes(media.root.as_bytes())))?;
        Some(plan::map(&folder, &options.path_map).display().to_string())
    }
}

/// Read it all.
pub(super) async fn read(reader: &Reader, snapshot: &Snapshot, options: &Options) -> anyhow::Result<Saved> {
    let (mut files, mut names) = (Vec::new(), Vec::new());
    for path in &snapshot.config_paths {
        if let Some(item) = config_item(snapshot, Path::new(OsStr::from_bytes(path.as_bytes()))) {
            let bytes = reader
                .read_small(&item.list, CONFIG_BYTES_MAX)
                .await
                .with_context(|| format!("read {path}"))?;
            files.push((PathBuf::from(OsStr::from_bytes(path.as_bytes())), bytes));
            names.push(config_name(item));
        }
    }
    if files.is_empty() {
        let hint = "say it with `--database synapse=CONNINFO`, or restore the configuration too";
        return Err(Error::usage("it is not known where the database was", hint).into());
    }
    let says = Remembered::read(&files).context("the configuration in the snapshot")?;
    let place = files.iter().position(|(path, _)| Some(path.as_path()) == says.database_file());
    let database_item = place.map(|place| DatabaseItem {
        name: names.swap_remove(place),
        has_plain_key: files[place]
            .1
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"database")),
    });
    Ok(Saved {
        says,
        database_item,
        options: config::Options {
            working_directory: options.working_directory.clone().or_else(|| Some("/".into())),
            path_map: options.container_path_map.clone(),
            ..config::Options::default()
        },
    })
}

/// The file that a path means in the snapshot: links that were saved are followed, as Synapse followed them.
fn config_item<'a>(snapshot: &'a Snapshot, path: &Path) -> Option<&'a ConfigItem> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Some(item) = snapshot.config.iter().find(|item| path_of(item) == path && item.sha256.is_some()) {
            return Some(item);
        }
        let link = snapshot
            .config
            .iter()
            .find(|item| item.kind == ConfigKind::Symlink && path.starts_with(path_of(item)))?;
        let target = Path::new(OsStr::from_bytes(link.target.as_ref()?.as_bytes()));
        let rest = path.strip_prefix(path_of(link)).ok()?.to_owned();
        let joined = path_of(link).parent()?.join(target);
        path = if rest.as_os_str().is_empty() {
            normal(&joined)
        } else {
            normal(&joined.join(rest))
        };
    }
    None
}

fn path_of(item: &ConfigItem) -> &Path {
    Path::new(OsStr::from_bytes(item.path.as_bytes()))
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// What Synapse is started with (`-c`), in its order, where it is after the restore and as Synapse sees it.
///
/// The snapshot knows files only. Those of a folder such as `conf.d` stand for it where they are all that Synapse would
/// read in it, in the order in which it would: a file that is added there later then counts as it did.
pub(super) fn started_with(snapshot: &Snapshot, options: &Options) -> Vec<PathBuf> {
    let paths: Vec<&Path> = snapshot
        .config_paths
        .iter()
        .map(|path| Path::new(OsStr::from_bytes(path.as_bytes())))
        .collect();
    let mut words = Vec::new();
    for group in paths.chunk_by(|one, other| one.parent() == other.parent()) {
        match group[0].parent().filter(|folder| stands_for(folder, group, snapshot)) {
            Some(folder) => words.push(folder.to_path_buf()),
            None => words.extend(group.iter().map(|path| path.to_path_buf())),
        }
    }
    // The settings' map leads from a container's paths to those here.
    let back: Vec<_> = options
        .container_path_map
        .iter()
        .map(|(there, here)| (here.clone(), there.clone()))
        .collect();
    let here = |path: PathBuf| plan::target(&ItemPath::from(path.as_path()), options).unwrap_or(path);
    words.into_iter().map(|path| plan::map(&here(path), &back)).collect()
}

fn stands_for(folder: &Path, files: &[&Path], snapshot: &Snapshot) -> bool {
    let is_named_so = folder.file_name().is_some_and(|name| name.as_bytes().ends_with(b".d"));
    let is_yaml = |path: &&Path| path.file_name().is_some_and(|name| name.as_bytes().ends_with(b".yaml"));
    let is_read = |item: &&ConfigItem| matches!(item.kind, ConfigKind::File | ConfigKind::Symlink);
    let mut there: Vec<&Path> = snapshot
        .config
        .iter()
        .filter(is_read)
        .map(path_of)
        .filter(|path| path.parent() == Some(folder))
        .filter(is_yaml)
        .collect();
    there.sort_unstable_by_key(|path| path.as_os_str());
    is_named_so && there == files
}

/// As a shell takes it for one word.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@%+,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
