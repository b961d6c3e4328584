//! Writing index segments: every 8 packs or 60 s, and at the end (B2: only packs that were answered are named).
//!
//! So the work of a run that was killed is found by the next one, but for the packs in flight and the last minute. A
//! segment of unknown outcome is written again under a new key (G1).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Error, Result, Writer, lock, packer};
use crate::format::index::{self, Segment, SegmentEntry, SegmentPack};
use crate::format::pack::BlobEntry;
use crate::format::{ObjectId, PACK_BLOBS_MAX, keys};
use crate::repo::{Repository, again, aside};

/// Packs that wait for a segment at most.
const PACKS_PENDING_MAX: usize = 8;
/// How long a finished pack waits for its segment at most.
const PENDING_AGE_MAX: Duration = Duration::from_mins(1);
/// Entries that wait for a segment at most (and those of one more pack): 4 MiB, where eight packs of tiny blobs would be 30.
const ENTRIES_PENDING_MAX: usize = PACK_BLOBS_MAX;

/// Packs that are answered and not yet named by a segment.
#[derive(Debug)]
pub(super) struct Segments {
    run: ObjectId,
    pending: Mutex<Pending>,
    stopped: CancellationToken,
    sent_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    packs: Vec<SegmentPack>,
    entries: Vec<SegmentEntry>,
    since: Option<Instant>,
}

impl Segments {
    pub(super) fn new(run: ObjectId) -> Self {
        Self {
            run,
            pending: Mutex::default(),
            stopped: CancellationToken::new(),
            sent_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn run(&self) -> ObjectId {
        self.run
    }

    /// Bytes of the segments that were answered, before they were sealed.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// The ticker ends.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    /// A pack was answered.
    pub(super) async fn add(&self, repository: &Repository, pack: SegmentPack, entries: Vec<BlobEntry>) -> Result<()> {
        let due = {
            let mut pending = lock(&self.pending);
            #[expect(clippy::cast_possible_truncation, reason = "at most a handful of packs are pending")]
            let ordinal = pending.packs.len() as u32;
            pending.packs.push(pack);
            pending
                .entries
                .extend(entries.into_iter().map(|blob| SegmentEntry { pack: ordinal, blob }));
            pending.since.get_or_insert_with(Instant::now);
            pending.packs.len() >= PACKS_PENDING_MAX || pending.entries.len() >= ENTRIES_PENDING_MAX
        };
        if due { self.write(repository).await } else { Ok(()) }
    }

    /// Write what is pending, if anything.
    pub(super) async fn write(&self, repository: &Repository) -> Result<()> {
        let Pending { packs, entries, .. } = std::mem::take(&mut *lock(&self.pending));
        if packs.is_empty() {
            return Ok(());
        }
        let bytes = index::encoded_segment_bytes(packs.len(), entries.len());
        put_segment(
            repository,
            Segment {
                run: self.run,
                packs,
                entries,
            },
        )
        .await?;
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn is_old(&self) -> bool {
        lock(&self.pending).since.is_some_and(|since| since.elapsed() >= PENDING_AGE_MAX)
    }
}

/// Write one segment; of unknown outcome: again under a new key (G1, two segments that say the same do no harm).
pub async fn put_segment(repository: &Repository, segment: Segment) -> Result<()> {
    let encoded = aside::work(move || index::encode_segment(segment)).await?;
    let body = Bytes::from(encoded.map_err(|source| Error::Encode { source })?);
    again::put(&*repository.store, || keys::segment(repository.ids.object()), &body).await?;
    Ok(())
}

/// A task that writes what has been pending for a minute although no pack came after it.
pub(super) fn start_ticker(writer: &Writer) {
    let ticking = writer.clone();
    let ticker = async move {
        let segments = &ticking.inner.segments;
        let mut tick = tokio::time::interval(PENDING_AGE_MAX / 6);
        loop {
            tokio::select! {
                () = segments.stopped.cancelled() => return,
                _ = tick.tick() => {}
            }
            // First, since a pack of media may have to wait for dumps.
            let written = if segments.is_old() {
                segments.write(&ticking.inner.repository).await
            } else {
                Ok(())
            };
            let ended = packer::end_old(&ticking).await;
            if let Err(error) = written.and(ended) {
                ticking.fail(error);
                return;
            }
        }
    };
    lock(&writer.inner.tasks).spawn(ticker);
}
