//! The fixture: a homeserver in a folder of its own, with a database in a real PostgreSQL.
//!
//! Files are written and rows are made in Synapse's order. Everything a test changes, it changes through here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use synapse_backup::format::BlobId;
use synapse_backup::synapse::config::{self, discover};
use synapse_backup::synapse::{self};

use crate::cluster::{Cluster, SUPERUSER, quoted, shared};

const SCHEMA: &str = include_str!("homeserver.sql");
/// The seed 00 01 02 … 1f.
pub(crate) const KEY: &str = "ed25519 a_ABCD AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

/// A homeserver.
pub(crate) struct Home {
    _dir: tempfile::TempDir,
    /// Everything of it lies below; no link is on the way.
    pub(crate) root: PathBuf,
    pub(crate) cluster: &'static Cluster,
    pub(crate) database: String,
    /// Settings `files`.
    pub(crate) files: Vec<PathBuf>,
}

impl Home {
    /// With a few media, on the cluster of this test binary.
    pub(crate) fn new() -> Self {
        let home = Self::bare(shared());
        home.upload("AliceFirstPicture0000001", &noise(1, 40_000));
        home.upload("AliceSecondPicture000002", &noise(2, 3_000));
        home.upload("BobEmptyFile000000000003", b"");
        home.thumbnail("AliceFirstPicture0000001", &noise(3, 700));
        home
    }

