//! The table of contents at the end of a pack, and the 52-byte entry that tables and index segments share.
//!
//! A pack is `frame* table`. The table is one zstd skippable frame, so `zstd -dc` prints the blobs end to end; it ends in a
//! footer of fixed size, so one ranged GET from the end reads it. Frames are made by `frame`; where packs go is `repo`'s business.

use sha2::{Digest, Sha256};

use super::fields::Fields;
use super::{BLOB_BYTES_MAX, BlobId, Error, FRAME_BYTES_MAX, PACK_BLOBS_MAX, PACK_BYTES_MAX, PackId, PackKind, Result, within};

/// What errors call it.
const TABLE: &str = "pack table";
/// zstd skippable frame, nibble B.
const SKIPPABLE_MAGIC: [u8; 4] = 0x184d_2a5b_u32.to_le_bytes();
const TABLE_MAGIC: &[u8; 8] = b"SBKTABLE";
const END_MAGIC: &[u8; 8] = b"SBKTBEND";
const TABLE_VERSION: u32 = 1;
/// Skippable magic and length, magic, version, kind, pack id.
const HEAD_BYTES: usize = 4 + 4 + 8 + 4 + 1 + 16;
/// Count, table length, SHA-256, closing magic.
pub const TABLE_FOOTER_BYTES: usize = 4 + 4 + 32 + 8;
/// A first read of so many bytes from the end gets most tables whole: it holds 5,039 entries.
pub const TABLE_TAIL_BYTES: u64 = 256 << 10;
/// One blob in a table or segment.
pub const ENTRY_BYTES: usize = 52;

/// Where a blob lies in its pack. Offsets are those of the unsealed pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobEntry {
    /// SHA-256 of its bytes.
    pub id: BlobId,
    /// First byte of its frame in the pack.
    pub frame_offset: u32,
    /// Bytes of that frame.
    pub frame_length: u32,
    /// First byte of the blob in the frame's raw bytes.
    pub offset_in_frame: u32,
    /// Raw bytes of the blob; never 0.
    pub raw_length: u32,
}

impl BlobEntry {
    /// First byte after its frame.
    pub fn frame_end(&self) -> u64 {
        u64::from(self.frame_offset) + u64::from(self.frame_length)
    }

    /// First byte after the blob in the frame's raw bytes.
    pub fn end_in_frame(&self) -> u64 {
        u64::from(self.offset_in_frame) + u64::from(self.raw_length)
    }

    /// Names the first field that cannot be in a pack whose frames end at `frames_end`.
    pub(super) fn wrong_field(&self, frames_end: u64) -> Option<&'static str> {
        if self.frame_length == 0 || self.frame_length as usize > FRAME_BYTES_MAX {
            Some("frame length")
        } else if self.frame_end() > frames_end {
            Some("frame offset")
        } else if self.raw_length == 0 || self.raw_length as usize > BLOB_BYTES_MAX {
            Some("raw length")
        } else if self.end_in_frame() > BLOB_BYTES_MAX as u64 {
            Some("offset in frame")
        } else {
            None
        }
    }

    pub(super) fn put(&self, pack: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        for field in [pack, self.frame_offset, self.frame_length, self.offset_in_frame, self.raw_length] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    /// Pack ordinal and entry.
    pub(super) fn get(bytes: &[u8; ENTRY_BYTES]) -> (u32, Self) {
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[..32]);
        let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let entry = Self {
            id: BlobId::from_bytes(id),
            frame_offset: field(36),
            frame_length: field(40),
            offset_in_frame: field(44),
            raw_length: field(48),
        };
        (field(32), entry)
    }
}

/// What a pack holds, in the order in which it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackTable {
    /// The id under which the pack was written. A copy made inside the store has another key: the key counts.
    pub id: PackId,
    /// What kind of content.
    pub kind: PackKind,
    /// One entry a blob: frames in order and without gaps from byte 0, in each frame blobs in order and without gaps.
    pub entries: Vec<BlobEntry>,
}

/// What the end of a pack told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailRead {
    /// The whole table.
    Table(PackTable),
    /// The table is longer: read the last so many bytes and call again.
    NeedTail(u64),
}

/// Bytes of the table of so many blobs.
pub const fn encoded_table_bytes(entries: usize) -> usize {
    HEAD_BYTES + entries * ENTRY_BYTES + TABLE_FOOTER_BYTES
}

/// The table, to be written right behind the `frames_bytes` bytes of frames.
pub fn encode_table(table: &PackTable, frames_bytes: u64) -> Result<Vec<u8>> {
    within("blobs of a pack", table.entries.len() as u64, PACK_BLOBS_MAX as u64)?;
    let length = encoded_table_bytes(table.entries.len());
    within("bytes of a pack", frames_bytes.saturating_add(length as u64), PACK_BYTES_MAX)?;
    if let Err((at, field)) = check_layout(&table.entries, frames_bytes) {
        return Err(Error::Invalid {
            what: TABLE,
            reason: format!("entry {at}: {field}"),
        });
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most PACK_BLOBS_MAX entries: 3.4 MB")]
    let (count, length_field, content) = (table.entries.len() as u32, length as u32, (length - 8) as u32);
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&SKIPPABLE_MAGIC);
    out.extend_from_slice(&content.to_le_bytes());
    out.extend_from_slice(TABLE_MAGIC);
    out.extend_from_slice(&TABLE_VERSION.to_le_bytes());
    out.push(table.kind as u8);
    out.extend_from_slice(table.id.as_bytes());
    for entry in &table.entries {
        entry.put(0, &mut out);
    }
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&length_field.to_le_bytes());
    let digest: [u8; 32] = Sha256::digest(&out).into();
    out.extend_from_slice(&digest);
    out.extend_from_slice(END_MAGIC);
    Ok(out)
}

