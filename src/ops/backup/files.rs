//! Reading files into the repository: small ones many at a time, large ones block by block.
//!
//! A FIFO, a device or a folder is not read (links are followed, as Synapse does). A file is read once, hashed once,
//! and compared with itself before and after: what could not be read whole is an outcome, never an error of the run.
//! Which file means what is decided elsewhere.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use super::patience::Patience;
use crate::format::snapshot::ProblemKind;
use crate::format::{BLOB_BYTES_MAX, BlobId, PackId, PackKind};
use crate::repo::writer::{Claim, EncodedFrame, Placement, Writer};
use crate::repo::{self, Result};

/// Raw bytes of small files that are read by one job.
const BATCH_BYTES: u64 = 4 << 20;
/// Small files that are read by one job.
const BATCH_FILES: usize = 256;
/// What a file of a batch may be large, whatever was expected: a thumbnail's row has no length.
const UNEXPECTED_BYTES_MAX: u64 = 64 << 10;

/// A blob of a file and where it is, or will be.
#[derive(Debug, Clone)]
pub(super) struct FileBlob {
    pub(super) id: BlobId,
    pub(super) length: u32,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Known(PackId),
    Frame(Arc<Placement>),
}

impl FileBlob {
    /// Its pack; waits until whoever brings it has put it into one.
    pub(super) async fn pack(&self, writer: &Writer) -> Result<PackId> {
        match &self.place {
            Place::Known(pack) => Ok(*pack),
            Place::Frame(placement) => writer.placed(placement).await,
        }
    }
}

/// What reading a file came to.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Its bytes are in the repository; `problem` says what is odd about them.
    Saved(SavedFile),
    /// There is no such file.
    Missing,
    /// There is something, but its bytes could not be had.
    Failed(ProblemKind, String),
}

/// A file whose bytes are in the repository.
#[derive(Debug, Clone)]
pub(super) struct SavedFile {
    pub(super) bytes: u64,
    pub(super) sha256: BlobId,
    pub(super) blobs: Vec<FileBlob>,
    /// Mode, user and group; `None` for what is no file (an object in a bucket).
    pub(super) owner: Option<FileOwner>,
    /// It changed while it was read.
    pub(super) changed: bool,
    /// Not at the first place where it may be.
    pub(super) elsewhere: bool,
}

/// Permission bits and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileOwner {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Groups of small files that are read together, and large ones alone: ranges of `sizes`.
pub(super) fn batches(sizes: &[u64]) -> Vec<std::ops::Range<usize>> {
    let mut batches: Vec<std::ops::Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (place, &size) in sizes.iter().enumerate() {
        match batches.last_mut() {
            Some(last) if bytes + size <= BATCH_BYTES && last.len() < BATCH_FILES => last.end = place + 1,
            _ => {
                bytes = 0;
                batches.push(place..place + 1);
            }
        }
        bytes += size;
    }
    batches
}

/// Read these files (a batch): each with the places where it may be, best first, and its expected size.
///
/// Reading has a deadline, since a network file system may hang; nothing is claimed before it has ended.
pub(super) async fn save_batch(
    writer: &Writer,
    kind: PackKind,
    files: Vec<(Vec<PathBuf>, u64)>,
    patience: &Patience,
) -> Result<Vec<Outcome>> {
    let expected: u64 = files.iter().map(|(_, bytes)| (*bytes).min(BLOB_BYTES_MAX as u64)).sum();
    let permit = writer
        .work(kind, 2 * usize::try_from(expected).unwrap_or(usize::MAX / 2).max(64 << 10))
        .await?;
    let mut outcomes = Vec::with_capacity(files.len());
    let mut large = Vec::new();
    let begun = read_batch(files, patience, read_small).await?;
    let (begun, frames) = blocking({
        let writer = writer.clone();
        move || {
            let mut frames = Vec::new();
            let begun = begun
                .into_iter()
                .map(|one| one.save(&writer, &mut frames))
                .collect::<Result<Vec<_>>>()?;
            Ok((begun, frames))
        }
    })
    .await?;
    writer.append(kind, frames).await?;
    drop(permit);
    for (place, one) in begun.into_iter().enumerate() {
        outcomes.push(match one {
            Saved::Done(outcome) => outcome,
            Saved::Large(opened) => {
                large.push((place, opened));
                Outcome::Missing
            }
        });
    }
    for (place, open) in large {
        outcomes[place] = save_large(writer, kind, open, patience).await?;
    }
    Ok(outcomes)
}

