//! Records of drills: written once each, read back as the newest one of each snapshot.
//!
//! They are small facts for people. A record that cannot be read is passed over: it protects nothing, and the next drill
//! writes another one.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::again::Tries;
use super::catalog::each_listed;
use super::{Error, Repository, Result};
use crate::format::drill::{self, Drill};
use crate::format::{DRILL_BYTES_MAX, ObjectId, keys};
use crate::store::{self, ByteRange};

/// Records that are fetched at once.
const RECORDS_AT_ONCE: usize = 8;

/// Write a record, under a fresh key each time (G1).
pub async fn record(repository: &Repository, drill: &Drill) -> Result<()> {
    let mut tries = Tries::default();
    loop {
        let id = repository.ids().object();
        let body = drill::encode(&Drill { id, ..drill.clone() }).map_err(|source| Error::Encode { source })?;
        match repository.store.put(&keys::drill(drill.snapshot, id), Bytes::from(body)).await {
            Ok(_) => return Ok(()),
            Err(error) => tries.after(error).await?,
        }
    }
}

/// The newest record of each of these snapshots, by Last-Modified; one LIST, and one GET for each snapshot that has any.
pub async fn newest(repository: &Repository, snapshots: &[ObjectId]) -> Result<BTreeMap<ObjectId, Drill>> {
    let mut keys_by_snapshot: BTreeMap<ObjectId, (Timestamp, String)> = BTreeMap::new();
    each_listed(repository, keys::DRILLS, |object| {
        let Some((snapshot, _)) = keys::parse_drill(&object.key) else {
            return;
        };
        let found = (object.last_modified, object.key);
        let slot = keys_by_snapshot.entry(snapshot).or_insert_with(|| found.clone());
        if *slot < found {
            *slot = found;
        }
    })
    .await?;
    keys_by_snapshot.retain(|snapshot, _| snapshots.contains(snapshot));
    stream::iter(keys_by_snapshot)
        .map(|(snapshot, (_, key))| async move { Ok::<_, Error>(read(repository, &key).await?.map(|drill| (snapshot, drill))) })
        .buffer_unordered(RECORDS_AT_ONCE)
        .try_filter_map(|found| std::future::ready(Ok(found)))
        .try_collect()
        .await
}

async fn read(repository: &Repository, key: &str) -> Result<Option<Drill>> {
    match repository.store.get(key, ByteRange::AtMost(DRILL_BYTES_MAX as u64)).await {
        Ok(got) => Ok(drill::decode(&got.bytes).ok()),
        Err(store::Error::NotFound { .. } | store::Error::TooLong { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
