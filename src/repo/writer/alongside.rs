//! The previous list of the same stream, read alongside: deduplication that needs no index in memory.
//!
//! Used when the index did not fit its budget. Dump streams keep the order of their rows from night to night, so a
//! blob that is still there lies near where it was: a window of the old list around the current position finds it.
//! Memory is bounded by the window, requests by the length of the old list. A miss costs bytes, never correctness.

use std::collections::{HashMap, VecDeque};

use crate::format::list::{List, ListEntry};
use crate::format::{BlobId, PackId};
use crate::repo::reader::{ListCursor, Reader};
use crate::repo::{Error, Result};

/// Raw bytes of the old stream that are known ahead of the current position.
const AHEAD_BYTES: u64 = 512 << 20;
/// Raw bytes of the old stream that are still known behind it.
const BEHIND_BYTES: u64 = 256 << 20;
/// Raw bytes of the old stream whose entries are read together.
const STEP_BYTES: u64 = 128 << 20;

/// A walk along the previous list.
pub struct Alongside<'a> {
    reader: &'a Reader,
    cursor: Option<ListCursor>,
    window: VecDeque<(u64, ListEntry)>,
    known: HashMap<BlobId, PackId>,
    read_to: u64,
}

impl std::fmt::Debug for Alongside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Alongside(to {})", self.read_to)
    }
}

impl<'a> Alongside<'a> {
    /// At the start of the list that this stream had in the last snapshot.
    pub fn new(reader: &'a Reader, list: &List) -> Self {
        Self {
            reader,
            cursor: Some(ListCursor::new(list)),
            window: VecDeque::new(),
            known: HashMap::new(),
            read_to: 0,
        }
    }

    /// The stream has come to this position. A list that can no longer be read is as good as none.
    pub(super) async fn advance(&mut self, position: u64) -> Result<()> {
        while self.read_to < position + AHEAD_BYTES {
            let Some(cursor) = &mut self.cursor else { break };
            match cursor.next(self.reader, STEP_BYTES).await {
                Ok(entries) if entries.is_empty() => self.cursor = None,
                Ok(entries) => self.add(entries),
                Err(Error::Lost { .. } | Error::Damaged { .. }) => {
                    tracing::warn!("the last snapshot's list of this stream cannot be read; its blobs are looked up in the index only");
                    self.cursor = None;
                }
                Err(error) => return Err(error),
            }
        }
        while self.window.front().is_some_and(|(end, _)| end + BEHIND_BYTES < position) {
            if let Some((_, entry)) = self.window.pop_front() {
                self.known.remove(&entry.id);
            }
        }
        Ok(())
    }

    fn add(&mut self, entries: Vec<ListEntry>) {
        for entry in entries {
            self.read_to += u64::from(entry.length);
            self.known.insert(entry.id, entry.pack);
            self.window.push_back((self.read_to, entry));
        }
    }

    /// The pack that held this blob when the old list was written.
    pub(super) fn hint(&self, id: &BlobId) -> Option<PackId> {
        self.known.get(id).copied()
    }
}
