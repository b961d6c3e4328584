//! One moment of a database, held still: every table locked against TRUNCATE and ALTER, then the snapshot exported.
//!
//! A TRUNCATE between the export and a `pg_dump --snapshot` would leave a dump that ends well and has no rows. So all
//! tables are locked in ACCESS SHARE mode first: `LOCK TABLE` takes no snapshot, so the moment is that of the export,
//! when every lock is held (PostgreSQL documentation, "LOCK": in REPEATABLE READ it must come before any query). The
//! list of tables is read before and compared after. A second, short session names whoever blocks.

use std::time::Duration;

use serde::Deserialize;

use super::conninfo::ConnInfo;
use super::session::{Purpose, Session};
use super::tools::Tools;
use super::{Blocker, Error, pooler, sql};

/// How often the list of tables may turn out to have changed.
const TRIES: usize = 5;
/// Tables in one LOCK statement, so that no statement grows with the number of tables.
const TABLES_PER_STATEMENT: usize = 500;

/// A table that a dump holds: ordinary and partitioned ones, in every schema but the system's and those of extensions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// A partitioned parent: it has no rows of its own.
    pub partitioned: bool,
    /// Its rows are not in the log, so a replica has none of them.
    pub unlogged: bool,
}

impl Table {
    /// Quoted, in its schema.
    pub fn quoted(&self) -> String {
        sql::qualified(&self.schema, &self.name)
    }
}

/// A table or sequence as the list has it, with what our role may do.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(flatten)]
    table: Table,
    sequence: bool,
    usable_schema: bool,
    readable: bool,
}

/// An exported snapshot. It lives as long as the session in here; an error of a statement in it ends it as well.
#[derive(Debug)]
pub struct Snapshot {
    /// The session whose transaction this is: facts and media rows are read through it.
    pub session: Session,
    id: String,
    tables: Vec<Table>,
}

