//! Writing the manifest: shards into metadata packs, their lines into the shard list, in the order of the paths.
//!
//! The list is cut into blobs at ends of lines only, after a line whose first path says so, so that an unchanged stretch
//! of it deduplicates. What stands in a shard is decided in `build`.

use std::collections::VecDeque;

use crate::format::list::List;
use crate::format::manifest::{RowDigest, Shard, ShardRef, cuts_after, encode_shard, encode_shard_ref};
use crate::format::{BlobId, ItemPath, PackId, PackKind};
use crate::repo::writer::{Gatherer, ListWriter, Writer};
use crate::repo::{Error, Result};

/// A piece of the shard list is one blob; it ends at the latest here.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// Writes shards and their list.
pub(super) struct ShardWriter {
    writer: Writer,
    shards: Gatherer,
    /// Lines whose shard's pack is not known yet, and inherited ones behind them.
    waiting: VecDeque<(ShardRef, bool)>,
    piece: Vec<u8>,
    pieces: Gatherer,
    list: ListWriter,
}

impl ShardWriter {
    pub(super) fn new(writer: &Writer) -> Self {
        Self {
            writer: writer.clone(),
            shards: Gatherer::new(writer, PackKind::Metadata),
            waiting: VecDeque::new(),
            piece: Vec::new(),
            pieces: Gatherer::new(writer, PackKind::Metadata),
            list: ListWriter::new(writer),
        }
    }

    /// The next shard is one of the last snapshot's, with its packs (B3).
    pub(super) async fn inherit(&mut self, shard: ShardRef) -> Result<()> {
        for pack in shard.packs.iter().chain([&shard.pack]) {
            self.writer.rely(*pack);
        }
        self.waiting.push_back((shard, true));
        self.write_ready().await
    }

    /// The next shard is a new one.
    pub(super) async fn push(&mut self, shard: Shard, first: ItemPath, rows: RowDigest, problems: u64, bytes: u64) -> Result<()> {
        for pack in &shard.packs {
            self.writer.rely(*pack);
        }
        let count = shard.entries.len() as u64;
        let blob = encode_shard(&shard).map_err(|source| Error::Encode { source })?;
        let line = ShardRef {
            first,
            blob: BlobId::of(&blob),
            length: u32::try_from(blob.len()).unwrap_or(u32::MAX),
            pack: PackId::from_bytes([0; 16]),
            count,
            bytes,
            problems,
            packs: shard.packs,
            rows,
        };
        self.waiting.push_back((line, false));
        self.shards.push_one(blob).await?;
        self.write_ready().await
    }

    /// Lines go out in order, as soon as the packs of their shards are known.
    async fn write_ready(&mut self) -> Result<()> {
        while let Some((_, known)) = self.waiting.front() {
            let pack = if *known { None } else { Some(self.shards.ready()) };
            let pack = match pack {
                Some(None) => return Ok(()),
                Some(Some(entry)) => Some(entry.pack),
                None => None,
            };
            let Some((mut line, _)) = self.waiting.pop_front() else {
                return Ok(());
            };
            line.pack = pack.unwrap_or(line.pack);
            encode_shard_ref(&line, &mut self.piece).map_err(|source| Error::Encode { source })?;
            if cuts_after(line.first.as_bytes()) || self.piece.len() >= PIECE_BYTES_MAX {
                self.end_piece().await?;
            }
        }
        Ok(())
    }

    async fn end_piece(&mut self) -> Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.pieces.push_one(std::mem::take(&mut self.piece)).await?;
        while let Some(entry) = self.pieces.ready() {
            self.list.push(entry).await?;
        }
        Ok(())
    }

    /// Everything is in its pack; gives the shard list's bytes as a list.
    pub(super) async fn finish(mut self) -> Result<List> {
        self.shards.finish().await?;
        self.write_ready().await?;
        self.end_piece().await?;
        self.pieces.finish().await?;
        while let Some(entry) = self.pieces.ready() {
            self.list.push(entry).await?;
        }
        self.list.finish().await
    }
}
