//! Blobs from one repository into another, as they are: only what the other one lacks, each hashed on the way.
//!
//! Lists and shards are blobs like all others and are not written anew, so that a snapshot keeps its bytes and a signature
//! over it holds; the packs that they name as hints are those of the source, and the destination's index knows better.
//! While one window is read the one before is written. Where the destination's index does not fit into memory, blobs wait until there are
//! many, and all of it is streamed past them. Memory: two windows of raw bytes and those that wait, beside what reader and writer take.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::reader::{Reader, Wanted};
use super::writer::{Claim, Gatherer, Placement, Writer};
use super::{Error, Result, aside, catalog};
use crate::format::list::{self, List};
use crate::format::{BlobId, FRAME_FILL_BYTES, PackId, PackKind};

#[cfg(test)]
use super::bugs::{Bug, planted};

/// List blobs that are read together.
const LIST_BLOBS_AT_ONCE: usize = 64;
/// Blobs of one window, however small they are.
const WINDOW_BLOBS_MAX: usize = 16_384;

/// Bytes that a blob takes which waits to be looked up, in the queue and in the sets of the search, with their slack.
const UNKNOWN_BYTES: usize = 256;
/// So many wait at least, however little memory there is.
const UNKNOWN_MIN: usize = 4_096;

/// What became of the blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Of those, sent.
    pub new_blobs: u64,
    /// Raw bytes that were sent.
    pub new_bytes: u64,
}

/// One session of copying. The writer remembers every pack that what was copied relies on (B3).
#[derive(Debug)]
pub struct Transfer<'a> {
    reader: &'a Reader,
    writer: &'a Writer,
    /// Of dump streams and of metadata, whose small blobs share frames.
    gatherers: [(PackKind, Gatherer); 2],
    /// Frames of media, one blob each; every task gives the packs its frames are in.
    frames: JoinSet<Result<BTreeSet<PackId>>>,
    window_bytes: u64,
    /// The index at hand does not know them, and is not all of it.
    unknown: Vec<(PackKind, Wanted)>,
    unknown_max: usize,
    waiting: Vec<(PackKind, Wanted)>,
    waiting_bytes: u64,
    /// Read and not yet written.
    read: Vec<(PackKind, BlobId, Bytes)>,
    /// Blobs of this session that are on their way or there: lists and shards of several snapshots share most of theirs.
    seen: HashSet<BlobId>,
    done: Transferred,
}

impl<'a> Transfer<'a> {
    /// From here to there. `lookup_bytes` may be taken by blobs that wait to be looked up.
    pub fn new(reader: &'a Reader, writer: &'a Writer, lookup_bytes: usize) -> Self {
        let gatherer = |kind| (kind, Gatherer::new(writer, kind));
        Self {
            reader,
            writer,
            gatherers: [gatherer(PackKind::Database), gatherer(PackKind::Metadata)],
            frames: JoinSet::new(),
            window_bytes: reader.window_bytes(),
            unknown: Vec::new(),
            unknown_max: (lookup_bytes / UNKNOWN_BYTES).max(UNKNOWN_MIN),
            waiting: Vec::new(),
            waiting_bytes: 0,
            read: Vec::new(),
            seen: HashSet::new(),
            done: Transferred::default(),
        }
    }

    /// So far.
    pub fn done(&self) -> Transferred {
        self.done
    }

    /// Was this list or shard, with all that it names, copied in this session already?
    pub fn was_seen(&mut self, id: BlobId) -> bool {
        !self.seen.insert(id)
    }

