//! The databases of a backup: one exported moment each, dumped in it, with its facts and (Synapse's own) its media rows.
//!
//! The transaction is held no longer than the dump: rows are drained into the spool at database speed, and media are
//! sent afterwards or beside (invariant 13).

use std::collections::HashSet;
use std::sync::OnceLock;

use anyhow::Context;
use bytes::BytesMut;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::spool::{Rows, Spool};
use super::{DatabaseReport, Options};
use crate::format::snapshot::{Database, Facts, Stream, StreamFormat, TableFact};
use crate::ops::connect::{LOCK_SECONDS, Source};
use crate::ops::{Part, Run};
use crate::repo::writer::{self, Stored, Writer};
use crate::synapse::media::{MediaChoice, MediaKind, MediaTables};
use crate::synapse::postgres::dump::{Dump, DumpOptions};
use crate::synapse::postgres::facts::{self, COUNTED_BYTES_MAX};
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::snapshot::Snapshot as Moment;
use crate::synapse::postgres::{Session, Tools};

/// What became of the databases.
#[derive(Debug, Default)]
pub(super) struct StoredDatabases {
    pub(super) databases: Vec<Database>,
    pub(super) reports: Vec<DatabaseReport>,
}

/// What dumping is told.
pub(super) struct Task<'a> {
    pub(super) writer: &'a Writer,
    pub(super) tools: &'a Tools,
    pub(super) options: &'a Options,
    /// The store's time when the first moment was exported.
    pub(super) time: &'a OnceLock<Timestamp>,
    pub(super) run: &'a Run<'a>,
}

/// Dump every database, one after the other; the media rows of the main one go out through `rows`.
pub(super) async fn store_databases(
    task: &Task<'_>,
    sources: &[Source],
    mut rows: Option<oneshot::Sender<Rows>>,
) -> anyhow::Result<StoredDatabases> {
    let mut stored = StoredDatabases::default();
    for source in sources {
        let rows = if source.is_main { rows.take() } else { None };
        let wanted = task.options.parts.contains(&Part::Database);
        if rows.is_none() && !wanted {
            continue;
        }
        let (database, report) = store_one(task, source, rows, wanted)
            .await
            .with_context(|| format!("dump database `{}`", source.name))?;
        stored.databases.extend(database);
        stored.reports.extend(report);
    }
    Ok(stored)
}

async fn store_one(
    task: &Task<'_>,
    source: &Source,
    rows: Option<oneshot::Sender<Rows>>,
    wanted: bool,
) -> anyhow::Result<(Option<Database>, Option<DatabaseReport>)> {
    let mut moment = Moment::export(&source.info, task.tools, LOCK_SECONDS).await?;
    if task.time.get().is_none() {
        let _ = task.time.set(task.writer.repository().date().await?);
    }
    if !wanted {
        drain(task, &mut moment, rows).await?;
        moment.close().await;
        return Ok((None, None));
    }
    let server = moment.session.server().clone();
    let options = DumpOptions::new(moment.id());
    let mut dump = PgDump(Dump::start(&source.info, task.tools, server.version(), &options)?);
    let stage = format!("database {}", source.name);
    task.run.progress.stage(&stage, None, None);
    let beside = async {
        let facts = facts::Facts::read(&mut moment, COUNTED_BYTES_MAX).await?;
        drain(task, &mut moment, rows).await?;
        anyhow::Ok(facts)
    };
    let dumped = async {
        let advance = |bytes| task.run.progress.advance(&stage, bytes, 0);
        Ok(task.writer.store_stream(&stage, &mut dump, None, &advance).await?)
    };
    let (stored, facts) = futures::future::try_join(dumped, beside).await?;
    let pg_dump = dump.0.version().to_string();
    moment.close().await;
    task.run.progress.done(&stage);
    let report = DatabaseReport {
        name: source.name.clone(),
        read_bytes: stored.read_bytes,
        new_bytes: stored.new_bytes,
        streams: 1,
        tables: facts.tables.len() as u64,
    };
    Ok((Some(document(source, facts, stored, pg_dump, options)), Some(report)))
}

