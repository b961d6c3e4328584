//! `--repair-index`: what no segment names any more is named again, from the packs' own tables.
//!
//! The table of every pack that is there and not condemned is read from its end (one ranged GET), and a pack of which the index
//! lacks a blob is named anew. Only new segments are written; nothing is deleted, and a pack that two segments name does no harm.

use std::collections::HashSet;

use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::Findings;
use crate::format::index::{Segment, SegmentEntry, SegmentPack};
use crate::format::{BlobId, PackId};
use crate::ops::Run;
use crate::repo::catalog::{self, Catalog};
use crate::repo::reader::read_table;
use crate::repo::writer::put_segment;
use crate::repo::{Error, Repository};
use crate::store;

/// Entries of one new segment, about: far below the limit of a segment.
const ENTRIES_WANTED: usize = 200_000;
/// The stage that people see.
const STAGE: &str = "read tables";

/// What was named again.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Repaired {
    /// Packs whose tables were read.
    pub tables: u64,
    /// Packs that are named again.
    pub packs: u64,
    /// Blobs in them.
    pub blobs: u64,
    /// New segments.
    pub segments: u64,
}

/// Name what is not named.
pub(super) async fn repair(
    repository: &Repository,
    catalog: &Catalog,
    connections: usize,
    findings: &mut Findings,
    run: &Run<'_>,
) -> anyhow::Result<Repaired> {
    let presence = catalog::presence(repository).await?;
    let mut there: Vec<(PackId, u64)> = presence.packs.iter().map(|(id, bytes)| (*id, *bytes)).collect();
    there.retain(|(id, _)| !presence.condemned.contains(id));
    there.sort_unstable();
    run.progress.stage(STAGE, None, Some(there.len() as u64));
    let mut repaired = Repaired::default();
    let mut segment = empty(repository);
    let mut tables = stream::iter(there)
        .map(|(id, bytes)| async move { (id, bytes, read_table(repository, id).await) })
        .buffer_unordered(connections.clamp(1, 32));
    while let Some((id, bytes, table)) = tables.next().await {
        run.progress.advance(STAGE, 0, 1);
        let table = match table {
            Ok(table) => table,
            // Deleted since the listing.
            Err(Error::Store(store::Error::NotFound { .. })) => continue,
            Err(error @ Error::Damaged { .. }) => {
                let message = format!(
                    "its table is damaged, so it cannot be named again: {:#}",
                    anyhow::Error::from(error)
                );
                findings.add(format!("packs/{id}"), message, None);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        repaired.tables += 1;
        let lacking = |blob: &BlobId| !catalog.copies(blob).iter().any(|copy| copy.pack == id);
        let known = catalog.pack(id).is_some_and(|pack| pack.bytes == bytes);
        if known && (catalog.truncated || !table.entries.iter().any(|entry| lacking(&entry.id))) {
            continue;
        }
        let ordinal = u32::try_from(segment.packs.len()).unwrap_or(u32::MAX);
        segment.packs.push(SegmentPack {
            id,
            kind: table.kind,
            bytes,
        });
        let mut seen = HashSet::new();
        let entries = table.entries.into_iter().filter(|entry| seen.insert(entry.id));
        segment.entries.extend(entries.map(|blob| SegmentEntry { pack: ordinal, blob }));
        if segment.entries.len() >= ENTRIES_WANTED {
            put(repository, std::mem::replace(&mut segment, empty(repository)), &mut repaired).await?;
        }
    }
    put(repository, segment, &mut repaired).await?;
    run.progress.done(STAGE);
    Ok(repaired)
}

/// A segment of a run of its own.
fn empty(repository: &Repository) -> Segment {
    Segment {
        run: repository.ids().object(),
        packs: Vec::new(),
        entries: Vec::new(),
    }
}

async fn put(repository: &Repository, segment: Segment, repaired: &mut Repaired) -> anyhow::Result<()> {
    if segment.packs.is_empty() {
        return Ok(());
    }
    repaired.packs += segment.packs.len() as u64;
    repaired.blobs += segment.entries.len() as u64;
    repaired.segments += 1;
    put_segment(repository, segment).await?;
    Ok(())
}