    /// An item: its list blobs and its leaves. A blob that the source has lost fails it.
    pub async fn list(&mut self, kind: PackKind, list: &List) -> Result<()> {
        let mut levels: Vec<VecDeque<Wanted>> = vec![VecDeque::new(); usize::from(list.depth) + 1];
        levels[0].extend(list.entries.iter().map(Wanted::from));
        while let Some(level) = levels.iter().rposition(|level| !level.is_empty()) {
            if level + 1 == levels.len() {
                let leaves: Vec<Wanted> = levels[level].drain(..).collect();
                self.blobs(kind, &leaves).await?;
                continue;
            }
            let count = levels[level].len().min(LIST_BLOBS_AT_ONCE);
            let named: Vec<Wanted> = levels[level].drain(..count).collect();
            let named: Vec<Wanted> = named.into_iter().filter(|blob| !self.was_seen(blob.id)).collect();
            for (wanted, bytes) in named.iter().zip(self.reader.fetch(&named).await?) {
                let bytes = bytes?;
                let below = list::decode_list(&bytes).map_err(|source| Error::damaged(&format!("list {}", wanted.id), source))?;
                levels[level + 1].extend(below.iter().map(Wanted::from));
                self.blob(PackKind::Metadata, wanted.id, bytes).await?;
            }
        }
        Ok(())
    }

    /// Blobs of this kind that are still to be read, where the destination lacks them.
    pub async fn blobs(&mut self, kind: PackKind, wanted: &[Wanted]) -> Result<()> {
        for blob in wanted {
            self.done.blobs += 1;
            if self.is_there(&blob.id) {
                continue;
            }
            if !self.writer.catalog().truncated {
                self.want(kind, *blob).await?;
                continue;
            }
            self.unknown.push((kind, *blob));
            if self.unknown.len() >= self.unknown_max {
                self.look_up().await?;
            }
        }
        Ok(())
    }

    /// The destination lacks it.
    async fn want(&mut self, kind: PackKind, blob: Wanted) -> Result<()> {
        self.waiting_bytes += u64::from(blob.length);
        self.waiting.push((kind, blob));
        if self.waiting_bytes >= self.window_bytes || self.waiting.len() >= WINDOW_BLOBS_MAX {
            self.step().await?;
        }
        Ok(())
    }

    /// Those that the destination has are relied on (B3), the others wanted.
    async fn look_up(&mut self) -> Result<()> {
        let unknown = std::mem::take(&mut self.unknown);
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: HashSet<BlobId> = unknown.iter().map(|(_, wanted)| wanted.id).collect();
        let writer = self.writer;
        let found = catalog::find(writer.repository(), &ids, |pack| writer.usable_now(pack.id), &writer.relied()).await?;
        drop(ids);
        for (kind, wanted) in unknown {
            match found.get(&wanted.id) {
                #[cfg(test)]
                Some(_) if planted(Bug::CopyForgets) => {}
                Some(pack) => self.writer.rely(*pack),
                None if self.writer.is_claimed(&wanted.id) => {}
                None => self.want(kind, wanted).await?,
            }
        }
        Ok(())
    }

    /// A blob that was read already.
    pub async fn blob(&mut self, kind: PackKind, id: BlobId, bytes: Bytes) -> Result<()> {
        self.done.blobs += 1;
        if self.is_there(&id) {
            return Ok(());
        }
        self.write(vec![(kind, id, bytes)]).await
    }

    /// Everything of one snapshot is handed over. What fails later is not its fault.
    pub async fn settle(&mut self) -> Result<()> {
        self.look_up().await?;
        self.step().await?;
        self.step().await
    }

    /// Forget what was begun of a snapshot that failed, so that nothing is taken for copied that was not.
    pub fn give_up(&mut self) {
        self.unknown.clear();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.read.clear();
        self.seen.clear();
    }

    /// Everything is in packs, or on its way to one; the writer's `finish` waits for their answers.
    pub async fn finish(mut self) -> Result<Transferred> {
        self.settle().await?;
        while let Some(ended) = self.frames.join_next().await {
            self.rely(ended)?;
        }
        // Side by side: one may wait for a blob that the other is about to bring.
        let ends = self.gatherers.iter_mut().map(|(_, gatherer)| async move {
            gatherer.finish().await?;
            while gatherer.ready().is_some() {}
            Ok::<(), Error>(())
        });
        futures::future::try_join_all(ends).await?;
        Ok(self.done)
    }

