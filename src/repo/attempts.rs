//! A run that writes, from its first attempt to the one that is committed: the one loop around B1 to B6.
//!
//! What an attempt stores is its caller's business: dump streams and media, or the snapshots of another repository. If packs that it
//! relied on have vanished before its commit (B4), the index is loaded anew, those packs are no longer trusted, and what was
//! in them is sent again; all the rest, the first attempt's own packs too, is found in the index. `backup`, `copy` and what
//! the simulation and the tests do in their place all run through here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::Catalog;
use super::commit::{CheckFailed, Relied};
use super::writer::{Budget, Writer};
use super::{Error, Repository, Result};
use crate::format::PackId;

/// How often a run may start over because packs that it relied on vanished.
const ATTEMPTS_MAX: usize = 3;
/// How long a run that failed may take to abort its uploads.
const ABORT_PATIENCE: Duration = Duration::from_secs(4);

/// How an attempt ended, if nothing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt<T> {
    /// It was committed, or there was nothing to commit.
    Done(T),
    /// These packs are gone, and nothing else holds their blobs. Nothing was committed.
    Gone(Vec<PackId>),
}

impl<T> Attempt<T> {
    /// Of what a check or a commit gave.
    pub fn of(ended: Result<T, CheckFailed>) -> Result<Self> {
        match ended {
            Ok(done) => Ok(Self::Done(done)),
            Err(CheckFailed::Gone(packs)) => Ok(Self::Gone(packs)),
            Err(CheckFailed::Error(error)) => Err(error),
        }
    }
}

/// Attempts, until one is done. `load` gives the index as it is now (B1); `attempt` stores and commits.
pub async fn attempts<T, E: From<Error>>(
    repository: &Repository,
    budget: &Budget,
    load: impl AsyncFn() -> Result<Catalog, E>,
    mut attempt: impl AsyncFnMut(&Writer, &Arc<Catalog>) -> Result<Attempt<T>, E>,
) -> Result<T, E> {
    let mut distrusted = BTreeSet::new();
    for _ in 0..ATTEMPTS_MAX {
        let catalog = Arc::new(load().await?);
        let writer = Writer::open(repository, Arc::clone(&catalog), distrusted.clone(), budget);
        match attempt(&writer, &catalog).await {
            Ok(Attempt::Done(done)) => return Ok(done),
            Ok(Attempt::Gone(packs)) => distrusted.extend(packs),
            Err(error) => {
                if tokio::time::timeout(ABORT_PATIENCE, writer.abort()).await.is_err() {
                    tracing::warn!("unfinished uploads could not be aborted in time; the store cleans them up");
                }
                return Err(error);
            }
        }
    }
    let packs: Vec<PackId> = distrusted.into_iter().collect();
    Err(Error::vanished(&packs).into())
}

/// Everything of an attempt is stored: wait until it is answered and named by segments (B2). Gives all packs that it relies on (B3),
/// or those among them that are known not to be whole: what they hold must be sent again.
pub async fn finish(writer: &Writer, damaged: &BTreeSet<PackId>) -> Result<Attempt<Relied>> {
    let finished = writer.finish().await?;
    let mut packs = writer.relied();
    packs.extend(finished.packs);
    let gone: Vec<PackId> = damaged.intersection(&packs).copied().collect();
    if !gone.is_empty() {
        return Ok(Attempt::Gone(gone));
    }
    let distrusted = writer.distrusted().union(damaged).copied().collect();
    Ok(Attempt::Done(Relied { packs, distrusted }))
}
