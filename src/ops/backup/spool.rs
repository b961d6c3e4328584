//! Rows that wait: in memory up to a bound, then in an unlinked file, so that no transaction waits for an upload.
//!
//! A media row is about 100 bytes; a million of them pass through here. Reads and writes are small and go to the page
//! cache, so they are made where they are needed rather than on a blocking thread.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::synapse::media::{MediaKind, MediaRow};

/// Longest path of a row.
const PATH_BYTES_MAX: usize = u16::MAX as usize;

/// Rows go in.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Vec<u8>,
    memory_bytes_max: usize,
    folder: PathBuf,
    file: Option<BufWriter<File>>,
    rows: u64,
}

impl Spool {
    /// At most `memory_bytes_max` in memory, the rest in an unlinked file in `folder`.
    pub(super) fn new(memory_bytes_max: usize, folder: &Path) -> Self {
        Self { memory: Vec::new(), memory_bytes_max, folder: folder.to_owned(), file: None, rows: 0 }
    }

    pub(super) fn push(&mut self, row: &MediaRow) -> io::Result<()> {
        self.rows += 1;
        if self.file.is_none() && self.memory.len() + row.path.len() + 64 > self.memory_bytes_max {
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
    pub(super) fn rows(self) -> io::Result<Rows> {
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
pub(super) struct Rows {
    source: Box<dyn Read + Send>,
    left: u64,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} left)", self.left)
    }
}

impl Iterator for Rows {
    type Item = io::Result<MediaRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(decode(&mut *self.source))
    }
}

fn encode(row: &MediaRow, out: &mut impl Write) -> io::Result<()> {
    if row.path.len() > PATH_BYTES_MAX {
        return Err(io::Error::other("a media path is longer than 65,535 bytes"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    out.write_all(&(row.path.len() as u16).to_le_bytes())?;
    out.write_all(row.path.as_bytes())?;
    let flags = u8::from(row.bytes.is_some()) | u8::from(row.sha256.is_some()) << 1 | u8::from(row.bad_id) << 2 | (row.kind as u8) << 3;
    out.write_all(&[flags])?;
    out.write_all(&row.bytes.unwrap_or(0).to_le_bytes())?;
    out.write_all(row.sha256.as_ref().map_or(&[][..], |sha256| &sha256[..]))
}

fn decode(source: &mut dyn Read) -> io::Result<MediaRow> {
    let mut length = [0; 2];
    source.read_exact(&mut length)?;
    let mut path = vec![0; usize::from(u16::from_le_bytes(length))];
    source.read_exact(&mut path)?;
    let (mut flags, mut bytes) = ([0], [0; 8]);
    source.read_exact(&mut flags)?;
    source.read_exact(&mut bytes)?;
    let sha256 = if flags[0] & 2 == 0 {
        None
    } else {
        let mut sha256 = [0; 32];
        source.read_exact(&mut sha256)?;
        Some(sha256)
    };
    Ok(MediaRow {
        path: String::from_utf8(path).map_err(io::Error::other)?,
        bytes: (flags[0] & 1 != 0).then_some(u64::from_le_bytes(bytes)),
        sha256,
        bad_id: flags[0] & 4 != 0,
        kind: MediaKind::from_number(flags[0] >> 3).ok_or_else(|| io::Error::other("an unknown kind of media"))?,
    })
}
