//! One ranged GET: fetch, decode each frame once, hash every blob (invariant 12).
//!
//! What comes back wrong is noted as a bad copy of that blob in that pack, so that the next round takes another one. The
//! retries are the reader's, not this file's.

use bytes::Bytes;

use super::{Read, Reader};
use crate::format::frame::FrameDecoder;
use crate::format::pack::BlobEntry;
use crate::format::{BlobId, PackId, keys};
use crate::repo::{Error, Repository, Result, aside};
use crate::store::{self, ByteRange};

/// What a GET brought.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Good blobs.
    pub(super) blobs: Vec<(BlobId, Bytes)>,
    /// The pack is not there.
    pub(super) gone: bool,
}

impl Reader {
    /// Do one read; blobs that are not what they should be are noted as bad copies.
    pub(super) async fn read(&self, read: Read) -> Result<Outcome> {
        let Read {
            pack,
            offset,
            length,
            blobs,
        } = read;
        let got = match read_range(&self.repository, pack, offset, length).await {
            Ok(got) => got,
            Err(Error::Store(store::Error::NotFound { .. })) => {
                self.put_aside(pack);
                for blob in blobs {
                    self.note_bad(blob.id, pack, "the pack is gone");
                }
                return Ok(Outcome {
                    blobs: Vec::new(),
                    gone: true,
                });
            }
            // A chunk whose seal is broken: the blobs are looked for elsewhere.
            Err(Error::Damaged { source, .. }) => {
                for blob in blobs {
                    self.note_bad(blob.id, pack, &source.to_string());
                }
                return Ok(Outcome::default());
            }
            Err(error) => return Err(error),
        };
        let decode = move || decode(&got, offset, &blobs);
        let decoded = aside::work(decode).await?;
        Ok(self.sort_out(pack, decoded))
    }

    fn sort_out(&self, pack: PackId, decoded: Vec<(BlobId, std::result::Result<Bytes, String>)>) -> Outcome {
        let mut outcome = Outcome::default();
        for (id, bytes) in decoded {
            match bytes {
                Ok(bytes) => outcome.blobs.push((id, bytes)),
                Err(reason) => self.note_bad(id, pack, &reason),
            }
        }
        outcome
    }
}

/// Bytes of a pack as it was before it was sealed: what offsets in tables and segments mean.
pub async fn read_range(repository: &Repository, pack: PackId, offset: u64, length: u64) -> Result<Bytes> {
    let range = ByteRange::From { offset, length };
    Ok(repository.store.get(&keys::pack(pack), range).await?.bytes)
}

fn decode(got: &[u8], offset: u64, blobs: &[BlobEntry]) -> Vec<(BlobId, std::result::Result<Bytes, String>)> {
    let mut decoder = match FrameDecoder::new() {
        Ok(decoder) => decoder,
        Err(error) => return blobs.iter().map(|blob| (blob.id, Err(error.to_string()))).collect(),
    };
    let mut decoded = Vec::with_capacity(blobs.len());
    for frame in blobs.chunk_by(|a, b| a.frame_offset == b.frame_offset) {
        let raw = slice(got, u64::from(frame[0].frame_offset).saturating_sub(offset), frame[0].frame_length)
            .and_then(|bytes| decoder.decode(bytes).map_err(|error| error.to_string()))
            .map(Bytes::from);
        // A few blobs of a large frame would keep all of it in memory: they are copied out.
        let wanted: usize = frame.iter().map(|blob| blob.raw_length as usize).sum();
        let sparse = raw.as_ref().is_ok_and(|raw| wanted < raw.len() / 2);
        for blob in frame {
            let bytes = raw.as_ref().map_err(Clone::clone).and_then(|raw| {
                let start = blob.offset_in_frame as usize;
                let bytes = slice(raw, u64::from(blob.offset_in_frame), blob.raw_length)?;
                if BlobId::of(bytes) != blob.id {
                    return Err("its bytes have another SHA-256".to_owned());
                }
                Ok(if sparse {
                    Bytes::copy_from_slice(bytes)
                } else {
                    raw.slice(start..start + bytes.len())
                })
            });
            decoded.push((blob.id, bytes));
        }
    }
    decoded
}

fn slice(bytes: &[u8], offset: u64, length: u32) -> std::result::Result<&[u8], String> {
    let start = usize::try_from(offset).map_err(|_| "beyond memory".to_owned())?;
    bytes
        .get(start..start.saturating_add(length as usize))
        .ok_or_else(|| "the pack is cut short".to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::format::frame::FrameEncoder;

    #[test]
    fn of_a_frame_that_is_mostly_not_wanted_only_the_blobs_stay_in_memory() {
        let raw: Vec<u8> = (0..8_u32 << 10).map(|n| (n % 251) as u8).collect();
        let frame = FrameEncoder::new(3).unwrap().encode(&[&raw]).unwrap();
        let entry = |at: usize| BlobEntry {
            id: BlobId::of(&raw[at << 10..(at + 1) << 10]),
            frame_offset: 0,
            frame_length: u32::try_from(frame.len()).unwrap(),
            offset_in_frame: u32::try_from(at << 10).unwrap(),
            raw_length: 1 << 10,
        };
        for (wanted, shared) in [(vec![2, 5], false), (vec![0, 1, 2, 3, 4, 5], true)] {
            let entries: Vec<BlobEntry> = wanted.iter().map(|at| entry(*at)).collect();
            let blobs: Vec<Bytes> = decode(&frame, 0, &entries).into_iter().map(|(_, blob)| blob.unwrap()).collect();
            for (at, blob) in wanted.iter().zip(&blobs) {
                assert_eq!(blob[..], raw[at << 10..(at + 1) << 10]);
            }
            let distance = (blobs[1].as_ptr() as usize).wrapping_sub(blobs[0].as_ptr() as usize);
            assert_eq!(distance == (wanted[1] - wanted[0]) << 10, shared, "{wanted:?}");
        }
    }
}
