//! P8, moving: live blobs of packs that are given up, into new packs. Every byte is hashed before it is believed.
//!
//! Large frames that are live as a whole are copied as they are; of the others the live blobs are put into new frames, so that
//! nothing dead is moved, and what small frames of many nights hold is compressed together: nights that changed a little of the
//! same rows are much alike. Packs are taken in order of their age, so that what was written together lies together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::rows::Line;
use super::{ApplyOptions, Plan, Survey};
use crate::format::frame::FrameDecoder;
use crate::format::pack::BlobEntry;
use crate::format::{BlobId, FRAME_FILL_BYTES, PACK_BLOBS_MAX, PackId, PackKind};
use crate::repo::reader::{Read, read_range, read_table, reads_of};
use crate::repo::writer::{Budget, EncodedFrame, Writer};
use crate::repo::{Error, Repository, Result, aside};
use crate::store;

/// Frames with at least so many raw bytes gain little from being filled up.
const FRAME_LARGE_BYTES: usize = FRAME_FILL_BYTES / 2;
/// Blobs of one new frame, however small they are: a pack has few enough of them in any case.
const FRAME_BLOBS_MAX: usize = PACK_BLOBS_MAX / 8;
/// Reads of one pack that are on their way at once.
const READS_AT_ONCE: usize = 2;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Packs of which everything live is elsewhere now, answered and indexed.
    pub(super) packs: BTreeSet<PackId>,
    /// Packs in which a live blob is damaged.
    pub(super) damaged: Vec<PackId>,
    /// Packs that no key at hand opens.
    pub(super) not_opened: Vec<PackId>,
    /// Bytes of the frames that were moved.
    pub(super) bytes: u64,
    pub(super) new_packs: u64,
}

impl Moved {
    /// What is wrong with one pack stops no other; it stays as it is.
    fn passed_over(&mut self, id: PackId, error: Error) -> Result<()> {
        match error {
            Error::Damaged { .. } => self.damaged.push(id),
            Error::NoKey { .. } => self.not_opened.push(id),
            error => return Err(error),
        }
        Ok(())
    }
}

