//! A real `MinIO` with a certificate of its own: refused, and accepted when it is named.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::s3::{CustomerKey, Provider, S3Options};
use synapse_backup::store::{ByteRange, Error, s3};
use tempfile::TempDir;

use crate::support::minio::{How, Minio};

/// A certificate that signs itself, for `localhost`.
fn certificate() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args(["-keyout", "private.key", "-out", "public.crt"])
        .current_dir(folder.path())
        .output()
        .expect("openssl is needed to make a certificate for this test");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

async fn fails(options: S3Options) -> Error {
    let began = Instant::now();
    let store = s3::open(options, Arc::default()).await.unwrap();
    let error = store.get("key", ByteRange::All).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}: {error:?}", began.elapsed());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ones_own_is_refused_until_it_is_named() {
    let folder = certificate();
    let minio = Minio::start(&How {
        certificates: Some(folder.path()),
        buckets: &["bucket"],
        ..How::default()
    });
    let options = minio.options("bucket");

    let error = fails(options.clone()).await;
    assert!(matches!(&error, Error::Tls { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("s3.ca_file"), "{:?}", error.hint());

    // For another name than the one it was made for.
    let named = S3Options {
        ca_file: Some(folder.path().join("public.crt")),
        ..options
    };
    let other = S3Options {
        endpoint: Some(format!("https://127.0.0.1:{}", minio.address.port())),
        ..named.clone()
    };
    let error = fails(other).await;
    assert!(matches!(&error, Error::Tls { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("another name"), "{:?}", error.hint());

    // Plain http where TLS is spoken.
    let plain = S3Options {
        endpoint: Some(format!("http://localhost:{}", minio.address.port())),
        ..named.clone()
    };
    let error = fails(plain).await;
    assert!(error.hint().unwrap().contains("https://"), "{error:?}");

    // Accepted: unsigned payloads with each kind of checksum, single and in parts.
    for provider in [Provider::Minio, Provider::Aws, Provider::B2] {
        works(S3Options {
            provider: Some(provider),
            path_style: Some(true),
            ..named.clone()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_under_a_customers_key_is_read_with_it_and_not_without() {
    let folder = certificate();
    let minio = Minio::start(&How {
        certificates: Some(folder.path()),
        buckets: &["bucket"],
        ..How::default()
    });
    // The text of `sse_customer_key` is the key; in base64 for who writes here.
    let key = "0123456789abcdef0123456789abcdef";
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    minio.put_under_key("bucket", "media/sealed", &body, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    minio.put_under_key("bucket", "media/empty", b"", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let with = |customer_key| S3Options {
        ca_file: Some(folder.path().join("public.crt")),
        customer_key,
        ..minio.options("bucket")
    };
    let store = s3::open(with(Some(CustomerKey::new(key.as_bytes(), None))), Arc::default())
        .await
        .unwrap();
    assert!(store.get("media/sealed", ByteRange::All).await.unwrap().bytes == body);
    let range = ByteRange::From {
        offset: 300_000,
        length: 200_000,
    };
    let got = store.get("media/sealed", range).await.unwrap();
    assert!(got.bytes == body[300_000..] && got.object_bytes == 400_000);
    assert_eq!(store.head("media/sealed").await.unwrap().bytes, 400_000);
    // No range fits an object without a byte: its length is asked for, which takes the key too.
    let got = store
        .get(
            "media/empty",
            ByteRange::From {
                offset: 0,
                length: 8 << 20,
            },
        )
        .await
        .unwrap();
    assert_eq!((got.bytes.len(), got.object_bytes), (0, 0));
    let wrong = CustomerKey::new(b"another key another key another ", None);
    assert!(!format!("{wrong:?}").contains("YW5vdGhlci"));
    for (case, customer_key) in [("none", None), ("wrong", Some(wrong))] {
        let store = s3::open(with(customer_key), Arc::default()).await.unwrap();
        let error = store.get("media/sealed", ByteRange::All).await.unwrap_err();
        assert!(matches!(error, Error::Failed { .. } | Error::Denied { .. }), "{case}: {error:?}");
    }
}

async fn works(options: S3Options) {
    let counters = Arc::new(Counters::default());
    let store = s3::open(options, Arc::clone(&counters)).await.unwrap();
    let body = Bytes::from(vec![7; 100_000]);
    store.put("single", body.clone()).await.unwrap();
    let upload = store.create_upload("parts").await.unwrap();
    let tag = store.put_part("parts", &upload, 1, body.clone()).await.unwrap();
    store.complete_upload("parts", &upload, vec![tag], 100_000).await.unwrap();
    for key in ["single", "parts"] {
        assert!(store.get(key, ByteRange::All).await.unwrap().bytes == body);
        store.delete(key).await.unwrap();
    }
    let totals = counters.totals();
    assert_eq!((totals.sent_bytes, totals.requests.put, totals.requests.part), (200_000, 1, 1));
}

#[tokio::test]
async fn tls_where_none_is_spoken_is_told() {
    let minio = crate::support::minio::shared();
    let error = fails(S3Options {
        endpoint: Some(minio.endpoint.replace("http:", "https:")),
        ..minio.options("contract")
    })
    .await;
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("http://"), "{:?}", error.hint());
}

#[tokio::test]
async fn a_ca_file_that_holds_no_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("missing", None, "No such file"),
        ("empty", Some(""), "no certificate"),
        ("text", Some("hello"), "no certificate"),
        (
            "broken",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "not valid",
        ),
        ("cut", Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), "not PEM"),
    ];
    for (name, content, wanted) in cases {
        let path: &Path = &folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(path, content).unwrap();
        }
        let options = S3Options {
            ca_file: Some(path.to_owned()),
            ..crate::support::minio::shared().options("contract")
        };
        let error = s3::open(options, Arc::default()).await.unwrap_err();
        assert!(
            matches!(&error, Error::BadUrl { message } if message.contains(wanted)),
            "{name}: {error:?}"
        );
    }
}
