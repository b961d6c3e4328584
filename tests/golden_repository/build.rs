//! Two nights of a small homeserver, written by today's writer with fixed ids and a clock that stands still.
//!
//! There is one of everything that the format has: a dump stream whose list is a tree, config items of every kind (one
//! with a path that is not UTF-8), media of no, one and two blobs, files with owners of their own, rows without a
//! file, a shard that the second night inherits unread, problems, tags that changed later, the record of a drill, and
//! a condemned pack of a run that never committed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use synapse_backup::format::chunk::ChunkSizes;
use synapse_backup::format::drill::{Drill, DrillCheck};
use synapse_backup::format::list::{List, ListEntry};
use synapse_backup::format::manifest::{
    EntryProblem, MediaBlob, MediaEntry, RowHasher, RowState, Shard, ShardRef, encode_shard, encode_shard_ref,
};
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::snapshot::{
    ConfigItem, ConfigKind, ConfigRole, Database, Facts, Media, MediaIncluded, Problem, ProblemKind, SigningKey, Snapshot, Stream,
    StreamFormat, TableFact, Totals,
};
use synapse_backup::format::{BLOB_BYTES_MAX, BlobId, ItemPath, ObjectId, PackId, PackKind};
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::writer::{Budget, Gatherer, ListWriter, Source, SourceError, Writer};
use synapse_backup::repo::{Ids, Repository, catalog, commit, drills, open, snapshots, tags};
use synapse_backup::store::Store;
use synapse_backup::store::memory::{Clock, Memory};

use super::{Expected, ExpectedSnapshot};

/// A config item: path, kind with its text or target, role, mode.
type Config = (&'static [u8], What, ConfigRole, u32);

enum What {
    File(Vec<u8>),
    Link(&'static [u8]),
    Folder,
    /// It was there and could not be read.
    Unread,
}

/// A media file: path, bytes or the problem of its row, and an owner unlike the others'.
struct Medium {
    path: &'static str,
    content: Result<Vec<u8>, (ProblemKind, &'static str)>,
    uid: Option<u32>,
}

/// Everything of one night.
struct Night {
    tags: &'static [&'static str],
    rows: usize,
    config: Vec<Config>,
    shards: Vec<Vec<Medium>>,
    problems: Vec<Problem>,
}

fn config() -> Vec<Config> {
    let text = |text: &str| What::File(text.as_bytes().to_vec());
    vec![
        (b"/etc/matrix-synapse", What::Folder, ConfigRole::Config, 0o750),
        (
            b"/etc/matrix-synapse/homeserver.yaml",
            text("server_name: example.org\nsigning_key_path: /etc/matrix-synapse/example.org.signing.key\n"),
            ConfigRole::Homeserver,
            0o640,
        ),
        (
            b"/etc/matrix-synapse/example.org.signing.key",
            text("ed25519 a_GOLD AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"),
            ConfigRole::SigningKey,
            0o600,
        ),
        (b"/etc/matrix-synapse/empty.yaml", text(""), ConfigRole::Config, 0o644),
        (
            b"/etc/matrix-synapse/log.yaml",
            What::Link(b"../matrix/log \xff.yaml"),
            ConfigRole::Config,
            0o777,
        ),
        (b"/etc/matrix/log \xff.yaml", text("version: 1\n"), ConfigRole::Config, 0o644),
        (
            b"/etc/matrix/new\nline \"quoted\" \xc3\xbc.txt",
            text("odd name\n"),
            ConfigRole::Other,
            0o604,
        ),
        (b"/etc/matrix/secret", What::Unread, ConfigRole::Secret, 0o400),
    ]
}

/// Bytes that compress well, and are unlike from one seed to the next.
fn media_bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| seed ^ u8::try_from(at / 4096 % 251).unwrap()).collect()
}

fn medium(path: &'static str, bytes: Vec<u8>) -> Medium {
    Medium {
        path,
        content: Ok(bytes),
        uid: None,
    }
}

fn lost(path: &'static str, kind: ProblemKind, message: &'static str) -> Medium {
    Medium {
        path,
        content: Err((kind, message)),
        uid: None,
    }
}

fn first_shard() -> Vec<Medium> {
    vec![
        medium("local_content/aa/aa/empty", Vec::new()),
        medium("local_content/aa/aa/large", media_bytes(1, BLOB_BYTES_MAX + 1_000_000)),
        medium("local_content/aa/bb/small", media_bytes(2, 3_000)),
        Medium {
            uid: Some(4_711),
            ..medium("local_content/aa/cc/owned", media_bytes(3, 10))
        },
    ]
}