/// The media rows of this moment, at database speed.
async fn drain(task: &Task<'_>, moment: &mut Moment, out: Option<oneshot::Sender<Rows>>) -> anyhow::Result<()> {
    let Some(out) = out else { return Ok(()) };
    let options = task.options;
    let memory = usize::try_from(options.limits.memory_bytes / 4).unwrap_or(usize::MAX);
    let mut spool = Spool::new(memory, &options.spool_folder);
    let choice = MediaChoice {
        thumbnails: options.thumbnails,
        remote: options.remote,
        url_cache: options.url_cache,
    };
    if let Some(tables) = MediaTables::find(&mut moment.session).await? {
        for kind in choice.kinds() {
            let mut rows = tables.rows(&mut moment.session, kind).await.context("read the rows of media")?;
            while let Some(row) = rows.next().await.context("read the rows of media")? {
                spool.push(&row).context("keep the rows of media for later")?;
            }
        }
    }
    // A receiver that is gone has failed by itself, and says so.
    let _ = out.send(spool.rows().context("keep the rows of media for later")?);
    Ok(())
}

/// `pg_dump` as a source of the writer: the end is believed only when it exited 0 (invariant 4).
struct PgDump(Dump);

impl writer::Source for PgDump {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut) -> BoxFuture<'a, Result<usize, writer::SourceError>> {
        Box::pin(async move { self.0.read_into(buffer).await.map_err(Into::into) })
    }
}

fn document(source: &Source, facts: facts::Facts, stored: Stored, pg_dump_version: String, options: DumpOptions) -> Database {
    let database = facts.database.clone();
    Database {
        name: source.name.clone(),
        database: database.name,
        server_version: facts.server_version.clone(),
        pg_dump_version,
        encoding: database.encoding,
        collation: database.collation,
        ctype: database.ctype,
        owner: database.owner,
        streams: vec![Stream {
            name: "main".into(),
            format: StreamFormat::Custom,
            list: stored.list,
            tables: Vec::new(),
        }],
        excluded_table_data: options.exclude_table_data,
        facts: remembered(facts),
    }
}

fn remembered(facts: facts::Facts) -> Facts {
    let synapse = facts.synapse;
    let tables = facts.tables.into_iter().map(|table| {
        let name = format!("{}.{}", table.schema, table.name);
        (
            name,
            TableFact {
                rows: table.rows,
                bytes: table.bytes,
            },
        )
    });
    let sequences = facts
        .sequences
        .into_iter()
        .filter_map(|one| Some((format!("{}.{}", one.schema, one.name), one.last_value?)));
    Facts {
        tables: tables.collect(),
        schema_version: synapse.as_ref().and_then(|synapse| synapse.schema_version),
        schema_compat_version: synapse.as_ref().and_then(|synapse| synapse.schema_compat_version),
        background_updates: synapse
            .as_ref()
            .map(|synapse| synapse.background_updates.clone())
            .unwrap_or_default(),
        stream_positions: synapse.map(|synapse| synapse.stream_positions).unwrap_or_default(),
        sequences: sequences.collect(),
        owners: facts.owners,
        grantees: facts.grantees,
        extensions: facts.extensions.into_iter().map(|one| (one.name, one.version)).collect(),
    }
}

/// The rows that are still there of these media paths, asked in a session of its own.
pub(super) struct LiveRows<'a> {
    pub(super) source: &'a Source,
    pub(super) tools: &'a Tools,
    pub(super) session: tokio::sync::Mutex<Option<(Session, MediaTables)>>,
}

impl LiveRows<'_> {
    pub(super) async fn still_there(&self, rows: Vec<(MediaKind, String)>) -> anyhow::Result<HashSet<String>> {
        let mut there = HashSet::new();
        if rows.is_empty() {
            return Ok(there);
        }
        let mut session = self.session.lock().await;
        if session.is_none() {
            let mut open = Session::open(&self.source.info, self.tools, Purpose::Read, LOCK_SECONDS).await?;
            let tables = MediaTables::find(&mut open).await?.context("the tables of media are gone")?;
            *session = Some((open, tables));
        }
        let Some((open, tables)) = session.as_mut() else {
            anyhow::bail!("no session")
        };
        for kind in MediaKind::ALL {
            let paths: Vec<String> = rows.iter().filter(|row| row.0 == kind).map(|row| row.1.clone()).collect();
            if !paths.is_empty() {
                there.extend(tables.still_there(open, kind, &paths).await?);
            }
        }
        Ok(there)
    }
}
