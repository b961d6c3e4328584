//! Loading a database: definitions, all streams of rows side by side, indexes, and a comparison with what was dumped.
//!
//! Nothing goes over a temporary file. A table with a stream of its own has its indexes built, and is shown to the planner, as soon as
//! its rows are there, beside the rows of others; autovacuum is kept away from it meanwhile. Triggers and foreign keys come after all rows, so the order of the streams does not matter.
//! From its first statement to its last the database holds a table that says it is not whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::future::{join_all, try_join, try_join_all};
use futures::stream::{self, BoxStream, Peekable, StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::databases::{Checked, Target};
use super::{Options, wants};
use crate::format::snapshot::{Database, Snapshot, Stream};
use crate::ops::connect::{self, LOCK_SECONDS, archive_version};
use crate::ops::{Error, Part, Run};
use crate::repo;
use crate::repo::reader::{Reader, Window};
use crate::synapse::postgres::archive::{Archive, SCHEMA_BYTES_MAX, Section};
use crate::synapse::postgres::check::{self, Expected};
use crate::synapse::postgres::load::{Content, Load, LoadOptions};
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::undisturbed::{Undisturbed, keep_autovacuum_away, let_autovacuum_in};
use crate::synapse::postgres::{self, ConnInfo, Session, Tools, dump, nearby, plan, target};

/// A window is not smaller: frames are 4 MiB, and what two windows share of one is carried from the first to the second.
const WINDOW_BYTES_MIN: u64 = 8 << 20;

/// Blobs that go through the pipe together: about its size.
const PIECES_TOGETHER: usize = 16;

/// One load.
struct Task<'a> {
    reader: &'a Reader,
    database: &'a Database,
    /// With the settings that make it quick.
    info: ConnInfo,
    tools: &'a Tools,
    options: &'a LoadOptions,
    jobs: usize,
    /// Asked between the steps.
    session: Mutex<Session>,
    /// Remote media are not in the snapshot: their rows must go too.
    forget_remote_media: bool,
    stage: String,
    run: &'a Run<'a>,
}

/// A database that was loaded.
pub(super) struct Loaded {
    pub(super) name: String,
    /// One-time keys that the dump had, and that are gone now.
    pub(super) one_time_keys: u64,
    /// Rows of remote media that are gone.
    pub(super) remote_media_forgotten: u64,
}

