//! Which files the media store must have, as the database says: path, length and SHA-256, sorted by the bytes of the path.
//!
//! The rows are read through the session of the exported snapshot and come as a stream, so memory does not grow with the
//! store. Nothing here opens a file. Layout and rules are Synapse's: `synapse/media/filepath.py`, and
//! `media_length IS NOT NULL` for "has been uploaded" (`media_repository.py`). A row whose id would not make a safe path
//! comes out as such and never as a path.

use std::collections::HashSet;

use serde::Deserialize;

use super::postgres::copy::CopyOut;
use super::postgres::{Error, Session, sql};

mod path;
#[cfg(test)]
mod tests;

/// Ids asked for in one statement when rows are looked up again.
const IDS_PER_STATEMENT: usize = 1_000;

/// What a media file is to Synapse. The order is that of the folders' names, and so that of all paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// `local_content`: uploads of our own users; exists nowhere else.
    Local,
    /// `local_thumbnails`: Synapse makes missing ones again when asked.
    LocalThumbnail,
    /// `remote_content`: a cache of other servers' uploads.
    Remote,
    /// `remote_thumbnail` (no s).
    RemoteThumbnail,
    /// `url_cache`: pictures of link previews, for some days.
    UrlCache,
    /// `url_cache_thumbnails`.
    UrlCacheThumbnail,
}

impl MediaKind {
    /// All, in the order of their paths.
    pub const ALL: [Self; 6] = [
        Self::Local,
        Self::LocalThumbnail,
        Self::Remote,
        Self::RemoteThumbnail,
        Self::UrlCache,
        Self::UrlCacheThumbnail,
    ];

    /// The folder below the media store.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Local => "local_content",
            Self::LocalThumbnail => "local_thumbnails",
            Self::Remote => "remote_content",
            Self::RemoteThumbnail => "remote_thumbnail",
            Self::UrlCache => "url_cache",
            Self::UrlCacheThumbnail => "url_cache_thumbnails",
        }
    }

    /// Thumbnails are made anew by Synapse when somebody asks, previews of links expire: a missing one is no loss.
    pub const fn heals(self) -> bool {
        !matches!(self, Self::Local | Self::Remote)
    }
}

/// Which kinds are wanted; local uploads always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaChoice {
    /// Local thumbnails.
    pub thumbnails: bool,
    /// Remote media, and their thumbnails if those are wanted.
    pub remote: bool,
    /// The URL cache, and its thumbnails if those are wanted.
    pub url_cache: bool,
}

impl Default for MediaChoice {
    fn default() -> Self {
        Self {
            thumbnails: true,
            remote: false,
            url_cache: false,
        }
    }
}

impl MediaChoice {
    /// The wanted kinds, in the order of their paths.
    pub fn kinds(self) -> Vec<MediaKind> {
        let wanted = |kind: &MediaKind| match kind {
            MediaKind::Local => true,
            MediaKind::LocalThumbnail => self.thumbnails,
            MediaKind::Remote => self.remote,
            MediaKind::RemoteThumbnail => self.remote && self.thumbnails,
            MediaKind::UrlCache => self.url_cache,
            MediaKind::UrlCacheThumbnail => self.url_cache && self.thumbnails,
        };
        MediaKind::ALL.into_iter().filter(wanted).collect()
    }
}

/// A file that must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRow {
    /// Inside the media store, `/` between segments; checked to be safe to join to a folder.
    pub path: String,
    /// Its length in bytes, where the row tells one.
    pub bytes: Option<u64>,
    /// Of its bytes; Synapse writes it since 1.128.
    pub sha256: Option<[u8; 32]>,
    /// What it is.
    pub kind: MediaKind,
}

/// Local uploads whose state no file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct RowStates {
    /// Begun and not finished: there is a row, and nothing to save yet.
    pub not_uploaded: u64,
    /// Out of reach of users, saved like all others.
    pub quarantined: u64,
}

/// One row of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaItem {
    /// A file.
    File(MediaRow),
    /// A row whose id, server name or type makes no path that Synapse would make.
    BadId {
        /// What it is.
        kind: MediaKind,
        /// What the path would have been, for messages only.
        text: String,
    },
}

/// The tables of media in one database: where they are and what they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaTables {
    schema: String,
    columns: HashSet<(String, String)>,
}

