//! The bytes of a snapshot object: the document's frame, then the trailer with `not_after` and the closing SHA-256.
//!
//! The trailer stands outside the document so that it can hold signatures over it: none, one, or several where a snapshot
//! was copied into other repositories. It says nothing about age encryption, which goes around the whole object.

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::fields::Fields;
use super::super::frame::{FrameDecoder, FrameEncoder, first_frame_bytes};
use super::super::writer_key::{Signature, Signer, WriterKey};
use super::super::{Error, FORMAT_VERSION, ObjectId, Result, SNAPSHOT_BYTES_MAX, keys, within};
use super::{SNAPSHOT, Snapshot};

/// zstd skippable frame, nibble C.
const SKIPPABLE_MAGIC: [u8; 4] = 0x184d_2a5c_u32.to_le_bytes();
const TRAILER_MAGIC: &[u8; 8] = b"SBKSNAPS";
const TRAILER_VERSION: u32 = 1;
const DIGEST_BYTES: usize = 32;
/// Magic, version, seconds, nanoseconds, SHA-256.
const TRAILER_CONTENT_BYTES: u32 = 8 + 4 + 8 + 4 + 32;
/// `not_after`: seconds and nanoseconds, and where they stand in the trailer.
const NOT_AFTER_BYTES: usize = 8 + 4;
const NOT_AFTER_OFFSET: usize = 4 + 4 + 8 + 4;
/// Where signatures begin in the trailer: after `not_after`.
const SIGNATURES_OFFSET: usize = NOT_AFTER_OFFSET + NOT_AFTER_BYTES;
/// Repository id, signer, signature.
const SIGNATURE_BYTES: usize = 16 + 32 + 64;
/// Signatures that are read of one snapshot.
const SIGNATURES_MAX: usize = 16;
/// Bytes of a trailer that are read at most: room for what later versions add.
const TRAILER_BYTES_MAX: usize = 1 << 20;
/// Bytes of the whole object: what zstd can make of the document at worst, and the trailer.
pub const OBJECT_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + (SNAPSHOT_BYTES_MAX >> 8) + TRAILER_BYTES_MAX;
/// zstd level of the document: it is small, and read more often than written.
const LEVEL: i32 = 6;

/// What stands beside the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The snapshot is listed when the store's Last-Modified is not later.
    pub not_after: Timestamp,
    /// Over repository id and document; each was checked, and says what came of it.
    pub signatures: Vec<Signature>,
}

/// The snapshot's object, signed for the repository it is written into.
pub fn encode_signed(snapshot: &Snapshot, not_after: Timestamp, key: &WriterKey) -> Result<Vec<u8>> {
    countersign(&encode(snapshot, not_after)?, snapshot.repository, key)
}

/// The same object with one more signature, for this repository.
pub fn countersign(object: &[u8], repository: ObjectId, key: &WriterKey) -> Result<Vec<u8>> {
    decode(object)?;
    let trailer = first_frame_bytes(SNAPSHOT, object)?;
    let document = FrameDecoder::new()?.decode_within(SNAPSHOT, &object[..trailer], SNAPSHOT_BYTES_MAX)?;
    let signature = key.sign(repository, &document);
    // Behind the last whole one: what a later version may have added stays behind all of them.
    let (first, end) = (trailer + SIGNATURES_OFFSET, object.len() - DIGEST_BYTES);
    let (before, after) = object[..end].split_at(first + (end - first) / SIGNATURE_BYTES * SIGNATURE_BYTES);
    let mut again = before.to_vec();
    again.extend_from_slice(repository.as_bytes());
    again.extend_from_slice(signature.signer.as_bytes());
    again.extend_from_slice(&signature.bytes);
    again.extend_from_slice(after);
    let content = u32::try_from(again.len() + DIGEST_BYTES - trailer - 8).unwrap_or(u32::MAX);
    again[trailer + 4..trailer + 8].copy_from_slice(&content.to_le_bytes());
    close(&mut again);
    Ok(again)
}

/// The signatures of a trailer, each checked against the document. Bytes that are no whole signature are a later version's.
fn signatures(trailer: &[u8], document: &[u8]) -> Vec<Signature> {
    let end = trailer.len() - DIGEST_BYTES;
    let records = trailer[SIGNATURES_OFFSET.min(end)..end].chunks_exact(SIGNATURE_BYTES);
    let read = |record: &[u8]| {
        let repository = ObjectId::from_bytes(record[..16].try_into().ok()?);
        let signer = Signer::from_bytes(record[16..48].try_into().ok()?);
        let bytes: [u8; 64] = record[48..].try_into().ok()?;
        let is_good = signer.has_signed(repository, document, &bytes);
        Some(Signature {
            repository,
            signer,
            bytes,
            is_good,
        })
    };
    records.take(SIGNATURES_MAX).filter_map(read).collect()
}

/// The snapshot's object, unsigned.
pub fn encode(snapshot: &Snapshot, not_after: Timestamp) -> Result<Vec<u8>> {
    let invalid = |reason: String| Error::Invalid { what: SNAPSHOT, reason };
    if snapshot.format != FORMAT_VERSION {
        return Err(Error::Version {
            what: SNAPSHOT,
            found: snapshot.format,
            supported: FORMAT_VERSION,
        });
    }
    snapshot.validate().map_err(|error| invalid(error.to_string()))?;
    let document = serde_json::to_vec(snapshot).map_err(|error| invalid(error.to_string()))?;
    let mut object = FrameEncoder::new(LEVEL)?.encode_within(&[&document], SNAPSHOT_BYTES_MAX)?;
    object.extend_from_slice(&SKIPPABLE_MAGIC);
    object.extend_from_slice(&TRAILER_CONTENT_BYTES.to_le_bytes());
    object.extend_from_slice(TRAILER_MAGIC);
    object.extend_from_slice(&TRAILER_VERSION.to_le_bytes());
    object.extend_from_slice(&not_after_bytes(not_after)?);
    close(&mut object);
    Ok(object)
}

