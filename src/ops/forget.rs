//! `forget`: remove snapshots by hand. Plan, then apply; what they needed comes back with the next prune.
//!
//! Names are settled before anything is deleted. A snapshot may have several objects (`adopt` and `copy` write one again): all
//! of them go, those that count last, so that a run that dies leaves a snapshot that is listed or none.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde::Serialize;

use super::retention::{self, Loss};
use super::{Error, Part, Run};
use crate::format::ObjectId;
use crate::repo::snapshots::{self, Loaded, SnapshotKey};
use crate::repo::{self, Repository, tags};

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Delete nothing.
    pub dry_run: bool,
    /// Also the last good snapshot of a homeserver.
    pub yes_really: bool,
}

/// One that went, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// Its id.
    pub id: String,
    /// When it was taken; unknown of one that cannot be read.
    pub time: Option<String>,
    /// Whose.
    pub server_name: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// It did not count.
    pub late: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The snapshots, oldest first.
    pub forgotten: Vec<Forgotten>,
    /// Nothing was deleted.
    pub dry_run: bool,
}

/// Forget the snapshots that these names mean.
pub async fn forget(repository: &Repository, names: &[String], options: Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let inventory = run.until_cancelled(Inventory::load(repository)).await?;
    let chosen = inventory.resolve(repository, names)?;
    // One that is not authentic is no good one that would be left.
    let believed: Vec<Loaded> = inventory
        .snapshots
        .iter()
        .filter(|one| repository.doubt(one).is_none())
        .cloned()
        .collect();
    let candidates = retention::candidates(&believed);
    let losses = retention::losses(&candidates, |id| chosen.contains(id));
    if let (Some(loss), false) = (losses.first(), options.yes_really) {
        return Err(refusal(loss).into());
    }
    if !options.dry_run {
        run.until_cancelled(apply(repository, &inventory, &chosen)).await?;
    }
    Ok(Report {
        forgotten: inventory.lines(&chosen),
        dry_run: options.dry_run,
    })
}

fn refusal(loss: &Loss) -> Error {
    let part = match loss.part {
        Part::Config => "the configuration",
        Part::Database => "the database",
        Part::Media => "the media",
    };
    let good = if loss.good { "last good one" } else { "best that is left" };
    Error::failed(
        format!("snapshot {} is the {good} of `{}` with {part}", loss.id, loss.server_name),
        "take a new one first, or forget it all the same with `--yes-really`",
    )
}

/// DELETE of snapshots and of nothing else.
async fn apply(repository: &Repository, inventory: &Inventory, chosen: &BTreeSet<ObjectId>) -> anyhow::Result<()> {
    for id in chosen {
        for key in inventory.objects.get(id).into_iter().flatten() {
            let deleted = repository.store().delete(&key.key).await;
            deleted.with_context(|| format!("forget snapshot {id}"))?;
        }
    }
    Ok(())
}

/// All snapshots there are.
struct Inventory {
    /// Each once.
    snapshots: Vec<Loaded>,
    /// All objects of each, those that do not count first; also of those that cannot be read.
    objects: BTreeMap<ObjectId, Vec<SnapshotKey>>,
}

impl Inventory {
    async fn load(repository: &Repository) -> repo::Result<Self> {
        let (mut loaded, damaged) = snapshots::load_all(repository).await?;
        loaded.sort_by_key(|one| !one.late);
        let mut objects: BTreeMap<ObjectId, Vec<SnapshotKey>> = BTreeMap::new();
        let keys = damaged.into_iter().map(|(key, _)| key);
        for key in keys.chain(loaded.iter().map(|one| one.key.clone())) {
            objects.entry(key.id).or_default().push(key);
        }
        let mut snapshots = snapshots::unique(repository, loaded);
        snapshots.sort_by_key(|one| (one.time(), one.snapshot.id));
        // A change of tags that cannot be read hinders nobody here.
        tags::overlay(repository, &mut snapshots).await?;
        Ok(Self { snapshots, objects })
    }

    /// What the names mean, all of them, or an error.
    fn resolve(&self, repository: &Repository, names: &[String]) -> repo::Result<BTreeSet<ObjectId>> {
        names.iter().map(|name| self.resolve_one(repository, name)).collect()
    }

    fn resolve_one(&self, repository: &Repository, name: &str) -> repo::Result<ObjectId> {
        let server_name = match name.strip_prefix("latest") {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix(':').map(Some),
            None => None,
        };
        let found: Vec<ObjectId> = match server_name {
            Some(server_name) => {
                let ours = |one: &&Loaded| !one.late && server_name.is_none_or(|name| name == one.snapshot.server_name);
                let newest = self.snapshots.iter().rfind(ours);
                newest.map(|one| one.snapshot.id).into_iter().collect()
            }
            None if name.is_empty() => Vec::new(),
            None => {
                let ids = self.objects.keys();
                ids.filter(|id| id.to_string().starts_with(name)).copied().collect()
            }
        };
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(repo::Error::NoSnapshot {
                name: name.to_owned(),
                url: repository.url().to_owned(),
                hint: "`synapse-backup snapshots` lists them; late ones are named by their id; nothing was forgotten".into(),
            }),
            several => Err(repo::Error::Ambiguous {
                name: name.to_owned(),
                count: several.len(),
            }),
        }
    }

    fn lines(&self, chosen: &BTreeSet<ObjectId>) -> Vec<Forgotten> {
        let readable = self.snapshots.iter().filter(|one| chosen.contains(&one.snapshot.id));
        let known: BTreeSet<ObjectId> = self.snapshots.iter().map(|one| one.snapshot.id).collect();
        let damaged = chosen.difference(&known).map(|id| Forgotten {
            id: id.to_string(),
            time: None,
            server_name: None,
            tags: Vec::new(),
            late: false,
        });
        let line = |one: &Loaded| Forgotten {
            id: one.snapshot.id.to_string(),
            time: Some(one.time().to_string()),
            server_name: Some(one.snapshot.server_name.clone()),
            tags: one.tags.clone(),
            late: one.late,
        };
        damaged.chain(readable.map(line)).collect()
    }
}
