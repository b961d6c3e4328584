//! Sweeping: finding out what lives, planning what goes, and taking it away, beside running backups and restores.
//!
//! [`survey`] looks (P1 to P5), [`plan`] decides (P6, P7) and is pure, [`apply`] does exactly what the plan says (P8). [`compact`]
//! merges index segments (C1 to C4), [`Holders`] finds what one snapshot can rely on. Nothing is locked: a marker is final, and whoever deletes has looked at the snapshots
//! after the marker had been there for the grace period.
//!
//! **Memory.** Packs and snapshots are kept in memory, blobs never: they are sorted in runs (an eighth of `memory_bytes`
//! each for the index, for what lives and for what is to be moved), spooled into unlinked files and merged. What the
//! reader of lists needs has another half at most.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::format::{ObjectId, PackId, PackKind};
use crate::repo::snapshots::Loaded;
use crate::store::uploads::OpenUpload;

mod apply;
mod compact;
mod frames;
mod holders;
mod join;
mod live;
mod only;
mod plan;
mod repack;
mod reseal;
mod rows;
mod sorter;
mod survey;

pub use apply::{Applied, ApplyOptions, apply};
pub use compact::{CompactOptions, Compacted, compact};
pub use frames::{FrameBytes, Weighed, weigh};
pub use holders::{Held, Holders};
pub use only::{Only, only_held};
pub use plan::{Condemned, Deleted, Plan, PlanOptions, Refused, Repacked, StaleUpload, Why, plan};
pub use reseal::{Reseal, Segments, plan_reseal, reseal_segments, segments_there};
pub use survey::survey;

use rows::{FRAMED_BYTES, MOVE_BYTES};
use sorter::Sorted;

/// The run id of segments that compaction writes: they belong to no run, so they do not make their packs look busy.
pub const NO_RUN: ObjectId = ObjectId::from_bytes([0; 16]);

/// What a survey is told.
#[derive(Debug, Clone)]
pub struct SurveyOptions {
    /// Bound of memory.
    pub memory_bytes: u64,
    /// Requests at once.
    pub connections: usize,
    /// Where rows are spooled that do not fit into memory.
    pub spool_folder: PathBuf,
    /// Can frames of data packs be read? Not in a sealed repository without an identity.
    pub can_open_data: bool,
    /// Keys of snapshots that are looked upon as gone: what a dry run would forget.
    pub forgotten: BTreeSet<String>,
    /// Which packs are to be sealed anew, if any.
    pub reseal: Option<Reseal>,
    /// Snapshots that were read a moment ago, by key: objects never change, so that those that are still listed in P3 need
    /// not be read again.
    pub known: Arc<BTreeMap<String, Loaded>>,
    /// Note for every blob in which frame it is, for [`weigh`].
    pub frames: bool,
}

/// A snapshot that was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenSnapshot {
    /// Its key.
    pub key: String,
    /// Its id.
    pub id: ObjectId,
    /// It does not count, but its blobs are live (G4).
    pub late: bool,
}

/// A pack that is there, or that a segment names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPack {
    /// Its id.
    pub id: PackId,
    /// What it holds; `None`: no segment names it.
    pub kind: Option<PackKind>,
    /// Its length, as the index says; 0 where no segment names it.
    pub indexed_bytes: u64,
    /// Its length in P5; `None`: it is gone.
    pub present_bytes: Option<u64>,
    /// When it landed.
    pub last_modified: Option<Timestamp>,
    /// When its marker landed (P2).
    pub marked: Option<Timestamp>,
    /// A run that names it wrote a segment within the grace period.
    pub active: bool,
    /// It is to be sealed anew.
    pub reseal: bool,
    /// A live blob of it is in another pack as well, so that not all that lives in it need be kept for its sake.
    pub shares: bool,
    /// Blobs in it.
    pub all: Share,
    /// Blobs in it that are live, wherever else they may be.
    pub live: Share,
    /// Live blobs for whose sake it stays: of several usable copies one is kept.
    pub kept: Share,
    /// Live blobs in it that no usable pack has: it may not be deleted.
    pub stranded: Share,
    /// Of those, the ones that are moved out of this pack rather than out of another condemned one.
    pub rescued: Share,
}

