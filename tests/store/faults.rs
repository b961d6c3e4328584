//! A network that breaks, between us and a real `MinIO`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::s3::{AccessKey, Patience, S3Options};
use synapse_backup::store::{ByteRange, Error, Store, s3};
use tokio::net::TcpListener;

use crate::stores::minio_options;
use crate::support::minio;
use crate::support::proxy::{Proxy, Spoil};

const PART: usize = 5 << 20;

/// A store behind a proxy, that has answered once.
async fn behind_proxy() -> (Arc<dyn Store>, Proxy, Arc<Counters>) {
    let proxy = Proxy::before(minio::shared().address).await;
    let counters = Arc::new(Counters::default());
    let options = S3Options {
        endpoint: Some(proxy.endpoint()),
        ..minio_options().await
    };
    let store = s3::open(options, Arc::clone(&counters)).await.unwrap();
    store.list_page("", None).await.unwrap();
    (store, proxy, counters)
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

async fn fails(options: S3Options, within: Duration) -> Error {
    let began = Instant::now();
    let store = match s3::open(options, Arc::default()).await {
        Ok(store) => store,
        Err(error) => return error,
    };
    let error = store.get("repository.json", ByteRange::All).await.unwrap_err();
    assert!(began.elapsed() < within, "{:?}: {error:?}", began.elapsed());
    error
}

#[tokio::test]
async fn a_part_whose_connection_breaks_is_sent_again_and_the_object_is_whole() {
    let (store, proxy, counters) = behind_proxy().await;
    let body = pattern(2 * PART + 1000);
    let upload = store.create_upload("packs/broken").await.unwrap();
    proxy.spoil("partNumber=2", Spoil::Request(1_000_000));
    proxy.spoil("partNumber=3", Spoil::Answer);
    let mut tags = Vec::new();
    for (at, part) in body.chunks(PART).enumerate() {
        let number = u32::try_from(at).unwrap() + 1;
        tags.push(
            store
                .put_part("packs/broken", &upload, number, Bytes::copy_from_slice(part))
                .await
                .unwrap(),
        );
    }
    store
        .complete_upload("packs/broken", &upload, tags, body.len() as u64)
        .await
        .unwrap();
    assert!(store.get("packs/broken", ByteRange::All).await.unwrap().bytes == body);
    assert_eq!(proxy.spoiled(), 2);
    let totals = counters.totals();
    assert_eq!(totals.requests.part, 5, "three parts, two of them twice");
    assert_eq!(totals.sent_bytes, (3 * PART + 2 * 1000) as u64);
}

#[tokio::test]
async fn what_is_damaged_on_the_way_is_sent_again() {
    let (store, proxy, counters) = behind_proxy().await;
    proxy.spoil("/single", Spoil::Flip(50_000));
    store.put("single", pattern(100_000)).await.unwrap();
    let upload = store.create_upload("parts").await.unwrap();
    proxy.spoil("partNumber=1", Spoil::Flip(1_000_000));
    let tag = store.put_part("parts", &upload, 1, pattern(PART)).await.unwrap();
    store.complete_upload("parts", &upload, vec![tag], PART as u64).await.unwrap();
    assert_eq!(
        (proxy.spoiled(), counters.totals().requests.put, counters.totals().requests.part),
        (2, 2, 2)
    );
    assert!(store.get("single", ByteRange::All).await.unwrap().bytes == pattern(100_000));
    assert!(store.get("parts", ByteRange::All).await.unwrap().bytes == pattern(PART));
}

#[tokio::test]
async fn a_lost_answer_of_complete_is_settled_by_looking() {
    let (store, proxy, counters) = behind_proxy().await;
    let upload = store.create_upload("packs/lost").await.unwrap();
    let tag = store.put_part("packs/lost", &upload, 1, pattern(1000)).await.unwrap();
    proxy.spoil("POST /contract/", Spoil::Answer);
    store.complete_upload("packs/lost", &upload, vec![tag], 1000).await.unwrap();
    assert_eq!(proxy.spoiled(), 1);
    assert_eq!(counters.totals().requests.head, 1);
    assert!(store.get("packs/lost", ByteRange::All).await.unwrap().bytes == pattern(1000));
}

#[tokio::test]
async fn a_complete_that_did_not_arrive_is_sent_again() {
    let (store, proxy, counters) = behind_proxy().await;
    let upload = store.create_upload("packs/lost").await.unwrap();
    let tag = store.put_part("packs/lost", &upload, 1, pattern(1000)).await.unwrap();
    proxy.spoil("POST /contract/", Spoil::Request(10));
    store.complete_upload("packs/lost", &upload, vec![tag], 1000).await.unwrap();
    assert_eq!(counters.totals().requests.complete, 2);
    assert!(store.get("packs/lost", ByteRange::All).await.unwrap().bytes == pattern(1000));
}

#[tokio::test]
async fn a_put_or_copy_of_unknown_outcome_is_never_repeated() {
    let (store, proxy, counters) = behind_proxy().await;
    for (key, spoil) in [("arrived", Spoil::Answer), ("broken", Spoil::Request(20_000))] {
        proxy.spoil(&format!("/{key}"), spoil);
        let failure = store.put(key, pattern(100_000)).await.unwrap_err();
        assert!(
            matches!(&failure, Error::Unknown { action: "PUT", key: named, .. } if named == key),
            "{failure:?}"
        );
    }
    assert_eq!(counters.totals().requests.put, 2);
    assert!(store.head("arrived").await.is_ok());
    assert!(matches!(store.head("broken").await, Err(Error::NotFound { .. })));
    proxy.spoil("/copied", Spoil::Answer);
    let failure = store.copy("arrived", "copied").await.unwrap_err();
    assert!(matches!(failure, Error::Unknown { action: "COPY", .. }), "{failure:?}");
    assert_eq!(counters.totals().requests.copy, 1);
}

#[tokio::test]
async fn reads_lists_and_deletes_are_tried_again() {
    let (store, proxy, counters) = behind_proxy().await;
    store.put("object", pattern(300_000)).await.unwrap();
    proxy.spoil("GET ", Spoil::AnswerAfter(100_000));
    proxy.spoil("list-type=2", Spoil::Answer);
    proxy.spoil("DELETE ", Spoil::Answer);
    proxy.spoil("HEAD ", Spoil::Answer);
    assert!(store.get("object", ByteRange::All).await.unwrap().bytes == pattern(300_000));
    assert_eq!(store.list_page("", None).await.unwrap().objects.len(), 1);
    store.head("object").await.unwrap();
    store.delete("object").await.unwrap();
    assert_eq!(proxy.spoiled(), 4);
    let totals = counters.totals();
    assert_eq!(
        (
            totals.requests.get,
            totals.requests.list,
            totals.requests.head,
            totals.requests.delete
        ),
        (2, 3, 2, 2)
    );
    assert!(totals.received_bytes > 380_000, "both tries of the read: {}", totals.received_bytes);
}

#[tokio::test]
async fn an_outage_after_the_first_answer_is_waited_out() {
    let (store, mut proxy, _) = behind_proxy().await;
    proxy.down().await;
    let read = async {
        store.put("object", pattern(10)).await.unwrap();
        store.get("object", ByteRange::All).await.unwrap()
    };
    let repair = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        proxy.up().await;
    };
    let (got, ()) = futures::join!(read, repair);
    assert_eq!(got.bytes, pattern(10));
}