fn nights() -> [Night; 2] {
    let unread = Problem {
        kind: ProblemKind::Unreadable,
        item: "config/etc/matrix/secret".into(),
        message: "Permission denied (os error 13)".into(),
    };
    let missing = || {
        lost(
            "local_content/zz/aa/lost",
            ProblemKind::Missing,
            "the database has a row for it, but there is no file",
        )
    };
    [
        Night {
            tags: &["golden"],
            rows: 3_600,
            config: config(),
            shards: vec![first_shard(), vec![missing()]],
            problems: vec![unread.clone()],
        },
        Night {
            tags: &[],
            rows: 3_650,
            config: config(),
            shards: vec![
                first_shard(),
                vec![medium("local_content/zz/aa/found", media_bytes(4, 70_000)), missing()],
            ],
            problems: vec![unread],
        },
    ]
}

/// What a dump looks like from afar: many short rows, of which the second half is like the first.
fn dump(rows: usize) -> Vec<u8> {
    let mut text = String::from("PGDMP stands for it\nCOPY public.events (stream_ordering, event_id, sender) FROM stdin;\n");
    for row in 0..rows {
        let number = row % 1_500;
        writeln!(
            text,
            "{number}\t$event{:x}:example.org\t@alice:example.org\tmessage {}",
            number * 7_919,
            number % 13
        )
        .unwrap();
    }
    text.into_bytes()
}

/// The objects by their keys, and what a reader must find in them.
pub(super) async fn repository(keyring: Keyring) -> (BTreeMap<String, bytes::Bytes>, Expected) {
    let clock = Clock::starting_at("2026-01-01T02:00:00Z".parse().unwrap());
    let memory = Arc::new(Memory::new(clock.clone()));
    let ids = fixed_ids();
    // Small blobs, so that a small dump has a list that is a tree.
    let chunk_sizes = ChunkSizes {
        min: 64,
        average: 256,
        max: 1_024,
    };
    let info = RepositoryInfo {
        chunk_sizes,
        ..RepositoryInfo::new(ids.object(), clock.now())
    };
    let info = if keyring.recipients.is_empty() { info } else { info.sealed() };
    memory.put("repository.json", info.to_json().unwrap().into()).await.unwrap();
    let repository = open::open_with(Arc::clone(&memory) as Arc<dyn Store>, ids, keyring).await.unwrap();
    let mut snapshots = Vec::new();
    let mut inherited = None;
    for night in nights() {
        snapshots.push(write(&repository, &night, &mut inherited, clock.now()).await);
        clock.advance(SignedDuration::from_hours(24));
    }
    write_facts(&repository, &mut snapshots).await;
    condemn_a_pack(&repository).await;
    (memory.objects(), Expected { snapshots })
}

/// What stands beside snapshots: tags that changed, and that the first one was drilled.
async fn write_facts(repository: &Repository, written: &mut [ExpectedSnapshot]) {
    let words = |word: &str| [word.to_owned()].into();
    for (expected, add, remove) in [(0, "before-upgrade", "golden"), (1, "kept", "nightly")] {
        let expected = &mut written[expected];
        let one = snapshots::find(repository, &expected.id, false).await.unwrap();
        expected.tags = tags::change(repository, &one, &words(add), &words(remove)).await.unwrap();
    }
    let snapshot = written[0].id.parse().unwrap();
    let drill = Drill {
        format: 1,
        id: snapshot,
        snapshot,
        time: repository.date().await.unwrap(),
        tool_version: "0.1.0".into(),
        passed: true,
        seconds: 61,
        media: "all".into(),
        checks: vec![DrillCheck {
            name: "rows".into(),
            ok: true,
            figure: "12 rows in 3 tables".into(),
        }],
    };
    drills::record(repository, &drill).await.unwrap();
    written[0].drilled = Some(true);
}

/// A run that died before its commit has left a pack, and a prune has marked it.
async fn condemn_a_pack(repository: &Repository) {
    let budget = Budget::new(256 << 20, 4);
    let known = catalog::load(repository, 64 << 20).await.unwrap();
    let writer = Writer::open(repository, Arc::new(known), std::collections::BTreeSet::new(), &budget);
    store(&writer, b"of a run that never committed\n").await;
    for pack in writer.finish().await.unwrap().packs {
        let marker = synapse_backup::format::keys::condemned(pack);
        repository.store().put(&marker, bytes::Bytes::new()).await.unwrap();
    }
}

