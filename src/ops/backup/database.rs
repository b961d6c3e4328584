//! The databases of a backup: one exported moment each, dumped in it, with its facts and (Synapse's own) its media rows.
//!
//! A dump is several streams, so many at once as there are jobs: the definitions, each big table, and all the rest.
//! The transaction is held no longer than the dump: rows are drained into the spool at database speed, and media are
//! sent afterwards or beside (invariant 13).

use std::collections::HashSet;
use std::sync::OnceLock;

use anyhow::Context;
use bytes::BytesMut;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::spool::{Rows, Spool};
use super::{DatabaseReport, Options};
use crate::format::PackKind;
use crate::format::list::List;
use crate::format::snapshot::{Database, Facts, Snapshot, Stream, StreamFormat, TableFact};
use crate::ops::connect::{self, LOCK_SECONDS, Source};
use crate::ops::{Error, Limits, Part, Run};
use crate::repo::reader::Reader;
use crate::repo::writer::{self, Alongside, Stored, Writer};
use crate::synapse::media::{MediaChoice, MediaKind, MediaTables, RowStates};
use crate::synapse::postgres::dump::{self, Dump, DumpOptions};
use crate::synapse::postgres::facts::{self, COUNTED_BYTES_MAX};
use crate::synapse::postgres::outline::{Outline, PlannedStream};
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::snapshot::{Snapshot as Moment, Table};
use crate::synapse::postgres::tools::Version;
use crate::synapse::postgres::{ConnInfo, Session, Tools, target};

/// Of `limits.memory`, what there must be for each stream that is dumped at once.
const JOB_BYTES: u64 = 48 << 20;

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
    /// The last snapshot, where the index did not fit into memory: its lists are read alongside.
    pub(super) alongside: Option<(&'a Reader, &'a Snapshot)>,
    pub(super) run: &'a Run<'a>,
}

/// Dump every database, one after the other; the media rows of the main one go out through `rows`.
pub(super) async fn store_databases(
    task: &Task<'_>,
    sources: &[Source],
    mut rows: Option<oneshot::Sender<Drained>>,
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
    // Media may go on for days.
    task.writer
        .flush(PackKind::Database)
        .await
        .context("end the last pack of the dumps")?;
    Ok(stored)
}

async fn store_one(
    task: &Task<'_>,
    source: &Source,
    rows: Option<oneshot::Sender<Drained>>,
    wanted: bool,
) -> anyhow::Result<(Option<Database>, Option<DatabaseReport>)> {
    let mut moment = Moment::export(&source.info, task.tools, LOCK_SECONDS).await?;
    if task.time.get().is_none() {
        let _ = task.time.set(task.writer.repository().date().await?);
    }
    // An empty one would make an empty snapshot the newest, and each night would push out a good one.
    if source.is_main && MediaTables::find(&mut moment.session).await?.is_none() {
        return Err(Error::failed(connect::NO_SYNAPSE, connect::NO_SYNAPSE_HINT).into());
    }
    if !wanted {
        drain(task, &mut moment, rows).await?;
        moment.close().await;
        return Ok((None, None));
    }
    if moment.tables().iter().any(|table| table.name == target::MARKER) {
        target::refuse_incomplete(&mut moment.session).await?;
    }
    let outline = Outline::read(&mut moment).await?;
    let jobs = dump_jobs(&task.options.limits);
    let streams = outline.streams(&moment, jobs);
    let server = moment.session.server().clone();
    if server.in_recovery {
        name_unlogged(source, &moment);
    }
    let dump = DumpTask {
        task,
        source,
        server: server.version(),
        options: DumpOptions::new(moment.id()),
        stage: format!("database {}", source.name),
    };
    let expected = streams.iter().map(|stream| stream.bytes).sum();
    task.run.progress.stage(&dump.stage, Some(expected), None);
    let beside = async {
        drain(task, &mut moment, rows).await?;
        Ok(facts::Facts::read(&mut moment, &outline, COUNTED_BYTES_MAX).await?)
    };
    let (dumped, facts) = futures::future::try_join(Box::pin(dump_streams(&dump, streams, jobs)), Box::pin(beside)).await?;
    moment.close().await;
    task.run.progress.done(&dump.stage);
    let report = DatabaseReport {
        name: source.name.clone(),
        read_bytes: dumped.iter().map(|one| one.stored.read_bytes).sum(),
        new_bytes: dumped.iter().map(|one| one.stored.new_bytes).sum(),
        streams: dumped.len() as u64,
        tables: facts.tables.len() as u64,
    };
    Ok((Some(document(source, facts, dumped, dump.options)), Some(report)))
}

