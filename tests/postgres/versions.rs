//! The same rows between servers of several major versions, with the clients of the machine.
//!
//! `pg_dump` refuses a server newer than itself, so the newest one here is only loaded into; that is the way of an upgrade.

use std::sync::OnceLock;

use synapse_backup::synapse::postgres::load::{Content, LoadOptions};
use synapse_backup::synapse::postgres::outline::Outline;
use synapse_backup::synapse::postgres::scratch::Scratch;
use synapse_backup::synapse::postgres::snapshot::Snapshot;
use synapse_backup::synapse::postgres::target::{create_database, ownership, refuse_unless_empty};

use super::load::{ALL, copy, digests_of, facts_of};
use super::streams::{difficult, dump_streams, expected, load_streams, one_stream_each, views_of};
use super::*;

const SEQUENCES: &str = "SELECT string_agg(sequencename || ' ' || coalesce(last_value, 0), ',' ORDER BY sequencename) FROM pg_sequences";

fn old() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::of_version(14))
}

fn new() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::of_version(18))
}

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
    assert!(old().psql("postgres", "SHOW server_version").starts_with("14."));
    moves(old(), old()).await;
    moves(old(), shared()).await;
    moves(old(), new()).await;
}

#[tokio::test]
async fn a_database_of_this_machine_moves_into_18() {
    assert!(new().psql("postgres", "SHOW server_version").starts_with("18."));
    moves(shared(), new()).await;
}

/// What a restore would be told of this target.
async fn options_for(to: &ConnInfo, owners: &[String], grantees: &[String]) -> LoadOptions {
    let mut session = Session::open(to, &tools().await, Purpose::Write, 5).await.unwrap();
    let found = ownership(&mut session, owners, grantees).await.unwrap();
    let superuser = session.server().superuser;
    session.close().await;
    LoadOptions {
        keep_owners: found.keep_owners,
        keep_privileges: found.keep_privileges,
        role: None,
        superuser,
        content: Content::Everything,
    }
}

#[tokio::test]
async fn who_owns_public_in_14_stops_nobody_in_18() {
    let tools = tools().await;
    let source = old().database("owned");
    old().script("postgres", "CREATE ROLE mover LOGIN; CREATE ROLE cloud_admin");
    new().script("postgres", "CREATE ROLE mover LOGIN CREATEDB");
    old().script("postgres", &format!("ALTER DATABASE {source} OWNER TO mover"));
    old().script(
        &source,
        &format!("ALTER SCHEMA public OWNER TO cloud_admin; SET ROLE mover; {HOMESERVER}"),
    );
    let from = socket_of(old(), &source, "mover");
    let facts = facts_of(&from).await;
    assert_eq!(facts.owners, ["mover"]);
    for user in ["mover", SUPERUSER] {
        let targets = ["by streams", "whole"].map(|how| format!("{source} of {user} {how}"));
        for (at, target) in targets.iter().enumerate() {
            let to = socket_of(new(), target, user);
            assert!(create_database(&to, &tools, Some("mover")).await.unwrap());
            let options = options_for(&to, &facts.owners, &facts.grantees).await;
            assert!(options.keep_owners && options.superuser == (user == SUPERUSER), "{options:?}");
            if at == 0 {
                let mut snapshot = Snapshot::export(&from, &tools, 5).await.unwrap();
                let outline = Outline::read(&mut snapshot).await.unwrap();
                let streams = dump_streams(&from, &tools, one_stream_each(&snapshot, &outline), &snapshot).await;
                let version = tools.pg_dump(snapshot.session.server().version()).unwrap().version;
                snapshot.close().await;
                let views = views_of(&from).await;
                load_streams(&to, &tools, version, &streams, options, &views).await.unwrap();
            } else {
                copy(&from, &to, options, 1 << 20, 0).await.unwrap();
            }
            assert_eq!(digests_of(new(), target), expected(old(), &source), "{target}");
            assert_eq!(
                new().psql(target, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"),
                "mover",
                "{target}"
            );
        }
    }
}

#[tokio::test]
async fn a_role_that_we_made_and_may_not_become_owns_nothing() {
    let tools = tools().await;
    new().script("postgres", "CREATE ROLE managing LOGIN CREATEDB CREATEROLE");
    new().script("postgres", "SET ROLE managing; CREATE ROLE made_by_it");
    let source = new().database("made");
    let to = socket_of(new(), &format!("{source} again"), "managing");
    assert!(create_database(&to, &tools, Some("made_by_it")).await.unwrap());
    let owners = ["made_by_it".to_owned()];
    let options = options_for(&to, &owners, &[]).await;
    assert!(!options.keep_owners, "a member, but not one who may SET ROLE");
    new().script("postgres", "SET ROLE managing; GRANT made_by_it TO managing WITH SET TRUE");
    assert!(options_for(&to, &owners, &[]).await.keep_owners);
}

#[tokio::test]
async fn a_lent_database_of_14_is_emptied_though_public_is_not_ours() {
    let tools = tools().await;
    let lent = old().database("lent");
    old().script(
        "postgres",
        &format!("CREATE ROLE lender LOGIN; ALTER DATABASE {lent} OWNER TO lender"),
    );
    let info = socket_of(old(), &lent, "lender");
    for round in 1..=2 {
        let scratch = Scratch::take(&info, &tools).await.unwrap();
        old().script(&lent, &format!("SET ROLE lender; CREATE EXTENSION pg_trgm; {HOMESERVER}"));
        old().script(
            &lent,
            "SET ROLE lender; CREATE DOMAIN \"odd name\" AS int; CREATE FUNCTION thrice(m mood) RETURNS \"odd name\" LANGUAGE sql AS 'SELECT 3'; \
             CREATE TABLE numbered (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); \
             CREATE TABLE points (id bigint GENERATED ALWAYS AS IDENTITY, n bigint); ALTER TABLE points ADD FOREIGN KEY (n) REFERENCES numbered; \
             ALTER TABLE numbered ADD other text DEFAULT 'rewrites its row'; CREATE TABLE uses (m mood, n \"odd name\" DEFAULT twice(1)); CREATE VIEW \"v v\" AS SELECT thrice(m) FROM uses; CREATE TYPE pair AS (a mood)",
        );
        scratch.clean(&tools).await.unwrap();
        let mut session = Session::open(&info, &tools, Purpose::Write, 5).await.unwrap();
        refuse_unless_empty(&mut session).await.unwrap();
        session.close().await;
        assert_eq!(old().psql(&lent, "SELECT count(*) FROM pg_extension"), "1", "round {round}");
    }
    let comment = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{lent}'");
    assert_eq!(old().psql("postgres", &comment), "", "and nothing says that it is lent");
}