/// The same snapshot with another `not_after` and nothing else changed, for `adopt` and `copy`.
pub fn with_not_after(object: &[u8], not_after: Timestamp) -> Result<Vec<u8>> {
    decode(object)?;
    let trailer = first_frame_bytes(SNAPSHOT, object)?;
    let place = trailer + NOT_AFTER_OFFSET;
    let mut again = object[..object.len() - DIGEST_BYTES].to_vec();
    again[place..place + NOT_AFTER_BYTES].copy_from_slice(&not_after_bytes(not_after)?);
    close(&mut again);
    Ok(again)
}

/// A timestamp's parts have one sign; the trailer's nanoseconds always count forward.
fn not_after_bytes(not_after: Timestamp) -> Result<[u8; NOT_AFTER_BYTES]> {
    let out_of_range = || Error::Invalid {
        what: SNAPSHOT,
        reason: "not_after is out of range".into(),
    };
    let nanosecond = not_after.as_nanosecond();
    let (second, subsecond) = (nanosecond.div_euclid(1_000_000_000), nanosecond.rem_euclid(1_000_000_000));
    let second = i64::try_from(second).map_err(|_| out_of_range())?;
    let subsecond = u32::try_from(subsecond).map_err(|_| out_of_range())?;
    let mut bytes = [0; NOT_AFTER_BYTES];
    bytes[..8].copy_from_slice(&second.to_le_bytes());
    bytes[8..].copy_from_slice(&subsecond.to_le_bytes());
    Ok(bytes)
}

/// The closing SHA-256.
fn close(object: &mut Vec<u8>) {
    let digest: [u8; DIGEST_BYTES] = Sha256::digest(&*object).into();
    object.extend_from_slice(&digest);
}

/// The snapshot that this object is. The digest over the whole object is checked before the document is read.
pub fn decode(object: &[u8]) -> Result<(Snapshot, Signed)> {
    within("bytes of a snapshot", object.len() as u64, OBJECT_BYTES_MAX as u64)?;
    let (frame, trailer) = object.split_at(first_frame_bytes(SNAPSHOT, object)?);
    let mut fields = Fields::new("snapshot trailer", trailer);
    fields.expect("skippable magic", &SKIPPABLE_MAGIC)?;
    let content = fields.u32("skippable length")?;
    if content as usize != trailer.len() - 8 || content < TRAILER_CONTENT_BYTES || trailer.len() > TRAILER_BYTES_MAX {
        return Err(Error::damaged("snapshot trailer", "byte 4: skippable length"));
    }
    let (before, digest) = object.split_at(object.len() - DIGEST_BYTES);
    if <[u8; DIGEST_BYTES]>::from(Sha256::digest(before)) != digest {
        return Err(Error::damaged(SNAPSHOT, "its closing SHA-256"));
    }
    fields.expect("magic", TRAILER_MAGIC)?;
    let version = fields.u32("version")?;
    if version != TRAILER_VERSION {
        return Err(Error::Version {
            what: "snapshot trailer",
            found: version,
            supported: TRAILER_VERSION,
        });
    }
    let (second, subsecond) = (fields.i64("not_after")?, fields.u32("not_after")?);
    let subsecond = i32::try_from(subsecond).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000);
    let not_after = subsecond.and_then(|nanoseconds| Timestamp::new(second, nanoseconds).ok());
    let not_after = not_after.ok_or_else(|| Error::damaged("snapshot trailer", "byte 20: not_after"))?;
    let document = FrameDecoder::new()?.decode_within(SNAPSHOT, frame, SNAPSHOT_BYTES_MAX)?;
    let signatures = signatures(trailer, &document);
    Ok((parse(&document)?, Signed { not_after, signatures }))
}

/// The snapshot under this key. An authentic one under the name of another would come in its place, so it is refused.
pub fn decode_named(key: &str, object: &[u8]) -> Result<(Snapshot, Signed)> {
    let (snapshot, signed) = decode(object)?;
    let own = keys::snapshot(snapshot.time, snapshot.id)?;
    if keys::parse_snapshot(key) != keys::parse_snapshot(&own) {
        return Err(Error::damaged(
            SNAPSHOT,
            format!("its name: it is snapshot {} of {}", snapshot.id, snapshot.time),
        ));
    }
    Ok((snapshot, signed))
}

/// What decides whether the rest of a document may be read.
#[derive(Deserialize)]
struct Gate {
    format: u32,
    #[serde(default)]
    features_required: Vec<String>,
}

/// Another format version and a required feature that is not known here refuse before the rest is read.
fn parse(document: &[u8]) -> Result<Snapshot> {
    let broken = |error: serde_json::Error| Error::damaged(SNAPSHOT, format!("its document: {error}"));
    let gate: Gate = serde_json::from_slice(document).map_err(broken)?;
    if gate.format != FORMAT_VERSION {
        return Err(Error::Version {
            what: SNAPSHOT,
            found: gate.format,
            supported: FORMAT_VERSION,
        });
    }
    // No document of this version requires any.
    if let Some(feature) = gate.features_required.into_iter().next() {
        return Err(Error::Feature { feature });
    }
    let snapshot: Snapshot = serde_json::from_slice(document).map_err(broken)?;
    snapshot.validate()?;
    Ok(snapshot)
}
