//! Where dump streams are cut: the golden positions, and that they do not depend on how the stream arrives.
//!
//! If `tests/golden/chunker.txt` had to change, nothing of an older repository would be found again: do not change it.

use std::fmt::Write as _;

use proptest::prelude::*;
use synapse_backup::format::chunk::{ChunkSizes, Chunker};

use crate::golden::compare;
use crate::values::{copy_text, noise};

/// Positions of the cuts, with the end.
fn cuts(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
    let mut at = 0;
    std::iter::from_fn(|| {
        at += chunker.cut(&data[at..], true)?;
        Some(at)
    })
    .collect()
}

#[test]
fn cuts_stand_where_they_always_stood() {
    let small = ChunkSizes {
        min: 512,
        average: 2_048,
        max: 8_192,
    };
    let cases = [
        ("splitmix64 seed 1, 4 MiB, default sizes", noise(1, 4 << 20), ChunkSizes::default()),
        (
            "COPY text seed 2, 40,000 rows, default sizes",
            copy_text(2, 40_000),
            ChunkSizes::default(),
        ),
        ("splitmix64 seed 3, 65,537 bytes, 512/2048/8192", noise(3, 65_537), small),
        ("1,000,001 zero bytes, default sizes", vec![0; 1_000_001], ChunkSizes::default()),
    ];
    let mut found = String::new();
    for (name, data, sizes) in cases {
        let positions = cuts(&Chunker::new(sizes).unwrap(), &data);
        writeln!(found, "# {name}: {} bytes in {} blobs", data.len(), positions.len()).unwrap();
        for line in positions.chunks(12) {
            writeln!(found, "{}", line.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).unwrap();
        }
    }
    compare("chunker.txt", found.as_bytes());
}

#[test]
fn every_blob_but_the_last_keeps_to_the_sizes_and_their_average_is_near() {
    let sizes = ChunkSizes::default();
    for data in [noise(4, 16 << 20), copy_text(5, 100_000)] {
        let positions = cuts(&Chunker::new(sizes).unwrap(), &data);
        let starts = std::iter::once(0).chain(positions.iter().copied());
        let lengths: Vec<usize> = positions.iter().zip(starts).map(|(end, start)| end - start).collect();
        let (last, others) = lengths.split_last().unwrap();
        assert!(
            others
                .iter()
                .all(|length| (sizes.min as usize..=sizes.max as usize).contains(length))
        );
        assert!(*last <= sizes.max as usize);
        let average = data.len() / lengths.len();
        assert!((40 << 10..=100 << 10).contains(&average), "{average}");
    }
}

#[test]
fn cuts_meet_again_after_a_row_was_put_in() {
    let before = copy_text(6, 40_000);
    let mut after = before.clone();
    let middle = after.len() / 2;
    after.splice(middle..middle, b"one more row\n".iter().copied());
    let chunker = Chunker::new(ChunkSizes::default()).unwrap();
    let blobs = |data: &[u8]| -> std::collections::HashSet<Vec<u8>> {
        let ends = cuts(&chunker, data);
        std::iter::once(0)
            .chain(ends.iter().copied())
            .zip(ends.iter())
            .map(|(start, end)| data[start..*end].to_vec())
            .collect()
    };
    let new = blobs(&after).difference(&blobs(&before)).count();
    assert!(new <= 4, "{new} new blobs for one row");
}

#[test]
fn a_chunker_that_has_seen_too_little_asks_for_more() {
    let chunker = Chunker::new(ChunkSizes::default()).unwrap();
    let data = noise(7, chunker.bytes_wanted());
    assert_eq!(chunker.cut(&[], false), None);
    assert_eq!(chunker.cut(&[], true), None);
    assert_eq!(chunker.cut(&data[1..], false), None);
    assert_eq!(chunker.cut(&data, false), chunker.cut(&data, true));
    assert_eq!(chunker.cut(&data[..10], true), Some(10));
}

#[test]
fn sizes_that_cannot_work_are_refused() {
    let good = ChunkSizes::default();
    let bad = [
        ChunkSizes { min: 0, ..good },
        ChunkSizes { min: 16_385, ..good },
        ChunkSizes { min: 128 << 10, ..good },
        ChunkSizes { average: 60_000, ..good },
        ChunkSizes {
            average: 512 << 10,
            ..good
        },
        ChunkSizes { max: 32 << 10, ..good },
        ChunkSizes { max: 262_143, ..good },
        ChunkSizes {
            max: (8 << 20) + 2,
            ..good
        },
        ChunkSizes { max: u32::MAX, ..good },
    ];
    for sizes in bad {
        assert!(Chunker::new(sizes).is_err(), "{sizes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cuts_do_not_depend_on_how_the_stream_arrives(seed: u64, bytes in 0_usize..60_000, step in 1_usize..9_000) {
        let chunker = Chunker::new(ChunkSizes { min: 256, average: 1_024, max: 4_096 }).unwrap();
        let data = noise(seed, bytes);
        let (mut buffer, mut found, mut at) = (Vec::new(), Vec::new(), 0);
        let mut arrivals = data.chunks(step).peekable();
        while let Some(arrival) = arrivals.next() {
            buffer.extend_from_slice(arrival);
            while let Some(length) = chunker.cut(&buffer, arrivals.peek().is_none()) {
                buffer.drain(..length);
                at += length;
                found.push(at);
            }
        }
        prop_assert_eq!(found, cuts(&chunker, &data));
        prop_assert!(buffer.is_empty());
    }
}
