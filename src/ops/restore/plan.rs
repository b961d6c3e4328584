//! What goes where: pure, from the snapshot document and the options.
//!
//! Stored paths are taken for what they are, somebody else's words: one that is not absolute or climbs with `..` is a
//! problem and never a place to write to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use indicatif::BinaryBytes;

use super::{Options, check_names, links, wanted_databases, wants};
use crate::format::ItemPath;
use crate::format::snapshot::{ConfigItem, ConfigKind, ConfigRole, Media, Problem, ProblemKind, Snapshot};
use crate::ops::items::config_name;
use crate::ops::{Error, Part};

/// A config item and where it goes.
#[derive(Debug, Clone)]
pub(super) struct PlannedItem {
    pub(super) item: ConfigItem,
    pub(super) target: PathBuf,
}

/// The plan.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Directories first, parents before children; then files; links last.
    pub(super) config: Vec<PlannedItem>,
    /// Files and links that are there already as they would be written.
    pub(super) config_kept: u64,
    /// Where the media store goes.
    pub(super) media: Option<PathBuf>,
    /// Only some of them.
    pub(super) some_media: bool,
    pub(super) media_files: u64,
    pub(super) media_bytes: u64,
    /// Items that cannot be put back as they are.
    pub(super) problems: Vec<Problem>,
    /// What else is to be known of it, a line each.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// One line for the media, of which so many files and bytes are there already (`--resume`).
    pub(super) fn media_line(&self, there: (u64, u64)) -> Option<String> {
        let media = self.media.as_ref()?.display();
        let (files, bytes) = (self.media_files, BinaryBytes(self.media_bytes));
        let kept = format!("{} of them ({}) are there already", there.0, BinaryBytes(there.1));
        Some(match (there.0, self.some_media) {
            (0, false) => format!("write {files} media files ({bytes}) to {media}"),
            (0, true) => format!("write what is chosen of {files} media files ({bytes}) to {media}"),
            (there, false) if there == files => format!("leave {files} media files ({bytes}) in {media} as they are"),
            (_, false) => format!("write {files} media files ({bytes}) to {media}; {kept}"),
            (_, true) => format!("write what is chosen of {files} media files ({bytes}) to {media}; {kept}"),
        })
    }

    /// One for each file, folder and link of the configuration.
    pub(super) fn config_lines(&self) -> Vec<String> {
        let kept = match self.config_kept {
            0 => None,
            kept => Some(format!("leave {kept} files of the configuration as they are")),
        };
        let written = self.config.iter().map(|planned| format!("write {}", planned.target.display()));
        kept.into_iter().chain(written).collect()
    }
}

/// Where everything goes. A usage error when the options cannot be meant.
pub(super) fn plan(snapshot: &Snapshot, options: &Options) -> anyhow::Result<Plan> {
    check_names(snapshot, &options.databases)?;
    if options.to.is_some() {
        check_copy_has_databases(snapshot, options)?;
    }
    let mut plan = Plan::default();
    if wants(options, Part::Config) {
        plan_config(snapshot, options, &mut plan);
        refuse_without_key(snapshot, &plan)?;
    }
    if let (true, Some(media)) = (wants(options, Part::Media), &snapshot.media) {
        match target(&media_root(snapshot, media, options), options) {
            Ok(target) => plan.media = Some(target),
            Err(message) => {
                return Err(Error::failed(
                    format!("the media store's path {}: {message}", media.root),
                    "--path-map gives it another",
                )
                .into());
            }
        }
        plan.some_media = options.prefix.is_some() || options.uploaded.is_some();
        (plan.media_files, plan.media_bytes) = (media.files, media.bytes);
    }
    links::leave_out_above_media(&mut plan);
    Ok(plan)
}

/// Behind the snapshot's own links, unless `--path-map` says where it goes, or what is here already leads to it.
fn media_root(snapshot: &Snapshot, media: &Media, options: &Options) -> ItemPath {
    let named = Path::new(OsStr::from_bytes(media.root.as_bytes()));
    let is_mapped = map(named, &options.path_map) != named;
    let has_links = options.to.is_some() || wants(options, Part::Config);
    if has_links && !is_mapped {
        links::media_root(snapshot, media)
    } else {
        media.root.clone()
    }
}

/// A copy must not aim at production by accident: every database needs to be told where it goes.
fn check_copy_has_databases(snapshot: &Snapshot, options: &Options) -> Result<(), Error> {
    for database in wanted_databases(snapshot, options) {
        if !options.databases.iter().any(|(name, _)| *name == database.name) {
            return Err(Error::usage(
                format!("--to without --database {}=CONNINFO", database.name),
                format!(
                    "say where the copy of the database goes, or leave it out with `--database {}=skip` or `--only config,media`",
                    database.name
                ),
            ));
        }
    }
    Ok(())
}

