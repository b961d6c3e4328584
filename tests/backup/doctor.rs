//! `doctor`: a homeserver in order has nothing to be said of, and each thing that can be wrong is named, with a cure.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::SignedDuration;
use synapse_backup::format::FORMAT_VERSION;
use synapse_backup::format::drill::Drill;
use synapse_backup::ops::doctor::{self, Check, Report, Verdict};
use synapse_backup::ops::{Tools, inspect};
use synapse_backup::repo::{Ids, Repository, drills, open};
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::{Fail, Fault};
use synapse_backup::synapse::config::{self, discover};

use crate::cluster::{is_root, shared};
use crate::homeserver::{Home, noise};
use crate::rig::{backup, conninfo, document, fresh, fresh_in, init, listed, memory, reopen, run, tools};
use crate::sealed::Keys;

async fn options(repository: &Repository) -> doctor::Options {
    doctor::Options {
        tools: tools(),
        now: repository.date().await.unwrap(),
        databases: Vec::new(),
        dump_jobs: 2,
        textfile: None,
    }
}

async fn examined_with(repository: &Repository, home: &Home, options: &doctor::Options) -> Report {
    doctor::doctor(Ok(repository.clone()), Ok(home.discover()), options, &run())
        .await
        .unwrap()
}

async fn examined(repository: &Repository, home: &Home) -> Report {
    examined_with(repository, home, &options(repository).await).await
}

/// All that is not ok; each has a cure.
fn findings(report: &Report) -> Vec<&Check> {
    let found: Vec<&Check> = report.checks.iter().filter(|check| check.verdict != Verdict::Ok).collect();
    assert!(found.iter().all(|check| check.cure.is_some()), "{found:#?}");
    found
}

/// Exactly this is found, and no more.
fn assert_found(report: &Report, name: &str, verdict: Verdict, words: &str) {
    let found = findings(report);
    let is_it = |check: &Check| check.name == name && check.verdict == verdict && check.message.contains(words);
    assert!(
        found.iter().all(|check| is_it(check)) && !found.is_empty(),
        "{name}, {words}: {found:#?}"
    );
}