/// Load one database, compare it, empty the one-time keys.
pub(super) async fn load(
    reader: &Reader,
    snapshot: &Snapshot,
    checked: Checked,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<Loaded> {
    let name = checked.target.database.name.clone();
    load_one(reader, snapshot, &checked, options, run).await.with_context(|| {
        let hint = "drop the half-loaded database and restore again; homeserver.yaml and the signing key were not written";
        Error::failed(format!("database `{name}` could not be loaded, and is left half loaded"), hint)
    })
}

async fn load_one(reader: &Reader, snapshot: &Snapshot, checked: &Checked, options: &Options, run: &Run<'_>) -> anyhow::Result<Loaded> {
    let database = &checked.target.database;
    let mut session = Session::open(&checked.target.info, &checked.tools, Purpose::Write, LOCK_SECONDS).await?;
    let jobs = options.limits.load_jobs.max(1);
    let free_kib = nearby::is_here(checked.target.info.host()).then(nearby::free_kib).flatten();
    let settings = target::load_settings(&mut session, jobs, free_kib).await?;
    let info = checked.target.info.with_settings(&settings);
    target::mark(&mut session, &snapshot.id.to_string()).await?;
    let task = Task {
        reader,
        database,
        info,
        tools: &checked.tools,
        options: &checked.options,
        jobs,
        session: Mutex::new(session),
        forget_remote_media: will_forget(snapshot, options),
        stage: format!("database {}", database.name),
        run,
    };
    let bytes = database.streams.iter().map(|stream| stream.list.bytes).sum();
    run.progress.stage(&task.stage, Some(bytes), None);
    let done = match database.streams.split_first() {
        Some((schema, rows)) if schema.name == plan::SCHEMA_STREAM => by_streams(&task, schema, rows).await?,
        // As snapshots of earlier versions have it: one dump of everything.
        _ => {
            let rows = Rows::new(&task, &database.streams);
            load_rows(&task, rows, task.options, None).await?;
            Done::default()
        }
    };
    let stage = task.stage.clone();
    let loaded = finish(task, done).await?;
    run.progress.done(&stage);
    Ok(loaded)
}

/// PostgreSQL's `lock_timeout` of 0: none.
const FOR_EVER: u64 = 0;
/// SQLSTATE of a lock that did not come within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Tables, by `schema.name`, that something was done for already.
#[derive(Default)]
struct Done {
    /// They have the rows that they should have.
    compared: BTreeSet<String>,
    /// The planner knows them.
    analyzed: BTreeSet<String>,
    /// Autovacuum is to be let in again.
    undisturbed: Vec<Undisturbed>,
}

/// Definitions, rows, indexes.
async fn by_streams(task: &Task<'_>, schema: &Stream, rows: &[Stream]) -> anyhow::Result<Done> {
    let version = archive_version(task.database);
    let bytes = task
        .reader
        .read_small(&schema.list, SCHEMA_BYTES_MAX)
        .await
        .context("read the definitions")?;
    task.run.progress.advance(&task.stage, bytes.len() as u64, 0);
    let mut archive = Archive::open(&bytes, &task.info, task.tools, version, task.options.clone()).await?;
    drop(bytes);
    let alone = rows.iter().filter(|stream| stream.tables.len() == 1);
    let alone: BTreeSet<String> = alone.flat_map(|stream| stream.tables.clone()).collect();
    archive.set_apart(&alone.iter().cloned().collect::<Vec<_>>());
    let mut rows = Rows::new(task, rows);
    let define = async { archive.load(Section::BeforeData, 1).await.context("load the definitions") };
    let (words, ()) = futures::future::join(define, rows.fetch_ahead()).await;
    warn(&words?);
    let options = LoadOptions {
        content: Content::Rows,
        ..task.options.clone()
    };
    let undisturbed = keep_autovacuum_away(&mut *task.session.lock().await, |table| alone.contains(table)).await?;
    let done = load_rows(task, rows, &options, Some(&archive)).await?;
    let words = archive.load(Section::AfterData, task.jobs).await.context("build the indexes")?;
    warn(&words);
    Ok(Done { undisturbed, ..done })
}

/// As many sessions as jobs.
async fn sessions(task: &Task<'_>) -> anyhow::Result<Vec<Session>> {
    for _ in 0..CROWDED_TRIES_MAX {
        match try_join_all((0..task.jobs).map(|_| session(task))).await {
            // A connection that was just closed still counts.
            Err(error) if error.is_crowded() => tokio::time::sleep(CROWDED_PAUSE).await,
            opened => return Ok(opened?),
        }
    }
    Ok(try_join_all((0..task.jobs).map(|_| session(task))).await?)
}

/// Between two tries to open sessions where there is no room for them.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);
/// A few seconds: connections that were closed are gone by then.
const CROWDED_TRIES_MAX: usize = 50;

/// It waits for any lock as long as it takes.
async fn session(task: &Task<'_>) -> Result<Session, postgres::Error> {
    Session::open_another(&task.info, task.tools, Purpose::Write, FOR_EVER).await
}

async fn close(sessions: Vec<Session>) {
    join_all(sessions.into_iter().map(Session::close)).await;
}

type Windows<'a> = Pin<Box<Peekable<BoxStream<'a, repo::Result<Window>>>>>;

/// Streams of rows, and their bytes.
struct Rows<'a> {
    streams: Vec<(&'a Stream, Windows<'a>)>,
    /// So many at once.
    together: usize,
}