/// So many blobs and their raw bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many.
    pub blobs: u64,
    /// Their raw bytes.
    pub raw_bytes: u64,
}

impl Share {
    fn add(&mut self, raw_bytes: u32) {
        self.blobs += 1;
        self.raw_bytes += u64::from(raw_bytes);
    }
}

impl SeenPack {
    /// There, and whole as far as a listing tells.
    pub fn readable(&self) -> bool {
        self.kind.is_some() && self.present_bytes == Some(self.indexed_bytes)
    }

    /// Named by a segment, in `packs/`, not condemned.
    pub fn usable(&self) -> bool {
        self.readable() && self.marked.is_none()
    }

    /// Stored bytes of a share of it: compression is taken to be even.
    pub fn stored_bytes(&self, share: Share) -> u64 {
        let all = u128::from(self.all.raw_bytes.max(1));
        let stored = u128::from(self.present_bytes.unwrap_or(0)) * u128::from(share.raw_bytes) / all;
        u64::try_from(stored).unwrap_or(u64::MAX)
    }
}

/// An index segment that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSegment {
    /// Its key.
    pub key: String,
    /// When it landed.
    pub last_modified: Timestamp,
    /// Length of the object.
    pub bytes: u64,
    /// Of a large one: where the packs of a few of its lines stand, taken evenly.
    sample: Vec<u32>,
    /// It is large, and so many of its lines name packs that are gone that it is worth to be written without them.
    pub shrinks: bool,
}

/// Live blobs of listed snapshots that are in no present, indexed pack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// How many; a list that cannot be read counts as one.
    pub blobs: u64,
    /// The snapshots that need them.
    pub snapshots: Vec<ObjectId>,
}

/// What was found. Everything that a plan needs, and nothing in it grows with the number of blobs.
#[derive(Debug)]
pub struct Survey {
    /// P1: the store's time before anything was looked at.
    pub now: Timestamp,
    /// How long a condemned pack stays.
    pub grace: SignedDuration,
    /// Can frames of data packs be read?
    pub can_open_data: bool,
    /// The run id of segments that name what is moved; a fresh one unless packs are sealed anew.
    pub run: Option<ObjectId>,
    /// The snapshots, late ones too.
    pub snapshots: Vec<SeenSnapshot>,
    /// Snapshots that cannot be read, with what is wrong.
    pub damaged_snapshots: Vec<(String, String)>,
    /// Segments that cannot be read, with what is wrong.
    pub damaged_segments: Vec<(String, String)>,
    /// The others.
    pub segments: Vec<SeenSegment>,
    /// Packs.
    pub packs: Vec<SeenPack>,
    /// Markers whose pack was not in P5.
    pub orphan_markers: Vec<PackId>,
    /// Objects with an LM of more than an hour after `now`: the first of them.
    pub ahead: Option<(String, Timestamp)>,
    /// What keeps prune from deleting anything.
    pub missing: Missing,
    /// Live blobs.
    pub live: Share,
    /// Objects under the prefix that are not ours: the first of them.
    pub foreign: Vec<String>,
    /// How many they are.
    pub foreign_count: u64,
    /// Small facts that nobody needs any more: old probes, tags and drills of snapshots that are gone.
    pub leftovers: Vec<String>,
    /// Uploads that were begun longer than the grace period ago and never completed.
    pub stale_uploads: Vec<OpenUpload>,
    /// What may have to be moved, by pack.
    moves: Arc<Moves>,
    /// Every line of the index, by pack and frame.
    framed: Option<Sorted<FRAMED_BYTES>>,
}

/// Blobs that may have to be moved, sorted by the rank of their pack and their place in it.
#[derive(Debug)]
struct Moves {
    rows: Sorted<MOVE_BYTES>,
    /// The pack of each rank: by kind and age, so that what was written together stays together.
    packs: Vec<PackId>,
}
