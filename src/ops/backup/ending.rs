//! The commit of a run that may be told to stop in the middle of it.
//!
//! Until the snapshot is on its way a run can be dropped: nothing is listed. From then on nobody knows without asking, so
//! the outcome is waited for, a short while: a snapshot that is listed must not be told as interrupted. What the
//! commit itself consists of is the protocol's business (`repo::commit`).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::format::snapshot::Snapshot;
use crate::format::{ObjectId, PackId, keys};
use crate::ops::{Error, Run};
use crate::repo::Repository;
use crate::repo::attempts::Attempt;
use crate::repo::commit::{self, CheckFailed, Relied};

/// What a commit that is on its way gets to come to its end after the signal.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);
/// What taking a snapshot back may take, of which nobody knows whether it landed.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(1);

/// Check and commit (B4 to B6).
pub(super) async fn commit(
    repository: &Repository,
    relied: &Relied,
    document: impl Fn(ObjectId, &BTreeSet<PackId>) -> Snapshot,
    run: &Run<'_>,
) -> anyhow::Result<Attempt<Snapshot>> {
    let on_its_way: Mutex<Option<String>> = Mutex::default();
    let note = |id: ObjectId, packs: &BTreeSet<PackId>| {
        let document = document(id, packs);
        *on_its_way.lock().unwrap_or_else(PoisonError::into_inner) = keys::snapshot(document.time, document.id).ok();
        document
    };
    let mut committing = std::pin::pin!(commit::commit(repository, relied, note));
    let ended = tokio::select! {
        ended = &mut committing => return outcome(ended),
        () = run.cancel.cancelled() => {
            let key = on_its_way.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(key) = key else { return Err(Error::interrupted().into()) };
            if let Ok(ended) = tokio::time::timeout(COMMIT_PATIENCE, &mut committing).await {
                outcome(ended)
            } else {
                let _ = tokio::time::timeout(WITHDRAW_PATIENCE, repository.store().delete(&key)).await;
                Err(Error::interrupted().into())
            }
        }
    };
    // What failed after the signal failed because of it.
    ended.map_err(|error| error.context(Error::interrupted()))
}

fn outcome(ended: Result<Snapshot, CheckFailed>) -> anyhow::Result<Attempt<Snapshot>> {
    Attempt::of(ended).context("commit the snapshot")
}
