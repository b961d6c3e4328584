//! The check before the commit, and the commit itself: rules B3 to B6.
//!
//! A snapshot is one PUT. It carries `not_after`; if the store's own Last-Modified is later, it does not count, so
//! that a commit that stalled anywhere can never rely on packs that were swept meanwhile.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::again::Tries;
#[cfg(test)]
use super::catalog::Presence;
use super::repair::repair;
use super::{Error, Repository, Result, catalog};
use crate::format::snapshot::{self, Snapshot};
use crate::format::writer_key::WriterKey;
use crate::format::{ObjectId, PackId, keys};
use crate::store;

#[cfg(test)]
use super::bugs::{Bug, planted, reuse_marks};

/// How often the check may be made anew before the run gives up.
const CHECKS_MAX: usize = 5;
/// How often a check or a commit may take too long.
const COMMITS_MAX: usize = 5;

/// What the check found wrong.
#[derive(Debug)]
pub enum CheckFailed {
    /// These packs are gone and nothing else holds their blobs: send the blobs again, then check again.
    Gone(Vec<PackId>),
    /// Another error.
    Error(Error),
}

impl<E: Into<Error>> From<E> for CheckFailed {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// What a commit goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relied {
    /// B3: every pack that the snapshot relies on.
    pub packs: BTreeSet<PackId>,
    /// Packs that nothing relies on, whatever index and listings say: this run has seen that they are gone or not whole.
    pub distrusted: BTreeSet<PackId>,
}

impl From<BTreeSet<PackId>> for Relied {
    /// Nothing is known against any pack.
    fn from(packs: BTreeSet<PackId>) -> Self {
        let distrusted = BTreeSet::new();
        Self { packs, distrusted }
    }
}

/// A check that held: the packs to name in the snapshot, and the store's time before it began.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What the snapshot relies on, after repair.
    pub packs: BTreeSet<PackId>,
    /// B4a: the store's time in an answer received before the lists were asked for.
    pub base: Timestamp,
}

/// B4: every pack relied on must be missing in `condemned/` and then present in `packs/`.
///
/// A pack that is condemned but still there is copied to a new id; one whose blobs are all in other usable packs is
/// replaced by those. What remains is [`CheckFailed::Gone`].
pub async fn check(repository: &Repository, relied: &Relied) -> std::result::Result<Checked, CheckFailed> {
    let mut packs = relied.packs.clone();
    for _ in 0..CHECKS_MAX {
        // B4a, then (b) and (c).
        let base = repository.date().await?;
        #[cfg(test)]
        if planted(Bug::NoCheck) {
            return Ok(Checked { packs, base });
        }
        let presence = catalog::presence(repository).await?;
        #[cfg(test)]
        let (base, presence) = mistaken(repository, &packs, base, presence).await?;
        let bad: Vec<PackId> = packs
            .iter()
            .copied()
            .filter(|id| presence.condemned.contains(id) || !presence.packs.contains_key(id))
            .collect();
        if bad.is_empty() {
            return Ok(Checked { packs, base });
        }
        repair(repository, &presence, &relied.distrusted, &bad, &mut packs).await?;
    }
    Err(CheckFailed::Error(Error::vanished(&packs)))
}

/// What a check with a planted mistake goes by.
#[cfg(test)]
async fn mistaken(
    repository: &Repository,
    packs: &BTreeSet<PackId>,
    base: Timestamp,
    mut presence: Presence,
) -> Result<(Timestamp, Presence)> {
    reuse_marks(repository, &mut presence);
    if planted(Bug::MarkersIgnored) {
        presence.condemned.clear();
    }
    if planted(Bug::PacksNotListed) {
        presence.packs.extend(packs.iter().map(|pack| (*pack, 0)));
    }
    let late = planted(Bug::DateAfterLists);
    Ok((if late { repository.date().await? } else { base }, presence))
}

/// B4 to B6: check, PUT, HEAD. `finish` is given the packs to name and a fresh id, and makes the document.
///
/// Gives the document that was committed. [`CheckFailed::Gone`]: nothing was committed.
pub async fn commit(
    repository: &Repository,
    relied: &Relied,
    mut finish: impl FnMut(ObjectId, &BTreeSet<PackId>) -> Snapshot,
) -> std::result::Result<Snapshot, CheckFailed> {
    let encode = |checked: &Checked, not_after| {
        let document = finish(repository.ids.object(), &checked.packs);
        let key = keys::snapshot(document.time, document.id)?;
        let object = match &repository.keyring.writer {
            Some(writer) => snapshot::encode_signed(&document, not_after, writer)?,
            None => snapshot::encode(&document, not_after)?,
        };
        Ok((key, object, document))
    };
    land(repository, relied, encode).await
}

/// B4 to B6 for a snapshot that was written before, here or in another repository: `object` as it was, but for its
/// `not_after`, under a key that was never used. `relied` names the packs that hold its blobs in this repository.
///
/// Gives the new key. [`CheckFailed::Gone`]: nothing was committed.
pub async fn commit_again(repository: &Repository, relied: &Relied, object: &[u8]) -> std::result::Result<String, CheckFailed> {
    let (document, _) = snapshot::decode(object).map_err(|source| Error::damaged(keys::SNAPSHOTS, source))?;
    // A copy from another repository keeps its signatures, and gets one for this one where there is a key.
    let object = match &repository.keyring.writer {
        Some(writer) if document.repository != repository.info.id => countersign(repository, object, writer)?,
        _ => object.to_vec(),
    };
    again(repository, relied, &document, &object).await
}

