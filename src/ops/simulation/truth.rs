//! What must hold, and who looks: every listed snapshot is complete and indexed, after every request that took effect, and what was told
//! to count goes on counting.
//!
//! The truth is kept beside the product and shares only the format with it. It remembers the bytes of every blob that was ever
//! stored, opens every pack, segment and snapshot that lands, and knows what each snapshot needs. *Complete and indexed*: each blob
//! that the snapshot needs is in a pack that is there, at the place that a segment which is there says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;

use super::wire::Ask;
use crate::format::frame::FrameDecoder;
use crate::format::list::{List, ListEntry, decode_list};
use crate::format::manifest::{decode_shard, decode_shard_ref};
use crate::format::pack::{BlobEntry, TailRead, decode_table};
use crate::format::snapshot::{self, Snapshot};
use crate::format::{BlobId, ObjectId, PackId, index, keys};
use crate::repo::reader::Wanted;
use crate::store::memory::Memory;
use crate::store::{ByteRange, Store};

/// A broken promise, in words.
pub(super) type Broken = String;

/// What is in the store, understood.
#[derive(Debug, Default)]
pub(super) struct Truth {
    contents: HashMap<BlobId, Bytes>,
    tables: BTreeMap<PackId, Vec<BlobEntry>>,
    pub(super) packs: BTreeSet<PackId>,
    pub(super) markers: BTreeSet<PackId>,
    pub(super) segments: BTreeMap<String, Vec<(PackId, BlobEntry)>>,
    pub(super) snapshots: BTreeMap<String, Known>,
    /// Snapshots that were listed at some time.
    pub(super) ever_listed: HashSet<ObjectId>,
    /// Keys of snapshots of which success was told, until somebody deletes them.
    promised: BTreeSet<String>,
}

/// A snapshot that is there.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: ObjectId,
    /// Every blob it needs, in the order in which a restore would want them.
    pub(super) needs: Vec<Wanted>,
    pub(super) not_after: Timestamp,
    pub(super) landed: Timestamp,
}

impl Known {
    /// It landed in time: it counts.
    pub(super) fn listed(&self) -> bool {
        self.landed <= self.not_after
    }
}

impl Truth {
    /// Success is told: from now on this snapshot counts until it is forgotten.
    pub(super) fn told(&mut self, id: ObjectId) {
        let of = self.snapshots.iter().filter(|(_, known)| known.id == id && known.listed());
        self.promised.extend(of.map(|(key, _)| key.clone()));
    }

    /// What was told was told of another repository.
    pub(super) fn mirrored(&mut self) {
        self.promised.clear();
        self.ever_listed.clear();
    }

    /// Does this snapshot count now?
    pub(super) fn lists(&self, id: ObjectId) -> bool {
        self.snapshots.values().any(|known| known.id == id && known.listed())
    }

    /// A request took effect: understand what it changed, and look whether everything still holds.
    pub(super) fn landed(&mut self, memory: &Memory, ask: &Ask) -> Result<(), Broken> {
        match ask {
            Ask::Put(key, _) | Ask::Copy(_, key) => {
                let object = memory.get(key, ByteRange::All).now_or_never();
                // A copy of what is gone writes nothing.
                if let Some(Ok(got)) = object {
                    self.written(key, &got.bytes, got.last_modified)
                        .map_err(|why| format!("{key}: {why}"))?;
                }
            }
            Ask::Delete(key) => self.deleted(key),
            Ask::Get(..) | Ask::Head(_) | Ask::List(..) => return Ok(()),
        }
        self.look()
    }

    fn written(&mut self, key: &str, bytes: &Bytes, landed: Timestamp) -> Result<(), Broken> {
        if let Some(id) = keys::parse_pack(key) {
            let table = open_pack(bytes, &mut self.contents)?;
            self.tables.insert(id, table);
            self.packs.insert(id);
        } else if let Some(id) = keys::parse_condemned(key) {
            self.markers.insert(id);
        } else if keys::parse_segment(key).is_some() {
            let segment = index::decode_segment(bytes).map_err(words)?;
            let lines = segment
                .entries
                .iter()
                .map(|entry| (segment.packs[entry.pack as usize].id, entry.blob));
            self.segments.insert(key.to_owned(), lines.collect());
        } else if keys::parse_snapshot(key).is_some() {
            let (document, signed) = snapshot::decode(bytes).map_err(words)?;
            let needs = self.needs(&document)?;
            let known = Known {
                id: document.id,
                needs,
                not_after: signed.not_after,
                landed,
            };
            if known.listed() {
                self.ever_listed.insert(known.id);
            }
            self.snapshots.insert(key.to_owned(), known);
        }
        Ok(())
    }

    fn deleted(&mut self, key: &str) {
        if let Some(id) = keys::parse_pack(key) {
            self.packs.remove(&id);
        } else if let Some(id) = keys::parse_condemned(key) {
            self.markers.remove(&id);
        }
        self.segments.remove(key);
        self.snapshots.remove(key);
        self.promised.remove(key);
    }

