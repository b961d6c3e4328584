//! The reader, the writer's mirror: blob ids in, hashed bytes out (rules R2, R3).
//!
//! A window of wanted blobs is planned as few ranged GETs, fetched in parallel, decoded once a frame, and every blob
//! is hashed before it is believed. A pack that is gone is put aside and the index read anew; a damaged copy is passed
//! over for another one. What is left without any good copy is an error for that blob alone: the caller decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::catalog::{self, Catalog, Location};
use super::{Error, Repository, Result};
use crate::format::list::ListEntry;
use crate::format::pack::{self, PackTable, TailRead};
use crate::format::{BlobId, PackId, keys};
use crate::store::{self, ByteRange};

mod fetch;
mod lists;
mod plan;
mod search;

pub use fetch::read_range;
pub use lists::{ListCursor, Window};
pub use plan::{Read, reads_of};

use search::Places;

/// Rounds of looking for other copies before a blob is given up.
const ROUNDS_MAX: usize = 4;
/// First read of a pack's table from its end; most tables fit.
const TABLE_TAIL_BYTES: u64 = 256 << 10;
/// Tables that are kept in memory.
const TABLES_KEPT: usize = 64;
/// Blobs that no segment names are counted up to here.
pub const UNNAMED_MAX: usize = 100_000;

/// A blob that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: BlobId,
    /// Its raw length, as the list says.
    pub length: u32,
    /// The pack it was in when the list was written.
    pub hint: Option<PackId>,
}

impl From<&ListEntry> for Wanted {
    fn from(entry: &ListEntry) -> Self {
        Self {
            id: entry.id,
            length: entry.length,
            hint: Some(entry.pack),
        }
    }
}

/// One session of reading.
#[derive(Debug)]
pub struct Reader {
    repository: Repository,
    catalog: Mutex<Arc<Catalog>>,
    /// Packs that answered 404, and copies that were damaged.
    aside: Mutex<HashSet<PackId>>,
    bad: Mutex<HashMap<(BlobId, PackId), String>>,
    tables: Mutex<BTreeMap<PackId, Arc<PackTable>>>,
    /// Packs whose own table is damaged. What the index says of them may be good all the same.
    without_table: Mutex<HashSet<PackId>>,
    /// What was found by searching the whole index.
    places: Mutex<Places>,
    /// What was found by the table of its pack alone, although a segment names that pack.
    unnamed: Mutex<HashSet<BlobId>>,
    catalog_bytes: usize,
    connections: usize,
    window_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    /// Load the index (R2) and begin. A quarter of `memory_bytes` bounds the index, an eighth each of two windows.
    pub async fn open(repository: &Repository, memory_bytes: u64, connections: usize) -> Result<Self> {
        let catalog_bytes = usize::try_from(memory_bytes / 4).unwrap_or(usize::MAX);
        let catalog = catalog::load(repository, catalog_bytes).await?;
        Ok(Self::with_catalog(repository, Arc::new(catalog), memory_bytes, connections))
    }

    /// Begin with an index that was loaded already.
    pub fn with_catalog(repository: &Repository, catalog: Arc<Catalog>, memory_bytes: u64, connections: usize) -> Self {
        Self {
            repository: repository.clone(),
            catalog: Mutex::new(catalog),
            aside: Mutex::default(),
            bad: Mutex::default(),
            tables: Mutex::default(),
            without_table: Mutex::default(),
            places: Mutex::new(Places::new(usize::try_from(memory_bytes / 16).unwrap_or(usize::MAX))),
            unnamed: Mutex::default(),
            catalog_bytes: usize::try_from(memory_bytes / 4).unwrap_or(usize::MAX),
            connections: connections.clamp(1, 32),
            window_bytes: (memory_bytes / 8).clamp(16 << 20, 256 << 20),
        }
    }

    /// The same with windows of so many raw bytes, for who has other things in memory.
    #[must_use]
    pub fn with_windows(self, window_bytes: u64) -> Self {
        Self { window_bytes, ..self }
    }

