//! Which new blobs this run has taken on itself, so that two producers with the same new blob send it once.
//!
//! Bounded: two generations of a map. When the young one is full it becomes the old one and the old one is dropped;
//! a blob that is forgotten that way may be sent again (it costs bytes, never correctness).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::format::{BlobId, PackId};

/// Bytes one claim takes in memory, with the map's slack.
const CLAIM_BYTES: usize = 96;

/// In which pack the frame of a new blob landed; shared by all blobs of the frame. Set when it is appended.
#[derive(Debug, Default)]
pub struct Placement(OnceLock<PackId>);

impl Placement {
    /// The pack, once it is known.
    pub fn pack(&self) -> Option<PackId> {
        self.0.get().copied()
    }

    pub(super) fn set(&self, pack: PackId) {
        // A frame is appended once.
        let _ = self.0.set(pack);
    }
}

/// The answer to a claim.
#[derive(Debug, Clone)]
pub enum Claim {
    /// The repository has it, in this usable pack.
    Known(PackId),
    /// Somebody in this run brings it, or has brought it.
    Pending(Arc<Placement>),
    /// It is the caller's to bring, in the frame whose placement it gave.
    New,
}

/// The map.
#[derive(Debug)]
pub(super) struct Claims {
    young: HashMap<BlobId, Arc<Placement>>,
    old: HashMap<BlobId, Arc<Placement>>,
    young_max: usize,
}

impl Claims {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_max: (bytes_max / CLAIM_BYTES / 2).max(1024),
        }
    }

    /// Who brings this blob in this run, if anybody.
    pub(super) fn get(&self, id: &BlobId) -> Option<Arc<Placement>> {
        self.young.get(id).or_else(|| self.old.get(id)).cloned()
    }

    /// From now on the frame with this placement brings it.
    pub(super) fn insert(&mut self, id: BlobId, placement: &Arc<Placement>) {
        if self.young.len() >= self.young_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, Arc::clone(placement));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_stays_bounded_and_remembers_the_newest() {
        let mut claims = Claims::new(0);
        let placement = Arc::default();
        for number in 0..10_000_u32 {
            claims.insert(BlobId::of(&number.to_le_bytes()), &placement);
        }
        assert!(claims.young.len() + claims.old.len() <= 2 * 1024);
        assert!(claims.get(&BlobId::of(&9_999_u32.to_le_bytes())).is_some());
        assert!(claims.get(&BlobId::of(&0_u32.to_le_bytes())).is_none());
    }
}
