//! Gathering the new blobs of one stream into frames, and remembering the order of all its blobs.
//!
//! Blobs go in in order; list entries come out in the same order, as soon as it is known in which pack each blob is.
//! Small blobs for deduplication, large frames for compression: new blobs wait until together they fill a frame.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::claims::{Claim, Placement};
use super::thin::{self, Nearby};
use super::{Error, Result, Writer};
use crate::format::list::ListEntry;
use crate::format::{BLOB_BYTES_MAX, BlobId, FRAME_FILL_BYTES, PackId, PackKind};
use crate::repo::aside;

/// Entries that wait for a frame that is not full yet; then the frame is sent as it is.
const WAITING_MAX: usize = 65_536;

/// So many known bytes of a dump stream may lie between the new blobs of one frame. On a night that finds most of its blobs
/// a frame would else gather blobs from all over the stream; then a restore would read it for each of them, and on a
/// later day for the few that are still in use (measured: the ADR on the sizes of blobs).
const KNOWN_BYTES_MAX: usize = 1 << 20;

/// Where a blob was, as an earlier list says.
pub(super) type Hint<'a> = &'a (dyn Fn(&BlobId) -> Option<PackId> + Send + Sync);

#[derive(Debug)]
enum Place {
    Known(PackId),
    Frame(Arc<Placement>),
}

/// The frames of one stream, or of one level of a list.
#[derive(Debug)]
pub struct Gatherer {
    writer: Writer,
    kind: PackKind,
    ids: Vec<BlobId>,
    blobs: Vec<Bytes>,
    gathered_bytes: usize,
    /// Of the stream, since the first of them.
    known_bytes: usize,
    placement: Arc<Placement>,
    frames: JoinSet<Result<()>>,
    waiting: VecDeque<(BlobId, u32, Place)>,
    /// What the stream uses around here, where that is known.
    nearby: Option<Nearby>,
    /// Raw bytes that the repository did not have.
    pub new_bytes: u64,
}

impl Gatherer {
    /// For blobs of this kind.
    pub fn new(writer: &Writer, kind: PackKind) -> Self {
        Self {
            writer: writer.clone(),
            kind,
            ids: Vec::new(),
            blobs: Vec::new(),
            gathered_bytes: 0,
            known_bytes: 0,
            placement: Arc::default(),
            frames: JoinSet::new(),
            waiting: VecDeque::new(),
            nearby: None,
            new_bytes: 0,
        }
    }

    /// For blobs of a dump stream, whose next windows are told by [`Gatherer::look_ahead`] before they are pushed.
    pub(super) fn for_stream(writer: &Writer) -> Self {
        let nearby = (!writer.inner.frame_sizes.is_empty()).then(Nearby::default);
        Self {
            nearby,
            ..Self::new(writer, PackKind::Database)
        }
    }

    /// A window that is to come. Gives how many of them are to be told before the first is pushed.
    pub(super) fn look_ahead(&mut self, blobs: &[(BlobId, Range<usize>)]) -> usize {
        let Some(nearby) = &mut self.nearby else { return 0 };
        nearby.look_ahead(&self.writer, blobs.iter().map(|(id, _)| id));
        thin::WINDOWS_AHEAD
    }

