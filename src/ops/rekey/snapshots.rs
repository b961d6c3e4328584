//! Snapshots, written again for the keys at hand: the document to the byte, with its id, its time and its signatures.
//!
//! Each object is taken by itself, since of two with one id one may be forged: only what is the same document, and no better, goes
//! without being written again. One that is believed gets the signature of the writer key here; nobody else's word is
//! taken on, so who has lost a writer key pins the old signer.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;

use crate::format::snapshot::{Problem, ProblemKind};
use crate::format::writer_key::{Signature, Signer, WriterKey};
use crate::format::{BlobId, ObjectId};
use crate::ops::items::stop_if_cancelled;
use crate::ops::{Error, Run};
use crate::repo::commit::{self, CheckFailed, Relied};
use crate::repo::snapshots::{self, Loaded, SnapshotKey};
use crate::repo::{self, Repository};
use crate::store;

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

/// What became of the snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rewritten {
    /// Snapshots that were written anew, late ones too.
    pub resealed: u64,
    /// Of those, the ones that got the signature of the writer key here.
    pub signed: u64,
    /// Of those, the ones that are not believed, by signer (empty: by none): they keep what signatures they have.
    pub doubted: BTreeMap<String, u64>,
    /// Old objects that could not be deleted.
    pub originals_left: u64,
}

/// What was written already under one id: the hash of the document, whether it is doubted, whether it is late.
type Written = Vec<(BlobId, bool, bool)>;

/// All of them. `relied` names the packs that hold every blob that any snapshot needs.
pub(super) async fn rewrite(
    repository: &Repository,
    relied: &Relied,
    problems: &mut Vec<Problem>,
    run: &Run<'_>,
) -> anyhow::Result<Rewritten> {
    let listed = run.until_cancelled(ranked(repository)).await.context("load the snapshots")?;
    let mut written: BTreeMap<ObjectId, Written> = BTreeMap::new();
    let mut done = Rewritten::default();
    run.progress.stage("snapshots", None, Some(listed.len() as u64));
    for key in listed {
        stop_if_cancelled(run)?;
        // B4 to B6 are not cut short: a commit that is on its way is one snapshot, and takes seconds.
        let left = one(repository, relied, &key, &mut written, &mut done)
            .await
            .with_context(|| format!("seal snapshot {} anew", key.id))?;
        if let Some(error) = left {
            done.originals_left += 1;
            let message = format!("the old object could not be deleted, and those it was sealed to still open it: {error}");
            run.progress.problem(ProblemKind::Unreadable.as_str(), &key.key, &message);
            problems.push(Problem {
                kind: ProblemKind::Unreadable,
                item: key.key,
                message,
            });
        }
        run.progress.advance("snapshots", 0, 1);
    }
    run.progress.done("snapshots");
    Ok(done)
}

/// Those that are believed first, and of those the listed ones.
async fn ranked(repository: &Repository) -> repo::Result<Vec<SnapshotKey>> {
    let (loaded, damaged) = snapshots::load_all(repository).await?;
    if let Some((_, error)) = damaged.into_iter().next() {
        return Err(error);
    }
    let mut ranked: Vec<(bool, bool, SnapshotKey)> = loaded
        .iter()
        .map(|one| (repository.doubt(one).is_some(), one.late, one.key.clone()))
        .collect();
    ranked.sort_by(|a, b| (a.0, a.1, &a.2.key).cmp(&(b.0, b.1, &b.2.key)));
    Ok(ranked.into_iter().map(|(_, _, key)| key).collect())
}

/// One object: written again, and then deleted. Gives why it could not be deleted, if it could not.
async fn one(
    repository: &Repository,
    relied: &Relied,
    key: &SnapshotKey,
    written: &mut BTreeMap<ObjectId, Written>,
    done: &mut Rewritten,
) -> anyhow::Result<Option<store::Error>> {
    let Some((loaded, object)) = snapshots::load_object(repository, key).await? else {
        return Ok(None);
    };
    let doubted = repository.doubt(&loaded).is_some();
    let hash = BlobId::of(&serde_json::to_vec(&loaded.snapshot)?);
    let same = written.entry(loaded.snapshot.id).or_default();
    let is_there = same
        .iter()
        .any(|(document, doubt, late)| *document == hash && *doubt <= doubted && *late <= loaded.late);
    if !is_there {
        #[cfg(test)]
        if planted(Bug::RekeyDeletesFirst) {
            repository.store().delete(&key.key).await?;
        }
        #[cfg(test)]
        let relied = if planted(Bug::RekeyForgets) { &Relied::default() } else { relied };
        let vouches = !doubted && !has_signed(repository, &loaded);
        let new = match (loaded.late, vouches) {
            (true, _) => commit::put_late_again(repository, &object).await?,
            (false, true) => landed(commit::commit_vouched(repository, relied, &object).await)?,
            (false, false) => landed(commit::commit_again(repository, relied, &object).await)?,
        };
        if is_gone(repository, &key.key).await? {
            // Forgotten meanwhile: it must not come back.
            repository.store().delete(&new).await?;
            return Ok(None);
        }
        done.resealed += 1;
        done.signed += u64::from(vouches && !loaded.late);
        if doubted {
            let signer = repository.signer_of(&loaded).as_ref().map(Signer::to_string);
            *done.doubted.entry(signer.unwrap_or_default()).or_default() += 1;
        }
        same.push((hash, doubted, loaded.late));
    }
    Ok(repository.store().delete(&key.key).await.err())
}

fn landed(ended: Result<String, CheckFailed>) -> anyhow::Result<String> {
    ended.map_err(|failed| match failed {
        CheckFailed::Gone(packs) => Error::failed(
            format!("{} packs that it needs are gone", packs.len()),
            "something deletes packs meanwhile: run it again, and `synapse-backup verify` if that does not help",
        )
        .into(),
        CheckFailed::Error(error) => error.into(),
    })
}

/// The writer key here has signed it for this repository.
fn has_signed(repository: &Repository, loaded: &Loaded) -> bool {
    let ours = repository.keyring().writer.as_ref().map(WriterKey::signer);
    let good = |made: &&Signature| made.repository == repository.info().id && made.is_good;
    loaded.signatures.iter().filter(good).any(|made| Some(made.signer) == ours)
}

async fn is_gone(repository: &Repository, key: &str) -> repo::Result<bool> {
    match repository.store().head(key).await {
        Ok(_) => Ok(false),
        Err(store::Error::NotFound { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