/// The same for a snapshot that is believed, which the writer key here vouches for from now on.
pub async fn commit_vouched(repository: &Repository, relied: &Relied, object: &[u8]) -> std::result::Result<String, CheckFailed> {
    let (document, _) = snapshot::decode(object).map_err(|source| Error::damaged(keys::SNAPSHOTS, source))?;
    let object = match &repository.keyring.writer {
        Some(writer) => countersign(repository, object, writer)?,
        None => object.to_vec(),
    };
    again(repository, relied, &document, &object).await
}

fn countersign(repository: &Repository, object: &[u8], writer: &WriterKey) -> Result<Vec<u8>> {
    snapshot::countersign(object, repository.info.id, writer).map_err(|source| Error::Encode { source })
}

/// Write a late snapshot again under a fresh key. It stays late, by the time in its own body, so there is nothing to check.
///
/// Gives the new key.
pub async fn put_late_again(repository: &Repository, object: &[u8]) -> Result<String> {
    let (document, _) = snapshot::decode(object).map_err(|source| Error::damaged(keys::SNAPSHOTS, source))?;
    let mut tries = Tries::default();
    loop {
        let key = keys::snapshot_again(document.time, document.id, repository.ids.object()).map_err(|source| Error::Encode { source })?;
        match repository.store.put(&key, Bytes::copy_from_slice(object)).await {
            Ok(_) => return Ok(key),
            Err(error) => {
                if matches!(error, store::Error::Unknown { .. }) {
                    withdraw(repository, &key).await;
                }
                tries.after(error).await?;
            }
        }
    }
}

async fn again(repository: &Repository, relied: &Relied, document: &Snapshot, object: &[u8]) -> std::result::Result<String, CheckFailed> {
    let encode = |_: &Checked, not_after| {
        let key = keys::snapshot_again(document.time, document.id, repository.ids.object())?;
        Ok((key.clone(), snapshot::with_not_after(object, not_after)?, key))
    };
    land(repository, relied, encode).await
}

/// Check (B4), PUT within half the window (B5), and believe the store only (B6), until a snapshot counts.
async fn land<T>(
    repository: &Repository,
    relied: &Relied,
    mut encode: impl FnMut(&Checked, Timestamp) -> crate::format::Result<(String, Vec<u8>, T)>,
) -> std::result::Result<T, CheckFailed> {
    let window = SignedDuration::from_secs(i64::try_from(repository.info.window_seconds).unwrap_or(i64::MAX));
    let (mut tries, mut late) = (Tries::default(), 0);
    while late < COMMITS_MAX {
        #[cfg(test)]
        let checked = if planted(Bug::CheckAfterCommit) {
            let (packs, base) = (relied.packs.clone(), repository.date().await?);
            Checked { packs, base }
        } else {
            check(repository, relied).await?
        };
        #[cfg(not(test))]
        let checked = check(repository, relied).await?;
        // B5: a check that took longer than half the window is made again.
        if repository.date().await?.duration_since(checked.base) > window / 2 {
            late += 1;
            continue;
        }
        let not_after = checked.base + window;
        #[cfg(test)]
        let not_after = if planted(Bug::NoFence) {
            not_after + window * 1000
        } else {
            not_after
        };
        let (key, object, told) = encode(&checked, not_after).map_err(|source| Error::Encode { source })?;
        match repository.store.put(&key, Bytes::from(object)).await {
            #[cfg(test)]
            Ok(_) if planted(Bug::NoHead) => return Ok(told),
            Ok(_) => {}
            Err(error) => {
                if matches!(error, store::Error::Unknown { .. }) {
                    withdraw(repository, &key).await;
                }
                tries.after(error).await?;
                continue;
            }
        }
        // B6: success is what the store says, not what we hope. One that landed late in the window counts, but its PUT might take
        // effect once more (A2) and make it late: that is no success to tell of.
        let landed = match repository.store.head(&key).await {
            Ok(head) => head.last_modified,
            // Nobody knows whether it counts: it goes, so that no success is told of as a failure.
            Err(error) => {
                withdraw(repository, &key).await;
                return Err(error.into());
            }
        };
        let is_settled = landed <= checked.base + window / 2;
        #[cfg(test)]
        let is_settled = is_settled || planted(Bug::CountsAnyhow) && landed <= not_after;
        if is_settled {
            #[cfg(test)]
            if planted(Bug::CheckAfterCommit)
                && let Err(failed) = check(repository, relied).await
            {
                withdraw(repository, &key).await;
                return Err(failed);
            }
            return Ok(told);
        }
        withdraw(repository, &key).await;
        late += 1;
    }
    Err(CheckFailed::Error(Error::Worker(
        "the store takes longer for a commit than the window of the protocol".into(),
    )))
}

/// A snapshot that is late, or of which nobody knows whether it landed, is removed; a writer that may not delete goes
/// on: a late one is late by its own body, and one that landed in time is complete.
async fn withdraw(repository: &Repository, key: &str) {
    if let Err(error) = repository.store.delete(key).await {
        tracing::debug!(key, %error, "a snapshot that does not count could not be removed");
    }
}
