//! What was dumped comes back the same, only into an empty database, and as far as the role may.

use bytes::BytesMut;
use synapse_backup::synapse::postgres::Error;
use synapse_backup::synapse::postgres::check::analyze;
use synapse_backup::synapse::postgres::facts::{COUNTED_BYTES_MAX, Facts};
use synapse_backup::synapse::postgres::load::{Content, Load, LoadOptions, Loaded};
use synapse_backup::synapse::postgres::outline::Outline;
use synapse_backup::synapse::postgres::snapshot::Snapshot;
use synapse_backup::synapse::postgres::target::{Ownership, create_database, empty_one_time_keys, ownership, refuse_unless_empty};
use synapse_backup::synapse::postgres::tools::Version;
use synapse_backup::synapse::postgres::undisturbed::{keep_autovacuum_away, let_autovacuum_in};

use super::*;

pub(super) const ALL: LoadOptions = LoadOptions {
    keep_owners: true,
    keep_privileges: true,
    role: None,
    superuser: true,
    content: Content::Everything,
};
pub(super) const OURS: LoadOptions = LoadOptions {
    keep_owners: false,
    keep_privileges: false,
    role: None,
    superuser: false,
    content: Content::Everything,
};

pub(super) async fn facts_of(info: &ConnInfo) -> Facts {
    let mut snapshot = Snapshot::export(info, &tools().await, 5).await.unwrap();
    let outline = Outline::read(&mut snapshot).await.unwrap();
    let facts = Facts::read(&mut snapshot, &outline, COUNTED_BYTES_MAX).await.unwrap();
    snapshot.close().await;
    facts
}

/// From one database into another, `cut` bytes short of the whole, in pieces of `piece` bytes.
pub(super) async fn copy(from: &ConnInfo, to: &ConnInfo, options: LoadOptions, piece: usize, cut: usize) -> Result<Loaded, Error> {
    let snapshot = Snapshot::export(from, &tools().await, 5).await?;
    let mut dump = super::dump::dump(from, &snapshot).await;
    let mut bytes = BytesMut::new();
    while dump.read_into(&mut bytes).await? > 0 {}
    snapshot.close().await;
    let mut load = Load::start(to, &tools().await, dump.version(), options)?;
    bytes.truncate(bytes.len() - cut);
    while !bytes.is_empty() {
        load.write(bytes.split_to(piece.min(bytes.len())).freeze()).await?;
    }
    load.finish().await
}

/// Every row of every table, as a digest.
pub(super) fn digests(database: &str) -> BTreeMap<String, String> {
    digests_of(shared(), database)
}

pub(super) fn digests_of(cluster: &Cluster, database: &str) -> BTreeMap<String, String> {
    let tables = "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'm') AND relispopulated AND nspname !~ '^(pg_|information_schema)'";
    let tables = cluster.psql(database, tables);
    let digest = |table: &str| {
        cluster.psql(
            database,
            &format!("SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM {table} AS t"),
        )
    };
    tables.lines().map(|table| (table.to_owned(), digest(table))).collect()
}

#[tokio::test]
async fn a_homeserver_comes_back_with_every_row_but_one_time_keys() {
    let cluster = shared();
    let source = homeserver(cluster);
    let owner = cluster.role("Own er's", "x");
    cluster.psql(
        &source,
        &format!(
            "ALTER TABLE events OWNER TO {0}; GRANT SELECT ON parted TO {0}",
            cluster::quoted(&owner)
        ),
    );
    let target = format!("{source} co\"py");
    let to = socket(&target, SUPERUSER);
    assert!(create_database(&to, &tools().await, Some(&owner)).await.unwrap());
    assert!(!create_database(&to, &tools().await, None).await.unwrap(), "it is there already");
    let mut session = session(&target).await;
    refuse_unless_empty(&mut session).await.unwrap();
    for piece in [1 << 20] {
        copy(&socket(&source, SUPERUSER), &to, ALL, piece, 0).await.unwrap();
    }
    let mut expected = digests(&source);
    for (table, digest) in &mut expected {
        if table.ends_with("e2e_one_time_keys_json") {
            "0|".clone_into(digest);
        }
    }
    assert_eq!(digests(&target), expected);
    assert_eq!(
        cluster.psql(&target, "SELECT encode(lo_get(4242), 'hex'), nextval('events_stream_seq')"),
        "deadbeef|7001"
    );
    let (before, after) = (facts_of(&socket(&source, SUPERUSER)).await, facts_of(&to).await);
    assert_eq!(
        (after.database.owner.as_str(), after.database.collation.as_str(), &after.owners),
        (owner.as_str(), "C", &before.owners)
    );
    assert!(after.grantees.contains(&owner));
    cluster.psql(&target, "INSERT INTO e2e_one_time_keys_json VALUES ('@a:b', '{}')");
    assert_eq!(empty_one_time_keys(&mut session).await.unwrap(), 1);
    assert_eq!(cluster.psql(&target, "SELECT count(*) FROM e2e_one_time_keys_json"), "0");
    let never = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'm') AND reltuples < 0";
    assert_ne!(cluster.psql(&target, never), "0");
    let another = Session::open_another(&to, &tools().await, Purpose::Write, 5).await.unwrap();
    let mut sessions = [session, another];
    analyze(&mut sessions, |_| true).await.unwrap();
    assert_eq!(cluster.psql(&target, never), "0", "the planner knows every table");
}