/// The table of a pack of `object_bytes` bytes, of which `tail` is the end ([`TABLE_TAIL_BYTES`] of it, to begin with).
pub fn decode_table(tail: &[u8], object_bytes: u64) -> Result<TailRead> {
    within("bytes of a pack", object_bytes, PACK_BYTES_MAX)?;
    if object_bytes < encoded_table_bytes(0) as u64 || tail.len() as u64 > object_bytes {
        return Err(Error::damaged(TABLE, format!("byte {object_bytes}: end of the pack")));
    }
    let Some((_, footer)) = tail.split_last_chunk::<TABLE_FOOTER_BYTES>() else {
        return Ok(TailRead::NeedTail(TABLE_TAIL_BYTES.min(object_bytes)));
    };
    let mut fields = Fields::new("pack table footer", footer);
    let count = fields.u32("count")? as usize;
    let length = fields.u32("table length")? as usize;
    let digest: [u8; 32] = fields.array("SHA-256")?;
    fields.expect("closing magic", END_MAGIC)?;
    within("blobs of a pack", count as u64, PACK_BLOBS_MAX as u64)?;
    if length != encoded_table_bytes(count) || length as u64 > object_bytes {
        return Err(Error::damaged(TABLE, "its footer: table length"));
    }
    let Some(start) = tail.len().checked_sub(length) else {
        return Ok(TailRead::NeedTail(length as u64));
    };
    let table = &tail[start..];
    if <[u8; 32]>::from(Sha256::digest(&table[..length - 40])) != digest {
        return Err(Error::damaged(TABLE, "its footer: SHA-256"));
    }
    read_table(table, count, object_bytes - length as u64).map(TailRead::Table)
}

/// A table whose length and digest are right.
fn read_table(table: &[u8], count: usize, frames_bytes: u64) -> Result<PackTable> {
    let mut fields = Fields::new(TABLE, table);
    fields.expect("skippable magic", &SKIPPABLE_MAGIC)?;
    if fields.u32("skippable length")? as usize != table.len() - 8 {
        return Err(Error::damaged(TABLE, "byte 4: skippable length"));
    }
    fields.expect("magic", TABLE_MAGIC)?;
    let version = fields.u32("version")?;
    if version != TABLE_VERSION {
        return Err(Error::Version {
            what: TABLE,
            found: version,
            supported: TABLE_VERSION,
        });
    }
    let kind = fields.u8("kind")?;
    let kind = PackKind::from_byte(kind).ok_or_else(|| Error::damaged(TABLE, format!("byte 20: kind {kind}")))?;
    let id = PackId::from_bytes(fields.array("pack id")?);
    let (rows, _) = fields.bytes("entries", count * ENTRY_BYTES)?.as_chunks::<ENTRY_BYTES>();
    let mut entries = Vec::with_capacity(count);
    for (at, row) in rows.iter().enumerate() {
        let (pack, entry) = BlobEntry::get(row);
        if pack != 0 {
            return Err(Error::damaged(TABLE, format!("entry {at}: pack ordinal")));
        }
        entries.push(entry);
    }
    check_layout(&entries, frames_bytes).map_err(|(at, field)| Error::damaged(TABLE, format!("entry {at}: {field}")))?;
    Ok(PackTable { id, kind, entries })
}

/// Frames from byte 0 to `frames_bytes`, and the blobs in each, lie in order and without gaps; else which entry and field is wrong.
fn check_layout(entries: &[BlobEntry], frames_bytes: u64) -> std::result::Result<(), (usize, &'static str)> {
    let mut last: Option<&BlobEntry> = None;
    for (at, entry) in entries.iter().enumerate() {
        if let Some(field) = entry.wrong_field(frames_bytes) {
            return Err((at, field));
        }
        let wrong = match last {
            Some(last) if last.frame_offset == entry.frame_offset => {
                if last.frame_length == entry.frame_length {
                    (last.end_in_frame() != u64::from(entry.offset_in_frame)).then_some("offset in frame")
                } else {
                    Some("frame length")
                }
            }
            _ if last.map_or(0, BlobEntry::frame_end) != u64::from(entry.frame_offset) => Some("frame offset"),
            _ => (entry.offset_in_frame != 0).then_some("offset in frame"),
        };
        if let Some(field) = wrong {
            return Err((at, field));
        }
        last = Some(entry);
    }
    if last.map_or(0, BlobEntry::frame_end) != frames_bytes {
        return Err((entries.len(), "end of the frames"));
    }
    Ok(())
}
