//! The database that a dump is loaded into: made as Synapse wants it, found empty, marked while it is loaded.
//!
//! Restoring twice into one database duplicated rows and ruined it (Synapse's upgrade notes), so anything but an empty
//! one is refused. A load that failed leaves a table that says so: the marker is made first and dropped last. What the
//! load itself does is in `load`, what is compared afterwards in `check`.

use serde::Deserialize;

use super::conninfo::ConnInfo;
use super::session::{Purpose, Session};
use super::tools::Tools;
use super::{Error, sql};

/// How long a statement here waits for a lock.
const LOCK_SECONDS: u64 = 60;
/// Memory for building an index, per session: the server's own setting if that is larger than what follows from its memory,
/// which is kept between these: 64 MiB, the default of PostgreSQL, and 256 MiB.
const INDEX_KIB: (u64, u64) = (64 << 10, 256 << 10);
/// All sessions together get at most such a part of the memory that is free on the server's machine, if that is ours.
const INDEX_SHARE: u64 = 4;

/// The table that stands in a database while it is loaded.
pub const MARKER: &str = "synapse_backup_incomplete";
const MARKER_QUOTED: &str = "\"public\".\"synapse_backup_incomplete\"";

#[derive(Deserialize)]
struct Object {
    kind: String,
    schema: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Marked {
    marked: bool,
}

#[derive(Deserialize)]
struct Marker {
    snapshot: String,
    began: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
    is_ours: bool,
}

/// May owners and privileges be loaded as the dump has them?
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Each owner exists and our role may act for it.
    pub keep_owners: bool,
    /// Each role that the dump names exists.
    pub keep_privileges: bool,
    /// Roles that are not there, or that our role may not act for.
    pub lacking: Vec<String>,
}

/// Settings that make a load quick and that no limit of the role's can cut, for the sessions of the load alone. Nothing
/// here endangers the cluster: a crash loses at most what the load has just written, and then the load has failed.
/// `sessions` build indexes at once. `free_kib`: memory that is free where the server runs, if that is known; else its
/// `shared_buffers`, mostly a quarter of its memory (PostgreSQL's documentation of that setting), is what they may have.
pub async fn load_settings(session: &mut Session, sessions: usize, free_kib: Option<u64>) -> Result<Vec<(&'static str, String)>, Error> {
    let query = "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024 AS own_kib, \
        pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 1024 AS shared_kib";
    let memory: Memory = session.one("the server's memory for indexes", query).await?;
    let major = session.server().version().major;
    let mut settings = vec![
        ("synchronous_commit", "off".to_owned()),
        ("maintenance_work_mem", format!("{}kB", memory.of_index(sessions, free_kib))),
        ("statement_timeout", "0".to_owned()),
        ("lock_timeout", "0".to_owned()),
        ("idle_in_transaction_session_timeout", "0".to_owned()),
        ("default_transaction_read_only", "off".to_owned()),
    ];
    if major >= 14 {
        settings.push(("idle_session_timeout", "0".to_owned()));
    }
    if major >= 17 {
        settings.push(("transaction_timeout", "0".to_owned()));
    }
    Ok(settings)
}

/// What a server says of its memory, in KiB.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Memory {
    /// Its own `maintenance_work_mem`.
    own_kib: u64,
    /// Its `shared_buffers`.
    shared_kib: u64,
}

impl Memory {
    fn of_index(self, sessions: usize, free_kib: Option<u64>) -> u64 {
        let together = free_kib.map_or(self.shared_kib, |kib| kib / INDEX_SHARE);
        (together / sessions.max(1) as u64)
            .clamp(INDEX_KIB.0, INDEX_KIB.1)
            .max(self.own_kib)
    }
}

/// Say in the database that it is being loaded.
pub async fn mark(session: &mut Session, snapshot: &str) -> Result<(), Error> {
    let what = "marking the database as incomplete";
    let comment = sql::literal("A restore is at work here, or has failed. If none is, drop this database: it is not whole.");
    let row = sql::literal(snapshot);
    for statement in [
        format!("CREATE TABLE {MARKER_QUOTED} (snapshot text, began timestamptz)"),
        format!("COMMENT ON TABLE {MARKER_QUOTED} IS {comment}"),
        format!("INSERT INTO {MARKER_QUOTED} VALUES ({row}, pg_catalog.now())"),
    ] {
        session.execute(what, &statement).await?;
    }
    Ok(())
}

