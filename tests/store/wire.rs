//! What is sent, header by header: the traps of `docs/providers.md`, held.

use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::store::s3::{AccessKey, Provider, S3Options};
use synapse_backup::store::{PartTag, Store, UploadId, s3};

use crate::support::canned::{Asked, Canned, http};

const CREATED: &str = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>";
const BODY: Bytes = Bytes::from_static(b"123456789");

async fn server(name: &'static str) -> Canned {
    Canned::start(move |asked: &Asked| {
        let is_create = asked.line.starts_with("post") && asked.line.contains("uploads");
        http(200, &[("ETag", "\"etag\""), ("Server", name)], if is_create { CREATED } else { "" })
    })
    .await
}

async fn store_at(server: &Canned, options: S3Options) -> Arc<dyn Store> {
    let options = S3Options {
        bucket: "bucket".to_owned(),
        prefix: "pre fix".to_owned(),
        endpoint: Some(server.endpoint()),
        access_key: Some(AccessKey {
            id: "id".to_owned(),
            secret: "secret".to_owned(),
            session_token: None,
        }),
        ..options
    };
    s3::open(options, Arc::default()).await.unwrap()
}

fn sums(asked: &Asked) -> Vec<&str> {
    let is_sum = |header: &&str| {
        header.starts_with("x-amz-") && header.contains("checksum")
            || header.starts_with("content-md5")
            || header.starts_with("x-amz-trailer")
    };
    let mut sums: Vec<&str> = asked.headers.iter().map(String::as_str).filter(is_sum).collect();
    sums.sort_unstable();
    sums
}

fn value<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    asked
        .headers
        .iter()
        .find_map(|header| header.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn each_provider_gets_the_checksum_that_it_checks_and_no_other() {
    // CRC-64/NVME, CRC-32C and MD5 of the digits 1 to 9, in base64 (and in lower case, as the server logs it).
    let crc64 = vec!["x-amz-checksum-crc64nvme: rosuhgp5mig="];
    let crc32c = vec!["x-amz-checksum-crc32c: 4wasgw=="];
    let md5 = vec!["content-md5: jfnnldi7rtif9rgfg2jncw=="];
    for provider in Provider::ALL {
        let (wanted, at_create) = match provider {
            Provider::Aws | Provider::R2 | Provider::Garage | Provider::Seaweedfs => (
                &crc64,
                vec!["x-amz-checksum-algorithm: crc64nvme", "x-amz-checksum-type: full_object"],
            ),
            Provider::Minio => (&crc32c, vec!["x-amz-checksum-algorithm: crc32c"]),
            _ => (&md5, vec![]),
        };
        let server = server("anything").await;
        let store = store_at(
            &server,
            S3Options {
                provider: Some(provider),
                ..S3Options::default()
            },
        )
        .await;
        store.put("key", BODY).await.unwrap();
        let upload = store.create_upload("key").await.unwrap();
        let tag = store.put_part("key", &upload, 1, BODY).await.unwrap();
        let asked = server.asked();
        assert_eq!(&sums(&asked[0]), wanted, "PUT at {provider}");
        assert_eq!(sums(&asked[1]), at_create, "CREATE at {provider}");
        assert_eq!(&sums(&asked[2]), wanted, "PART at {provider}");
        assert_eq!(tag.checksum.is_some(), !at_create.is_empty(), "{provider}");
        // In memory, so of known length, not chunked; and on plain http the payload is signed.
        for asked in [&asked[0], &asked[2]] {
            assert_eq!(value(asked, "content-length"), Some("9"), "{provider}");
            assert_eq!(value(asked, "content-encoding"), None, "{provider}");
            let signed = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
            assert_eq!(value(asked, "x-amz-content-sha256"), Some(signed), "{provider}");
        }
    }
}

#[tokio::test]
async fn a_server_that_gives_its_name_gets_its_own_checksum() {
    for (name, wanted) in [
        ("MinIO", "x-amz-checksum-crc32c: 4wasgw=="),
        ("nginx", "content-md5: jfnnldi7rtif9rgfg2jncw=="),
    ] {
        let server = server(name).await;
        let store = store_at(&server, S3Options::default()).await;
        store.delete("anything").await.unwrap();
        store.put("key", BODY).await.unwrap();
        assert_eq!(sums(&server.asked()[1]), [wanted], "{name}");
    }
}

#[tokio::test]
async fn only_packs_get_the_storage_class() {
    let server = server("anything").await;
    let store = store_at(
        &server,
        S3Options {
            storage_class: Some("STANDARD_IA".to_owned()),
            ..S3Options::default()
        },
    )
    .await;
    for (key, wanted) in [
        ("packs/00/a.zst", Some("standard_ia")),
        ("index/a.idx", None),
        ("snapshots/a", None),
        ("condemned/a", None),
        ("repository.json", None),
    ] {
        store.put(key, BODY).await.unwrap();
        store.create_upload(key).await.unwrap();
        // The SDK wants an answer to a copy that is none of its failures.
        let _ = store.copy("packs/source", key).await;
        let asked = server.asked();
        for asked in &asked[asked.len() - 3..] {
            assert_eq!(value(asked, "x-amz-storage-class"), wanted, "{}", asked.line);
        }
    }
}

#[tokio::test]
async fn the_prefix_and_odd_characters_arrive_as_they_are() {
    let server = server("anything").await;
    let store = store_at(
        &server,
        S3Options {
            path_style: Some(true),
            ..S3Options::default()
        },
    )
    .await;
    store.put("key", BODY).await.unwrap();
    let _ = store.copy("key", "copy").await;
    let asked = server.asked();
    assert!(asked[0].line.starts_with("put /bucket/pre%20fix/key"), "{}", asked[0].line);
    assert_eq!(value(&asked[1], "x-amz-copy-source"), Some("bucket/pre%20fix/key"));
}

#[tokio::test]
async fn complete_repeats_the_values_of_the_parts() {
    let server = server("anything").await;
    let store = store_at(
        &server,
        S3Options {
            provider: Some(Provider::Aws),
            ..S3Options::default()
        },
    )
    .await;
    let tag = |number: u32| PartTag {
        number,
        etag: format!("\"{number}\""),
        checksum: Some(format!("sum{number}")),
    };
    let _ = store
        .complete_upload("key", &UploadId("id".to_owned()), vec![tag(1), tag(2)], 18)
        .await;
    let asked = &server.asked()[0];
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    for wanted in [
        "<ChecksumCRC64NVME>sum1</ChecksumCRC64NVME>",
        "<PartNumber>2</PartNumber>",
        "<ETag>&quot;2&quot;</ETag>",
    ] {
        assert!(body.contains(wanted), "{wanted}: {body}");
    }
    assert_eq!(value(asked, "x-amz-mp-object-size"), Some("18"));
}

#[test]
fn settings_show_no_secrets() {
    let key = AccessKey {
        id: "public".to_owned(),
        secret: "sec-ret".to_owned(),
        session_token: Some("tok-en".to_owned()),
    };
    let shown = format!(
        "{:?}",
        S3Options {
            access_key: Some(key),
            ..S3Options::default()
        }
    );
    assert!(
        shown.contains("public") && !shown.contains("sec-ret") && !shown.contains("tok-en"),
        "{shown}"
    );
}
