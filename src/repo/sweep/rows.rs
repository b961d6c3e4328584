//! The rows that prune sorts: lines of the index by blob, live blobs, and what is to be moved by pack.
//!
//! Numbers stand big-endian, so that rows sort as bytes: by their first field, then by the next.

use crate::format::BlobId;
use crate::format::pack::BlobEntry;

/// A line of the index: blob id, pack ordinal, place.
pub(super) const LINE_BYTES: usize = 32 + 5 * 4;
/// A live blob: its id, and 0 if a listed snapshot needs it, 1 if only late ones do.
pub(super) const LIVE_BYTES: usize = 33;
/// A blob and a snapshot that needs it: its id, the snapshot's number, its raw length.
pub(super) const OWNED_BYTES: usize = 40;
/// A blob to be moved: rank of its pack, place, blob id.
pub(super) const MOVE_BYTES: usize = LINE_BYTES;

/// A line of the index, by pack and place, and whether its blob is needed there.
pub(super) const FRAMED_BYTES: usize = LINE_BYTES + 1;
/// A blob and how many stored bytes it takes.
pub(super) const SHARE_BYTES: usize = 36;

/// A line of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) pack: u32,
    pub(super) blob: BlobEntry,
}

fn field(row: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]])
}

fn id(row: &[u8], at: usize) -> BlobId {
    let mut id = [0; 32];
    id.copy_from_slice(&row[at..at + 32]);
    BlobId::from_bytes(id)
}

impl Line {
    /// Sorts by blob, then by pack, then by place.
    pub(super) fn encode(&self) -> [u8; LINE_BYTES] {
        let mut row = [0; LINE_BYTES];
        row[..32].copy_from_slice(self.blob.id.as_bytes());
        for (at, field) in self.fields().into_iter().enumerate() {
            row[32 + at * 4..36 + at * 4].copy_from_slice(&field.to_be_bytes());
        }
        row
    }

    pub(super) fn decode(row: &[u8; LINE_BYTES]) -> Self {
        Self {
            pack: field(row, 32),
            blob: BlobEntry {
                id: id(row, 0),
                frame_offset: field(row, 36),
                offset_in_frame: field(row, 40),
                frame_length: field(row, 44),
                raw_length: field(row, 48),
            },
        }
    }

    /// Sorts by pack (its rank stands for it), then by place.
    pub(super) fn encode_move(&self) -> [u8; MOVE_BYTES] {
        let mut row = [0; MOVE_BYTES];
        for (at, field) in self.fields().into_iter().enumerate() {
            row[at * 4..at * 4 + 4].copy_from_slice(&field.to_be_bytes());
        }
        row[20..].copy_from_slice(self.blob.id.as_bytes());
        row
    }

    pub(super) fn decode_move(row: &[u8; MOVE_BYTES]) -> Self {
        Self {
            pack: field(row, 0),
            blob: BlobEntry {
                id: id(row, 20),
                frame_offset: field(row, 4),
                offset_in_frame: field(row, 8),
                frame_length: field(row, 12),
                raw_length: field(row, 16),
            },
        }
    }

    fn fields(&self) -> [u32; 5] {
        let blob = &self.blob;
        [
            self.pack,
            blob.frame_offset,
            blob.offset_in_frame,
            blob.frame_length,
            blob.raw_length,
        ]
    }
}

/// A live blob.
pub(super) fn live(id: &BlobId, late: bool) -> [u8; LIVE_BYTES] {
    let mut row = [0; LIVE_BYTES];
    row[..32].copy_from_slice(id.as_bytes());
    row[32] = u8::from(late);
    row
}

/// Id, and whether only late snapshots need it.
pub(super) fn decode_live(row: &[u8; LIVE_BYTES]) -> (BlobId, bool) {
    (id(row, 0), row[32] != 0)
}

/// A blob and a snapshot that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) id: BlobId,
    pub(super) owner: u32,
    pub(super) raw_length: u32,
}

/// Sorts by blob, then by snapshot.
pub(super) fn owned(owned: &Owned) -> [u8; OWNED_BYTES] {
    let mut row = [0; OWNED_BYTES];
    row[..32].copy_from_slice(owned.id.as_bytes());
    row[32..36].copy_from_slice(&owned.owner.to_be_bytes());
    row[36..].copy_from_slice(&owned.raw_length.to_be_bytes());
    row
}

pub(super) fn decode_owned(row: &[u8; OWNED_BYTES]) -> Owned {
    Owned {
        id: id(row, 0),
        owner: field(row, 32),
        raw_length: field(row, 36),
    }
}

/// A line of the index, and whether a snapshot needs this copy of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framed {
    pub(super) line: Line,
    pub(super) needed: bool,
}

/// Sorts by pack, then by place.
pub(super) fn framed(line: &Line, needed: bool) -> [u8; FRAMED_BYTES] {
    let mut row = [0; FRAMED_BYTES];
    row[..MOVE_BYTES].copy_from_slice(&line.encode_move());
    row[MOVE_BYTES] = u8::from(needed);
    row
}

pub(super) fn decode_framed(row: &[u8; FRAMED_BYTES]) -> Framed {
    let mut line = [0; MOVE_BYTES];
    line.copy_from_slice(&row[..MOVE_BYTES]);
    Framed {
        line: Line::decode_move(&line),
        needed: row[MOVE_BYTES] != 0,
    }
}

/// Sorts by blob.
pub(super) fn share(blob: &BlobId, bytes: u32) -> [u8; SHARE_BYTES] {
    let mut row = [0; SHARE_BYTES];
    row[..32].copy_from_slice(blob.as_bytes());
    row[32..].copy_from_slice(&bytes.to_be_bytes());
    row
}

pub(super) fn decode_share(row: &[u8; SHARE_BYTES]) -> (BlobId, u32) {
    (id(row, 0), field(row, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_and_sort_by_their_first_field() {
        let blob = BlobEntry {
            id: BlobId::of(b"a"),
            frame_offset: 258,
            frame_length: 77,
            offset_in_frame: 3,
            raw_length: 1 << 20,
        };
        let line = Line { pack: 513, blob };
        assert_eq!(Line::decode(&line.encode()), line);
        assert_eq!(Line::decode_move(&line.encode_move()), line);
        assert!(Line { pack: 2, ..line }.encode_move() < line.encode_move());
        assert_eq!(decode_live(&live(&blob.id, true)), (blob.id, true));
        assert_eq!(decode_framed(&framed(&line, true)), Framed { line, needed: true });
        assert_eq!(decode_share(&share(&blob.id, 77)), (blob.id, 77));
        let one = Owned {
            id: blob.id,
            owner: 513,
            raw_length: 1 << 20,
        };
        assert_eq!(decode_owned(&owned(&one)), one);
    }
}
