//! Walking a list: its leaves in order, in windows of bounded size, whatever the depth of the tree.
//!
//! Windows are fetched ahead of the one in use, so that the store's latency is paid while the last window is worked on.
//! A blob that is lost stands in its window as an error of its own.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use super::{Reader, Wanted};
use crate::format::list::{self, List, ListEntry};
use crate::repo::{Error, Result};

/// List blobs that are read together.
const LIST_BLOBS_AT_ONCE: usize = 64;
/// Windows that are fetched ahead of the one in use.
const WINDOWS_AHEAD: usize = 2;

/// Blobs of a stream, in order, each with its bytes or why they are lost.
pub type Window = Vec<(Wanted, Result<Bytes>)>;

/// Where a walk stands: entries that are still to be visited, one queue a level; the last is the leaves'.
#[derive(Debug)]
pub struct ListCursor {
    levels: Vec<VecDeque<ListEntry>>,
}

impl ListCursor {
    /// At the start of a list.
    pub fn new(list: &List) -> Self {
        let mut levels = vec![VecDeque::new(); usize::from(list.depth) + 1];
        levels[0].extend(list.entries.iter().copied());
        Self { levels }
    }

    /// The next leaves, as many as fit into `bytes_max` raw bytes (at least one); none at the end.
    pub async fn next(&mut self, reader: &Reader, bytes_max: u64) -> Result<Vec<ListEntry>> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        loop {
            let leaves = self.levels.len() - 1;
            while let Some(entry) = self.levels[leaves].front() {
                bytes += u64::from(entry.length);
                if bytes > bytes_max && !taken.is_empty() {
                    return Ok(taken);
                }
                taken.extend(self.levels[leaves].pop_front());
            }
            if !self.descend(reader).await? {
                return Ok(taken);
            }
        }
    }

    /// Expand the deepest level that has entries into the one below it; false when everything is visited.
    async fn descend(&mut self, reader: &Reader) -> Result<bool> {
        let Some(level) = (0..self.levels.len() - 1).rev().find(|&level| !self.levels[level].is_empty()) else {
            return Ok(false);
        };
        let count = self.levels[level].len().min(LIST_BLOBS_AT_ONCE);
        let wanted: Vec<Wanted> = self.levels[level].drain(..count).map(|entry| Wanted::from(&entry)).collect();
        for (wanted, bytes) in wanted.iter().zip(reader.fetch(&wanted).await?) {
            let entries = list::decode_list(&bytes?).map_err(|source| Error::damaged(&format!("list {}", wanted.id), source))?;
            self.levels[level + 1].extend(entries);
        }
        Ok(true)
    }
}

impl Reader {
    /// The bytes of a list's stream, window by window, fetched ahead.
    pub fn windows<'a>(&'a self, list: &List) -> impl Stream<Item = Result<Window>> + Send + use<'a> {
        self.windows_within(list, self.window_bytes)
    }

    /// The same in windows of at most so many bytes, for who reads several streams at once.
    pub fn windows_within<'a>(&'a self, list: &List, window_bytes: u64) -> impl Stream<Item = Result<Window>> + Send + use<'a> {
        let cursor = ListCursor::new(list);
        let leaves = stream::unfold(Some(cursor), move |cursor| async move {
            let mut cursor = cursor?;
            match cursor.next(self, window_bytes).await {
                Ok(leaves) if leaves.is_empty() => None,
                Ok(leaves) => Some((Ok(leaves), Some(cursor))),
                Err(error) => Some((Err(error), None)),
            }
        });
        leaves
            .map(move |leaves| async move {
                let wanted: Vec<Wanted> = leaves?.iter().map(Wanted::from).collect();
                let fetched = self.fetch(&wanted).await?;
                Ok(wanted.into_iter().zip(fetched).collect())
            })
            .buffered(WINDOWS_AHEAD)
    }

    /// All bytes of a list that is known to be small; an error if it is longer than `bytes_max`.
    pub async fn read_small(&self, list: &List, bytes_max: u64) -> Result<Vec<u8>> {
        if list.bytes > bytes_max {
            let source = crate::format::Error::OverLimit {
                what: "item",
                value: list.bytes,
                limit: bytes_max,
            };
            return Err(Error::Encode { source });
        }
        let mut bytes = Vec::new();
        let mut windows = std::pin::pin!(self.windows(list));
        while let Some(window) = windows.next().await {
            for (_, blob) in window? {
                bytes.extend_from_slice(&blob?);
            }
        }
        Ok(bytes)
    }
}
