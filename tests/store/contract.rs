//! The contract of a store, as tests that take any.
//!
//! [`keeps_the_contract!`] makes one test of each function for a store. Each gets a fresh, empty store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use jiff::SignedDuration;
use synapse_backup::store::{ByteRange, Error, Page, PartTag, Store};

/// What S3 asks of every part but the last.
const PART: usize = 5 << 20;

/// One module of tests for a store that `$open` makes (a future of a fixture that derefs to `dyn Store`).
macro_rules! keeps_the_contract {
    ($name:ident, $open:expr) => {
        keeps_the_contract!(@ $name, $open,
            what_was_put_is_read_back,
            a_range_gives_the_bytes_asked_for,
            an_object_that_is_longer_than_it_may_be_is_not_read,
            a_missing_object_is_not_found,
            deleting_what_is_not_there_is_fine,
            a_deleted_object_is_gone,
            the_same_bytes_twice_under_one_key_are_fine,
            an_object_in_parts_appears_whole_and_only_when_completed,
            an_upload_may_have_one_part,
            an_aborted_upload_leaves_nothing,
            an_open_upload_is_listed_and_given_up_by_what_the_list_says,
            a_second_complete_is_settled_by_looking,
            parts_that_were_not_sent_complete_nothing,
            a_dropped_call_does_no_harm,
            a_copy_lives_on_without_its_source,
            a_listing_is_in_key_order,
            a_long_listing_comes_in_pages,
            times_are_those_of_the_store,
            many_calls_at_once_are_fine,
        );
    };
    (@ $name:ident, $open:expr, $($test:ident,)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let fixture = $open.await;
                    $crate::contract::$test(fixture.store.as_ref()).await;
                }
            )*
        }
    };
}

fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out.into()
}

async fn read(store: &dyn Store, key: &str) -> Bytes {
    let got = store.get(key, ByteRange::All).await.unwrap();
    assert_eq!(got.object_bytes, got.bytes.len() as u64);
    got.bytes
}

