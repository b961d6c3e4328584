//! Paths to items: what lies at a path, what a link leads to, what a directory holds, and what cannot be saved.
//!
//! Only regular files are ever opened. A link is saved as a link, and what it leads to as well; so a path below a saved
//! link is written as the path behind it, and a restore finds every item's parent to be a directory. Directories are
//! walked without following links.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::guess::{GUESS_BYTES_MAX, is_system};
use super::owners::Owners;
use super::paths::{normalize, settle};
use crate::synapse::{ConfigFile, Error, FileKind, Finding, FindingKind, Role};

/// Items of one homeserver, media and databases aside.
pub const FILES_MAX: usize = 100_000;
/// Links behind links, as in Linux.
const LINKS_MAX: usize = 40;

/// Opens a regular file for reading: not through a link at its end, and never waiting at a FIFO.
pub fn open_file(path: &Path) -> io::Result<File> {
    open(path, OFlags::NOFOLLOW)
}

/// [`open_file`], but through links.
pub(super) fn open_following(path: &Path) -> io::Result<File> {
    open(path, OFlags::empty())
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Gathers items and findings.
#[derive(Debug)]
pub(super) struct Collector {
    items: BTreeMap<PathBuf, ConfigFile>,
    findings: Vec<Finding>,
    owners: Owners,
    /// Trees that are saved otherwise (media).
    excluded: Vec<PathBuf>,
    /// Links found in trees: what they lead to is looked at when all trees are known.
    tree_links: Vec<(PathBuf, Role, bool)>,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self {
            items: BTreeMap::new(),
            findings: Vec::new(),
            owners: Owners::of_this_host(),
            excluded: Vec::new(),
            tree_links: Vec::new(),
        }
    }

    /// Nothing at or below `path` and behind it is a config item from now on, whichever links lead there: those above it, or
    /// `path` itself, which is then none either.
    pub(super) fn exclude(&mut self, path: &Path) {
        let above = path.parent().and_then(|above| above.canonicalize().ok());
        let behind_above = above.zip(path.file_name()).map(|(above, name)| above.join(name));
        let ways = [Some(path.to_path_buf()), behind_above, path.canonicalize().ok()];
        self.excluded.extend(ways.into_iter().flatten());
    }

    pub(super) fn owners(&self) -> &Owners {
        &self.owners
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &ConfigFile> {
        self.items.values()
    }

    /// Says something about `path`; the first word of a kind about an item counts.
    pub(super) fn finding(&mut self, kind: FindingKind, path: &Path, message: impl Into<String>) {
        let item = format!("config/{}", path.strip_prefix("/").unwrap_or(path).display());
        if !self.findings.iter().any(|finding| finding.kind == kind && finding.item == item) {
            self.findings.push(Finding {
                kind,
                item,
                message: message.into(),
            });
        }
    }

    /// Says something that is about no config item.
    pub(super) fn finding_about(&mut self, kind: FindingKind, item: &str, message: impl Into<String>) {
        self.findings.push(Finding {
            kind,
            item: item.to_owned(),
            message: message.into(),
        });
    }

    /// A file that `why` names: it and the links to it, or a finding. True if it was there.
    pub(super) fn file(&mut self, path: &Path, role: Role, secret: bool, why: &str) -> Result<bool, Error> {
        match self.follow(path, role, secret)? {
            Ok((end, metadata)) if metadata.is_file() => return self.regular(&end, &metadata, role, secret),
            Ok((_, metadata)) => self.finding(
                FindingKind::NotAFile,
                path,
                format!("named by {why}; it is {}", describe(&metadata)),
            ),
            Err(error) => self.lost(path, why, &error),
        }
        Ok(false)
    }

    /// A file that may well not be there.
    pub(super) fn optional(&mut self, path: &Path, role: Role, secret: bool, why: &str) -> Result<(), Error> {
        if fs::symlink_metadata(path).is_ok() {
            self.file(path, role, secret, why)?;
        }
        Ok(())
    }

    /// A guess: saved if it is a regular file of moderate size outside the media.
    pub(super) fn guess(&mut self, path: &Path, why: &str) -> Result<(), Error> {
        let fits = fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= GUESS_BYTES_MAX);
        if fits && !self.is_excluded(path) {
            self.file(path, Role::Guess, true, why)?;
        }
        Ok(())
    }

    /// A directory that `why` names, with everything in it; or, if `or_file`, a single file.
    pub(super) fn tree(&mut self, path: &Path, role: Role, secret: bool, or_file: bool, why: &str) -> Result<(), Error> {
        match self.follow(path, role, secret)? {
            Ok((root, metadata)) if metadata.is_dir() => self.walk(&root, role, secret)?,
            Ok((end, metadata)) if metadata.is_file() && or_file => {
                self.regular(&end, &metadata, role, secret)?;
            }
            Ok((_, metadata)) => self.finding(
                FindingKind::NotAFile,
                path,
                format!("named by {why}; it is {}", describe(&metadata)),
            ),
            Err(error) => self.lost(path, why, &error),
        }
        Ok(())
    }

    /// What lies in a directory given with `-c` beside its `*.yaml` files: small files and links are saved as well, so
    /// that the directory comes back as it was; special files are named; sub-directories and traces of a running
    /// server are passed over, as Synapse does.
    pub(super) fn config_directory(&mut self, path: &Path) -> Result<(), Error> {
        let why = "a configuration directory";
        let Ok((root, _)) = self.follow(path, Role::Config, true)? else {
            return Ok(());
        };
        let entries = list(&root).map_err(|source| Error::ConfigUnreadable {
            path: path.to_path_buf(),
            source,
        })?;
        let real = root.canonicalize().unwrap_or(root);
        for path in entries {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_symlink() {
                self.symlink(&path, &metadata, Role::Guess, true)?;
                // A folder in here, as Kubernetes has `..data`, is where the files of this directory are.
                let is_own_folder = path.canonicalize().is_ok_and(|end| end.is_dir() && end.starts_with(&real));
                if !is_own_folder {
                    self.tree_links.push((path, Role::Guess, true));
                }
            } else if metadata.is_file() {
                let name = path.file_name().unwrap_or_default();
                if !name.as_bytes().ends_with(b".yaml") && !is_runtime(name) {
                    self.guess(&path, why)?;
                }
            } else if !metadata.is_dir() {
                self.finding(FindingKind::NotAFile, &path, format!("in {why}; it is {}", describe(&metadata)));
            }
        }
        Ok(())
    }

    /// The items sorted by path, and the findings.
    pub(super) fn finish(mut self) -> Result<(Vec<ConfigFile>, Vec<Finding>), Error> {
        for (link, role, secret) in std::mem::take(&mut self.tree_links) {
            self.tree_link(&link, role, secret)?;
        }
        let mut items: BTreeMap<PathBuf, ConfigFile> = BTreeMap::new();
        for item in self.items.values() {
            let path = self.behind_links(&item.path);
            // A restore makes folders of media there.
            if matches!(item.kind, FileKind::Symlink { .. }) && self.is_excluded(&path) {
                continue;
            }
            match items.get_mut(&path) {
                Some(known) => known.also(item.role, item.secret),
                None => {
                    items.insert(path.clone(), ConfigFile { path, ..item.clone() });
                }
            }
        }
        Ok((items.into_values().collect(), self.findings))
    }

    /// Records the links that `path` is or leads through and gives what is behind the last; the inner error is the disk's.
    fn follow(&mut self, path: &Path, role: Role, secret: bool) -> Result<io::Result<(PathBuf, Metadata)>, Error> {
        let mut here = path.to_path_buf();
        for _ in 0..LINKS_MAX {
            let metadata = match fs::symlink_metadata(&here) {
                Ok(metadata) if metadata.is_symlink() => metadata,
                other => return Ok(other.map(|metadata| (here, metadata))),
            };
            let Some(target) = self.symlink(&here, &metadata, role, secret)? else {
                break;
            };
            let parent = here.parent().unwrap_or(Path::new("/")).to_path_buf();
            here = settle(&parent.join(&target));
            // A relative link may lead through links beside it, as Kubernetes lays out its volumes (`..data`).
            if target.is_relative()
                && let Some(link) = first_link(&parent, &here)
            {
                let metadata = fs::symlink_metadata(&link).ok().filter(Metadata::is_symlink);
                if let (Some(metadata), Ok(rest)) = (metadata, here.strip_prefix(&link))
                    && let Some(target) = self.symlink(&link, &metadata, role, secret)?
                {
                    here = settle(&link.parent().unwrap_or(Path::new("/")).join(target)).join(rest);
                }
            }
        }
        Ok(Err(io::Error::other("too many links, one behind the other")))
    }

    fn symlink(&mut self, path: &Path, metadata: &Metadata, role: Role, secret: bool) -> Result<Option<PathBuf>, Error> {
        match fs::read_link(path) {
            Ok(target) => {
                self.record(path, FileKind::Symlink { target: target.clone() }, metadata, role, secret)?;
                Ok(Some(target))
            }
            Err(_) => Ok(None),
        }
    }

    /// Records a regular file that can be opened; true if so.
    fn regular(&mut self, path: &Path, metadata: &Metadata, role: Role, secret: bool) -> Result<bool, Error> {
        if let Err(error) = open_file(path) {
            self.finding(FindingKind::Unreadable, path, format!("it cannot be opened: {error}"));
            return Ok(false);
        }
        self.record(path, FileKind::File, metadata, role, secret)?;
        Ok(true)
    }

    fn record(&mut self, path: &Path, kind: FileKind, metadata: &Metadata, role: Role, secret: bool) -> Result<(), Error> {
        if let Some(known) = self.items.get_mut(path) {
            known.also(role, secret);
            return Ok(());
        }
        if self.items.len() >= FILES_MAX {
            return Err(Error::TooManyFiles {
                path: path.parent().unwrap_or(path).to_path_buf(),
                limit: FILES_MAX,
            });
        }
        let bytes = if kind == FileKind::File { metadata.len() } else { 0 };
        let (mode, owner) = (metadata.permissions().mode() & 0o7777, self.owners.owner(metadata));
        self.items.insert(
            path.to_path_buf(),
            ConfigFile {
                path: path.to_path_buf(),
                kind,
                role,
                mode,
                owner,
                bytes,
                secret,
            },
        );
        Ok(())
    }

    /// Everything below `root`, links as links.
    fn walk(&mut self, root: &Path, role: Role, secret: bool) -> Result<(), Error> {
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            if self.is_excluded(&directory) {
                continue;
            }
            let (entries, metadata) = match fs::symlink_metadata(&directory).and_then(|metadata| Ok((list(&directory)?, metadata))) {
                Ok(both) => both,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.finding(FindingKind::Unreadable, &directory, format!("it cannot be listed: {error}"));
                    continue;
                }
            };
            self.record(&directory, FileKind::Directory, &metadata, role, secret)?;
            for path in entries {
                // What is gone again was not there.
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if metadata.is_dir() {
                    open.push(path);
                } else if metadata.is_symlink() {
                    self.symlink(&path, &metadata, role, secret)?;
                    self.tree_links.push((path, role, secret));
                } else if metadata.is_file() {
                    self.regular(&path, &metadata, role, secret)?;
                } else {
                    self.finding(FindingKind::NotAFile, &path, format!("it is {}", describe(&metadata)));
                }
            }
        }
        Ok(())
    }

    /// A link in a tree that leads out of all trees: a file is saved with it, a directory must be named by the admin.
    fn tree_link(&mut self, link: &Path, role: Role, secret: bool) -> Result<(), Error> {
        let (Ok(end), Ok(metadata)) = (link.canonicalize(), fs::metadata(link)) else {
            return Ok(());
        };
        let is_media_store = self.excluded.iter().any(|folder| folder.parent() == Some(&end));
        if is_system(&end) || is_media_store || self.is_excluded(&end) || self.items.contains_key(&end) {
            return Ok(());
        }
        if metadata.is_file() {
            self.file(link, role, secret, "a link")?;
        } else if metadata.is_dir() && !self.has_tree(&end) {
            let message = format!(
                "it leads to the directory {}, which is not saved: name that in `files`",
                end.display()
            );
            self.finding(FindingKind::NotAFile, link, message);
        }
        Ok(())
    }

    fn has_tree(&self, directory: &Path) -> bool {
        let is_directory =
            |item: &ConfigFile| item.kind == FileKind::Directory && item.path.canonicalize().is_ok_and(|path| path == directory);
        self.items.values().any(is_directory)
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.excluded.iter().any(|excluded| path.starts_with(excluded))
    }

    /// `path`, with every saved link above it replaced by where it leads.
    fn behind_links(&self, path: &Path) -> PathBuf {
        let mut path = path.to_path_buf();
        for _ in 0..LINKS_MAX {
            let link = path
                .ancestors()
                .skip(1)
                .find_map(|above| match self.items.get(above).map(|item| &item.kind) {
                    Some(FileKind::Symlink { target }) => Some((above.to_path_buf(), target)),
                    _ => None,
                });
            let Some((link, target)) = link else { break };
            let rest = path.strip_prefix(&link).unwrap_or(Path::new("")).to_path_buf();
            path = settle(&link.parent().unwrap_or(Path::new("/")).join(target)).join(rest);
        }
        path
    }

    fn lost(&mut self, path: &Path, why: &str, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            let alone = if path.parent().is_some_and(Path::exists) {
                ""
            } else {
                ", nor its directory (is `path_map` needed?)"
            };
            self.finding(FindingKind::Missing, path, format!("named by {why}; it is not there{alone}"));
        } else {
            self.finding(FindingKind::Unreadable, path, format!("named by {why}; {error}"));
        }
    }
}

