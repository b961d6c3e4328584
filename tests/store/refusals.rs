//! Answers that a real store gives only on a bad day, and what they are taken for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::s3::{AccessKey, Patience, Provider, S3Options};
use synapse_backup::store::{ByteRange, Error, Store, s3};

use crate::support::canned::{Asked, Canned, http, refusal};

/// A store at a server of prepared answers, with little patience.
pub async fn store_at(server: &Canned) -> (Arc<dyn Store>, Arc<Counters>) {
    let patience = Patience {
        first: Duration::from_millis(600),
        settled: Duration::from_millis(600),
        pause_max: Duration::from_millis(50),
    };
    let options = S3Options {
        bucket: "bucket".to_owned(),
        prefix: "prefix".to_owned(),
        endpoint: Some(server.endpoint()),
        access_key: Some(AccessKey {
            id: "id".to_owned(),
            secret: "secret".to_owned(),
            session_token: None,
        }),
        provider: Some(Provider::Minio),
        patience,
        ..S3Options::default()
    };
    let counters = Arc::new(Counters::default());
    (s3::open(options, Arc::clone(&counters)).await.unwrap(), counters)
}

#[tokio::test]
async fn each_refusal_is_told_apart_and_says_what_to_do() {
    let region = [("x-amz-bucket-region", "eu-central-1")];
    let malformed =
        "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message><Region>eu-west-3</Region></Error>";
    // What is answered; what it becomes; a word of its hint; whether it is worth another try.
    let cases = [
        (refusal(404, "NoSuchKey", "no"), "NotFound", "", false),
        (refusal(404, "NoSuchBucket", "no"), "NoBucket", "create the bucket", false),
        (
            refusal(403, "InvalidAccessKeyId", "no"),
            "Unauthenticated",
            "AWS_ACCESS_KEY_ID",
            false,
        ),
        (
            refusal(403, "SignatureDoesNotMatch", "no"),
            "Unauthenticated",
            "AWS_SECRET_ACCESS_KEY",
            false,
        ),
        (refusal(400, "ExpiredToken", "no"), "Unauthenticated", "has expired", false),
        (refusal(400, "InvalidToken", "no"), "Unauthenticated", "AWS_SESSION_TOKEN", false),
        (refusal(401, "Unauthorized", "no"), "Unauthenticated", "other credentials", false),
        (refusal(403, "AccessDenied", "no"), "Denied", "s3:GetObject", false),
        (refusal(403, "RequestTimeTooSkewed", "no"), "Failed", "clock of this machine", true),
        (http(301, &region, ""), "Failed", "set s3.region to eu-central-1", false),
        (refusal(301, "PermanentRedirect", "no"), "Failed", "s3.region", false),
        (http(400, &[], malformed), "Failed", "set s3.region to eu-west-3", false),
        (
            http(400, &[], "Client sent an HTTP request to an HTTPS server."),
            "Failed",
            "",
            false,
        ),
        (refusal(400, "InvalidRequest", "no"), "Failed", "", false),
        (
            refusal(400, "InvalidRequest", "Object is WORM protected and cannot be overwritten"),
            "Denied",
            "",
            false,
        ),
        (refusal(400, "BadDigest", "no"), "Failed", "bad memory", true),
        (refusal(400, "XAmzContentChecksumMismatch", "no"), "Failed", "bad memory", true),
        (refusal(501, "NotImplemented", "no"), "Failed", "s3.provider", false),
        (http(405, &[], "<html>nginx</html>"), "Failed", "s3.endpoint", false),
        (refusal(503, "SlowDown", "no"), "Failed", "", true),
        (refusal(429, "TooManyRequests", "no"), "Failed", "", true),
        (refusal(400, "RequestTimeout", "no"), "Failed", "", true),
        (refusal(500, "InternalError", "no"), "Failed", "", true),
        (http(408, &[], ""), "Failed", "", true),
        (http(499, &[], ""), "Failed", "", true),
        (http(502, &[], "<html>Bad Gateway</html>"), "Failed", "", true),
        (http(504, &[], ""), "Failed", "", true),
        (
            http(200, &[("Last-Modified", "Mon, 23 Nov 2026 09:00:00 GMT")], "").split_off(15),
            "Failed",
            "",
            true,
        ),
    ];
    for (answer, variant, hint, is_tried_again) in cases {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let server = Canned::start(move |_| answer.clone()).await;
        let (store, counters) = store_at(&server).await;
        let error = store.get("key", ByteRange::All).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(variant), "{shown}\n{error:?}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{shown}\n{:?}", error.hint());
        assert!(!error.to_string().contains('\n') && !error.hint().unwrap_or_default().contains('\n'));
        assert_eq!(counters.totals().requests.get > 1, is_tried_again, "{shown}");
    }
}