impl Snapshot {
    /// Hold the database still. `lock_seconds` bounds the wait for each lot of locks.
    ///
    /// Errors: [`Error::Pooler`], [`Error::Privileges`] (before any lock), [`Error::Locked`] with the blockers,
    /// [`Error::TablesChange`].
    pub async fn export(info: &ConnInfo, tools: &Tools, lock_seconds: u64) -> Result<Self, Error> {
        let mut session = Session::connect(info, tools).await?;
        let mut watcher = Session::connect(info, tools).await?;
        pooler::refuse(&mut session, &mut watcher).await?;
        session.settle(Purpose::Read, lock_seconds).await?;
        watcher.settle(Purpose::Read, lock_seconds).await?;
        let mut tables = list(&mut session).await?;
        for _ in 0..TRIES {
            session
                .execute("the begin of the transaction", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await?;
            let locked = lock(&mut session, &mut watcher, &tables, lock_seconds).await;
            match locked {
                Ok(()) => {}
                Err(Error::Statement { sqlstate, .. }) if sqlstate == UNDEFINED_TABLE || sqlstate == UNDEFINED_SCHEMA => {
                    tables = list_again(&mut session).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let exported: Exported = session
                .one("the export of the snapshot", "SELECT pg_catalog.pg_export_snapshot() AS id")
                .await?;
            let now = list(&mut session).await?;
            if now == tables {
                watcher.close().await;
                return Ok(Self {
                    session,
                    id: exported.id,
                    tables,
                });
            }
            tables = list_again(&mut session).await?;
        }
        Err(Error::TablesChange {
            tables: tables.iter().map(Table::quoted).collect(),
        })
    }

    /// What `pg_dump --snapshot` wants.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Every table in it, sorted by schema and name.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Let go of the locks and the moment.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// A further session that sees the same moment, for reading beside the first one.
pub async fn join(info: &ConnInfo, tools: &Tools, id: &str, lock_seconds: u64) -> Result<Session, Error> {
    let mut session = Session::connect(info, tools).await?;
    session.settle(Purpose::Read, lock_seconds).await?;
    session
        .execute("the begin of the transaction", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    session
        .execute("joining the snapshot", &format!("SET TRANSACTION SNAPSHOT {}", sql::literal(id)))
        .await?;
    Ok(session)
}

#[derive(Deserialize)]
struct Exported {
    id: String,
}

const UNDEFINED_TABLE: &str = "42P01";
const UNDEFINED_SCHEMA: &str = "3F000";
const LOCK_NOT_AVAILABLE: &str = "55P03";

async fn list_again(session: &mut Session) -> Result<Vec<Table>, Error> {
    session.execute("the end of the transaction", "ROLLBACK").await?;
    list(session).await
}

/// The tables, after a look at whether our role may read all that `pg_dump` will read: tables and sequences.
async fn list(session: &mut Session) -> Result<Vec<Table>, Error> {
    let listed: Vec<Listed> = session.query("the list of tables", LIST).await?;
    let (readable, hidden): (Vec<Listed>, Vec<Listed>) = listed.into_iter().partition(|one| one.usable_schema && one.readable);
    if hidden.is_empty() {
        return Ok(readable.into_iter().filter(|one| !one.sequence).map(|one| one.table).collect());
    }
    Err(privileges(&session.server().user, &hidden))
}

fn privileges(user: &str, hidden: &[Listed]) -> Error {
    let role = sql::name(user);
    let mut grants = Vec::new();
    for one in hidden {
        let schema = sql::name(&one.table.schema);
        if !one.usable_schema {
            grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role};"));
        }
        let kind = if one.sequence { "SEQUENCES" } else { "TABLES" };
        grants.push(format!("GRANT SELECT ON ALL {kind} IN SCHEMA {schema} TO {role};"));
    }
    grants.sort_unstable();
    grants.dedup();
    Error::Privileges {
        user: user.to_owned(),
        objects: hidden.iter().map(|one| one.table.quoted()).collect(),
        grants,
    }
}

/// Take all locks, in lots; who blocks is asked for while we wait, since afterwards nobody does.
async fn lock(session: &mut Session, watcher: &mut Session, tables: &[Table], lock_seconds: u64) -> Result<(), Error> {
    let pid = session.server().pid;
    for lot in tables.chunks(TABLES_PER_STATEMENT) {
        let names: Vec<_> = lot.iter().map(|table| format!("ONLY {}", table.quoted())).collect();
        let statement = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        let mut blockers = Vec::new();
        let result = {
            let mut work = std::pin::pin!(session.execute("locking the tables", &statement));
            let mut look = tokio::time::interval(Duration::from_millis(lock_seconds * 1000 / 3 + 1));
            look.tick().await;
            loop {
                tokio::select! {
                    biased;
                    result = &mut work => break result,
                    _ = look.tick() => {
                        let now = who_blocks(watcher, pid).await?;
                        blockers = if now.is_empty() { blockers } else { now };
                    }
                }
            }
        };
        match result {
            Err(Error::Statement { sqlstate, .. }) if sqlstate == LOCK_NOT_AVAILABLE => {
                return Err(Error::Locked {
                    seconds: lock_seconds,
                    blockers,
                });
            }
            other => other?,
        }
    }
    Ok(())
}

/// Who holds what the server process `pid` waits for. Of their statements only the first words are taken: the rest may
/// hold tokens of users.
pub async fn who_blocks(session: &mut Session, pid: i64) -> Result<Vec<Blocker>, Error> {
    let query = format!("{WHO} WHERE pid = ANY (pg_catalog.pg_blocking_pids({pid})) ORDER BY xact_start");
    session.query("the look for the blocker", &query).await
}

/// Who has or wants a table of this database for itself alone, so that nobody may read it.
pub async fn who_wants_tables(session: &mut Session) -> Result<Vec<Blocker>, Error> {
    let query = format!(
        "{WHO} WHERE pid IN (SELECT l.pid FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS b ON b.oid = l.database \
         WHERE b.datname = pg_catalog.current_database() AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock') \
         ORDER BY xact_start"
    );
    session.query("the look for the blocker", &query).await
}

const WHO: &str = "SELECT pid, usename AS \"user\", application_name AS application, state, \
    pg_catalog.substring(query, '^\\s*(\\w+(?:\\s+[\\w.\"]+){0,2})') AS statement, \
    EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)::pg_catalog.int8 AS seconds \
    FROM pg_catalog.pg_stat_activity";

const LIST: &str = "SELECT n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS partitioned, c.relpersistence = 'u' AS unlogged, \
    c.relkind = 'S' AS sequence, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable_schema, \
    CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT') \
         ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END AS readable \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
        AND d.objid = c.oid AND d.deptype = 'e') \
    ORDER BY n.nspname, c.relname";
