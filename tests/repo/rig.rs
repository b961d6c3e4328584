//! A repository in memory, streams to put into it, and the shortest run that commits.

use std::sync::Arc;

use anyhow::Context;
use bytes::BytesMut;
use futures::future::BoxFuture;
use jiff::Timestamp;
use synapse_backup::format::chunk::ChunkSizes;
use synapse_backup::format::keys;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::snapshot::{Database, Facts, Snapshot, Stream, StreamFormat, Totals};
use synapse_backup::ops::verify::{self, Report};
use synapse_backup::ops::{self, Limits, Run, Tools};
use synapse_backup::progress::Quiet;
use synapse_backup::repo::attempts::{self, Attempt};
use synapse_backup::repo::commit;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::reader::Reader;
use synapse_backup::repo::writer::{Alongside, Budget, Source, SourceError, Stored, Writer};
use synapse_backup::repo::{Ids, Repository, catalog, open};
use synapse_backup::store::Store;
use synapse_backup::store::memory::{Clock, Memory};
use tokio_util::sync::CancellationToken;

pub(crate) use crate::sealing::Keys;

pub(crate) const LIMITS: Limits = Limits {
    memory_bytes: 256 << 20,
    connections: 4,
    dump_jobs: 2,
    load_jobs: 2,
};

/// A store in memory whose clock stands at a fixed time.
pub(crate) fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(Clock::starting_at("2026-11-01T00:00:00Z".parse().unwrap())))
}

pub(crate) async fn init(store: Arc<dyn Store>) -> Repository {
    open::init(store, Ids::random()).await.unwrap()
}

/// One whose blobs are a sixteenth of the usual size, so that little data has many of them.
pub(crate) async fn init_with_small_blobs(store: Arc<dyn Store>) -> Repository {
    let made = init(Arc::clone(&store)).await;
    let info = RepositoryInfo {
        chunk_sizes: ChunkSizes {
            min: 1 << 10,
            average: 4 << 10,
            max: 16 << 10,
        },
        ..made.info().clone()
    };
    store.put(keys::REPOSITORY, info.to_json().unwrap().into()).await.unwrap();
    open::open(store, Ids::random()).await.unwrap()
}

/// A sealed repository, with all keys.
pub(crate) async fn init_sealed(store: Arc<dyn Store>, keys: &Keys) -> Repository {
    open::init_with(store, Ids::random(), keys.all()).await.unwrap()
}

/// The same repository, with other keys.
pub(crate) async fn open_with(store: Arc<dyn Store>, keyring: Keyring) -> Repository {
    open::open_with(store, Ids::random(), keyring).await.unwrap()
}

/// Bytes that do not compress and are the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes as a stream, with an end that is whole or not.
pub(crate) struct Bytes {
    rest: Vec<u8>,
    ends_well: bool,
}

impl Bytes {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            rest: bytes.to_vec(),
            ends_well: true,
        }
    }

    pub(crate) fn broken(bytes: &[u8]) -> Self {
        Self {
            rest: bytes.to_vec(),
            ends_well: false,
        }
    }
}

impl Source for Bytes {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut) -> BoxFuture<'a, Result<usize, SourceError>> {
        Box::pin(async move {
            let length = self.rest.len().min(300_000);
            if length == 0 && !self.ends_well {
                return Err("pg_dump was killed".into());
            }
            buffer.extend_from_slice(&self.rest.drain(..length).collect::<Vec<u8>>());
            Ok(length)
        })
    }
}

/// Open a session, store the stream, commit.
pub(crate) async fn backup(repository: &Repository, source: &mut dyn Source) -> Result<Snapshot, String> {
    backup_with(repository, source, 64 << 20, None).await
}

