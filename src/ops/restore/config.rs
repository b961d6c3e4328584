//! The configuration: read first, and written last.
//!
//! Read first, since without a whole signing key nothing is begun. homeserver.yaml and the signing key are the very last
//! files, so that a restore that ended half way cannot be started (invariant 6).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;

use super::plan::{Plan, PlannedItem};
use super::write::{self, Ids};
use super::{Options, Report, is_last};
use crate::format::snapshot::{ConfigItem, ConfigKind, ConfigRole, Problem, ProblemKind};
use crate::ops::items::config_name;
use crate::ops::{Error, Run, owners};
use crate::repo;
use crate::repo::reader::Reader;

/// Config files up to this size are held in memory until they are written; larger ones are refused as items.
pub(super) const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// The bytes of every planned file, in the order of the plan; an error stands for a file that is damaged.
pub(super) type Contents = Vec<Option<Result<Vec<u8>, String>>>;

/// Read every config file. A damaged signing key ends the restore before anything is written.
pub(super) async fn read(reader: &Reader, plan: &Plan) -> anyhow::Result<Contents> {
    let mut contents = Vec::with_capacity(plan.config.len());
    for PlannedItem { item, .. } in &plan.config {
        if item.kind != ConfigKind::File || item.sha256.is_none() {
            contents.push(None);
            continue;
        }
        match reader.read_small(&item.list, CONFIG_BYTES_MAX).await {
            Ok(bytes) => contents.push(Some(Ok(bytes))),
            Err(error @ repo::Error::Store(_)) => return Err(error).context("read the configuration"),
            Err(error) if item.role == ConfigRole::SigningKey => {
                let message = format!("the signing key {} is damaged; nothing was written", item.path);
                let hint = "try an older snapshot with `--only config`; without its key the server loses its identity";
                return Err(anyhow::Error::from(error).context(Error::failed(message, hint)));
            }
            Err(error) => contents.push(Some(Err(format!("{:#}", anyhow::Error::from(error))))),
        }
    }
    Ok(contents)
}

/// Write everything: folders, files, links, then homeserver.yaml and the signing key.
pub(super) fn write(plan: &Plan, contents: Contents, options: &Options, report: &mut Report, run: &Run<'_>) -> anyhow::Result<()> {
    report.problems.extend(plan.problems.iter().cloned());
    let mut owners = owners::Owners::default();
    let mut last = Vec::new();
    for (planned, content) in plan.config.iter().zip(contents) {
        let ids = ids(&planned.item, options, &mut owners);
        if is_last(planned.item.role) && planned.item.kind == ConfigKind::File {
            last.push((planned, content, ids));
        } else {
            put(planned, content, ids, report, run);
        }
    }
    // The key before homeserver.yaml: Synapse cannot start without the latter, and without the former it would make
    // itself a new identity.
    last.sort_by_key(|(planned, ..)| planned.item.role == ConfigRole::Homeserver);
    for (planned, content, ids) in last {
        let problems = report.problems.len();
        put(planned, content, ids, report, run);
        if planned.item.role == ConfigRole::SigningKey && report.problems.len() > problems {
            let message = format!(
                "the signing key {} could not be written; homeserver.yaml was not written",
                planned.target.display()
            );
            let reason = report.problems.last().map_or_else(String::new, |problem| problem.message.clone());
            return Err(Error::failed(
                format!("{message}: {reason}"),
                "make room or allow writing there, clear the target, and restore again",
            )
            .into());
        }
    }
    Ok(())
}

/// Whose a config item will be: as told, else as it was when we are root.
fn ids(item: &ConfigItem, options: &Options, owners: &mut owners::Owners) -> Ids {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    options
        .owner
        .or_else(|| Some(owners.ids(item.owner.as_deref(), item.group.as_deref(), item.uid, item.gid)))
}

fn put(planned: &PlannedItem, content: Option<Result<Vec<u8>, String>>, ids: Ids, report: &mut Report, run: &Run<'_>) {
    let PlannedItem { item, target } = planned;
    let done = match item.kind {
        ConfigKind::Directory => write::put_folder(target, item.mode, ids).map(|()| 0),
        ConfigKind::Symlink => match &item.target {
            Some(points_to) => write::put_link(target, Path::new(OsStr::from_bytes(points_to.as_bytes())), ids).map(|()| 0),
            None => Err(std::io::Error::other("the snapshot does not say where it points")),
        },
        ConfigKind::File | ConfigKind::Unknown => match content {
            // It was not readable when the backup was taken; the snapshot says so.
            None => return,
            Some(Ok(bytes)) => write::put_file(target, &bytes, item.mode, ids, true).map(|()| bytes.len() as u64),
            Some(Err(message)) => return note(report, item, ProblemKind::Damaged, message, run),
        },
    };
    match done {
        Ok(bytes) => {
            report.config_items += 1;
            report.written_bytes += bytes;
        }
        Err(error) => note(report, item, ProblemKind::Unreadable, format!("cannot be written: {error}"), run),
    }
}

fn note(report: &mut Report, item: &ConfigItem, kind: ProblemKind, message: String, run: &Run<'_>) {
    let name = config_name(item);
    run.progress.problem(kind.as_str(), &name, &message);
    report.problems.push(Problem { kind, item: name, message });
}