/// How many streams at once: as told, but no more than the memory has room for.
fn dump_jobs(limits: &Limits) -> usize {
    let room = usize::try_from(limits.memory_bytes / JOB_BYTES).unwrap_or(usize::MAX);
    limits.dump_jobs.min(room).max(1)
}

/// On a replica the rows of unlogged tables do not exist: Synapse's own such tables (locks) are empty after any crash.
fn name_unlogged(source: &Source, moment: &Moment) {
    let unlogged: Vec<String> = moment.tables().iter().filter(|table| table.unlogged).map(Table::quoted).collect();
    if !unlogged.is_empty() {
        tracing::warn!(
            "database {}: the server is a replica, which has no rows of unlogged tables: {}",
            source.name,
            unlogged.join(", ")
        );
    }
}

/// What every stream of one database needs.
struct DumpTask<'a> {
    task: &'a Task<'a>,
    source: &'a Source,
    server: Version,
    options: DumpOptions,
    stage: String,
}

/// A stream that was dumped and stored.
struct Dumped {
    planned: PlannedStream,
    stored: Stored,
    pg_dump: Version,
}

/// So many streams at once, begun in the order of the plan, longest first: whichever ends makes room for the next. The first
/// failure drops the others, which ends their `pg_dump`s.
async fn dump_streams(dump: &DumpTask<'_>, streams: Vec<PlannedStream>, jobs: usize) -> anyhow::Result<Vec<Dumped>> {
    let work = streams.into_iter().enumerate().map(async |(place, planned)| {
        let dumped = dump_stream(dump, planned).await?;
        anyhow::Ok((place, dumped))
    });
    let mut dumped: Vec<(usize, Dumped)> = futures::stream::iter(work).buffer_unordered(jobs).try_collect().await?;
    // In the order in which they are loaded.
    dumped.sort_by_key(|(place, _)| *place);
    Ok(dumped.into_iter().map(|(_, one)| one).collect())
}

async fn dump_stream(dump: &DumpTask<'_>, planned: PlannedStream) -> anyhow::Result<Dumped> {
    let DumpTask { task, source, .. } = dump;
    let options = dump.options.with_content(planned.content.clone());
    let started = Dump::start(&source.info, task.tools, dump.server, &options)?;
    let pg_dump = started.version();
    let mut reading = PgDump {
        dump: started,
        info: &source.info,
        tools: task.tools,
        options: &options,
    };
    let what = format!("{}, stream {}", dump.stage, planned.name);
    let advance = |bytes| task.run.progress.advance(&dump.stage, bytes, 0);
    let previous = task
        .alongside
        .and_then(|(reader, snapshot)| Some((reader, list_of(snapshot, &source.name, &planned.name)?)));
    let alongside = previous.map(|(reader, list)| Alongside::new(reader, list));
    let stored = task.writer.store_stream(&what, &mut reading, alongside, &advance).await?;
    if !reading.dump.warnings().is_empty() {
        tracing::debug!("pg_dump, stream {}: {}", planned.name, reading.dump.warnings());
    }
    Ok(Dumped { planned, stored, pg_dump })
}

/// The list that a stream had in an earlier snapshot.
fn list_of<'a>(snapshot: &'a Snapshot, database: &str, stream: &str) -> Option<&'a List> {
    let database = snapshot.databases.iter().find(|one| one.name == database)?;
    database.streams.iter().find(|one| one.name == stream).map(|one| &one.list)
}

/// The media rows of one moment.
#[derive(Debug)]
pub(super) struct Drained {
    pub(super) rows: Rows,
    pub(super) states: RowStates,
}

