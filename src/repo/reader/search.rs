//! Blobs that neither the index in memory nor the hint of their list knows: they are looked for in the whole index.
//!
//! This happens where the index did not fit into its share of memory and packs were moved since the list was written. A
//! segment is read at a time and only what is wanted is kept; the tables of the packs where something was found
//! are kept as well, since blobs that moved together are wanted together. So a wrong hint costs a read, never a blob.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Reader, Wanted, lock, read_table};
use crate::format::pack::BlobEntry;
use crate::format::{BlobId, PackId};
use crate::repo::catalog::{Location, each_segment};
use crate::repo::{Error, Result};
use crate::store;

/// Places that are kept at least, however little memory there is.
const PLACES_MIN: usize = 8_192;
/// Bytes one kept place takes, with the map's slack.
const PLACE_BYTES: usize = 128;
/// Tables that are read for their neighbours after one search.
const TABLES_MAX: usize = 32;

/// Where blobs were found by searching. Bounded: when it is full it begins anew.
#[derive(Debug)]
pub(super) struct Places {
    by_blob: HashMap<BlobId, Vec<Location>>,
    count: usize,
    count_max: usize,
}

impl Places {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            by_blob: HashMap::new(),
            count: 0,
            count_max: (bytes_max / PLACE_BYTES).max(PLACES_MIN),
        }
    }

    pub(super) fn of(&self, id: &BlobId) -> Vec<Location> {
        self.by_blob.get(id).cloned().unwrap_or_default()
    }

    fn add(&mut self, pack: PackId, blob: BlobEntry) {
        if self.count >= self.count_max {
            self.by_blob.clear();
            self.count = 0;
        }
        let found = self.by_blob.entry(blob.id).or_default();
        let location = Location { pack, blob };
        if !found.contains(&location) {
            found.push(location);
            self.count += 1;
        }
    }
}

impl Reader {
    /// Read the whole index for these blobs, and remember where they are.
    pub(super) async fn search(&self, wanted: &[Wanted]) -> Result<()> {
        let ids: HashSet<BlobId> = wanted.iter().map(|wanted| wanted.id).collect();
        let found = self.search_index(&ids).await?;
        let packs: BTreeSet<PackId> = found.iter().map(|location| location.pack).collect();
        for pack in packs.into_iter().take(TABLES_MAX) {
            match read_table(&self.repository, pack).await {
                Ok(table) => table.entries.iter().for_each(|blob| lock(&self.places).add(pack, *blob)),
                Err(Error::Store(store::Error::NotFound { .. }) | Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Last, so that the neighbours do not push them out.
        let mut places = lock(&self.places);
        for location in found {
            places.add(location.pack, location.blob);
        }
        Ok(())
    }

    async fn search_index(&self, ids: &HashSet<BlobId>) -> Result<Vec<Location>> {
        each_segment(
            &self.repository,
            |_| true,
            Vec::new,
            |found, _, segment| {
                // One that is damaged was told when the index was loaded.
                let Ok(segment) = segment else { return Ok(()) };
                let hits = segment.entries().flatten().filter(|entry| ids.contains(&entry.blob.id));
                found.extend(hits.map(|entry| Location {
                    pack: segment.packs[entry.pack as usize].id,
                    blob: entry.blob,
                }));
                Ok(())
            },
        )
        .await
    }
}
