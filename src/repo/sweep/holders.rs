//! Which packs hold what late snapshots need, now.
//!
//! A document names the packs of the day on which it was written. That those are there is not enough: compaction cuts segments by
//! blob, so where one of them is missing every pack may still be named by the others. So the snapshots are walked, all at once, since
//! they share most of their lists, and their blobs are merged with the lines of the index, both sorted in runs as a prune does
//! it: memory is bounded, whatever the size of the index. Where something is missing, each is walked by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::SurveyOptions;
use super::join::each_blob;
use super::live::blocking;
use super::rows::{self, LINE_BYTES, LIVE_BYTES, Line};
use super::sorter::{Sorted, Sorter};
use super::survey::{read_index, spooled};
use crate::format::snapshot::Snapshot;
use crate::format::{BlobId, PackId};
use crate::repo::catalog::{self, Catalog, CatalogPack};
use crate::repo::reader::Reader;
use crate::repo::walk::{Sink, Walk};
use crate::repo::{Error, Repository, Result};

/// What a snapshot can rely on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Packs that are there and have its blobs. Some may be condemned: the check before a commit copies those.
    pub packs: BTreeSet<PackId>,
    /// Blobs that no pack has which is there and which a segment names. A list that cannot be read counts as one.
    pub lost: u64,
}

/// One look at index and packs, by which any number of snapshots are judged.
#[derive(Debug)]
pub struct Holders {
    options: SurveyOptions,
    /// The packs that segments name; no blobs.
    named: Catalog,
    index: Option<Index>,
    /// Packs that hold what any of the snapshots needs, if nothing is missing.
    all: Option<Held>,
}

/// Every line of the index, and what reads the lists.
#[derive(Debug)]
struct Index {
    reader: Reader,
    lines: Arc<Sorted<LINE_BYTES>>,
    /// In the places that lines name: a pack that is there, and whether it is condemned.
    packs: Arc<Vec<Option<(PackId, bool)>>>,
}

impl Holders {
    /// Look: index first, listings after (B1).
    pub async fn look(repository: &Repository, options: SurveyOptions) -> Result<Self> {
        Ok(Self {
            options,
            named: catalog::load(repository, 0).await?,
            index: None,
            all: None,
        })
    }

    /// Look once more. True: packs or what names them have changed since.
    pub async fn look_again(&mut self, repository: &Repository) -> Result<bool> {
        let again = catalog::load(repository, 0).await?;
        let has_changed = by_id(&again) != by_id(&self.named);
        if has_changed {
            self.named = again;
            self.index = None;
            self.all = None;
        }
        Ok(has_changed)
    }

    /// Walk all of these together. If nothing of them is missing, none needs to be walked by itself.
    pub async fn walk_all(&mut self, repository: &Repository, snapshots: &[&Snapshot]) -> Result<()> {
        let held = self.walked(repository, snapshots).await?;
        self.all = (held.lost == 0).then_some(held);
        Ok(())
    }

    /// What holds the blobs of this snapshot, and perhaps those of the others that were walked with it.
    pub async fn of(&mut self, repository: &Repository, snapshot: &Snapshot) -> Result<Held> {
        match &self.all {
            Some(all) => Ok(all.clone()),
            None => self.walked(repository, &[snapshot]).await,
        }
    }

    async fn walked(&mut self, repository: &Repository, snapshots: &[&Snapshot]) -> Result<Held> {
        let index = match &self.index {
            Some(index) => index,
            None => self.index.insert(Index::read(repository, &self.options).await?),
        };
        index.holders(snapshots, &self.options).await
    }
}

fn by_id(catalog: &Catalog) -> BTreeMap<PackId, &CatalogPack> {
    catalog.packs().iter().map(|pack| (pack.id, pack)).collect()
}

impl Index {
    async fn read(repository: &Repository, options: &SurveyOptions) -> Result<Self> {
        let mut index = read_index(repository, options).await?;
        let presence = catalog::presence(repository).await?;
        let mut catalog = std::mem::take(&mut index.catalog);
        catalog.sort();
        catalog.note(&presence);
        let there = |pack: &CatalogPack| (pack.present_bytes == Some(pack.bytes)).then_some((pack.id, pack.condemned));
        let packs = Arc::new(catalog.packs().iter().map(there).collect());
        let lines = blocking(&options.spool_folder, move || index.lines.finish()).await?;
        Ok(Self {
            reader: Reader::with_catalog(repository, Arc::new(catalog), options.memory_bytes / 2, options.connections),
            lines: Arc::new(lines),
            packs,
        })
    }

    async fn holders(&self, snapshots: &[&Snapshot], options: &SurveyOptions) -> Result<Held> {
        let share = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
        let mut needed = Needed {
            blobs: Sorter::new(share, &options.spool_folder),
            unreadable: 0,
            folder: options.spool_folder.clone(),
        };
        let mut walk = Walk::new(options.memory_bytes / 16);
        for snapshot in snapshots {
            walk.begin(snapshot, &mut needed)?;
            walk.finish(&self.reader, &mut needed).await?;
        }
        let (lines, packs) = (Arc::clone(&self.lines), Arc::clone(&self.packs));
        let Needed { blobs, unreadable, folder } = needed;
        let mut held = blocking(&folder, move || join(&lines, &packs, &blobs.finish()?)).await?;
        held.lost += unreadable;
        Ok(held)
    }
}

/// A pack for each blob: not a condemned one where there is a choice, and rather one that is taken already.
fn join(lines: &Sorted<LINE_BYTES>, packs: &[Option<(PackId, bool)>], needed: &Sorted<LIVE_BYTES>) -> io::Result<Held> {
    let mut held = Held::default();
    each_blob(lines, needed, |blob| {
        if blob.live.is_none() {
            return Ok(());
        }
        let there = blob.lines.iter().filter_map(|line: &Line| packs[line.pack as usize]);
        match there.min_by_key(|(id, condemned)| (*condemned, !held.packs.contains(id))) {
            Some((id, _)) => {
                held.packs.insert(id);
            }
            None => held.lost += 1,
        }
        Ok(())
    })?;
    Ok(held)
}

/// Blobs that one snapshot needs into the sorter.
struct Needed {
    blobs: Sorter<LIVE_BYTES>,
    unreadable: u64,
    folder: PathBuf,
}

impl Sink for Needed {
    fn blob(&mut self, id: &BlobId, _: u32) -> Result<()> {
        let pushed = self.blobs.push(rows::live(id, false));
        pushed.map_err(|error| spooled(&self.folder, error))
    }

    fn unreadable(&mut self, id: &BlobId, error: Error) -> Result<()> {
        tracing::debug!(%id, %error, "a list cannot be read");
        self.unreadable += 1;
        Ok(())
    }
}
