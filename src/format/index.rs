//! An index segment: which packs hold which blobs, and where. Many segments together are the index.
//!
//! It is one flat file: header, packs, entries sorted by blob id, SHA-256. Reading is one pass. Which segments exist, and what
//! to do with a blob that several packs hold, is `repo`'s business.

use sha2::{Digest, Sha256};

use super::fields::Fields;
use super::pack::{BlobEntry, ENTRY_BYTES};
use super::{BlobId, Error, ObjectId, PACK_BYTES_MAX, PackId, PackKind, Result, SEGMENT_BYTES_MAX, within};

/// What errors call it.
const SEGMENT: &str = "index segment";
const SEGMENT_MAGIC: &[u8; 8] = b"SBKINDEX";
const SEGMENT_VERSION: u32 = 1;
/// Magic, version, run id, pack count, entry count.
const HEAD_BYTES: usize = 8 + 4 + 16 + 4 + 4;
/// Id, kind, object length.
const PACK_RECORD_BYTES: usize = 16 + 1 + 8;
const DIGEST_BYTES: usize = 32;

/// A pack that a segment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPack {
    /// Its id.
    pub id: PackId,
    /// What it holds.
    pub kind: PackKind,
    /// Length of the object in the store.
    pub bytes: u64,
}

/// A blob and the pack that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Ordinal in [`Segment::packs`].
    pub pack: u32,
    /// Where it lies there.
    pub blob: BlobEntry,
}

/// One object of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The run that wrote it.
    pub run: ObjectId,
    /// Packs, in any order.
    pub packs: Vec<SegmentPack>,
    /// Blobs, strictly ascending by blob id and then pack ordinal. `encode_segment` sorts.
    pub entries: Vec<SegmentEntry>,
}

/// Bytes of a segment with so many packs and entries; at most [`SEGMENT_BYTES_MAX`] are allowed.
pub const fn encoded_segment_bytes(packs: usize, entries: usize) -> usize {
    HEAD_BYTES + packs * PACK_RECORD_BYTES + entries * ENTRY_BYTES + DIGEST_BYTES
}

/// The segment's object. Sorts the entries; of several of one blob in one pack the first in the pack stays.
pub fn encode_segment(mut segment: Segment) -> Result<Vec<u8>> {
    segment
        .entries
        .sort_unstable_by_key(|entry| (entry.blob.id, entry.pack, entry.blob));
    segment.entries.dedup_by_key(|entry| (entry.blob.id, entry.pack));
    let bytes = encoded_segment_bytes(segment.packs.len(), segment.entries.len());
    within("bytes of an index segment", bytes as u64, SEGMENT_BYTES_MAX as u64)?;
    let invalid = |reason: String| Error::Invalid { what: SEGMENT, reason };
    #[expect(clippy::cast_possible_truncation, reason = "bounded by SEGMENT_BYTES_MAX")]
    let (packs, entries) = (segment.packs.len() as u32, segment.entries.len() as u32);
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
    out.extend_from_slice(segment.run.as_bytes());
    out.extend_from_slice(&packs.to_le_bytes());
    out.extend_from_slice(&entries.to_le_bytes());
    for pack in &segment.packs {
        within("bytes of a pack", pack.bytes, PACK_BYTES_MAX)?;
        out.extend_from_slice(pack.id.as_bytes());
        out.push(pack.kind as u8);
        out.extend_from_slice(&pack.bytes.to_le_bytes());
    }
    for (at, entry) in segment.entries.iter().enumerate() {
        let pack = segment
            .packs
            .get(entry.pack as usize)
            .ok_or_else(|| invalid(format!("entry {at}: pack ordinal")))?;
        if let Some(field) = entry.blob.wrong_field(pack.bytes) {
            return Err(invalid(format!("entry {at}: {field}")));
        }
        entry.blob.put(entry.pack, &mut out);
    }
    let digest: [u8; DIGEST_BYTES] = Sha256::digest(&out).into();
    out.extend_from_slice(&digest);
    Ok(out)
}

