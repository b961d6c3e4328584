//! The index and what lives, side by side in the order of the blob ids: what of each pack is live, and what else holds it.
//!
//! Two passes over rows that were sorted once. The first counts; with its counts the second chooses, of several copies of a
//! live blob, the one that is kept, and notes what would have to be moved.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::live::MISSING_KEPT;
use super::rows::{self, FRAMED_BYTES, LINE_BYTES, LIVE_BYTES, Line, MOVE_BYTES};
use super::sorter::{Merge, Sorted, Sorter};
use super::{Moves, SeenPack, Share};
use crate::format::{BlobId, PackId};

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

/// What the two passes found beside the shares of the packs.
pub(super) struct Joined {
    pub(super) packs: Vec<SeenPack>,
    pub(super) live: Share,
    /// Live blobs of listed snapshots in no present, indexed pack.
    pub(super) missing_blobs: u64,
    /// The first of them.
    pub(super) missing: HashSet<BlobId>,
    pub(super) moves: Moves,
    /// Every line, if that was asked for.
    pub(super) framed: Option<Sorted<FRAMED_BYTES>>,
}

/// Both passes. Lines name packs by their place in `packs`; `framed` takes them with what becomes of each.
pub(super) fn join(
    mut packs: Vec<SeenPack>,
    lines: &Sorted<LINE_BYTES>,
    live: &Sorted<LIVE_BYTES>,
    mut framed: Option<Sorter<FRAMED_BYTES>>,
    memory_bytes: usize,
    folder: &Path,
) -> io::Result<Joined> {
    let mut found = (Share::default(), 0, HashSet::new());
    each_blob(lines, live, |blob| {
        count(&mut packs, &blob, &mut found);
        Ok(())
    })?;
    let (ranks, ranked) = ranks(&packs);
    let mut moves = Sorter::new(memory_bytes, folder);
    each_blob(lines, live, |blob| {
        let needed = match &blob.live {
            Some(_) => keep(&mut packs, &blob, &ranks, &mut moves)?,
            None => None,
        };
        if let Some(framed) = &mut framed {
            for line in &blob.lines {
                framed.push(rows::framed(line, needed == Some(*line)))?;
            }
        }
        Ok(())
    })?;
    let (live, missing_blobs, missing) = found;
    Ok(Joined {
        packs,
        live,
        missing_blobs,
        missing,
        moves: Moves {
            rows: moves.finish()?,
            packs: ranked,
        },
        framed: framed.map(Sorter::finish).transpose()?,
    })
}

/// A blob: where it is, and whether it is live (then: do only late snapshots need it).
pub(super) struct Blob {
    id: BlobId,
    pub(super) lines: Vec<Line>,
    pub(super) live: Option<bool>,
}

/// Merge the two.
pub(super) fn each_blob(
    lines: &Sorted<LINE_BYTES>,
    live: &Sorted<LIVE_BYTES>,
    mut each: impl FnMut(Blob) -> io::Result<()>,
) -> io::Result<()> {
    let mut lines = Ahead::new(lines.iter());
    let mut live = Ahead::new(live.iter());
    loop {
        let next_line = lines.peek()?.map(|row| Line::decode(&row).blob.id);
        let next_live = live.peek()?.map(|row| rows::decode_live(&row).0);
        let Some(id) = next_line.into_iter().chain(next_live).min() else {
            return Ok(());
        };
        let mut blob = Blob {
            id,
            lines: Vec::new(),
            live: None,
        };
        while let Some(row) = lines.peek()? {
            let line = Line::decode(&row);
            if line.blob.id != id {
                break;
            }
            // A blob that a pack has twice counts once.
            if blob.lines.last().is_none_or(|last| last.pack != line.pack) {
                blob.lines.push(line);
            }
            lines.skip();
        }
        while let Some(row) = live.peek()? {
            let (live_id, late) = rows::decode_live(&row);
            if live_id != id {
                break;
            }
            blob.live = Some(blob.live.unwrap_or(true) && late);
            live.skip();
        }
        each(blob)?;
    }
}

/// An iterator of which the next row can be looked at.
struct Ahead<'a, const N: usize> {
    rows: Merge<'a, N>,
    next: Option<[u8; N]>,
}

