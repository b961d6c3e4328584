//! Dump streams as `pg_restore` reads them: a stream whose blobs are all good may still be no whole archive.
//!
//! Every byte is believed only after its hash, so this finds what was wrong when it was dumped. It reads the streams once
//! more: of the snapshot that was named, else of the newest one of each homeserver. No server is needed, only the program.

use std::collections::BTreeMap;

use anyhow::Context;
use futures::stream::StreamExt;

use super::{Findings, Report};
use crate::format::snapshot::{Database, Snapshot, Stream, StreamFormat};
use crate::ops::connect;
use crate::ops::{self, Run};
use crate::repo;
use crate::repo::reader::Reader;
use crate::synapse::postgres;
use crate::synapse::postgres::Tools;
use crate::synapse::postgres::scan::Scan;
use crate::synapse::postgres::tools::Version;

/// Read the streams of these snapshots. Without a `pg_restore` that is new enough there is nothing to read them with.
pub(super) async fn read(
    reader: &Reader,
    snapshots: &[Snapshot],
    tools: &ops::Tools,
    report: &mut Report,
    findings: &mut Findings,
    run: &Run<'_>,
) -> anyhow::Result<()> {
    let newest = newest(snapshots);
    let streams = newest.iter().flat_map(|snapshot| {
        let databases = snapshot.databases.iter();
        databases.flat_map(move |database| database.streams.iter().map(move |stream| (*snapshot, database, stream)))
    });
    let streams: Vec<(&Snapshot, &Database, &Stream)> = streams.filter(|(.., stream)| stream.format == StreamFormat::Custom).collect();
    if streams.is_empty() {
        return Ok(());
    }
    let tools = connect::tools(tools).await?;
    let bytes = streams.iter().map(|(.., stream)| stream.list.bytes).sum();
    run.progress.stage("read dumps", Some(bytes), Some(streams.len() as u64));
    for (snapshot, database, stream) in streams {
        let item = format!("database/{}/{}", database.name, stream.name);
        match scan(reader, &tools, connect::archive_version(database), stream, run)
            .await
            .with_context(|| format!("read {item}"))?
        {
            Scanned::Whole => report.streams_read += 1,
            // The look at the structure has told it, unless it went since.
            Scanned::Lost(_) if findings.names(&item) => {}
            Scanned::Lost(error) => findings.add(item, format!("{:#}", anyhow::Error::from(error)), Some(snapshot)),
            Scanned::Broken(message) => findings.add(item, format!("pg_restore does not read it: {message}"), Some(snapshot)),
            Scanned::NoProgram(error) => {
                tracing::warn!("the dumps were not read by pg_restore: {error}");
                break;
            }
        }
    }
    run.progress.done("read dumps");
    Ok(())
}

/// What became of one stream.
enum Scanned {
    Whole,
    /// Blobs are lost.
    Lost(repo::Error),
    Broken(String),
    NoProgram(postgres::Error),
}

async fn scan(reader: &Reader, tools: &Tools, archive: Version, stream: &Stream, run: &Run<'_>) -> anyhow::Result<Scanned> {
    let mut scan = match Scan::start(tools, archive) {
        Ok(scan) => scan,
        Err(error @ postgres::Error::Tool { .. }) => return Ok(Scanned::NoProgram(error)),
        Err(error) => return Err(error.into()),
    };
    let mut windows = std::pin::pin!(reader.windows(&stream.list));
    while let Some(window) = windows.next().await {
        let window = match window {
            Ok(window) => window,
            Err(error @ (repo::Error::Lost { .. } | repo::Error::Damaged { .. })) => return Ok(Scanned::Lost(error)),
            // A store that cannot be read says nothing of the stream.
            Err(error) => return Err(error.into()),
        };
        for (_, blob) in window {
            // Of one blob alone it is always a loss.
            let blob = match blob {
                Ok(blob) => blob,
                Err(error) => return Ok(Scanned::Lost(error)),
            };
            run.progress.advance("read dumps", blob.len() as u64, 0);
            if let Err(error) = scan.write(blob).await {
                return broken(error);
            }
        }
    }
    match scan.finish().await {
        Ok(()) => Ok(Scanned::Whole),
        Err(error) => broken(error),
    }
}

/// What `pg_restore` says is a finding, a pipe that fails is not.
fn broken(error: postgres::Error) -> anyhow::Result<Scanned> {
    match error {
        postgres::Error::Child { .. } => Ok(Scanned::Broken(error.to_string())),
        other => Err(other.into()),
    }
}

/// The newest snapshot of each homeserver.
fn newest(snapshots: &[Snapshot]) -> Vec<&Snapshot> {
    let mut newest: BTreeMap<&str, &Snapshot> = BTreeMap::new();
    for snapshot in snapshots {
        let known = newest.entry(&snapshot.server_name).or_insert(snapshot);
        if known.time < snapshot.time {
            *known = snapshot;
        }
    }
    newest.into_values().collect()
}