/// Write the last night again, as a run of today would.
pub(super) async fn write_again(repository: &Repository, time: Timestamp) {
    let [_, last] = nights();
    write(repository, &last, &mut None, time).await;
}

/// The same in every run.
fn fixed_ids() -> Ids {
    let next = AtomicU64::new(1);
    Ids::new(move || {
        let number = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..].copy_from_slice(&number.wrapping_mul(0xff51_afd7_ed55_8ccd).to_le_bytes());
        bytes
    })
}

/// One night: packs, segments, snapshot.
async fn write(repository: &Repository, night: &Night, inherited: &mut Option<ShardRef>, time: Timestamp) -> ExpectedSnapshot {
    let known = catalog::load(repository, 64 << 20).await.unwrap();
    let budget = Budget::new(256 << 20, 4);
    let writer = Writer::open(repository, Arc::new(known), std::collections::BTreeSet::new(), &budget);
    let mut expected = ExpectedSnapshot {
        id: String::new(),
        time: time.to_string(),
        tags: night.tags.iter().map(|tag| (*tag).to_owned()).collect(),
        problems: night
            .problems
            .iter()
            .map(|problem| format!("{} {}", problem.kind.as_str(), problem.item))
            .collect(),
        drilled: None,
        items: BTreeMap::new(),
    };
    let mut streams = Vec::new();
    for (name, tables, bytes) in [
        ("schema", vec![], b"PGDMP stands for it\nCREATE TABLE public.events;\n".to_vec()),
        ("public.events", vec!["public.events".to_owned()], dump(night.rows)),
        ("main", vec!["public.users".to_owned()], Vec::new()),
    ] {
        let stored = writer.store_stream(name, &mut Whole(&bytes), None, &|_| {}).await.unwrap();
        expected.expect(&format!("database/synapse/{name}"), &bytes);
        streams.push(Stream {
            name: name.into(),
            format: StreamFormat::Custom,
            list: stored.list,
            tables,
        });
    }
    assert!(
        streams[1].list.depth > 0,
        "the dump's list is to be a tree: {} blobs",
        streams[1].list.blobs
    );
    let mut config = Vec::new();
    for item in &night.config {
        config.push(write_config(&writer, item, &mut expected).await);
    }
    let media = write_media(&writer, &night.shards, inherited, &mut expected).await;
    let finished = writer.finish().await.unwrap();
    let mut relied = writer.relied();
    relied.extend(finished.packs);
    let document = |id: ObjectId, packs: &std::collections::BTreeSet<PackId>| Snapshot {
        id,
        packs: packs.iter().copied().collect(),
        ..document(repository, night, &streams, &config, &media, time)
    };
    let committed = commit::commit(repository, &relied.into(), document).await.unwrap();
    expected.id = committed.id.to_string();
    expected
}

impl ExpectedSnapshot {
    fn expect(&mut self, name: &str, bytes: &[u8]) {
        self.items
            .insert(name.to_owned(), (bytes.len() as u64, BlobId::of(bytes).to_string()));
    }
}

/// A stream that is whole.
struct Whole<'b>(&'b [u8]);

impl Source for Whole<'_> {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut) -> BoxFuture<'a, Result<usize, SourceError>> {
        let (now, later) = self.0.split_at(self.0.len().min(100_000));
        self.0 = later;
        buffer.extend_from_slice(now);
        Box::pin(async move { Ok(now.len()) })
    }
}

/// Bytes as blobs of at most 8 MiB, in media packs.
async fn store(writer: &Writer, bytes: &[u8]) -> Vec<ListEntry> {
    let mut gatherer = Gatherer::new(writer, PackKind::Media);
    for block in bytes.chunks(BLOB_BYTES_MAX) {
        gatherer.push_one(block.to_vec()).await.unwrap();
    }
    gatherer.finish().await.unwrap();
    std::iter::from_fn(|| gatherer.ready()).collect()
}

async fn list(writer: &Writer, entries: Vec<ListEntry>) -> List {
    let mut list = ListWriter::new(writer);
    for entry in entries {
        list.push(entry).await.unwrap();
    }
    list.finish().await.unwrap()
}