impl<'a, const N: usize> Ahead<'a, N> {
    fn new(rows: Merge<'a, N>) -> Self {
        Self { rows, next: None }
    }

    fn peek(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.next.is_none() {
            self.next = self.rows.next().transpose()?;
        }
        Ok(self.next)
    }

    fn skip(&mut self) {
        self.next = None;
    }
}

/// First pass.
fn count(packs: &mut [SeenPack], blob: &Blob, found: &mut (Share, u64, HashSet<BlobId>)) {
    let (live, missing_blobs, missing) = found;
    let mut present = false;
    for line in &blob.lines {
        let pack = &mut packs[line.pack as usize];
        pack.all.add(line.blob.raw_length);
        present |= pack.readable();
        if blob.live.is_some() {
            pack.live.add(line.blob.raw_length);
        }
    }
    let Some(late) = blob.live else { return };
    if blob.lines.iter().filter(|line| packs[line.pack as usize].readable()).count() > 1 {
        for line in &blob.lines {
            packs[line.pack as usize].shares = true;
        }
    }
    live.add(blob.lines.first().map_or(0, |line| line.blob.raw_length));
    if !present && !late {
        *missing_blobs += 1;
        if missing.len() < MISSING_KEPT {
            missing.insert(blob.id);
        }
    }
}

/// The order in which packs are moved: by kind and age, so that what was written together comes to lie together.
fn ranks(packs: &[SeenPack]) -> (Vec<u32>, Vec<PackId>) {
    let mut order: Vec<usize> = (0..packs.len()).collect();
    order.sort_by_key(|&at| (packs[at].kind, packs[at].last_modified, packs[at].id));
    let mut ranks = vec![0; packs.len()];
    for (rank, &at) in (0_u32..).zip(&order) {
        ranks[at] = rank;
    }
    (ranks, order.into_iter().map(|at| packs[at].id).collect())
}

/// Second pass: which of the copies stays.
fn keep(packs: &mut [SeenPack], blob: &Blob, ranks: &[u32], moves: &mut Sorter<MOVE_BYTES>) -> io::Result<Option<Line>> {
    let readable = |line: &&Line| packs[line.pack as usize].readable();
    #[cfg(test)]
    let readable = |line: &&Line| readable(line) || planted(Bug::AbsentCopies);
    let readable = blob.lines.iter().filter(readable);
    // One that is sealed as it should be; then the copy in the pack of which most is live: so the others become empty.
    let worth = |line: &&Line| {
        let pack = &packs[line.pack as usize];
        let live = u128::from(pack.live.raw_bytes) * 1_000_000 / u128::from(pack.all.raw_bytes.max(1));
        (pack.marked.is_none(), !pack.reseal, live, pack.all.raw_bytes, pack.id)
    };
    #[cfg(test)]
    let copies = readable.clone().count();
    let Some(&best) = readable.max_by_key(worth) else { return Ok(None) };
    let raw_length = best.blob.raw_length;
    let stranded = packs[best.pack as usize].marked.is_some();
    #[cfg(test)]
    let stranded = stranded && !(planted(Bug::CondemnedCopies) && copies > 1);
    if stranded {
        for line in &blob.lines {
            let pack = &mut packs[line.pack as usize];
            if pack.present_bytes.is_some() {
                pack.stranded.add(raw_length);
            }
        }
        packs[best.pack as usize].rescued.add(raw_length);
    } else {
        packs[best.pack as usize].kept.add(raw_length);
    }
    let pack = &packs[best.pack as usize];
    if may_move(pack) {
        let line = Line {
            pack: ranks[best.pack as usize],
            blob: best.blob,
        };
        moves.push(line.encode_move())?;
    }
    Ok(Some(best))
}

/// A whole pack that is live and large, and of which nothing is elsewhere, stays where it is, whatever is planned: its blobs need no
/// row. Of all others every blob that is kept has one: a pack is moved as a whole.
fn may_move(pack: &SeenPack) -> bool {
    pack.marked.is_some() || pack.reseal || pack.shares || pack.live.blobs < pack.all.blobs || pack.all.raw_bytes > 0 && pack.is_small()
}
