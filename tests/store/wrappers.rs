//! What the wrappers add to a store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use synapse_backup::store::counters::Kind;
use synapse_backup::store::wrappers::{Fail, Fault, Latency, Limit, Record};
use synapse_backup::store::{ByteRange, Error, Store};

use crate::stores::in_memory;

const BODY: Bytes = Bytes::from_static(b"body");

#[tokio::test]
async fn calls_are_recorded_in_the_order_in_which_they_begin() {
    let record = Record::new(in_memory());
    record.put("a", BODY).await.unwrap();
    let upload = record.create_upload("b").await.unwrap();
    let tag = record.put_part("b", &upload, 1, BODY).await.unwrap();
    record.complete_upload("b", &upload, vec![tag], 4).await.unwrap();
    record.copy("b", "c").await.unwrap();
    record.get("missing", ByteRange::All).await.unwrap_err();
    record.head("c").await.unwrap();
    record.list_page("x/", None).await.unwrap();
    record.delete("a").await.unwrap();
    record.abort_upload("b", &upload).await.unwrap();
    let calls: Vec<_> = record
        .calls()
        .into_iter()
        .map(|call| (call.kind, call.key, call.ok.unwrap()))
        .collect();
    let wanted = [
        (Kind::Put, "a", true),
        (Kind::Create, "b", true),
        (Kind::Part, "b", true),
        (Kind::Complete, "b", true),
        (Kind::Copy, "c", true),
        (Kind::Get, "missing", false),
        (Kind::Head, "c", true),
        (Kind::List, "x/", true),
        (Kind::Delete, "a", true),
        (Kind::Abort, "b", true),
    ];
    assert_eq!(calls, wanted.map(|(kind, key, ok)| (kind, key.to_owned(), ok)));
}

#[tokio::test]
async fn a_dropped_call_stays_unfinished_in_the_record() {
    let record = Record::new(Arc::new(Latency::new(in_memory(), Duration::from_mins(1))));
    let _ = tokio::time::timeout(Duration::from_millis(1), record.put("a", BODY)).await;
    assert_eq!(record.calls()[0].ok, None);
}

#[tokio::test]
async fn a_limit_lets_only_so_many_through() {
    let each = Duration::from_millis(20);
    let limit = Limit::new(Arc::new(Latency::new(in_memory(), each)), 2);
    let keys: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let began = Instant::now();
    join_all(keys.iter().map(|key| limit.put(key, BODY))).await;
    assert!(began.elapsed() >= each * 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_call_that_nobody_polls_holds_up_no_other() {
    let memory = in_memory();
    memory.put("key", BODY).await.unwrap();
    let limit = Limit::new(Arc::new(Latency::new(memory, Duration::from_millis(1))), 1);
    let all = async {
        // Calls that were begun wait in the stream, with the permit or for it, while its reader makes another.
        let mut calls = stream::iter(0..10).map(|_| limit.get("key", ByteRange::All)).buffer_unordered(4);
        while let Some(got) = calls.next().await {
            assert_eq!(got.unwrap().bytes, BODY);
            limit.head("key").await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
}

#[tokio::test]
async fn a_fault_hits_the_chosen_call_before_or_after_it_happens() {
    // Of three puts, the second fails: which are there afterwards, and which were answered?
    let cases = [
        (Fault::Before, [true, false, true], [true, false, true]),
        (Fault::After, [true, false, true], [true, true, true]),
        (Fault::BeforeAndEver, [true, false, false], [true, false, false]),
        (Fault::AfterAndEver, [true, false, false], [true, true, false]),
    ];
    for (fault, answered, there) in cases {
        let memory = in_memory();
        let fail = Fail::new(Arc::clone(&memory), 2, fault).only(&[Kind::Put]);
        for (at, key) in ["a", "b", "c"].into_iter().enumerate() {
            // Not counted, and not failing.
            fail.list_page("", None).await.unwrap();
            let put = fail.put(key, BODY).await;
            assert_eq!(put.is_ok(), answered[at], "{fault:?} {key}");
            let is_unknown = matches!(put, Err(Error::Unknown { .. }));
            assert_eq!(is_unknown, !answered[at] && there[at], "{fault:?} {key}");
            assert_eq!(memory.head(key).await.is_ok(), there[at], "{fault:?} {key}");
        }
        assert_eq!(fail.begun(), 3);
    }
}
