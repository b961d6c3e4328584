//! A small homeserver, and its backup: the calls that the product's own backup makes below Matrix, in the same order.
//!
//! It has three streams and four media files, each in one of a few versions, so that runs share blobs with earlier ones and with each
//! other. A run loads the index, stores streams and shards (unchanged shards are inherited unread), and commits; when packs vanish under it, it
//! sends again what they held.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

use super::rng::Rng;
use crate::format::list::List;
use crate::format::manifest::{
    MediaBlob, MediaEntry, RowDigest, RowHasher, RowState, Shard, ShardRef, decode_shard_ref, encode_shard, encode_shard_ref,
};
use crate::format::snapshot::{Database, Facts, Media, MediaIncluded, Snapshot, Stream, StreamFormat, Totals};
use crate::format::{BlobId, FORMAT_VERSION, ItemPath, ObjectId, PackId, PackKind};
use crate::repo::attempts::{self, Attempt};
use crate::repo::commit;
use crate::repo::reader::Reader;
use crate::repo::writer::{Budget, Gatherer, ListWriter, Source, SourceError, Writer};
use crate::repo::{Error, Repository, Result, catalog, snapshots};

/// Its name.
pub(super) const NAME: &str = "simulated.example";
/// Bounds of a process.
pub(super) const MEMORY_BYTES: u64 = 96 << 20;
const STREAMS: usize = 3;
const SHARDS: usize = 2;
const FILES_PER_SHARD: usize = 2;

/// Which version each thing is in.
#[derive(Debug, Clone)]
pub(super) struct Homeserver {
    streams: [u64; STREAMS],
    files: [[u64; FILES_PER_SHARD]; SHARDS],
}

impl Homeserver {
    /// As it was when it was set up.
    pub(super) fn new() -> Self {
        Self {
            streams: [0; STREAMS],
            files: [[0; FILES_PER_SHARD]; SHARDS],
        }
    }

    /// Some of it in another version; versions come back.
    pub(super) fn changed(mut self, rng: &mut Rng) -> Self {
        let things = self.streams.iter_mut().chain(self.files.iter_mut().flatten());
        for version in things {
            if rng.chance(250) {
                *version = rng.next() % 3;
            }
        }
        self
    }
}

/// Back it up. `Ok`: the store has told that the snapshot counts.
pub(super) async fn backup(repository: &Repository, home: &Homeserver) -> Result<ObjectId> {
    let previous = snapshots::newest(repository, Some(NAME)).await?.map(|loaded| loaded.snapshot);
    let budget = Budget::new(MEMORY_BYTES, 2);
    let load = async || {
        let mut index = catalog::load(repository, budget.catalog_bytes).await?;
        index.prefer(previous.as_ref().map_or(&[], |snapshot| &snapshot.packs));
        Ok(index)
    };
    attempts::attempts(repository, &budget, load, async |writer, index| {
        let reader = Reader::with_catalog(repository, Arc::clone(index), MEMORY_BYTES / 4, 2);
        attempt(writer, &reader, home, previous.as_ref()).await
    })
    .await
}

async fn attempt(writer: &Writer, reader: &Reader, home: &Homeserver, previous: Option<&Snapshot>) -> Result<Attempt<ObjectId>> {
    let repository = writer.repository();
    let time = repository.date().await?;
    let mut streams = Vec::new();
    for (number, version) in home.streams.iter().enumerate() {
        let mut rows = Rows(content("stream", number, *version));
        let stored = writer.store_stream("rows", &mut rows, None, &|_| {}).await?;
        streams.push(Stream {
            name: format!("{number}"),
            format: StreamFormat::Custom,
            list: stored.list,
            tables: Vec::new(),
        });
    }
    let previous = previous.and_then(|snapshot| snapshot.media.as_ref());
    let shards = store_media(writer, reader, home, previous).await?;
    let relied = match attempts::finish(writer, &reader.damaged_packs()).await? {
        Attempt::Done(relied) => relied,
        Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
    };
    let document = |id: ObjectId, packs: &BTreeSet<PackId>| Snapshot {
        id,
        format: FORMAT_VERSION,
        repository: repository.info().id,
        time,
        tool_version: "simulated".into(),
        synapse_version: None,
        server_name: NAME.into(),
        tags: Vec::new(),
        signing_keys: Vec::new(),
        databases: vec![database(streams.clone())],
        media: Some(media(shards.clone())),
        config: Vec::new(),
        config_paths: Vec::new(),
        packs: packs.iter().copied().collect(),
        problems: Vec::new(),
        totals: Totals::default(),
        seconds: 0,
    };
    let committed = commit::commit(repository, &relied, document).await;
    Attempt::of(committed.map(|snapshot| snapshot.id))
}