    /// The blobs of one window of the stream, in order. `hint` knows packs of blobs that the index may not.
    pub(super) async fn push(&mut self, window: &Bytes, blobs: Vec<(BlobId, Range<usize>)>, hint: Hint<'_>) -> Result<()> {
        let new_before = self.new_bytes;
        let mut new = Vec::new();
        if let Some(nearby) = &mut self.nearby {
            nearby.step();
        }
        for (id, range) in blobs {
            let length = u32::try_from(range.len()).unwrap_or(u32::MAX);
            let hinted = hint(&id).filter(|pack| self.writer.usable(*pack)).map(Claim::Known);
            let place = match hinted.unwrap_or_else(|| self.writer.claim_near(id, &self.placement, self.nearby.as_ref())) {
                Claim::Known(pack) => {
                    self.known_bytes += range.len();
                    Place::Known(pack)
                }
                Claim::Pending(placement) => Place::Frame(placement),
                Claim::New => {
                    self.ids.push(id);
                    self.gathered_bytes += range.len();
                    self.new_bytes += range.len() as u64;
                    new.push(range);
                    Place::Frame(Arc::clone(&self.placement))
                }
            };
            self.waiting.push_back((id, length, place));
            let scattered = self.kind == PackKind::Database && self.known_bytes > KNOWN_BYTES_MAX;
            if scattered || self.gathered_bytes + BLOB_BYTES_MAX / 32 > FRAME_FILL_BYTES {
                self.keep(window, &mut new, scattered);
                self.send().await?;
            }
        }
        // A few new blobs would keep the whole window in memory until their frame is full: they are copied out.
        let sparse = (self.new_bytes - new_before) < window.len() as u64 / 2;
        self.keep(window, &mut new, sparse);
        if self.waiting.len() > WAITING_MAX {
            self.send().await?;
        }
        Ok(())
    }

    /// One blob of its own.
    pub async fn push_one(&mut self, blob: Vec<u8>) -> Result<()> {
        let (id, length) = (BlobId::of(&blob), blob.len());
        self.push(&Bytes::from(blob), vec![(id, 0..length)], &|_| None).await
    }

    /// One blob whose id is known to be right, since it was hashed when it was read.
    pub async fn push_hashed(&mut self, id: BlobId, blob: &Bytes) -> Result<()> {
        self.push(blob, vec![(id, 0..blob.len())], &|_| None).await
    }

    fn keep(&mut self, window: &Bytes, ranges: &mut Vec<Range<usize>>, copy: bool) {
        let slice = |range: Range<usize>| {
            if copy {
                Bytes::copy_from_slice(&window[range])
            } else {
                window.slice(range)
            }
        };
        self.blobs.extend(ranges.drain(..).map(slice));
    }

    /// Compress what is gathered, on a blocking thread, and append it to the pack.
    async fn send(&mut self) -> Result<()> {
        self.known_bytes = 0;
        if self.ids.is_empty() {
            return Ok(());
        }
        while let Some(ended) = self.frames.try_join_next() {
            ended.map_err(|error| Error::Worker(error.to_string()))??;
        }
        let (ids, blobs) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.blobs));
        let bytes = std::mem::take(&mut self.gathered_bytes);
        let placement = std::mem::take(&mut self.placement);
        let (writer, kind) = (self.writer.clone(), self.kind);
        let encoder = self.writer.clone();
        // Permission first, then the task: raw and compressed bytes are held until the frame is in its pack.
        let permit = self.writer.work(kind, 2 * bytes).await?;
        self.frames.spawn(async move {
            let encode = move || {
                let slices: Vec<&[u8]> = blobs.iter().map(Bytes::as_ref).collect();
                encoder.encode(&ids, &slices, placement)
            };
            let frame = aside::work(encode).await??;
            writer.append(kind, vec![frame]).await?;
            drop(permit);
            Ok(())
        });
        Ok(())
    }

    /// The next entry in order, once it is known in which pack its blob is.
    pub fn ready(&mut self) -> Option<ListEntry> {
        let (id, length, place) = self.waiting.front()?;
        let pack = match place {
            Place::Known(pack) => *pack,
            Place::Frame(placement) => placement.pack()?,
        };
        let entry = ListEntry {
            id: *id,
            length: *length,
            pack,
        };
        self.waiting.pop_front();
        self.writer.rely(pack);
        Some(entry)
    }

    /// Everything gathered is in its pack; afterwards `ready` gives all that is left, but for blobs that another
    /// stream of this run still holds: then this waits for that stream.
    pub async fn finish(&mut self) -> Result<()> {
        self.send().await?;
        while let Some(ended) = self.frames.join_next().await {
            ended.map_err(|error| Error::Worker(error.to_string()))??;
        }
        for (_, _, place) in &self.waiting {
            if let Place::Frame(placement) = place {
                self.writer.placed(placement).await?;
            }
        }
        Ok(())
    }
}
