//! Fixed values and streams: the same in every run, on every machine.
//!
//! The golden files were made from these, so changing one changes the format's tests on purpose.

use synapse_backup::format::index::{Segment, SegmentEntry, SegmentPack};
use synapse_backup::format::list::{List, ListEntry};
use synapse_backup::format::manifest::{EntryProblem, MediaBlob, MediaEntry, RowDigest, RowState, Shard, ShardRef};
use synapse_backup::format::pack::{BlobEntry, PackTable};
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::snapshot::{
    ConfigItem, ConfigKind, ConfigRole, Database, Facts, Media, MediaIncluded, Problem, ProblemKind, SigningKey, Snapshot, Stream,
    StreamFormat, TableFact, Totals,
};
use synapse_backup::format::{BlobId, ItemPath, ObjectId, PackId, PackKind};

/// The splitmix64 generator of Steele, Lea and Flood: a few lines that any language can repeat.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Bytes without structure: each number little-endian.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = SplitMix(seed);
    let mut data: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    data.truncate(bytes);
    data
}

/// Rows like those of a `COPY` of Synapse's `events`.
pub(crate) fn copy_text(seed: u64, rows: u64) -> Vec<u8> {
    let mut random = SplitMix(seed);
    let mut text = Vec::new();
    for row in 0..rows {
        let (a, b, c) = (random.next(), random.next(), random.next());
        let line = format!(
            "{row}\tm.room.message\t!room{:04}:example.org\t${a:016x}{b:016x}\t{}\t@user{}:example.org\tt\tf\t\\N\t{}\n",
            a % 500,
            1_700_000_000_000_u64 + row * 977,
            b % 3_000,
            c % 100_000
        );
        text.extend_from_slice(line.as_bytes());
    }
    text
}

pub(crate) fn pack_id(byte: u8) -> PackId {
    PackId::from_bytes([byte; 16])
}

pub(crate) fn object_id(byte: u8) -> ObjectId {
    ObjectId::from_bytes([byte; 16])
}

pub(crate) fn entry(text: &str, frame: (u32, u32), offset_in_frame: u32) -> BlobEntry {
    let raw_length = u32::try_from(text.len()).unwrap();
    BlobEntry {
        id: BlobId::of(text.as_bytes()),
        frame_offset: frame.0,
        frame_length: frame.1,
        offset_in_frame,
        raw_length,
    }
}

/// Frames of 20 and 30 bytes: two blobs, then one.
pub(crate) fn table() -> PackTable {
    let entries = vec![entry("alpha", (0, 20), 0), entry("beta", (0, 20), 5), entry("gamma", (20, 30), 0)];
    PackTable {
        id: pack_id(0x11),
        kind: PackKind::Media,
        entries,
    }
}

pub(crate) fn segment() -> Segment {
    let packs = vec![
        SegmentPack {
            id: pack_id(0x11),
            kind: PackKind::Media,
            bytes: 300,
        },
        SegmentPack {
            id: pack_id(0x22),
            kind: PackKind::Database,
            bytes: 64 << 20,
        },
    ];
    let mut entries: Vec<_> = table().entries.into_iter().map(|blob| SegmentEntry { pack: 0, blob }).collect();
    entries.push(SegmentEntry {
        pack: 1,
        blob: entry("alpha", (4_096, 99), 7),
    });
    entries.sort_by_key(|entry| (entry.blob.id, entry.pack));
    Segment {
        run: object_id(0xaa),
        packs,
        entries,
    }
}

pub(crate) fn list_entries() -> Vec<ListEntry> {
    let make = |(text, length, pack): (&str, u32, u8)| ListEntry {
        id: BlobId::of(text.as_bytes()),
        length,
        pack: pack_id(pack),
    };
    [("alpha", 5, 0x11), ("beta", 4, 0x11), ("gamma", 65_536, 0x22)].map(make).to_vec()
}

pub(crate) fn list() -> List {
    List {
        depth: 0,
        blobs: 3,
        bytes: 65_545,
        entries: list_entries(),
    }
}

fn media_entry(path: impl Into<ItemPath>, blobs: Vec<MediaBlob>) -> MediaEntry {
    let bytes = blobs.iter().map(|blob| u64::from(blob.length)).sum();
    let sha256 = Some(blobs.first().map_or(BlobId::of(b""), |blob| blob.id));
    let row = RowState {
        length: Some(bytes),
        sha256,
    };
    let (mode, uid, gid, owner, group, problem) = (None, None, None, None, None, None);
    MediaEntry {
        path: path.into(),
        bytes,
        sha256,
        blobs,
        mode,
        uid,
        gid,
        owner,
        group,
        row,
        problem,
    }
}

pub(crate) fn shard() -> Shard {
    let blob = |text: &str, length, pack| MediaBlob {
        id: BlobId::of(text.as_bytes()),
        length,
        pack,
    };
    let mut missing = media_entry("local_content/cc/cc/gone", Vec::new());
    (missing.sha256, missing.row.length, missing.row.sha256) = (None, Some(17), None);
    missing.problem = Some(EntryProblem {
        kind: ProblemKind::Missing,
        message: "there is no such file".into(),
    });
    let mut large = media_entry("local_content/bb/bb/large", vec![blob("first", 8 << 20, 1), blob("second", 3, 0)]);
    (large.sha256, large.row.sha256) = (Some(BlobId::of(b"firstsecond")), None);
    let mut odd = media_entry(ItemPath::from_bytes(*b"local_content/dd/\xff\n\"odd"), vec![blob("odd", 3, 0)]);
    (odd.mode, odd.uid, odd.gid) = (Some(0o640), Some(991), Some(991));
    (odd.owner, odd.group) = (Some("matrix-synapse".into()), Some("nogroup".into()));
    let small = media_entry("local_content/aa/aa/small", vec![blob("alpha", 5, 0)]);
    let empty = media_entry("local_content/aa/ab/empty", Vec::new());
    Shard {
        packs: vec![pack_id(0x11), pack_id(0x22)],
        entries: vec![small, empty, large, missing, odd],
    }
}

