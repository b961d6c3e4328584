//! Loading a database: definitions, all streams of rows side by side, indexes, and a comparison with what was dumped.
//!
//! Nothing goes over a temporary file. A table with a stream of its own has its indexes built as soon as its rows are there,
//! beside the rows of others. Triggers and foreign keys come after all rows, so the order of the streams does not matter.
//! From its first statement to its last the database holds a table that says it is not whole.

use std::collections::BTreeMap;

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::Options;
use super::databases::Checked;
use crate::format::snapshot::{Database, Snapshot, Stream};
use crate::ops::connect::{LOCK_SECONDS, archive_version};
use crate::ops::{Error, Run};
use crate::repo::reader::Reader;
use crate::synapse::postgres::archive::{Archive, SCHEMA_BYTES_MAX, Section};
use crate::synapse::postgres::check::{self, Expected};
use crate::synapse::postgres::load::{Content, Load, LoadOptions};
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::{ConnInfo, Session, Tools, dump, plan, target};

/// A window is not smaller: frames are 4 MiB, and one that two windows share is read twice.
const WINDOW_BYTES_MIN: u64 = 8 << 20;

/// One load.
struct Task<'a> {
    reader: &'a Reader,
    database: &'a Database,
    /// With the settings that make it quick.
    info: ConnInfo,
    tools: &'a Tools,
    options: &'a LoadOptions,
    jobs: usize,
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
    let one_time_keys = load_one(reader, snapshot, &checked, options, run).await.with_context(|| {
        let hint = "drop the half-loaded database and restore again; homeserver.yaml and the signing key were not written";
        Error::failed(format!("database `{name}` could not be loaded, and is left half loaded"), hint)
    })?;
    Ok(Loaded { name, one_time_keys })
}

async fn load_one(reader: &Reader, snapshot: &Snapshot, checked: &Checked, options: &Options, run: &Run<'_>) -> anyhow::Result<u64> {
    let database = &checked.target.database;
    let mut session = Session::open(&checked.target.info, &checked.tools, Purpose::Write, LOCK_SECONDS).await?;
    let task = Task {
        reader,
        database,
        info: checked.target.info.with_settings(&target::load_settings(&mut session).await?),
        tools: &checked.tools,
        options: &checked.options,
        jobs: options.limits.load_jobs.max(1),
        forget_remote_media: !options.keep_remote_media_rows && forgets_remote_media(snapshot),
        stage: format!("database {}", database.name),
        run,
    };
    let bytes = database.streams.iter().map(|stream| stream.list.bytes).sum();
    run.progress.stage(&task.stage, Some(bytes), None);
    target::mark(&mut session, &snapshot.id.to_string()).await?;
    match database.streams.split_first() {
        Some((schema, rows)) if schema.name == plan::SCHEMA_STREAM => by_streams(&task, schema, rows).await?,
        // As snapshots of earlier versions have it: one dump of everything.
        _ => load_rows(&task, &database.streams, task.options, None).await?,
    }
    let one_time_keys = finish(&task, session).await?;
    run.progress.done(&task.stage);
    Ok(one_time_keys)
}

/// Definitions, rows, indexes.
async fn by_streams(task: &Task<'_>, schema: &Stream, rows: &[Stream]) -> anyhow::Result<()> {
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
    archive.set_apart(&alone.flat_map(|stream| stream.tables.clone()).collect::<Vec<_>>());
    warn(&archive.load(Section::BeforeData, 1).await.context("load the definitions")?);
    let options = LoadOptions {
        content: Content::Rows,
        ..task.options.clone()
    };
    load_rows(task, rows, &options, Some(&archive)).await?;
    warn(&archive.load(Section::AfterData, task.jobs).await.context("build the indexes")?);
    Ok(())
}

/// So many streams at once, each followed by the indexes of its table. The first failure drops the others, which ends
/// their `pg_restore`s.
async fn load_rows(task: &Task<'_>, streams: &[Stream], options: &LoadOptions, indexes: Option<&Archive>) -> anyhow::Result<()> {
    // Together their windows are as large as that of one stream alone, which `limits.memory` has room for.
    let room = usize::try_from(task.reader.window_bytes() / WINDOW_BYTES_MIN).unwrap_or(usize::MAX);
    let together = task.jobs.min(streams.len()).min(room).max(1);
    let window_bytes = task.reader.window_bytes() / together as u64;
    let work = streams.iter().map(|stream| async move {
        let loading = load_stream(task, stream, options, window_bytes);
        loading.await.with_context(|| format!("load the stream {}", stream.name))?;
        let (Some(archive), [table]) = (indexes, stream.tables.as_slice()) else {
            return Ok(());
        };
        let built = archive.load_indexes(table).await;
        warn(&built.with_context(|| format!("build the indexes of {table}"))?);
        Ok(())
    });
    stream::iter(work).buffer_unordered(together).try_collect().await
}

async fn load_stream(task: &Task<'_>, stream: &Stream, options: &LoadOptions, window_bytes: u64) -> anyhow::Result<()> {
    let mut load = Load::start(&task.info, task.tools, archive_version(task.database), options.clone())?;
    let mut windows = std::pin::pin!(task.reader.windows_within(&stream.list, window_bytes));
    while let Some(window) = windows.next().await {
        for (_, blob) in window.context("read the dump")? {
            let blob = blob.context("the dump is damaged")?;
            task.run.progress.advance(&task.stage, blob.len() as u64, 0);
            load.write(blob).await?;
        }
    }
    warn(&load.finish().await?.warnings);
    Ok(())
}

/// Files of remote media are not among what this snapshot brings back.
pub(super) fn forgets_remote_media(snapshot: &Snapshot) -> bool {
    !snapshot.media.as_ref().is_some_and(|media| media.included.remote)
}

fn warn(words: &str) {
    if !words.is_empty() {
        tracing::warn!("pg_restore: {}", words.trim_end());
    }
}

/// Views, statistics, the comparison, the one-time keys; last of all the database is called whole.
async fn finish(task: &Task<'_>, mut session: Session) -> anyhow::Result<u64> {
    let facts = &task.database.facts;
    check::refresh(&mut session, &facts.materialized_views).await?;
    let expected = expected(task.database);
    let others = (0..task.jobs).map(|_| Session::open_another(&task.info, task.tools, Purpose::Write, LOCK_SECONDS));
    let mut others = futures::future::try_join_all(others).await?;
    futures::future::try_join(check::analyze(&mut others), check::compare(&mut session, &expected)).await?;
    futures::future::join_all(others.into_iter().map(Session::close)).await;
    let one_time_keys = target::empty_one_time_keys(&mut session).await?;
    if one_time_keys > 0 {
        tracing::warn!(
            "database {}: the dump had {one_time_keys} one-time keys; they were removed",
            task.database.name
        );
    }
    if task.forget_remote_media {
        let count = target::forget_remote_media(&mut session).await?;
        tracing::info!("{count} cached media of other servers were forgotten, since their files are not in the snapshot");
    }
    target::unmark(&mut session).await?;
    session.close().await;
    Ok(one_time_keys)
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
