//! Reading packs whole: every frame is decoded and every blob hashed against the pack's own table.
//!
//! A pack that does not fit into memory as a whole is read in pieces of some frames; together they are all of it.
//! A copy that is bad is remembered, so that the structure check counts only good copies. What a bad copy costs is told
//! there, in terms of items.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::{BadCopies, Findings, ReadData, Report};
use crate::format::frame::FrameDecoder;
use crate::format::pack::{self, BlobEntry, PackTable, TailRead};
use crate::format::{BlobId, PACK_BYTES_MAX, PackId, keys};
use crate::ops::Run;
use crate::repo::catalog::Catalog;
use crate::repo::reader::{read_range, read_table, reads_of};
use crate::repo::{Error, Repository};
use crate::store::{self, ByteRange};

/// Packs that are read at once, where memory has room; each is in memory whole (64 MiB, and up to a frame more), and a sealed
/// one twice while it is opened.
const PACKS_AT_ONCE: usize = 2;
/// What the program itself takes.
const PROGRAM_BYTES: u64 = 32 << 20;

/// What reading a pack came to.
struct ReadPack {
    id: PackId,
    blobs: u64,
    bad: Vec<(BlobId, String)>,
    /// The pack as a whole: gone, or its table is damaged.
    whole: Option<String>,
}

/// Which packs are read: by their ids alone, so that the same share of percents is read every time, and the parts of a
/// rolling share are the same packs on whichever machine it runs. Days are the store's.
pub(super) async fn choose(repository: &Repository, relied: &BTreeSet<PackId>, share: ReadData) -> anyhow::Result<Vec<PackId>> {
    let part = match share {
        ReadData::Percent(_) => 0,
        ReadData::OneOf(parts) => part_of_day(repository.date().await?, parts),
    };
    Ok(relied.iter().copied().filter(|id| is_chosen(*id, share, part)).collect())
}

/// Which part of so many is today's.
fn part_of_day(now: Timestamp, parts: u32) -> u32 {
    let day = now.as_second().div_euclid(86_400);
    u32::try_from(day.rem_euclid(i64::from(parts.max(1)))).unwrap_or(0)
}

fn is_chosen(id: PackId, share: ReadData, part: u32) -> bool {
    let [.., a, b, c, d] = *id.as_bytes();
    match share {
        ReadData::Percent(percent) => u32::from(d) * 100 < u32::from(percent) * 256,
        ReadData::OneOf(parts) => u32::from_le_bytes([a, b, c, d]) % parts.max(1) == part,
    }
}

/// Read these packs.
pub(super) async fn read(
    repository: &Repository,
    catalog: &Catalog,
    chosen: Vec<PackId>,
    memory_bytes: u64,
    report: &mut Report,
    findings: &mut Findings,
    run: &Run<'_>,
) -> anyhow::Result<BadCopies> {
    let bytes = chosen.iter().filter_map(|id| catalog.pack(*id)).map(|pack| pack.bytes).sum();
    let largest = chosen.iter().filter_map(|id| catalog.pack(*id)).map(|pack| pack.bytes).max();
    let at_once = at_once(memory_bytes, largest.unwrap_or(0), repository.info().sealed);
    run.progress.stage("read packs", Some(bytes), Some(chosen.len() as u64));
    let mut bad = BadCopies::new();
    let mut reads = stream::iter(chosen)
        .map(|id| async move {
            match at_once {
                0 => read_in_pieces(repository, id).await,
                _ => read_pack(repository, id, catalog.pack(id).map_or(PACK_BYTES_MAX, |pack| pack.bytes)).await,
            }
        })
        .buffer_unordered(at_once.max(1));
    while let Some(read) = reads.try_next().await? {
        report.packs_read += 1;
        report.blobs_read += read.blobs;
        run.progress
            .advance("read packs", catalog.pack(read.id).map_or(0, |pack| pack.bytes), 1);
        if let Some(message) = read.whole {
            findings.add(format!("packs/{}", read.id), message, None);
            bad.extend(
                catalog
                    .entries()
                    .iter()
                    .filter(|entry| catalog.packs()[entry.pack as usize].id == read.id)
                    .map(|entry| (read.id, entry.blob.id)),
            );
        }
        if let Some((_, reason)) = read.bad.first() {
            findings.add(
                format!("packs/{}", read.id),
                format!("{} of its blobs are damaged: {reason}", read.bad.len()),
                None,
            );
        }
        bad.extend(read.bad.into_iter().map(|(blob, _)| (read.id, blob)));
    }
    run.progress.done("read packs");
    Ok(bad)
}

