//! The writer: producers → hash → claim → compress → fill a pack → send parts while the pack is still being filled.
//!
//! **Memory.** `peak <= PROGRAM + index + work + 3 x PART + uploads x PART`, where `index` (half of `limits.memory`)
//! holds the catalog and the claims of this run, `work` is what producers hold raw and compressed (a byte-weighted
//! permit each), 3 x PART are the open parts of the three kinds of pack, and every part that is sent holds one of
//! `uploads` permits until it is answered. [`Budget::new`] divides `limits.memory` so that the sum fits.
//!
//! **Order** (B2): a pack is answered before the segment that names it is written; segments are written every 8 packs
//! or 60 s, so that the work of a killed run is found by the next one. **Tasks**: everything spawned lives in a
//! `JoinSet` of the writer and is joined by [`Writer::finish`] or [`Writer::abort`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::{Error, Repository, Result};
use crate::format::{BlobId, ObjectId, PackId, PackKind};

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

mod alongside;
mod budget;
mod claims;
mod encoders;
mod gather;
mod lists;
mod packer;
mod precedence;
mod segments;
mod stream;
mod thin;

pub use alongside::Alongside;
pub use budget::Budget;
pub use claims::{Claim, Placement};
pub use gather::Gatherer;
pub use lists::ListWriter;
pub use packer::EncodedFrame;
pub use segments::put_segment;
pub use stream::{Source, SourceError, Stored};

use claims::Claims;
use encoders::Encoders;
use packer::Packer;
use precedence::Permits;
use segments::Segments;
use thin::{FrameSizes, Nearby};

/// zstd level of every frame: 3 takes a third more time for half a percent less (measured on dumps); others are not offered.
pub const COMPRESSION_LEVEL: i32 = 2;
/// A pack ends when its frames pass this.
pub const PACK_BYTES: u64 = 64 << 20;
/// Parts are uniform (R2 wants that) and every store accepts this size.
pub const PART_BYTES: usize = 8 << 20;

/// How long tasks may take to see that they are to stop.
const STOP_PATIENCE: Duration = Duration::from_millis(1500);

/// What a writer did.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// Packs written by this run.
    pub packs: BTreeSet<PackId>,
    /// Packs whose key had to change after a write of unknown outcome: old hint, real id.
    pub renamed: Vec<(PackId, PackId)>,
}

/// One session of writing into a repository. Cheap to clone; all clones are one session.
#[derive(Debug, Clone)]
pub struct Writer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    repository: Repository,
    catalog: Arc<Catalog>,
    /// Packs that are not to be relied on, whatever the index says (they vanished under this run).
    distrusted: BTreeSet<PackId>,
    /// Bytes that producers may hold, in KiB.
    work: Permits,
    work_kib: u32,
    /// Parts (or small packs) on their way, one permit each; a part's task carries its permit.
    uploads: Permits,
    claims: Mutex<Claims>,
    encoders: Encoders,
    frame_sizes: FrameSizes,
    /// Memory of parts that were sent.
    spare_parts: Mutex<Vec<bytes::BytesMut>>,
    packers: [tokio::sync::Mutex<Packer>; 3],
    /// Told whenever a frame was appended.
    appended: Notify,
    segments: Segments,
    /// Packs being completed, and the ticker of the segments.
    tasks: Mutex<JoinSet<()>>,
    /// The first failure of any task: it ends the session.
    failure: OnceLock<Arc<Error>>,
    broken: CancellationToken,
    totals: Mutex<Finished>,
    new_bytes: std::sync::atomic::AtomicU64,
    /// Of packs that were answered.
    sent_bytes: std::sync::atomic::AtomicU64,
    /// B3: every pack that what was stored relies on.
    relied: Mutex<BTreeSet<PackId>>,
    /// Multipart uploads that were begun and not completed.
    open_uploads: Mutex<std::collections::HashMap<String, crate::store::UploadId>>,
}