/// This is found, perhaps with others.
fn assert_among(report: &Report, name: &str, verdict: Verdict, words: &str) {
    let is_it = |check: &&Check| check.name == name && check.verdict == verdict && check.message.contains(words);
    assert!(
        report.checks.iter().any(|check| is_it(&check)),
        "{name}, {words}: {:#?}",
        report.checks
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_in_order_has_nothing_to_be_said_of() {
    let (home, repository) = (Home::new(), fresh().await);
    for backed_up in [false, true] {
        if backed_up {
            backup(&repository, &home).await;
        }
        let report = examined(&repository, &home).await;
        assert!(findings(&report).is_empty(), "{report:#?}");
        for (name, words) in [
            ("configuration", "example.org: "),
            ("signing key", "ed25519:a_ABCD"),
            ("database synapse", "tables, dumped by "),
            ("database synapse", "its dump takes 4 connections, "),
            ("database synapse", "loaded by "),
            ("media store", "/var/media"),
            ("sealing", "--unencrypted"),
            ("store", "written, read back and listed"),
            ("clock", "agrees"),
            ("newest snapshot", if backed_up { "less than an hour ago" } else { "none yet" }),
        ] {
            assert_among(&report, name, Verdict::Ok, words);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_names_what_is_not_there_is_a_warning_and_a_lost_key_a_failure() {
    let (home, repository) = (Home::new(), fresh().await);
    fs::remove_file(home.at("etc/log.yaml")).unwrap();
    assert_found(&examined(&repository, &home).await, "configuration", Verdict::Warning, "log.yaml");
    home.write("etc/log.yaml", b"version: 1\n");

    let key = home.at("etc/signing.key");
    fs::write(&key, "ed25519 a_ABCD nonsense\n").unwrap();
    let report = examined(&repository, &home).await;
    assert_among(
        &report,
        "configuration",
        Verdict::Warning,
        "it is the signing key, but the key in line 1",
    );
    assert_among(&report, "signing key", Verdict::Failure, "no key in it that can be read");
    if !is_root() {
        fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
        let report = examined(&repository, &home).await;
        assert_among(&report, "signing key", Verdict::Failure, "no key in it that can be read");
    }
    fs::remove_file(&key).unwrap();
    let report = examined(&repository, &home).await;
    assert_among(&report, "signing key", Verdict::Failure, "it is not there");

    let broken = config::Options {
        config: vec![home.at("etc/homeserver.yaml")],
        ..config::Options::default()
    };
    home.write("etc/homeserver.yaml", b"server_name: [");
    let homeserver = discover(&broken).map_err(anyhow::Error::from);
    let options = options(&repository).await;
    let report = doctor::doctor(Ok(repository), homeserver, &options, &run()).await.unwrap();
    assert_among(&report, "configuration", Verdict::Failure, "homeserver.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_dumped_is_a_failure() {
    let (home, repository) = (Home::new(), fresh().await);
    let cluster = shared();
    let further = |conninfo: String| async {
        let options = doctor::Options {
            databases: vec![("mas".into(), conninfo)],
            ..options(&repository).await
        };
        examined_with(&repository, &home, &options).await
    };
    let of_mas = cluster.database("mas");
    cluster.psql(&of_mas, "CREATE TABLE secrets (x int)");
    let as_role = |role: &str| conninfo(cluster, &of_mas).replace("user=postgres", &format!("user='{role}'"));
    assert!(findings(&further(conninfo(cluster, &of_mas)).await).is_empty());

    let report = further(conninfo(cluster, "no such database")).await;
    assert_found(&report, "database mas", Verdict::Failure, "no such database");
    let report = further(as_role(&cluster.role("blind", "x"))).await;
    assert_found(&report, "database mas", Verdict::Failure, "secrets");

    let narrow = cluster.role("narrow", "x");
    cluster.psql(&of_mas, &format!("GRANT SELECT ON secrets TO \"{narrow}\""));
    assert!(findings(&further(as_role(&narrow)).await).is_empty());
    cluster.psql("postgres", &format!("ALTER ROLE \"{narrow}\" CONNECTION LIMIT 3"));
    let report = further(as_role(&narrow)).await;
    assert_found(
        &report,
        "database mas",
        Verdict::Failure,
        "takes 4 connections, and this role may have 3",
    );
    cluster.psql("postgres", &format!("ALTER ROLE \"{narrow}\" CONNECTION LIMIT 5"));
    let mut busy = cluster.client("psql", &of_mas);
    let busy = busy.env("PGUSER", &narrow).args(["-X", "-c", "SELECT pg_sleep(60)"]);
    let mut busy: Vec<_> = (0..2).map(|_| busy.spawn().unwrap()).collect();
    let sleeping = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{narrow}' AND state = 'active'");
    while cluster.psql("postgres", &sleeping) != "2" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let report = further(as_role(&narrow)).await;
    for one in &mut busy {
        one.kill().unwrap();
        one.wait().unwrap();
    }
    assert_found(&report, "database mas", Verdict::Warning, "takes 4 connections, and ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_synapse_would_refuse_is_a_warning() {
    let (mut home, repository) = (Home::new(), fresh().await);
    let name = format!("{}_latin1", home.database);
    let made = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    home.cluster.psql("postgres", &made);
    home.database = name;
    home.sql("CREATE TABLE local_media_repository (media_id text, media_length int, sha256 text)");
    home.write_config("example.org", "");
    let report = examined(&repository, &home).await;
    assert_found(&report, "database synapse", Verdict::Warning, "its encoding is LATIN1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_made_anew_is_a_failure_and_makes_no_snapshot() {
    let (home, repository) = (Home::new(), fresh().await);
    backup(&repository, &home).await;
    home.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    let report = examined(&repository, &home).await;
    assert_found(&report, "database synapse", Verdict::Failure, "no table `local_media_repository`");
    let error = synapse_backup::ops::backup::backup(&repository, &home.discover(), &crate::rig::options(), &run())
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("not, or no longer, the database of a Synapse"),
        "{error:#}"
    );
    assert_eq!(listed(&repository).await.len(), 1);
}

/// A program that knows its version and nothing else.
fn stub(folder: &Path, name: &str, version: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_are_too_old_are_named() {
    let (home, repository) = (Home::new(), fresh().await);
    let with_pg_dump = |pg_dump: PathBuf| async {
        let options = doctor::Options {
            tools: Tools {
                pg_dump: Some(pg_dump),
                ..tools()
            },
            ..options(&repository).await
        };
        examined_with(&repository, &home, &options).await
    };
    let folder = tempfile::tempdir().unwrap();
    let report = with_pg_dump(stub(folder.path(), "pg_dump", "11.4")).await;
    assert_found(&report, "database synapse", Verdict::Failure, "or newer is needed");

    let beside = tempfile::tempdir().unwrap();
    let pg_dump = beside.path().join("pg_dump");
    symlink(shared().bin.join("pg_dump"), &pg_dump).unwrap();
    stub(beside.path(), "pg_restore", "11.4");
    let report = with_pg_dump(pg_dump).await;
    assert_found(&report, "database synapse", Verdict::Warning, "cannot be loaded here: pg_restore ");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_that_cannot_be_reached_are_named() {
    let (home, repository) = (Home::new(), fresh().await);
    home.write_config("example.org", "media_storage_providers:\n  - { module: my.Provider, store_local: true, store_remote: false, store_synchronous: true, config: {} }\n");
    assert_found(
        &examined(&repository, &home).await,
        "media provider",
        Verdict::Warning,
        "my.Provider",
    );
    let file_system = |directory: &Path| {
        format!(
            "media_storage_providers:\n  - {{ module: file_system, store_local: true, config: {{ directory: \"{}\" }} }}\n",
            directory.display()
        )
    };
    home.write_config("example.org", &file_system(&home.at("not mounted")));
    assert_found(
        &examined(&repository, &home).await,
        "media provider",
        Verdict::Warning,
        "not mounted",
    );
    fs::create_dir(home.at("mounted")).unwrap();
    home.write_config("example.org", &file_system(&home.at("mounted")));
    assert!(findings(&examined(&repository, &home).await).is_empty());
    // Nobody listens there any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bucket = format!(
        "media_storage_providers:\n  - module: s3_storage_provider.S3StorageProviderBackend\n    store_local: true\n    config: \
         {{ bucket: media, endpoint_url: \"http://127.0.0.1:{port}\", access_key_id: x, secret_access_key: y }}\n"
    );
    home.write_config("example.org", &bucket);
    assert_found(
        &examined(&repository, &home).await,
        "media provider",
        Verdict::Failure,
        "the media bucket media",
    );
    home.write_config("example.org", "enable_media_repo: false\n");
    assert_found(
        &examined(&repository, &home).await,
        "media repository",
        Verdict::Warning,
        "somebody else",
    );
    home.write_config("example.org", "");
    fs::remove_dir_all(home.at("var/media")).unwrap();
    let report = examined(&repository, &home).await;
    assert_among(&report, "media store", Verdict::Failure, "No such file or directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_and_a_clock_that_is_wrong_are_named() {
    let (home, repository) = (Home::new(), fresh().await);
    let options = options(&repository).await;
    let nowhere = open::open(memory(), Ids::random()).await.map_err(anyhow::Error::from);
    let report = doctor::doctor(nowhere, Ok(home.discover()), &options, &run()).await.unwrap();
    assert_found(&report, "repository", Verdict::Failure, "no repository");
    // A bucket that can be listed and read, and takes nothing; and one that gives nothing back.
    for (kinds, words) in [(&[Kind::Put][..], "write"), (&[Kind::List][..], "list")] {
        let memory = memory();
        init(memory.clone()).await;
        let broken = reopen(Arc::new(Fail::new(memory, 1, Fault::BeforeAndEver).only(kinds))).await;
        assert_among(&examined_with(&broken, &home, &options).await, "store", Verdict::Failure, words);
    }
    let late = doctor::Options {
        now: options.now + SignedDuration::from_mins(6),
        ..options.clone()
    };
    assert_found(
        &examined_with(&repository, &home, &late).await,
        "clock",
        Verdict::Warning,
        "360s away",
    );
    let folder = tempfile::tempdir().unwrap();
    for (name, is_there) in [("x.prom", true), ("missing/x.prom", false)] {
        let with_metrics = doctor::Options {
            textfile: Some(folder.path().join(name)),
            ..options.clone()
        };
        let report = examined_with(&repository, &home, &with_metrics).await;
        let verdict = if is_there { Verdict::Ok } else { Verdict::Warning };
        assert_among(
            &report,
            "metrics",
            verdict,
            if is_there { "x.prom" } else { "cannot be written to" },
        );
        assert_eq!(findings(&report).is_empty(), is_there);
    }
}

fn drill_of(memory: &Memory, snapshot: synapse_backup::format::ObjectId, passed: bool) -> Drill {
    Drill {
        format: FORMAT_VERSION,
        id: snapshot,
        snapshot,
        time: memory.clock().now(),
        tool_version: "0".into(),
        passed,
        seconds: 1,
        media: "all".into(),
        checks: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_stopped_and_a_drill_that_never_was_are_named() {
    let (home, memory) = (Home::new(), memory());
    let repository = fresh_in(&memory).await;
    backup(&repository, &home).await;
    memory.clock().advance(SignedDuration::from_hours(49));
    assert_found(
        &examined(&repository, &home).await,
        "newest snapshot",
        Verdict::Warning,
        "2 days ago",
    );
    // Another homeserver's backups are no comfort.
    let other = Home::new();
    other.write_config("other.org", "");
    backup(&repository, &other).await;
    assert_found(
        &examined(&repository, &home).await,
        "newest snapshot",
        Verdict::Warning,
        "2 days ago",
    );

    memory.clock().advance(SignedDuration::from_hours(16 * 24));
    let id = backup(&repository, &home).await.snapshot.unwrap();
    assert_found(
        &examined(&repository, &home).await,
        "newest drill",
        Verdict::Warning,
        "no snapshot was ever",
    );
    let snapshot = document(&repository, &id).await.id;
    drills::record(&repository, &drill_of(&memory, snapshot, false)).await.unwrap();
    assert_found(
        &examined(&repository, &home).await,
        "newest drill",
        Verdict::Warning,
        "would not live again",
    );
    memory.clock().advance(SignedDuration::from_secs(1));
    drills::record(&repository, &drill_of(&memory, snapshot, true)).await.unwrap();
    let report = examined(&repository, &home).await;
    assert!(findings(&report).is_empty(), "{report:#?}");
    assert_among(
        &report,
        "newest drill",
        Verdict::Ok,
        &format!("less than an hour ago: snapshot {} would live again", &id[..8]),
    );
    memory.clock().advance(SignedDuration::from_hours(16 * 24));
    backup(&repository, &home).await;
    assert_found(&examined(&repository, &home).await, "newest drill", Verdict::Warning, "16 days ago");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_with_problems_or_that_cannot_be_read_is_named() {
    let (home, memory) = (Home::new(), memory());
    let repository = fresh_in(&memory).await;
    home.row("AliceLostPicture00000004", &noise(4, 10));
    backup(&repository, &home).await;
    assert_found(
        &examined(&repository, &home).await,
        "newest snapshot",
        Verdict::Warning,
        "with 1 problem",
    );
    let listed = inspect::snapshots(&repository, &run()).await.unwrap();
    assert_eq!(listed.snapshots.len(), 1);
    let key = memory.objects().into_keys().find(|key| key.starts_with("snapshots/")).unwrap();
    let garbage: Arc<dyn synapse_backup::store::Store> = memory.clone();
    garbage.put(&key, b"garbage".as_slice().into()).await.unwrap();
    let report = examined(&reopen(memory).await, &home).await;
    assert_found(&report, "snapshots", Verdict::Warning, "cannot be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_repository_needs_its_keys() {
    let (home, memory, keys) = (Home::new(), memory(), Keys::new());
    keys.init(memory.clone()).await;
    for (keyring, found) in [
        (keys.of_server(), None),
        (keys.with_recipients(1), Some(("recipients", Verdict::Warning, "only one"))),
        (keys.with_recipients(0), Some(("recipients", Verdict::Failure, "is not set"))),
        (keys.without_writer(), Some(("writer key", Verdict::Failure, "not there"))),
    ] {
        let repository = open::open_with(memory.clone(), Ids::random(), keyring).await.unwrap();
        let report = examined(&repository, &home).await;
        match found {
            None => assert!(findings(&report).is_empty(), "{report:#?}"),
            Some((name, verdict, words)) => assert_among(&report, name, verdict, words),
        }
    }
}