/// Open and read small files together; if they do not come back in time, one by one, to name those that hang.
async fn read_batch(files: Vec<(Vec<PathBuf>, u64)>, patience: &Patience, read_one: fn(&[PathBuf], u64) -> Begun) -> Result<Vec<Begun>> {
    let together = files.clone();
    let read = move || together.iter().map(|(paths, expected)| read_one(paths, *expected)).collect();
    if let Some(begun) = patience.wait_for(read).await? {
        return Ok(begun);
    }
    let mut begun = Vec::with_capacity(files.len());
    for (paths, expected) in files {
        let read = patience.wait_for(move || read_one(&paths, expected)).await?;
        let hangs = || Begun::Done(Outcome::Failed(ProblemKind::Unreadable, patience.words()));
        begun.push(read.unwrap_or_else(hangs));
    }
    Ok(begun)
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(job)
        .await
        .map_err(|error| repo::Error::Worker(error.to_string()))?
}

/// A file that was opened, and read if it is small.
enum Begun {
    Done(Outcome),
    Small(Opened, Vec<u8>, bool),
    Large(Opened),
}

/// A file that is done, or one that needs block by block.
enum Saved {
    Done(Outcome),
    Large(Opened),
}

impl Begun {
    /// Hash, claim and, when new, compress.
    fn save(self, writer: &Writer, frames: &mut Vec<EncodedFrame>) -> Result<Saved> {
        Ok(match self {
            Self::Done(outcome) => Saved::Done(outcome),
            Self::Large(opened) => Saved::Large(opened),
            Self::Small(opened, bytes, changed) => {
                let sha256 = BlobId::of(&bytes);
                let blobs = save_block(writer, sha256, &bytes, frames)?.into_iter().collect();
                Saved::Done(Outcome::Saved(saved(&opened, bytes.len() as u64, sha256, blobs, changed)))
            }
        })
    }
}

/// An open regular file and what it was like when it was opened.
struct Opened {
    file: File,
    metadata: std::fs::Metadata,
    /// Not at the first of its places.
    elsewhere: bool,
}

fn failed(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::NotFound => Outcome::Missing,
        _ => Outcome::Failed(ProblemKind::Unreadable, error.to_string()),
    }
}

/// The first of the paths that is there. Opened without blocking, so that a FIFO cannot hold the run up.
fn open(paths: &[PathBuf]) -> std::result::Result<Opened, Outcome> {
    let mut outcome = Outcome::Missing;
    for path in paths {
        match open_one(path) {
            Err(Outcome::Missing) => {}
            Err(other) => outcome = other,
            Ok(opened) => {
                let elsewhere = paths.first() != Some(path);
                return Ok(Opened { elsewhere, ..opened });
            }
        }
    }
    Err(outcome)
}

fn open_one(path: &Path) -> std::result::Result<Opened, Outcome> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        // A folder where a folder of the path should be, or a socket.
        rustix::io::Errno::NOTDIR => Outcome::Missing,
        rustix::io::Errno::NXIO => Outcome::Failed(ProblemKind::NotAFile, "it is not a regular file".into()),
        error => failed(&error.into()),
    })?;
    let file = File::from(descriptor);
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(Outcome::Failed(ProblemKind::NotAFile, "it is not a regular file".into()));
    }
    Ok(Opened {
        file,
        metadata,
        elsewhere: false,
    })
}

/// Open, and read a file of at most one blob. One that is larger than expected is read block by block: memory was asked for
/// by what was expected.
fn read_small(paths: &[PathBuf], expected: u64) -> Begun {
    let mut opened = match open(paths) {
        Ok(opened) => opened,
        Err(outcome) => return Begun::Done(outcome),
    };
    let length = opened.metadata.len();
    if length > BLOB_BYTES_MAX as u64 || length > expected.max(UNEXPECTED_BYTES_MAX) {
        return Begun::Large(opened);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    // One byte more than expected shows that the file grew.
    if let Err(error) = (&mut opened.file).take(length + 1).read_to_end(&mut bytes) {
        return Begun::Done(failed(&error));
    }
    let grew = bytes.len() as u64 > length;
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    let changed = grew || has_changed(&opened);
    Begun::Small(opened, bytes, changed)
}

/// Claim one block and compress it if it is ours to bring. An empty file has no blobs.
fn save_block(writer: &Writer, id: BlobId, bytes: &[u8], frames: &mut Vec<EncodedFrame>) -> Result<Option<FileBlob>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let placement = Arc::<Placement>::default();
    let place = match writer.claim(id, &placement) {
        Claim::Known(pack) => Place::Known(pack),
        Claim::Pending(placement) => Place::Frame(placement),
        Claim::New => {
            frames.push(writer.encode(&[id], &[bytes], Arc::clone(&placement))?);
            Place::Frame(placement)
        }
    };
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Ok(Some(FileBlob { id, length, place }))
}

