//! Walking a list: its leaves in order, in windows of bounded size, whatever the depth of the tree.
//!
//! Windows are fetched ahead of the one in use, so that the store's latency is paid while the last window is worked on.
//! A frame often holds blobs of two windows: the first brings along what the second will want, so that no frame is read twice.
//! A blob that is lost stands in its window as an error of its own.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::{Reader, Wanted};
use crate::format::BlobId;
use crate::format::list::{self, List, ListEntry};
use crate::repo::catalog::Location;
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

/// A walk in windows.
struct Walk {
    cursor: ListCursor,
    ended: bool,
    /// Leaves that no window has yet.
    pending: VecDeque<Wanted>,
    pending_bytes: u64,
    /// What the last window brings along for the next.
    carried: HashSet<BlobId>,
}

/// One window, and what is fetched for it.
struct Ask {
    window: Vec<Wanted>,
    /// What of it the last one does not bring along.
    own: Vec<Wanted>,
    /// Of the next one, what lies in the same frames.
    ahead: Vec<Wanted>,
}

/// A window, its own blobs, and those of the next one.
type Fetched = (Vec<Wanted>, HashMap<BlobId, Result<Bytes>>, HashMap<BlobId, Bytes>);

impl Walk {
    fn new(list: &List) -> Self {
        Self {
            cursor: ListCursor::new(list),
            ended: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            carried: HashSet::new(),
        }
    }

    /// The next window: of `bytes_max` at most a quarter is for what is brought along.
    async fn next(&mut self, reader: &Reader, bytes_max: u64) -> Result<Option<Ask>> {
        while self.pending_bytes < bytes_max && !self.ended {
            let leaves = self.cursor.next(reader, bytes_max - self.pending_bytes).await?;
            self.ended = leaves.is_empty();
            self.pending_bytes += leaves.iter().map(|leaf| u64::from(leaf.length)).sum::<u64>();
            self.pending.extend(leaves.iter().map(Wanted::from));
        }
        let mut window = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.pending.front() {
            bytes += u64::from(next.length);
            if bytes > bytes_max / 4 * 3 && !window.is_empty() {
                break;
            }
            self.pending_bytes -= u64::from(next.length);
            window.extend(self.pending.pop_front());
        }
        if window.is_empty() {
            return Ok(None);
        }
        let own: Vec<Wanted> = window.iter().filter(|one| !self.carried.contains(&one.id)).copied().collect();
        let ahead = self.ahead(reader, &own, bytes_max / 4).await?;
        self.carried = ahead.iter().map(|one| one.id).collect();
        Ok(Some(Ask { window, own, ahead }))
    }

    /// What comes next and lies in frames that are read for this window.
    async fn ahead(&self, reader: &Reader, own: &[Wanted], bytes_max: u64) -> Result<Vec<Wanted>> {
        let frame = |location: &Location| (location.pack, location.blob.frame_offset);
        let frames: HashSet<_> = reader.locate(own).await?.iter().map(|(_, location)| frame(location)).collect();
        let mut bytes = 0;
        let near = self.pending.iter().take_while(|next| {
            bytes += u64::from(next.length);
            bytes <= bytes_max
        });
        let located = reader.locate(&near.copied().collect::<Vec<_>>()).await?;
        let shared = located.into_iter().filter(|(_, location)| frames.contains(&frame(location)));
        Ok(shared.map(|(wanted, _)| wanted).collect())
    }
}

impl Reader {
    /// The bytes of a list's stream, window by window, fetched ahead.
    pub fn windows<'a>(&'a self, list: &List) -> BoxStream<'a, Result<Window>> {
        self.windows_within(list, self.window_bytes)
    }

    /// The same in windows of at most so many bytes, for who reads several streams at once.
    pub fn windows_within<'a>(&'a self, list: &List, window_bytes: u64) -> BoxStream<'a, Result<Window>> {
        let asks: BoxStream<'a, Result<Ask>> = Box::pin(stream::unfold(Some(Walk::new(list)), move |walk| async move {
            let mut walk = walk?;
            match walk.next(self, window_bytes).await {
                Ok(None) => None,
                Ok(Some(ask)) => Some((Ok(ask), Some(walk))),
                Err(error) => Some((Err(error), None)),
            }
        }));
        let fetched: BoxStream<'a, Result<Fetched>> = Box::pin(
            asks.map(move |ask| async move {
                let Ask { window, own, ahead } = ask?;
                let wanted: Vec<Wanted> = own.iter().chain(&ahead).copied().collect();
                let mut fetched = self.fetch(&wanted).await?.into_iter();
                let blobs = own.iter().map(|one| one.id).zip(fetched.by_ref()).collect();
                // What is lost is asked for again by the window whose it is.
                let carried = ahead.iter().zip(fetched).filter_map(|(one, blob)| Some((one.id, blob.ok()?)));
                Ok((window, blobs, carried.collect()))
            })
            .buffered(WINDOWS_AHEAD),
        );
        Box::pin(stream::unfold(
            (fetched, HashMap::new()),
            move |(mut fetched, carried)| async move {
                Some(match fetched.next().await? {
                    Ok((window, blobs, next)) => (self.complete(window, blobs, &carried).await, (fetched, next)),
                    Err(error) => (Err(error), (fetched, HashMap::new())),
                })
            },
        ))
    }

    /// A window in its order, out of what was fetched for it and what the one before brought along.
    async fn complete(
        &self,
        window: Vec<Wanted>,
        mut own: HashMap<BlobId, Result<Bytes>>,
        carried: &HashMap<BlobId, Bytes>,
    ) -> Result<Window> {
        let mut complete = Vec::with_capacity(window.len());
        for wanted in window {
            let known = match own.get(&wanted.id) {
                Some(Ok(bytes)) => Some(Ok(bytes.clone())),
                Some(Err(_)) => own.remove(&wanted.id),
                None => carried.get(&wanted.id).cloned().map(Ok),
            };
            let blob = match known {
                Some(blob) => blob,
                None => self.fetch(&[wanted]).await?.pop().unwrap_or_else(|| Err(self.lost(&wanted))),
            };
            complete.push((wanted, blob));
        }
        Ok(complete)
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
