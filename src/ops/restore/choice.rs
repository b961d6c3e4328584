//! Which media of a snapshot are brought back: all, those below a prefix, those that somebody uploaded, or of some days.
//!
//! Who uploaded what and when stands in the rows of the database, not in the manifest. So the rows are read where they
//! are, in the snapshot's own dump: its blobs go through `pg_restore`, which writes one table as text; no server is
//! needed. Of each chosen row a hash of 16 bytes is kept.

use anyhow::Context;
use futures::stream::StreamExt;
use jiff::Timestamp;

use super::Options;
use crate::format::BlobId;
use crate::format::manifest::MediaEntry;
use crate::format::snapshot::{Database, Snapshot, Stream, StreamFormat};
use crate::ops::connect::archive_version;
use crate::ops::{Error, Run, Share, connect, items};
use crate::repo::reader::Reader;
use crate::synapse::media::upload_of;
use crate::synapse::postgres::{plan, rows};

/// Synapse's own database, whose rows say who uploaded what.
const MAIN: &str = "synapse";
const TABLE: &str = "local_media_repository";

/// `--uploaded-by`, `--uploaded-after`, `--uploaded-before`; each that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// A user, as `@alice:example.org`.
    pub by: Option<String>,
    /// At this time or later.
    pub after: Option<Timestamp>,
    /// Before this time.
    pub before: Option<Timestamp>,
}

impl Uploaded {
    fn has(&self, row: &rows::Row<'_>) -> bool {
        // Previews of links carry the name of who looked at them; nobody uploaded them.
        if row.get("url_cache").is_some() {
            return false;
        }
        let millisecond = || row.get("created_ts").and_then(|text| text.parse::<i64>().ok());
        let after = |time: Timestamp| millisecond().is_some_and(|at| at >= time.as_millisecond());
        self.by.as_deref().is_none_or(|user| row.get("user_id") == Some(user))
            && self.after.is_none_or(after)
            && self.before.is_none_or(|time| millisecond().is_some() && !after(time))
    }
}

type Digest = [u8; 16];

/// The choice, ready to be asked.
pub(super) struct Choice {
    prefix: Vec<u8>,
    /// Of a drill; what it leaves out was not asked for by anybody.
    share: Option<Share>,
    /// Sorted.
    uploads: Option<Vec<Digest>>,
}

impl Choice {
    /// Reads the rows if they are asked for.
    pub(super) async fn make(reader: &Reader, snapshot: &Snapshot, options: &Options, run: &Run<'_>) -> anyhow::Result<Self> {
        let prefix = options
            .prefix
            .as_deref()
            .map_or(Ok(String::new()), |prefix| items::media_path(snapshot, prefix))?;
        let uploads = match &options.uploaded {
            None => None,
            Some(uploaded) => Some(uploads(reader, snapshot, uploaded, options, run).await?),
        };
        Ok(Self {
            prefix: prefix.into_bytes(),
            share: options.media_share.clone(),
            uploads,
        })
    }

    /// Where in the manifest what is chosen may be.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Not simply everything.
    pub(super) fn is_part(&self) -> bool {
        !self.prefix.is_empty() || self.uploads.is_some()
    }

    pub(super) fn has(&self, entry: &MediaEntry) -> bool {
        let path = entry.path.as_bytes();
        path.starts_with(&self.prefix)
            && self.share.as_ref().is_none_or(|share| share.has(path))
            && self.uploads.as_ref().is_none_or(|uploads| has_upload(uploads, path))
    }
}

fn has_upload(uploads: &[Digest], path: &[u8]) -> bool {
    let id = std::str::from_utf8(path).ok().and_then(upload_of);
    id.is_some_and(|id| uploads.binary_search(&digest(&id)).is_ok())
}

fn digest(media_id: &str) -> Digest {
    let hash = BlobId::of(media_id.as_bytes());
    std::array::from_fn(|at| hash.as_bytes()[at])
}

/// The media that the rows of the dump say were uploaded so.
async fn uploads(
    reader: &Reader,
    snapshot: &Snapshot,
    uploaded: &Uploaded,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<Vec<Digest>> {
    let database = snapshot.databases.iter().find(|database| database.name == MAIN);
    let sources = database.map(sources).unwrap_or_default();
    let Some(database) = database.filter(|_| !sources.is_empty()) else {
        let hint = "who uploaded what stands in the database: take a snapshot that has one, or choose with --prefix";
        return Err(Error::failed(format!("snapshot {} has no rows of {TABLE}", snapshot.id), hint).into());
    };
    let tools = connect::tools(&options.tools).await?;
    // Nobody connects; a connection without a user would be refused for root.
    let nowhere = connect::told("user=nobody dbname=none", &options.tools)?;
    let mut chosen = Vec::new();
    for (stream, schema) in sources {
        run.progress.stage("rows of media", Some(stream.list.bytes), None);
        let dump = reader.windows(&stream.list).flat_map(|window| {
            let blobs = match window {
                Ok(blobs) => blobs.into_iter().map(|(_, blob)| blob.context("the dump is damaged")).collect(),
                Err(error) => vec![Err(anyhow::Error::from(error).context("read the dump"))],
            };
            futures::stream::iter(blobs)
        });
        let dump = dump.inspect(|blob| {
            let bytes = blob.as_ref().map_or(0, |blob| blob.len() as u64);
            run.progress.advance("rows of media", bytes, 0);
        });
        let table = (schema.as_deref(), TABLE);
        let each = |row: &rows::Row<'_>| {
            if uploaded.has(row) {
                chosen.extend(row.get("media_id").map(digest));
            }
        };
        let read = rows::of_table(&nowhere, &tools, archive_version(database), table, dump, each);
        read.await.context("read the rows of media out of the dump")?;
        run.progress.done("rows of media");
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// The streams that have the rows, and the schema; none is named where a dump of everything does not tell.
fn sources(database: &Database) -> Vec<(&Stream, Option<String>)> {
    let suffix = format!(".{TABLE}");
    let known = database.streams.iter().filter(|stream| stream.format == StreamFormat::Custom);
    let of = |stream: &'_ Stream| -> Vec<Option<String>> {
        if stream.tables.is_empty() && stream.name != plan::SCHEMA_STREAM {
            return vec![None];
        }
        let schemas = stream.tables.iter().filter_map(|table| table.strip_suffix(&suffix));
        schemas.map(|schema| Some(schema.to_owned())).collect()
    };
    known
        .flat_map(|stream| of(stream).into_iter().map(move |schema| (stream, schema)))
        .collect()
}