/// The segment that these bytes are, in memory. The digest is checked before anything else is believed.
pub fn decode_segment(data: &[u8]) -> Result<Segment> {
    let read = read_segment(data)?;
    let mut entries = Vec::with_capacity(read.len());
    for entry in read.entries() {
        entries.push(entry?);
    }
    Ok(Segment {
        run: read.run,
        packs: read.packs,
        entries,
    })
}

/// A segment whose digest, counts and packs are right, and whose entries are read one by one from where they lie.
#[derive(Debug)]
pub struct SegmentRead<'a> {
    /// The run that wrote it.
    pub run: ObjectId,
    /// Packs, in any order.
    pub packs: Vec<SegmentPack>,
    rows: &'a [[u8; ENTRY_BYTES]],
}

/// As [`decode_segment`], without a second copy of the entries: for who reads a whole index in little memory.
pub fn read_segment(data: &[u8]) -> Result<SegmentRead<'_>> {
    within("bytes of an index segment", data.len() as u64, SEGMENT_BYTES_MAX as u64)?;
    let Some((body, digest)) = data.split_last_chunk::<DIGEST_BYTES>() else {
        return Err(Error::damaged(SEGMENT, format!("byte {}: its end", data.len())));
    };
    let mut fields = Fields::new(SEGMENT, body);
    fields.expect("magic", SEGMENT_MAGIC)?;
    if <[u8; DIGEST_BYTES]>::from(Sha256::digest(body)) != *digest {
        return Err(Error::damaged(SEGMENT, "its closing SHA-256"));
    }
    let version = fields.u32("version")?;
    if version != SEGMENT_VERSION {
        return Err(Error::Version {
            what: SEGMENT,
            found: version,
            supported: SEGMENT_VERSION,
        });
    }
    let run = ObjectId::from_bytes(fields.array("run id")?);
    let (packs, entries) = (fields.u32("pack count")?, fields.u32("entry count")?);
    let wanted = HEAD_BYTES as u64 + u64::from(packs) * PACK_RECORD_BYTES as u64 + u64::from(entries) * ENTRY_BYTES as u64;
    if wanted != body.len() as u64 {
        return Err(Error::damaged(SEGMENT, "byte 28: pack count or entry count"));
    }
    let packs = read_packs(&mut fields, packs as usize)?;
    let (rows, _) = fields.bytes("entries", entries as usize * ENTRY_BYTES)?.as_chunks::<ENTRY_BYTES>();
    Ok(SegmentRead { run, packs, rows })
}

impl SegmentRead<'_> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its entries in order, each checked.
    pub fn entries(&self) -> impl Iterator<Item = Result<SegmentEntry>> + '_ {
        let mut last: Option<(BlobId, u32)> = None;
        self.rows.iter().enumerate().map(move |(at, row)| {
            let wrong = |field: &str| Error::damaged(SEGMENT, format!("entry {at}: {field}"));
            let (ordinal, blob) = BlobEntry::get(row);
            let pack = self.packs.get(ordinal as usize).ok_or_else(|| wrong("pack ordinal"))?;
            if let Some(field) = blob.wrong_field(pack.bytes) {
                return Err(wrong(field));
            }
            if last.replace((blob.id, ordinal)).is_some_and(|last| last >= (blob.id, ordinal)) {
                return Err(wrong("order"));
            }
            Ok(SegmentEntry { pack: ordinal, blob })
        })
    }
}

fn read_packs(fields: &mut Fields<'_>, count: usize) -> Result<Vec<SegmentPack>> {
    let mut packs = Vec::with_capacity(count);
    for at in 0..count {
        let id = PackId::from_bytes(fields.array("pack id")?);
        let kind = fields.u8("pack kind")?;
        let kind = PackKind::from_byte(kind).ok_or_else(|| Error::damaged(SEGMENT, format!("pack {at}: kind {kind}")))?;
        let bytes = within("bytes of a pack", fields.u64("pack length")?, PACK_BYTES_MAX)?;
        packs.push(SegmentPack { id, kind, bytes });
    }
    Ok(packs)
}
