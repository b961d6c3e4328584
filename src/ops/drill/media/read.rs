//! Reading media back: from the scratch folder where they were written, else from the repository.
//!
//! Small files go in batches of bounded size. What is read is hashed as a whole and compared with what its row says, or
//! with what was saved where the row says nothing.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::STAGE;
use crate::format::BlobId;
use crate::format::manifest::{MediaEntry, Shard};
use crate::format::snapshot::{Problem, ProblemKind};
use crate::ops::Run;
use crate::ops::drill::Media;
use crate::ops::drill::checks::Found;
use crate::ops::items::{self, media_name, stop_if_cancelled};
use crate::repo::{self, reader};

/// Files of one batch.
const BATCH_FILES_MAX: usize = 1_024;
/// Files that are read at once from the folder.
const READS_AT_ONCE: usize = 2;

/// A file and what it must be.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    item: String,
    path: PathBuf,
    bytes: u64,
    pub(super) sha256: BlobId,
    blobs: Vec<reader::Wanted>,
}

impl Expected {
    /// What was saved; `None`: nothing was.
    pub(super) fn of(shard: &Shard, entry: &MediaEntry) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt;
        Some(Self {
            item: media_name(&entry.path),
            path: PathBuf::from(std::ffi::OsStr::from_bytes(entry.path.as_bytes())),
            bytes: entry.bytes,
            sha256: entry.sha256?,
            blobs: items::wanted(shard, entry),
        })
    }
}

/// Files that wait to be read, and what was read.
pub(super) struct Reads<'a> {
    reader: &'a reader::Reader,
    mode: Media,
    root: PathBuf,
    waiting: Vec<Expected>,
    waiting_bytes: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl<'a> Reads<'a> {
    pub(super) fn new(reader: &'a reader::Reader, mode: Media, root: PathBuf) -> Self {
        Self {
            reader,
            mode,
            root,
            waiting: Vec::new(),
            waiting_bytes: 0,
            files: 0,
            bytes: 0,
        }
    }

    /// One more.
    pub(super) async fn add(&mut self, expected: Expected, found: &mut Found, run: &Run<'_>) -> anyhow::Result<()> {
        let bytes_max = self.reader.window_bytes() / 2;
        if self.waiting_bytes + expected.bytes > bytes_max || self.waiting.len() >= BATCH_FILES_MAX {
            self.flush(found, run).await?;
        }
        self.waiting_bytes += expected.bytes;
        self.waiting.push(expected);
        Ok(())
    }

    /// Read what waits.
    pub(super) async fn flush(&mut self, found: &mut Found, run: &Run<'_>) -> anyhow::Result<()> {
        stop_if_cancelled(run)?;
        let batch = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        self.files += batch.len() as u64;
        let bytes: u64 = batch.iter().map(|one| one.bytes).sum();
        self.bytes += bytes;
        run.progress.advance(STAGE, bytes, batch.len() as u64);
        if self.mode == Media::HashOnly {
            return self.read_repository(&batch, found).await;
        }
        found.add_all(self.read_folder(batch).await?);
        Ok(())
    }

    async fn read_folder(&self, batch: Vec<Expected>) -> anyhow::Result<Vec<Problem>> {
        let mut lots: Vec<Vec<Expected>> = (0..READS_AT_ONCE).map(|_| Vec::new()).collect();
        for (at, one) in batch.into_iter().enumerate() {
            lots[at % READS_AT_ONCE].push(one);
        }
        let work = lots.into_iter().map(|lot| {
            let root = self.root.clone();
            tokio::task::spawn_blocking(move || lot.iter().filter_map(|one| look(&root, one)).collect::<Vec<_>>())
        });
        let mut problems = Vec::new();
        for lot in futures::future::join_all(work).await {
            problems.extend(lot?);
        }
        Ok(problems)
    }

    /// Blobs are hashed as they come; a file of several is hashed as a whole too.
    async fn read_repository(&self, batch: &[Expected], found: &mut Found) -> anyhow::Result<()> {
        let (single, several): (Vec<&Expected>, Vec<&Expected>) = batch.iter().partition(|one| one.blobs.len() <= 1);
        let wanted: Vec<reader::Wanted> = single.iter().flat_map(|one| one.blobs.iter().copied()).collect();
        let mut fetched = self.reader.fetch(&wanted).await?.into_iter();
        for one in single {
            let read = if one.blobs.is_empty() {
                Ok(BlobId::of(b""))
            } else {
                fetched
                    .next()
                    .map_or_else(|| Ok(BlobId::of(b"")), |blob| blob.map(|blob| BlobId::of(&blob)))
            };
            settle(one, read, found);
        }
        for one in several {
            settle(one, self.whole(one).await?, found);
        }
        Ok(())
    }

    /// The outer error is the store's.
    async fn whole(&self, one: &Expected) -> anyhow::Result<repo::Result<BlobId>> {
        let mut sha256 = Sha256::new();
        for blob in &one.blobs {
            for bytes in self.reader.fetch(std::slice::from_ref(blob)).await? {
                match bytes {
                    Ok(bytes) => sha256.update(&bytes),
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        Ok(Ok(BlobId::from_bytes(sha256.finalize().into())))
    }
}

fn settle(one: &Expected, read: repo::Result<BlobId>, found: &mut Found) {
    match read {
        Ok(sha256) if sha256 == one.sha256 => {}
        Ok(sha256) => found.add(ProblemKind::HashDiffers, &one.item, differs(one, sha256)),
        Err(error) => found.add(ProblemKind::Damaged, &one.item, format!("{:#}", anyhow::Error::from(error))),
    }
}

fn differs(one: &Expected, sha256: BlobId) -> String {
    format!("it came back with SHA-256 {sha256}, not {}", one.sha256)
}

/// What is wrong with a file in the folder.
fn look(root: &Path, one: &Expected) -> Option<Problem> {
    let problem = |kind, message: String| {
        Some(Problem {
            kind,
            item: one.item.clone(),
            message,
        })
    };
    match hash(&root.join(&one.path)) {
        Ok((bytes, _)) if bytes != one.bytes => problem(ProblemKind::Short, format!("it came back with {bytes} bytes, not {}", one.bytes)),
        Ok((_, sha256)) if sha256 != one.sha256 => problem(ProblemKind::HashDiffers, differs(one, sha256)),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => problem(ProblemKind::Missing, "it did not come back".into()),
        Err(error) => problem(ProblemKind::Unreadable, format!("it cannot be read back: {error}")),
    }
}

fn hash(path: &Path) -> std::io::Result<(u64, BlobId)> {
    let (mut sha256, mut file, mut block, mut bytes) = (Sha256::new(), File::open(path)?, vec![0; 1 << 18], 0);
    loop {
        match file.read(&mut block)? {
            0 => return Ok((bytes, BlobId::from_bytes(sha256.finalize().into()))),
            read => {
                bytes += read as u64;
                sha256.update(&block[..read]);
            }
        }
    }
}