#[tokio::test]
async fn an_ordinary_role_loads_a_dump_with_extensions_and_foreign_owners() {
    let cluster = shared();
    let source = homeserver(cluster);
    let gone = cluster.role("gone", "x");
    cluster.script(
        &source,
        &format!(
            "CREATE EXTENSION pg_trgm; COMMENT ON TABLE events IS 'kept'; ALTER TABLE events OWNER TO {0}; GRANT ALL ON parted TO {0}",
            cluster::quoted(&gone)
        ),
    );
    let facts = facts_of(&socket(&source, SUPERUSER)).await;
    let user = cluster.role("loader", "pass word");
    for extension_is_there in [true, false] {
        let target = cluster.database("ours");
        cluster.psql("postgres", &format!("ALTER DATABASE {target} OWNER TO {}", cluster::quoted(&user)));
        if extension_is_there {
            cluster.psql(&target, "CREATE EXTENSION pg_trgm");
        }
        let to = tcp(&target, &user, "pass word");
        let mut session = Session::open(&to, &tools().await, Purpose::Write, 5).await.unwrap();
        refuse_unless_empty(&mut session).await.unwrap();
        let found = ownership(&mut session, &facts.owners, &facts.grantees).await.unwrap();
        assert_eq!(
            found,
            Ownership {
                keep_owners: false,
                keep_privileges: false,
                lacking: vec![gone.clone(), SUPERUSER.to_owned()]
            }
        );
        let loaded = copy(&socket(&source, SUPERUSER), &to, OURS, 1000, 0).await.unwrap();
        assert!(
            loaded.left_out.len() == 1 && loaded.left_out[0].contains("COMMENT - EXTENSION pg_trgm"),
            "{loaded:?}"
        );
        assert_eq!(
            cluster.psql(&target, "SELECT obj_description('events'::regclass), count(*) FROM events"),
            "kept|3000"
        );
        assert_eq!(empty_one_time_keys(&mut session).await.unwrap(), 0);
        session.close().await;
    }
    cluster.psql(&source, "SELECT 1");
}

#[tokio::test]
async fn a_missing_role_fails_the_load_unless_owners_are_left_out() {
    let cluster = shared();
    let source = homeserver(cluster);
    let owner = cluster.role("short lived", "x");
    cluster.psql(&source, &format!("ALTER TABLE events OWNER TO {}", cluster::quoted(&owner)));
    let from = socket(&source, SUPERUSER);
    let snapshot = Snapshot::export(&from, &tools().await, 5).await.unwrap();
    let mut dump = super::dump::dump(&from, &snapshot).await;
    let mut bytes = BytesMut::new();
    while dump.read_into(&mut bytes).await.unwrap() > 0 {}
    snapshot.close().await;
    cluster.psql(
        &source,
        &format!("ALTER TABLE events OWNER TO postgres; DROP ROLE {}", cluster::quoted(&owner)),
    );
    for (options, fine) in [(ALL, false), (LoadOptions { superuser: true, ..OURS }, true)] {
        let to = socket(&cluster.database("roles"), SUPERUSER);
        let mut load = Load::start(&to, &tools().await, dump.version(), options).unwrap();
        let written = load.write(bytes.clone().freeze()).await;
        let result = match written {
            Ok(()) => load.finish().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => assert!(fine),
            Err(error) => assert!(!fine && error.to_string().contains("does not exist"), "{error}"),
        }
    }
}

