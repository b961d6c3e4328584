//! What each needed blob takes in the bucket: its share of the frame it is in.
//!
//! A frame is compressed as a whole. So the bytes of one in which all is needed, or nothing, are told exactly, and those of any
//! other are divided by raw length, which is the only thing that is told of a blob before its frame is opened. Shares of one frame
//! add up to its length, to the byte.

use std::io;

use super::SurveyOptions;
use super::live::blocking;
use super::rows::{self, FRAMED_BYTES, SHARE_BYTES};
use super::sorter::{Sorted, Sorter};
use super::{Survey, rows::Framed};
use crate::repo::Result;

/// Bytes of the frames of a pack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameBytes {
    /// All of them. What else the pack takes is its table, and what sealing adds.
    pub all: u64,
    /// The shares of blobs that snapshots need, each counted where the copy of it is that stays.
    pub needed: u64,
}

/// What everything that is needed takes.
#[derive(Debug)]
pub struct Weighed {
    /// In the places of [`Survey::packs`].
    pub packs: Vec<FrameBytes>,
    /// The share of each needed blob, by blob.
    pub(super) shares: Sorted<SHARE_BYTES>,
}

/// Weigh what a survey with [`SurveyOptions::frames`] found. It gives away the rows, so it can be done once.
pub async fn weigh(survey: &mut Survey, options: &SurveyOptions) -> Result<Weighed> {
    let count = survey.packs.len();
    let share = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let framed = survey.framed.take();
    let folder = options.spool_folder.clone();
    let shares = Sorter::new(share, &folder);
    blocking(&options.spool_folder, move || match framed {
        Some(framed) => weigh_frames(&framed, count, shares),
        None => weigh_frames(&Sorter::new(0, &folder).finish()?, count, shares),
    })
    .await
}

fn weigh_frames(framed: &Sorted<FRAMED_BYTES>, packs: usize, mut shares: Sorter<SHARE_BYTES>) -> io::Result<Weighed> {
    let mut weighed = vec![FrameBytes::default(); packs];
    let mut frame: Vec<Framed> = Vec::new();
    for row in framed.iter() {
        let next = rows::decode_framed(&row?);
        let place = |framed: &Framed| (framed.line.pack, framed.line.blob.frame_offset);
        if frame.last().is_some_and(|last| place(last) != place(&next)) {
            weigh_frame(&frame, &mut weighed, &mut shares)?;
            frame.clear();
        }
        frame.push(next);
    }
    weigh_frame(&frame, &mut weighed, &mut shares)?;
    Ok(Weighed {
        packs: weighed,
        shares: shares.finish()?,
    })
}

/// The blobs of one frame, in their order in it.
fn weigh_frame(frame: &[Framed], packs: &mut [FrameBytes], shares: &mut Sorter<SHARE_BYTES>) -> io::Result<()> {
    let Some(first) = frame.first() else { return Ok(()) };
    let raw = frame.iter().map(|framed| framed.line.blob.end_in_frame()).max().unwrap_or(0).max(1);
    let length = u64::from(first.line.blob.frame_length);
    let bytes = &mut packs[first.line.pack as usize];
    bytes.all += length;
    for framed in frame.iter().filter(|framed| framed.needed) {
        let blob = &framed.line.blob;
        // Both below 4 GiB, so the product fits.
        let share = length * blob.end_in_frame() / raw - length * u64::from(blob.offset_in_frame) / raw;
        bytes.needed += share;
        shares.push(rows::share(&blob.id, u32::try_from(share).unwrap_or(u32::MAX)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::rows::Line;
    use super::*;
    use crate::format::BlobId;
    use crate::format::pack::BlobEntry;

    #[test]
    fn the_shares_of_a_frame_add_up_to_its_length() {
        let folder = std::env::temp_dir();
        let weigh = |needed: &dyn Fn(u32) -> bool| {
            let mut framed = Sorter::new(0, &folder);
            for at in 0..9 {
                let line = Line {
                    pack: 1,
                    blob: BlobEntry {
                        id: BlobId::of(&[u8::try_from(at).unwrap()]),
                        frame_offset: at / 3 * 100,
                        frame_length: 100,
                        offset_in_frame: at % 3 * 7,
                        raw_length: 7,
                    },
                };
                framed.push(rows::framed(&line, needed(at))).unwrap();
            }
            let weighed = weigh_frames(&framed.finish().unwrap(), 2, Sorter::new(0, &folder)).unwrap();
            assert_eq!(weighed.packs[0], FrameBytes::default());
            let shares: u64 = weighed
                .shares
                .iter()
                .map(|row| u64::from(rows::decode_share(&row.unwrap()).1))
                .sum();
            assert_eq!(shares, weighed.packs[1].needed);
            weighed.packs[1]
        };
        let bytes = |needed| FrameBytes { all: 300, needed };
        assert_eq!(weigh(&|_| true), bytes(300));
        assert_eq!(weigh(&|_| false), bytes(0));
        assert_eq!(weigh(&|at| at < 3), bytes(100), "a whole frame");
        assert_eq!(weigh(&|at| at == 1), bytes(33), "a third of one");
        assert_eq!(weigh(&|at| at != 1), bytes(267), "and the rest of it");
    }
}
