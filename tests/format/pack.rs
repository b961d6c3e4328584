//! Whole packs: frames and table together, as a reader of ours, a stranger with `zstd` and a copier see them.
//!
//! The golden pack is the worked example of `docs/format.md`.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use synapse_backup::format::frame::{FrameDecoder, FrameEncoder};
use synapse_backup::format::pack::{
    BlobEntry, PackTable, TABLE_FOOTER_BYTES, TABLE_TAIL_BYTES, TailRead, decode_table, encode_table, encoded_table_bytes,
};
use synapse_backup::format::{BlobId, Error, PackKind};

use crate::golden::golden_hex;
use crate::values::{noise, pack_id};

/// A pack with these frames of these blobs.
pub(crate) fn pack_of(frames: &[&[&[u8]]]) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(3).unwrap();
    let (mut pack, mut entries) = (Vec::new(), Vec::new());
    for blobs in frames {
        let frame = encoder.encode(blobs).unwrap();
        let mut offset_in_frame = 0;
        for blob in *blobs {
            let raw_length = u32::try_from(blob.len()).unwrap();
            entries.push(BlobEntry {
                id: BlobId::of(blob),
                frame_offset: u32::try_from(pack.len()).unwrap(),
                frame_length: u32::try_from(frame.len()).unwrap(),
                offset_in_frame,
                raw_length,
            });
            offset_in_frame += raw_length;
        }
        pack.extend_from_slice(&frame);
    }
    let table = PackTable {
        id: pack_id(0x11),
        kind: PackKind::Media,
        entries,
    };
    pack.extend_from_slice(&encode_table(&table, pack.len() as u64).unwrap());
    pack
}

/// The blobs of a pack, by its table.
pub(crate) fn blobs_of(pack: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let TailRead::Table(table) = decode_table(pack, pack.len() as u64)? else {
        panic!("the whole pack was given")
    };
    let mut decoder = FrameDecoder::new()?;
    let blob = |entry: &BlobEntry| {
        let raw = decoder.decode(&pack[entry.frame_offset as usize..usize::try_from(entry.frame_end()).unwrap()])?;
        let found = raw.get(entry.offset_in_frame as usize..usize::try_from(entry.end_in_frame()).unwrap());
        found.map(<[u8]>::to_vec).ok_or(Error::Damaged {
            what: "frame",
            place: "it is shorter than its blobs".into(),
        })
    };
    table.entries.iter().map(blob).collect()
}

pub(crate) const EXAMPLE: [&[&[u8]]; 2] = [&[b"Matrix needs ", b"a homeserver, "], &[b"and a homeserver needs a backup.\n"]];

#[test]
fn the_golden_pack_gives_its_blobs() {
    let made = pack_of(&EXAMPLE);
    let text = made.chunks(32).map(|line| hex::encode(line) + "\n").collect::<String>();
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pack.zst.hex"), text).unwrap();
    assert_eq!(blobs_of(&golden_hex("pack.zst.hex")).unwrap(), EXAMPLE.concat());
}

#[test]
fn zstd_prints_the_blobs_of_a_pack_end_to_end() {
    let large = noise(8, 300_000);
    let text = b"the same words again and again, ".repeat(40_000);
    let pack = pack_of(&[&[&large, &text], &[b"x"], &[&text]]);
    let wanted = [large, text.clone(), b"x".to_vec(), text].concat();
    let mut read = Vec::new();
    zstd::Decoder::new(pack.as_slice()).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == wanted, "the streaming decoder of the zstd library");
    // Machines without the zstd program have had the same check by the library's own stream decoder above.
    let Ok(mut child) = Command::new("zstd").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        return;
    };
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&pack).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success() && output.stdout == wanted, "the zstd program");
}

#[test]
fn a_table_longer_than_the_first_read_asks_for_its_tail() {
    let frame = 9_u32;
    let entries: Vec<BlobEntry> = (0..65_536_u32)
        .map(|at| BlobEntry {
            id: BlobId::of(&at.to_le_bytes()),
            frame_offset: at * frame,
            frame_length: frame,
            offset_in_frame: 0,
            raw_length: 1,
        })
        .collect();
    let table = PackTable {
        id: pack_id(1),
        kind: PackKind::Database,
        entries,
    };
    let frames_bytes = 65_536 * u64::from(frame);
    let bytes = encode_table(&table, frames_bytes).unwrap();
    let object_bytes = frames_bytes + bytes.len() as u64;
    assert_eq!(bytes.len(), encoded_table_bytes(65_536));
    let tail = |wanted: u64| &bytes[bytes.len() - usize::try_from(wanted).unwrap()..];
    assert_eq!(decode_table(&[], object_bytes), Ok(TailRead::NeedTail(TABLE_TAIL_BYTES)));
    assert_eq!(
        decode_table(tail(TABLE_FOOTER_BYTES as u64 - 1), object_bytes),
        Ok(TailRead::NeedTail(TABLE_TAIL_BYTES))
    );
    let Ok(TailRead::NeedTail(wanted)) = decode_table(tail(TABLE_TAIL_BYTES), object_bytes) else {
        panic!("it does not fit")
    };
    assert_eq!(wanted, bytes.len() as u64);
    assert_eq!(decode_table(tail(wanted), object_bytes), Ok(TailRead::Table(table.clone())));
    let one_more = PackTable {
        entries: [table.entries.clone(), table.entries[..1].to_vec()].concat(),
        ..table
    };
    assert!(matches!(
        encode_table(&one_more, frames_bytes),
        Err(Error::OverLimit { value: 65_537, .. })
    ));
}

type Change = fn(&mut Vec<BlobEntry>);

#[test]
fn a_table_that_does_not_tile_its_pack_is_refused() {
    let good = crate::values::table();
    let changes: [(&str, Change); 10] = [
        ("a gap before a frame", |entries| entries[2].frame_offset = 21),
        ("a frame that overlaps the one before", |entries| entries[2].frame_offset = 19),
        ("a frame that reaches into the table", |entries| entries[2].frame_length = 31),
        ("frames that end early", |entries| entries[2].frame_length = 29),
        ("a frame of no bytes", |entries| entries[2].frame_length = 0),
        ("two lengths of one frame", |entries| entries[1].frame_length = 19),
        ("a gap in a frame", |entries| entries[1].offset_in_frame = 6),
        ("a frame that begins late", |entries| entries[2].offset_in_frame = 1),
        ("a blob of no bytes", |entries| entries[2].raw_length = 0),
        ("a blob that is too long", |entries| entries[2].raw_length = (8 << 20) + 1),
    ];
    for (name, change) in changes {
        let mut entries = good.entries.clone();
        change(&mut entries);
        assert!(encode_table(&PackTable { entries, ..good.clone() }, 50).is_err(), "{name}");
    }
}