/// So many that what they hold fits beside the index, which has a quarter; none where not even one does.
fn at_once(memory_bytes: u64, largest_bytes: u64, is_sealed: bool) -> usize {
    let each = largest_bytes.max(1) * if is_sealed { 2 } else { 1 };
    let room = (memory_bytes / 4 * 3).saturating_sub(PROGRAM_BYTES);
    usize::try_from(room / each).unwrap_or(PACKS_AT_ONCE).min(PACKS_AT_ONCE)
}

impl ReadPack {
    /// Nothing can be said of its blobs.
    fn bad_as_a_whole(id: PackId, message: String) -> Self {
        Self {
            id,
            blobs: 0,
            bad: Vec::new(),
            whole: Some(message),
        }
    }
}

/// `bytes_max`: what the index says of its length.
async fn read_pack(repository: &Repository, id: PackId, bytes_max: u64) -> anyhow::Result<ReadPack> {
    let whole = |message: String| ReadPack::bad_as_a_whole(id, message);
    let got = match repository.store().get(&keys::pack(id), ByteRange::AtMost(bytes_max)).await {
        Ok(got) => got.bytes,
        Err(store::Error::NotFound { .. }) => return Ok(whole("it is gone".into())),
        Err(error) => match Error::from(error) {
            Error::Damaged { source, .. } => return Ok(whole(source.to_string())),
            error => return Err(error.into()),
        },
    };
    let checked = tokio::task::spawn_blocking(move || check(&got)).await?;
    Ok(match checked {
        Ok((blobs, bad)) => ReadPack {
            id,
            blobs,
            bad,
            whole: None,
        },
        Err(error) => whole(format!("its table is damaged: {error}")),
    })
}

