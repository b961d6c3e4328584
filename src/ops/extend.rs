//! `extend`: hold under Object Lock whatever the listed snapshots need, for the whole promise from now.
//!
//! A nightly backup does this for what its own snapshot needs. This is for the rest: older snapshots that are to be kept, a
//! repository that had no Object Lock before, and the time after a break-in, since it asks the store about every object.

use std::collections::BTreeSet;

use anyhow::Context;
use serde::Serialize;

use super::{Error, Limits, Run};
use crate::format::PackId;
use crate::repo::extend::{self, Extended};
use crate::repo::{Repository, catalog, snapshots};

/// What was done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// What they need, and what became of it.
    pub object_lock: Extended,
}

/// Extend what every listed snapshot needs.
pub async fn extend(repository: &Repository, limits: Limits, run: &Run<'_>) -> anyhow::Result<Report> {
    run.progress.stage("extend", None, None);
    let report = run.until_cancelled(all(repository, limits)).await?;
    run.progress.done("extend");
    Ok(report)
}

async fn all(repository: &Repository, limits: Limits) -> anyhow::Result<Report> {
    let (loaded, damaged) = snapshots::load_all(repository).await.context("load the snapshots")?;
    if let Some((key, error)) = damaged.into_iter().next() {
        return Err(anyhow::Error::from(error).context(format!("what snapshot `{}` needs is not known", key.key)));
    }
    let listed: Vec<_> = loaded.iter().filter(|loaded| !loaded.late).collect();
    let mut packs: BTreeSet<_> = listed.iter().flat_map(|loaded| loaded.snapshot.packs.iter().copied()).collect();
    let presence = catalog::presence(repository).await.context("list the packs")?;
    let stays = |pack: &PackId| presence.packs.contains_key(pack) && !presence.condemned.contains(pack);
    if !packs.iter().all(stays) {
        // A prune or a rekey has moved what was in some of them, and the documents do not say where to: hold every pack.
        packs = presence.packs.keys().copied().collect();
    }
    let keys: Vec<String> = listed.iter().map(|loaded| loaded.key.key.clone()).collect();
    let extended = extend::extend_all(repository, &keys, &packs, limits.connections).await?;
    let object_lock = extended.ok_or_else(|| {
        let hint = "set `object_lock: { mode: governance, days: 30 }`; the bucket must have been made with Object Lock";
        Error::usage("no Object Lock is asked for", hint)
    })?;
    if object_lock.failed > 0 && object_lock.failed == object_lock.needed {
        let hint =
            "the bucket must have been made with Object Lock, and the key needs s3:PutObjectRetention: `synapse-backup doctor` tells";
        let why = object_lock.error.unwrap_or_default();
        return Err(Error::failed(format!("no retention could be extended: {why}"), hint).into());
    }
    Ok(Report {
        snapshots: keys.len() as u64,
        object_lock,
    })
}
