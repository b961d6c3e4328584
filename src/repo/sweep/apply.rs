//! P8: doing what the plan says, each thing in its order.
//!
//! A pack is deleted, and when that is answered its marker. A pack is marked only when everything live in it is answered
//! elsewhere, pack and segment both. Dying anywhere leaves nothing that another prune could not carry on.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Plan, Survey, Why, repack};
use crate::format::{PackId, keys};
use crate::repo::old_versions::FAILED_IN_A_ROW_MAX;
use crate::repo::{Error, Repository, Result};
use crate::store;

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

/// What applying is told.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// Bound of memory.
    pub memory_bytes: u64,
    /// Requests at once.
    pub connections: usize,
    /// Told to stop: what was begun is cleaned up.
    pub cancel: CancellationToken,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Packs that were deleted.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Packs that were marked.
    pub condemned: u64,
    /// Packs whose live blobs were moved.
    pub repacked: u64,
    /// Bytes of the frames that were read for that.
    pub moved_bytes: u64,
    /// Packs written with what was moved.
    pub new_packs: u64,
    /// Markers without a pack, and small facts, that were removed.
    pub removed: u64,
    /// Uploads of killed runs that were aborted.
    pub aborted: u64,
    /// Those that the store would not give up, each by its key and why: they stay for the next prune.
    pub not_aborted: Vec<(String, String)>,
    /// Packs that could not be moved, since a blob in them is damaged: they stay.
    pub damaged: Vec<PackId>,
    /// Packs that could not be moved, since no key at hand opens them: they stay.
    pub not_opened: Vec<PackId>,
}

/// Do it. `survey` is the one that the plan was made of: it knows where the blobs are that are to be moved.
pub async fn apply(repository: &Repository, plan: &Plan, survey: &Survey, options: &ApplyOptions) -> Result<Applied> {
    let mut applied = Applied::default();
    let at_once = options.connections.clamp(1, 32);
    // P8: DELETE the pack, and when that is answered its marker.
    let mut deletes = stream::iter(&plan.delete)
        .map(|pack| async move {
            #[cfg(test)]
            if planted(Bug::MarkerBeforePack) {
                repository.store.delete(&keys::condemned(pack.id)).await?;
            }
            repository.store.delete(&keys::pack(pack.id)).await?;
            repository.store.delete(&keys::condemned(pack.id)).await?;
            Ok::<_, store::Error>(pack.bytes)
        })
        .buffer_unordered(at_once);
    while let Some(bytes) = until_told(options, deletes.try_next()).await? {
        applied.deleted += 1;
        applied.deleted_bytes += bytes;
    }
    drop(deletes);
    // P8: a marker whose pack was not in P5.
    let orphans = plan.orphan_markers.iter().map(|pack| keys::condemned(*pack));
    let mut removals = stream::iter(orphans.chain(plan.leftovers.iter().cloned()))
        .map(|key| async move { repository.store.delete(&key).await })
        .buffer_unordered(at_once);
    while until_told(options, removals.try_next()).await?.is_some() {
        applied.removed += 1;
    }
    drop(removals);
    until_told(options, abort(repository, plan, &mut applied)).await?;
    let condemned = plan.condemn.iter().map(|pack| pack.id);
    until_told(options, mark(repository, condemned, at_once, &mut applied)).await?;
    // P8: new packs, then their segments, and only then the markers of the old ones.
    let moved = repack::repack(repository, plan, survey, options).await?;
    applied.repacked = moved.packs.len() as u64;
    applied.moved_bytes = moved.bytes;
    applied.new_packs = moved.new_packs;
    applied.damaged = moved.damaged;
    applied.not_opened = moved.not_opened;
    let moved: BTreeSet<PackId> = moved.packs;
    let emptied = plan
        .repack
        .iter()
        .filter(|pack| pack.why != Why::Stranded && moved.contains(&pack.id));
    until_told(options, mark(repository, emptied.map(|pack| pack.id), at_once, &mut applied)).await?;
    Ok(applied)
}

/// Go on, unless it is told to stop: a request that is on its way then may still land, and the next prune carries on.
async fn until_told<T, E: Into<Error>>(options: &ApplyOptions, work: impl Future<Output = Result<T, E>>) -> Result<T> {
    tokio::select! {
        biased;
        () = options.cancel.cancelled() => Err(Error::Worker("it was told to stop".into())),
        done = work => done.map_err(Into::into),
    }
}

/// Nothing else waits for an upload to go: one that the store refuses to give up stops nothing, and is told of. When several in a row
/// have failed, each after all the patience that a request has, the others are left to the next prune.
async fn abort(repository: &Repository, plan: &Plan, applied: &mut Applied) -> Result<()> {
    let mut failed_in_a_row = 0;
    for (upload, others) in plan.abort.iter().zip((0..plan.abort.len()).rev()) {
        let id = store::UploadId(upload.id.clone());
        let aborted = repository.store.abort_upload(&upload.key, &id).await;
        failed_in_a_row = match aborted {
            Err(store::Error::Failed { .. }) => failed_in_a_row + 1,
            _ => 0,
        };
        let error = match aborted {
            Ok(()) => {
                applied.aborted += 1;
                continue;
            }
            Err(error @ (store::Error::Denied { .. } | store::Error::Failed { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        let mut why = error.with_cause();
        let gives_up = failed_in_a_row == FAILED_IN_A_ROW_MAX && others > 0;
        if gives_up {
            let _ = write!(why, "; {others} others were not asked for after that");
        }
        applied.not_aborted.push((upload.key.clone(), why));
        if gives_up {
            return Ok(());
        }
    }
    Ok(())
}

/// PUT markers. One of unknown outcome is left to the next prune: it is there, or the pack is not condemned.
async fn mark(repository: &Repository, packs: impl Iterator<Item = PackId>, at_once: usize, applied: &mut Applied) -> Result<()> {
    let mut marks = stream::iter(packs)
        .map(|pack| async move {
            match repository.store.put(&keys::condemned(pack), Bytes::new()).await {
                Ok(_) => Ok(1),
                Err(store::Error::Unknown { .. }) => Ok(0),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(at_once);
    while let Some(marked) = marks.try_next().await? {
        applied.condemned += marked;
    }
    Ok(())
}
