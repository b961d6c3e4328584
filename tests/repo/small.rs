//! A small homeserver without a server: rows in two streams and media in shards, which change from day to day, and its backup
//! by the calls that a real backup makes below Matrix.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synapse_backup::format::list::List;
use synapse_backup::format::manifest::{
    MediaBlob, MediaEntry, RowDigest, RowHasher, RowState, Shard, ShardRef, decode_shard_ref, encode_shard, encode_shard_ref,
};
use synapse_backup::format::snapshot::{Database, Media, MediaIncluded, Snapshot, Stream};
use synapse_backup::format::{BlobId, ItemPath, ObjectId, PackKind};
use synapse_backup::repo::reader::Reader;
use synapse_backup::repo::writer::{Budget, Gatherer, ListWriter, Writer};
use synapse_backup::repo::{Repository, catalog, commit, snapshots};

use crate::rig::{self, LIMITS, noise};

/// Shards of the media manifest.
const SHARDS: u64 = 8;
/// What stands there on the first day.
const FIRST_ROWS: u64 = 600;
const FIRST_FILES: u64 = 120;
/// What a day brings.
const ROWS_A_DAY: u64 = 8;
const CHANGES_A_DAY: u64 = 4;
const FILES_A_DAY: u64 = 2;

/// Rows and files by their number, as they are now.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    rows: BTreeMap<u64, Arc<Vec<u8>>>,
    files: BTreeMap<u64, Arc<File>>,
    next_row: u64,
    next_file: u64,
    random: u64,
}

/// A media file.
#[derive(Debug)]
struct File {
    path: String,
    bytes: Vec<u8>,
    sha256: BlobId,
}

impl Home {
    /// As it is before the first day.
    pub(crate) fn new() -> Self {
        let mut home = Self {
            rows: BTreeMap::new(),
            files: BTreeMap::new(),
            next_row: 0,
            next_file: 0,
            random: 7,
        };
        home.grow(FIRST_ROWS, FIRST_FILES);
        home
    }

    /// New rows, changed rows, new media; every fifth day old media go, every fortieth a room with a ninth of all rows.
    pub(crate) fn day(&mut self, day: usize) {
        self.grow(ROWS_A_DAY, FILES_A_DAY);
        for _ in 0..CHANGES_A_DAY {
            let (number, seed) = (self.random() % self.next_row, self.random());
            if let Some(changed) = self.rows.get_mut(&number) {
                *changed = Arc::new(row(number, seed));
            }
        }
        if day.is_multiple_of(5) {
            for _ in 0..6 {
                self.files.pop_first();
            }
        }
        if day.is_multiple_of(40) {
            let room = (day / 40) as u64;
            self.rows.retain(|row, _| row % 9 != room % 9);
        }
    }

    fn grow(&mut self, rows: u64, files: u64) {
        for number in self.next_row..self.next_row + rows {
            let seed = self.random();
            self.rows.insert(number, Arc::new(row(number, seed)));
        }
        self.files
            .extend((self.next_file..self.next_file + files).map(|number| (number, Arc::new(file(number)))));
        self.next_row += rows;
        self.next_file += files;
    }

    fn random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// The stream of the larger table.
    pub(crate) fn events(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        self.rows.values().for_each(|row| stream.extend_from_slice(row));
        stream
    }

    /// The stream of another one, with a line for every row.
    pub(crate) fn state(&self) -> Vec<u8> {
        let lines = self
            .rows
            .iter()
            .map(|(number, row)| format!("{number}\t{}\t{}\n", number % 97, row.len()));
        lines.collect::<String>().into_bytes()
    }

    /// Paths in the media store and what is there.
    pub(crate) fn media(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.values().map(|file| (file.path.as_str(), file.bytes.as_slice()))
    }

    /// Back it up; the store has told that the snapshot counts.
    pub(crate) async fn backup(&self, repository: &Repository) -> ObjectId {
        let previous = snapshots::newest(repository, None).await.unwrap().map(|loaded| loaded.snapshot);
        let budget = Budget::new(LIMITS.memory_bytes, LIMITS.connections);
        let mut index = catalog::load(repository, budget.catalog_bytes).await.unwrap();
        index.prefer(previous.as_ref().map_or(&[], |snapshot| &snapshot.packs));
        let index = Arc::new(index);
        let writer = Writer::open(repository, Arc::clone(&index), BTreeSet::new(), &budget);
        let reader = Reader::with_catalog(repository, index, LIMITS.memory_bytes / 4, LIMITS.connections);
        let time = repository.date().await.unwrap();
        let mut streams = Vec::new();
        let mut stored = None;
        for (name, rows) in [("main", self.events()), ("state", self.state())] {
            let mut source = rig::Bytes::new(&rows);
            let taken = writer.store_stream(name, &mut source, None, &|_| {}).await.unwrap();
            streams.push((name, taken.list.clone()));
            stored = Some(taken);
        }
        let old = previous.as_ref().and_then(|snapshot| snapshot.media.as_ref());
        let shards = self.store_media(&writer, &reader, old).await;
        let finished = writer.finish().await.unwrap();
        let mut relied = writer.relied();
        relied.extend(finished.packs);
        let plain = rig::document(repository, &stored.unwrap(), time);
        let relied = commit::Relied::from(relied);
        let committed = commit::commit(repository, &relied, |id, packs| Snapshot {
            id,
            packs: packs.iter().copied().collect(),
            databases: vec![with_streams(&plain.databases[0], &streams)],
            media: Some(self.manifest(shards.clone())),
            ..plain.clone()
        });
        let Ok(snapshot) = committed.await else {
            panic!("nobody else deletes here");
        };
        snapshot.id
    }

