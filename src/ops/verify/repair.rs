//! `--repair-index`: what no segment names any more is named again, from the packs' own tables.
//!
//! The table of every pack that is there and not condemned is read from its end (one ranged GET), and the index is held against it,
//! blob by blob: a pack of which it lacks one is named anew. Where the tables do not fit into memory this is done in rounds, so the index
//! need not fit. Only new segments are written; nothing is deleted, and a pack that two segments name does no harm.

use std::collections::HashMap;

use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::Findings;
use crate::format::index::{Segment, SegmentEntry, SegmentPack};
use crate::format::pack::BlobEntry;
use crate::format::{PackId, PackKind};
use crate::ops::{Limits, Run};
use crate::repo::catalog::{self, ENTRY_BYTES, each_segment};
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

/// What a pack says of itself.
struct Table {
    id: PackId,
    kind: PackKind,
    bytes: u64,
    /// By their ids, each once.
    entries: Vec<BlobEntry>,
}

/// Name what is not named.
pub(super) async fn repair(repository: &Repository, limits: Limits, findings: &mut Findings, run: &Run<'_>) -> anyhow::Result<Repaired> {
    let presence = catalog::presence(repository).await?;
    let mut there: Vec<(PackId, u64)> = presence.packs.iter().map(|(id, bytes)| (*id, *bytes)).collect();
    there.retain(|(id, _)| !presence.condemned.contains(id));
    there.sort_unstable();
    run.progress.stage(STAGE, None, Some(there.len() as u64));
    let entries_max = usize::try_from(limits.memory_bytes / 4).unwrap_or(usize::MAX) / ENTRY_BYTES;
    let mut repaired = Repaired::default();
    let mut segment = empty(repository);
    let mut rest = there.as_slice();
    while !rest.is_empty() {
        let (taken, tables) = read_tables(repository, rest, entries_max, limits.connections, findings, run).await?;
        rest = &rest[taken..];
        repaired.tables += tables.len() as u64;
        let lacking = lacking(repository, &tables).await?;
        for (table, _) in tables.into_iter().zip(lacking).filter(|(_, lacking)| *lacking) {
            let ordinal = u32::try_from(segment.packs.len()).unwrap_or(u32::MAX);
            segment.packs.push(SegmentPack {
                id: table.id,
                kind: table.kind,
                bytes: table.bytes,
            });
            let entries = table.entries.into_iter().map(|blob| SegmentEntry { pack: ordinal, blob });
            segment.entries.extend(entries);
            if segment.entries.len() >= ENTRIES_WANTED {
                put(repository, std::mem::replace(&mut segment, empty(repository)), &mut repaired).await?;
            }
        }
    }
    put(repository, segment, &mut repaired).await?;
    run.progress.done(STAGE);
    Ok(repaired)
}

/// The tables of the first of these packs, as many as have `entries_max` entries (at least one), and how many packs that are.
async fn read_tables(
    repository: &Repository,
    packs: &[(PackId, u64)],
    entries_max: usize,
    connections: usize,
    findings: &mut Findings,
    run: &Run<'_>,
) -> anyhow::Result<(usize, Vec<Table>)> {
    let (mut taken, mut entries) = (0, 0);
    let mut tables = Vec::new();
    let mut reads = stream::iter(packs)
        .map(|(id, bytes)| async move { (*id, *bytes, read_table(repository, *id).await) })
        .buffered(connections.clamp(1, 32));
    while entries < entries_max.max(1)
        && let Some((id, bytes, read)) = reads.next().await
    {
        taken += 1;
        run.progress.advance(STAGE, 0, 1);
        let mut table = match read {
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
        table.entries.sort_by_key(|entry| entry.id);
        table.entries.dedup_by_key(|entry| entry.id);
        entries += table.entries.len();
        tables.push(Table {
            id,
            kind: table.kind,
            bytes,
            entries: table.entries,
        });
    }
    Ok((taken, tables))
}

/// Of each of these packs: does the index lack one of its blobs? A line that gives the pack another length names nothing.
async fn lacking(repository: &Repository, tables: &[Table]) -> anyhow::Result<Vec<bool>> {
    let places: HashMap<(PackId, u64), usize> = tables.iter().enumerate().map(|(at, table)| ((table.id, table.bytes), at)).collect();
    let nothing = || tables.iter().map(|table| vec![false; table.entries.len()]).collect();
    let named: Vec<Vec<bool>> = each_segment(
        repository,
        |_| true,
        nothing,
        |named: &mut Vec<Vec<bool>>, _, segment| {
            // What a damaged segment names is as good as not indexed.
            let Ok(segment) = segment else { return Ok(()) };
            let packs: Vec<Option<usize>> = segment
                .packs
                .iter()
                .map(|pack| places.get(&(pack.id, pack.bytes)).copied())
                .collect();
            for entry in segment.entries().flatten() {
                if let Some(at) = packs[entry.pack as usize]
                    && let Ok(place) = tables[at].entries.binary_search_by_key(&entry.blob.id, |blob| blob.id)
                {
                    named[at][place] = true;
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok(named.iter().map(|named| named.contains(&false)).collect())
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