impl<'a> Rows<'a> {
    fn new(task: &'a Task<'_>, streams: &'a [Stream]) -> Self {
        // Together their windows are as large as that of one stream alone, which `limits.memory` has room for.
        let room = usize::try_from(task.reader.window_bytes() / WINDOW_BYTES_MIN).unwrap_or(usize::MAX);
        let together = task.jobs.min(streams.len()).min(room).max(1);
        let window_bytes = task.reader.window_bytes() / together as u64;
        let windows = |stream: &'a Stream| Box::pin(task.reader.windows_within(&stream.list, window_bytes).peekable());
        Self {
            streams: streams.iter().map(|stream| (stream, windows(stream))).collect(),
            together,
        }
    }

    /// Fetch what the first jobs will ask for. What fails here is told when it is read.
    async fn fetch_ahead(&mut self) {
        let first = self.streams.iter_mut().take(self.together);
        join_all(first.map(|(_, windows)| windows.as_mut().peek())).await;
    }
}

/// So many streams at once, each followed by the indexes of its table. The first failure drops the others, which ends
/// their `pg_restore`s. Tells what else was done for which tables.
async fn load_rows(task: &Task<'_>, rows: Rows<'_>, options: &LoadOptions, indexes: Option<&Archive>) -> anyhow::Result<Done> {
    let expected = expected(task.database).rows;
    let together = rows.together;
    let work = rows.streams.into_iter().map(|(stream, windows)| {
        let expected = &expected;
        async move {
            let loading = load_stream(task, windows, options);
            loading.await.with_context(|| format!("load the stream {}", stream.name))?;
            let (Some(archive), [table]) = (indexes, stream.tables.as_slice()) else {
                return Ok(Done::default());
            };
            let built = archive.load_indexes(table).await;
            warn(&built.with_context(|| format!("build the indexes of {table}"))?);
            // First the count, which ANALYZE would write over with a guess.
            let mut session = task.session.lock().await;
            let wanted = expected.get(table).copied();
            let counted = check::rows_of_index(&mut session, table).await?;
            let analyzed = analyze_now(&mut session, table).await?;
            // Any other number is counted again, and told by the comparison.
            let compared = wanted.is_some() && counted == wanted;
            let these = |yes: bool| yes.then(|| table.clone()).into_iter().collect();
            anyhow::Ok(Done {
                compared: these(compared),
                analyzed: these(analyzed),
                ..Done::default()
            })
        }
    });
    let done: Vec<Done> = stream::iter(work).buffer_unordered(together).try_collect().await?;
    Ok(done.into_iter().fold(Done::default(), |mut all, mut one| {
        all.compared.append(&mut one.compared);
        all.analyzed.append(&mut one.analyzed);
        all
    }))
}

/// Show a table to the planner, unless somebody holds it for longer than this session waits: then it is done at the end.
async fn analyze_now(session: &mut Session, table: &str) -> Result<bool, postgres::Error> {
    match check::analyze(std::slice::from_mut(session), |other| other == table).await {
        Ok(()) => Ok(true),
        Err(postgres::Error::Statement { sqlstate, .. }) if sqlstate == LOCK_NOT_AVAILABLE => Ok(false),
        Err(error) => Err(error),
    }
}

async fn load_stream(task: &Task<'_>, mut windows: Windows<'_>, options: &LoadOptions) -> anyhow::Result<()> {
    let mut load = Load::start(&task.info, task.tools, archive_version(task.database), options.clone())?;
    while let Some(window) = windows.next().await {
        let blobs = window.context("read the dump")?.into_iter().map(|(_, blob)| blob);
        let mut blobs: VecDeque<Bytes> = blobs.collect::<repo::Result<_>>().context("the dump is damaged")?;
        while !blobs.is_empty() {
            // Not the whole window: progress is told on the way.
            let some: VecDeque<Bytes> = blobs.drain(..blobs.len().min(PIECES_TOGETHER)).collect();
            let bytes: usize = some.iter().map(Bytes::len).sum();
            load.write_many(some).await?;
            task.run.progress.advance(&task.stage, bytes as u64, 0);
        }
    }
    warn(&load.finish().await?.warnings);
    Ok(())
}

/// Files of remote media are not among what this snapshot brings back.
pub(super) fn forgets_remote_media(snapshot: &Snapshot) -> bool {
    !snapshot.media.as_ref().is_some_and(|media| media.included.remote)
}

