//! The snapshot document: one moment of one homeserver, and the bytes of the object that holds it.
//!
//! The object is one zstd frame with a JSON document, so that `zstd -dc` prints it, and one skippable frame with what must
//! be known before the document counts: `not_after` and a SHA-256 over everything. In JSON absent fields are left out, unknown ones are
//! ignored, and a value of an open enum that this program does not know is read as `unknown`: an older reader still restores the rest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, ObjectId, PackId, Result};

mod config_item;
mod database;
mod media;
mod object;

pub use config_item::{ConfigItem, ConfigKind, ConfigRole};
pub use database::{Database, Facts, Stream, StreamFormat, TableFact};
pub use media::{Media, MediaIncluded};
pub use object::{OBJECT_BYTES_MAX, Signed, countersign, decode, decode_named, encode, encode_signed, with_not_after};

/// What errors call it.
const SNAPSHOT: &str = "snapshot";

/// One moment of one homeserver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id, which is in its key too.
    pub id: ObjectId,
    /// [`super::FORMAT_VERSION`].
    pub format: u32,
    /// The repository it was written into.
    pub repository: ObjectId,
    /// The store's Date when the database snapshot was exported. `latest` and retention go by it.
    pub time: Timestamp,
    /// The `synapse-backup` that wrote it.
    pub tool_version: String,
    /// The Synapse it was taken from, where it could be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synapse_version: Option<String>,
    /// As in homeserver.yaml.
    pub server_name: String,
    /// `--tag`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Public halves only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<SigningKey>,
    /// In the order in which they are restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// Absent when media were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Configuration, keys and further files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<ConfigItem>,
    /// The files that Synapse reads as its configuration, in its order: later ones override earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_paths: Vec<super::ItemPath>,
    /// Every pack that this snapshot relies on, each once (rule B3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<PackId>,
    /// What could not be saved, or not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Sums over the run.
    pub totals: Totals,
    /// What the run took until it wrote this, in whole seconds.
    pub seconds: u64,
}

/// States of media that are counted and are no problems.
const NO_PROBLEMS: [&str; 6] = [
    "present",
    "accepted",
    "deleted",
    "not_uploaded",
    "quarantined",
    "thumbnails_missing",
];

impl Snapshot {
    /// Every list in it: streams, config items, media shards.
    pub fn lists(&self) -> impl Iterator<Item = &super::list::List> {
        let streams = self
            .databases
            .iter()
            .flat_map(|database| &database.streams)
            .map(|stream| &stream.list);
        let config = self.config.iter().map(|item| &item.list);
        streams.chain(config).chain(self.media.iter().map(|media| &media.shards))
    }

    /// Raw bytes of everything in it.
    pub fn raw_bytes(&self) -> u64 {
        let streams = self.databases.iter().flat_map(|database| &database.streams);
        let streams = streams.map(|stream| stream.list.bytes);
        let config = self.config.iter().map(|item| item.bytes);
        let media = self.media.iter().map(|media| media.bytes);
        streams.chain(config).chain(media).fold(0, u64::saturating_add)
    }

    /// Problems of the document and of single media files.
    pub fn problem_count(&self) -> u64 {
        let counts = self.media.iter().flat_map(|media| &media.counts);
        let problems = counts.filter(|(state, _)| !NO_PROBLEMS.contains(&state.as_str()));
        problems.fold(self.problems.len() as u64, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn validate(&self) -> Result<()> {
        for (at, list) in self.lists().enumerate() {
            if let Some(field) = list.wrong_field() {
                return Err(Error::damaged(SNAPSHOT, format!("list {at}: {field}")));
            }
        }
        Ok(())
    }
}

/// The public half of a key that signed for the homeserver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SigningKey {
    /// `ed25519:a_xxxx`.
    pub id: String,
    /// Unpadded base64, as Matrix writes it.
    pub public_key: String,
}

/// Something wrong with one item while the run went on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// The item's name: `media/local_content/…`.
    pub item: String,
    /// One line for people.
    pub message: String,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Not there.
    Missing,
    /// Shorter than its row says.
    Short,
    /// Changed while it was read.
    Changed,
    /// Its SHA-256 is not that of its row.
    HashDiffers,
    /// The system would not let it be read.
    Unreadable,
    /// A folder, FIFO, socket or device.
    NotAFile,
    /// Left for the next run.
    Deferred,
    /// Its bytes in the repository are not whole.
    Damaged,
    /// A kind that this program does not know yet.
    #[serde(other)]
    Unknown,
}

impl ProblemKind {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Short => "short",
            Self::Changed => "changed",
            Self::HashDiffers => "hash_differs",
            Self::Unreadable => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::Deferred => "deferred",
            Self::Damaged => "damaged",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sums over a run, up to the moment the snapshot was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Items in the snapshot: streams, config items, media files.
    pub items: u64,
    /// Raw bytes that were read from the homeserver.
    pub read_bytes: u64,
    /// Raw bytes that the repository did not have.
    pub new_bytes: u64,
    /// Bytes sent to the store.
    pub sent_bytes: u64,
}
