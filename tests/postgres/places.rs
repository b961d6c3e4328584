//! Places a dump may be asked to come from that are not the server itself: a pooler is refused, a replica is as good.

use bytes::BytesMut;
use synapse_backup::synapse::postgres::Error;
use synapse_backup::synapse::postgres::dump::{Content, Dump, DumpOptions};
use synapse_backup::synapse::postgres::facts::{COUNTED_BYTES_MAX, Facts};
use synapse_backup::synapse::postgres::outline::Outline;
use synapse_backup::synapse::postgres::snapshot::Snapshot;

use super::load::{ALL, digests, digests_of};
use super::streams::{difficult, dump_streams, expected, load_streams, one_stream_each, views_of};
use super::*;

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_recognised_and_explained() {
    let cluster = Cluster::start("");
    let name = homeserver(&cluster);
    let info = connect(&[
        ("dbname", &name),
        ("user", SUPERUSER),
        ("host", cluster.socket.to_str().unwrap()),
        ("port", &cluster.pooler().to_string()),
    ]);
    let tools = tools().await;
    let refused = Snapshot::export(&info, &tools, 5).await.unwrap_err();
    assert!(matches!(refused, Error::Pooler), "{refused}");
    assert!(refused.to_string().contains("pgbouncer") && refused.hint().unwrap().contains("PostgreSQL itself"));
    let refused = Session::open(&info, &tools, Purpose::Write, 5).await.unwrap_err();
    assert!(matches!(refused, Error::Pooler), "{refused}");
}

async fn follow(primary: &Cluster, replica: &Cluster) {
    let position = primary.psql("postgres", "SELECT pg_current_wal_lsn()");
    let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    tokio::time::timeout(PATIENCE, async {
        while replica.psql("postgres", &reached) != "t" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_replica_gives_every_row_but_those_of_unlogged_tables() {
    let primary = Cluster::start("");
    let name = difficult(&primary);
    let replica = primary.replica("");
    follow(&primary, &replica).await;
    let (from, tools) = (socket_of(&replica, &name, SUPERUSER), tools().await);
    let mut snapshot = Snapshot::export(&from, &tools, 5).await.unwrap();
    let outline = Outline::read(&mut snapshot).await.unwrap();
    let facts = Facts::read(&mut snapshot, &outline, COUNTED_BYTES_MAX).await.unwrap();
    let locks = facts.tables.iter().find(|table| table.name == "worker_locks").unwrap();
    assert!(facts.in_recovery && locks.unlogged && locks.rows.is_none());
    let contents = one_stream_each(&snapshot, &outline);
    assert!(!contents.iter().any(|(name, _)| name == "table.public.worker_locks"));
    let streams = dump_streams(&from, &tools, contents, &snapshot).await;
    let version = snapshot.session.server().version();
    snapshot.close().await;
    let target = shared().database("from a replica");
    let views = views_of(&socket_of(&primary, &name, SUPERUSER)).await;
    load_streams(&socket(&target, SUPERUSER), &tools, version, &streams, ALL, &views)
        .await
        .unwrap();
    let mut wanted = expected(&primary, &name);
    wanted.insert("worker_locks".into(), "0|".into());
    assert_eq!(digests(&target), wanted);
    assert_ne!(digests_of(&primary, &name)["worker_locks"], "0|");
}

#[tokio::test]
async fn a_read_that_a_replica_cancels_is_explained() {
    let primary = Cluster::start("");
    let name = homeserver(&primary);
    primary.psql(
        &name,
        "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 8) AS text FROM generate_series(1, 100000) AS i",
    );
    let replica = primary.replica("max_standby_streaming_delay = 0");
    follow(&primary, &replica).await;
    let (from, tools) = (socket_of(&replica, &name, SUPERUSER), tools().await);
    let mut snapshot = Snapshot::export(&from, &tools, 5).await.unwrap();
    let options = DumpOptions::new(snapshot.id()).with_content(Content::AllBut(Vec::new()));
    let mut dump = Dump::start(&from, &tools, snapshot.session.server().version(), &options).unwrap();
    let mut bytes = BytesMut::new();
    assert!(dump.read_into(&mut bytes).await.unwrap() > 0);
    primary.psql(&name, "TRUNCATE big");
    // The replica now wants the lock that the dump has; a process that waits for its reader is cancelled when that reads on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let error = loop {
        match dump.read_into(&mut bytes).await {
            Ok(read) => assert!(read > 0, "it ended well"),
            Err(error) => break error,
        }
    };
    assert!(error.hint().unwrap().contains("max_standby_streaming_delay"), "{error}");
    let error = snapshot.session.execute("anything", "SELECT 1").await.unwrap_err();
    assert!(error.hint().unwrap().contains("max_standby_streaming_delay"), "{error}");
}
