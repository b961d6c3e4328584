//! However a dump ends other than well: the run fails with the reason, nothing is listed, nobody is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use synapse_backup::format::snapshot::{ProblemKind, encode};
use synapse_backup::ops;
use synapse_backup::ops::backup::Options;
use synapse_backup::store::memory::Memory;

use crate::cluster::{Cluster, shared};
use crate::homeserver::{Home, copy_of, noise};
use crate::hook::At;
use crate::processes::{kill, of_database};
use crate::rig::{backup, document, fresh_in, key_of, keys_of, listed, memory, named, options, run_with, try_backup, verify};

/// A homeserver whose dump has some 50 MB that hardly compress, so that uploads are open when something happens to it.
pub(crate) fn large() -> Home {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let home = Home::bare(shared());
        grow(&home);
        home.database
    });
    let mut home = Home::bare(shared());
    home.database = copy_of(shared(), template);
    home.write_config("example.org", "");
    home
}

fn grow(home: &Home) {
    home.sql(
        "CREATE TABLE big AS SELECT i, (SELECT string_agg(md5(random()::text || i || j), '') FROM generate_series(1, 30) AS j) AS text \
         FROM generate_series(1, 50000) AS i",
    );
}

/// Where in the dump it happens.
pub(crate) const HALF_WAY: u64 = 30 << 20;

/// Nothing is listed, no upload is open, no program runs; and the next run goes well.
async fn assert_nothing_is_left(memory: &Arc<Memory>, home: &Home) {
    assert_eq!(keys_of(memory, "snapshots/"), [] as [String; 0]);
    assert_eq!(memory.open_uploads(), 0);
    assert_nobody_runs(&home.database).await;
}

/// No program of ours works on this database any more; killed ones get a moment to be gone.
pub(crate) async fn assert_nobody_runs(database: &str) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) && !of_database(database).is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(of_database(database), [], "no orphans");
}