    /// Every listed snapshot is complete and indexed, and what was told to count does so.
    fn look(&self) -> Result<(), Broken> {
        if let Some(key) = self.promised.iter().find(|key| !self.snapshots[*key].listed()) {
            return Err(format!("success of {key} was told, and it is late now"));
        }
        let mut there: HashSet<BlobId> = HashSet::new();
        for (pack, blob) in self.segments.values().flatten() {
            if self.packs.contains(pack) && self.tables.get(pack).is_some_and(|table| table.contains(blob)) {
                there.insert(blob.id);
            }
        }
        for (key, known) in self.snapshots.iter().filter(|(_, known)| known.listed()) {
            if let Some(lost) = known.needs.iter().find(|wanted| !there.contains(&wanted.id)) {
                let held: Vec<String> = self.packs_with(&lost.id).collect();
                let held = held.join(", ");
                return Err(format!(
                    "{key} is listed, and blob {} of it is in no present, indexed pack (it was in: {held})",
                    lost.id
                ));
            }
        }
        Ok(())
    }

    /// What prunes should have removed: packs in which nothing is needed, markers, segments that name nothing.
    pub(super) fn garbage(&self) -> Result<(), Broken> {
        let mut wrong = String::new();
        let needs = self.snapshots.values().flat_map(|known| &known.needs);
        let needed: BTreeSet<BlobId> = needs.map(|wanted| wanted.id).collect();
        for pack in &self.packs {
            let mut lines = self.segments.values().flatten().filter(|(named, _)| named == pack);
            if !lines.any(|(_, blob)| needed.contains(&blob.id)) {
                let _ = write!(wrong, "pack {pack} holds nothing that is needed; ");
            }
        }
        for marker in &self.markers {
            let _ = write!(wrong, "the marker of {marker} is still there; ");
        }
        let names_nothing = |lines: &&Vec<_>| !lines.iter().any(|(pack, _)| self.packs.contains(pack));
        let empty = self.segments.values().filter(names_nothing).count();
        // One segment alone is not worth a compaction.
        if empty > 1 {
            let _ = write!(wrong, "{empty} segments name nothing that is there; ");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn packs_with<'a>(&'a self, id: &'a BlobId) -> impl Iterator<Item = String> + 'a {
        let with = self.tables.iter().filter(|(_, table)| table.iter().any(|blob| blob.id == *id));
        with.map(|(pack, _)| {
            let there = if self.packs.contains(pack) { "there" } else { "gone" };
            let marked = if self.markers.contains(pack) { ", marked" } else { "" };
            let named = self.segments.values().flatten().any(|(named, _)| named == pack);
            format!("{pack} ({there}{marked}{})", if named { "" } else { ", not indexed" })
        })
    }

    /// Everything that a snapshot needs, lists before what they name.
    fn needs(&self, document: &Snapshot) -> Result<Vec<Wanted>, Broken> {
        let mut needs = Vec::new();
        let media = document.media.as_ref().map(|media| &media.shards);
        let plain = document.lists().filter(|list| Some(*list) != media);
        for list in plain {
            self.leaves(list, &mut needs)?;
        }
        let Some(shards) = media else { return Ok(needs) };
        for leaf in self.leaves(shards, &mut needs)? {
            let lines = self.content(&leaf.id)?;
            for (number, line) in (1..).zip(lines.split_inclusive(|byte| *byte == b'\n')) {
                let line = decode_shard_ref(line, number).map_err(words)?;
                needs.push(Wanted {
                    id: line.blob,
                    length: line.length,
                    hint: Some(line.pack),
                });
                let shard = decode_shard(&self.content(&line.blob)?).map_err(words)?;
                needs.extend(shard.entries.iter().flat_map(|entry| &entry.blobs).map(|blob| Wanted {
                    id: blob.id,
                    length: blob.length,
                    hint: shard.packs.get(blob.pack as usize).copied(),
                }));
            }
        }
        Ok(needs)
    }

    /// The leaves of a list; all its blobs are noted.
    fn leaves(&self, list: &List, needs: &mut Vec<Wanted>) -> Result<Vec<ListEntry>, Broken> {
        let mut level = list.entries.clone();
        needs.extend(level.iter().map(Wanted::from));
        for _ in 0..list.depth {
            let mut below = Vec::new();
            for entry in &level {
                below.extend(decode_list(&self.content(&entry.id)?).map_err(words)?);
            }
            needs.extend(below.iter().map(Wanted::from));
            level = below;
        }
        Ok(level)
    }

    fn content(&self, id: &BlobId) -> Result<Bytes, Broken> {
        let content = self.contents.get(id).cloned();
        content.ok_or_else(|| format!("it needs blob {id}, which nobody ever stored"))
    }
}

/// Open a pack, hash every blob in it, and remember the bytes.
fn open_pack(bytes: &Bytes, contents: &mut HashMap<BlobId, Bytes>) -> Result<Vec<BlobEntry>, Broken> {
    let TailRead::Table(table) = decode_table(bytes, bytes.len() as u64).map_err(words)? else {
        return Err("its table is cut short".into());
    };
    let mut decoder = FrameDecoder::new().map_err(words)?;
    for frame in table.entries.chunk_by(|a, b| a.frame_offset == b.frame_offset) {
        let (start, length) = (frame[0].frame_offset as usize, frame[0].frame_length as usize);
        let raw = Bytes::from(decoder.decode(&bytes[start..start + length]).map_err(words)?);
        for blob in frame {
            let start = blob.offset_in_frame as usize;
            let content = raw.slice(start..start + blob.raw_length as usize);
            if BlobId::of(&content) != blob.id {
                return Err(format!("blob {} has other bytes", blob.id));
            }
            contents.insert(blob.id, content);
        }
    }
    Ok(table.entries)
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives the value")]
fn words(error: crate::format::Error) -> Broken {
    error.to_string()
}