impl MediaTables {
    /// Look for them, as Synapse would find them; `None`: this is no database with media.
    pub async fn find(session: &mut Session) -> Result<Option<Self>, Error> {
        #[derive(Deserialize)]
        struct Column {
            schema: String,
            table: String,
            name: String,
        }
        let rows: Vec<Column> = session.query("the look for the tables of media", COLUMNS).await?;
        let tables = rows
            .iter()
            .filter(|row| row.name == "media_id")
            .map(|row| (row.schema.as_str(), row.table.as_str()));
        let search_path = &session.server().search_path;
        let Some(schema) = super::postgres::facts::schema_of(search_path, tables, "local_media_repository") else {
            return Ok(None);
        };
        let columns = rows
            .into_iter()
            .filter(|row| row.schema == schema)
            .map(|row| (row.table, row.name))
            .collect();
        Ok(Some(Self { schema, columns }))
    }

    /// The rows of one kind, sorted by the bytes of their paths. Read them through the snapshot's session; kinds in the
    /// order of [`MediaKind::ALL`] give all paths sorted.
    pub async fn rows<'s>(&self, session: &'s mut Session, kind: MediaKind) -> Result<MediaRows<'s>, Error> {
        let query = format!(
            "SELECT path, length, sha256 FROM ({}) AS media ORDER BY path COLLATE \"C\"",
            self.select(kind, None)
        );
        Ok(MediaRows {
            copy: session.copy_out("the rows of media", &query).await?,
            kind,
        })
    }

    /// How many local uploads are in a state that no file tells; read through the snapshot's session.
    pub async fn states(&self, session: &mut Session) -> Result<RowStates, Error> {
        let table = "local_media_repository";
        let column = |name: &str, otherwise: &str| {
            if self.has(table, name) {
                format!("m.{name}")
            } else {
                otherwise.to_owned()
            }
        };
        let upload = format!("{} IS NULL", column("url_cache", "NULL"));
        let quarantined = format!("{} IS NOT NULL", column("quarantined_by", "NULL"));
        let query = format!(
            "SELECT pg_catalog.count(*) FILTER (WHERE m.media_length IS NULL) AS not_uploaded, \
             pg_catalog.count(*) FILTER (WHERE m.media_length IS NOT NULL AND {quarantined}) AS quarantined FROM {} AS m WHERE {upload}",
            self.table(table)
        );
        session.one("the states of media", &query).await
    }

    /// Which of these paths the database still wants: ask a session of its own, now, not the snapshot's.
    ///
    /// Synapse deletes a file first and its row last, so a row of the snapshot may rightly have no file any more.
    pub async fn still_there(&self, session: &mut Session, kind: MediaKind, paths: &[String]) -> Result<HashSet<String>, Error> {
        #[derive(Deserialize)]
        struct Found {
            path: String,
        }
        let mut there = HashSet::new();
        for lot in paths.chunks(IDS_PER_STATEMENT) {
            let ids: Vec<String> = lot.iter().filter_map(|path| path::file_id(kind, path)).collect();
            if ids.is_empty() {
                continue;
            }
            let ids = sql::literals(ids.iter().map(String::as_str));
            let query = format!("SELECT path FROM ({}) AS media", self.select(kind, Some(&ids)));
            let asked: HashSet<&String> = lot.iter().collect();
            let found: Vec<Found> = session.query("the second look for rows of media", &query).await?;
            there.extend(found.into_iter().map(|row| row.path).filter(|path| asked.contains(path)));
        }
        Ok(there)
    }

    /// `path, length, sha256` of one kind; `ids` are literals of the ids that files are named by.
    fn select(&self, kind: MediaKind, ids: Option<&str>) -> String {
        let local = self.table("local_media_repository");
        let folder = kind.folder();
        let cached = |alias: &str| {
            if self.has("local_media_repository", "url_cache") {
                format!("{alias}.url_cache IS NOT NULL")
            } else {
                "false".into()
            }
        };
        let (path, length, sha256, from, condition, id) = match kind {
            MediaKind::Local | MediaKind::UrlCache => {
                let (path, not) = if kind == MediaKind::Local {
                    (nested("m.media_id"), "NOT ")
                } else {
                    (url_cache_path(), "")
                };
                let condition = format!("m.media_length IS NOT NULL AND {not}({})", cached("m"));
                (
                    path,
                    "m.media_length",
                    self.sha256("local_media_repository"),
                    format!("{local} AS m"),
                    condition,
                    "m.media_id",
                )
            }
            MediaKind::LocalThumbnail | MediaKind::UrlCacheThumbnail => {
                let (path, not) = if kind == MediaKind::LocalThumbnail {
                    (nested("m.media_id"), "NOT ")
                } else {
                    (url_cache_path(), "")
                };
                let path = format!("{path} || '/' || {}", thumbnail_name());
                let from = format!(
                    "{} AS t JOIN {local} AS m ON m.media_id = t.media_id",
                    self.table("local_media_repository_thumbnails")
                );
                let condition = format!("m.media_length IS NOT NULL AND {not}({})", cached("m"));
                (path, "t.thumbnail_length", "NULL".into(), from, condition, "m.media_id")
            }
            MediaKind::Remote => {
                let path = format!("m.media_origin || '/' || {}", nested("m.filesystem_id"));
                let from = format!("{} AS m", self.table("remote_media_cache"));
                (
                    path,
                    "m.media_length",
                    self.sha256("remote_media_cache"),
                    from,
                    "true".into(),
                    "m.filesystem_id",
                )
            }
            MediaKind::RemoteThumbnail => {
                let path = format!(
                    "t.media_origin || '/' || {} || '/' || {}",
                    nested("t.filesystem_id"),
                    thumbnail_name()
                );
                let from = format!("{} AS t", self.table("remote_media_cache_thumbnails"));
                (path, "t.thumbnail_length", "NULL".into(), from, "true".into(), "t.filesystem_id")
            }
        };
        let chosen = ids.map_or_else(String::new, |ids| format!(" AND {id} IN ({ids})"));
        format!("SELECT '{folder}/' || {path} AS path, {length} AS length, {sha256} AS sha256 FROM {from} WHERE {condition}{chosen}")
    }

    fn table(&self, name: &str) -> String {
        sql::qualified(&self.schema, name)
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.columns.contains(&(table.to_owned(), column.to_owned()))
    }

    /// The column is there since schema 91.
    fn sha256(&self, table: &str) -> String {
        if self.has(table, "sha256") {
            "m.sha256".into()
        } else {
            "NULL".into()
        }
    }
}