/// The lock's content; a panic elsewhere has already failed the session.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Begin a session. `catalog` is the index as loaded at its start (B1).
    pub fn open(repository: &Repository, catalog: Arc<Catalog>, distrusted: BTreeSet<PackId>, budget: &Budget) -> Self {
        Self::open_as(repository.ids.object(), repository, catalog, distrusted, budget)
    }

    /// The same under this id, which the session's segments carry.
    pub fn open_as(run: ObjectId, repository: &Repository, catalog: Arc<Catalog>, distrusted: BTreeSet<PackId>, budget: &Budget) -> Self {
        let packer = |kind| tokio::sync::Mutex::new(Packer::new(kind));
        let frame_sizes = FrameSizes::of(&catalog, budget.catalog_bytes);
        let inner = Inner {
            repository: repository.clone(),
            catalog,
            frame_sizes,
            distrusted,
            work: Permits::new(budget.work_kib as usize),
            work_kib: budget.work_kib,
            uploads: Permits::new(budget.uploads),
            claims: Mutex::new(Claims::new(budget.claims_bytes)),
            encoders: Encoders::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get)),
            spare_parts: Mutex::default(),
            packers: [packer(PackKind::Database), packer(PackKind::Media), packer(PackKind::Metadata)],
            appended: Notify::new(),
            segments: Segments::new(run),
            tasks: Mutex::new(JoinSet::new()),
            failure: OnceLock::new(),
            broken: CancellationToken::new(),
            totals: Mutex::new(Finished::default()),
            new_bytes: std::sync::atomic::AtomicU64::new(0),
            sent_bytes: std::sync::atomic::AtomicU64::new(0),
            relied: Mutex::default(),
            open_uploads: Mutex::default(),
        };
        let writer = Self { inner: Arc::new(inner) };
        segments::start_ticker(&writer);
        writer
    }

    /// Where it writes.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// This session's id, which its segments carry.
    pub fn run(&self) -> ObjectId {
        self.inner.segments.run()
    }

    /// The index as it was at the start.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Packs that are not to be relied on, whatever the index says.
    pub fn distrusted(&self) -> &BTreeSet<PackId> {
        &self.inner.distrusted
    }

    /// Raw bytes that the repository did not have.
    pub fn new_bytes(&self) -> u64 {
        self.inner.new_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Bytes of the packs and segments that were answered; tries that failed are not counted.
    pub fn sent_bytes(&self) -> u64 {
        self.inner.sent_bytes.load(std::sync::atomic::Ordering::Relaxed) + self.inner.segments.sent_bytes()
    }

    /// A pack that this run may rely on as a hint (B1): named by a segment, in `packs/`, not condemned.
    pub fn usable(&self, pack: PackId) -> bool {
        !self.inner.distrusted.contains(&pack) && self.inner.catalog.pack(pack).is_some_and(super::catalog::CatalogPack::usable)
    }

    /// The same, or one that this session has written.
    pub fn usable_now(&self, pack: PackId) -> bool {
        self.usable(pack) || lock(&self.inner.totals).packs.contains(&pack)
    }

    /// B3: remember a pack that the snapshot will rely on.
    pub fn rely(&self, pack: PackId) {
        lock(&self.inner.relied).insert(pack);
    }

    /// B3: all of them, with packs whose id had to change under their real one. Meant for after [`Writer::finish`].
    pub fn relied(&self) -> BTreeSet<PackId> {
        let totals = lock(&self.inner.totals);
        let renamed: std::collections::BTreeMap<PackId, PackId> = totals.renamed.iter().copied().collect();
        lock(&self.inner.relied)
            .iter()
            .map(|pack| renamed.get(pack).copied().unwrap_or(*pack))
            .collect()
    }

    /// The usable pack that holds this blob, if the index or the hint of an earlier list knows one; the hinted one if
    /// it is among several.
    pub fn known(&self, id: &BlobId, hint: Option<PackId>) -> Option<PackId> {
        let catalog = &self.inner.catalog;
        let hinted = hint.filter(|pack| self.usable(*pack));
        let found = hinted
            .and_then(|hint| catalog.usable(id, |pack| pack == hint))
            .or_else(|| catalog.usable(id, |pack| !self.inner.distrusted.contains(&pack)));
        found.map(|location| location.pack).or_else(|| hinted.filter(|_| catalog.truncated))
    }

    /// Is this blob to be sent? Exactly one caller is told [`Claim::New`] and must then bring it in the frame whose
    /// `placement` it gave.
    pub fn claim(&self, id: BlobId, placement: &Arc<Placement>) -> Claim {
        self.claim_near(id, placement, None)
    }

    /// The same for a blob of a stream: a copy in a frame that is thin there does not count.
    fn claim_near(&self, id: BlobId, placement: &Arc<Placement>, nearby: Option<&Nearby>) -> Claim {
        let mut claims = lock(&self.inner.claims);
        if let Some(placement) = claims.get(&id) {
            return Claim::Pending(placement);
        }
        let known = match nearby {
            Some(nearby) => self.known_nearby(&id, nearby),
            None => self.known(&id, None),
        };
        if let Some(pack) = known {
            return Claim::Known(pack);
        }
        claims.insert(id, placement);
        Claim::New
    }

    /// Does somebody in this session bring this blob? Who does relies on its pack.
    pub fn is_claimed(&self, id: &BlobId) -> bool {
        lock(&self.inner.claims).get(id).is_some()
    }

    /// Permission to hold so many raw and compressed bytes for packs of this kind; waits until others have let go of theirs.
    pub async fn work(&self, kind: PackKind, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .clamp(1, self.inner.work_kib);
        tokio::select! {
            permit = self.inner.work.acquire(kind, kib) => permit.ok_or_else(|| Error::Worker("the writer is closed".into())),
            () = self.inner.broken.cancelled() => Err(self.broken()),
        }
    }

    /// Wait until a frame is in its pack, and say which.
    pub async fn placed(&self, placement: &Placement) -> Result<PackId> {
        loop {
            let changed = self.inner.appended.notified();
            if let Some(pack) = placement.pack() {
                return Ok(pack);
            }
            tokio::select! {
                () = changed => {}
                () = self.inner.broken.cancelled() => return Err(self.broken()),
            }
        }
    }

    /// Compress blobs into one frame. Blocking: call it on a blocking thread.
    pub fn encode(&self, ids: &[BlobId], blobs: &[&[u8]], placement: Arc<Placement>) -> Result<EncodedFrame> {
        let bytes = self.inner.encoders.encode(blobs).map_err(|source| Error::Encode { source })?;
        let raw: usize = blobs.iter().map(|blob| blob.len()).sum();
        self.inner.new_bytes.fetch_add(raw as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(EncodedFrame::new(bytes, ids, blobs, placement))
    }

    /// Put frames into packs of this kind, in order; sends what is full. Waits while too much is on its way.
    pub async fn append(&self, kind: PackKind, frames: Vec<EncodedFrame>) -> Result<()> {
        packer::append(self, kind, frames).await
    }

    /// End the open pack of this kind, so that its upload is not left open while other kinds go on; the session goes on.
    pub async fn flush(&self, kind: PackKind) -> Result<()> {
        packer::flush(self, kind).await
    }

    /// End every pack, wait until all is answered, write the last segment.
    pub async fn finish(&self) -> Result<Finished> {
        for kind in [PackKind::Database, PackKind::Media, PackKind::Metadata] {
            self.flush(kind).await?;
        }
        self.inner.segments.stop();
        self.join().await;
        if self.inner.broken.is_cancelled() {
            return Err(self.broken());
        }
        #[cfg(test)]
        if planted(Bug::SnapshotBeforeSegment) {
            let writer = self.clone();
            let late = async move { writer.inner.segments.write(&writer.inner.repository).await };
            lock(&self.inner.tasks).spawn(async move { drop(late.await) });
            return Ok(lock(&self.inner.totals).clone());
        }
        self.inner.segments.write(&self.inner.repository).await?;
        Ok(lock(&self.inner.totals).clone())
    }

    /// Give up: stop every task, abort every open upload. Takes at most a few seconds.
    pub async fn abort(&self) {
        self.inner.broken.cancel();
        self.inner.segments.stop();
        // Tasks see `broken` and end by themselves; one that is beginning an upload is left the time to note its id.
        if tokio::time::timeout(STOP_PATIENCE, self.join()).await.is_err() {
            lock(&self.inner.tasks).abort_all();
            self.join().await;
        }
        packer::abort_uploads(self).await;
    }

    async fn join(&self) {
        loop {
            let next = std::future::poll_fn(|context| lock(&self.inner.tasks).poll_join_next(context)).await;
            let Some(ended) = next else { return };
            {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    self.fail(Error::Worker(error.to_string()));
                }
            }
        }
    }

    /// The session has failed: everyone who waits is told.
    fn fail(&self, error: Error) {
        let _ = self.inner.failure.set(Arc::new(error));
        self.inner.broken.cancel();
    }

    /// Why the session is broken.
    fn broken(&self) -> Error {
        match self.inner.failure.get() {
            Some(failure) => Error::Session(Arc::clone(failure)),
            None => Error::Worker("the run was stopped".into()),
        }
    }
}
