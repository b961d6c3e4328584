//! A restore reads little more than it needs, from the first night as from a late one.

use std::sync::Arc;

use synapse_backup::format::snapshot::Snapshot;
use synapse_backup::repo::Repository;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::local;

use crate::rig::{Bytes, backup, init, noise, read};

struct Nights {
    repository: Repository,
    counters: Arc<Counters>,
    _folder: tempfile::TempDir,
}

impl Nights {
    async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let counters = Arc::new(Counters::default());
        let store = local::open(folder.path(), true, Arc::clone(&counters)).await.unwrap();
        Self {
            repository: init(store).await,
            counters,
            _folder: folder,
        }
    }

    async fn backup(&self, bytes: &[u8]) -> Snapshot {
        backup(&self.repository, &mut Bytes::new(bytes)).await.unwrap()
    }

    /// Bytes that come from the store while the stream is read, for each hundred of it.
    async fn reading(&self, snapshot: &Snapshot, bytes: &[u8]) -> u64 {
        let before = self.counters.totals().received_bytes;
        assert!(read(&self.repository, &snapshot.id.to_string()).await.unwrap() == bytes);
        (self.counters.totals().received_bytes - before) * 100 / bytes.len() as u64
    }
}

/// Noise does not shrink, so the bytes of a stream are those of its frames.
#[tokio::test(flavor = "multi_thread")]
async fn no_frame_is_read_twice() {
    let nights = Nights::begin().await;
    let bytes = noise(1, 80 << 20);
    let snapshot = nights.backup(&bytes).await;
    let read = nights.reading(&snapshot, &bytes).await;
    assert!(read <= 101, "{read} bytes were read for each hundred");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_night_reads_little_for_what_is_dead() {
    let nights = Nights::begin().await;
    let mut bytes = noise(1, 12 << 20);
    let mut last = nights.backup(&bytes).await;
    for night in 0..16 {
        // One row in every MiB, each night another one.
        for place in 0..12 {
            bytes[(place << 20) + night * 65_000] ^= 1;
        }
        last = nights.backup(&bytes).await;
    }
    let read = nights.reading(&last, &bytes).await;
    assert!(read < 180, "{read} bytes were read for each hundred");
    // Nothing has changed: whatever was sent anew is found now.
    let before = nights.counters.totals().sent_bytes;
    nights.backup(&bytes).await;
    let sent = nights.counters.totals().sent_bytes - before;
    assert!(sent < 1 << 20, "{sent} bytes were sent again");
}
