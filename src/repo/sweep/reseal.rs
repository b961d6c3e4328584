//! Sealing anew: what was sealed to others moves into new packs and new segments, and the old ones go by the rules of a prune.
//!
//! To whom a pack is sealed cannot be read from it. So every session that seals anew writes its segments under a run id made
//! of the repository and its keys: packs that such a segment names are done, and a session that was cut short goes on
//! where it was. Objects are never rewritten; a session that dies leaves copies, which any prune clears up.

use super::plan::{condemn, may_condemn, refuse, repack, sum};
use super::{Plan, Refused, Survey, Why};
use crate::format::{BlobId, ObjectId, SEGMENT_BYTES_MAX, index, keys};
use crate::repo::catalog::each_listed;
use crate::repo::{Error, Repository, Result, again};
use crate::store::{self, ByteRange};

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

/// Which packs are to be sealed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reseal {
    /// Packs of databases and media too, which needs an identity.
    pub data: bool,
    /// Packs that a segment of this run names are done.
    pub run: ObjectId,
}

impl Reseal {
    /// For the keys at hand.
    pub fn of(repository: &Repository, data: bool) -> Self {
        let mut recipients: Vec<String> = repository.keyring().recipients.iter().map(ToString::to_string).collect();
        recipients.sort();
        let writer = repository.keyring().writer.as_ref().map(|writer| writer.recipient().to_string());
        let words = format!("sealed anew in {} to {recipients:?} and {writer:?}", repository.info().id);
        let mut run = [0; ObjectId::BYTES];
        run.copy_from_slice(&BlobId::of(words.as_bytes()).as_bytes()[..ObjectId::BYTES]);
        Self {
            data,
            run: ObjectId::from_bytes(run),
        }
    }
}

/// What is to be moved, from a survey that was told which packs. Deletes nothing: that is for a prune, after the grace period.
pub fn plan_reseal(survey: &Survey) -> Result<Plan, Refused> {
    refuse(survey)?;
    let mut plan = Plan::of(survey);
    let mut budget = u64::MAX;
    for pack in &survey.packs {
        if pack.marked.is_some() {
            if pack.rescued.blobs > 0 {
                repack(survey, pack, Why::Stranded, &mut plan, &mut budget);
            }
        } else if pack.reseal {
            if pack.kept.blobs > 0 {
                repack(survey, pack, Why::Resealed, &mut plan, &mut budget);
            } else if pack.live.blobs > 0 {
                condemn(pack, Why::Redundant, &mut plan);
            } else if may_condemn(survey, pack) {
                condemn(pack, Why::Dead, &mut plan);
            }
        }
    }
    sum(&mut plan);
    Ok(plan)
}

/// What became of the index.
#[derive(Debug, Default)]
pub struct Segments {
    /// Segments that were written anew, and whose old object is gone.
    pub resealed: u64,
    /// Segments that cannot be read, with what is wrong: they stay as they are.
    pub damaged: Vec<(String, Error)>,
}

/// The keys of all segments.
pub async fn segments_there(repository: &Repository) -> Result<Vec<String>> {
    let mut found = Vec::new();
    each_listed(repository, keys::INDEX, |object| {
        if keys::parse_segment(&object.key).is_some() {
            found.push(object.key);
        }
    })
    .await?;
    Ok(found)
}

/// Write every segment again as it is, to the keys at hand, and delete the old object when that is answered (C3, C4: nothing is
/// left out, so no packs need be listed).
pub async fn reseal_segments(repository: &Repository) -> Result<Segments> {
    let mut done = Segments::default();
    for key in segments_there(repository).await? {
        match reseal_segment(repository, &key).await {
            Ok(is_written) => done.resealed += u64::from(is_written),
            Err(error @ (Error::Damaged { .. } | Error::NoKey { .. })) => done.damaged.push((key, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// False: somebody else has merged it meanwhile.
async fn reseal_segment(repository: &Repository, key: &str) -> Result<bool> {
    let body = match repository.store.get(key, ByteRange::AtMost(SEGMENT_BYTES_MAX as u64)).await {
        Ok(got) => got.bytes,
        Err(store::Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    index::read_segment(&body).map_err(|source| Error::damaged(key, source))?;
    #[cfg(test)]
    if planted(Bug::ResealDeletesFirst) {
        repository.store.delete(key).await?;
    }
    // G1: one of unknown outcome is written again under a new key; two that say the same do no harm.
    again::put(&*repository.store, || keys::segment(repository.ids.object()), &body).await?;
    repository.store.delete(key).await?;
    Ok(true)
}
