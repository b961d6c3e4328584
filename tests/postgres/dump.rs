//! A dump that ends well is whole; every other end is an error that says why.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::BytesMut;
use synapse_backup::synapse::postgres::Error;
use synapse_backup::synapse::postgres::dump::{Dump, DumpOptions};
use synapse_backup::synapse::postgres::snapshot::Snapshot;

use super::*;

/// A database whose dump is some 80 MB, so that it is still running when something happens to it.
fn large() -> String {
    let name = shared().database("large");
    shared().script(
        &name,
        "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 8) AS text FROM generate_series(1, 300000) AS i",
    );
    name
}

pub(super) async fn dump(info: &ConnInfo, snapshot: &Snapshot) -> Dump {
    let server = snapshot.session.server().version();
    Dump::start(info, &tools().await, server, &DumpOptions::new(snapshot.id())).unwrap()
}

async fn read_to_end(mut dump: Dump) -> Result<u64, Error> {
    let mut buffer = BytesMut::new();
    tokio::time::timeout(PATIENCE, async {
        while dump.read_into(&mut buffer).await? > 0 {
            buffer.clear();
        }
        Ok(dump.bytes())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn reads_are_large_and_the_end_comes_after_the_exit_status() {
    let name = large();
    let info = socket(&name, SUPERUSER);
    let snapshot = Snapshot::export(&info, &tools().await, 5).await.unwrap();
    let mut dump = dump(&info, &snapshot).await;
    let mut buffer = BytesMut::new();
    let mut reads = Vec::new();
    loop {
        buffer.clear();
        match dump.read_into(&mut buffer).await.unwrap() {
            0 => break,
            read => reads.push(read),
        }
    }
    reads.pop();
    assert!(reads.len() > 10 && reads.iter().all(|read| *read >= 256 << 10), "{reads:?}");
    assert!(dump.bytes() > 70_000_000 && dump.warnings().is_empty() && dump.process_id().is_none());
    assert_eq!(dump.read_into(&mut buffer).await.unwrap(), 0, "the end stays the end");
    snapshot.close().await;
}

#[tokio::test]
async fn a_killed_pg_dump_is_an_error() {
    let name = large();
    let info = socket(&name, SUPERUSER);
    let snapshot = Snapshot::export(&info, &tools().await, 5).await.unwrap();
    let mut dump = dump(&info, &snapshot).await;
    let mut buffer = BytesMut::new();
    assert!(dump.read_into(&mut buffer).await.unwrap() > 0);
    let pid = rustix::process::Pid::from_raw(i32::try_from(dump.process_id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let error = read_to_end(dump).await.unwrap_err();
    assert_eq!(error.to_string(), "pg_dump was ended by signal 9");
    assert!(error.hint().unwrap().contains("out-of-memory"));
    snapshot.close().await;
}

#[tokio::test]
async fn a_dump_whose_server_process_is_ended_is_an_error_with_its_words() {
    let name = large();
    let info = socket(&name, SUPERUSER);
    let snapshot = Snapshot::export(&info, &tools().await, 5).await.unwrap();
    let mut dump = dump(&info, &snapshot).await;
    let mut buffer = BytesMut::new();
    assert!(dump.read_into(&mut buffer).await.unwrap() > 0);
    let terminate =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'COPY%'");
    assert_eq!(shared().psql("postgres", &terminate), "1");
    let error = read_to_end(dump).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("pg_dump ended with exit code 1: "), "{text}");
    assert!(
        text.contains("administrator command") || text.contains("server closed the connection"),
        "{text}"
    );
    assert!(error.hint().is_some());
    snapshot.close().await;
}

#[tokio::test]
async fn a_snapshot_that_is_gone_is_an_error() {
    let name = homeserver(shared());
    let info = socket(&name, SUPERUSER);
    let server = session(&name).await.server().version();
    let dump = Dump::start(&info, &tools().await, server, &DumpOptions::new("00000003-0000001B-1")).unwrap();
    let error = read_to_end(dump).await.unwrap_err();
    assert!(error.hint().unwrap().contains("run again"), "{error}");
}

#[tokio::test]
async fn a_dropped_dump_ends_its_pg_dump() {
    let name = large();
    let info = socket(&name, SUPERUSER);
    let snapshot = Snapshot::export(&info, &tools().await, 5).await.unwrap();
    let dump = dump(&info, &snapshot).await;
    let process = format!("/proc/{}", dump.process_id().unwrap());
    drop(dump);
    tokio::time::timeout(PATIENCE, async {
        while std::fs::exists(&process).unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    snapshot.close().await;
}

#[tokio::test]
async fn timeouts_of_the_role_do_not_cut_a_dump() {
    let name = large();
    let user = shared().role("hasty", "it's a password");
    shared().psql(
        &name,
        &format!(
            "ALTER ROLE {0} SUPERUSER; ALTER ROLE {0} SET statement_timeout = '50ms'",
            cluster::quoted(&user)
        ),
    );
    let info = tcp(&name, &user, "it's a password");
    let snapshot = Snapshot::export(&info, &tools().await, 5).await.unwrap();
    let dump = dump(&info, &snapshot).await;
    // Empty while the program is being exchanged.
    let shown = loop {
        let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", dump.process_id().unwrap())).unwrap();
        if !shown.is_empty() {
            break shown;
        }
    };
    assert!(shown.contains(&user) && !shown.contains("password="), "{shown}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(read_to_end(dump).await.unwrap() > 70_000_000);
    snapshot.close().await;
}

fn fake(folder: &Path, version: &str) {
    let path = folder.join("pg_dump");
    std::fs::write(&path, format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_pg_dump_older_than_the_server_or_none_is_refused_with_a_hint() {
    let server = session("postgres").await.server().version();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let options = ToolOptions {
        path,
        ..ToolOptions::default()
    };
    let none = Tools::find(&options).await.unwrap().pg_dump(server).unwrap_err();
    assert_eq!(
        none.to_string(),
        format!("pg_dump {} or newer is needed, none was found", server.major)
    );
    fake(folder.path(), "9.6.24");
    let old = Tools::find(&options).await.unwrap().pg_dump(server).unwrap_err();
    assert!(old.to_string().ends_with("pg_dump (9.6)"), "{old}");
    assert!(old.hint().unwrap().contains(&format!("postgresql-client-{}", server.major)));
    let given = ToolOptions {
        pg_dump: Some(folder.path().join("pg_dump")),
        path: shared().bin.to_str().unwrap().into(),
        ..ToolOptions::default()
    };
    assert!(
        Tools::find(&given).await.unwrap().pg_dump(server).is_err(),
        "a path in the settings is the only candidate"
    );
    let both = ToolOptions {
        path: format!("{}:{}", folder.path().display(), shared().bin.display()),
        ..ToolOptions::default()
    };
    assert_eq!(
        Tools::find(&both).await.unwrap().pg_dump(server).unwrap().path,
        shared().bin.join("pg_dump")
    );
}
