//! The config items of a backup: files, links and folders that discovery found, with mode and owner.
//!
//! What discovery found wrong, and what could no longer be read when its turn came, are problems of the snapshot. Which
//! files matter is decided in `synapse::config`, how they are read in `files`.

use anyhow::Context;

use super::files::{self, Outcome};
use super::patience::Patience;
use crate::format::list::{List, ListEntry};
use crate::format::snapshot::{ConfigItem, ConfigKind, ConfigRole, Problem, ProblemKind};
use crate::format::{ItemPath, PackKind};
use crate::ops::Run;
use crate::ops::items::config_name;
use crate::repo::writer::{ListWriter, Writer};
use crate::synapse::{ConfigFile, FileKind, FindingKind, Homeserver, Role};

/// What became of the config items.
#[derive(Debug, Default)]
pub(super) struct StoredConfig {
    pub(super) items: Vec<ConfigItem>,
    pub(super) problems: Vec<Problem>,
    pub(super) read_bytes: u64,
}

/// Send every config file that is new; what could not be read is a problem.
pub(super) async fn store_config(writer: &Writer, homeserver: &Homeserver, run: &Run<'_>) -> anyhow::Result<StoredConfig> {
    let mut stored = StoredConfig {
        problems: findings(homeserver),
        ..StoredConfig::default()
    };
    for problem in &stored.problems {
        run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
    }
    let patience = Patience::default();
    let found: Vec<&ConfigFile> = homeserver.files.iter().collect();
    let sizes: Vec<u64> = found.iter().map(|file| file.bytes).collect();
    for batch in files::batches(&sizes) {
        let mut items: Vec<ConfigItem> = found[batch.clone()].iter().map(|file| item(file)).collect();
        let places: Vec<usize> = (0..items.len()).filter(|&place| items[place].kind == ConfigKind::File).collect();
        let paths = places
            .iter()
            .map(|&place| (vec![found[batch.start + place].path.clone()], sizes[batch.start + place]))
            .collect();
        let outcomes = files::save_batch(writer, PackKind::Media, paths, &patience)
            .await
            .context("send the configuration")?;
        for (&place, outcome) in places.iter().zip(outcomes) {
            if let Some(problem) = fill(writer, &mut items[place], outcome, &mut stored.read_bytes).await? {
                run.progress.problem(problem.kind.as_str(), &problem.item, &problem.message);
                stored.problems.push(problem);
            }
        }
        stored.items.append(&mut items);
    }
    Ok(stored)
}

/// What discovery found wrong, as problems.
fn findings(homeserver: &Homeserver) -> Vec<Problem> {
    let kind = |kind| match kind {
        FindingKind::Missing => Some(ProblemKind::Missing),
        FindingKind::Unreadable => Some(ProblemKind::Unreadable),
        FindingKind::NotAFile => Some(ProblemKind::NotAFile),
        FindingKind::Damaged => Some(ProblemKind::Damaged),
        FindingKind::Ignored | FindingKind::LeftOut => None,
    };
    let problem = |finding: &crate::synapse::Finding| {
        let kind = kind(finding.kind)?;
        Some(Problem {
            kind,
            item: finding.item.clone(),
            message: finding.message.clone(),
        })
    };
    homeserver.findings.iter().filter_map(problem).collect()
}

/// The item as discovery found it, without content.
fn item(file: &ConfigFile) -> ConfigItem {
    let (kind, target) = match &file.kind {
        FileKind::File => (ConfigKind::File, None),
        FileKind::Symlink { target } => (ConfigKind::Symlink, Some(ItemPath::from(target.as_path()))),
        FileKind::Directory => (ConfigKind::Directory, None),
    };
    ConfigItem {
        path: ItemPath::from(file.path.as_path()),
        kind,
        role: role(file.role),
        mode: file.mode,
        uid: file.owner.uid,
        gid: file.owner.gid,
        owner: file.owner.user.clone(),
        group: file.owner.group.clone(),
        bytes: 0,
        sha256: None,
        list: List::default(),
        target,
    }
}

fn role(role: Role) -> ConfigRole {
    match role {
        Role::Config => ConfigRole::Homeserver,
        Role::SigningKey => ConfigRole::SigningKey,
        Role::Worker => ConfigRole::Worker,
        Role::Secret => ConfigRole::Secret,
        Role::Template => ConfigRole::Template,
        Role::AppService | Role::LogConfig | Role::Certificate | Role::Database | Role::Named => ConfigRole::Config,
        Role::Extra | Role::Guess => ConfigRole::Other,
    }
}

/// Content into the item, or why there is none.
async fn fill(writer: &Writer, item: &mut ConfigItem, outcome: Outcome, read_bytes: &mut u64) -> anyhow::Result<Option<Problem>> {
    let problem = |kind, message: &str| {
        Some(Problem {
            kind,
            item: config_name(item),
            message: message.to_owned(),
        })
    };
    let file = match outcome {
        Outcome::Missing => return Ok(problem(ProblemKind::Missing, "it was there a moment ago and is gone")),
        Outcome::Failed(kind, message) => return Ok(problem(kind, &message)),
        Outcome::Saved(file) => file,
    };
    let problem = if file.changed {
        problem(ProblemKind::Changed, "it changed while it was read")
    } else {
        None
    };
    let mut list = ListWriter::new(writer);
    for blob in &file.blobs {
        let pack = blob.pack(writer).await?;
        writer.rely(pack);
        list.push(ListEntry {
            id: blob.id,
            length: blob.length,
            pack,
        })
        .await?;
    }
    *read_bytes += file.bytes;
    (item.bytes, item.sha256, item.list) = (file.bytes, Some(file.sha256), list.finish().await?);
    Ok(problem)
}
