//! Which bytes of which packs to read for a window of blobs: pure.
//!
//! Frames of one pack that lie near each other are read in one GET, so that a window costs few requests.

use std::collections::BTreeMap;

use super::Wanted;
use crate::format::PackId;
use crate::format::pack::BlobEntry;
use crate::repo::catalog::Location;

/// Frames closer than this are read together: between what a request costs in time, which is more, and in money where bytes that
/// leave the store are paid for, which is less.
const GAP_BYTES_MAX: u64 = 32 << 10;
/// One GET is not longer than this, unless a single frame is.
const READ_BYTES_MAX: u64 = 8 << 20;

/// One ranged GET and the blobs it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// From this pack.
    pub pack: PackId,
    /// First byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What it brings, by frame offset.
    pub blobs: Vec<BlobEntry>,
}

/// Plan the reads of these blobs; a blob that is wanted twice is read once.
pub(super) fn plan(located: Vec<(Wanted, Location)>) -> Vec<Read> {
    let mut by_pack: BTreeMap<PackId, Vec<BlobEntry>> = BTreeMap::new();
    for (_, location) in located {
        by_pack.entry(location.pack).or_default().push(location.blob);
    }
    by_pack.into_iter().flat_map(|(pack, blobs)| reads_of(pack, blobs)).collect()
}

/// The reads of these blobs of one pack.
pub fn reads_of(pack: PackId, mut blobs: Vec<BlobEntry>) -> Vec<Read> {
    blobs.sort_unstable_by_key(|blob| (blob.frame_offset, blob.offset_in_frame));
    blobs.dedup();
    let mut reads: Vec<Read> = Vec::new();
    for blob in blobs {
        let (start, end) = (u64::from(blob.frame_offset), blob.frame_end());
        match reads.last_mut() {
            Some(read) if start <= read.offset + read.length + GAP_BYTES_MAX && end - read.offset <= READ_BYTES_MAX => {
                read.length = read.length.max(end - read.offset);
                read.blobs.push(blob);
            }
            _ => reads.push(Read {
                pack,
                offset: start,
                length: end - start,
                blobs: vec![blob],
            }),
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BlobId;

    fn located(frame_offset: u32, frame_length: u32, offset_in_frame: u32) -> (Wanted, Location) {
        let id = BlobId::of(&[frame_offset.to_le_bytes(), offset_in_frame.to_le_bytes()].concat());
        let blob = BlobEntry {
            id,
            frame_offset,
            frame_length,
            offset_in_frame,
            raw_length: 1,
        };
        (
            Wanted { id, length: 1, hint: None },
            Location {
                pack: PackId::from_bytes([1; 16]),
                blob,
            },
        )
    }

    #[test]
    fn near_frames_are_read_together_and_far_ones_apart() {
        let reads = plan(vec![
            located(0, 100, 0),
            located(100, 100, 0),
            located(100, 100, 1),
            located(10_000_000, 5, 0),
            located(0, 100, 0),
        ]);
        let shape: Vec<(u64, u64, usize)> = reads.iter().map(|read| (read.offset, read.length, read.blobs.len())).collect();
        assert_eq!(shape, [(0, 200, 3), (10_000_000, 5, 1)]);
    }

    #[test]
    fn a_read_stays_below_its_limit() {
        let reads = plan((0..20).map(|number| located(number << 20, 1 << 20, 0)).collect());
        assert!(reads.iter().all(|read| read.length <= READ_BYTES_MAX), "{reads:?}");
        assert_eq!(reads.iter().map(|read| read.blobs.len()).sum::<usize>(), 20);
    }
}