fn plan_config(snapshot: &Snapshot, options: &Options, plan: &mut Plan) {
    let mut seen: BTreeMap<PathBuf, String> = BTreeMap::new();
    for item in &snapshot.config {
        let name = config_name(item);
        let problem = |kind, message: String| Problem {
            kind,
            item: name.clone(),
            message,
        };
        if item.kind == ConfigKind::Unknown {
            plan.problems.push(problem(
                ProblemKind::NotAFile,
                "this version does not know what kind of item it is".into(),
            ));
            continue;
        }
        match target(&item.path, options) {
            Err(message) => plan.problems.push(problem(ProblemKind::Damaged, message)),
            Ok(target) => {
                if let Some(other) = seen.insert(target.clone(), name.clone()) {
                    plan.problems
                        .push(problem(ProblemKind::Damaged, format!("it goes to the same place as {other}")));
                    continue;
                }
                plan.config.push(PlannedItem {
                    item: item.clone(),
                    target,
                });
            }
        }
    }
    let order = |kind: ConfigKind| match kind {
        ConfigKind::Directory => 0,
        ConfigKind::File | ConfigKind::Unknown => 1,
        ConfigKind::Symlink => 2,
    };
    plan.config
        .sort_by(|a, b| (order(a.item.kind), &a.target).cmp(&(order(b.item.kind), &b.target)));
    leave_out_below_links(plan);
}

/// What lies below a link of the snapshot would be written wherever that leads. A backup never makes such items: it
/// saves them under the path behind the link.
fn leave_out_below_links(plan: &mut Plan) {
    let is_link = |planned: &&PlannedItem| planned.item.kind == ConfigKind::Symlink;
    let links: BTreeSet<PathBuf> = plan.config.iter().filter(is_link).map(|link| link.target.clone()).collect();
    let (kept, below) = std::mem::take(&mut plan.config)
        .into_iter()
        .partition(|planned| !planned.target.ancestors().skip(1).any(|above| links.contains(above)));
    plan.config = kept;
    plan.problems.extend(below.into_iter().map(|PlannedItem { item, .. }| Problem {
        kind: ProblemKind::Damaged,
        item: config_name(&item),
        message: "it lies below a link of the same snapshot".into(),
    }));
}

/// A signing key that cannot be put anywhere ends the restore: without it the server would make itself a new identity.
fn refuse_without_key(snapshot: &Snapshot, plan: &Plan) -> Result<(), Error> {
    for item in snapshot.config.iter().filter(|item| item.role == ConfigRole::SigningKey) {
        let name = config_name(item);
        if let Some(problem) = plan.problems.iter().find(|problem| problem.item == name) {
            let message = format!("the signing key {} cannot be put back: {}", item.path, problem.message);
            let hint = "bring back what you need with `--only media` or `--only database`, or try another snapshot";
            return Err(Error::failed(message, hint));
        }
    }
    Ok(())
}

/// Where a stored path goes: `--path-map` first, then under `--to`. Never outside: `..` is refused.
pub(super) fn target(path: &ItemPath, options: &Options) -> Result<PathBuf, String> {
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    if !path.is_absolute() {
        return Err("its path is not absolute".into());
    }
    if path
        .components()
        .any(|part| !matches!(part, Component::RootDir | Component::Normal(_)))
    {
        return Err("its path has `..` in it".into());
    }
    if path.as_os_str().as_bytes().contains(&0) {
        return Err("its path has a zero byte in it".into());
    }
    let mapped = map(path, &options.path_map);
    Ok(match &options.to {
        Some(to) => to.join(mapped.strip_prefix("/").unwrap_or(&mapped)),
        None => mapped,
    })
}

/// The longest old prefix, on component boundaries, is replaced by its new one.
pub(super) fn map(path: &Path, map: &[(PathBuf, PathBuf)]) -> PathBuf {
    let best = map
        .iter()
        .filter(|(old, _)| path.starts_with(old))
        .max_by_key(|(old, _)| old.components().count());
    match best {
        Some((old, new)) => match path.strip_prefix(old) {
            Ok(rest) if rest.as_os_str().is_empty() => new.clone(),
            Ok(rest) => new.join(rest),
            Err(_) => path.to_owned(),
        },
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mapping_wins_on_component_boundaries() {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(old, new)| (PathBuf::from(old), PathBuf::from(new)))
                .collect::<Vec<_>>()
        };
        let table = pairs(&[("/data", "/srv/synapse"), ("/data/media", "/mnt/media"), ("/etc/a", "/etc/b")]);
        for (path, expected) in [
            ("/data/homeserver.yaml", "/srv/synapse/homeserver.yaml"),
            ("/data/media/local_content", "/mnt/media/local_content"),
            ("/data/media", "/mnt/media"),
            ("/database", "/database"),
            ("/etc/ab", "/etc/ab"),
        ] {
            assert_eq!(map(Path::new(path), &table), Path::new(expected), "{path}");
        }
    }
}
