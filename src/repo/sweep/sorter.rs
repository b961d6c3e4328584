//! Sorting more rows than memory holds: sorted runs in an unlinked file, merged while they are read.
//!
//! Rows are byte arrays of one length that sort as bytes do (numbers in them are big-endian). Equal rows come out once.
//! What fits into memory never touches the disk. Reads and writes go to the page cache, a run or a buffer at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of one run that are read together, at most.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// Rows go in, in any order.
#[derive(Debug)]
pub(super) struct Sorter<const N: usize> {
    rows: Vec<[u8; N]>,
    rows_max: usize,
    folder: PathBuf,
    file: Option<File>,
    /// Rows of each run in the file, one run behind the other.
    runs: Vec<u64>,
}

impl<const N: usize> Sorter<N> {
    /// About `memory_bytes` of rows in memory, the rest in a file without a name in `folder`.
    pub(super) fn new(memory_bytes: usize, folder: &Path) -> Self {
        Self {
            rows: Vec::new(),
            rows_max: (memory_bytes / N).max(1024),
            folder: folder.to_owned(),
            file: None,
            runs: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: [u8; N]) -> io::Result<()> {
        if self.rows.len() >= self.rows_max {
            self.spill()?;
        }
        if self.rows.len() == self.rows.capacity() {
            // Doubled, but never beyond what was allowed.
            let more = self.rows.len().max(1024).min(self.rows_max - self.rows.len());
            self.rows.reserve_exact(more);
        }
        self.rows.push(row);
        Ok(())
    }

    /// One sorted run into the file. One that repeats itself is only made shorter.
    fn spill(&mut self) -> io::Result<()> {
        self.rows.sort_unstable();
        self.rows.dedup();
        if self.rows.len() <= self.rows_max / 2 {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        let before: u64 = self.runs.iter().sum();
        file.write_all_at(self.rows.as_flattened(), before * N as u64)?;
        self.runs.push(self.rows.len() as u64);
        self.rows.clear();
        Ok(())
    }

    /// Everything is in.
    pub(super) fn finish(mut self) -> io::Result<Sorted<N>> {
        let memory_bytes = self.rows_max * N;
        self.rows.sort_unstable();
        self.rows.dedup();
        if let Some(file) = &self.file
            && !self.rows.is_empty()
        {
            let before: u64 = self.runs.iter().sum();
            file.write_all_at(self.rows.as_flattened(), before * N as u64)?;
            self.runs.push(self.rows.len() as u64);
            self.rows = Vec::new();
        }
        self.rows.shrink_to_fit();
        Ok(Sorted {
            rows: self.rows,
            file: self.file,
            buffer_bytes: (memory_bytes / self.runs.len().max(1)).min(BUFFER_BYTES_MAX),
            runs: self.runs,
        })
    }
}

/// Sorted rows, which may be read again and again.
#[derive(Debug)]
pub(super) struct Sorted<const N: usize> {
    /// All of them, where they fit.
    rows: Vec<[u8; N]>,
    file: Option<File>,
    runs: Vec<u64>,
    buffer_bytes: usize,
}

impl<const N: usize> Sorted<N> {
    /// From the first to the last, each once.
    pub(super) fn iter(&self) -> Merge<'_, N> {
        let mut runs = Vec::new();
        if let Some(file) = &self.file {
            let mut start = 0;
            for rows in &self.runs {
                runs.push(Run {
                    file,
                    next: start,
                    left: *rows,
                    buffer: Vec::new(),
                    at: 0,
                    buffer_rows: (self.buffer_bytes / N).max(1),
                });
                start += rows * N as u64;
            }
        }
        Merge {
            memory: self.rows.iter(),
            runs,
            heap: BinaryHeap::new(),
            begun: false,
            last: None,
        }
    }
}

/// One run that is being read.
struct Run<'a, const N: usize> {
    file: &'a File,
    next: u64,
    left: u64,
    buffer: Vec<u8>,
    at: usize,
    buffer_rows: usize,
}

impl<const N: usize> Run<'_, N> {
    fn next(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.at == self.buffer.len() {
            let rows = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.buffer_rows);
            if rows == 0 {
                return Ok(None);
            }
            self.buffer.resize(rows * N, 0);
            self.file.read_exact_at(&mut self.buffer, self.next)?;
            self.next += (rows * N) as u64;
            self.left -= rows as u64;
            self.at = 0;
        }
        let row = self.buffer[self.at..].first_chunk::<N>().copied();
        self.at += N;
        Ok(row)
    }
}

/// The rows of all runs in order.
pub(super) struct Merge<'a, const N: usize> {
    memory: std::slice::Iter<'a, [u8; N]>,
    runs: Vec<Run<'a, N>>,
    heap: BinaryHeap<Reverse<([u8; N], usize)>>,
    begun: bool,
    last: Option<[u8; N]>,
}

impl<const N: usize> Merge<'_, N> {
    fn next_row(&mut self) -> io::Result<Option<[u8; N]>> {
        if !self.begun {
            self.begun = true;
            for run in 0..self.runs.len() {
                self.refill(run)?;
            }
        }
        loop {
            let row = match self.heap.pop() {
                Some(Reverse((row, run))) => {
                    self.refill(run)?;
                    row
                }
                None => match self.memory.next() {
                    Some(row) => *row,
                    None => return Ok(None),
                },
            };
            if self.last.replace(row) != Some(row) {
                return Ok(Some(row));
            }
        }
    }

    fn refill(&mut self, run: usize) -> io::Result<()> {
        if let Some(row) = self.runs[run].next()? {
            self.heap.push(Reverse((row, run)));
        }
        Ok(())
    }
}

impl<const N: usize> Iterator for Merge<'_, N> {
    type Item = io::Result<[u8; N]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn rows_come_out_sorted_and_once_from_memory_and_from_disk() {
        let numbers: Vec<u32> = (0..50_000_u32).map(|at| at.wrapping_mul(2_654_435_761) % 20_000).collect();
        let mut wanted: Vec<u32> = numbers.clone();
        wanted.sort_unstable();
        wanted.dedup();
        for memory in [0, 10_000, 1 << 20] {
            let mut sorter = Sorter::new(memory, &std::env::temp_dir());
            for number in &numbers {
                sorter.push(number.to_be_bytes()).unwrap();
            }
            let sorted = sorter.finish().unwrap();
            for _ in 0..2 {
                let rows: Vec<u32> = sorted.iter().map(|row| u32::from_be_bytes(row.unwrap())).collect();
                assert_eq!(rows, wanted, "{memory} bytes of memory");
            }
        }
    }
}
