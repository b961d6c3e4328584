//! Autovacuum, kept away from tables while they are loaded.
//!
//! It takes a table that has just got its rows for one that has changed a lot, and vacuums and analyzes it while its indexes are
//! built. Its lock is one that neither a `CREATE INDEX` nor an `ANALYZE` goes with, so each of these waits for it, until `deadlock_timeout`
//! (a second) is over and the server ends it; then it begins anew. A table that says itself whether it wants autovacuum is left alone.

use serde::Deserialize;

use super::session::Session;
use super::{Error, sql};

/// A table from which autovacuum is kept away until [`let_autovacuum_in`].
#[derive(Debug, Deserialize)]
pub struct Undisturbed {
    schema: String,
    name: String,
    /// Its TOAST table too.
    toast: bool,
}

impl Undisturbed {
    fn quoted(&self) -> String {
        sql::qualified(&self.schema, &self.name)
    }

    fn parameters(&self) -> &'static [&'static str] {
        if self.toast {
            &["autovacuum_enabled", "toast.autovacuum_enabled"]
        } else {
            &["autovacuum_enabled"]
        }
    }
}

/// Keep it away from the tables of which `which` (asked with `schema.name`) says so. Where the server does not let us, the load takes a little longer.
pub async fn keep_autovacuum_away(session: &mut Session, which: impl Fn(&str) -> bool) -> Result<Vec<Undisturbed>, Error> {
    let tables: Vec<Undisturbed> = session.query("the list of tables", WITHOUT_A_WORD).await?;
    let mut undisturbed = Vec::new();
    for table in tables {
        if !which(&format!("{}.{}", table.schema, table.name)) {
            continue;
        }
        let off: Vec<String> = table.parameters().iter().map(|parameter| format!("{parameter} = off")).collect();
        let statement = format!("ALTER TABLE {} SET ({})", table.quoted(), off.join(", "));
        match session.execute("keeping autovacuum away", &statement).await {
            Ok(()) => undisturbed.push(table),
            Err(error @ Error::Statement { .. }) => tracing::debug!(%error, table = table.quoted(), "autovacuum stays"),
            Err(error) => return Err(error),
        }
    }
    Ok(undisturbed)
}

/// As it was before: the tables say nothing of it again.
pub async fn let_autovacuum_in(session: &mut Session, tables: &[Undisturbed]) -> Result<(), Error> {
    for table in tables {
        let statement = format!("ALTER TABLE {} RESET ({})", table.quoted(), table.parameters().join(", "));
        session.execute("letting autovacuum in again", &statement).await?;
    }
    Ok(())
}

/// Partitioned tables have no such parameter; their partitions do.
const WITHOUT_A_WORD: &str = "SELECT n.nspname AS schema, c.relname AS name, \
    coalesce(t.reloptions::pg_catalog.text, '') !~ 'autovacuum_enabled' AS toast \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid \
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    AND coalesce(c.reloptions::pg_catalog.text, '') !~ 'autovacuum_enabled' ORDER BY 1, 2";
