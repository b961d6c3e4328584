//! Filling packs and sending them: one open pack a kind, parts sent while it is still being filled.
//!
//! A pack that ends before its first part is full is a single PUT; one of unknown outcome is looked for and, if it is
//! not there, sent again under a new id (G1). Whatever was begun and not completed is aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio::task::JoinSet;

use super::claims::Placement;
use super::{Error, PACK_BYTES, PART_BYTES, Result, STOP_PATIENCE, Writer, lock};
use crate::format::index::SegmentPack;
use crate::format::pack::{self, BlobEntry, PackTable};
use crate::format::seal::{CHUNK_BYTES, Sealer};
use crate::format::{BlobId, PACK_BLOBS_MAX, PackId, PackKind, keys};
use crate::repo::again::Tries;
use crate::store::{self, PartTag, Store, UploadId};

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

/// So long a pack is filled; then it ends, full or not.
const OPEN_MAX: Duration = Duration::from_hours(1);

/// A frame that is ready for a pack.
#[derive(Debug)]
pub struct EncodedFrame {
    bytes: Vec<u8>,
    blobs: Vec<(BlobId, u32)>,
    placement: Arc<Placement>,
}

impl EncodedFrame {
    #[expect(clippy::cast_possible_truncation, reason = "a blob is at most 8 MiB")]
    pub(super) fn new(bytes: Vec<u8>, ids: &[BlobId], blobs: &[&[u8]], placement: Arc<Placement>) -> Self {
        let blobs = ids.iter().zip(blobs).map(|(id, blob)| (*id, blob.len() as u32)).collect();
        Self { bytes, blobs, placement }
    }

    /// A frame as it stood in another pack: its bytes, and all its blobs in order with their raw lengths.
    pub(in crate::repo) fn copied(bytes: Vec<u8>, blobs: Vec<(BlobId, u32)>) -> Self {
        let placement = Arc::default();
        Self { bytes, blobs, placement }
    }
}

/// The open pack of one kind.
#[derive(Debug)]
pub(super) struct Packer {
    kind: PackKind,
    open: Option<OpenPack>,
    /// The part being filled; kept between packs so that its memory is used again.
    part: BytesMut,
}

impl Packer {
    pub(super) fn new(kind: PackKind) -> Self {
        Self {
            kind,
            open: None,
            part: BytesMut::new(),
        }
    }
}

#[derive(Debug)]
struct OpenPack {
    table: PackTable,
    frames_bytes: u64,
    parts_sent: u32,
    begun: Instant,
    upload: Arc<PackUpload>,
    parts: JoinSet<Option<PartTag>>,
    /// In a sealed repository: what frames and table go through on their way into parts.
    sealer: Option<Sealer>,
}

/// The multipart upload of a pack, begun by whichever part comes first.
#[derive(Debug)]
pub(super) struct PackUpload {
    key: String,
    id: OnceCell<UploadId>,
    /// Beginning it failed: the key is not used again (G1).
    refused: AtomicBool,
}

pub(super) async fn append(writer: &Writer, kind: PackKind, frames: Vec<EncodedFrame>) -> Result<()> {
    let mut packer = writer.inner.packers[kind as usize - 1].lock().await;
    for frame in frames {
        if writer.inner.broken.is_cancelled() {
            return Err(writer.broken());
        }
        let full = packer
            .open
            .as_ref()
            .is_some_and(|open| open.frames_bytes >= PACK_BYTES || open.table.entries.len() + frame.blobs.len() > PACK_BLOBS_MAX);
        if full {
            end_pack(writer, &mut packer).await?;
        }
        note_frame(writer, &mut packer, &frame)?;
        writer.inner.appended.notify_waiters();
        write(writer, &mut packer, &frame.bytes).await?;
    }
    Ok(())
}

/// Plain bytes of a pack: as they are, or sealed a chunk at a time, so that no second frame is held.
async fn write(writer: &Writer, packer: &mut Packer, bytes: &[u8]) -> Result<()> {
    let is_sealed = packer.open.as_ref().is_some_and(|open| open.sealer.is_some());
    if !is_sealed {
        return fill(writer, packer, bytes).await;
    }
    for chunk in bytes.chunks(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX)) {
        let sealer = packer.open.as_mut().and_then(|open| open.sealer.as_mut());
        let Some(sealer) = sealer else { break };
        let sealed = sealer.push(chunk).map_err(|source| Error::Encode { source })?;
        fill(writer, packer, &sealed).await?;
    }
    Ok(())
}