    /// The destination has it in a usable pack (B1), which is remembered (B3), or this session is about to bring it.
    fn is_there(&self, id: &BlobId) -> bool {
        if self.writer.is_claimed(id) {
            return true;
        }
        let known = self.writer.known(id, None);
        #[cfg(test)]
        if planted(Bug::CopyForgets) {
            return known.is_some();
        }
        if let Some(pack) = known {
            self.writer.rely(pack);
        }
        known.is_some()
    }

    /// Read the next window and write the last one.
    async fn step(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let wanted: Vec<Wanted> = waiting.iter().map(|(_, wanted)| *wanted).collect();
        let last = std::mem::take(&mut self.read);
        let reader = self.reader;
        let (fetched, ()) = futures::future::try_join(reader.fetch(&wanted), self.write(last)).await?;
        for ((kind, wanted), bytes) in waiting.into_iter().zip(fetched) {
            self.read.push((kind, wanted.id, bytes?));
        }
        Ok(())
    }

    async fn write(&mut self, blobs: Vec<(PackKind, BlobId, Bytes)>) -> Result<()> {
        let mut media = Vec::new();
        for (kind, id, bytes) in blobs {
            if kind == PackKind::Media {
                media.push((id, bytes));
                continue;
            }
            for (_, gatherer) in self.gatherers.iter_mut().filter(|(of, _)| *of == kind) {
                let before = gatherer.new_bytes;
                gatherer.push_hashed(id, &bytes).await?;
                while gatherer.ready().is_some() {}
                self.done.new_bytes += gatherer.new_bytes - before;
                self.done.new_blobs += u64::from(gatherer.new_bytes > before);
            }
        }
        self.write_media(media).await
    }

    /// Media: a blob is a frame, as a backup writes it.
    async fn write_media(&mut self, blobs: Vec<(BlobId, Bytes)>) -> Result<()> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for (id, bytes) in blobs {
            let placement = Arc::new(Placement::default());
            match self.writer.claim(id, &placement) {
                Claim::New => {}
                Claim::Known(pack) => {
                    self.writer.rely(pack);
                    continue;
                }
                // Whoever brings it in this session relies on its pack.
                Claim::Pending(_) => continue,
            }
            self.done.new_bytes += bytes.len() as u64;
            self.done.new_blobs += 1;
            batch_bytes += bytes.len();
            batch.push((id, bytes, placement));
            if batch_bytes >= FRAME_FILL_BYTES {
                self.send_media(std::mem::take(&mut batch), std::mem::take(&mut batch_bytes))
                    .await?;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.send_media(batch, batch_bytes).await
    }

    /// Permission first, then the task: raw and compressed bytes are held until the frames are in their pack.
    async fn send_media(&mut self, batch: Vec<(BlobId, Bytes, Arc<Placement>)>, bytes: usize) -> Result<()> {
        while let Some(ended) = self.frames.try_join_next() {
            self.rely(ended)?;
        }
        let permit = self.writer.work(PackKind::Media, 2 * bytes).await?;
        let (writer, encoder) = (self.writer.clone(), self.writer.clone());
        self.frames.spawn(async move {
            let placements: Vec<Arc<Placement>> = batch.iter().map(|(_, _, placement)| Arc::clone(placement)).collect();
            let encode = move || {
                let frames = batch
                    .into_iter()
                    .map(|(id, bytes, placement)| encoder.encode(&[id], &[&bytes], placement));
                frames.collect::<Result<Vec<_>>>()
            };
            let frames = aside::work(encode).await??;
            writer.append(PackKind::Media, frames).await?;
            drop(permit);
            Ok(placements.iter().filter_map(|placement| placement.pack()).collect())
        });
        Ok(())
    }

    fn rely(&self, ended: std::result::Result<Result<BTreeSet<PackId>>, tokio::task::JoinError>) -> Result<()> {
        for pack in ended.map_err(|error| Error::Worker(error.to_string()))?? {
            self.writer.rely(pack);
        }
        Ok(())
    }
}
