//! One moment, held still: nothing that happens afterwards is in it, nothing that was there is missing.

use synapse_backup::synapse::postgres::Error;
use synapse_backup::synapse::postgres::facts::{COUNTED_BYTES_MAX, Facts};
use synapse_backup::synapse::postgres::outline::Outline;
use synapse_backup::synapse::postgres::snapshot::{Snapshot, Table, join};

use super::*;

async fn export(database: &str, user: &str, lock_seconds: u64) -> Result<Snapshot, Error> {
    tokio::time::timeout(PATIENCE, Snapshot::export(&socket(database, user), &tools().await, lock_seconds))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_truncate_waits_until_the_snapshot_is_let_go() {
    let cluster = shared();
    let name = homeserver(cluster);
    let mut snapshot = export(&name, SUPERUSER, 5).await.unwrap();
    let refused = cluster
        .client("psql", &name)
        .args(["-X", "-c", "SET lock_timeout = '200ms'", "-c", "TRUNCATE events"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lock timeout"));
    cluster.psql(&name, "DELETE FROM events");
    let mut beside = join(&socket(&name, SUPERUSER), &tools().await, snapshot.id(), 5).await.unwrap();
    for session in [&mut snapshot.session, &mut beside] {
        assert_eq!(
            session.query_json("rows", "SELECT count(*) AS n FROM public.events").await.unwrap()[0]["n"],
            3000
        );
    }
    beside.close().await;
    snapshot.close().await;
    cluster.psql(&name, "TRUNCATE events");
}

#[tokio::test]
async fn the_list_has_every_schema_and_partition_and_no_foreign_table() {
    let name = homeserver(shared());
    shared().script(
        &name,
        "CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE abroad (a int) SERVER s",
    );
    let snapshot = export(&name, SUPERUSER, 5).await.unwrap();
    let names: Vec<String> = snapshot.tables().iter().map(Table::quoted).collect();
    for expected in [
        r#""Oth""er schema"."odd ""table"" 'n\ame""#,
        "\"public\".\"parted\"",
        "\"public\".\"parted_2024\"",
        "\"public\".\"worker_locks\"",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("abroad") || name.contains("latest")));
    snapshot.close().await;
}

#[tokio::test]
async fn five_thousand_tables_are_locked() {
    let cluster = shared();
    let name = cluster.database("many");
    for lot in 0..10 {
        cluster.psql(
            &name,
            &format!("DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE %I (a int)', 't {lot} ' || i); END LOOP; END $$"),
        );
    }
    let snapshot = export(&name, SUPERUSER, 5).await.unwrap();
    assert_eq!(snapshot.tables().len(), 5000);
    let locks =
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessShareLock' AND relation IN (SELECT oid FROM pg_class WHERE relname LIKE 't %')";
    assert_eq!(cluster.psql(&name, locks), "5000");
    snapshot.close().await;
}

#[tokio::test]
async fn who_holds_a_lock_is_named_without_what_he_writes() {
    let cluster = shared();
    let name = homeserver(cluster);
    let mut blocker = session(&name).await;
    blocker.execute("begin", "BEGIN").await.unwrap();
    blocker
        .execute("lock", "ALTER TABLE public.events ADD COLUMN secret_token text DEFAULT 'hunter2'")
        .await
        .unwrap();
    let error = export(&name, SUPERUSER, 1).await.unwrap_err();
    let Error::Locked { seconds: 1, blockers } = &error else {
        panic!("{error}")
    };
    assert_eq!((blockers.len(), blockers[0].pid), (1, blocker.server().pid));
    let text = error.to_string();
    assert!(
        text.contains("ALTER TABLE public.events") && text.contains("idle in transaction") && !text.contains("hunter2"),
        "{text}"
    );
    blocker.kill().await;
}

#[tokio::test]
async fn tables_that_come_while_the_locks_are_taken_are_found() {
    let cluster = shared();
    let name = homeserver(cluster);
    let mut blocker = session(&name).await;
    blocker.execute("begin", "BEGIN").await.unwrap();
    blocker.execute("lock", "LOCK TABLE public.events").await.unwrap();
    blocker.execute("create", "CREATE TABLE public.newcomer (a int)").await.unwrap();
    blocker.execute("drop", "DROP TABLE public.worker_locks").await.unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        blocker.execute("commit", "COMMIT").await.unwrap();
    };
    let (snapshot, ()) = tokio::join!(export(&name, SUPERUSER, 5), release);
    let snapshot = snapshot.unwrap();
    assert!(
        snapshot.tables().iter().any(|table| table.name == "newcomer")
            && !snapshot.tables().iter().any(|table| table.name == "worker_locks")
    );
    snapshot.close().await;
}

#[tokio::test]
async fn what_the_role_may_not_read_is_named_with_the_grant_that_helps() {
    let cluster = shared();
    let name = homeserver(cluster);
    let user = cluster.role("reader", "x");
    cluster.psql(&name, &format!("GRANT SELECT ON events TO {}", cluster::quoted(&user)));
    let error = export(&name, &user, 5).await.unwrap_err();
    let Error::Privileges { objects, grants, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        !objects.iter().any(|object| object == "\"public\".\"events\"")
            && objects.iter().any(|object| object.contains("events_stream_seq"))
    );
    for grant in grants {
        cluster.psql(&name, grant);
    }
    export(&name, &user, 5).await.unwrap().close().await;
}

#[tokio::test]
async fn timeouts_of_the_role_do_not_reach_our_sessions() {
    let cluster = shared();
    let name = homeserver(cluster);
    let user = cluster.role("hasty", "x");
    cluster.psql("postgres", &format!("ALTER ROLE {} SUPERUSER", cluster::quoted(&user)));
    for setting in [
        "statement_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "lock_timeout = '1ms'",
        "idle_session_timeout = '100ms'",
    ] {
        cluster.psql("postgres", &format!("ALTER ROLE {} SET {setting}", cluster::quoted(&user)));
    }
    let mut snapshot = export(&name, &user, 5).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    snapshot
        .session
        .execute("a long statement", "SELECT pg_catalog.pg_sleep(0.3)")
        .await
        .unwrap();
    snapshot.close().await;
}

#[tokio::test]
async fn facts_tell_what_a_person_would_ask() {
    let name = homeserver(shared());
    let mut snapshot = export(&name, SUPERUSER, 5).await.unwrap();
    let outline = Outline::read(&mut snapshot).await.unwrap();
    let facts = Facts::read(&mut snapshot, &outline, COUNTED_BYTES_MAX).await.unwrap();
    assert_eq!(
        (
            facts.database.name.as_str(),
            facts.database.encoding.as_str(),
            facts.database.collation.as_str()
        ),
        (name.as_str(), "UTF8", "C")
    );
    assert_eq!(
        (facts.database.owner.as_str(), facts.database.locale_provider.as_str()),
        (SUPERUSER, "libc")
    );
    let rows = |wanted: &str| facts.tables.iter().find(|table| table.name == wanted).unwrap().rows;
    assert_eq!(
        (rows("events"), rows("parted"), rows("parted_2024"), rows("odd \"table\" 'n\\ame")),
        (Some(3000), None, Some(213), Some(2))
    );
    let synapse = facts.synapse.as_ref().unwrap();
    assert_eq!(
        (
            synapse.schema_version,
            synapse.schema_compat_version,
            synapse.events_stream_ordering
        ),
        (Some(94), Some(84), Some(7000))
    );
    assert_eq!(
        (synapse.background_updates.as_slice(), synapse.stream_positions["receipts master"]),
        (&["populate_stats".to_owned()][..], 17)
    );
    assert_eq!((facts.large_objects, facts.owners.as_slice()), (1, &[SUPERUSER.to_owned()][..]));
    assert_eq!(facts.sequences[0].last_value, Some(7000));
    let views: Vec<&str> = facts.materialized_views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(views, ["counted"]);
    assert!(facts.extensions.iter().any(|extension| extension.name == "plpgsql"));
    assert_eq!(
        serde_json::from_str::<Facts>(&serde_json::to_string(&facts).unwrap()).unwrap(),
        facts
    );
    let mut uncounted = Facts::read(&mut snapshot, &outline, 100_000).await.unwrap().tables;
    uncounted.retain(|table| table.name == "events");
    assert!(uncounted[0].rows.is_none() && uncounted[0].bytes > 100_000);
    snapshot.close().await;
}

#[tokio::test]
async fn facts_of_a_database_that_is_not_synapses_have_no_synapse() {
    let name = shared().database("plain");
    let mut snapshot = export(&name, SUPERUSER, 5).await.unwrap();
    let outline = Outline::read(&mut snapshot).await.unwrap();
    let facts = Facts::read(&mut snapshot, &outline, COUNTED_BYTES_MAX).await.unwrap();
    assert_eq!(facts.synapse, None);
    snapshot.close().await;
}