/// A sealer for a pack of this kind, where the repository is sealed. Without recipients nothing is written.
fn sealer(writer: &Writer, kind: PackKind) -> Result<Option<Sealer>> {
    let repository = &writer.inner.repository;
    if !repository.info.sealed {
        return Ok(None);
    }
    let recipients = repository.keyring.recipients_of(kind);
    Sealer::new(&recipients).map(Some).map_err(|source| Error::Encode { source })
}

/// Copy bytes into the open part, which is sent whenever it is exactly full: its memory is reserved once and never grows.
async fn fill(writer: &Writer, packer: &mut Packer, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        if packer.part.capacity() == 0 {
            packer.part = lock(&writer.inner.spare_parts)
                .pop()
                .unwrap_or_else(|| BytesMut::with_capacity(PART_BYTES));
        }
        let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - packer.part.len()));
        packer.part.extend_from_slice(now);
        bytes = later;
        if packer.part.len() == PART_BYTES && !bytes.is_empty() {
            send_part(writer, packer).await?;
        }
    }
    Ok(())
}

pub(super) async fn flush(writer: &Writer, kind: PackKind) -> Result<()> {
    let mut packer = writer.inner.packers[kind as usize - 1].lock().await;
    end_pack(writer, &mut packer).await
}

/// End the packs whose upload has been open for long: a store, or a `prune`, takes an upload of a day for one of a killed run.
pub(super) async fn end_old(writer: &Writer) -> Result<()> {
    for packer in &writer.inner.packers {
        // Whoever holds it is filling it, and the next tick comes soon.
        let Ok(mut packer) = packer.try_lock() else { continue };
        let old = |open: &OpenPack| open.parts_sent > 0 && open.begun.elapsed() >= OPEN_MAX;
        if packer.open.as_ref().is_some_and(old) {
            end_pack(writer, &mut packer).await?;
        }
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a pack ends long before 4 GiB, a frame is at most a little over 8 MiB"
)]
/// The table learns where the frame's blobs are, and whoever waits for the frame learns which pack it is in.
fn note_frame(writer: &Writer, packer: &mut Packer, frame: &EncodedFrame) -> Result<()> {
    let kind = packer.kind;
    let sealer = if packer.open.is_none() { sealer(writer, kind)? } else { None };
    let open = packer.open.get_or_insert_with(|| {
        let id = writer.inner.repository.ids.pack();
        OpenPack {
            sealer,
            table: PackTable {
                id,
                kind,
                entries: Vec::new(),
            },
            frames_bytes: 0,
            parts_sent: 0,
            begun: Instant::now(),
            upload: Arc::new(PackUpload {
                key: keys::pack(id),
                id: OnceCell::new(),
                refused: AtomicBool::new(false),
            }),
            parts: JoinSet::new(),
        }
    });
    frame.placement.set(open.table.id);
    let mut offset_in_frame = 0;
    for &(id, raw_length) in &frame.blobs {
        let (frame_offset, frame_length) = (open.frames_bytes as u32, frame.bytes.len() as u32);
        open.table.entries.push(BlobEntry {
            id,
            frame_offset,
            frame_length,
            offset_in_frame,
            raw_length,
        });
        offset_in_frame += raw_length;
    }
    open.frames_bytes += frame.bytes.len() as u64;
    Ok(())
}

/// Hand one full part to a task of its own; waits for a free upload first, which is what holds producers back.
async fn send_part(writer: &Writer, packer: &mut Packer) -> Result<()> {
    let Some(open) = &mut packer.open else { return Ok(()) };
    let permit = upload_permit(writer, packer.kind).await?;
    let full = std::mem::take(&mut packer.part);
    open.parts_sent += 1;
    open.parts.spawn(put_part(
        writer.clone(),
        Arc::clone(&open.upload),
        open.parts_sent,
        full.freeze(),
        permit,
    ));
    Ok(())
}

