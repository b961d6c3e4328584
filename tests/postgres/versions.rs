//! The same rows between servers of several major versions, with the clients of the machine.
//!
//! `pg_dump` refuses a server newer than itself, so the newest one here is only loaded into; that is the way of an upgrade.

use synapse_backup::synapse::postgres::outline::Outline;
use synapse_backup::synapse::postgres::snapshot::Snapshot;
use synapse_backup::synapse::postgres::target::create_database;

use super::load::{ALL, digests_of};
use super::streams::{difficult, dump_streams, expected, load_streams, one_stream_each, views_of};
use super::*;

const SEQUENCES: &str = "SELECT string_agg(sequencename || ' ' || coalesce(last_value, 0), ',' ORDER BY sequencename) FROM pg_sequences";

/// By streams from one cluster into a new database of another, and a look at every row.
async fn moves(from: &Cluster, into: &Cluster) {
    let (source, tools) = (difficult(from), tools().await);
    let info = socket_of(from, &source, SUPERUSER);
    let mut snapshot = Snapshot::export(&info, &tools, 5).await.unwrap();
    let outline = Outline::read(&mut snapshot).await.unwrap();
    let streams = dump_streams(&info, &tools, one_stream_each(&snapshot, &outline), &snapshot).await;
    let version = tools.pg_dump(snapshot.session.server().version()).unwrap().version;
    snapshot.close().await;
    let target = format!("{source} moved");
    let to = socket_of(into, &target, SUPERUSER);
    assert!(create_database(&to, &tools, Some("no such role")).await.unwrap());
    load_streams(&to, &tools, version, &streams, ALL, &views_of(&info).await)
        .await
        .unwrap();
    assert_eq!(digests_of(into, &target), expected(from, &source));
    assert_eq!(into.psql(&target, SEQUENCES), from.psql(&source, SEQUENCES));
    assert_eq!(
        into.psql(
            "postgres",
            &format!(
                "SELECT datcollate || ' ' || datctype || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{target}'"
            )
        ),
        "C C UTF8"
    );
}

#[tokio::test]
async fn a_database_of_14_comes_back_in_14_and_moves_into_newer_servers() {
    let old = Cluster::of_version(14);
    assert!(old.psql("postgres", "SHOW server_version").starts_with("14."));
    moves(&old, &old).await;
    moves(&old, shared()).await;
    moves(&old, &Cluster::of_version(18)).await;
}

#[tokio::test]
async fn a_database_of_this_machine_moves_into_18() {
    let new = Cluster::of_version(18);
    assert!(new.psql("postgres", "SHOW server_version").starts_with("18."));
    moves(shared(), &new).await;
}