async fn write_config(writer: &Writer, (path, what, role, mode): &Config, expected: &mut ExpectedSnapshot) -> ConfigItem {
    let path = ItemPath::from_bytes(*path);
    let mut item = ConfigItem {
        path: path.clone(),
        kind: ConfigKind::File,
        role: *role,
        mode: *mode,
        uid: 991,
        gid: 991,
        owner: Some("matrix-synapse".into()),
        group: None,
        bytes: 0,
        sha256: None,
        list: List::default(),
        target: None,
    };
    match what {
        What::File(bytes) => {
            expected.expect(&format!("config{path}"), bytes);
            item.bytes = bytes.len() as u64;
            item.sha256 = Some(BlobId::of(bytes));
            item.list = list(writer, store(writer, bytes).await).await;
        }
        What::Link(target) => (item.kind, item.target) = (ConfigKind::Symlink, Some(ItemPath::from_bytes(*target))),
        What::Folder => item.kind = ConfigKind::Directory,
        // It is an item without bytes, and a problem.
        What::Unread => {}
    }
    item
}

/// Shards and their list; the first one is inherited unread when the night before had it.
async fn write_media(writer: &Writer, shards: &[Vec<Medium>], inherited: &mut Option<ShardRef>, expected: &mut ExpectedSnapshot) -> Media {
    let mut lines = Vec::new();
    let (mut files, mut bytes) = (0, 0);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (number, media) in shards.iter().enumerate() {
        for medium in media {
            let name = format!("media/{}", medium.path);
            let state = match &medium.content {
                Ok(content) => {
                    expected.expect(&name, content);
                    (files, bytes) = (files + 1, bytes + content.len() as u64);
                    "present"
                }
                Err((kind, _)) => {
                    expected.problems.push(format!("{} {name}", kind.as_str()));
                    kind.as_str()
                }
            };
            *counts.entry(state.to_owned()).or_default() += 1;
        }
        let line = match inherited.clone().filter(|_| number == 0) {
            Some(line) => {
                for pack in line.packs.iter().chain([&line.pack]) {
                    writer.rely(*pack);
                }
                line
            }
            None => write_shard(writer, media).await,
        };
        if number == 0 {
            *inherited = Some(line.clone());
        }
        encode_shard_ref(&line, &mut lines).unwrap();
    }
    let mut metadata = Gatherer::new(writer, PackKind::Metadata);
    metadata.push_one(lines).await.unwrap();
    metadata.finish().await.unwrap();
    let pieces = std::iter::from_fn(|| metadata.ready()).collect();
    Media {
        root: "/var/lib/matrix-synapse/media".into(),
        mode: Some(0o644),
        uid: Some(991),
        gid: Some(991),
        owner: Some("matrix-synapse".into()),
        group: None,
        shards: list(writer, pieces).await,
        files,
        bytes,
        counts,
        included: MediaIncluded {
            thumbnails: true,
            ..MediaIncluded::default()
        },
    }
}

async fn write_shard(writer: &Writer, media: &[Medium]) -> ShardRef {
    let (mut shard, mut rows) = (Shard::default(), RowHasher::new());
    for medium in media {
        let entry = write_medium(writer, medium, &mut shard.packs).await;
        rows.push(medium.path, &entry.row);
        shard.entries.push(entry);
    }
    let blob = encode_shard(&shard).unwrap();
    let mut metadata = Gatherer::new(writer, PackKind::Metadata);
    metadata.push_one(blob).await.unwrap();
    metadata.finish().await.unwrap();
    let stored = metadata.ready().unwrap();
    for pack in &shard.packs {
        writer.rely(*pack);
    }
    ShardRef {
        first: shard.entries[0].path.clone(),
        blob: stored.id,
        length: stored.length,
        pack: stored.pack,
        count: shard.entries.len() as u64,
        bytes: shard.entries.iter().map(|entry| entry.bytes).sum(),
        problems: shard.entries.iter().filter(|entry| entry.problem.is_some()).count() as u64,
        packs: shard.packs,
        rows: rows.finish(),
    }
}