async fn upload_permit(writer: &Writer, kind: PackKind) -> Result<OwnedSemaphorePermit> {
    tokio::select! {
        permit = writer.inner.uploads.acquire(kind, 1) => permit.ok_or_else(|| Error::Worker("the writer is closed".into())),
        () = writer.inner.broken.cancelled() => Err(writer.broken()),
    }
}

/// Send one part; a failure ends the session, and `None` comes back.
async fn put_part(writer: Writer, upload: Arc<PackUpload>, number: u32, body: Bytes, permit: OwnedSemaphorePermit) -> Option<PartTag> {
    let store = writer.inner.repository.store();
    let sent = async {
        // Not cut short when the session breaks: what was begun must be known, to be aborted.
        let id = upload.id.get_or_try_init(|| begin(&writer, &upload)).await?;
        tokio::select! {
            tag = store.put_part(&upload.key, id, number, body.clone()) => tag.map(Some),
            () = writer.inner.broken.cancelled() => Ok(None),
        }
    };
    let tag = sent.await.unwrap_or_else(|error: store::Error| {
        writer.fail(error.into());
        None
    });
    give_back(&writer, body);
    drop(permit);
    tag
}

/// The memory of a part that was sent serves the next one, unless the store still holds on to it.
fn give_back(writer: &Writer, body: Bytes) {
    if let Ok(mut part) = body.try_into_mut()
        && part.capacity() >= PART_BYTES
    {
        part.clear();
        lock(&writer.inner.spare_parts).push(part);
    }
}

/// Begin the upload and write it down, so that `abort_uploads` knows of it whatever happens next.
async fn begin(writer: &Writer, upload: &PackUpload) -> Result<UploadId, store::Error> {
    if upload.refused.load(Ordering::SeqCst) {
        return Err(stopped(&upload.key));
    }
    let id = match writer.inner.repository.store().create_upload(&upload.key).await {
        Ok(id) => id,
        Err(error) => {
            // The cause is kept before the other parts of this pack are told that it has come to nothing.
            writer.fail(error.into());
            upload.refused.store(true, Ordering::SeqCst);
            return Err(stopped(&upload.key));
        }
    };
    lock(&writer.inner.open_uploads).insert(upload.key.clone(), id.clone());
    Ok(id)
}

fn stopped(key: &str) -> store::Error {
    store::Error::Failed {
        action: "PUT",
        key: key.to_owned(),
        source: "the run was stopped".into(),
    }
}

/// Close the open pack: its table, its last part, and a task that completes it and hands its entries to the index.
async fn end_pack(writer: &Writer, packer: &mut Packer) -> Result<()> {
    let Some(open) = &packer.open else { return Ok(()) };
    let table = pack::encode_table(&open.table, open.frames_bytes).map_err(|source| Error::Encode { source })?;
    write(writer, packer, &table).await?;
    let mut bytes = open_bytes(packer, table.len());
    if let Some(sealer) = packer.open.as_mut().and_then(|open| open.sealer.take()) {
        let (last, sealed_bytes) = sealer.finish().map_err(|source| Error::Encode { source })?;
        fill(writer, packer, &last).await?;
        bytes = sealed_bytes;
    }
    let Some(open) = packer.open.take() else { return Ok(()) };
    let permit = upload_permit(writer, packer.kind).await?;
    let last = std::mem::take(&mut packer.part).freeze();
    let ending = end(writer.clone(), open, last, bytes, permit);
    lock(&writer.inner.tasks).spawn(ending);
    Ok(())
}

/// Length of the object of a pack that is not sealed.
fn open_bytes(packer: &Packer, table_bytes: usize) -> u64 {
    packer.open.as_ref().map_or(0, |open| open.frames_bytes) + table_bytes as u64
}

