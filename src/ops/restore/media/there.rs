//! `--resume`: which media are there already with the right bytes.
//!
//! They are hashed, since a length proves nothing. A dry run counts them in the same way, so that it tells what would be
//! written and no more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Choice, PlannedFile, Store, Waiting};
use crate::format::BlobId;
use crate::format::manifest::MediaEntry;
use crate::format::snapshot::Snapshot;
use crate::ops::restore::Options;
use crate::ops::restore::plan::Plan;
use crate::ops::restore::write;
use crate::ops::{Run, items};
use crate::repo::reader::Reader;

/// How many files and bytes of the plan are there already: for a dry run, which writes nothing.
pub(in crate::ops::restore) async fn count(
    reader: &Reader,
    snapshot: &Snapshot,
    plan: &Plan,
    options: &Options,
    run: &Run<'_>,
) -> anyhow::Result<(u64, u64)> {
    let (Some(root), Some(media)) = (&plan.media, &snapshot.media) else {
        return Ok((0, 0));
    };
    let store = Store::new(root, media, options);
    let choice = Choice::make(reader, snapshot, options, run).await?;
    run.progress.stage("media", Some(media.bytes), Some(media.files));
    let mut waiting = Waiting::default();
    let (mut files, mut bytes) = (0, 0);
    let mut look = async |waiting: Waiting| {
        let (planned, planned_bytes) = (waiting.files.len() as u64, waiting.bytes);
        let (missing, there) = split(&store, waiting.files).await?;
        let missing_bytes: u64 = missing.iter().map(|file| file.entry.bytes).sum();
        files += there;
        bytes += planned_bytes - missing_bytes;
        run.progress.advance("media", planned_bytes, planned);
        Ok::<(), anyhow::Error>(())
    };
    items::walk_media(reader, media, choice.prefix(), run, async |walked| {
        // What is lost is told when it is to be written.
        if let Ok(shard) = walked.entries {
            waiting.add(&shard, &choice);
        }
        if waiting.is_full(reader) {
            look(std::mem::take(&mut waiting)).await?;
        }
        Ok(())
    })
    .await?;
    look(waiting).await?;
    run.progress.done("media");
    Ok((files, bytes))
}

/// The files that are still to be written, and how many are there.
pub(super) async fn split(store: &Store<'_>, files: Vec<PlannedFile>) -> anyhow::Result<(Vec<PlannedFile>, u64)> {
    let targets: Vec<Option<PathBuf>> = files.iter().map(|file| store.place(&file.entry).target.ok()).collect();
    let (files, there) = tokio::task::spawn_blocking(move || {
        let there = files
            .iter()
            .zip(&targets)
            .map(|(file, target)| target.as_ref().is_some_and(|target| is_there(&file.entry, target)));
        let there: Vec<bool> = there.collect();
        (files, there)
    })
    .await?;
    let count = there.iter().filter(|there| **there).count() as u64;
    let missing = files.into_iter().zip(there).filter(|(_, there)| !there);
    Ok((missing.map(|(file, _)| file).collect(), count))
}

/// What a restore that was killed had begun beside these files is removed.
pub(super) async fn sweep(store: &Store<'_>, files: &[PlannedFile]) -> anyhow::Result<()> {
    let targets = files.iter().filter_map(|file| store.place(&file.entry).target.ok());
    let folders: BTreeSet<PathBuf> = targets.filter_map(|target| target.parent().map(Path::to_path_buf)).collect();
    let work = move || folders.iter().try_for_each(|folder| write::sweep(folder));
    Ok(tokio::task::spawn_blocking(work).await??)
}

fn is_there(entry: &MediaEntry, target: &Path) -> bool {
    let same_length = std::fs::symlink_metadata(target).is_ok_and(|metadata| metadata.is_file() && metadata.len() == entry.bytes);
    same_length && hash(target).is_ok_and(|hash| Some(hash) == entry.sha256)
}

fn hash(path: &Path) -> std::io::Result<BlobId> {
    let (mut sha256, mut file, mut block) = (Sha256::new(), File::open(path)?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => sha256.update(&block[..read]),
        }
    }
    Ok(BlobId::from_bytes(sha256.finalize().into()))
}