/// The same with so many bytes for the index, and the list of the last snapshot beside it.
pub(crate) async fn backup_with(
    repository: &Repository,
    source: &mut dyn Source,
    index_bytes: usize,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, String> {
    let budget = Budget::new(LIMITS.memory_bytes, LIMITS.connections);
    let mut sources = vec![source];
    let ended = attempts::attempts(
        repository,
        &budget,
        async || Ok(catalog::load(repository, index_bytes).await?),
        async |writer, _| take(writer, sources.pop(), previous).await,
    );
    ended.await.map_err(|error: anyhow::Error| error.to_string())
}

async fn take(writer: &Writer, source: Option<&mut dyn Source>, previous: Option<&Snapshot>) -> anyhow::Result<Attempt<Snapshot>> {
    let source = source.context("packs are gone, and this source cannot be read again")?;
    let repository = writer.repository();
    let time = repository.date().await?;
    let reader = Reader::open(repository, 64 << 20, 4).await?;
    let alongside = previous.map(|snapshot| Alongside::new(&reader, &snapshot.databases[0].streams[0].list));
    let stored = writer.store_stream("main", source, alongside, &|_| {}).await?;
    let relied = match attempts::finish(writer, &reader.damaged_packs()).await? {
        Attempt::Done(relied) => relied,
        Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
    };
    let committed = commit::commit(repository, &relied, |id, packs| Snapshot {
        id,
        packs: packs.iter().copied().collect(),
        ..document(repository, &stored, time)
    });
    Ok(Attempt::of(committed.await)?)
}

pub(crate) fn document(repository: &Repository, stored: &Stored, time: Timestamp) -> Snapshot {
    let stream = Stream {
        name: "main".into(),
        format: StreamFormat::Custom,
        list: stored.list.clone(),
        tables: Vec::new(),
    };
    let database = Database {
        name: "synapse".into(),
        database: "synapse".into(),
        server_version: "15".into(),
        pg_dump_version: "15".into(),
        encoding: "UTF8".into(),
        collation: "C".into(),
        ctype: "C".into(),
        owner: "synapse".into(),
        streams: vec![stream],
        excluded_table_data: Vec::new(),
        facts: Facts::default(),
    };
    Snapshot {
        id: repository.ids().object(),
        format: 1,
        repository: repository.info().id,
        time,
        tool_version: "0".into(),
        synapse_version: None,
        server_name: "example.org".into(),
        tags: Vec::new(),
        signing_keys: Vec::new(),
        databases: vec![database],
        media: None,
        config: Vec::new(),
        config_paths: Vec::new(),
        packs: Vec::new(),
        problems: Vec::new(),
        totals: Totals::default(),
        seconds: 0,
    }
}

/// What `cat` gives of a snapshot's stream.
pub(crate) async fn read(repository: &Repository, snapshot: &str) -> anyhow::Result<Vec<u8>> {
    read_stream(repository, snapshot, "main").await
}

/// The same of a stream by its name.
pub(crate) async fn read_stream(repository: &Repository, snapshot: &str, stream: &str) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let item = format!("database/synapse/{stream}");
    synapse_backup::ops::inspect::cat(repository, snapshot, &item, LIMITS, &run(), &mut out).await?;
    Ok(out)
}

/// Every byte of every snapshot.
pub(crate) async fn verify(repository: &Repository) -> Report {
    let options = verify::Options {
        snapshot: None,
        read_data: Some(verify::ReadData::Percent(100)),
        repair_index: false,
        tools: None,
        limits: LIMITS,
    };
    verify::verify(repository, &options, &run()).await.unwrap()
}

pub(crate) fn run() -> Run<'static> {
    Run {
        progress: &Quiet,
        cancel: CancellationToken::new(),
    }
}

/// An adoption with these bounds.
pub(crate) fn adopting(limits: Limits) -> ops::adopt::Options {
    ops::adopt::Options {
        limits,
        spool_folder: "/var/tmp".into(),
    }
}

/// A backup of everything, as it is without settings and flags.
pub(crate) fn backup_options() -> ops::backup::Options {
    ops::backup::Options {
        parts: ops::all_parts(),
        tags: Vec::new(),
        full: false,
        audit_percent: 0.0,
        accepted_losses: std::collections::HashSet::new(),
        media_time: None,
        dry_run: false,
        thumbnails: true,
        remote: false,
        url_cache: false,
        limits: LIMITS,
        tools: Tools::default(),
        databases: Vec::new(),
        spool_folder: "/var/tmp".into(),
        tool_version: "0".into(),
    }
}

/// A restore of everything to where it was.
pub(crate) fn restore_options() -> ops::restore::Options {
    ops::restore::Options {
        to: None,
        databases: Vec::new(),
        create_database: false,
        parts: ops::all_parts(),
        path_map: Vec::new(),
        container_path_map: Vec::new(),
        working_directory: None,
        settings_databases: Vec::new(),
        owner: None,
        dry_run: false,
        late: false,
        forget_remote_media: false,
        keep_remote_media_rows: false,
        prefix: None,
        media_share: None,
        uploaded: None,
        resume: false,
        limits: LIMITS,
        tools: Tools::default(),
    }
}