    fn manifest(&self, shards: List) -> Media {
        Media {
            root: ItemPath::from("/media"),
            mode: None,
            uid: None,
            gid: None,
            owner: None,
            group: None,
            shards,
            files: self.files.len() as u64,
            bytes: self.files.values().map(|file| file.bytes.len() as u64).sum(),
            counts: BTreeMap::new(),
            included: MediaIncluded::default(),
        }
    }

    /// Shards whose rows are unchanged are inherited, if all they rely on is usable; the others are written.
    async fn store_media(&self, writer: &Writer, reader: &Reader, previous: Option<&Media>) -> List {
        let mut old = Vec::new();
        if let Some(media) = previous {
            let lines = reader.read_small(&media.shards, 1 << 20).await.unwrap();
            for (number, line) in (1..).zip(lines.split_inclusive(|byte| *byte == b'\n')) {
                old.push(decode_shard_ref(line, number).unwrap());
            }
        }
        let mut lines = Vec::new();
        for shard in 0..SHARDS {
            let of_shard = self.files.iter().filter(|(number, _)| **number % SHARDS == shard);
            let files: Vec<&File> = of_shard.map(|(_, file)| &**file).collect();
            let rows = rows_of(&files);
            let whole = |shard: &&ShardRef| shard.rows == rows && shard.packs.iter().all(|pack| writer.usable(*pack));
            let inherited = old.iter().find(whole).and_then(|shard| {
                let pack = writer.known(&shard.blob, Some(shard.pack))?;
                Some(ShardRef { pack, ..shard.clone() })
            });
            let line = match inherited {
                Some(shard) => shard,
                None => store_shard(writer, &files, rows).await,
            };
            for pack in line.packs.iter().chain([&line.pack]) {
                writer.rely(*pack);
            }
            encode_shard_ref(&line, &mut lines).unwrap();
        }
        let mut pieces = Gatherer::new(writer, PackKind::Metadata);
        let mut list = ListWriter::new(writer);
        pieces.push_one(lines).await.unwrap();
        pieces.finish().await.unwrap();
        while let Some(entry) = pieces.ready() {
            list.push(entry).await.unwrap();
        }
        list.finish().await.unwrap()
    }
}

async fn store_shard(writer: &Writer, files: &[&File], rows: RowDigest) -> ShardRef {
    let mut gatherer = Gatherer::new(writer, PackKind::Media);
    for file in files {
        gatherer.push_one(file.bytes.clone()).await.unwrap();
    }
    gatherer.finish().await.unwrap();
    let mut shard = Shard::default();
    for file in files {
        let entry = gatherer.ready().unwrap();
        if !shard.packs.contains(&entry.pack) {
            shard.packs.push(entry.pack);
        }
        let ordinal = shard.packs.iter().position(|pack| *pack == entry.pack).unwrap();
        shard.entries.push(MediaEntry {
            path: ItemPath::from(file.path.as_str()),
            bytes: u64::from(entry.length),
            sha256: Some(entry.id),
            blobs: vec![MediaBlob {
                id: entry.id,
                length: entry.length,
                pack: u32::try_from(ordinal).unwrap(),
            }],
            mode: None,
            uid: None,
            gid: None,
            owner: None,
            group: None,
            row: row_of(file),
            problem: None,
        });
    }
    let blob = encode_shard(&shard).unwrap();
    let (id, length) = (BlobId::of(&blob), u32::try_from(blob.len()).unwrap());
    let mut gatherer = Gatherer::new(writer, PackKind::Metadata);
    gatherer.push_one(blob).await.unwrap();
    gatherer.finish().await.unwrap();
    ShardRef {
        first: shard.entries[0].path.clone(),
        blob: id,
        length,
        pack: gatherer.ready().unwrap().pack,
        count: files.len() as u64,
        bytes: shard.entries.iter().map(|entry| entry.bytes).sum(),
        problems: 0,
        packs: shard.packs,
        rows,
    }
}

fn rows_of(files: &[&File]) -> RowDigest {
    let mut hasher = RowHasher::new();
    for file in files {
        hasher.push(file.path.as_bytes(), &row_of(file));
    }
    hasher.finish()
}

fn row_of(file: &File) -> RowState {
    RowState {
        length: Some(file.bytes.len() as u64),
        sha256: Some(file.sha256),
    }
}

/// Half of it does not compress.
fn row(number: u64, seed: u64) -> Vec<u8> {
    let text = hex::encode(noise(seed, 100 + usize::try_from(number % 300).unwrap()));
    format!(
        "{number}\t{{\"type\":\"m.room.message\",\"room_id\":\"!room{}:example.org\",\"body\":\"{text}\"}}\n",
        number % 97
    )
    .into_bytes()
}

/// Paths are in the order of the shards, and within one in that of the numbers.
fn file(number: u64) -> File {
    let bytes = noise(1_000_000_000 + number, 500 + usize::try_from(number * 7919 % 20_000).unwrap());
    File {
        path: format!("local_content/{}/{number:06}", number % SHARDS),
        sha256: BlobId::of(&bytes),
        bytes,
    }
}

fn with_streams(database: &Database, streams: &[(&str, List)]) -> Database {
    let stream = |(name, list): &(&str, List)| Stream {
        name: (*name).to_owned(),
        list: list.clone(),
        ..database.streams[0].clone()
    };
    Database {
        streams: streams.iter().map(stream).collect(),
        ..database.clone()
    }
}