impl ConfigFile {
    /// Named once more: the first role stays, unless it was a guess or from `files`.
    fn also(&mut self, role: Role, secret: bool) {
        self.secret |= secret;
        if matches!(self.role, Role::Extra | Role::Guess) {
            self.role = role;
        }
    }
}

/// Entries of a directory, sorted.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The first directory between `base` (not itself) and `path` (not itself) that is a link.
fn first_link(base: &Path, path: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|above| above.starts_with(base) && *above != base)
        .collect();
    above.reverse();
    above.into_iter().find(|above| above.is_symlink()).map(normalize)
}

/// Logs, process ids, databases: written while the server runs, worthless or wrong in a backup.
fn is_runtime(name: &OsStr) -> bool {
    let name = name.as_bytes();
    // `synapse.log`, `synapse.log.2026-11-28`, `synapse.log.1.gz`; not `chat.logistics.org.key`.
    let turns = |part: &[u8]| part.iter().all(u8::is_ascii_digit) || [b"gz".as_slice(), b"xz", b"bz2", b"zst", b"old"].contains(&part);
    let is_log = |at: usize| {
        let rest = &name[at + 4..];
        let is_end = rest.first().is_none_or(|next| b".-_".contains(next));
        name[at..].starts_with(b".log") && is_end && rest.split(|byte| b".-_".contains(byte)).all(turns)
    };
    (0..name.len().saturating_sub(3)).any(is_log)
        || [
            b".pid".as_slice(),
            b".db",
            b".db-wal",
            b".db-shm",
            b".db-journal",
            b".sqlite",
            b".sock",
            b".swp",
        ]
        .iter()
        .any(|end| name.ends_with(end))
}

fn describe(metadata: &Metadata) -> &'static str {
    let kind = rustix::fs::FileType::from_raw_mode(metadata.mode());
    match kind {
        rustix::fs::FileType::Directory => "a directory",
        rustix::fs::FileType::Fifo => "a FIFO, which is not saved",
        rustix::fs::FileType::Socket => "a socket, which is not saved",
        rustix::fs::FileType::RegularFile => "a file, not a directory",
        _ => "a device, which is not saved",
    }
}