/// It is whole.
pub async fn unmark(session: &mut Session) -> Result<(), Error> {
    session
        .execute("marking the database as complete", &format!("DROP TABLE {MARKER_QUOTED}"))
        .await
}

/// An error when a load into this database has failed, or is at work.
pub async fn refuse_incomplete(session: &mut Session) -> Result<(), Error> {
    let what = "the look for a failed load";
    let query = format!(
        "SELECT pg_catalog.to_regclass({}) IS NOT NULL AS marked",
        sql::literal(MARKER_QUOTED)
    );
    if !session.one::<Marked>(what, &query).await?.marked {
        return Ok(());
    }
    let query = format!("SELECT snapshot, pg_catalog.date_trunc('second', began)::pg_catalog.text AS began FROM {MARKER_QUOTED}");
    let found: Vec<Marker> = session.query(what, &query).await?;
    Err(Error::Incomplete {
        database: session.server().database.clone(),
        restore: found
            .first()
            .map(|marker| format!("of snapshot {}, begun at {}", marker.snapshot, marker.began)),
    })
}

/// Anything in a schema that is not the system's and not an extension's, and large objects, make a database not empty.
pub async fn refuse_unless_empty(session: &mut Session) -> Result<(), Error> {
    refuse_incomplete(session).await?;
    let objects: Vec<Object> = session.query("the look for tables in the target", OBJECTS).await?;
    if objects.is_empty() {
        return Ok(());
    }
    let text = |object: &Object| match &object.schema {
        Some(schema) => format!("{} {}", object.kind, sql::qualified(schema, &object.name)),
        None => format!("{} {}", object.kind, object.name),
    };
    Err(Error::NotEmpty {
        database: session.server().database.clone(),
        objects: objects.iter().map(text).collect(),
    })
}

/// Make the database that `info` names, as Synapse demands it: UTF8, collation and ctype C, from `template0`.
///
/// It belongs to `owner` where that role exists and we may act for it, else to us. `false`: it is already there, and may
/// or may not be empty. Source of the demands: Synapse's `docs/postgres.md`.
pub async fn create_database(info: &ConnInfo, tools: &Tools, owner: Option<&str>) -> Result<bool, Error> {
    let Some(database) = info.database() else {
        return Err(Error::ConnInfo {
            reason: "a database can be made only when `dbname` names it".into(),
        });
    };
    let mut session = maintenance(info, tools, Purpose::Write).await?;
    let known = format!(
        "SELECT datname AS name FROM pg_catalog.pg_database WHERE datname = {}",
        sql::literal(database)
    );
    let exists = !session.query_json("the list of databases", &known).await?.is_empty();
    if !exists {
        let provider = if session.server().version().major >= 15 {
            " LOCALE_PROVIDER libc"
        } else {
            ""
        };
        let possible = match owner {
            Some(owner) => ownership(&mut session, &[owner.to_owned()], &[]).await?.keep_owners,
            None => false,
        };
        let owner = owner
            .filter(|_| possible)
            .map_or_else(String::new, |owner| format!(" OWNER {}", sql::name(owner)));
        let name = sql::name(database);
        let statement = format!("CREATE DATABASE {name}{owner} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0{provider}");
        session.execute("making the database", &statement).await?;
    }
    session.close().await;
    Ok(!exists)
}

/// What [`create_database`] would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Prospect {
    /// The database is there.
    pub is_there: bool,
    /// Our role may make databases.
    pub may_create: bool,
}

/// Look whether the database that `info` names is there, and whether our role could make it. Nothing is written.
pub async fn prospect(info: &ConnInfo, tools: &Tools) -> Result<Prospect, Error> {
    let mut session = maintenance(info, tools, Purpose::Read).await?;
    let query = format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {}) AS is_there, rolcreatedb OR rolsuper AS may_create \
         FROM pg_catalog.pg_roles WHERE rolname = current_user",
        sql::literal(info.database().unwrap_or_default())
    );
    let prospect = session.one("the look for the database", &query).await?;
    session.close().await;
    Ok(prospect)
}

