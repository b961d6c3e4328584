//! The database that a dump is loaded into: made as Synapse wants it, found empty, and cleaned up afterwards.
//!
//! Restoring twice into one database duplicated rows and ruined it (Synapse's upgrade notes), so anything but an empty
//! one is refused. What the load itself does is in `load`.

use serde::Deserialize;

use super::conninfo::ConnInfo;
use super::session::{Purpose, Session};
use super::tools::Tools;
use super::{Error, sql};

/// How long a statement here waits for a lock.
const LOCK_SECONDS: u64 = 60;

#[derive(Deserialize)]
struct Object {
    kind: String,
    schema: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
    is_member: bool,
}

/// May owners and privileges be loaded as the dump has them?
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Each owner exists and our role may act for it.
    pub keep_owners: bool,
    /// Each role that the dump names exists.
    pub keep_privileges: bool,
    /// Roles that are not there, or that our role is no member of.
    pub lacking: Vec<String>,
}

/// Anything in a schema that is not the system's and not an extension's, and large objects, make a database not empty.
pub async fn refuse_unless_empty(session: &mut Session) -> Result<(), Error> {
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
/// `false`: it is already there, and may or may not be empty. Source of the demands: Synapse's `docs/postgres.md`.
pub async fn create_database(info: &ConnInfo, tools: &Tools, owner: Option<&str>) -> Result<bool, Error> {
    let Some(database) = info.database() else {
        return Err(Error::ConnInfo {
            reason: "a database can be made only when `dbname` names it".into(),
        });
    };
    let mut session = maintenance(info, tools).await?;
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
        let owner = owner.map_or_else(String::new, |owner| format!(" OWNER {}", sql::name(owner)));
        let name = sql::name(database);
        let statement = format!("CREATE DATABASE {name}{owner} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0{provider}");
        session.execute("making the database", &statement).await?;
    }
    session.close().await;
    Ok(!exists)
}

/// `postgres`, or `template1` where somebody removed it.
async fn maintenance(info: &ConnInfo, tools: &Tools) -> Result<Session, Error> {
    match Session::open(&info.with_database("postgres"), tools, Purpose::Write, LOCK_SECONDS).await {
        Err(Error::Connect { message, .. }) if message.contains("\"postgres\" does not exist") && message.contains("database") => {
            Session::open(&info.with_database("template1"), tools, Purpose::Write, LOCK_SECONDS).await
        }
        other => other,
    }
}

/// Compare the roles that a dump names with those of the target.
pub async fn ownership(session: &mut Session, owners: &[String], grantees: &[String]) -> Result<Ownership, Error> {
    let wanted = sql::literals(owners.iter().chain(grantees).map(String::as_str));
    let wanted = if wanted.is_empty() { "NULL".to_owned() } else { wanted };
    let query = format!(
        "SELECT rolname AS name, pg_catalog.pg_has_role(current_user, oid, 'MEMBER') AS is_member \
         FROM pg_catalog.pg_roles WHERE rolname IN ({wanted})"
    );
    let roles: Vec<Role> = session.query("the list of roles", &query).await?;
    let ours = |name: &String| roles.iter().any(|role| role.name == *name && role.is_member);
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

/// Empty the one-time keys in every schema, whether the dump had any or not; gives the tables' quoted names.
///
/// A key that was handed out after the dump must not be handed out again (Synapse's "Backing up Synapse").
pub async fn empty_one_time_keys(session: &mut Session) -> Result<Vec<String>, Error> {
    let tables: Vec<Object> = session.query("the look for one-time keys", ONE_TIME_KEYS).await?;
    let names: Vec<String> = tables
        .iter()
        .map(|table| sql::qualified(table.schema.as_deref().unwrap_or("public"), &table.name))
        .collect();
    if !names.is_empty() {
        session
            .execute("emptying the one-time keys", &format!("TRUNCATE TABLE {}", names.join(", ")))
            .await?;
    }
    Ok(names)
}

/// Let the planner know what was loaded: without it the first hours are slow.
pub async fn analyze(session: &mut Session) -> Result<(), Error> {
    session.execute("ANALYZE", "ANALYZE").await
}

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