pub(crate) fn shard_ref() -> ShardRef {
    ShardRef {
        first: "local_content/aa/aa/small".into(),
        blob: BlobId::of(b"a shard"),
        length: 1_234,
        pack: pack_id(0x33),
        count: 5,
        bytes: 8_388_619,
        problems: 1,
        packs: vec![pack_id(0x11), pack_id(0x22)],
        rows: RowDigest(BlobId::of(b"rows")),
    }
}

pub(crate) fn repository() -> RepositoryInfo {
    RepositoryInfo::new(object_id(0xbb), "2026-07-23T10:11:12Z".parse().unwrap())
}

fn config_item(path: ItemPath, kind: ConfigKind, role: ConfigRole, list: List) -> ConfigItem {
    ConfigItem {
        path,
        kind,
        role,
        mode: 0o640,
        uid: 0,
        gid: 991,
        owner: Some("root".into()),
        group: None,
        bytes: list.bytes,
        sha256: (kind == ConfigKind::File).then(|| BlobId::of(b"config")),
        list,
        target: (kind == ConfigKind::Symlink).then(|| "../real".into()),
    }
}

fn database() -> Database {
    let tables = [
        (
            "public.events".to_owned(),
            TableFact {
                rows: Some(12_345),
                bytes: 9_999_999,
            },
        ),
        (
            "public.state_groups_state".to_owned(),
            TableFact {
                rows: None,
                bytes: 51_000_000_000,
            },
        ),
    ];
    Database {
        name: "synapse".into(),
        database: "synapse_db".into(),
        server_version: "15.8".into(),
        pg_dump_version: "15.8".into(),
        encoding: "UTF8".into(),
        collation: "C".into(),
        ctype: "C".into(),
        owner: "synapse_user".into(),
        streams: vec![Stream {
            name: "main".into(),
            format: StreamFormat::Custom,
            list: list(),
            tables: Vec::new(),
        }],
        excluded_table_data: vec!["*.e2e_one_time_keys_json".into()],
        facts: Facts {
            tables: tables.into(),
            schema_version: Some(94),
            schema_compat_version: Some(84),
            background_updates: vec!["event_search".into()],
            stream_positions: [("events/master".to_owned(), 77)].into(),
            sequences: [("public.events_stream_seq".to_owned(), 78)].into(),
            materialized_views: Vec::new(),
            collation_version: None,
            owners: Vec::new(),
            grantees: Vec::new(),
            extensions: [("plpgsql".to_owned(), "1.0".to_owned())].into(),
            ..Facts::default()
        },
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let deep = List {
        depth: 1,
        blobs: 600,
        bytes: 40_000_000,
        entries: vec![
            ListEntry {
                length: 520,
                ..list_entries()[0]
            };
            2
        ],
    };
    Snapshot {
        id: object_id(0xcc),
        format: 1,
        repository: object_id(0xbb),
        time: "2026-07-23T10:11:12Z".parse().unwrap(),
        tool_version: "0.1.0".into(),
        synapse_version: Some("1.163.0".into()),
        server_name: "example.org".into(),
        tags: vec!["nightly".into()],
        signing_keys: vec![SigningKey {
            id: "ed25519:a_test".into(),
            public_key: "l8Hft5qXKn1vfHrg3p4+W8gELQVo8N13JkluMfmn2sQ".into(),
        }],
        databases: vec![database()],
        media: Some(Media {
            root: "/var/lib/matrix-synapse/media".into(),
            mode: Some(0o600),
            uid: Some(991),
            gid: Some(991),
            owner: Some("matrix-synapse".into()),
            group: None,
            shards: deep,
            files: 4,
            bytes: 8_388_619,
            counts: [("present".to_owned(), 4), ("missing".to_owned(), 1)].into(),
            included: MediaIncluded {
                thumbnails: true,
                remote: false,
                url_cache: false,
            },
        }),
        config: vec![
            config_item(
                "/etc/matrix-synapse/homeserver.yaml".into(),
                ConfigKind::File,
                ConfigRole::Homeserver,
                list(),
            ),
            config_item(
                "/etc/matrix-synapse/link".into(),
                ConfigKind::Symlink,
                ConfigRole::Config,
                List::default(),
            ),
            config_item(
                ItemPath::from_bytes(*b"/etc/\xfe"),
                ConfigKind::Directory,
                ConfigRole::Other,
                List::default(),
            ),
        ],
        config_paths: vec![
            "/etc/matrix-synapse/homeserver.yaml".into(),
            ItemPath::from_bytes(*b"/etc/\xfe.yaml"),
        ],
        packs: vec![pack_id(0x11), pack_id(0x22)],
        problems: vec![Problem {
            kind: ProblemKind::Missing,
            item: "media/local_content/cc/cc/gone".into(),
            message: "there is no such file".into(),
        }],
        totals: Totals {
            items: 9,
            read_bytes: 10,
            new_bytes: 11,
            sent_bytes: 12,
        },
        seconds: 13,
    }
}