/// `bytes`: length of the object.
async fn end(writer: Writer, open: OpenPack, last: Bytes, bytes: u64, permit: OwnedSemaphorePermit) {
    let kind = open.table.kind;
    let provisional = open.table.id;
    #[cfg(test)]
    if planted(Bug::SegmentBeforePack) {
        let (id, entries) = (open.table.id, open.table.entries.clone());
        let segments = &writer.inner.segments;
        let named = segments
            .add(&writer.inner.repository, SegmentPack { id, kind, bytes }, entries)
            .await;
        let named = named.and(segments.write(&writer.inner.repository).await);
        let landed = put_whole(&writer, open.table, last, permit).await;
        match named.and(landed) {
            Ok(table) => note_pack(&writer, provisional, table.id),
            Err(error) => writer.fail(error),
        }
        return;
    }
    let landed = if open.parts_sent == 0 {
        put_whole(&writer, open.table, last, permit).await
    } else {
        complete(&writer, open, last, bytes, permit).await
    };
    let noted = match landed {
        Ok(table) => {
            note_pack(&writer, provisional, table.id);
            writer.inner.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            let pack = SegmentPack { id: table.id, kind, bytes };
            writer.inner.segments.add(&writer.inner.repository, pack, table.entries).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = noted {
        writer.fail(error);
    }
}

fn note_pack(writer: &Writer, provisional: PackId, id: PackId) {
    let mut totals = lock(&writer.inner.totals);
    totals.packs.insert(id);
    if id != provisional {
        totals.renamed.push((provisional, id));
    }
}

/// The last part, all the others, and the Complete.
async fn complete(writer: &Writer, open: OpenPack, last: Bytes, bytes: u64, permit: OwnedSemaphorePermit) -> Result<PackTable> {
    let OpenPack {
        table,
        parts_sent,
        upload,
        mut parts,
        ..
    } = open;
    parts.spawn(put_part(writer.clone(), Arc::clone(&upload), parts_sent + 1, last, permit));
    let mut tags = Vec::new();
    while let Some(ended) = parts.join_next().await {
        tags.extend(ended.map_err(|error| Error::Worker(error.to_string()))?);
    }
    if tags.len() != parts_sent as usize + 1 {
        return Err(writer.broken());
    }
    tags.sort_by_key(|tag| tag.number);
    let id = upload.id.get().ok_or_else(|| Error::Worker("an upload without an id".into()))?;
    writer
        .inner
        .repository
        .store()
        .complete_upload(&upload.key, id, tags, bytes)
        .await?;
    lock(&writer.inner.open_uploads).remove(&upload.key);
    Ok(table)
}

/// A small pack, in one PUT. Of unknown outcome and not there: once more under a new id (G1).
async fn put_whole(writer: &Writer, mut table: PackTable, body: Bytes, permit: OwnedSemaphorePermit) -> Result<PackTable> {
    let store = writer.inner.repository.store();
    let (mut body, mut tries) = (body, Tries::default());
    loop {
        let key = keys::pack(table.id);
        match store.put(&key, body.clone()).await {
            Ok(_) => {
                drop(permit);
                return Ok(table);
            }
            Err(error) => tries.after(error).await?,
        }
        if landed(&**store, &key, body.len() as u64).await? {
            return Ok(table);
        }
        table.id = writer.inner.repository.ids.pack();
        if writer.inner.repository.info.sealed {
            // Its table keeps the old id inside the seal, as in a pack that was copied (B4): the key is what counts.
            continue;
        }
        let frames_bytes = body.len() - pack::encoded_table_bytes(table.entries.len());
        let mut renamed = BytesMut::from(&body[..frames_bytes]);
        let encoded = pack::encode_table(&table, frames_bytes as u64).map_err(|source| Error::Encode { source })?;
        renamed.extend_from_slice(&encoded);
        body = renamed.freeze();
    }
}

async fn landed(store: &dyn Store, key: &str, bytes: u64) -> Result<bool> {
    match store.head(key).await {
        Ok(head) => Ok(head.bytes == bytes),
        Err(store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Abort what was begun and not completed.
pub(super) async fn abort_uploads(writer: &Writer) {
    for packer in &writer.inner.packers {
        let Some(mut open) = packer.lock().await.open.take() else {
            continue;
        };
        let ended = async { while open.parts.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            open.parts.shutdown().await;
        }
    }
    let uploads = std::mem::take(&mut *lock(&writer.inner.open_uploads));
    let store = writer.inner.repository.store();
    let aborts = uploads.iter().map(|(key, id)| async move {
        if let Err(error) = store.abort_upload(key, id).await {
            tracing::warn!(key, %error, "an unfinished upload could not be aborted; the store cleans it up, or `prune` does");
        }
    });
    futures::future::join_all(aborts).await;
}
