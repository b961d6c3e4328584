//! Rows that wait: in memory up to a bound, then in an unlinked file, so that no transaction waits for an upload.
//!
//! A media row is about 100 bytes; a million of them pass through here. Reads and writes are small and go to the page
//! cache, so they are made where they are needed rather than on a blocking thread.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::synapse::media::{MediaItem, MediaKind, MediaRow};

/// Longest path of a row.
const PATH_BYTES_MAX: usize = u16::MAX as usize;

/// Rows go in.
#[derive(Debug)]
pub(in crate::ops) struct Spool {
    memory: Vec<u8>,
    memory_bytes_max: usize,
    folder: PathBuf,
    file: Option<BufWriter<File>>,
    rows: u64,
}

impl Spool {
    /// At most `memory_bytes_max` in memory, the rest in an unlinked file in `folder`.
    pub(in crate::ops) fn new(memory_bytes_max: usize, folder: &Path) -> Self {
        Self {
            memory: Vec::new(),
            memory_bytes_max,
            folder: folder.to_owned(),
            file: None,
            rows: 0,
        }
    }

    pub(in crate::ops) fn push(&mut self, row: &MediaItem) -> io::Result<()> {
        self.rows += 1;
        if self.file.is_none() && self.memory.len() + text(row).len() + 64 > self.memory_bytes_max {
            let mut file = BufWriter::with_capacity(256 << 10, tempfile::tempfile_in(&self.folder)?);
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => encode(row, file),
            None => encode(row, &mut self.memory),
        }
    }

    /// The rows, in the order in which they were pushed.
    pub(in crate::ops) fn rows(self) -> io::Result<Rows> {
        let source: Box<dyn Read + Send> = match self.file {
            Some(file) => {
                let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.seek(SeekFrom::Start(0))?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
            None => Box::new(Cursor::new(self.memory)),
        };
        Ok(Rows { source, left: self.rows })
    }
}

/// Rows come out.
pub(in crate::ops) struct Rows {
    source: Box<dyn Read + Send>,
    left: u64,
}

impl Rows {
    /// How many are still to come.
    pub(in crate::ops) fn count_left(&self) -> u64 {
        self.left
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} left)", self.left)
    }
}

impl Iterator for Rows {
    type Item = io::Result<MediaItem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(decode(&mut *self.source))
    }
}

fn text(row: &MediaItem) -> &str {
    match row {
        MediaItem::File(row) => &row.path,
        MediaItem::BadId { text, .. } => text,
    }
}

const HAS_BYTES: u8 = 1;
const HAS_SHA256: u8 = 2;
const BAD_ID: u8 = 4;
const KIND_SHIFT: u8 = 3;

fn encode(row: &MediaItem, out: &mut impl Write) -> io::Result<()> {
    let text = text(row).as_bytes();
    let text = &text[..text.len().min(PATH_BYTES_MAX)];
    let (kind, bytes, sha256, flags) = match row {
        MediaItem::File(MediaRow { kind, bytes, sha256, .. }) => {
            let has_bytes = if bytes.is_some() { HAS_BYTES } else { 0 };
            let has_sha256 = if sha256.is_some() { HAS_SHA256 } else { 0 };
            (*kind, bytes.unwrap_or(0), sha256.as_ref(), has_bytes | has_sha256)
        }
        MediaItem::BadId { kind, .. } => (*kind, 0, None, BAD_ID),
    };
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    out.write_all(&(text.len() as u16).to_le_bytes())?;
    out.write_all(text)?;
    out.write_all(&[flags | (kind as u8) << KIND_SHIFT])?;
    out.write_all(&bytes.to_le_bytes())?;
    out.write_all(sha256.map_or(&[][..], |sha256| &sha256[..]))
}

fn decode(source: &mut dyn Read) -> io::Result<MediaItem> {
    let mut length = [0; 2];
    source.read_exact(&mut length)?;
    let mut text = vec![0; usize::from(u16::from_le_bytes(length))];
    source.read_exact(&mut text)?;
    let (mut flags, mut bytes) = ([0], [0; 8]);
    source.read_exact(&mut flags)?;
    source.read_exact(&mut bytes)?;
    let kind = MediaKind::ALL
        .get(usize::from(flags[0] >> KIND_SHIFT))
        .copied()
        .ok_or_else(|| io::Error::other("an unknown kind of media"))?;
    if flags[0] & BAD_ID != 0 {
        return Ok(MediaItem::BadId {
            kind,
            text: String::from_utf8_lossy(&text).into_owned(),
        });
    }
    let mut sha256 = [0; 32];
    if flags[0] & HAS_SHA256 != 0 {
        source.read_exact(&mut sha256)?;
    }
    Ok(MediaItem::File(MediaRow {
        path: String::from_utf8(text).map_err(io::Error::other)?,
        bytes: (flags[0] & HAS_BYTES != 0).then_some(u64::from_le_bytes(bytes)),
        sha256: (flags[0] & HAS_SHA256 != 0).then_some(sha256),
        kind,
    }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn rows_come_back_in_order_from_memory_and_from_disk() {
        let file = |number: u64| {
            let sha256 = number.is_multiple_of(2).then_some([7; 32]);
            MediaItem::File(MediaRow {
                path: format!("local_content/{number}"),
                bytes: Some(number),
                sha256,
                kind: MediaKind::Local,
            })
        };
        let mut items: Vec<MediaItem> = (0..1000).map(file).collect();
        items.push(MediaItem::BadId {
            kind: MediaKind::Remote,
            text: "../../etc/passwd".into(),
        });
        for memory in [0, 1 << 20] {
            let mut spool = Spool::new(memory, &std::env::temp_dir());
            for item in &items {
                spool.push(item).unwrap();
            }
            assert_eq!(spool.rows().unwrap().collect::<io::Result<Vec<_>>>().unwrap(), items);
        }
    }
}