#[tokio::test]
async fn a_put_is_repeated_only_where_it_surely_had_no_effect() {
    let cases = [
        (refusal(503, "SlowDown", "no"), true),
        (refusal(429, "TooManyRequests", "no"), true),
        (refusal(400, "RequestTimeout", "no"), true),
        (refusal(403, "RequestTimeTooSkewed", "no"), true),
        (refusal(400, "BadDigest", "no"), true),
        (refusal(400, "InvalidDigest", "no"), true),
        (refusal(400, "XAmzContentSHA256Mismatch", "no"), true),
        (refusal(400, "XAmzContentChecksumMismatch", "no"), true),
        (refusal(400, "IncompleteBody", "no"), true),
        (refusal(500, "InternalError", "no"), false),
        (refusal(503, "SlowDownWrite", "no"), false),
        (http(503, &[], "no upstream"), false),
        (http(502, &[], ""), false),
        (http(504, &[], ""), false),
        (http(499, &[], ""), false),
        (http(200, &[], "<CopyObjectResult>").split_off(15), false),
    ];
    for (answer, is_repeated) in cases {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        // The first time the bad answer, then a good one.
        let asked = AtomicUsize::new(0);
        let good = "<CopyObjectResult><ETag>\"x\"</ETag><LastModified>2026-11-23T10:00:00Z</LastModified></CopyObjectResult>";
        let server = Canned::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => answer.clone(),
            _ => http(200, &[("ETag", "\"x\"")], good),
        })
        .await;
        let (store, _) = store_at(&server).await;
        let put = store.put("key", Bytes::from_static(b"body")).await;
        assert_eq!(put.is_ok(), is_repeated, "{shown}: {put:?}");
        assert_eq!(matches!(put, Err(Error::Unknown { .. })), !is_repeated, "{shown}: {put:?}");
        let before = server.asked().len();
        if !is_repeated {
            continue;
        }
        let copy = store.copy("key", "copy").await;
        assert!(copy.is_ok(), "{shown}: {copy:?}");
        assert_eq!((before, server.asked().len()), (2, 4), "{shown}");
    }
}

#[tokio::test]
async fn a_body_that_arrives_damaged_every_time_is_sent_three_times() {
    let server = Canned::start(|_| refusal(400, "BadDigest", "the digest is another")).await;
    let (store, counters) = store_at(&server).await;
    let error = store.put("key", Bytes::from_static(b"body")).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error:?}");
    assert_eq!(counters.totals().requests.put, 3);
}

#[tokio::test]
async fn a_200_with_an_error_in_it_is_an_error() {
    let body = "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>";
    let server = Canned::start(|_| http(200, &[], body)).await;
    let (store, _) = store_at(&server).await;
    let copy = store.copy("key", "copy").await.unwrap_err();
    assert!(matches!(copy, Error::Unknown { .. }), "{copy:?}");
}

#[tokio::test]
async fn an_answer_without_a_date_is_refused() {
    let server =
        Canned::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nLast-Modified: Mon, 23 Nov 2026 09:00:00 GMT\r\n\r\n".to_vec()).await;
    let (store, _) = store_at(&server).await;
    let errors = [
        store.get("key", ByteRange::All).await.err(),
        store.head("key").await.err(),
        store.put("key", Bytes::new()).await.err(),
        store.delete("key").await.err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert!(matches!(error, Error::Failed { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("Date"), "{error:?}");
    }
}

#[tokio::test]
async fn foreign_keys_do_not_crash_a_listing() {
    let line =
        |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-11-23T10:00:00.123Z</LastModified></Contents>");
    let keys = [
        "prefix%2Fa%20b%2Bc",
        "prefix/a+b",
        "prefix/%FF%00%0A",
        "prefix/%",
        "elsewhere/x",
        "prefix/",
    ];
    let body = format!(
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        keys.map(line).concat()
    );
    let server = Canned::start(move |_| http(200, &[], &body)).await;
    let (store, _) = store_at(&server).await;
    let page = store.list_page("", None).await.unwrap();
    let listed: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(listed, ["a b+c", "a b", "\u{fffd}\0\n", "%", ""]);
    assert_eq!(page.objects[0].last_modified.to_string(), "2026-11-23T10:00:00.123Z");
}

#[tokio::test]
async fn a_range_that_is_not_the_one_asked_for_is_refused() {
    let modified = ("Last-Modified", "Mon, 23 Nov 2026 09:00:00 GMT");
    let range = ByteRange::From { offset: 2, length: 3 };
    // A store that does not know ranges gives everything: then the part is cut out.
    let server = Canned::start(move |_| http(200, &[modified], "0123456789")).await;
    assert_eq!(store_at(&server).await.0.get("key", range).await.unwrap().bytes, "234");
    // Nor is "past the end" believed of an object that is long enough.
    let past_end = move |asked: &Asked| {
        if asked.line.starts_with("head") {
            http(200, &[modified], "0123456789")
        } else {
            refusal(416, "InvalidRange", "no")
        }
    };
    let error = store_at(&Canned::start(past_end).await)
        .await
        .0
        .get("key", range)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error:?}");
    for (content_range, body) in [
        ("bytes 3-5/10", "345"),
        ("bytes 2-5/10", "2345"),
        ("bytes 2-4/*", "234"),
        ("bytes 2-4/0", "234"),
        ("bytes 2-4/2", "234"),
        ("nonsense", "234"),
    ] {
        let server = Canned::start(move |_| http(206, &[modified, ("Content-Range", content_range)], body)).await;
        let error = store_at(&server).await.0.get("key", range).await.unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{content_range}: {error:?}");
    }
}
