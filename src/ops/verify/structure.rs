//! Structure: every pack that a snapshot names is there and whole, and every blob of every item has a good copy.
//!
//! Read from listings, index and lists alone: no data pack is opened, but for the table of one that no segment names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use super::{BadCopies, Findings, Report, good_copy};
use crate::format::PackId;
use crate::format::list::List;
use crate::format::snapshot::{Snapshot, Stream};
use crate::ops::Run;
use crate::ops::items::{self, stop_if_cancelled};
use crate::repo::catalog::{self, Catalog};
use crate::repo::reader::{ListCursor, Reader, Wanted, read_table};
use crate::repo::{self, Repository};
use crate::synapse::postgres::plan::SCHEMA_STREAM;

/// Raw bytes of a list that are looked at together.
const STEP_BYTES: u64 = 1 << 30;

/// What the listings say of packs.
pub(super) struct Listed {
    /// Named by a snapshot, and gone.
    pub(super) gone: BTreeSet<PackId>,
    /// How many are there that no segment names: of a run that is at work, or was killed, or whose segment is lost.
    pub(super) unnamed: usize,
}

/// Packs, from the listings: of the right length, named by the index, not foreign.
pub(super) async fn check_packs(
    repository: &Repository,
    catalog: &Catalog,
    snapshots: &[Snapshot],
    findings: &mut Findings,
) -> anyhow::Result<Listed> {
    let mut gone = BTreeSet::new();
    let presence = catalog::presence(repository).await?;
    let mut tables: BTreeMap<PackId, Option<String>> = BTreeMap::new();
    for snapshot in snapshots {
        for id in &snapshot.packs {
            let message = match (presence.packs.get(id), catalog.pack(*id)) {
                (None, _) => {
                    gone.insert(*id);
                    None
                }
                (Some(bytes), Some(pack)) if *bytes != pack.bytes => Some(format!("it has {bytes} bytes instead of {}", pack.bytes)),
                (Some(_), Some(_)) => None,
                (Some(_), None) => {
                    if !tables.contains_key(id) {
                        tables.insert(*id, unnamed(repository, *id).await?);
                    }
                    tables[id].clone()
                }
            };
            if let Some(message) = message {
                findings.add(format!("packs/{id}"), message, Some(snapshot));
            }
        }
    }
    for key in presence.foreign {
        findings.add(key, "this object is not one of ours; it is left alone", None);
    }
    let is_unnamed = |id: &&PackId| catalog.pack(**id).is_none() && !presence.condemned.contains(id);
    let unnamed = presence.packs.keys().filter(is_unnamed).count();
    Ok(Listed { gone, unnamed })
}