async fn write_medium(writer: &Writer, medium: &Medium, packs: &mut Vec<PackId>) -> MediaEntry {
    let mut entry = MediaEntry {
        path: medium.path.into(),
        bytes: 0,
        sha256: None,
        blobs: Vec::new(),
        mode: medium.uid.map(|_| 0o600),
        uid: medium.uid,
        gid: None,
        owner: None,
        group: None,
        row: RowState::default(),
        problem: None,
    };
    match &medium.content {
        Err((kind, message)) => {
            entry.row.length = Some(77);
            entry.problem = Some(EntryProblem {
                kind: *kind,
                message: (*message).to_owned(),
            });
        }
        Ok(bytes) => {
            (entry.bytes, entry.sha256) = (bytes.len() as u64, Some(BlobId::of(bytes)));
            // Synapse before 1.128 recorded no hashes: the file with an owner of its own is from then.
            entry.row = RowState {
                length: Some(entry.bytes),
                sha256: entry.sha256.filter(|_| medium.uid.is_none()),
            };
            for stored in store(writer, bytes).await {
                let place = packs.iter().position(|pack| *pack == stored.pack).unwrap_or_else(|| {
                    packs.push(stored.pack);
                    packs.len() - 1
                });
                entry.blobs.push(MediaBlob {
                    id: stored.id,
                    length: stored.length,
                    pack: u32::try_from(place).unwrap(),
                });
            }
        }
    }
    entry
}

fn document(repository: &Repository, night: &Night, streams: &[Stream], config: &[ConfigItem], media: &Media, time: Timestamp) -> Snapshot {
    let facts = Facts {
        tables: [(
            "public.events".to_owned(),
            TableFact {
                rows: Some(night.rows as u64),
                bytes: 8_192,
            },
        )]
        .into(),
        schema_version: Some(93),
        schema_compat_version: Some(90),
        background_updates: vec!["still_running".into()],
        stream_positions: [("events".to_owned(), 2_000), ("backfill".to_owned(), -7)].into(),
        sequences: [("public.events_stream_seq".to_owned(), 2_000)].into(),
        materialized_views: vec!["public.rooms_of_users".into()],
        collation_version: Some("2.36".into()),
        owners: vec!["synapse".into()],
        grantees: Vec::new(),
        extensions: [("plpgsql".to_owned(), "1.0".to_owned())].into(),
        ..Facts::default()
    };
    Snapshot {
        id: ObjectId::from_bytes([0; 16]),
        format: 1,
        repository: repository.info().id,
        time,
        tool_version: "0.1.0".into(),
        synapse_version: Some("1.163.0".into()),
        server_name: "example.org".into(),
        tags: night.tags.iter().map(|tag| (*tag).to_owned()).collect(),
        signing_keys: vec![SigningKey {
            id: "ed25519:a_GOLD".into(),
            public_key: "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik".into(),
        }],
        databases: vec![Database {
            name: "synapse".into(),
            database: "synapse_db".into(),
            server_version: "15.14".into(),
            pg_dump_version: "15.14".into(),
            encoding: "UTF8".into(),
            collation: "C".into(),
            ctype: "C".into(),
            owner: "synapse".into(),
            streams: streams.to_vec(),
            excluded_table_data: vec!["*.e2e_one_time_keys_json".into()],
            facts,
        }],
        media: Some(media.clone()),
        config: config.to_vec(),
        config_paths: vec!["/etc/matrix-synapse/homeserver.yaml".into()],
        packs: Vec::new(),
        problems: night.problems.clone(),
        totals: Totals {
            items: 13,
            read_bytes: 9_500_000,
            new_bytes: 9_400_000,
            sent_bytes: 0,
        },
        seconds: 1,
    }
}

/// Everything of the first night but its database is below this folder, byte by byte.
pub(super) fn assert_restored(folder: &Path) {
    let [first, _] = nights();
    let below = |path: &[u8]| folder.join(Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path))));
    for (path, what, _, mode) in &first.config {
        let place = below(path);
        let found = fs::symlink_metadata(&place);
        match what {
            What::File(bytes) => {
                assert_eq!(&fs::read(&place).unwrap(), bytes, "{}", place.display());
                assert_eq!(found.unwrap().permissions().mode() & 0o7777, *mode, "{}", place.display());
            }
            What::Link(target) => assert_eq!(fs::read_link(&place).unwrap().as_os_str().as_bytes(), *target),
            What::Folder => assert_eq!(found.unwrap().permissions().mode() & 0o7777, *mode, "{}", place.display()),
            What::Unread => assert!(found.is_err(), "{} has no bytes and is not made", place.display()),
        }
    }
    let root = below(b"/var/lib/matrix-synapse/media");
    for medium in first.shards.iter().flatten() {
        let place = root.join(medium.path);
        match &medium.content {
            Ok(bytes) => assert!(fs::read(&place).unwrap() == *bytes, "{}", place.display()),
            Err(_) => assert!(!place.exists(), "{}", place.display()),
        }
    }
}
