//! Lists of blobs, as a tree: entries are gathered into list blobs, whose own entries form the next level.
//!
//! A level that stays small enough is the root and goes into the snapshot. Lists are metadata and deduplicate like
//! everything else: an unchanged run of a stream gives the same list blobs.

use super::gather::Gatherer;
use super::{Result, Writer};
use crate::format::PackKind;
use crate::format::list::{LIST_ROOT_ENTRIES_MAX, List, ListCutter, ListEntry};

/// Writes one list, entry by entry.
#[derive(Debug)]
pub struct ListWriter {
    writer: Writer,
    levels: Vec<Level>,
    blobs: u64,
    bytes: u64,
}

/// One level: its entries while they may still be the root, else the blobs they are cut into.
#[derive(Debug)]
struct Level {
    root: Vec<ListEntry>,
    cutting: Option<(ListCutter, Gatherer)>,
}

impl Level {
    fn new() -> Self {
        Self {
            root: Vec::new(),
            cutting: None,
        }
    }

    /// One more entry; gives what must go into a list blob now.
    fn push(&mut self, writer: &Writer, entry: ListEntry) -> Vec<Vec<u8>> {
        if let Some((cutter, _)) = &mut self.cutting {
            return cutter.push(entry).into_iter().collect();
        }
        self.root.push(entry);
        if self.root.len() <= LIST_ROOT_ENTRIES_MAX {
            return Vec::new();
        }
        let mut cutter = ListCutter::new();
        let finished = std::mem::take(&mut self.root)
            .into_iter()
            .filter_map(|entry| cutter.push(entry))
            .collect();
        self.cutting = Some((cutter, Gatherer::new(writer, PackKind::Metadata)));
        finished
    }
}

impl ListWriter {
    /// An empty list.
    pub fn new(writer: &Writer) -> Self {
        Self {
            writer: writer.clone(),
            levels: vec![Level::new()],
            blobs: 0,
            bytes: 0,
        }
    }

    /// The next blob of the stream.
    pub async fn push(&mut self, entry: ListEntry) -> Result<()> {
        self.blobs += 1;
        self.bytes += u64::from(entry.length);
        let mut entries = vec![entry];
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Level::new());
            }
            let current = &mut self.levels[level];
            let mut finished = Vec::new();
            for entry in entries {
                finished.extend(current.push(&self.writer, entry));
            }
            let Some((_, gatherer)) = &mut current.cutting else { return Ok(()) };
            entries = store(gatherer, finished).await?;
            if entries.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// All levels are in their packs; gives the root.
    pub async fn finish(mut self) -> Result<List> {
        let mut entries = Vec::new();
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Level::new());
            }
            let current = &mut self.levels[level];
            let mut finished = Vec::new();
            for entry in std::mem::take(&mut entries) {
                finished.extend(current.push(&self.writer, entry));
            }
            let Some((cutter, gatherer)) = &mut current.cutting else {
                let depth = u8::try_from(level).unwrap_or(u8::MAX);
                return Ok(List {
                    depth,
                    blobs: self.blobs,
                    bytes: self.bytes,
                    entries: std::mem::take(&mut current.root),
                });
            };
            finished.extend(cutter.finish());
            entries = store(gatherer, finished).await?;
            gatherer.finish().await?;
            entries.extend(std::iter::from_fn(|| gatherer.ready()));
        }
        unreachable_level()
    }
}

fn unreachable_level() -> Result<List> {
    Err(super::Error::Worker("a list without a root".into()))
}

/// Into metadata packs; gives the entries of those whose place is known by now.
async fn store(gatherer: &mut Gatherer, blobs: Vec<Vec<u8>>) -> Result<Vec<ListEntry>> {
    for blob in blobs {
        gatherer.push_one(blob).await?;
    }
    Ok(std::iter::from_fn(|| gatherer.ready()).collect())
}