/// A pack that no segment names: its own table tells whether anything is lost.
async fn unnamed(repository: &Repository, id: PackId) -> anyhow::Result<Option<String>> {
    match read_table(repository, id).await {
        Ok(table) => Ok(Some(format!(
            "no index segment names it; its {} blobs are found by its own table, and `verify --repair-index` names them again",
            table.entries.len()
        ))),
        Err(error @ repo::Error::Damaged { .. }) => Ok(Some(format!(
            "no index segment names it and its table is damaged: {:#}",
            anyhow::Error::from(error)
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Every item of a snapshot: dump streams, config items, media. Is anything lost?
pub(super) async fn check_snapshot(
    reader: &Reader,
    snapshot: &Snapshot,
    bad: &BadCopies,
    report: &mut Report,
    findings: &mut Findings,
    run: &Run<'_>,
) -> anyhow::Result<bool> {
    let mut check = Check {
        reader,
        snapshot,
        bad,
        report,
        findings,
        any_lost: false,
    };
    for database in &snapshot.databases {
        for stream in &database.streams {
            let item = format!("database/{}/{}", database.name, stream.name);
            check.list(&item, &holds(stream), &stream.list, run).await?;
        }
    }
    for item in &snapshot.config {
        check.list(&items::config_name(item), "", &item.list, run).await?;
    }
    check.media(run).await?;
    Ok(check.any_lost)
}

/// Tables of a lost stream that are named; more are counted.
const TABLES_NAMED: usize = 5;

/// What is lost with a stream.
fn holds(stream: &Stream) -> String {
    match stream.tables.as_slice() {
        _ if stream.name == SCHEMA_STREAM => "; it holds the definitions of all tables".to_owned(),
        [] => "; it holds the rows of all tables that have no stream of their own".to_owned(),
        tables if tables.len() > TABLES_NAMED => {
            let named = tables[..TABLES_NAMED].join(", ");
            format!("; it holds the rows of {named} and {} more tables", tables.len() - TABLES_NAMED)
        }
        tables => format!("; it holds the rows of {}", tables.join(", ")),
    }
}

struct Check<'a> {
    reader: &'a Reader,
    snapshot: &'a Snapshot,
    bad: &'a BadCopies,
    report: &'a mut Report,
    findings: &'a mut Findings,
    any_lost: bool,
}

impl Check<'_> {
    fn found(&mut self, item: &str, message: String) {
        self.any_lost = true;
        self.findings.add(item, message, Some(self.snapshot));
    }

    /// How many of these have no good copy.
    async fn lost(&mut self, blobs: &[Wanted]) -> anyhow::Result<u64> {
        let catalog = self.reader.catalog();
        self.report.blobs += blobs.len() as u64;
        let doubtful = blobs.iter().filter(|blob| !good_copy(&catalog, &blob.id, blob.length, self.bad));
        let doubtful: Vec<Wanted> = doubtful.copied().collect();
        if doubtful.is_empty() {
            return Ok(0);
        }
        // The index in memory does not know them: tables and the rest of the index may.
        let located = self.reader.locate(&doubtful).await?;
        // One that the index does not know was found by its own table, so it is there.
        let present = |pack| {
            let known = catalog.pack(pack);
            known.is_none_or(|known| known.present_bytes == Some(known.bytes))
        };
        let good = located
            .iter()
            .filter(|(blob, location)| present(location.pack) && !self.bad.contains(&(location.pack, blob.id)));
        Ok((doubtful.len() - good.count()) as u64)
    }

    /// `holds` ends the sentence that says what is lost.
    async fn list(&mut self, item: &str, holds: &str, list: &List, run: &Run<'_>) -> anyhow::Result<()> {
        let mut cursor = ListCursor::new(list);
        let mut lost = 0;
        loop {
            stop_if_cancelled(run)?;
            match cursor.next(self.reader, STEP_BYTES).await {
                Ok(leaves) if leaves.is_empty() => break,
                Ok(leaves) => lost += self.lost(&leaves.iter().map(Wanted::from).collect::<Vec<_>>()).await?,
                Err(error @ (repo::Error::Lost { .. } | repo::Error::Damaged { .. })) => {
                    self.found(item, format!("its list is lost: {:#}{holds}", anyhow::Error::from(error)));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if lost > 0 {
            self.found(item, format!("{lost} of its {} blobs are lost{holds}", list.blobs));
        }
        Ok(())
    }

    async fn media(&mut self, run: &Run<'_>) -> anyhow::Result<()> {
        let Some(media) = &self.snapshot.media else { return Ok(()) };
        let reader = self.reader;
        let walked = items::walk_media(reader, media, b"", run, async |walked| {
            let shard = match walked.entries {
                Ok(shard) => shard,
                Err(error) => {
                    let problem = items::lost_shard(&walked.shard, &error);
                    self.found(&problem.item, problem.message);
                    return Ok(());
                }
            };
            for entry in &shard.entries {
                let lost = self.lost(&items::wanted(&shard, entry)).await?;
                if lost > 0 {
                    let message = format!("{lost} of its {} blobs are lost", entry.blobs.len());
                    self.found(&items::media_name(&entry.path), message);
                }
            }
            Ok(())
        })
        .await
        .context("walk the media");
        match walked {
            Err(error)
                if error
                    .chain()
                    .any(|cause| matches!(cause.downcast_ref(), Some(repo::Error::Lost { .. }))) =>
            {
                self.found("media", format!("the media list is lost: {error:#}"));
                Ok(())
            }
            other => other,
        }
    }
}