/// Move everything that the plan says, and wait until it is answered.
pub(super) async fn repack(repository: &Repository, plan: &Plan, survey: &Survey, options: &ApplyOptions) -> Result<Moved> {
    if plan.repack.is_empty() {
        return Ok(Moved::default());
    }
    let budget = Budget::new(options.memory_bytes / 4, options.connections);
    let run = survey.run.unwrap_or_else(|| repository.ids().object());
    let writer = Writer::open_as(run, repository, Arc::default(), BTreeSet::new(), &budget);
    let moving = async {
        let moved = move_all(&writer, plan, survey).await?;
        Ok((moved, writer.finish().await?))
    };
    let ended = tokio::select! {
        ended = moving => ended,
        () = options.cancel.cancelled() => Err(Error::Worker("it was told to stop".into())),
    };
    match ended {
        Ok((mut moved, finished)) => {
            moved.new_packs = finished.packs.len() as u64;
            Ok(moved)
        }
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn move_all(writer: &Writer, plan: &Plan, survey: &Survey) -> Result<Moved> {
    let chosen: BTreeMap<PackId, PackKind> = plan.repack.iter().map(|pack| (pack.id, pack.kind)).collect();
    let mut moved = Moved::default();
    let mut lines: Vec<Line> = Vec::new();
    let mut anew: BTreeMap<PackKind, Anew> = BTreeMap::new();
    let mut rows = survey.moves.rows.iter();
    loop {
        let row = rows.next().transpose().map_err(|error| Error::Worker(error.to_string()))?;
        let line = row.map(|row| Line::decode_move(&row));
        if let Some(last) = lines.last()
            && line.is_none_or(|line| line.pack != last.pack)
        {
            let id = survey.moves.packs[last.pack as usize];
            let blobs: Vec<BlobEntry> = lines.drain(..).map(|line| line.blob).collect();
            if let Some(&kind) = chosen.get(&id) {
                let anew = anew.entry(kind).or_insert_with(|| Anew::new(kind));
                move_pack(writer, id, &blobs, anew, &mut moved).await?;
            }
        }
        match line {
            Some(line) => lines.push(line),
            None => break,
        }
    }
    for anew in anew.values_mut() {
        anew.send(writer).await?;
    }
    Ok(moved)
}

/// Move these blobs of one pack.
async fn move_pack(writer: &Writer, id: PackId, blobs: &[BlobEntry], anew: &mut Anew, moved: &mut Moved) -> Result<()> {
    let repository = writer.repository();
    let table = match read_table(repository, id).await {
        Ok(table) => table,
        // Somebody else has finished it.
        Err(Error::Store(store::Error::NotFound { .. })) => return Ok(()),
        Err(error) => return moved.passed_over(id, error),
    };
    let live: HashSet<BlobId> = blobs.iter().map(|blob| blob.id).collect();
    let frames: HashSet<u32> = blobs.iter().map(|blob| blob.frame_offset).collect();
    let entries: Vec<BlobEntry> = table
        .entries
        .into_iter()
        .filter(|entry| frames.contains(&entry.frame_offset))
        .collect();
    let live = Arc::new(live);
    let mut found = 0;
    let mut reads = stream::iter(reads_of(id, entries))
        .map(|read| fetch(repository, read))
        .buffered(READS_AT_ONCE);
    while let Some(read) = reads.next().await {
        let (read, bytes) = match read {
            Ok(Some(read)) => read,
            Ok(None) => {
                moved.damaged.push(id);
                return Ok(());
            }
            Err(error) => return moved.passed_over(id, error),
        };
        for some in few_at_once(&read.blobs) {
            let Some(opened) = open(&read, &bytes, some, anew.kind, &live).await? else {
                moved.damaged.push(id);
                return Ok(());
            };
            for frame in opened {
                found += move_frame(writer, frame, anew, moved).await?;
            }
        }
    }
    if found < live.len() {
        // The index names blobs that the pack's own table does not have.
        moved.damaged.push(id);
    } else {
        moved.packs.insert(id);
    }
    Ok(())
}

/// A frame with something live in it.
enum Frame {
    /// To be copied as it is: its bytes, its blobs, how many of them live.
    Whole(Vec<u8>, Vec<(BlobId, u32)>, usize),
    /// Its live blobs, and its length.
    Parts(Vec<(BlobId, Bytes)>, u64),
}

/// Gives how many live blobs it held.
async fn move_frame(writer: &Writer, frame: Frame, anew: &mut Anew, moved: &mut Moved) -> Result<usize> {
    match frame {
        Frame::Whole(bytes, blobs, live_blobs) => {
            moved.bytes += bytes.len() as u64;
            let permit = writer.work(anew.kind, bytes.len()).await?;
            writer.append(anew.kind, vec![EncodedFrame::copied(bytes, blobs)]).await?;
            drop(permit);
            Ok(live_blobs)
        }
        Frame::Parts(blobs, frame_bytes) => {
            let count = blobs.len();
            moved.bytes += frame_bytes;
            for (blob_id, bytes) in blobs {
                anew.push(writer, blob_id, bytes).await?;
            }
            Ok(count)
        }
    }
}

/// `None`: it is gone.
async fn fetch(repository: &Repository, read: Read) -> Result<Option<(Read, Bytes)>> {
    match read_range(repository, read.pack, read.offset, read.length).await {
        Ok(bytes) => Ok(Some((read, bytes))),
        Err(Error::Store(store::Error::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole frames, as many as have the raw bytes of one large frame: what is open at once is bounded, however well it was
/// compressed.
fn few_at_once(blobs: &[BlobEntry]) -> Vec<&[BlobEntry]> {
    let mut groups = Vec::new();
    let (mut start, mut end, mut raw) = (0, 0, 0);
    for frame in blobs.chunk_by(|a, b| a.frame_offset == b.frame_offset) {
        let frame_raw: u64 = frame.iter().map(|blob| u64::from(blob.raw_length)).sum();
        if end > start && raw + frame_raw > FRAME_FILL_BYTES as u64 {
            groups.push(&blobs[start..end]);
            (start, raw) = (end, 0);
        }
        end += frame.len();
        raw += frame_raw;
    }
    groups.push(&blobs[start..end]);
    groups
}

/// Decode some frames of a read and check what lives in them. `None`: a live blob is not what it should be.
async fn open(read: &Read, bytes: &Bytes, blobs: &[BlobEntry], kind: PackKind, live: &Arc<HashSet<BlobId>>) -> Result<Option<Vec<Frame>>> {
    let (bytes, blobs, live, offset) = (bytes.clone(), blobs.to_vec(), Arc::clone(live), read.offset);
    aside::work(move || {
        let mut decoder = FrameDecoder::new().map_err(|source| Error::Encode { source })?;
        let frames = blobs.chunk_by(|a, b| a.frame_offset == b.frame_offset);
        Ok(frames
            .map(|frame| open_frame(&mut decoder, kind, &bytes, offset, frame, &live))
            .collect())
    })
    .await?
}

/// Decode one frame, check what lives in it, and decide.
fn open_frame(
    decoder: &mut FrameDecoder,
    kind: PackKind,
    bytes: &Bytes,
    offset: u64,
    blobs: &[BlobEntry],
    live: &HashSet<BlobId>,
) -> Option<Frame> {
    let first = blobs.first()?;
    let start = usize::try_from(u64::from(first.frame_offset).checked_sub(offset)?).ok()?;
    let frame = bytes.get(start..start.checked_add(first.frame_length as usize)?)?;
    let raw = Bytes::from(decoder.decode(frame).ok()?);
    let mut parts = Vec::new();
    for blob in blobs.iter().filter(|blob| live.contains(&blob.id)) {
        let start = blob.offset_in_frame as usize;
        let end = start.checked_add(blob.raw_length as usize)?;
        if end > raw.len() || BlobId::of(&raw[start..end]) != blob.id {
            return None;
        }
        parts.push((blob.id, raw.slice(start..end)));
    }
    // A frame of media is one blob, and stays so.
    let stays = kind == PackKind::Media || raw.len() >= FRAME_LARGE_BYTES;
    if parts.len() == blobs.len() && stays {
        let all = blobs.iter().map(|blob| (blob.id, blob.raw_length)).collect();
        return Some(Frame::Whole(frame.to_vec(), all, parts.len()));
    }
    // Copied out: a few live bytes would keep the whole frame in memory.
    let parts = parts.into_iter().map(|(id, bytes)| (id, Bytes::copy_from_slice(&bytes)));
    Some(Frame::Parts(parts.collect(), frame.len() as u64))
}

/// Live blobs of frames that were partly dead, on their way into new frames of one kind.
struct Anew {
    kind: PackKind,
    ids: Vec<BlobId>,
    blobs: Vec<Bytes>,
    bytes: usize,
}

impl Anew {
    fn new(kind: PackKind) -> Self {
        Self {
            kind,
            ids: Vec::new(),
            blobs: Vec::new(),
            bytes: 0,
        }
    }

    async fn push(&mut self, writer: &Writer, id: BlobId, blob: Bytes) -> Result<()> {
        if self.bytes + blob.len() > FRAME_FILL_BYTES || self.ids.len() >= FRAME_BLOBS_MAX {
            self.send(writer).await?;
        }
        self.bytes += blob.len();
        self.ids.push(id);
        self.blobs.push(blob);
        Ok(())
    }

    async fn send(&mut self, writer: &Writer) -> Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let (ids, blobs) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.blobs));
        let permit = writer.work(self.kind, 2 * std::mem::take(&mut self.bytes)).await?;
        let encoder = writer.clone();
        let encode = move || {
            let slices: Vec<&[u8]> = blobs.iter().map(Bytes::as_ref).collect();
            encoder.encode(&ids, &slices, Arc::default())
        };
        let frame = aside::work(encode).await??;
        writer.append(self.kind, vec![frame]).await?;
        drop(permit);
        Ok(())
    }
}
