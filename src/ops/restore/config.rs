//! The configuration: homeserver.yaml and the signing key are read first, and written last.
//!
//! Read first, since without a whole signing key nothing is begun; written last, so that a restore that ended half way
//! cannot be started (invariant 6). All other files are read when they are written, many small ones together, large ones
//! window by window.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures::stream::StreamExt;

use super::plan::{Plan, PlannedItem};
use super::write::{self, Full, Ids, Pending};
use super::{Options, Report, is_last};
use crate::format::snapshot::{ConfigItem, ConfigKind, ConfigRole, Problem, ProblemKind};
use crate::ops::items::config_name;
use crate::ops::{Error, Run, owners};
use crate::repo;
use crate::repo::reader::{Reader, Wanted};

/// homeserver.yaml and signing key are held in memory up to this size each; a larger one is refused as an item.
pub(super) const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Files that are read together.
const BATCH_FILES_MAX: usize = 1_024;

/// A file's bytes, or why there are none.
type Content = Result<Vec<Bytes>, String>;

/// The files that are written last, with their content.
pub(super) type Last = Vec<(PlannedItem, Content)>;

/// Take homeserver.yaml and the signing key out of the plan and read them. A damaged key ends the restore before
/// anything is written.
pub(super) async fn read_last(reader: &Reader, plan: &mut Plan) -> anyhow::Result<Last> {
    let is_last = |planned: &PlannedItem| is_last(planned.item.role) && has_content(planned);
    let (last, others) = std::mem::take(&mut plan.config).into_iter().partition(is_last);
    plan.config = others;
    let mut read = Last::new();
    for planned in last {
        let item = &planned.item;
        let content = match reader.read_small(&item.list, CONFIG_BYTES_MAX).await {
            Ok(bytes) => Ok(vec![Bytes::from(bytes)]),
            Err(error @ repo::Error::Store(_)) => return Err(error).context("read the configuration"),
            Err(error) if item.role == ConfigRole::SigningKey => {
                let message = format!("the signing key {} is damaged; nothing was written", item.path);
                let hint = "try an older snapshot with `--only config`; without its key the server loses its identity";
                return Err(anyhow::Error::from(error).context(Error::failed(message, hint)));
            }
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        };
        read.push((planned, content));
    }
    // The key before homeserver.yaml: Synapse cannot start without the latter, and without the former it would make
    // itself a new identity.
    read.sort_by_key(|(planned, _)| planned.item.role == ConfigRole::Homeserver);
    Ok(read)
}

/// A file whose bytes were saved.
fn has_content(planned: &PlannedItem) -> bool {
    planned.item.kind == ConfigKind::File && planned.item.sha256.is_some()
}

/// Write everything: folders, files, links, then the signing key and homeserver.yaml.
pub(super) async fn write(
    reader: &Reader,
    plan: &Plan,
    last: Last,
    options: &Options,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<()> {
    report.problems.extend(plan.problems.iter().cloned());
    let mut writing = Writing {
        options,
        report,
        run,
        owners: owners::Owners::default(),
    };
    if options.resume {
        let planned = plan.config.iter().chain(last.iter().map(|(planned, _)| planned));
        let folders: BTreeSet<&Path> = planned.filter_map(|planned| planned.target.parent()).collect();
        folders.into_iter().try_for_each(write::sweep).context("look at what is there")?;
    }
    let of_kind = |kind: ConfigKind| plan.config.iter().filter(move |planned| planned.item.kind == kind);
    for planned in of_kind(ConfigKind::Directory) {
        writing.folder(planned)?;
    }
    let files: Vec<&PlannedItem> = plan.config.iter().filter(|planned| has_content(planned)).collect();
    for batch in batches(&files, reader.window_bytes()) {
        writing.files(reader, batch).await?;
    }
    for planned in of_kind(ConfigKind::Symlink) {
        writing.link(planned)?;
    }
    for (planned, content) in last {
        let problems = writing.report.problems.len();
        writing.file(&planned, content)?;
        if planned.item.role == ConfigRole::SigningKey && writing.report.problems.len() > problems {
            return Err(no_key(&planned, &writing.report.problems[problems]).into());
        }
    }
    Ok(())
}

fn no_key(planned: &PlannedItem, problem: &Problem) -> Error {
    let message = format!(
        "the signing key {} could not be written; homeserver.yaml was not written: {}",
        planned.target.display(),
        problem.message
    );
    Error::failed(message, "make room or allow writing there, clear the target, and restore again")
}

/// Files that together fit into `bytes_max`; one that does not fit, or whose list is a tree, stands alone.
fn batches<'p, 'a>(files: &'a [&'p PlannedItem], bytes_max: u64) -> impl Iterator<Item = &'a [&'p PlannedItem]> {
    let mut rest = files;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |planned: &&&PlannedItem| {
            bytes += planned.item.bytes;
            bytes <= bytes_max && planned.item.list.depth == 0
        };
        let count = rest.iter().take(BATCH_FILES_MAX).take_while(fits).count().max(1).min(rest.len());
        let (batch, left) = rest.split_at(count);
        rest = left;
        (!batch.is_empty()).then_some(batch)
    })
}