/// Synapse answers 404 for them for ever, so their rows go with the files. Where media are not brought back in this call, the
/// files may be where they were, and the rows stay unless it is asked for.
pub(super) fn will_forget(snapshot: &Snapshot, options: &Options) -> bool {
    let asked = options.forget_remote_media || wants(options, Part::Media);
    forgets_remote_media(snapshot) && asked && !options.keep_remote_media_rows
}

/// The same in a database that an earlier restore has loaded, perhaps without the media.
pub(super) async fn forget_in(target: &Target, options: &Options) -> anyhow::Result<u64> {
    let tools = connect::tools(&options.tools).await?;
    let mut session = Session::open(&target.info, &tools, Purpose::Write, LOCK_SECONDS).await?;
    let forgotten = target::forget_remote_media(&mut session).await?;
    session.close().await;
    Ok(forgotten)
}

/// Are there such rows? An earlier restore may have forgotten them already.
pub(super) async fn has_remote_media(target: &Target, options: &Options) -> anyhow::Result<bool> {
    let tools = connect::tools(&options.tools).await?;
    let mut session = Session::open(&target.info, &tools, Purpose::Read, LOCK_SECONDS).await?;
    let count = target::count_remote_media(&mut session).await?;
    session.close().await;
    Ok(count > 0)
}

/// For the plan.
pub(super) const FORGETS: &str = "remove the rows of other servers' media from database `synapse`, but for quarantined ones: their files are not in \
                                  this snapshot, and Synapse fetches them again when somebody looks (--keep-remote-media-rows leaves them)";

fn warn(words: &str) {
    if !words.is_empty() {
        tracing::warn!("pg_restore: {}", words.trim_end());
    }
}

/// Views, statistics, the comparison, the one-time keys; last of all the database is called whole.
async fn finish(task: Task<'_>, done: Done) -> anyhow::Result<Loaded> {
    let facts = &task.database.facts;
    let mut others = sessions(&task).await?;
    let mut session = task.session.into_inner();
    check::refresh(&mut session, &facts.materialized_views).await?;
    let mut expected = expected(task.database);
    expected.rows.retain(|table, _| !done.compared.contains(table));
    let analyze = check::analyze(&mut others, |table| !done.analyzed.contains(table));
    try_join(analyze, check::compare(&mut session, &expected)).await?;
    // By a session that waits: whoever vacuums a large table now must not end the load.
    if let Some(patient) = others.first_mut() {
        let_autovacuum_in(patient, &done.undisturbed).await?;
    }
    close(others).await;
    let one_time_keys = target::empty_one_time_keys(&mut session).await?;
    if one_time_keys > 0 {
        tracing::warn!(
            "database {}: the dump had {one_time_keys} one-time keys; they were removed",
            task.database.name
        );
    }
    let remote_media_forgotten = if task.forget_remote_media {
        target::forget_remote_media(&mut session).await?
    } else {
        0
    };
    target::unmark(&mut session).await?;
    session.close().await;
    Ok(Loaded {
        name: task.database.name.clone(),
        one_time_keys,
        remote_media_forgotten,
    })
}

/// What the facts say that must be there: rows of all counted tables but those left out on purpose.
pub(in crate::ops) fn expected(database: &Database) -> Expected {
    let facts = &database.facts;
    let left_out = |table: &str| table.ends_with(&format!(".{}", dump::ONE_TIME_KEYS));
    let counted = facts.tables.iter().filter_map(|(name, fact)| Some((name.clone(), fact.rows?)));
    // In dumps of everything the facts may be read after the dump, and their sequences be ahead of it.
    let by_streams = database.streams.first().is_some_and(|stream| stream.name == plan::SCHEMA_STREAM);
    Expected {
        rows: counted.filter(|(name, _)| !left_out(name)).collect(),
        sequences: if by_streams { facts.sequences.clone() } else { BTreeMap::new() },
        large_objects: facts.large_objects.filter(|_| by_streams),
    }
}
