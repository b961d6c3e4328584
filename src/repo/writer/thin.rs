//! Frames of a dump stream of which little is still in use near the place where the stream is: their blobs are sent anew.
//!
//! A night finds most of its blobs in frames of earlier nights. Each night a few of a frame's blobs are replaced, and one day a
//! restore reads 4 MiB of raw bytes for the last one that is left. So a known blob counts as new when less than two fifths of its
//! frame are used within a few MiB of it: it goes into a frame of this night, beside its neighbours, and is found there from then on.
//! A restore then reads at most some two and a half times what it needs, however many nights lie between; what is sent again is
//! what was nearly dead (measured: the ADR on the sizes of blobs). Needs the whole index in memory; without it nothing is sent again.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Writer;
use crate::format::{BlobId, PackId, PackKind};
use crate::repo::catalog::{Catalog, ENTRY_BYTES};

/// Windows of the stream that are looked at ahead of the one that is stored, and as many behind it: together they are
/// longer than any frame.
pub(super) const WINDOWS_AHEAD: usize = 2;
/// A frame is thin when less than this share of it is used.
const USED_PERCENT_MIN: u64 = 40;
/// Smaller frames cost little more than a request.
const FRAME_BYTES_MIN: u32 = 256 << 10;
/// What one frame takes here while sizes are added up: as many as there are blobs.
const SIZE_BYTES: usize = size_of::<Size>();

/// A pack, as its place in the catalog, and the place of a frame in it.
type Frame = (u32, u32);
type Size = (Frame, u32);

/// Raw bytes of every frame with blobs of dump streams.
#[derive(Debug, Default)]
pub(super) struct FrameSizes(Vec<Size>);

impl FrameSizes {
    /// Of the whole index, if it is in memory and there is room beside it in `bytes_max`.
    pub(super) fn of(catalog: &Catalog, bytes_max: usize) -> Self {
        if catalog.truncated || catalog.len() * (ENTRY_BYTES + SIZE_BYTES) > bytes_max {
            return Self::default();
        }
        let of_dumps = |at: u32| catalog.packs()[at as usize].kind == PackKind::Database;
        let entries = catalog.entries().iter().filter(|entry| of_dumps(entry.pack));
        let mut sizes: Vec<Size> = entries
            .map(|entry| ((entry.pack, entry.blob.frame_offset), entry.blob.raw_length))
            .collect();
        sizes.sort_unstable();
        sizes.dedup_by(|next, sum| {
            let same = next.0 == sum.0;
            sum.1 = if same { sum.1.saturating_add(next.1) } else { sum.1 };
            same
        });
        sizes.shrink_to_fit();
        Self(sizes)
    }

    /// Nothing is known, so nothing is thin.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn raw_bytes(&self, frame: Frame) -> u32 {
        let at = self.0.binary_search_by_key(&frame, |(frame, _)| *frame);
        at.map_or(0, |at| self.0[at].1)
    }
}

/// Which frames the windows around the present one use, and how much of each.
#[derive(Debug, Default)]
pub(super) struct Nearby {
    windows: VecDeque<HashMap<Frame, u32>>,
}

impl Nearby {
    /// One more window ahead.
    pub(super) fn look_ahead<'a>(&mut self, writer: &Writer, blobs: impl Iterator<Item = &'a BlobId>) {
        let (mut used, mut seen) = (HashMap::new(), HashSet::new());
        for id in blobs.filter(|id| seen.insert(**id)) {
            for entry in writer.catalog().entries_of(id) {
                *used.entry((entry.pack, entry.blob.frame_offset)).or_default() += entry.blob.raw_length;
            }
        }
        self.windows.push_back(used);
    }

    /// The next window is the present one: what lies too far behind it no longer counts.
    pub(super) fn step(&mut self) {
        if self.windows.len() > 2 * WINDOWS_AHEAD + 1 {
            self.windows.pop_front();
        }
    }

    fn used(&self, frame: Frame) -> u64 {
        self.windows
            .iter()
            .filter_map(|used| used.get(&frame))
            .map(|bytes| u64::from(*bytes))
            .sum()
    }
}

impl Writer {
    /// A usable pack that holds this blob in a frame that is not thin here: of several the one of which most is used.
    pub(super) fn known_nearby(&self, id: &BlobId, nearby: &Nearby) -> Option<PackId> {
        let catalog = self.catalog();
        let copies = catalog.entries_of(id).iter().filter_map(|entry| {
            let pack = &catalog.packs()[entry.pack as usize];
            let frame = (entry.pack, entry.blob.frame_offset);
            let (used, size) = (nearby.used(frame), self.inner.frame_sizes.raw_bytes(frame));
            self.usable(pack.id).then(|| {
                let thin = size >= FRAME_BYTES_MIN && used * 100 < u64::from(size) * USED_PERCENT_MIN;
                let permille = used * 1000 / u64::from(size).max(1);
                (!thin, pack.preferred, permille, pack.id)
            })
        });
        copies.max().filter(|(good, ..)| *good).map(|(.., pack)| pack)
    }
}
