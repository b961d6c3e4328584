//! The media manifest: shards (blobs of JSON Lines, one line a file, sorted by path) and the shard list (one line a shard).
//!
//! Shards are cut where the paths say so, so that an unchanged run of rows gives an unchanged shard, which is then inherited unread:
//! its row digest tells. A shard's integrity comes from its blob id. Which files there are, and what is wrong with them, is `synapse`'s and `ops`' business.

use sha2::{Digest, Sha256};

use serde::{Deserialize, Serialize};

use super::snapshot::ProblemKind;
use super::{BLOB_BYTES_MAX, BlobId, Error, ItemPath, PackId, Result, within};

mod shard;

pub use shard::{decode_shard, encode_shard};

/// Entries of a shard, at most; 256 on average.
pub const SHARD_ENTRIES_MAX: usize = 4_096;
/// Blobs of the files of a shard, at most, reckoned by the rows' lengths: it keeps a shard of large files within one blob.
pub const SHARD_BLOBS_MAX: u64 = 32_768;
/// A media or config file is cut at every so many bytes.
pub const FILE_BLOB_BYTES: usize = BLOB_BYTES_MAX;

/// A media file of a snapshot, or a row whose file could not be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaEntry {
    /// Relative to the media store.
    pub path: ItemPath,
    /// Raw bytes that were saved: the sum of its blobs.
    pub bytes: u64,
    /// Of the whole file; `None`: nothing was saved.
    pub sha256: Option<BlobId>,
    /// In order; every [`FILE_BLOB_BYTES`] one. A file of one blob has `sha256` as that blob's id.
    pub blobs: Vec<MediaBlob>,
    /// Permission bits, when unlike the media default.
    pub mode: Option<u32>,
    /// Owner, by number, when unlike the media default.
    pub uid: Option<u32>,
    /// Group, by number, when unlike the media default.
    pub gid: Option<u32>,
    /// Owner, by name, when unlike the media default.
    pub owner: Option<String>,
    /// Group, by name, when unlike the media default.
    pub group: Option<String>,
    /// As the database gave it.
    pub row: RowState,
    /// What is wrong with it.
    pub problem: Option<EntryProblem>,
}

/// A blob of a media file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaBlob {
    /// SHA-256 of its bytes.
    pub id: BlobId,
    /// Its raw bytes.
    pub length: u32,
    /// Ordinal in [`Shard::packs`]: a hint.
    pub pack: u32,
}

/// What the database says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowState {
    /// `media_length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// `sha256`, which Synapse records since 1.128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<BlobId>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryProblem {
    /// What kind.
    pub kind: ProblemKind,
    /// One line for people.
    pub message: String,
}

/// A run of media entries: one blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shard {
    /// The packs that its files rely on.
    pub packs: Vec<PackId>,
    /// Strictly ascending by path.
    pub entries: Vec<MediaEntry>,
}

/// A line of the shard list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRef {
    /// Path of its first entry.
    pub first: ItemPath,
    /// The shard's blob.
    pub blob: BlobId,
    /// Raw bytes of that blob.
    pub length: u32,
    /// The pack that held the shard's blob: a hint.
    pub pack: PackId,
    /// Entries.
    pub count: u64,
    /// Raw bytes of its files.
    pub bytes: u64,
    /// Entries with an open problem: with any, the shard is not inherited.
    pub problems: u64,
    /// The packs that its files rely on (rule B3).
    pub packs: Vec<PackId>,
    /// Of the rows it was made from.
    pub rows: RowDigest,
}

/// SHA-256 over rows; see [`RowHasher`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowDigest(pub BlobId);

/// Appends the line of a shard to the shard list.
pub fn encode_shard_ref(shard: &ShardRef, list: &mut Vec<u8>) -> Result<()> {
    let start = list.len();
    let written = serde_json::to_writer(&mut *list, shard);
    written.map_err(|error| Error::Invalid {
        what: "shard list",
        reason: error.to_string(),
    })?;
    list.push(b'\n');
    within(
        "bytes of a line of the shard list",
        (list.len() - start) as u64,
        BLOB_BYTES_MAX as u64,
    )
    .map(drop)
}

/// The shard of one line of the shard list, which is its `number`th (from 1, for errors).
pub fn decode_shard_ref(line: &[u8], number: u64) -> Result<ShardRef> {
    within("bytes of a line of the shard list", line.len() as u64, BLOB_BYTES_MAX as u64)?;
    let wrong = |why: String| Error::damaged("shard list", format!("line {number}: {why}"));
    let shard: ShardRef = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
    if shard.length == 0 || shard.length as usize > BLOB_BYTES_MAX {
        return Err(wrong("length".into()));
    }
    if shard.count == 0 || shard.count > SHARD_ENTRIES_MAX as u64 || shard.problems > shard.count {
        return Err(wrong("count or problems".into()));
    }
    Ok(shard)
}

/// Does a shard end behind this path? One in 256 does: those whose SHA-256 begins with a zero byte.
pub fn cuts_after(path: impl AsRef<[u8]>) -> bool {
    BlobId::of(path.as_ref()).as_bytes()[0] == 0
}

/// Says where shards end. It sees only rows, so that the same rows are always cut in the same places.
#[derive(Debug, Clone, Default)]
pub struct ShardCutter {
    entries: usize,
    blobs: u64,
}

impl ShardCutter {
    /// A cutter at the start of a shard.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does the shard end behind this row? Then the next one begins a new shard.
    #[must_use]
    pub fn push(&mut self, path: impl AsRef<[u8]>, length: Option<u64>) -> bool {
        self.entries += 1;
        self.blobs = self.blobs.saturating_add(length.unwrap_or(0).div_ceil(FILE_BLOB_BYTES as u64));
        let ends = self.entries >= SHARD_ENTRIES_MAX || self.blobs >= SHARD_BLOBS_MAX || cuts_after(path);
        if ends {
            *self = Self::default();
        }
        ends
    }
}

/// SHA-256 over the rows of a shard, each framed so that no two sequences of rows give the same bytes.
///
/// A row is: path length u32, path; one byte of flags (1: a length follows, 2: a SHA-256 follows); length u64; SHA-256.
#[derive(Debug, Clone, Default)]
pub struct RowHasher {
    sha256: Sha256,
    row: Vec<u8>,
}

impl RowHasher {
    /// A hasher that has seen no row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Add the next row, as the database gave it.
    pub fn push(&mut self, path: impl AsRef<[u8]>, row: &RowState) {
        let path = path.as_ref();
        self.row.clear();
        // A path that long does not exist; were there one, the digest would only be less sharp.
        self.row
            .extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.row.extend_from_slice(path);
        self.row.push(u8::from(row.length.is_some()) | u8::from(row.sha256.is_some()) << 1);
        if let Some(length) = row.length {
            self.row.extend_from_slice(&length.to_le_bytes());
        }
        if let Some(sha256) = &row.sha256 {
            self.row.extend_from_slice(sha256.as_bytes());
        }
        self.sha256.update(&self.row);
    }

    /// The digest of the rows so far; the hasher then is as new.
    pub fn finish(&mut self) -> RowDigest {
        RowDigest(BlobId::from_bytes(self.sha256.finalize_reset().into()))
    }
}
