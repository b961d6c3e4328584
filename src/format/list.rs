//! A long item as an ordered sequence of blobs: a tree of lists, whose root stands in the snapshot.
//!
//! A list blob is nothing but 52-byte entries; its integrity comes from its blob id. Lists are cut where the ids say so, so that
//! an item that changed in one place shares all other list blobs with its past. Storing and fetching them is `repo`'s business.

use serde::{Deserialize, Serialize};

use super::{BLOB_BYTES_MAX, BlobId, Error, PackId, Result};

/// What errors call it.
const LIST: &str = "list";
/// One entry of a list blob: id, raw length, pack.
pub const LIST_ENTRY_BYTES: usize = 32 + 4 + 16;
/// Entries of one list blob, at most; 256 on average.
pub const LIST_BLOB_ENTRIES_MAX: usize = 4_096;
/// A level with at most so many entries becomes the root.
pub const LIST_ROOT_ENTRIES_MAX: usize = 512;
/// Levels of list blobs under a root: 512 entries and 256 a blob reach 2^49 blobs in five.
pub const LIST_DEPTH_MAX: u8 = 8;

/// A blob of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListEntry {
    /// SHA-256 of its bytes.
    pub id: BlobId,
    /// Its raw bytes.
    pub length: u32,
    /// The pack that held it when the list was written: a hint.
    pub pack: PackId,
}

/// The root of an item's list. The empty item is the default: no entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct List {
    /// 0: the entries are the item's blobs. n: they are list blobs of depth n - 1.
    pub depth: u8,
    /// Blobs of the item.
    pub blobs: u64,
    /// Raw bytes of the item.
    pub bytes: u64,
    /// At most [`LIST_ROOT_ENTRIES_MAX`].
    pub entries: Vec<ListEntry>,
}

impl List {
    /// Names the first field that cannot be, if there is one: what a reader checks before it takes memory by them.
    pub(super) fn wrong_field(&self) -> Option<&'static str> {
        let length_max = if self.depth == 0 {
            BLOB_BYTES_MAX
        } else {
            LIST_BLOB_ENTRIES_MAX * LIST_ENTRY_BYTES
        };
        let entry_wrong = |entry: &ListEntry| {
            let length = entry.length as usize;
            length == 0 || length > length_max || (self.depth > 0 && !length.is_multiple_of(LIST_ENTRY_BYTES))
        };
        if self.depth > LIST_DEPTH_MAX {
            Some("depth")
        } else if self.entries.len() > LIST_ROOT_ENTRIES_MAX || (self.depth > 0 && self.entries.is_empty()) {
            Some("entries")
        } else if self.entries.iter().any(entry_wrong) {
            Some("length")
        } else if self.depth == 0 && self.blobs != self.entries.len() as u64 {
            Some("blobs")
        } else if self.blobs > self.bytes || self.bytes > self.blobs.saturating_mul(BLOB_BYTES_MAX as u64) || self.root_bytes_differ() {
            Some("bytes")
        } else {
            None
        }
    }

    fn root_bytes_differ(&self) -> bool {
        self.depth == 0 && self.bytes != self.entries.iter().map(|entry| u64::from(entry.length)).sum::<u64>()
    }

    /// Is this a list that a reader may follow? Decoding a snapshot checks all of its lists.
    pub fn validate(&self) -> Result<()> {
        self.wrong_field()
            .map_or(Ok(()), |field| Err(Error::damaged(LIST, format!("its root: {field}"))))
    }
}

/// Cuts one level of a list into list blobs. One a level.
#[derive(Debug, Default)]
pub struct ListCutter {
    blob: Vec<u8>,
}

impl ListCutter {
    /// A cutter that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Add the next entry of this level. If the list ends behind it, its blob, complete.
    #[must_use]
    pub fn push(&mut self, entry: ListEntry) -> Option<Vec<u8>> {
        self.blob.extend_from_slice(entry.id.as_bytes());
        self.blob.extend_from_slice(&entry.length.to_le_bytes());
        self.blob.extend_from_slice(entry.pack.as_bytes());
        let full = self.blob.len() >= LIST_BLOB_ENTRIES_MAX * LIST_ENTRY_BYTES;
        if full || ends_list(&entry.id) { self.finish() } else { None }
    }

    /// The last blob of this level, if entries are left; the cutter then is as new.
    #[must_use]
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.blob.is_empty()).then(|| std::mem::take(&mut self.blob))
    }
}

/// Does a list blob end behind this blob? One in 256 does: those whose id begins with a zero byte.
pub const fn ends_list(id: &BlobId) -> bool {
    id.as_bytes()[0] == 0
}

/// The entries of a list blob: 1 to [`LIST_BLOB_ENTRIES_MAX`].
pub fn decode_list(data: &[u8]) -> Result<Vec<ListEntry>> {
    let (rows, rest) = data.as_chunks::<LIST_ENTRY_BYTES>();
    if rows.is_empty() || !rest.is_empty() {
        return Err(Error::damaged(LIST, format!("byte {}: its end", data.len())));
    }
    super::within("entries of a list", rows.len() as u64, LIST_BLOB_ENTRIES_MAX as u64)?;
    let mut entries = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let (mut id, mut pack) = ([0; 32], [0; 16]);
        id.copy_from_slice(&row[..32]);
        pack.copy_from_slice(&row[36..]);
        let length = u32::from_le_bytes([row[32], row[33], row[34], row[35]]);
        if length == 0 || length as usize > BLOB_BYTES_MAX {
            return Err(Error::damaged(LIST, format!("entry {at}: length")));
        }
        entries.push(ListEntry {
            id: BlobId::from_bytes(id),
            length,
            pack: PackId::from_bytes(pack),
        });
    }
    Ok(entries)
}