#[tokio::test]
async fn anything_in_the_target_refuses_it_and_is_named() {
    let cluster = shared();
    for (sql, named) in [
        ("CREATE TABLE \"t a\" ()", "table \"public\".\"t a\""),
        ("CREATE SCHEMA s CREATE VIEW v AS SELECT 1", "view \"s\".\"v\""),
        ("CREATE SEQUENCE q", "sequence"),
        ("CREATE TYPE mood AS ENUM ('ok')", "type"),
        ("CREATE TYPE pair AS (a int, b int)", "type"),
        ("CREATE DOMAIN d AS int", "type"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function"),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1", "materialized view"),
        ("SELECT lo_create(0)", "large object"),
    ] {
        let name = cluster.database("full");
        cluster.psql(&name, sql);
        let error = refuse_unless_empty(&mut session(&name).await).await.unwrap_err();
        assert!(
            matches!(&error, Error::NotEmpty { database, .. } if *database == name) && error.to_string().contains(named),
            "{sql}: {error}"
        );
        assert!(error.hint().unwrap().contains("never merges"));
    }
    let name = cluster.database("extended");
    cluster.script(&name, "CREATE EXTENSION pg_trgm; CREATE EXTENSION hstore; CREATE SCHEMA bare");
    refuse_unless_empty(&mut session(&name).await).await.unwrap();
}

#[tokio::test]
async fn autovacuum_is_kept_away_from_tables_that_do_not_speak_of_it() {
    let cluster = shared();
    let name = cluster.database("quiet");
    cluster.script(
        &name,
        "CREATE TABLE plain (a int); CREATE TABLE \"with toast\" (a text); CREATE TABLE other (a int); \
         CREATE TABLE filled (a text) WITH (fillfactor = 50, toast.autovacuum_enabled = on); CREATE TABLE asked (a int) WITH (autovacuum_enabled = on); \
         CREATE TABLE parts (a int) PARTITION BY RANGE (a); CREATE TABLE part PARTITION OF parts DEFAULT",
    );
    let parameters = || {
        let query = "SELECT string_agg(c.relname || coalesce(c.reloptions::text, '') || coalesce(t.reloptions::text, ''), ' ' ORDER BY c.relname) \
                     FROM pg_class AS c LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid \
                     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')";
        cluster.psql(&name, query)
    };
    let before = parameters();
    let mut session = session(&name).await;
    let away = keep_autovacuum_away(&mut session, |table| table != "public.other").await.unwrap();
    assert_eq!(
        parameters(),
        "asked{autovacuum_enabled=on} filled{fillfactor=50,autovacuum_enabled=off}{autovacuum_enabled=on} other part{autovacuum_enabled=off} \
         parts plain{autovacuum_enabled=off} with toast{autovacuum_enabled=off}{autovacuum_enabled=off}"
    );
    let_autovacuum_in(&mut session, &away).await.unwrap();
    assert_eq!(parameters(), before);
}

#[tokio::test]
async fn a_dump_cut_short_is_an_error_for_either_kind_of_role() {
    let cluster = shared();
    let source = homeserver(cluster);
    for superuser in [true, false] {
        for cut in [1, 5_000, 100_000] {
            let to = socket(&cluster.database("cut"), SUPERUSER);
            let error = copy(&socket(&source, SUPERUSER), &to, LoadOptions { superuser, ..ALL }, 4096, cut)
                .await
                .unwrap_err();
            assert!(
                error.to_string().contains("end of file") || error.to_string().contains("could not read"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_dump_is_refused() {
    let cluster = shared();
    for superuser in [true, false] {
        let to = socket(&cluster.database("junk"), SUPERUSER);
        let mut load = Load::start(
            &to,
            &tools().await,
            Version { major: 13, minor: 0 },
            LoadOptions { superuser, ..ALL },
        )
        .unwrap();
        let result = match load.write(vec![b'x'; 3 << 20].into()).await {
            Ok(()) => load.finish().await,
            Err(error) => Err(error),
        };
        let error = result.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("did not find magic string") || text.contains("not appear to be a valid archive"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_load_without_the_right_to_create_says_so() {
    let cluster = shared();
    let source = homeserver(cluster);
    let user = cluster.role("guest", "x");
    let to = tcp(&cluster.database("foreign"), &user, "x");
    let error = copy(&socket(&source, SUPERUSER), &to, OURS, 4096, 0).await.unwrap_err();
    assert!(error.to_string().contains("permission denied") && error.hint().is_some(), "{error}");
    let refused = create_database(&tcp("brand new", &user, "x"), &tools().await, None)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("permission denied to create database") && refused.hint().is_some(),
        "{refused}"
    );
}
