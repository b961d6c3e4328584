//! The words in the bucket: ids, limits and the one error enum of everything that is encoded or decoded.
//!
//! This floor is pure: bytes in, values out, no IO, no clock, no randomness. Every length and count that is read
//! is checked against its limit before memory is taken. `docs/format.md` specifies every byte.

mod fields;
mod ids;
mod octal;
mod path;

pub mod chunk;
pub mod drill;
pub mod frame;
pub mod index;
pub mod keys;
pub mod list;
pub mod manifest;
pub mod pack;
pub mod repository;
pub mod seal;
pub mod snapshot;
pub mod tags;
pub mod writer_key;

pub use ids::{BlobId, ObjectId, PackId, ParseIdError};
pub use path::ItemPath;

/// The format that this program writes; `repository.json` and every snapshot carry it.
pub const FORMAT_VERSION: u32 = 1;
/// A pack object stays below this, so that offsets fit 32 bits.
pub const PACK_BYTES_MAX: u64 = 0xffff_ffff;
/// Blobs in one pack.
pub const PACK_BLOBS_MAX: usize = 65_536;
/// Raw bytes of a blob, and of a frame.
pub const BLOB_BYTES_MAX: usize = 8 << 20;
/// Bytes of one encoded frame: what zstd can make of [`BLOB_BYTES_MAX`] at worst.
pub const FRAME_BYTES_MAX: usize = BLOB_BYTES_MAX + (BLOB_BYTES_MAX >> 8);
/// Raw bytes of several small blobs gathered into one frame.
pub const FRAME_FILL_BYTES: usize = 4 << 20;
/// One index segment object.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// A snapshot document, uncompressed; the snapshot object may be 1 MiB and 1/256 larger.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// `repository.json`.
pub const REPOSITORY_BYTES_MAX: usize = 1 << 20;
/// The record of a drill.
pub const DRILL_BYTES_MAX: usize = 64 << 10;
/// Bytes of a path in a snapshot or shard.
pub const PATH_BYTES_MAX: usize = 32_768;

/// What kind of content a pack holds. Config items are files like media and travel in media packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PackKind {
    /// Dump streams.
    Database = 1,
    /// Media and config files.
    Media = 2,
    /// Lists, shards: what deduplication must read.
    Metadata = 3,
}

impl PackKind {
    /// The kind that this byte stands for in tables and segments.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Database),
            2 => Some(Self::Media),
            3 => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// Bytes from the bucket that are not what they should be, or a value that no encoding may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Cut short, flipped, or not ours; `place` says which field of what.
    #[error("{what} is damaged at {place}")]
    Damaged {
        /// `pack table`, `frame`, `index segment`, `list`, `media shard`, `snapshot`, `repository.json`.
        what: &'static str,
        /// Byte offset, line number or field.
        place: String,
    },
    /// A count or length beyond its limit, read or about to be written.
    #[error("{what}: {value} is over the limit of {limit}")]
    OverLimit {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Its limit.
        limit: u64,
    },
    /// Written by a newer program.
    #[error("{what} has format version {found}, this program reads {supported}")]
    Version {
        /// The object.
        what: &'static str,
        /// The version it carries.
        found: u32,
        /// The newest that is read.
        supported: u32,
    },
    /// A feature that a repository or a snapshot requires and this program does not know.
    #[error("it needs the feature `{feature}`, which this program does not know")]
    Feature {
        /// The feature's name.
        feature: String,
    },
    /// It is sealed, and none of the keys at hand opens it.
    #[error("no key here opens it")]
    NoKey,
    /// A value that no encoding may hold; the caller's doing, not the bucket's.
    #[error("{what}: {reason}")]
    Invalid {
        /// The value.
        what: &'static str,
        /// Why it cannot be.
        reason: String,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } => Some("`synapse-backup verify --read-data` lists everything that is damaged and what it costs".into()),
            Self::Version { .. } | Self::Feature { .. } => Some("use the synapse-backup that wrote it, or a newer one".into()),
            Self::OverLimit { .. } | Self::Invalid { .. } | Self::NoKey => None,
        }
    }

    /// A [`Error::Damaged`]; private shorthand of this floor.
    fn damaged(what: &'static str, place: impl Into<String>) -> Self {
        Self::Damaged { what, place: place.into() }
    }
}

/// `value` if it is within `limit`.
fn within(what: &'static str, value: u64, limit: u64) -> Result<u64> {
    if value > limit {
        Err(Error::OverLimit { what, value, limit })
    } else {
        Ok(value)
    }
}

/// What decoding gives.
pub type Result<T> = std::result::Result<T, Error>;
