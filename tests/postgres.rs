//! The homeserver's database against a real PostgreSQL: connections, snapshots, dumps, loads, rows of media.
//!
//! Each file under `tests/postgres/` is one of these. What they share is here: a schema like Synapse's, and short ways to
//! a connection. The cluster is in `support/postgres.rs`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/postgres.rs"]
mod cluster;
#[path = "postgres/connection.rs"]
mod connection;
#[path = "postgres/dump.rs"]
mod dump;
#[path = "postgres/load.rs"]
mod load;
#[path = "postgres/media.rs"]
mod media;
#[path = "postgres/snapshot.rs"]
mod snapshot;
#[path = "postgres/streams.rs"]
mod streams;
#[path = "postgres/versions.rs"]
mod versions;

use std::collections::BTreeMap;
use std::time::Duration;

use synapse_backup::synapse::postgres::session::Purpose;
use synapse_backup::synapse::postgres::tools::{ToolOptions, Tools};
use synapse_backup::synapse::postgres::{ConnInfo, Session, Surroundings};

use cluster::{Cluster, SUPERUSER, shared};

/// Nothing here may take longer; a hang is a failure.
const PATIENCE: Duration = Duration::from_mins(1);

async fn tools() -> Tools {
    let path = shared().bin.to_str().unwrap().to_owned();
    Tools::find(&ToolOptions {
        path,
        ..ToolOptions::default()
    })
    .await
    .unwrap()
}

fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn connect(pairs: &[(&str, &str)]) -> ConnInfo {
    ConnInfo::from_arguments(&arguments(pairs), &Surroundings::default()).unwrap()
}

/// Over the socket, where everybody is trusted.
fn socket(database: &str, user: &str) -> ConnInfo {
    socket_of(shared(), database, user)
}

fn socket_of(cluster: &Cluster, database: &str, user: &str) -> ConnInfo {
    connect(&[
        ("dbname", database),
        ("user", user),
        ("host", cluster.socket.to_str().unwrap()),
        ("port", &cluster.port.to_string()),
    ])
}

/// Over TCP, with a password.
fn tcp(database: &str, user: &str, password: &str) -> ConnInfo {
    connect(&[
        ("database", database),
        ("user", user),
        ("password", password),
        ("host", "127.0.0.1"),
        ("port", &shared().port.to_string()),
    ])
}

async fn session(database: &str) -> Session {
    Session::open(&socket(database, SUPERUSER), &tools().await, Purpose::Write, 5)
        .await
        .unwrap()
}

/// A database with what can be difficult: quotes in names, other schemas, partitions, large objects, sequences.
fn homeserver(cluster: &Cluster) -> String {
    let name = cluster.database("synapse");
    cluster.script(&name, HOMESERVER);
    name
}

const HOMESERVER: &str = r#"
CREATE TABLE schema_version (lock char(1) DEFAULT 'X', version int NOT NULL, upgraded bool NOT NULL);
INSERT INTO schema_version VALUES ('X', 94, true);
CREATE TABLE schema_compat_version (lock char(1) DEFAULT 'X', compat_version int NOT NULL);
INSERT INTO schema_compat_version VALUES ('X', 84);
CREATE TABLE background_updates (update_name text NOT NULL, progress_json text NOT NULL, ordering int DEFAULT 0);
INSERT INTO background_updates VALUES ('populate_stats', '{}', 0);
CREATE TABLE stream_positions (stream_name text, instance_name text, stream_id bigint);
INSERT INTO stream_positions VALUES ('receipts', 'master', 17);
CREATE SEQUENCE events_stream_seq;
SELECT setval('events_stream_seq', 4000);
CREATE TABLE events (stream_ordering bigint PRIMARY KEY DEFAULT nextval('events_stream_seq'), content text, doubled bigint GENERATED ALWAYS AS (depth * 2) STORED, depth bigint);
INSERT INTO events (content, depth) SELECT repeat('x' || i, 50), i FROM generate_series(1, 3000) AS i;
CREATE TABLE e2e_one_time_keys_json (user_id text, key_json text);
INSERT INTO e2e_one_time_keys_json VALUES ('@a:b', '{}');
CREATE SCHEMA "Oth""er schema";
CREATE TABLE "Oth""er schema"."odd ""table"" 'n\ame" ("co l" text, "ü" jsonb);
INSERT INTO "Oth""er schema"."odd ""table"" 'n\ame" VALUES (E'a\tb\nc\\d', '{"k": "\u00fc"}'), (NULL, NULL);
CREATE TABLE "Oth""er schema".e2e_one_time_keys_json (user_id text);
INSERT INTO "Oth""er schema".e2e_one_time_keys_json VALUES ('@c:d');
CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parted_2024 PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE parted_2025 PARTITION OF parted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO parted SELECT i, date '2024-06-01' + i FROM generate_series(1, 400) AS i;
CREATE UNLOGGED TABLE worker_locks (name text);
INSERT INTO worker_locks VALUES ('x');
CREATE VIEW latest AS SELECT max(stream_ordering) AS newest FROM events;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM events;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2';
SELECT lo_from_bytea(4242, '\xdeadbeef');
"#;
