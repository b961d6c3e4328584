//! Tags that were put on and taken off after a snapshot was taken: small immutable objects beside it.
//!
//! Whoever shows tags, or chooses by them, lays these over the documents. A change is one PUT under a fresh key (G1, G2);
//! two at once both count, and everybody sees the same outcome.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::catalog::each_listed;
use super::snapshots::{Loaded, effective_time};
use super::{Error, Repository, Result, again};
use crate::format::tags::{CHANGE_BYTES_MAX, TagChange, fold};
use crate::format::{ObjectId, keys};
use crate::store::{self, ByteRange};

/// Changes that are fetched at once.
const CHANGES_AT_ONCE: usize = 8;

/// A change, the time of it that is believed, and its object's id.
type Change = (Timestamp, ObjectId, TagChange);

/// The changes of each snapshot, and those that cannot be read, with what is wrong.
#[derive(Debug, Default)]
struct Changes {
    of: HashMap<ObjectId, Vec<Change>>,
    damaged: Vec<(String, Error)>,
}

/// Lay all changes over the tags of these snapshots. Gives the objects that cannot be read.
pub async fn overlay(repository: &Repository, loaded: &mut [Loaded]) -> Result<Vec<(String, Error)>> {
    let wanted: BTreeSet<ObjectId> = loaded.iter().map(|one| one.snapshot.id).collect();
    let mut changes = read(repository, keys::TAGS, &wanted).await?;
    for one in loaded {
        if let Some(changes) = changes.of.get(&one.snapshot.id) {
            one.tags = fold(&one.snapshot.tags, changes.clone());
        }
    }
    changes.damaged.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(changes.damaged)
}

/// Put tags on a snapshot and take others off. Gives its tags then; nothing is written where they are so already.
pub async fn change(repository: &Repository, one: &Loaded, add: &BTreeSet<String>, remove: &BTreeSet<String>) -> Result<Vec<String>> {
    let id = one.snapshot.id;
    let changes = read(repository, &keys::tags_of(id), &[id].into()).await?;
    if let Some((_, error)) = changes.damaged.into_iter().next() {
        return Err(error);
    }
    let mut changes: Vec<Change> = changes.of.into_values().flatten().collect();
    let before = fold(&one.snapshot.tags, changes.clone());
    let date = repository.date().await?;
    // The store's clock ticks in seconds: what was read has been before.
    let after_all = changes.iter().map(|(time, _, _)| *time + SignedDuration::from_millis(1)).max();
    let time = after_all.map_or(date, |after| after.max(date));
    let change = TagChange::new(time, add.clone(), remove.clone());
    changes.push((time, ObjectId::from_bytes([0xff; 16]), change.clone()));
    let after = fold(&one.snapshot.tags, changes);
    if after != before {
        put(repository, id, &change).await?;
    }
    Ok(after)
}

/// Bring the changes that another repository has for these snapshots into this one, where they are not yet; both then see
/// all of them in the order of their times. Gives how many were written, and those that cannot be read.
pub async fn carry(source: &Repository, destination: &Repository, wanted: &BTreeSet<ObjectId>) -> Result<(u64, Vec<(String, Error)>)> {
    let theirs = read(source, keys::TAGS, wanted).await?;
    let mut carried = 0;
    if theirs.of.is_empty() {
        return Ok((carried, theirs.damaged));
    }
    let ours = read(destination, keys::TAGS, wanted).await?;
    for (snapshot, mut changes) in theirs.of {
        changes.sort_by_key(|(time, id, _)| (*time, *id));
        let there = ours.of.get(&snapshot).map_or(&[][..], Vec::as_slice);
        for (_, _, change) in changes {
            if !there.iter().any(|(_, _, known)| *known == change) {
                put(destination, snapshot, &change).await?;
                carried += 1;
            }
        }
    }
    Ok((carried, theirs.damaged))
}

async fn put(repository: &Repository, snapshot: ObjectId, change: &TagChange) -> Result<()> {
    let json = Bytes::from(change.to_json().map_err(|source| Error::Encode { source })?);
    // G1: under a new key. Should both land, the same was said twice.
    again::put(&*repository.store, || keys::tags(snapshot, repository.ids.object()), &json).await?;
    Ok(())
}

/// The changes below `prefix` of the snapshots that are `wanted`.
async fn read(repository: &Repository, prefix: &str, wanted: &BTreeSet<ObjectId>) -> Result<Changes> {
    let mut listed = Vec::new();
    each_listed(repository, prefix, |object| {
        if let Some((snapshot, id)) = keys::parse_tags(&object.key)
            && wanted.contains(&snapshot)
        {
            listed.push((object.key, snapshot, id));
        }
    })
    .await?;
    let mut gets = stream::iter(listed)
        .map(|(key, snapshot, id)| async move {
            match repository
                .store
                .get(&key, ByteRange::AtMost(CHANGE_BYTES_MAX as u64))
                .await
                .map_err(Error::from)
            {
                Ok(got) => Ok(Some((key, snapshot, id, Ok(got)))),
                // Its snapshot was forgotten meanwhile.
                Err(Error::Store(store::Error::NotFound { .. })) => Ok(None),
                Err(error @ Error::Damaged { .. }) => Ok(Some((key, snapshot, id, Err(error)))),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(CHANGES_AT_ONCE);
    let mut changes = Changes::default();
    while let Some(got) = gets.try_next().await? {
        let Some((key, snapshot, id, got)) = got else { continue };
        let read = got.and_then(|got| {
            let change = TagChange::from_json(&got.bytes).map_err(|source| Error::damaged(&key, source))?;
            Ok((effective_time(change.time, got.last_modified), id, change))
        });
        match read {
            Ok(change) => changes.of.entry(snapshot).or_default().push(change),
            Err(error) => changes.damaged.push((key, error)),
        }
    }
    Ok(changes)
}