    /// The index as it is known now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&lock(&self.catalog))
    }

    /// Packs that were found gone or not whole until now: nothing new should rely on them.
    pub fn damaged_packs(&self) -> BTreeSet<PackId> {
        let bad = lock(&self.bad);
        let mut packs: BTreeSet<PackId> = bad.keys().map(|(_, pack)| *pack).collect();
        packs.extend(lock(&self.aside).iter());
        packs.extend(lock(&self.without_table).iter());
        packs
    }

    /// Blobs that no segment names, although one names their pack; at most [`UNNAMED_MAX`], and none where the index did not
    /// fit into memory, since nobody knows then.
    pub fn unnamed(&self) -> usize {
        lock(&self.unnamed).len()
    }

    /// Raw bytes that one window may hold.
    pub fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// Where it reads.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The bytes of every wanted blob, in the order in which they were asked for; each hashed, or an error of its own.
    ///
    /// The sum of their lengths is the caller's to bound. An outer error is the store's: nothing can be read at all.
    pub async fn fetch(&self, wanted: &[Wanted]) -> Result<Vec<Result<Bytes>>> {
        let mut found: HashMap<BlobId, Bytes> = HashMap::with_capacity(wanted.len());
        let mut open: Vec<Wanted> = wanted.to_vec();
        for round in 0..ROUNDS_MAX {
            let reads = plan::plan(self.locate(&open).await?);
            let mut gone = false;
            let mut fetches = stream::iter(reads).map(|read| self.read(read)).buffer_unordered(self.connections);
            while let Some(read) = fetches.next().await {
                let outcome = read?;
                gone |= outcome.gone;
                found.extend(outcome.blobs);
            }
            drop(fetches);
            open.retain(|wanted| !found.contains_key(&wanted.id));
            if open.is_empty() {
                break;
            }
            #[cfg(test)]
            if crate::repo::bugs::planted(crate::repo::bugs::Bug::FirstIndexKept) {
                continue;
            }
            if gone || round == 0 {
                // R3: on 404 that pack is put aside and the index is loaded again.
                let catalog = catalog::load(&self.repository, self.catalog_bytes).await?;
                *lock(&self.catalog) = Arc::new(catalog);
            }
        }
        Ok(wanted
            .iter()
            .map(|wanted| found.get(&wanted.id).cloned().ok_or_else(|| self.lost(wanted)))
            .collect())
    }

    fn lost(&self, wanted: &Wanted) -> Error {
        let bad = lock(&self.bad);
        let mut reasons: Vec<String> = bad
            .iter()
            .filter(|((id, _), _)| *id == wanted.id)
            .map(|((_, pack), reason)| format!("pack {pack}: {reason}"))
            .collect();
        reasons.sort();
        if reasons.is_empty() {
            reasons.push(match wanted.hint {
                Some(hint) => format!("no index names it, and pack {hint} does not have it or is gone"),
                None => "no index names it".to_owned(),
            });
        }
        Error::Lost {
            id: wanted.id,
            reason: reasons.join("; "),
        }
    }

    /// A good copy of each: from the index, else from the table of the pack that the hint names, else, where the index did
    /// not fit into memory, by searching all of it.
    pub async fn locate(&self, wanted: &[Wanted]) -> Result<Vec<(Wanted, Location)>> {
        let mut located = Vec::with_capacity(wanted.len());
        let open = self.locate_each(wanted, &mut located).await?;
        if !open.is_empty() && self.catalog().truncated {
            self.search(&open).await?;
            self.locate_each(&open, &mut located).await?;
        }
        Ok(located)
    }

    /// What is known without a search; gives those that are not.
    async fn locate_each(&self, wanted: &[Wanted], located: &mut Vec<(Wanted, Location)>) -> Result<Vec<Wanted>> {
        let mut open = Vec::new();
        let catalog = self.catalog();
        for wanted in wanted {
            let known = self.choose(wanted, catalog.copies(&wanted.id));
            let known = known.or_else(|| self.choose(wanted, lock(&self.places).of(&wanted.id)));
            match known {
                Some(location) => located.push((*wanted, location)),
                None => match self.locate_by_hint(wanted).await? {
                    Some(location) => located.push((*wanted, location)),
                    None => open.push(*wanted),
                },
            }
        }
        Ok(open)
    }

    /// The copy to read: not put aside, not known to be damaged, of the right length; in the hinted pack if it is good.
    fn choose(&self, wanted: &Wanted, copies: Vec<Location>) -> Option<Location> {
        let (aside, bad) = (lock(&self.aside), lock(&self.bad));
        let good = |location: &Location| {
            !aside.contains(&location.pack) && !bad.contains_key(&(wanted.id, location.pack)) && location.blob.raw_length == wanted.length
        };
        let mut copies = copies.into_iter().filter(good);
        let first = copies.next()?;
        if Some(first.pack) == wanted.hint {
            return Some(first);
        }
        Some(copies.find(|location| Some(location.pack) == wanted.hint).unwrap_or(first))
    }

    /// Where the table of the pack that the hint names has it; for what no index names.
    pub async fn locate_by_hint(&self, wanted: &Wanted) -> Result<Option<Location>> {
        let Some(hint) = wanted.hint else { return Ok(None) };
        if lock(&self.aside).contains(&hint) || lock(&self.without_table).contains(&hint) {
            return Ok(None);
        }
        let Some(table) = self.table(hint).await? else { return Ok(None) };
        let copies = table
            .entries
            .iter()
            .filter(|blob| blob.id == wanted.id)
            .map(|blob| Location { pack: hint, blob: *blob })
            .collect();
        let found = self.choose(wanted, copies);
        if found.is_some() {
            self.note_unnamed(&wanted.id, hint);
        }
        Ok(found)
    }

    /// A compacted segment is cut by blob: when one is lost, others still name every pack, but not every blob.
    fn note_unnamed(&self, id: &BlobId, pack: PackId) {
        let catalog = self.catalog();
        let is_named = || catalog.copies(id).iter().any(|copy| copy.pack == pack);
        let mut unnamed = lock(&self.unnamed);
        if !catalog.truncated && unnamed.len() < UNNAMED_MAX && catalog.pack(pack).is_some() && !is_named() {
            unnamed.insert(*id);
        }
    }

    /// A pack's own table. `None`: the pack is gone, and put aside; or its table is damaged, and not read again.
    async fn table(&self, id: PackId) -> Result<Option<Arc<PackTable>>> {
        if let Some(table) = lock(&self.tables).get(&id) {
            return Ok(Some(Arc::clone(table)));
        }
        match read_table(&self.repository, id).await {
            Ok(table) => {
                let table = Arc::new(table);
                let mut tables = lock(&self.tables);
                if tables.len() >= TABLES_KEPT {
                    tables.pop_first();
                }
                tables.insert(id, Arc::clone(&table));
                Ok(Some(table))
            }
            Err(Error::Store(store::Error::NotFound { .. })) => {
                self.put_aside(id);
                Ok(None)
            }
            Err(Error::Damaged { .. }) => {
                lock(&self.without_table).insert(id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn put_aside(&self, pack: PackId) {
        lock(&self.aside).insert(pack);
    }

    fn note_bad(&self, id: BlobId, pack: PackId, reason: &str) {
        lock(&self.bad).insert((id, pack), reason.to_owned());
    }
}

/// Read a pack's table from the end of the object: one ranged GET, two for a very large table.
pub async fn read_table(repository: &Repository, id: PackId) -> Result<PackTable> {
    let key = keys::pack(id);
    let mut tail_bytes = TABLE_TAIL_BYTES;
    loop {
        let got = repository.store.get(&key, ByteRange::Last(tail_bytes)).await?;
        match pack::decode_table(&got.bytes, got.object_bytes).map_err(|source| Error::damaged(&key, source))? {
            // A copied pack (rule B4) keeps its old id in the table: the key is what counts.
            TailRead::Table(table) => return Ok(PackTable { id, ..table }),
            // The whole object was read and it still is not enough: the footer lies.
            TailRead::NeedTail(_) if tail_bytes >= got.object_bytes => {
                let source = crate::format::Error::Damaged {
                    what: "pack table",
                    place: "footer".into(),
                };
                return Err(Error::damaged(&key, source));
            }
            TailRead::NeedTail(more) => tail_bytes = more,
        }
    }
}
