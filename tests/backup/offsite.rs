//! Media in a bucket that does not give them: each is named, the run goes on, and a bucket in trouble is not asked for ever.
//!
//! The bucket is a server with one answer for everything. What a real one gives, `scripts/e2e` asks of MinIO.

use std::fs;

use synapse_backup::ops::backup::{Options, Report};
use synapse_backup::repo::Repository;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::canned::{Canned, refusal};
use crate::homeserver::{Home, noise};
use crate::rig::{fresh, options, run};

const MEDIA: usize = 40;
/// Ten failures, and what was asked meanwhile.
const ASKED_MAX: usize = 20;

/// A homeserver whose media are in this bucket; `more` is further settings of the provider.
fn home(endpoint: &str, more: &str) -> Home {
    let home = Home::bare(crate::cluster::shared());
    let media = (0..MEDIA).map(|number| (format!("Moved{number:019}"), noise(number as u64, 500)));
    home.upload_all(&media.collect::<Vec<_>>());
    let config =
        format!("{{ bucket: media, endpoint_url: \"{endpoint}\", region_name: us-east-1, access_key_id: a, secret_access_key: b{more} }}");
    let provider = format!("{{ module: s3_storage_provider.S3StorageProviderBackend, store_local: true, config: {config} }}");
    home.write_config("example.org", &format!("media_storage_providers: [{provider}]\n"));
    home
}

const SEALED: &str = ", sse_customer_key: an example of thirty-two bytes..";

async fn backup_as(repository: &Repository, home: &Home, audit_percent: f64) -> Report {
    let options = Options {
        audit_percent,
        ..options()
    };
    synapse_backup::ops::backup::backup(repository, &home.discover(), &options, &run())
        .await
        .unwrap()
}

/// Requests for objects.
fn asked(bucket: &Canned) -> usize {
    let is_object = |line: &str| line.contains("/local_content/");
    bucket.asked().iter().filter(|asked| is_object(&asked.line)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_gives_nothing_is_asked_no_more_and_each_medium_is_named() {
    let cases = [
        ("trouble", "", (501, "NotImplemented"), true),
        ("trouble under a customer's key", SEALED, (501, "NotImplemented"), true),
        ("other customers' keys", SEALED, (400, "InvalidRequest"), false),
        ("no right", "", (403, "AccessDenied"), false),
        ("an access key that it does not know", "", (403, "InvalidAccessKeyId"), true),
    ];
    for (case, more, (status, code), is_given_up) in cases {
        let bucket = Canned::start(move |_| refusal(status, code, "not today")).await;
        let home = home(&bucket.endpoint(), more);
        fs::remove_dir_all(home.at("var/media/local_content")).unwrap();
        let report = backup_as(&fresh().await, &home, 0.0).await;
        assert_eq!((report.problem_count, report.media.files), (MEDIA as u64, 0), "{case}");
        assert!(report.snapshot.is_some() && report.databases.len() == 1, "{case}: {report:?}");
        let asked = asked(&bucket);
        let expected = if is_given_up { 10..=ASKED_MAX } else { MEDIA..=MEDIA };
        assert!(expected.contains(&asked), "{case}: {asked} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_asks_a_bucket_in_trouble_no_more_and_one_that_answers_for_all() {
    for (case, status, code, is_given_up) in [("trouble", 501, "NotImplemented", true), ("nothing there", 404, "NoSuchKey", false)] {
        let bucket = Canned::start(move |_| refusal(status, code, "not today")).await;
        let home = home(&bucket.endpoint(), "");
        let repository = fresh().await;
        assert_eq!(backup_as(&repository, &home, 0.0).await.problem_count, 0, "{case}");
        fs::remove_dir_all(home.at("var/media/local_content")).unwrap();
        assert_eq!(asked(&bucket), 0, "{case}");
        let report = backup_as(&repository, &home, 100.0).await;
        let asked = asked(&bucket);
        let (expected, missing) = if is_given_up {
            (10..=ASKED_MAX, 0)
        } else {
            (MEDIA..=MEDIA, MEDIA as u64)
        };
        assert!(expected.contains(&asked), "{case}: {asked} requests");
        assert_eq!((report.media.audited, report.problem_count), (MEDIA as u64, missing), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_reached_costs_its_media_and_not_the_snapshot() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    // What answers does not speak TLS.
    let mut answers = JoinSet::new();
    answers.spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, told) in [
        (format!("http://{nobody}"), "cannot be reached"),
        (format!("https://{address}"), "cannot be reached"),
        ("ftp://127.0.0.1".to_owned(), "cannot be opened"),
    ] {
        let home = home(&endpoint, "");
        fs::remove_dir_all(home.at("var/media/local_content")).unwrap();
        let report = backup_as(&fresh().await, &home, 0.0).await;
        assert_eq!((report.problem_count, report.media.files), (MEDIA as u64, 0), "{endpoint}");
        assert!(report.snapshot.is_some() && report.databases.len() == 1, "{endpoint}: {report:?}");
        let problem = &report.problems[0].message;
        assert!(problem.contains(told), "{endpoint}: {problem}");
    }
}