/// What writing one item after the other needs.
struct Writing<'a, 'r> {
    options: &'a Options,
    report: &'a mut Report,
    run: &'a Run<'r>,
    owners: owners::Owners,
}

impl Writing<'_, '_> {
    /// Whose a config item will be: as told, else as it was when we are root.
    fn ids(&self, item: &ConfigItem) -> Ids {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let as_it_was = || self.owners.ids(item.owner.as_deref(), item.group.as_deref(), item.uid, item.gid);
        Some(self.options.owner.unwrap_or_else(as_it_was))
    }

    fn folder(&mut self, planned: &PlannedItem) -> anyhow::Result<()> {
        let done = write::put_folder(&planned.target, planned.item.mode, self.ids(&planned.item));
        self.settle(planned, done.map(|()| 0))
    }

    fn link(&mut self, planned: &PlannedItem) -> anyhow::Result<()> {
        let PlannedItem { item, target } = planned;
        let done = match &item.target {
            Some(points_to) => write::put_link(target, Path::new(OsStr::from_bytes(points_to.as_bytes())), self.ids(item)),
            None => Err(std::io::Error::other("the snapshot does not say where it points")),
        };
        self.settle(planned, done.map(|()| 0))
    }

    fn file(&mut self, planned: &PlannedItem, content: Content) -> anyhow::Result<()> {
        let PlannedItem { item, target } = planned;
        match content {
            Ok(blobs) => {
                let done = write::put_file(target, &blobs, item.mode, self.ids(item));
                self.settle(planned, done.map(|()| item.bytes))
            }
            Err(message) => {
                self.note(item, ProblemKind::Damaged, message);
                Ok(())
            }
        }
    }

    /// Some files, read together.
    async fn files(&mut self, reader: &Reader, batch: &[&PlannedItem]) -> anyhow::Result<()> {
        if let [planned] = batch
            && (planned.item.list.depth > 0 || planned.item.bytes > reader.window_bytes())
        {
            return self.large_file(reader, planned).await;
        }
        let entries = batch.iter().flat_map(|planned| &planned.item.list.entries);
        let wanted: Vec<Wanted> = entries.map(Wanted::from).collect();
        let mut blobs = reader.fetch(&wanted).await.context("read the configuration")?.into_iter();
        for planned in batch {
            let of_file: Vec<_> = blobs.by_ref().take(planned.item.list.entries.len()).collect();
            let content: Result<Vec<Bytes>, repo::Error> = of_file.into_iter().collect();
            self.file(planned, content.map_err(|error| format!("{:#}", anyhow::Error::from(error))))?;
        }
        Ok(())
    }

    /// A file that does not fit into a window.
    async fn large_file(&mut self, reader: &Reader, planned: &PlannedItem) -> anyhow::Result<()> {
        let PlannedItem { item, target } = planned;
        let ids = self.ids(item);
        let mut pending = match write::make_parents(target, ids).and_then(|()| Pending::new(target)) {
            Ok(pending) => pending,
            Err(error) => return self.settle(planned, Err(error)),
        };
        let mut windows = std::pin::pin!(reader.windows(&item.list));
        while let Some(window) = windows.next().await {
            let window = match window {
                Ok(window) => window.into_iter().map(|(_, blob)| blob).collect::<Result<Vec<Bytes>, _>>(),
                Err(error) => Err(error),
            };
            let written = match window {
                Ok(blobs) => blobs.iter().try_for_each(|blob| pending.write(blob)),
                Err(error @ repo::Error::Store(_)) => return Err(error).context("read the configuration"),
                Err(error) => {
                    self.note(item, ProblemKind::Damaged, format!("{:#}", anyhow::Error::from(error)));
                    return Ok(());
                }
            };
            if let Err(error) = written {
                return self.settle(planned, Err(error));
            }
        }
        let done = pending.finish(target, item.mode, ids, true);
        self.settle(planned, done.map(|()| item.bytes))
    }

    /// A full disk ends it: homeserver.yaml and the key are not written then. Configuration lies on many disks, so of one that is
    /// read-only only its own files are problems.
    fn settle(&mut self, planned: &PlannedItem, done: std::io::Result<u64>) -> anyhow::Result<()> {
        let error = match done {
            Ok(bytes) => {
                self.report.config_items += 1;
                self.report.written_bytes += bytes;
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => error,
            Err(error) => match Full::of(&planned.target, error) {
                Ok(full) => return Err(full.into()),
                Err(error) => error,
            },
        };
        self.note(&planned.item, ProblemKind::Unreadable, format!("cannot be written: {error}"));
        Ok(())
    }

    fn note(&mut self, item: &ConfigItem, kind: ProblemKind, message: String) {
        let name = config_name(item);
        self.run.progress.problem(kind.as_str(), &name, &message);
        self.report.problems.push(Problem { kind, item: name, message });
    }
}