/// A large file, one block at a time; the whole is hashed beside the blocks.
async fn save_large(writer: &Writer, kind: PackKind, opened: Opened, patience: &Patience) -> Result<Outcome> {
    let length = opened.metadata.len();
    let (mut opened, mut whole) = (opened, Sha256::new());
    let (mut blobs, mut read) = (Vec::new(), 0);
    loop {
        let permit = writer.work(kind, 2 * BLOB_BYTES_MAX).await?;
        let left = (length - read).min(BLOB_BYTES_MAX as u64);
        let job = move || {
            let mut bytes = Vec::with_capacity(usize::try_from(left).unwrap_or(BLOB_BYTES_MAX));
            let end = (&mut opened.file).take(left).read_to_end(&mut bytes);
            (opened, bytes, end)
        };
        let Some((back, block, end)) = patience.wait_for(job).await? else {
            return Ok(Outcome::Failed(ProblemKind::Unreadable, patience.words()));
        };
        if let Err(error) = end {
            return Ok(failed(&error));
        }
        opened = back;
        let bytes = block.len() as u64;
        let (hashed, blob) = save_part(writer, kind, whole, block.into()).await?;
        whole = hashed;
        drop(permit);
        read += bytes;
        blobs.extend(blob);
        if bytes < BLOB_BYTES_MAX as u64 || read >= length {
            break;
        }
    }
    let compared = patience.wait_for(move || {
        let grew = matches!(opened.file.read(&mut [0; 1]), Ok(1));
        let changed = grew || has_changed(&opened);
        (opened, changed)
    });
    let Some((opened, changed)) = compared.await? else {
        return Ok(Outcome::Failed(ProblemKind::Unreadable, patience.words()));
    };
    let sha256 = BlobId::from_bytes(whole.finalize().into());
    Ok(Outcome::Saved(saved(&opened, read, sha256, blobs, changed || read < length)))
}

/// One block of a large file: hashed as itself and into the whole, claimed, and sent if it is new.
pub(super) async fn save_part(writer: &Writer, kind: PackKind, whole: Sha256, block: Bytes) -> Result<(Sha256, Option<FileBlob>)> {
    let (whole, blob, frames) = blocking({
        let writer = writer.clone();
        move || {
            let mut whole = whole;
            whole.update(&block);
            let mut frames = Vec::new();
            let blob = save_block(&writer, BlobId::of(&block), &block, &mut frames)?;
            Ok((whole, blob, frames))
        }
    })
    .await?;
    writer.append(kind, frames).await?;
    Ok((whole, blob))
}

/// Length or modification time are not what they were when the file was opened.
fn has_changed(opened: &Opened) -> bool {
    opened.file.metadata().map_or(true, |now| {
        (now.len(), now.mtime(), now.mtime_nsec()) != (opened.metadata.len(), opened.metadata.mtime(), opened.metadata.mtime_nsec())
    })
}

fn saved(opened: &Opened, bytes: u64, sha256: BlobId, blobs: Vec<FileBlob>, changed: bool) -> SavedFile {
    let metadata = &opened.metadata;
    let owner = FileOwner {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    };
    SavedFile {
        bytes,
        sha256,
        blobs,
        owner: Some(owner),
        changed,
        elsewhere: opened.elsewhere,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use std::time::Duration;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one job is one range of files")]
    fn small_files_share_a_job_and_large_ones_do_not() {
        let large = 100 << 20;
        for (sizes, expected) in [
            (vec![], vec![]),
            (vec![1, 2, 3], vec![0..3]),
            (vec![large, 1, 1], vec![0..1, 1..3]),
            (vec![1, large, 1], vec![0..1, 1..2, 2..3]),
            (vec![3 << 20, 2 << 20, 1 << 20], vec![0..1, 1..3]),
        ] {
            assert_eq!(batches(&sizes), expected, "{sizes:?}");
        }
        assert_eq!(batches(&vec![0; BATCH_FILES + 1]).len(), 2);
    }

    #[tokio::test]
    async fn a_file_that_hangs_is_named_and_holds_up_no_other() {
        fn read(paths: &[PathBuf], _: u64) -> Begun {
            if paths[0].ends_with("hangs") {
                std::thread::sleep(Duration::from_secs(2));
            }
            Begun::Done(Outcome::Missing)
        }
        let files = ["good", "hangs", "fine"].map(|name| (vec![PathBuf::from(name)], 0)).to_vec();
        let patience = Patience::of(Duration::from_millis(500));
        let begun = read_batch(files, &patience, read).await.unwrap();
        let hung: Vec<bool> = begun
            .iter()
            .map(|one| matches!(one, Begun::Done(Outcome::Failed(ProblemKind::Unreadable, message)) if message.contains("hang")))
            .collect();
        assert_eq!(hung, [false, true, false]);
    }

    #[test]
    fn a_file_far_larger_than_its_row_says_is_read_block_by_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larger");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let paths = [path];
        assert!(matches!(read_small(&paths, 1), Begun::Large(_)));
        assert!(matches!(read_small(&paths, 1 << 20), Begun::Small(..)));
    }
}