    /// Without media, on this cluster.
    pub(crate) fn bare(cluster: &'static Cluster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = Self {
            _dir: dir,
            root,
            cluster,
            database: database(cluster),
            files: Vec::new(),
        };
        home.write_config("example.org", "");
        home
    }

    /// homeserver.yaml, key and logging configuration, with these further lines.
    pub(crate) fn write_config(&self, server_name: &str, more: &str) {
        let (socket, port) = (self.cluster.socket.display(), self.cluster.port);
        let yaml = format!(
            "server_name: {server_name}\nreport_stats: no\nsigning_key_path: {0}/etc/signing.key\nlog_config: {0}/etc/log.yaml\n\
             media_store_path: {0}/var/media\ndatabase:\n  name: psycopg2\n  args: {{ user: {SUPERUSER}, dbname: \"{1}\", host: \"{socket}\", port: {port} }}\n{more}",
            self.root.display(),
            self.database
        );
        self.write("etc/homeserver.yaml", yaml.as_bytes());
        self.write("etc/signing.key", KEY.as_bytes());
        self.write("etc/log.yaml", b"version: 1\n");
        fs::set_permissions(self.at("etc/homeserver.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(self.at("etc/signing.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(self.at("var/media")).unwrap();
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        write(&self.at(path), bytes);
    }

    /// A file and its row, in Synapse's order.
    pub(crate) fn upload(&self, id: &str, bytes: &[u8]) {
        write(&self.media(id), bytes);
        self.row(id, bytes);
    }

    /// Many files and their rows, each of these bytes.
    pub(crate) fn upload_all(&self, media: &[(String, Vec<u8>)]) {
        let values: Vec<String> = media
            .iter()
            .map(|(id, bytes)| {
                write(&self.media(id), bytes);
                format!("('{id}', {}, '{}')", bytes.len(), BlobId::of(bytes))
            })
            .collect();
        self.sql(&format!(
            "INSERT INTO local_media_repository (media_id, media_length, sha256) VALUES {}",
            values.join(", ")
        ));
    }

    /// A row that says that these bytes were uploaded.
    pub(crate) fn row(&self, id: &str, bytes: &[u8]) {
        self.row_saying(id, Some(bytes.len()), Some(&BlobId::of(bytes).to_string()));
    }

    pub(crate) fn row_saying(&self, id: &str, length: Option<usize>, sha256: Option<&str>) {
        let id = id.replace('\'', "''");
        let length = length.map_or("NULL".into(), |length| length.to_string());
        let sha256 = sha256.map_or("NULL".into(), |sha256| format!("'{sha256}'"));
        self.sql(&format!(
            "INSERT INTO local_media_repository (media_id, media_type, media_length, created_ts, user_id, sha256) \
             VALUES ('{id}', 'image/png', {length}, 1700000000000, '@alice:example.org', {sha256})"
        ));
    }

    pub(crate) fn thumbnail(&self, id: &str, bytes: &[u8]) {
        write(&self.thumbnail_path(id), bytes);
        self.thumbnail_row(id, bytes.len());
    }

    pub(crate) fn thumbnail_row(&self, id: &str, length: usize) {
        self.sql(&format!(
            "INSERT INTO local_media_repository_thumbnails VALUES ('{id}', 32, 32, 'image/png', 'crop', {length})"
        ));
    }

    pub(crate) fn thumbnail_path(&self, id: &str) -> PathBuf {
        let path = format!(
            "var/media/local_thumbnails/{}/{}/{}/32-32-image-png-crop",
            &id[..2],
            &id[2..4],
            &id[4..]
        );
        self.at(&path)
    }

    /// Where the original of a local medium is.
    pub(crate) fn media(&self, id: &str) -> PathBuf {
        self.at("var/media").join(path_of(id))
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.psql(&self.database, sql)
    }

    /// What `backup` finds when it is started now.
    pub(crate) fn discover(&self) -> synapse::Homeserver {
        let options = config::Options {
            config: vec![self.at("etc/homeserver.yaml")],
            working_directory: Some(self.at("var")),
            files: self.files.clone(),
            ..config::Options::default()
        };
        discover(&options).unwrap()
    }
}

/// `local_content/aa/bb/rest`
pub(crate) fn path_of(id: &str) -> String {
    format!("local_content/{}/{}/{}", &id[..2], &id[2..4], &id[4..])
}

/// The item that a local medium is.
pub(crate) fn item_of(id: &str) -> String {
    format!("media/{}", path_of(id))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
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

/// A new database with the schema and some rows; on the shared cluster a copy of one that was made once.
fn database(cluster: &'static Cluster) -> String {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    let make = || {
        let name = cluster.database("synapse");
        cluster.script(&name, SCHEMA);
        name
    };
    if !std::ptr::eq(cluster, shared()) {
        return make();
    }
    copy_of(cluster, TEMPLATE.get_or_init(make))
}

/// A new database that is a copy of another one to which nobody is connected.
pub(crate) fn copy_of(cluster: &Cluster, template: &str) -> String {
    let name = cluster.database("synapse");
    cluster.psql("postgres", &format!("DROP DATABASE {}", quoted(&name)));
    cluster.psql(
        "postgres",
        &format!("CREATE DATABASE {} TEMPLATE {}", quoted(&name), quoted(template)),
    );
    name
}

/// What must be the same afterwards: the schema, every table's rows as a count and a digest, every sequence's position.
pub(crate) fn digest(cluster: &Cluster, database: &str) -> BTreeMap<String, String> {
    let mut digest = rows(cluster, database);
    let schema = cluster
        .client("pg_dump", database)
        .args(["--schema-only", "--no-owner"])
        .output()
        .unwrap();
    assert!(schema.status.success(), "{}", String::from_utf8_lossy(&schema.stderr));
    // Newer minors put a random word at the begin and the end.
    let schema = String::from_utf8_lossy(&schema.stdout);
    let lines: Vec<&str> = schema.lines().filter(|line| !line.contains("restrict ")).collect();
    let schema = lines.join("\n");
    digest.insert("schema".into(), schema);
    digest
}

/// The same without the schema: a newer server prints it in another way.
pub(crate) fn rows(cluster: &Cluster, database: &str) -> BTreeMap<String, String> {
    let each = cluster.psql(
        database,
        r#"SELECT string_agg(format($f$SELECT %L || '=' || count(*) || ' ' || md5(coalesce(string_agg(t::text, E'\n' ORDER BY t::text COLLATE "C"), '')) FROM %I.%I AS t$f$, n.nspname || '.' || c.relname, n.nspname, c.relname), ' UNION ALL ')
           FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"#,
    );
    let tables = cluster.psql(database, &each);
    let sequences = cluster.psql(
        database,
        "SELECT schemaname || '.' || sequencename || '=' || coalesce(last_value::text, 'null') FROM pg_sequences",
    );
    let line = |line: &str| line.rsplit_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    tables.lines().chain(sequences.lines()).filter_map(line).collect()
}

/// The same but for the one-time keys, which must be empty.
pub(crate) fn without_one_time_keys(mut digest: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for (name, value) in &mut digest {
        if name.ends_with(".e2e_one_time_keys_json") {
            *value = "0 d41d8cd98f00b204e9800998ecf8427e".into();
        }
    }
    digest
}