#[tokio::test]
async fn patience_ends_when_it_is_used_up() {
    let mut proxy = Proxy::before(minio::shared().address).await;
    let patience = Patience {
        settled: Duration::from_secs(2),
        ..Patience::default()
    };
    let options = S3Options {
        endpoint: Some(proxy.endpoint()),
        patience,
        ..minio_options().await
    };
    let store = s3::open(options, Arc::default()).await.unwrap();
    store.list_page("", None).await.unwrap();
    proxy.down().await;
    let began = Instant::now();
    let failure = store.head("object").await.unwrap_err();
    assert!(matches!(failure, Error::Unreachable { .. }), "{failure:?}");
    assert!(
        began.elapsed() < Duration::from_secs(3) && began.elapsed() > Duration::from_millis(700),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_slow_network_changes_nothing() {
    let (store, proxy, counters) = behind_proxy().await;
    proxy.delay(Duration::from_millis(30));
    store.put("slow", pattern(1_000_000)).await.unwrap();
    assert!(store.get("slow", ByteRange::All).await.unwrap().bytes == pattern(1_000_000));
    assert_eq!((counters.totals().requests.put, counters.totals().requests.get), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_told_within_seconds() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = S3Options {
        endpoint: Some(format!("http://{free}")),
        ..minio_options().await
    };
    let error = fails(options, Duration::from_secs(6)).await;
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("nothing listens there"), "{:?}", error.hint());
}

#[tokio::test]
async fn a_host_that_is_not_known_is_told_at_once() {
    let options = S3Options {
        endpoint: Some("http://nowhere.invalid".to_owned()),
        ..minio_options().await
    };
    let error = fails(options, Duration::from_secs(6)).await;
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("name service"), "{:?}", error.hint());
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_told_within_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = S3Options {
        endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
        ..minio_options().await
    };
    let error = fails(options, Duration::from_secs(12)).await;
    assert!(matches!(&error, Error::Failed { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("does not answer"), "{:?}", error.hint());
}

#[tokio::test]
async fn wrong_credentials_and_buckets_are_told_at_once() {
    let second = Duration::from_secs(1);
    let good = minio_options().await;
    let key = |id: &str, secret: &str| {
        Some(AccessKey {
            id: id.to_owned(),
            secret: secret.to_owned(),
            session_token: None,
        })
    };

    let error = fails(
        S3Options {
            access_key: key(minio::ACCESS_KEY, "wrong"),
            ..good.clone()
        },
        second,
    )
    .await;
    assert!(
        matches!(&error, Error::Unauthenticated { message, .. } if message.starts_with("SignatureDoesNotMatch")),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("AWS_SECRET_ACCESS_KEY"));

    let error = fails(
        S3Options {
            access_key: key("nobody", "wrong"),
            ..good.clone()
        },
        second,
    )
    .await;
    assert!(
        matches!(&error, Error::Unauthenticated { message, .. } if message.starts_with("InvalidAccessKeyId")),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));

    let options = S3Options {
        bucket: "no-such-bucket".to_owned(),
        ..good.clone()
    };
    assert!(matches!(fails(options.clone(), second).await, Error::NoBucket { .. }));
    // The answer to a HEAD does not say which of the two is missing.
    let store = s3::open(options, Arc::default()).await.unwrap();
    assert!(matches!(store.head("object").await, Err(Error::NoBucket { .. })));
    assert!(matches!(store.list_page("", None).await, Err(Error::NoBucket { .. })));
    assert!(matches!(store.put("object", Bytes::new()).await, Err(Error::NoBucket { .. })));
    assert!(matches!(store.create_upload("object").await, Err(Error::NoBucket { .. })));
    assert!(matches!(store.delete("object").await, Err(Error::NoBucket { .. })));
}

#[tokio::test]
async fn without_credentials_the_error_names_the_ways_to_give_them() {
    let began = Instant::now();
    let options = S3Options {
        access_key: None,
        profile: Some("synapse-backup-no-such-profile".to_owned()),
        ..minio_options().await
    };
    let error = s3::open(options, Arc::default()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(matches!(&error, Error::Unauthenticated { .. }), "{error:?}");
    for way in ["AWS_ACCESS_KEY_ID", "s3.profile", "web identity", "container"] {
        assert!(error.hint().unwrap().contains(way), "{way}");
    }
}