/// A way for a dump to be ended half way, and words of which the error must have one.
type End = (&'static str, fn(&Home) -> Box<dyn Fn() + Send + Sync>, &'static [&'static str]);

const ENDS: [End; 2] = [
    (
        "pg_dump is killed",
        |home| {
            let database = home.database.clone();
            Box::new(move || {
                for process in of_database(&database).iter().filter(|process| process.program == "pg_dump") {
                    kill(process);
                }
            })
        },
        &["pg_dump was ended by signal 9"],
    ),
    (
        "its server process is ended",
        |home| end_backends(home, "query LIKE 'COPY%'"),
        &[
            "terminating connection due to administrator command",
            "server closed the connection",
        ],
    ),
];

fn end_backends(home: &Home, which: &'static str) -> Box<dyn Fn() + Send + Sync> {
    let (cluster, database) = (home.cluster, home.database.clone());
    Box::new(move || {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid() AND {which}"
        );
        assert_ne!(cluster.psql("postgres", &sql), "0", "there must be somebody to end: {which}");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_ended_half_way_fails_the_run_and_leaves_nothing() {
    for (name, end, words) in ENDS {
        let home = large();
        home.upload("LargeVideo00000000000001", &noise(1, 20 << 20));
        let memory = memory();
        let repository = fresh_in(&memory).await;
        let hook = At::new("database synapse", HALF_WAY, end(&home));
        let ended = try_backup(&repository, &home, &run_with(&hook)).await;
        assert!(hook.was_done(), "{name}: the dump came to its middle");
        let error = ended.expect_err(name);
        assert!(words.iter().any(|word| error.contains(word)), "{name}: {error}");
        assert!(error.contains("database `synapse`"), "{name}: {error}");
        assert_nothing_is_left(&memory, &home).await;
        backup(&repository, &home).await;
        assert_eq!(verify(&repository, None).await, [], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_is_lost_half_way_gives_a_whole_snapshot_or_none() {
    let home = large();
    let memory = memory();
    let repository = fresh_in(&memory).await;
    let hook = At::new("database synapse", HALF_WAY, end_backends(&home, "state = 'idle in transaction'"));
    match try_backup(&repository, &home, &run_with(&hook)).await {
        // The dump had joined the moment and goes on without whoever exported it.
        Ok(_) => assert_eq!((listed(&repository).await.len(), verify(&repository, None).await), (1, vec![])),
        Err(_) => assert_eq!(listed(&repository).await.len(), 0),
    }
    assert!(hook.was_done());
    assert_eq!(memory.open_uploads(), 0);
    assert_nobody_runs(&home.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_half_way_fails_the_run_and_leaves_nothing() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start("")));
    let home = Home::bare(cluster);
    grow(&home);
    let memory = memory();
    let repository = fresh_in(&memory).await;
    let hook = At::new("database synapse", HALF_WAY, || cluster.stop_immediately());
    let error = try_backup(&repository, &home, &run_with(&hook)).await.unwrap_err();
    let words = ["immediate shutdown", "server closed the connection", "terminating connection"];
    assert!(words.iter().any(|word| error.contains(word)), "{error}");
    assert_nothing_is_left(&memory, &home).await;
    // A server that does not answer at all is told as such.
    let error = try_backup(&repository, &home, &crate::rig::run()).await.unwrap_err();
    assert!(error.contains("no connection to the database"), "{error}");
    assert_nothing_is_left(&memory, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_snapshot_is_untouched_by_a_run_that_fails() {
    let home = large();
    let memory = memory();
    let repository = fresh_in(&memory).await;
    let first = backup(&repository, &home).await.snapshot.unwrap();
    grow_again(&home);
    let hook = At::new("database synapse", HALF_WAY, ENDS[0].1(&home));
    try_backup(&repository, &home, &run_with(&hook)).await.unwrap_err();
    assert_eq!(listed(&repository).await, [first]);
    assert_eq!(verify(&repository, None).await, []);
    assert_eq!(memory.open_uploads(), 0);
}

fn grow_again(home: &Home) {
    home.sql("CREATE TABLE another AS SELECT i, md5(random()::text) AS text FROM generate_series(1, 50000) AS i");
}

/// A `pg_dump` that is not what it should be, beside the real `psql`.
fn fake_pg_dump(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("pg_dump");
    fs::write(
        &path,
        format!("#!/bin/sh\n{}", script.replace("BIN", shared().bin.to_str().unwrap())),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const VERSION: &str = "if [ \"$1\" = --version ]; then exec BIN/pg_dump --version; fi\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_pg_dump_that_is_not_what_it_should_be_is_an_error_with_its_words() {
    let half = format!("{VERSION}BIN/pg_dump \"$@\" | head -c 200000; echo 'pg_dump: error: the disk has melted' >&2; exit 1");
    let silent = format!("{VERSION}exec BIN/pg_dump \"$@\" >/dev/null");
    let quiet_failure = format!("{VERSION}BIN/pg_dump \"$@\"; exit 2");
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "too old",
            "echo 'pg_dump (PostgreSQL) 9.6.24'",
            &["or newer is needed", "pg_dump (9.6)"],
        ),
        ("no version", "echo 'hello'", &["does not tell a version"]),
        (
            "half of it",
            &half,
            &["ended with exit code 1: pg_dump: error: the disk has melted"],
        ),
        ("all of it, but not well", &quiet_failure, &["ended with exit code 2"]),
        ("no longer there", "", &["could not be started", "No such file"]),
        ("not for us", &silent, &["gave no dump"]),
    ];
    for (name, script, words) in cases {
        let home = Home::new();
        let memory = memory();
        let repository = fresh_in(&memory).await;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut options: Options = options();
        options.tools.pg_dump = Some(if script.is_empty() {
            folder.path().join("pg_dump")
        } else {
            fake_pg_dump(folder.path(), script)
        });
        let ended = ops::backup::backup(&repository, &home.discover(), &options, &crate::rig::run()).await;
        let error = format!("{:#}", ended.expect_err(name));
        for word in words {
            assert!(error.contains(word), "{name}: {error}");
        }
        assert_nothing_is_left(&memory, &home).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_an_error_have_a_hint_for_whoever_reads_them() {
    let home = Home::new();
    let repository = crate::rig::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let mut options: Options = options();
    options.tools.pg_dump = Some(fake_pg_dump(folder.path(), "echo 'pg_dump (PostgreSQL) 9.6.24'"));
    let error = ops::backup::backup(&repository, &home.discover(), &options, &crate::rig::run())
        .await
        .unwrap_err();
    assert!(ops::hint_of(&error).unwrap().contains("postgresql-client-"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_told_with_its_reason() {
    let cases = [
        ("dbname: \"", "dbname: \"gone_", "does not exist"),
        ("user: postgres", "user: nobody_here", "role \"nobody_here\" does not exist"),
        ("port: ", "port: 1", "no connection to the database"),
    ];
    for (from, to, words) in cases {
        let home = Home::new();
        let memory = memory();
        let repository = fresh_in(&memory).await;
        let yaml = fs::read_to_string(home.at("etc/homeserver.yaml")).unwrap();
        home.write("etc/homeserver.yaml", yaml.replacen(from, to, 1).as_bytes());
        let error = try_backup(&repository, &home, &crate::rig::run()).await.unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_nothing_is_left(&memory, &home).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_too_early_is_named_though_every_blob_is_good() {
    let (home, repository) = (Home::new(), fresh_in(&memory()).await);
    home.sql("CREATE TABLE more AS SELECT i, md5(i::text) FROM generate_series(1, 20000) AS i");
    let id = backup(&repository, &home).await.snapshot.unwrap();
    let mut document = document(&repository, &id).await;
    document.id = repository.ids().object();
    let streams = &mut document.databases[0].streams;
    let list = &mut streams.iter_mut().find(|stream| stream.name == "main").unwrap().list;
    assert!(list.depth == 0 && list.blobs > 2, "{} blobs", list.blobs);
    list.bytes -= u64::from(list.entries.pop().unwrap().length);
    list.blobs -= 1;
    let not_after = repository.date().await.unwrap() + SignedDuration::from_hours(1);
    let body = encode(&document, not_after).unwrap();
    repository.store().put(&key_of(&document), body.into()).await.unwrap();
    let problems = verify(&repository, Some(&document.id.to_string())).await;
    assert_eq!(named(&problems), [(ProblemKind::Damaged, "database/synapse/main".to_owned())]);
    assert!(problems[0].message.contains("pg_restore"), "{problems:?}");
    assert_eq!(verify(&repository, Some(&id)).await, [], "the true one is whole");
}
