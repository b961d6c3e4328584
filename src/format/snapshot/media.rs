//! The media store in the snapshot document: where it was, what is in it, and the list of its shards.
//!
//! The files themselves stand in the shards (`manifest`), so that this stays small however many there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::list::List;
use super::super::{ItemPath, octal};

/// The media store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// Absolute path of the store on the machine that was backed up.
    pub root: ItemPath,
    /// Permission bits of a file whose entry gives none.
    #[serde(default, with = "octal::option", skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner, by number, of a file whose entry gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group, by number, of a file whose entry gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Owner, by name, of a file whose entry gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Group, by name, of a file whose entry gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The shard list: JSON Lines, see `manifest`.
    pub shards: List,
    /// Files that are saved.
    pub files: u64,
    /// Their raw bytes.
    pub bytes: u64,
    /// How many entries are in which state: `present`, and the problem kinds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// What was asked for besides local originals.
    #[serde(default)]
    pub included: MediaIncluded,
}

/// Which media are in the snapshot besides local originals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaIncluded {
    /// Thumbnails of what is in the snapshot.
    pub thumbnails: bool,
    /// Copies of other homeservers' media.
    pub remote: bool,
    /// Previews of links.
    pub url_cache: bool,
}