/// `aa/bb/rest`
fn nested(id: &str) -> String {
    format!("pg_catalog.substr({id}, 1, 2) || '/' || pg_catalog.substr({id}, 3, 2) || '/' || pg_catalog.substr({id}, 5)")
}

/// `2024-01-31/rest`; ids from before 2017 as local ones (`filepath.py`, `NEW_FORMAT_ID_RE`).
fn url_cache_path() -> String {
    let dated = "pg_catalog.substr(m.media_id, 1, 10) || '/' || pg_catalog.substr(m.media_id, 12)";
    format!(
        "CASE WHEN m.media_id ~ '^\\d\\d\\d\\d-\\d\\d-\\d\\d' THEN {dated} ELSE {} END",
        nested("m.media_id")
    )
}

/// `320-240-image-jpeg-scale`
fn thumbnail_name() -> &'static str {
    "pg_catalog.concat_ws('-', t.thumbnail_width, t.thumbnail_height, pg_catalog.replace(t.thumbnail_type, '/', '-'), t.thumbnail_method)"
}

/// The media id of a local upload, from the path of its original or of one of its thumbnails; `None` for caches.
pub fn upload_of(path: &str) -> Option<String> {
    let uploads = [MediaKind::Local, MediaKind::LocalThumbnail];
    uploads.into_iter().find_map(|kind| path::file_id(kind, path))
}

/// A stream of rows of one kind. Dropped before its end, it leaves the session unusable.
#[derive(Debug)]
pub struct MediaRows<'s> {
    copy: CopyOut<'s>,
    kind: MediaKind,
}

impl MediaRows<'_> {
    /// The next row; `None` when the server said that all are read.
    pub async fn next(&mut self) -> Result<Option<MediaItem>, Error> {
        let Some(row) = self.copy.next_row().await? else { return Ok(None) };
        Ok(Some(item(self.kind, row)))
    }
}

fn item(kind: MediaKind, row: Vec<Option<String>>) -> MediaItem {
    let mut fields = row.into_iter();
    let mut field = || fields.next().flatten();
    let (path, length, sha256) = (field().unwrap_or_default(), field(), field());
    if !path::is_safe(kind, &path) {
        return MediaItem::BadId { kind, text: path };
    }
    let sha256 = sha256
        .and_then(|text| hex::decode(text).ok())
        .and_then(|bytes| bytes.try_into().ok());
    MediaItem::File(MediaRow {
        path,
        bytes: length.and_then(|length| length.parse().ok()),
        sha256,
        kind,
    })
}

const COLUMNS: &str = "SELECT n.nspname AS schema, c.relname AS \"table\", a.attname AS name FROM pg_catalog.pg_attribute AS a \
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relname IN ('local_media_repository', 'local_media_repository_thumbnails', 'remote_media_cache', 'remote_media_cache_thumbnails') \
    AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname !~ '^pg_'";