/// The shards whose rows are unchanged are inherited, if everything they rely on is usable (B1); the others are written.
async fn store_media(writer: &Writer, reader: &Reader, home: &Homeserver, previous: Option<&Media>) -> Result<List> {
    let mut old = Vec::new();
    if let Some(media) = previous
        && let Ok(lines) = reader.read_small(&media.shards, 1 << 20).await
    {
        for (number, line) in (1..).zip(lines.split_inclusive(|byte| *byte == b'\n')) {
            old.extend(decode_shard_ref(line, number));
        }
    }
    let mut lines = Vec::new();
    for (number, files) in home.files.iter().enumerate() {
        let rows = rows(number, files);
        let whole = |shard: &&ShardRef| shard.rows == rows && shard.packs.iter().all(|pack| writer.usable(*pack));
        let inherited = old.iter().find(whole).and_then(|shard| {
            let pack = writer.known(&shard.blob, Some(shard.pack))?;
            Some(ShardRef { pack, ..shard.clone() })
        });
        let line = match inherited {
            Some(shard) => shard,
            None => store_shard(writer, number, files, rows).await?,
        };
        // B3.
        for pack in line.packs.iter().chain([&line.pack]) {
            writer.rely(*pack);
        }
        encode_shard_ref(&line, &mut lines).map_err(|source| Error::Encode { source })?;
    }
    let mut pieces = Gatherer::new(writer, PackKind::Metadata);
    let mut list = ListWriter::new(writer);
    pieces.push_one(lines).await?;
    pieces.finish().await?;
    while let Some(entry) = pieces.ready() {
        list.push(entry).await?;
    }
    list.finish().await
}

async fn store_shard(writer: &Writer, number: usize, files: &[u64], rows: RowDigest) -> Result<ShardRef> {
    let mut gatherer = Gatherer::new(writer, PackKind::Media);
    for (file, version) in files.iter().enumerate() {
        gatherer
            .push_one(content("file", number * FILES_PER_SHARD + file, *version).to_vec())
            .await?;
    }
    gatherer.finish().await?;
    let mut shard = Shard::default();
    for file in 0..files.len() {
        let Some(entry) = gatherer.ready() else {
            return Err(Error::Worker("a file has no place".into()));
        };
        let ordinal = shard.packs.iter().position(|pack| *pack == entry.pack).unwrap_or_else(|| {
            shard.packs.push(entry.pack);
            shard.packs.len() - 1
        });
        shard.entries.push(MediaEntry {
            path: path(number, file),
            bytes: u64::from(entry.length),
            sha256: Some(entry.id),
            blobs: vec![MediaBlob {
                id: entry.id,
                length: entry.length,
                pack: u32::try_from(ordinal).unwrap_or(u32::MAX),
            }],
            mode: None,
            uid: None,
            gid: None,
            owner: None,
            group: None,
            row: RowState::default(),
            problem: None,
        });
    }
    let bytes = shard.entries.iter().map(|entry| entry.bytes).sum();
    let blob = encode_shard(&shard).map_err(|source| Error::Encode { source })?;
    let (id, length) = (BlobId::of(&blob), u32::try_from(blob.len()).unwrap_or(u32::MAX));
    let mut gatherer = Gatherer::new(writer, PackKind::Metadata);
    gatherer.push_one(blob).await?;
    gatherer.finish().await?;
    let pack = gatherer.ready().map(|entry| entry.pack);
    Ok(ShardRef {
        first: path(number, 0),
        blob: id,
        length,
        pack: pack.ok_or_else(|| Error::Worker("a shard has no place".into()))?,
        count: files.len() as u64,
        bytes,
        problems: 0,
        packs: shard.packs,
        rows,
    })
}

fn path(shard: usize, file: usize) -> ItemPath {
    ItemPath::from(format!("local_content/{shard}/{file}").as_str())
}

/// The digest changes with every version.
fn rows(shard: usize, files: &[u64]) -> RowDigest {
    let mut hasher = RowHasher::new();
    for (file, version) in files.iter().enumerate() {
        let row = RowState {
            length: Some(*version),
            sha256: None,
        };
        hasher.push(path(shard, file).as_bytes(), &row);
    }
    hasher.finish()
}

fn content(what: &str, number: usize, version: u64) -> Bytes {
    format!("{what} {number} in version {version}\n").repeat(3).into()
}

/// A stream of these bytes.
struct Rows(Bytes);

impl Source for Rows {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut) -> BoxFuture<'a, std::result::Result<usize, SourceError>> {
        Box::pin(async move {
            let bytes = std::mem::take(&mut self.0);
            buffer.extend_from_slice(&bytes);
            Ok(bytes.len())
        })
    }
}

fn database(streams: Vec<Stream>) -> Database {
    Database {
        name: "synapse".into(),
        database: "synapse".into(),
        server_version: "15".into(),
        pg_dump_version: "15".into(),
        encoding: "UTF8".into(),
        collation: "C".into(),
        ctype: "C".into(),
        owner: "synapse".into(),
        streams,
        excluded_table_data: Vec::new(),
        facts: Facts::default(),
    }
}

fn media(shards: List) -> Media {
    Media {
        root: ItemPath::from("/media"),
        mode: None,
        uid: None,
        gid: None,
        owner: None,
        group: None,
        shards,
        files: (SHARDS * FILES_PER_SHARD) as u64,
        bytes: 0,
        counts: std::collections::BTreeMap::new(),
        included: MediaIncluded::default(),
    }
}
