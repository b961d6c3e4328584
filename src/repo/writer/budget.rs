//! How `limits.memory` is divided among the index, the producers and the uploads.
//!
//! The formula stands at the top of the writer; here are its shares. Every share is held by whoever spends it: a bound of
//! a map, or a permit.

use super::PART_BYTES;

/// What the program itself takes: code, runtime, TLS, allocator slack. Measured, and generous.
const PROGRAM_BYTES: u64 = 32 << 20;
/// One open part for each kind of pack.
const OPEN_PARTS: u64 = 3;
/// Bytes a producer needs at most at once: an 8 MiB blob, raw and compressed.
const WORK_BYTES_MIN: u64 = 18 << 20;

/// The shares of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bound of the catalog's entries.
    pub catalog_bytes: usize,
    /// Bound of the map of this run's new blobs.
    pub claims_bytes: usize,
    /// KiB that producers may hold.
    pub work_kib: u32,
    /// Parts on their way at once.
    pub uploads: usize,
}

impl Budget {
    /// Divide `memory_bytes` (`limits.memory`); never more than `connections` uploads.
    ///
    /// Half is the index's: three quarters of that for the catalog, one for the claims. Of the rest, what the program
    /// and the open parts leave goes half to uploads and half to producers, each with its least.
    pub fn new(memory_bytes: u64, connections: usize) -> Self {
        let part = PART_BYTES as u64;
        let least = PROGRAM_BYTES + OPEN_PARTS * part + WORK_BYTES_MIN + 2 * part;
        let index = (memory_bytes / 2).min(memory_bytes.saturating_sub(least));
        let rest = (memory_bytes - index).saturating_sub(PROGRAM_BYTES + OPEN_PARTS * part);
        let work = (rest / 2).max(WORK_BYTES_MIN);
        let uploads = (rest.saturating_sub(work) / part).clamp(2, connections.max(2) as u64);
        Self {
            catalog_bytes: usize::try_from(index / 4 * 3).unwrap_or(usize::MAX),
            claims_bytes: usize::try_from(index / 4).unwrap_or(usize::MAX),
            work_kib: u32::try_from(work / 1024).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4),
            uploads: usize::try_from(uploads).unwrap_or(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_the_limit() {
        for mebibytes in [96_u64, 128, 192, 256, 512, 1024, 8192] {
            let memory = mebibytes << 20;
            let budget = Budget::new(memory, 16);
            let parts = (budget.uploads as u64 + OPEN_PARTS) * PART_BYTES as u64;
            let sum = PROGRAM_BYTES + budget.catalog_bytes as u64 + budget.claims_bytes as u64 + u64::from(budget.work_kib) * 1024 + parts;
            assert!(sum <= memory, "{mebibytes} MiB: {sum} bytes, {budget:?}");
        }
    }
}