/// `postgres`, or `template1` where somebody removed it.
pub(super) async fn maintenance(info: &ConnInfo, tools: &Tools, purpose: Purpose) -> Result<Session, Error> {
    match Session::open(&info.with_database("postgres"), tools, purpose, LOCK_SECONDS).await {
        Err(Error::Connect { message, .. }) if message.contains("\"postgres\" does not exist") && message.contains("database") => {
            Session::open(&info.with_database("template1"), tools, purpose, LOCK_SECONDS).await
        }
        other => other,
    }
}

/// Compare the roles that a dump names with those of the target.
pub async fn ownership(session: &mut Session, owners: &[String], grantees: &[String]) -> Result<Ownership, Error> {
    let wanted = sql::literals(owners.iter().chain(grantees).map(String::as_str));
    let wanted = if wanted.is_empty() { "NULL".to_owned() } else { wanted };
    // Since 16 a member may lack the right to SET ROLE, as who made the role does, and only that gives things away.
    let right = if session.server().version().major >= 16 { "SET" } else { "MEMBER" };
    let query = format!(
        "SELECT rolname AS name, pg_catalog.pg_has_role(current_user, oid, '{right}') AS is_ours \
         FROM pg_catalog.pg_roles WHERE rolname IN ({wanted})"
    );
    let roles: Vec<Role> = session.query("the list of roles", &query).await?;
    let ours = |name: &String| roles.iter().any(|role| role.name == *name && role.is_ours);
    let there = |name: &String| roles.iter().any(|role| role.name == *name);
    let keep_owners = owners.iter().all(ours);
    let keep_privileges = keep_owners && grantees.iter().all(there);
    let mut lacking: Vec<String> = owners
        .iter()
        .filter(|name| !ours(name))
        .chain(grantees.iter().filter(|name| !there(name)))
        .cloned()
        .collect();
    lacking.sort_unstable();
    lacking.dedup();
    Ok(Ownership {
        keep_owners,
        keep_privileges,
        lacking,
    })
}

/// The tables of one-time keys, quoted, and how many keys are in all of them.
pub async fn one_time_keys(session: &mut Session) -> Result<(Vec<String>, u64), Error> {
    #[derive(Deserialize)]
    struct Count {
        count: u64,
    }
    let tables: Vec<Object> = session.query("the look for one-time keys", ONE_TIME_KEYS).await?;
    let names: Vec<String> = tables
        .iter()
        .map(|table| sql::qualified(table.schema.as_deref().unwrap_or("public"), &table.name))
        .collect();
    let mut keys = 0;
    for name in &names {
        let query = format!("SELECT pg_catalog.count(*) AS count FROM {name}");
        keys += session.one::<Count>("the count of the one-time keys", &query).await?.count;
    }
    Ok((names, keys))
}

/// Empty the one-time keys in every schema, whether the dump had any or not; gives how many there were.
///
/// A key that was handed out after the dump must not be handed out again (Synapse's "Backing up Synapse").
pub async fn empty_one_time_keys(session: &mut Session) -> Result<u64, Error> {
    let (names, keys) = one_time_keys(session).await?;
    if !names.is_empty() {
        session
            .execute("emptying the one-time keys", &format!("TRUNCATE TABLE {}", names.join(", ")))
            .await?;
    }
    Ok(keys)
}

/// Forget which remote media were cached, but for quarantined ones: without their files Synapse would answer 404 for
/// them for ever, since its row says that it has them. Gives how many.
///
/// One statement, and so one transaction. As Synapse's "Purge Remote Media API" does it; element-hq/synapse#1555.
pub async fn forget_remote_media(session: &mut Session) -> Result<u64, Error> {
    let forgotten = count_remote_media(session).await?;
    for Found { schema } in session.query("the look for remote media", REMOTE_MEDIA).await? {
        let (media, thumbnails) = (
            sql::qualified(&schema, "remote_media_cache"),
            sql::qualified(&schema, "remote_media_cache_thumbnails"),
        );
        let statement = format!(
            "WITH gone AS (DELETE FROM {media} WHERE quarantined_by IS NULL RETURNING media_origin, media_id) \
             DELETE FROM {thumbnails} AS t USING gone WHERE t.media_origin = gone.media_origin AND t.media_id = gone.media_id"
        );
        session.execute("forgetting remote media", &statement).await?;
    }
    Ok(forgotten)
}

