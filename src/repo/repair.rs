//! B4, what follows a check that failed: other usable packs take the place of those that are condemned or gone.
//!
//! The index is streamed past the blobs in question, as many packs at once as bounded memory allows; it is never held.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::again::Tries;
use super::catalog::{Presence, each_segment, find};
use super::commit::CheckFailed;
use super::writer::put_segment;
use super::{Error, Repository, Result};
use crate::format::index::{Segment, SegmentEntry, SegmentPack};
use crate::format::pack::BlobEntry;
use crate::format::{BlobId, PackId, keys};

/// Blobs that are looked up together: some 30 MB with what is found.
const BLOBS_MAX: usize = 1 << 18;

/// What the index says of a pack that cannot be relied on.
#[derive(Debug)]
struct Bad {
    pack: SegmentPack,
    blobs: HashMap<BlobId, BlobEntry>,
}

/// Take other usable copies of the bad packs' blobs, else copy the pack to a new id. `packs` is what is relied on; what is
/// distrusted takes nobody's place.
pub(super) async fn repair(
    repository: &Repository,
    presence: &Presence,
    distrusted: &BTreeSet<PackId>,
    bad: &[PackId],
    packs: &mut BTreeSet<PackId>,
) -> std::result::Result<(), CheckFailed> {
    let mut gone = Vec::new();
    let mut open: BTreeSet<PackId> = bad.iter().copied().collect();
    while !open.is_empty() {
        let (read, asked) = read_bad(repository, &open, BLOBS_MAX).await?;
        let wanted = read.values().flat_map(|bad| bad.blobs.keys().copied()).collect();
        let usable = |pack: &SegmentPack| {
            let is_there = presence.packs.get(&pack.id) == Some(&pack.bytes);
            is_there && !presence.condemned.contains(&pack.id) && !distrusted.contains(&pack.id)
        };
        // What is relied on already comes first: few packs are better than many.
        let elsewhere = find(repository, &wanted, usable, packs).await?;
        for id in asked {
            open.remove(&id);
            packs.remove(&id);
            let named = read.get(&id);
            let other: Option<BTreeSet<PackId>> = named.and_then(|bad| bad.blobs.keys().map(|blob| elsewhere.get(blob).copied()).collect());
            match (other, named) {
                (Some(other), _) => packs.extend(other),
                (None, Some(bad)) if presence.packs.contains_key(&id) => {
                    match copy_pack(repository, bad).await {
                        Ok(copy) => drop(packs.insert(copy)),
                        // It was deleted after it was listed: its blobs must be sent again.
                        Err(Error::Store(crate::store::Error::NotFound { .. })) => gone.push(id),
                        Err(error) => return Err(error.into()),
                    }
                }
                (None, None) if presence.packs.contains_key(&id) => {
                    return Err(Error::vanished([&id]).into());
                }
                _ => gone.push(id),
            }
        }
    }
    if gone.is_empty() { Ok(()) } else { Err(CheckFailed::Gone(gone)) }
}

/// The blobs of as many of these packs as fit, at least one; and which packs were asked for.
async fn read_bad(repository: &Repository, open: &BTreeSet<PackId>, blobs_max: usize) -> Result<(BTreeMap<PackId, Bad>, BTreeSet<PackId>)> {
    let begin = || (BTreeMap::<PackId, Bad>::new(), open.clone(), 0);
    let (read, asked, _) = each_segment(
        repository,
        |_| true,
        begin,
        |(read, asked, count), _, segment| {
            // What a damaged segment names is as good as not indexed.
            let Ok(segment) = segment else { return Ok(()) };
            for entry in segment.entries().flatten() {
                let pack = segment.packs[entry.pack as usize];
                if !asked.contains(&pack.id) {
                    continue;
                }
                let bad = read.entry(pack.id).or_insert_with(|| Bad {
                    pack,
                    blobs: HashMap::new(),
                });
                *count += usize::from(bad.blobs.insert(entry.blob.id, entry.blob).is_none());
                while *count > blobs_max && asked.len() > 1 {
                    let Some(later) = asked.pop_last() else { break };
                    *count -= read.remove(&later).map_or(0, |bad| bad.blobs.len());
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok((read, asked))
}

/// A server-side copy of a pack under a new id, with its index segment (works on sealed packs too).
async fn copy_pack(repository: &Repository, bad: &Bad) -> Result<PackId> {
    let mut tries = Tries::default();
    let fresh = loop {
        let fresh = repository.ids.pack();
        match repository.store.copy(&keys::pack(bad.pack.id), &keys::pack(fresh)).await {
            Ok(_) => break fresh,
            // G1: a write of unknown outcome goes on under a new key.
            Err(error) => tries.after(error).await?,
        }
    };
    let packs = vec![SegmentPack { id: fresh, ..bad.pack }];
    let entries = bad.blobs.values().map(|blob| SegmentEntry { pack: 0, blob: *blob }).collect();
    let run = repository.ids.object();
    put_segment(repository, Segment { run, packs, entries }).await?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use super::*;
    use crate::format::PackKind;
    use crate::repo::{Ids, open};
    use crate::store::memory::{Clock, Memory};

    #[tokio::test]
    async fn packs_are_looked_up_in_turns_when_their_blobs_do_not_fit() {
        let memory = Memory::new(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH));
        let repository = open::init(Arc::new(memory), Ids::random()).await.unwrap();
        let pack = |number: u8| SegmentPack {
            id: PackId::from_bytes([number; 16]),
            kind: PackKind::Database,
            bytes: 1000,
        };
        let entry = |at: u32| SegmentEntry {
            pack: at % 4,
            blob: BlobEntry {
                id: BlobId::of(&at.to_le_bytes()),
                frame_offset: 0,
                frame_length: 10,
                offset_in_frame: 0,
                raw_length: 1,
            },
        };
        let segment = Segment {
            run: repository.ids.object(),
            packs: (0..4).map(pack).collect(),
            entries: (0..40).map(entry).collect(),
        };
        put_segment(&repository, segment).await.unwrap();
        let mut open: BTreeSet<PackId> = (0..4).map(|number| pack(number).id).collect();
        let mut turns = Vec::new();
        while !open.is_empty() {
            let (read, asked) = read_bad(&repository, &open, 25).await.unwrap();
            assert!(read.values().all(|bad| bad.blobs.len() == 10));
            turns.push(asked.len());
            open.retain(|id| !asked.contains(id));
        }
        assert_eq!(turns, [2, 2]);
    }
}
