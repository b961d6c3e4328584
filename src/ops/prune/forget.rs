//! P0: which snapshots the policy lets go, why the others stay, and taking those away.
//!
//! Before anything goes, the signs are looked for that somebody drives out what is good; they stop a policy, not a person
//! who has looked (`--yes-really`), and not a dry run, by which he looks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde::Serialize;

use crate::format::ObjectId;
use crate::ops::retention::{Flood, Keep, Reason, candidates, decide, floods};
use crate::ops::{Error, Run};
use crate::repo::snapshots::{self, Loaded};
use crate::repo::{Repository, tags};

/// What happens to one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its id.
    pub id: ObjectId,
    /// By which it was judged (RFC 3339).
    pub time: String,
    /// Whose homeserver.
    pub server_name: String,
    /// Its tags now.
    pub tags: Vec<String>,
    /// It does not count.
    pub late: bool,
    /// Nothing keeps it.
    pub forgotten: bool,
    /// Why it stays.
    pub reasons: Vec<Reason>,
}

/// Why the policy stops until somebody has looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sign {
    /// What is there that should not be.
    pub message: String,
    /// What to look at.
    pub hint: String,
}

/// The verdicts, oldest first and behind them what is not authentic, and the objects of those that go.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub(super) judged: Vec<Judged>,
    pub(super) keys: BTreeSet<String>,
    /// What stops the policy, worst first; nothing where a person has looked.
    pub(super) signs: Vec<Sign>,
    /// Documents that the survey need not read again.
    pub(super) known: BTreeMap<String, Loaded>,
}

/// Documents that are kept for the survey: those of any usual retention. A document is some tens of kilobytes.
const KNOWN_MAX: usize = 64;

/// Decide. Fails where what there is cannot be read.
pub(super) async fn judge(repository: &Repository, keep: &Keep, yes_really: bool) -> anyhow::Result<Verdicts> {
    let (mut loaded, damaged) = snapshots::load_all(repository).await.context("load the snapshots")?;
    if let Some((key, error)) = damaged.into_iter().next() {
        let hint = "nothing was deleted; `synapse-backup forget` of that snapshot lets prune go on";
        let stop = Error::failed(format!("what snapshot `{}` needs is not known", key.key), hint);
        return Err(anyhow::Error::from(error).context(stop));
    }
    let damaged = tags::overlay(repository, &mut loaded).await.context("read the tags")?;
    if let Some((key, error)) = damaged.into_iter().next()
        && keep.has_rule()
    {
        return Err(anyhow::Error::from(error).context(format!("which tags `{key}` puts on a snapshot is not known")));
    }
    let objects: Vec<(ObjectId, String)> = loaded.iter().map(|one| (one.snapshot.id, one.key.key.clone())).collect();
    let newest = loaded.iter().rev().take(KNOWN_MAX);
    let known = newest.map(|one| (one.key.key.clone(), one.clone())).collect();
    // Forged ones must not take the places of the good ones.
    let (believed, doubted): (Vec<Loaded>, Vec<Loaded>) = snapshots::unique(repository, loaded)
        .into_iter()
        .partition(|one| repository.doubt(one).is_none());
    let candidates = candidates(&believed);
    let verdicts = decide(&candidates, keep);
    let signs = if yes_really {
        Vec::new()
    } else {
        floods(&candidates, &verdicts, repository.date().await?)
    };
    let by_id: BTreeMap<ObjectId, _> = candidates.iter().map(|one| (one.id, one)).collect();
    let goes: BTreeSet<ObjectId> = verdicts.iter().filter(|one| one.is_forgotten()).map(|one| one.id).collect();
    let judged = verdicts.into_iter().filter_map(|verdict| {
        let one = by_id.get(&verdict.id)?;
        Some(Judged {
            id: verdict.id,
            time: one.time.to_string(),
            server_name: one.server_name.clone(),
            tags: one.tags.iter().cloned().collect(),
            late: one.late,
            forgotten: verdict.is_forgotten(),
            reasons: verdict.keep,
        })
    });
    Ok(Verdicts {
        judged: judged.chain(doubted.iter().map(not_authentic)).collect(),
        keys: objects
            .into_iter()
            .filter(|(id, _)| goes.contains(id))
            .map(|(_, key)| key)
            .collect(),
        signs: signs.iter().map(Sign::of).collect(),
        known,
    })
}

impl Sign {
    fn of(flood: &Flood) -> Self {
        Self {
            message: flood.message(),
            hint: flood.hint(),
        }
    }
}

/// One yes goes past all signs, so whoever is told of the worst hears that there are others.
pub(super) fn stop(signs: &[Sign]) -> Option<Error> {
    let (worst, others) = signs.split_first()?;
    let hint = match others.len() {
        0 => worst.hint.clone(),
        number => format!(
            "{}, after you have looked at the rest: the same with `--dry-run` names {number} more",
            worst.hint
        ),
    };
    Some(Error::failed(worst.message.clone(), hint))
}

fn not_authentic(one: &Loaded) -> Judged {
    Judged {
        id: one.snapshot.id,
        time: one.time().to_string(),
        server_name: one.snapshot.server_name.clone(),
        tags: one.tags.clone(),
        late: one.late,
        forgotten: false,
        reasons: vec![Reason::NotAuthentic],
    }
}

/// DELETE every object of those that go.
pub(super) async fn forget(repository: &Repository, keys: &BTreeSet<String>, run: &Run<'_>) -> anyhow::Result<()> {
    for key in keys {
        let deleted = run.until_cancelled(repository.store().delete(key)).await;
        deleted.with_context(|| format!("forget `{key}`"))?;
    }
    Ok(())
}
