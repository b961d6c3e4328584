//! One zstd frame (RFC 8878) in memory: what a pack is made of.
//!
//! Every frame states its content size and carries zstd's own checksum, so the memory it wants is known before any is taken, and
//! a flipped bit is found even where nobody knows the blob's id. What a frame holds, and where it lies, is `pack`'s business.

use std::fmt;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, ResetDirective};

use super::{BLOB_BYTES_MAX, Error, FRAME_BYTES_MAX, Result, within};

/// What errors call a frame of a pack.
const FRAME: &str = "frame";
/// The first four bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// In the frame header descriptor (RFC 8878, 3.1.1.1.1): the content checksum is there.
const DESCRIPTOR_CHECKSUM: u8 = 0b0000_0100;
/// Reserved, unused and dictionary bits: never set by us.
const DESCRIPTOR_REFUSED: u8 = 0b0001_1011;

/// Compresses blobs into frames. It keeps its tables: make one a thread and use it again and again.
pub struct FrameEncoder {
    context: CCtx<'static>,
    /// Several blobs, end to end: over pieces of input zstd takes a slower path.
    gathered: Vec<u8>,
}

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameEncoder").finish_non_exhaustive()
    }
}

impl FrameEncoder {
    /// An encoder for one zstd level, 1 to 22.
    pub fn new(level: i32) -> Result<Self> {
        if !(1..=zstd_safe::max_c_level()).contains(&level) {
            return Err(Error::Invalid {
                what: "compression level",
                reason: format!("{level} is not between 1 and 22"),
            });
        }
        let mut context = CCtx::try_create().ok_or_else(no_memory)?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).map_err(refused_by_zstd)?;
        }
        let gathered = Vec::new();
        Ok(Self { context, gathered })
    }

    /// One frame of these blobs, end to end: together 1 byte to [`BLOB_BYTES_MAX`].
    ///
    /// One blob is compressed from where it lies; several are gathered first, in memory that the encoder keeps.
    pub fn encode(&mut self, blobs: &[&[u8]]) -> Result<Vec<u8>> {
        self.encode_within(blobs, BLOB_BYTES_MAX)
    }

    /// [`FrameEncoder::encode`] with another limit, for documents that are not blobs.
    pub(super) fn encode_within(&mut self, blobs: &[&[u8]], raw_bytes_max: usize) -> Result<Vec<u8>> {
        let raw_bytes = blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.len() as u64));
        within("raw bytes of a frame", raw_bytes, raw_bytes_max as u64)?;
        if raw_bytes == 0 {
            return Err(Error::Invalid {
                what: "frame",
                reason: "it would hold nothing".into(),
            });
        }
        // In range: it was just compared with a `usize`.
        #[expect(clippy::cast_possible_truncation, reason = "at most `raw_bytes_max`, a usize")]
        let raw_bytes = raw_bytes as usize;
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw_bytes));
        self.context.reset(ResetDirective::SessionOnly).map_err(refused_by_zstd)?;
        if let [blob] = blobs {
            self.context.compress2(&mut frame, blob).map_err(refused_by_zstd)?;
        } else {
            self.gathered.clear();
            self.gathered.reserve(raw_bytes);
            for blob in blobs {
                self.gathered.extend_from_slice(blob);
            }
            self.context.compress2(&mut frame, &self.gathered).map_err(refused_by_zstd)?;
        }
        if frame.len() <= frame.capacity() / 2 {
            frame.shrink_to_fit();
        }
        Ok(frame)
    }
}

/// Decompresses frames. It keeps its tables: make one a thread and use it again and again.
pub struct FrameDecoder {
    context: DCtx<'static>,
}

impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameDecoder").finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// A decoder.
    pub fn new() -> Result<Self> {
        Ok(Self {
            context: DCtx::try_create().ok_or_else(no_memory)?,
        })
    }

    /// The raw bytes of exactly one frame. A frame without content size or checksum, with a dictionary, or with more than
    /// [`BLOB_BYTES_MAX`] is refused by its header, before memory is taken.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        within("bytes of a frame", frame.len() as u64, FRAME_BYTES_MAX as u64)?;
        self.decode_within(FRAME, frame, BLOB_BYTES_MAX)
    }

    /// [`FrameDecoder::decode`] with another name in errors and another limit, for documents that are not blobs.
    pub(super) fn decode_within(&mut self, what: &'static str, frame: &[u8], raw_bytes_max: usize) -> Result<Vec<u8>> {
        let raw_bytes = raw_bytes(what, frame, raw_bytes_max)?;
        let mut raw = Vec::with_capacity(raw_bytes);
        let decoded = self.context.decompress(&mut raw, frame);
        let written = decoded.map_err(|code| Error::damaged(what, format!("its zstd data: {}", zstd_safe::get_error_name(code))))?;
        if written != raw_bytes {
            return Err(Error::damaged(what, "byte 5: content size"));
        }
        Ok(raw)
    }
}

/// Content size of the frame that `frame` is, no more and no less, from its header.
fn raw_bytes(what: &'static str, frame: &[u8], raw_bytes_max: usize) -> Result<usize> {
    if frame.first_chunk() != Some(&ZSTD_MAGIC) {
        return Err(Error::damaged(what, "byte 0: zstd magic"));
    }
    match frame.get(4) {
        Some(descriptor) if descriptor & DESCRIPTOR_CHECKSUM != 0 && descriptor & DESCRIPTOR_REFUSED == 0 => {}
        _ => return Err(Error::damaged(what, "byte 4: frame header descriptor")),
    }
    let Ok(Some(size)) = zstd_safe::get_frame_content_size(frame) else {
        return Err(Error::damaged(what, "byte 5: content size"));
    };
    within("content size of a frame", size, raw_bytes_max as u64)?;
    if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(Error::damaged(what, format!("byte {}: end of the frame", frame.len())));
    }
    usize::try_from(size).map_err(|_| Error::damaged(what, "byte 5: content size"))
}

/// Length of the zstd frame that begins `data`.
pub(super) fn first_frame_bytes(what: &'static str, data: &[u8]) -> Result<usize> {
    zstd_safe::find_frame_compressed_size(data).map_err(|_| Error::damaged(what, "byte 0: end of the frame"))
}

fn no_memory() -> Error {
    Error::Invalid {
        what: "zstd",
        reason: "no memory for its tables".into(),
    }
}

fn refused_by_zstd(code: usize) -> Error {
    Error::Invalid {
        what: "zstd",
        reason: zstd_safe::get_error_name(code).into(),
    }
}
