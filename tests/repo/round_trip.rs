//! What goes in comes out, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use synapse_backup::repo::reader::{ListCursor, Reader};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::wrappers::Record;

use crate::rig::{Bytes, backup, backup_with, init, memory, noise, read, verify};

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_size_come_back_byte_by_byte() {
    let repository = init(memory()).await;
    for (seed, length) in [(1, 0), (2, 1), (3, 100_000), (4, 3 << 20), (5, 40 << 20), (6, 90 << 20)] {
        let bytes = noise(seed, length);
        let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
        assert!(
            read(&repository, &snapshot.id.to_string()).await.unwrap() == bytes,
            "{length} bytes"
        );
    }
    let report = verify(&repository).await;
    assert_eq!(report.problems, []);
    assert_eq!(report.packs_read, report.packs);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_stream_is_not_sent_again() {
    let record = Arc::new(Record::new(memory()));
    let repository = init(Arc::clone(&record) as Arc<dyn Store>).await;
    let mut bytes = noise(1, 64 << 20);
    backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let before = record.calls().len();
    let again = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let calls = record.calls().split_off(before);
    assert_eq!(again.databases[0].streams[0].list.bytes, bytes.len() as u64);
    assert!(
        !calls
            .iter()
            .any(|call| call.key.starts_with("packs/") && matches!(call.kind, Kind::Put | Kind::Part)),
        "{calls:?}"
    );
    // A few bytes in the middle cost a few blobs, not the rest of the stream.
    bytes.splice(30 << 20..30 << 20, *b"one more row");
    let catalog = synapse_backup::repo::catalog::load(&repository, 64 << 20).await.unwrap();
    let known = catalog.len();
    let changed = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let catalog = synapse_backup::repo::catalog::load(&repository, 64 << 20).await.unwrap();
    assert!(catalog.len() - known < 20, "{} new blobs", catalog.len() - known);
    assert!(read(&repository, &changed.id.to_string()).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_one_frame_were_near_each_other_in_their_stream() {
    let repository = init(memory()).await;
    let mut bytes = noise(1, 64 << 20);
    backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    for place in 0..32 {
        bytes[place << 21] ^= 1;
    }
    let changed = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let reader = Reader::open(&repository, 64 << 20, 4).await.unwrap();
    let (catalog, mut cursor) = (reader.catalog(), ListCursor::new(&changed.databases[0].streams[0].list));
    let (mut frames, mut position) = (BTreeMap::new(), 0);
    for leaf in cursor.next(&reader, u64::MAX).await.unwrap() {
        let place = catalog.copies(&leaf.id)[0];
        let span = frames.entry((place.pack, place.blob.frame_offset)).or_insert((position, position));
        position += u64::from(leaf.length);
        span.1 = position;
    }
    assert_eq!(position, bytes.len() as u64);
    let widest = frames.values().map(|(from, to)| to - from).max().unwrap();
    assert!(
        widest < 8 << 20,
        "a restore in windows would read a frame again and again: {widest} bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_answered_before_segments_and_segments_before_the_snapshot() {
    let record = Arc::new(Record::new(memory()));
    let repository = init(Arc::clone(&record) as Arc<dyn Store>).await;
    backup(&repository, &mut Bytes::new(&noise(1, 150 << 20))).await.unwrap();
    let calls = record.calls();
    let last = |prefix: &str| {
        calls
            .iter()
            .rposition(|call| call.key.starts_with(prefix) && matches!(call.kind, Kind::Put | Kind::Complete))
            .unwrap()
    };
    assert!(last("packs/") < last("index/"), "a segment must name the last pack");
    assert!(last("index/") < last("snapshots/"));
    assert!(
        calls.iter().filter(|call| call.kind == Kind::Complete).count() >= 2,
        "large packs go up in parts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_does_not_end_well_leaves_no_snapshot() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let error = backup(&repository, &mut Bytes::broken(&noise(1, 20 << 20))).await.unwrap_err();
    assert!(error.contains("main"), "{error}");
    assert!(memory.list_page("snapshots/", None).await.unwrap().objects.is_empty());
    assert_eq!(memory.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_the_index_the_last_list_deduplicates() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let mut bytes = noise(1, 40 << 20);
    let first = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let stored = |memory: &synapse_backup::store::memory::Memory| {
        memory
            .objects()
            .iter()
            .filter(|(key, _)| key.starts_with("packs/"))
            .map(|(_, body)| body.len())
            .sum::<usize>()
    };
    let before = stored(&memory);
    bytes.splice(20 << 20..20 << 20, *b"one more row");
    let second = backup_with(&repository, &mut Bytes::new(&bytes), 0, Some(&first)).await.unwrap();
    let sent = stored(&memory) - before;
    assert!(sent < 2 << 20, "{sent} bytes were sent again");
    assert!(read(&repository, &second.id.to_string()).await.unwrap() == bytes);
    assert_eq!(verify(&repository).await.problems, []);
}