/// How many [`forget_remote_media`] would forget.
pub async fn count_remote_media(session: &mut Session) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Count {
        count: u64,
    }
    let mut found = 0;
    for Found { schema } in session.query("the look for remote media", REMOTE_MEDIA).await? {
        let media = sql::qualified(&schema, "remote_media_cache");
        let query = format!("SELECT pg_catalog.count(*) AS count FROM {media} WHERE quarantined_by IS NULL");
        found += session.one::<Count>("the count of remote media", &query).await?.count;
    }
    Ok(found)
}

/// A schema with the tables of remote media.
#[derive(Deserialize)]
struct Found {
    schema: String,
}

/// Is this (`schema.name`) a table that [`forget_remote_media`] takes rows out of?
pub fn is_of_remote_media(table: &str) -> bool {
    let name = table.split_once('.').map_or(table, |(_, name)| name);
    matches!(name, "remote_media_cache" | "remote_media_cache_thumbnails")
}

/// Schemas that have both tables.
const REMOTE_MEDIA: &str = "SELECT n.nspname AS schema FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relname IN ('remote_media_cache', 'remote_media_cache_thumbnails') AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' \
    GROUP BY 1 HAVING pg_catalog.count(*) = 2";

const ONE_TIME_KEYS: &str = "SELECT 'table' AS kind, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relname = 'e2e_one_time_keys_json' AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' ORDER BY 2";

/// The first twenty: tables, views, sequences and foreign tables; types that are not a table's own; functions; large objects.
const OBJECTS: &str = "WITH found AS ( \
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, \
        n.nspname AS schema, c.relname AS name, c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass AS class \
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' \
    UNION ALL SELECT 'type', n.nspname, t.typname, t.oid, 'pg_catalog.pg_type'::pg_catalog.regclass \
        FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace \
        LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid \
        WHERE t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c') \
    UNION ALL SELECT 'function', n.nspname, p.proname, p.oid, 'pg_catalog.pg_proc'::pg_catalog.regclass \
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
    UNION ALL SELECT 'large object', NULL, l.oid::pg_catalog.text, l.oid, 'pg_catalog.pg_largeobject'::pg_catalog.regclass \
        FROM pg_catalog.pg_largeobject_metadata AS l) \
    SELECT kind, schema, name FROM found \
    WHERE (schema IS NULL OR (schema !~ '^pg_' AND schema <> 'information_schema')) \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = found.class AND d.objid = found.oid AND d.deptype = 'e') \
    ORDER BY kind = 'table' DESC, schema, name LIMIT 20";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_get_what_the_memory_allows() {
        let own_and_shared = |own: u64, shared: u64| Memory {
            own_kib: own << 10,
            shared_kib: shared << 10,
        };
        for (memory, sessions, free_mib, wanted_mib) in [
            (own_and_shared(64, 128), 2, None, 64),        // PostgreSQL's defaults, of which nothing follows
            (own_and_shared(64, 512), 4, None, 128),       // a server of some 2 GiB elsewhere
            (own_and_shared(64, 8192), 4, None, 256),      // never more than that
            (own_and_shared(2048, 8192), 4, None, 2048),   // unless the administrator has said so
            (own_and_shared(64, 128), 4, Some(1024), 64),  // little is free here
            (own_and_shared(64, 128), 4, Some(2048), 128), // a quarter of it, by four
            (own_and_shared(64, 128), 0, Some(1 << 20), 256),
        ] {
            let free_kib = free_mib.map(|mib: u64| mib << 10);
            assert_eq!(
                memory.of_index(sessions, free_kib),
                wanted_mib << 10,
                "{memory:?} {sessions} {free_mib:?}"
            );
        }
    }
}