async fn exists(store: &dyn Store, key: &str) -> bool {
    match store.head(key).await {
        Ok(_) => true,
        Err(Error::NotFound { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn list(store: &dyn Store, prefix: &str) -> (Vec<String>, Vec<Page>) {
    let (mut keys, mut pages, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = store.list_page(prefix, after.as_deref()).await.unwrap();
        keys.extend(page.objects.iter().map(|object| object.key.clone()));
        after.clone_from(&page.next);
        pages.push(page);
        if after.is_none() {
            return (keys, pages);
        }
    }
}

pub async fn what_was_put_is_read_back(store: &dyn Store) {
    for (key, length) in [
        ("empty", 0),
        ("one", 1),
        ("packs/ab/large.zst", 3 << 20),
        ("snapshots/2026-11-23T10:00:00Z-0a.json.zst", 77),
    ] {
        let body = bytes(length, 1);
        store.put(key, body.clone()).await.unwrap();
        assert_eq!(read(store, key).await, body, "{key}");
        assert_eq!(store.head(key).await.unwrap().bytes, length as u64, "{key}");
    }
}

pub async fn a_range_gives_the_bytes_asked_for(store: &dyn Store) {
    let body = Bytes::from_static(b"0123456789");
    store.put("digits", body.clone()).await.unwrap();
    store.put("empty", Bytes::new()).await.unwrap();
    let from = |offset, length| ByteRange::From { offset, length };
    let cases: [(&str, ByteRange, &[u8]); 16] = [
        ("digits", ByteRange::All, b"0123456789"),
        ("digits", from(0, 10), b"0123456789"),
        ("digits", from(0, 1), b"0"),
        ("digits", from(3, 4), b"3456"),
        ("digits", from(9, 1), b"9"),
        ("digits", from(8, 100), b"89"),
        ("digits", from(8, u64::MAX), b"89"),
        ("digits", from(10, 1), b""),
        ("digits", from(1000, 5), b""),
        ("digits", from(4, 0), b""),
        ("digits", ByteRange::Last(3), b"789"),
        ("digits", ByteRange::Last(10), b"0123456789"),
        ("digits", ByteRange::Last(1000), b"0123456789"),
        ("digits", ByteRange::Last(0), b""),
        ("empty", from(0, 1), b""),
        ("empty", ByteRange::Last(1), b""),
    ];
    for (key, range, wanted) in cases {
        let got = store.get(key, range).await.unwrap();
        assert_eq!(got.bytes, wanted, "{key} {range:?}");
        assert_eq!(got.object_bytes, if key == "empty" { 0 } else { 10 }, "{key} {range:?}");
    }
}

pub async fn an_object_that_is_longer_than_it_may_be_is_not_read(store: &dyn Store) {
    for (key, length) in [("empty", 0), ("some", 100)] {
        store.put(key, bytes(length, 1)).await.unwrap();
        for limit in [length as u64, 1000, u64::MAX] {
            let got = store.get(key, ByteRange::AtMost(limit)).await.unwrap();
            assert_eq!((got.bytes, got.object_bytes), (bytes(length, 1), length as u64), "{key} {limit}");
        }
    }
    for limit in [0, 99] {
        let failure = store.get("some", ByteRange::AtMost(limit)).await.unwrap_err();
        assert!(
            matches!(&failure, Error::TooLong { key, bytes: 100, .. } if key == "some"),
            "{failure:?}"
        );
    }
    let failure = store.get("missing", ByteRange::AtMost(10)).await.unwrap_err();
    assert!(matches!(failure, Error::NotFound { .. }), "{failure:?}");
}

pub async fn a_missing_object_is_not_found(store: &dyn Store) {
    store.put("there", Bytes::from_static(b"x")).await.unwrap();
    for key in ["missing", "there/below", "packs/00/missing.zst"] {
        let failures = [
            store.get(key, ByteRange::All).await.err(),
            store.get(key, ByteRange::From { offset: 3, length: 2 }).await.err(),
            store.get(key, ByteRange::Last(3)).await.err(),
            store.get(key, ByteRange::Last(0)).await.err(),
            store.head(key).await.err(),
            store.copy(key, "target").await.err(),
        ];
        for (at, failure) in failures.into_iter().enumerate() {
            assert!(
                matches!(&failure, Some(Error::NotFound { key: named }) if named == key),
                "{key} {at}: {failure:?}"
            );
        }
    }
    assert!(!exists(store, "target").await);
}

pub async fn deleting_what_is_not_there_is_fine(store: &dyn Store) {
    for key in ["missing", "packs/ab/missing.zst"] {
        store.delete(key).await.unwrap();
        store.delete(key).await.unwrap();
    }
}

pub async fn a_deleted_object_is_gone(store: &dyn Store) {
    for key in ["packs/aa/one", "packs/aa/two"] {
        store.put(key, bytes(10, 1)).await.unwrap();
    }
    store.delete("packs/aa/one").await.unwrap();
    assert!(!exists(store, "packs/aa/one").await);
    assert_eq!(list(store, "").await.0, ["packs/aa/two"]);
}

/// Two prunes may write the same marker.
pub async fn the_same_bytes_twice_under_one_key_are_fine(store: &dyn Store) {
    for body in [Bytes::new(), bytes(100_000, 2)] {
        let key = format!("condemned/{}", body.len());
        store.put(&key, body.clone()).await.unwrap();
        store.put(&key, body.clone()).await.unwrap();
        assert_eq!(read(store, &key).await, body);
    }
}

pub async fn an_object_in_parts_appears_whole_and_only_when_completed(store: &dyn Store) {
    let body = bytes(2 * PART + 12345, 3);
    // Whatever their order on the way, also the last part first.
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let key = format!("packs/aa/{order:?}.zst").replace([',', ' ', '[', ']'], "");
        let upload = store.create_upload(&key).await.unwrap();
        let mut tags = Vec::new();
        for number in order {
            let start = (number as usize - 1) * PART;
            let part = body.slice(start..body.len().min(start + PART));
            tags.push(store.put_part(&key, &upload, number, part).await.unwrap());
        }
        // One of them once more, as after a lost answer.
        let again = store.put_part(&key, &upload, 2, body.slice(PART..2 * PART)).await.unwrap();
        tags.retain(|tag| tag.number != 2);
        tags.push(again);
        tags.sort_by_key(|tag| tag.number);
        assert!(!exists(store, &key).await, "not before it is complete");
        assert!(!list(store, "packs/").await.0.contains(&key));
        store.complete_upload(&key, &upload, tags, body.len() as u64).await.unwrap();
        assert!(read(store, &key).await == body, "{order:?}");
    }
    assert_eq!(list(store, "").await.0.len(), 3);
}

pub async fn an_upload_may_have_one_part(store: &dyn Store) {
    let body = bytes(777, 4);
    let upload = store.create_upload("one-part").await.unwrap();
    let tag = store.put_part("one-part", &upload, 1, body.clone()).await.unwrap();
    store.complete_upload("one-part", &upload, vec![tag], 777).await.unwrap();
    assert_eq!(read(store, "one-part").await, body);
}

pub async fn an_aborted_upload_leaves_nothing(store: &dyn Store) {
    let upload = store.create_upload("aborted").await.unwrap();
    let tag = store.put_part("aborted", &upload, 1, bytes(100, 5)).await.unwrap();
    store.abort_upload("aborted", &upload).await.unwrap();
    store.abort_upload("aborted", &upload).await.unwrap();
    assert!(store.put_part("aborted", &upload, 2, bytes(100, 5)).await.is_err());
    let failure = store.complete_upload("aborted", &upload, vec![tag], 100).await.unwrap_err();
    assert!(matches!(failure, Error::Failed { .. }), "{failure:?}");
    assert!(!exists(store, "aborted").await);
    assert_eq!(list(store, "").await.0, [""; 0]);
}

/// Where a store lists them: as prune gives up what killed runs left.
pub async fn an_open_upload_is_listed_and_given_up_by_what_the_list_says(store: &dyn Store) {
    let Some(uploads) = store.uploads() else { return };
    // `MinIO` tells of uploads for an exact key only.
    let key = "packs/aa/open.zst";
    let upload = store.create_upload(key).await.unwrap();
    store.put_part(key, &upload, 1, bytes(100, 5)).await.unwrap();
    let open = uploads.list_uploads(key).await.unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    store.abort_upload(&open[0].key, &open[0].id).await.unwrap();
    assert_eq!(uploads.list_uploads(key).await.unwrap(), []);
}

pub async fn a_second_complete_is_settled_by_looking(store: &dyn Store) {
    let upload = store.create_upload("twice").await.unwrap();
    let tag = store.put_part("twice", &upload, 1, bytes(100, 6)).await.unwrap();
    store.complete_upload("twice", &upload, vec![tag.clone()], 100).await.unwrap();
    store.complete_upload("twice", &upload, vec![tag], 100).await.unwrap();
    assert_eq!(read(store, "twice").await, bytes(100, 6));
}

pub async fn parts_that_were_not_sent_complete_nothing(store: &dyn Store) {
    let upload = store.create_upload("wrong").await.unwrap();
    let tag = store.put_part("wrong", &upload, 1, bytes(100, 7)).await.unwrap();
    let other = PartTag {
        etag: "\"00000000000000000000000000000000\"".to_owned(),
        ..tag.clone()
    };
    let missing = PartTag { number: 2, ..tag.clone() };
    for parts in [vec![other], vec![tag, missing]] {
        let failure = store.complete_upload("wrong", &upload, parts, 100).await.unwrap_err();
        assert!(matches!(failure, Error::Failed { .. }), "{failure:?}");
    }
    assert!(!exists(store, "wrong").await);
}

pub async fn a_dropped_call_does_no_harm(store: &dyn Store) {
    let body = bytes(PART + 99, 8);
    let upload = store.create_upload("dropped").await.unwrap();
    for micros in [0, 50, 500, 5000] {
        let first = store.put_part("dropped", &upload, 1, body.slice(..PART));
        let _ = tokio::time::timeout(Duration::from_micros(micros), first).await;
        let _ = tokio::time::timeout(Duration::from_micros(micros), store.put(&format!("put-{micros}"), body.clone())).await;
        let _ = tokio::time::timeout(Duration::from_micros(micros), store.list_page("", None)).await;
    }
    let tags = vec![
        store.put_part("dropped", &upload, 1, body.slice(..PART)).await.unwrap(),
        store.put_part("dropped", &upload, 2, body.slice(PART..)).await.unwrap(),
    ];
    store.complete_upload("dropped", &upload, tags, body.len() as u64).await.unwrap();
    assert!(read(store, "dropped").await == body);
    // What was put in vain is there as a whole, or not at all.
    for listed in store.list_page("put-", None).await.unwrap().objects {
        assert_eq!(listed.bytes, body.len() as u64, "{}", listed.key);
    }
}

pub async fn a_copy_lives_on_without_its_source(store: &dyn Store) {
    let body = bytes(123_456, 9);
    store.put("packs/aa/from.zst", body.clone()).await.unwrap();
    store.copy("packs/aa/from.zst", "packs/bb/to.zst").await.unwrap();
    store.delete("packs/aa/from.zst").await.unwrap();
    assert_eq!(read(store, "packs/bb/to.zst").await, body);
}

pub async fn a_listing_is_in_key_order(store: &dyn Store) {
    let mut keys = [
        "a",
        "a.b",
        "a0",
        "b/1/x",
        "b/1/y",
        "b/1.z",
        "b/2",
        "b.",
        "c/d/e/f",
        "packs/0a/00.zst",
        "packs/a0/00.zst",
        "z",
    ];
    for key in keys.iter().rev() {
        store.put(key, Bytes::from((*key).to_owned())).await.unwrap();
    }
    keys.sort_unstable();
    let wanted = |prefix: &str| {
        keys.iter()
            .copied()
            .filter(|key| key.starts_with(prefix))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for prefix in [
        "",
        "a",
        "a.",
        "b",
        "b/",
        "b/1",
        "b/1/",
        "b/1/x",
        "c/d",
        "packs/",
        "packs/0",
        "packs/a0/",
        "nothing",
        "z/",
    ] {
        let (listed, pages) = list(store, prefix).await;
        assert_eq!(listed, wanted(prefix), "{prefix:?}");
        for object in pages.iter().flat_map(|page| &page.objects) {
            assert_eq!(object.bytes, object.key.len() as u64);
        }
    }
}

pub async fn a_long_listing_comes_in_pages(store: &dyn Store) {
    let mut keys: Vec<String> = (0..2101_u32).map(|n| format!("condemned/{}/{n:05}", n % 7)).collect();
    for some in keys.chunks(64) {
        join_all(some.iter().map(|key| store.put(key, Bytes::new())))
            .await
            .into_iter()
            .for_each(|put| {
                put.unwrap();
            });
    }
    store.put("zzz", Bytes::new()).await.unwrap();
    keys.sort();
    let (listed, pages) = list(store, "condemned/").await;
    assert!(listed == keys, "{} of {} keys", listed.len(), keys.len());
    assert!(pages.len() >= 3, "{} pages", pages.len());
    assert!(pages.iter().all(|page| page.objects.len() <= 1000));
}

pub async fn times_are_those_of_the_store(store: &dyn Store) {
    // HTTP tells whole seconds, a listing may tell more.
    let second = SignedDuration::from_secs(1);
    let before = store.put("before", Bytes::new()).await.unwrap().date;
    store.put("object", bytes(10, 1)).await.unwrap();
    let head = store.head("object").await.unwrap();
    let got = store.get("object", ByteRange::All).await.unwrap();
    let page = store.list_page("object", None).await.unwrap();
    let upload = store.create_upload("upload").await.unwrap();
    let tag = store.put_part("upload", &upload, 1, bytes(10, 1)).await.unwrap();
    let completed = store.complete_upload("upload", &upload, vec![tag], 10).await.unwrap().date;
    let landed = store.head("upload").await.unwrap().last_modified;
    let copied = store.copy("object", "copy").await.unwrap().date;
    let after = store.delete("before").await.unwrap().date;
    let dates = [before, head.date, got.date, page.date, completed, copied, after];
    assert!(dates.windows(2).all(|two| two[0] <= two[1]), "{dates:?}");
    assert!(
        before - second <= head.last_modified && head.last_modified <= head.date + second,
        "{head:?}"
    );
    assert!(page.date - second <= landed && landed <= completed + second, "{landed}");
    assert_eq!(got.last_modified, head.last_modified);
    assert_eq!(page.objects[0].last_modified.as_second(), head.last_modified.as_second());
}

pub async fn many_calls_at_once_are_fine(store: &dyn Store) {
    let one = async |n: usize| {
        let key = format!("packs/{:02x}/{n}", n % 16);
        let body = bytes(n * 1000, n as u64);
        store.put(&key, body.clone()).await.unwrap();
        assert!(read(store, &key).await == body, "{key}");
        if n.is_multiple_of(2) {
            store.delete(&key).await.unwrap();
        }
    };
    join_all((0..100).map(one)).await;
    assert_eq!(list(store, "").await.0.len(), 50);
}

/// So that the compiler sees that a store can be shared.
#[expect(dead_code, reason = "compiled, never called")]
fn a_store_is_shared_between_tasks(store: Arc<dyn Store>) -> impl Send + Sync {
    store
}