/// The media rows of this moment, at database speed.
async fn drain(task: &Task<'_>, moment: &mut Moment, out: Option<oneshot::Sender<Drained>>) -> anyhow::Result<()> {
    let Some(out) = out else { return Ok(()) };
    let options = task.options;
    let memory = usize::try_from(options.limits.memory_bytes / 4).unwrap_or(usize::MAX);
    let mut spool = Spool::new(memory, &options.spool_folder);
    let mut states = RowStates::default();
    let choice = MediaChoice {
        thumbnails: options.thumbnails,
        remote: options.remote,
        url_cache: options.url_cache,
    };
    if let Some(tables) = MediaTables::find(&mut moment.session).await? {
        states = tables.states(&mut moment.session).await?;
        for kind in choice.kinds() {
            let mut rows = tables.rows(&mut moment.session, kind).await.context("read the rows of media")?;
            while let Some(row) = rows.next().await.context("read the rows of media")? {
                spool.push(&row).context("keep the rows of media for later")?;
            }
        }
    }
    // A receiver that is gone has failed by itself, and says so.
    let rows = spool.rows().context("keep the rows of media for later")?;
    let _ = out.send(Drained { rows, states });
    Ok(())
}

/// `pg_dump` as a source of the writer: the end is believed only when it exited 0 (invariant 4).
struct PgDump<'a> {
    dump: Dump,
    info: &'a ConnInfo,
    tools: &'a Tools,
    options: &'a DumpOptions,
}

impl writer::Source for PgDump<'_> {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut) -> BoxFuture<'a, Result<usize, writer::SourceError>> {
        Box::pin(async move {
            match self.dump.read_into(buffer).await {
                Ok(read) => Ok(read),
                Err(error) => Err(dump::explain(error, self.info, self.tools, self.options).await.into()),
            }
        })
    }
}

fn document(source: &Source, facts: facts::Facts, dumped: Vec<Dumped>, options: DumpOptions) -> Database {
    let database = facts.database.clone();
    let pg_dump = dumped.first().map(|one| one.pg_dump.to_string());
    let stream = |one: Dumped| Stream {
        name: one.planned.name,
        format: StreamFormat::Custom,
        list: one.stored.list,
        tables: one.planned.tables,
    };
    Database {
        name: source.name.clone(),
        database: database.name,
        server_version: facts.server_version.clone(),
        pg_dump_version: pg_dump.unwrap_or_default(),
        encoding: database.encoding,
        collation: database.collation,
        ctype: database.ctype,
        owner: database.owner,
        streams: dumped.into_iter().map(stream).collect(),
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
    let views = facts
        .materialized_views
        .into_iter()
        .map(|one| format!("{}.{}", one.schema, one.name));
    Facts {
        tables: tables.collect(),
        bytes: facts.database.bytes,
        large_objects: Some(facts.large_objects),
        events_stream_ordering: synapse.as_ref().and_then(|synapse| synapse.events_stream_ordering),
        schema_version: synapse.as_ref().and_then(|synapse| synapse.schema_version),
        schema_compat_version: synapse.as_ref().and_then(|synapse| synapse.schema_compat_version),
        background_updates: synapse
            .as_ref()
            .map(|synapse| synapse.background_updates.clone())
            .unwrap_or_default(),
        stream_positions: synapse.map(|synapse| synapse.stream_positions).unwrap_or_default(),
        sequences: sequences.collect(),
        materialized_views: views.collect(),
        collation_version: facts.database.collation_version,
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
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let mut session = self.session.lock().await;
        if let Some(held) = session.as_mut() {
            match Self::ask(held, &rows).await {
                Ok(there) => return Ok(there),
                // A server that was started anew in the hours of an upload is no reason to fail.
                Err(error) => tracing::debug!("the session that looks at rows of media is lost ({error:#}); opening another"),
            }
        }
        *session = None;
        let mut open = Session::open(&self.source.info, self.tools, Purpose::Read, LOCK_SECONDS).await?;
        let tables = MediaTables::find(&mut open).await?.context("the tables of media are gone")?;
        Self::ask(session.insert((open, tables)), &rows).await
    }

    async fn ask((open, tables): &mut (Session, MediaTables), rows: &[(MediaKind, String)]) -> anyhow::Result<HashSet<String>> {
        let mut there = HashSet::new();
        for kind in MediaKind::ALL {
            let paths: Vec<String> = rows.iter().filter(|row| row.0 == kind).map(|row| row.1.clone()).collect();
            if !paths.is_empty() {
                there.extend(tables.still_there(open, kind, &paths).await?);
            }
        }
        Ok(there)
    }
}
