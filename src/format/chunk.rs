//! Where a dump stream is cut into blobs: `FastCDC` over the uncompressed bytes.
//!
//! The places are part of the format: if they moved, nothing of an older snapshot would be found again. They are those of the
//! `fastcdc` crate's `v2020` module with its own gear table (no seed) and normalisation level 2; `tests/golden/chunker.txt` holds them still.
//! Media are not cut by content (see `manifest`), and a reader never needs any of this.

use fastcdc::v2020::{self, Normalization};
use serde::{Deserialize, Serialize};

use super::{BLOB_BYTES_MAX, Error, Result};

/// Sizes of blobs in bytes, as they stand in `repository.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSizes {
    /// No blob but the last of a stream is shorter.
    pub min: u32,
    /// What most blobs are near to; a power of two.
    pub average: u32,
    /// No blob is longer.
    pub max: u32,
}

impl Default for ChunkSizes {
    /// 16, 64 and 256 KiB.
    fn default() -> Self {
        Self {
            min: 16 << 10,
            average: 64 << 10,
            max: 256 << 10,
        }
    }
}

impl ChunkSizes {
    /// Are these sizes that the chunker can work with? `min <= average <= max`, all even, within the limits of the
    /// algorithm (min 64 B to 1 MiB, average 256 B to 4 MiB) and of a blob.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: &str| {
            Err(Error::Invalid {
                what: "chunk sizes",
                reason: format!("{reason} ({self:?})"),
            })
        };
        let range = |value: u32, low: usize, high: usize| (low..=high).contains(&(value as usize));
        if !range(self.min, v2020::MINIMUM_MIN, v2020::MINIMUM_MAX) {
            return refuse("min must be 64 to 1,048,576 bytes");
        }
        if !range(self.average, v2020::AVERAGE_MIN, v2020::AVERAGE_MAX) || !self.average.is_power_of_two() {
            return refuse("average must be a power of two of 256 to 4,194,304 bytes");
        }
        if !range(self.max, v2020::MAXIMUM_MIN, BLOB_BYTES_MAX) {
            return refuse("max must be 1,024 to 8,388,608 bytes");
        }
        if self.min > self.average || self.average > self.max {
            return refuse("min, average and max must ascend");
        }
        if !self.min.is_multiple_of(2) || !self.max.is_multiple_of(2) {
            return refuse("min and max must be even");
        }
        Ok(())
    }
}

/// Finds the next cut. It has no state: one serves any number of streams and threads.
#[derive(Debug, Clone)]
pub struct Chunker {
    min: usize,
    average: usize,
    max: usize,
    mask_strict: u64,
    mask_loose: u64,
}

impl Chunker {
    /// A chunker for these sizes.
    pub fn new(sizes: ChunkSizes) -> Result<Self> {
        sizes.validate()?;
        let (min, average, max) = (sizes.min as usize, sizes.average as usize, sizes.max as usize);
        let (mask_strict, mask_loose) = v2020::select_masks(average, Normalization::Level2);
        Ok(Self {
            min,
            average,
            max,
            mask_strict,
            mask_loose,
        })
    }

    /// Length of the next blob, which begins at `data[0]`; `None` when more bytes are needed first, or when there are none.
    ///
    /// Without `at_end` it wants at least [`Chunker::bytes_wanted`] bytes; it never looks at more, so give it the whole buffer.
    /// Where it cuts does not depend on how the stream arrives.
    pub fn cut(&self, data: &[u8], at_end: bool) -> Option<usize> {
        if data.is_empty() || (data.len() < self.max && !at_end) {
            return None;
        }
        let seen = &data[..data.len().min(self.max)];
        let (strict, loose) = (self.mask_strict, self.mask_loose);
        let (_, length) = v2020::cut(seen, self.min, self.average, self.max, strict, loose, strict << 1, loose << 1);
        Some(length)
    }

    /// Bytes that [`Chunker::cut`] wants to see before it cuts: the longest blob.
    pub const fn bytes_wanted(&self) -> usize {
        self.max
    }
}