/// The table first, then frame after frame: it says that they lie there from the first byte to its own, without gaps.
async fn read_in_pieces(repository: &Repository, id: PackId) -> anyhow::Result<ReadPack> {
    let whole = |message: String| ReadPack::bad_as_a_whole(id, message);
    let table = match read_table(repository, id).await {
        Ok(table) => table,
        Err(Error::Store(store::Error::NotFound { .. })) => return Ok(whole("it is gone".into())),
        Err(Error::Damaged { source, .. }) => return Ok(whole(format!("its table is damaged: {source}"))),
        Err(error) => return Err(error.into()),
    };
    let blobs = table.entries.len() as u64;
    let mut bad = Vec::new();
    for read in reads_of(id, table.entries) {
        let got = match read_range(repository, id, read.offset, read.length).await {
            Ok(got) => got,
            Err(Error::Store(store::Error::NotFound { .. })) => return Ok(whole("it is gone".into())),
            Err(Error::Damaged { source, .. }) => {
                bad.extend(read.blobs.iter().map(|blob| (blob.id, source.to_string())));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let check = move || check_frames(&got, usize::try_from(read.offset).unwrap_or(usize::MAX), &read.blobs);
        bad.extend(tokio::task::spawn_blocking(check).await?.map_err(anyhow::Error::msg)?);
    }
    Ok(ReadPack {
        id,
        blobs,
        bad,
        whole: None,
    })
}

type Bad = Vec<(BlobId, String)>;

fn check(object: &Bytes) -> Result<(u64, Bad), String> {
    let table = match pack::decode_table(object, object.len() as u64) {
        Ok(TailRead::Table(table)) => table,
        Ok(TailRead::NeedTail(_)) => return Err("it is longer than the pack".into()),
        Err(error) => return Err(error.to_string()),
    };
    let PackTable { mut entries, .. } = table;
    entries.sort_unstable_by_key(|entry| (entry.frame_offset, entry.offset_in_frame));
    Ok((entries.len() as u64, check_frames(object, 0, &entries)?))
}

/// The frames of these blobs, in bytes of the pack from `offset` on.
fn check_frames(bytes: &[u8], offset: usize, entries: &[BlobEntry]) -> Result<Bad, String> {
    let mut decoder = FrameDecoder::new().map_err(|error| error.to_string())?;
    let mut bad = Vec::new();
    for frame in entries.chunk_by(|a, b| a.frame_offset == b.frame_offset) {
        let start = (frame[0].frame_offset as usize).saturating_sub(offset);
        let raw = bytes
            .get(start..start + frame[0].frame_length as usize)
            .ok_or_else(|| "beyond the end of the pack".to_owned())
            .and_then(|bytes| decoder.decode(bytes).map_err(|error| error.to_string()));
        for entry in frame {
            let start = entry.offset_in_frame as usize;
            let good = raw.as_ref().map(|raw| {
                raw.get(start..start + entry.raw_length as usize)
                    .is_some_and(|blob| BlobId::of(blob) == entry.id)
            });
            match good {
                Ok(true) => {}
                Ok(false) => bad.push((entry.id, "its bytes have another SHA-256".into())),
                Err(reason) => bad.push((entry.id, reason.clone())),
            }
        }
    }
    Ok(bad)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn packs_that_are_read_at_once_fit_the_memory() {
        let pack = 65 << 20;
        for (mebibytes, is_sealed, expected) in [
            (96, false, 0),
            (96, true, 0),
            (128, true, 0),
            (132, false, 1),
            (256, false, 2),
            (256, true, 1),
            (512, true, 2),
            (8192, false, 2),
        ] {
            let memory = mebibytes << 20;
            let packs = at_once(memory, pack, is_sealed);
            assert_eq!(packs, expected, "{mebibytes} MiB, sealed: {is_sealed}");
            let held = packs as u64 * pack * if is_sealed { 2 } else { 1 };
            assert!(PROGRAM_BYTES + memory / 4 + held <= memory, "{mebibytes} MiB, sealed: {is_sealed}");
        }
    }

    #[test]
    fn thirty_days_in_a_row_read_every_pack_once() {
        let ids: Vec<PackId> = (0..500_u32).map(|number| PackId::from_bytes(sixteen(number))).collect();
        let begin: Timestamp = "2026-02-20T23:59:59Z".parse().unwrap();
        for parts in [1, 7, 30] {
            let mut read = vec![0; ids.len()];
            for day in 0..i64::from(parts) {
                let part = part_of_day(begin + jiff::SignedDuration::from_hours(24 * day), parts);
                for (at, id) in ids.iter().enumerate() {
                    read[at] += u32::from(is_chosen(*id, ReadData::OneOf(parts), part));
                }
            }
            assert!(read.iter().all(|times| *times == 1), "{parts}: {read:?}");
        }
    }

    #[test]
    fn a_percentage_is_about_that_many_and_always_the_same() {
        let ids: Vec<PackId> = (0..2_000_u32).map(|number| PackId::from_bytes(sixteen(number))).collect();
        for percent in [1, 10, 50, 100] {
            let count = ids.iter().filter(|id| is_chosen(**id, ReadData::Percent(percent), 0)).count();
            let wanted = 20 * usize::from(percent);
            assert!(count.abs_diff(wanted) <= 60, "{percent}: {count}");
        }
    }

    /// Sixteen bytes that look random.
    fn sixteen(number: u32) -> [u8; 16] {
        let digest = BlobId::of(&number.to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        bytes
    }
}
