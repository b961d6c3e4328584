//! What only one snapshot holds: the blobs that would be dead if it were forgotten.
//!
//! Snapshots are walked one after the other. A list that a second one shares is followed once more and never again, so the
//! work is that of what differs; the blobs are sorted in runs like everything here.

use std::collections::HashMap;
use std::path::PathBuf;

use super::live::blocking;
use super::rows::{self, OWNED_BYTES, Owned, SHARE_BYTES};
use super::sorter::{Merge, Sorted, Sorter};
use super::survey::spooled;
use super::{Share, SurveyOptions, Weighed};
use crate::format::{BlobId, ObjectId};
use crate::repo::reader::Reader;
use crate::repo::snapshots;
use crate::repo::walk::{Sink, Walk};
use crate::repo::{Error, Repository, Result};

/// Blobs with their owners into the sorter.
struct OwnedSink {
    blobs: Sorter<OWNED_BYTES>,
    owner: u32,
    folder: PathBuf,
}

impl Sink for OwnedSink {
    fn blob(&mut self, id: &BlobId, raw_length: u32) -> Result<()> {
        let owned = Owned {
            id: *id,
            owner: self.owner,
            raw_length,
        };
        self.blobs.push(rows::owned(&owned)).map_err(|error| spooled(&self.folder, error))
    }

    fn unreadable(&mut self, id: &BlobId, error: Error) -> Result<()> {
        tracing::debug!(%id, %error, "a list cannot be read: what it names is not counted");
        Ok(())
    }
}

/// What nobody else holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Only {
    /// Blobs and raw bytes.
    pub share: Share,
    /// What they take in their frames.
    pub stored_bytes: u64,
}

/// For each snapshot, late ones too, what nobody else holds.
pub async fn only_held(repository: &Repository, weighed: Weighed, options: &SurveyOptions) -> Result<HashMap<ObjectId, Only>> {
    let share = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let reader = Reader::open(repository, options.memory_bytes / 2, options.connections).await?;
    let mut walk = Walk::new(options.memory_bytes / 16);
    let mut sink = OwnedSink {
        blobs: Sorter::new(share, &options.spool_folder),
        owner: 0,
        folder: options.spool_folder.clone(),
    };
    let mut owners: Vec<ObjectId> = Vec::new();
    let mut listed = snapshots::list(repository).await?;
    // Several objects of one snapshot are one owner.
    listed.sort_by_key(|key| key.id);
    for key in listed {
        let loaded = match snapshots::load(repository, &key).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) | Err(Error::Damaged { .. }) => continue,
            Err(error) => return Err(error),
        };
        if owners.last() != Some(&loaded.snapshot.id) {
            owners.push(loaded.snapshot.id);
        }
        sink.owner = u32::try_from(owners.len()).unwrap_or(u32::MAX);
        walk.belong_to(sink.owner);
        walk.begin(&loaded.snapshot, &mut sink)?;
        walk.finish(&reader, &mut sink).await?;
    }
    let folder = options.spool_folder.clone();
    let counted = blocking(&folder, move || count(&sink.blobs.finish()?, &weighed.shares)).await?;
    let number = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
    let held = owners.into_iter().enumerate();
    Ok(held
        .map(|(at, id)| (id, counted.get(&number(at)).copied().unwrap_or_default()))
        .collect())
}

/// Blobs that have one owner, by their owner.
fn count(blobs: &Sorted<OWNED_BYTES>, shares: &Sorted<SHARE_BYTES>) -> std::io::Result<HashMap<u32, Only>> {
    let mut held: HashMap<u32, Only> = HashMap::new();
    let mut stored = Stored {
        shares: shares.iter(),
        last: None,
    };
    // The blob before this row, and its owner if it has only one so far.
    let mut last: Option<(Owned, bool)> = None;
    let mut close = |last: Option<(Owned, bool)>| {
        if let Some((owned, true)) = last {
            let only = held.entry(owned.owner).or_default();
            only.share.add(owned.raw_length);
            only.stored_bytes += u64::from(stored.of(&owned.id)?);
        }
        Ok::<(), std::io::Error>(())
    };
    for row in blobs.iter() {
        let owned = rows::decode_owned(&row?);
        match &mut last {
            Some((before, only)) if before.id == owned.id => *only &= before.owner == owned.owner,
            _ => close(last.replace((owned, true)))?,
        }
    }
    close(last)?;
    Ok(held)
}

/// Shares, asked for in the order of the blobs.
struct Stored<'a> {
    shares: Merge<'a, SHARE_BYTES>,
    last: Option<(BlobId, u32)>,
}

impl Stored<'_> {
    /// 0 for what is in no pack.
    fn of(&mut self, id: &BlobId) -> std::io::Result<u32> {
        while self.last.is_none_or(|(last, _)| last < *id) {
            match self.shares.next().transpose()? {
                Some(row) => self.last = Some(rows::decode_share(&row)),
                None => return Ok(0),
            }
        }
        Ok(self.last.filter(|(last, _)| last == id).map_or(0, |(_, bytes)| bytes))
    }
}
