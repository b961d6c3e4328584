//! After the rows: views filled, the planner told, and what is there compared with what was dumped.
//!
//! Facts were read in the moment of the dump, so every counted table must have exactly that many rows, and no sequence
//! may be behind. A difference is an error that names the table: it is a fault of a program, not of the data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::facts::{Count, LARGE_OBJECTS, measured};
use super::session::Session;
use super::{Error, sql};

/// A table of this size is looked at by a statement of its own: a sample of it takes a tenth of a second and more.
const ALONE_BYTES_MIN: u64 = 8 << 20;
/// Above it a `float4` skips numbers.
const FLOAT4_EXACT_MAX: u64 = 1 << 24;
/// Smaller tables looked at by one statement.
const TABLES_PER_ANALYZE: usize = 64;

/// What must be there, by `schema.name` as the facts of a snapshot have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Rows of tables.
    pub rows: BTreeMap<String, u64>,
    /// Values that sequences must have reached.
    pub sequences: BTreeMap<String, i64>,
    /// How many large objects.
    pub large_objects: Option<u64>,
}

#[derive(Deserialize)]
struct Named {
    schema: String,
    name: String,
}

impl Named {
    fn plain(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn quoted(&self) -> String {
        sql::qualified(&self.schema, &self.name)
    }
}

#[derive(Deserialize)]
struct Sized {
    schema: String,
    name: String,
    bytes: u64,
}

impl Sized {
    fn plain(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

#[derive(Deserialize)]
struct Sequence {
    schema: String,
    name: String,
    value: Option<i64>,
    rising: bool,
}

/// An error that names each table with another number of rows, and each sequence that is behind.
pub async fn compare(session: &mut Session, expected: &Expected) -> Result<(), Error> {
    let mut differences = row_differences(session, &expected.rows).await?;
    differences.extend(sequence_differences(session, &expected.sequences).await?);
    differences.extend(large_objects(session, expected.large_objects).await?);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Differs {
        database: session.server().database.clone(),
        differences,
    })
}

/// A sentence for each table that is missing or has another number of rows.
pub async fn row_differences(session: &mut Session, expected: &BTreeMap<String, u64>) -> Result<Vec<String>, Error> {
    let tables: Vec<Named> = session.query("the list of tables", TABLES).await?;
    let known: BTreeSet<String> = tables.iter().map(Named::plain).collect();
    let missing = expected.keys().filter(|name| !known.contains(*name));
    let mut differences: Vec<String> = missing.map(|name| format!("the table {name} is missing")).collect();
    let chosen: Vec<usize> = (0..tables.len()).filter(|at| expected.contains_key(&tables[*at].plain())).collect();
    let count = |at: usize| format!("(SELECT pg_catalog.count(*) FROM ONLY {})", tables[at].quoted());
    for one in measured(session, "the count of the rows", &chosen, count).await? {
        let table = tables[one.ordinal].plain();
        if let Some(wanted) = expected.get(&table).filter(|wanted| **wanted != one.value) {
            differences.push(format!("{table} has {} rows, not {wanted}", one.value));
        }
    }
    Ok(differences)
}

/// How many rows this table (`schema.name`) has, as PostgreSQL counted them when it built an index of all of them; `None` where
/// there is no such index or two do not agree. It is exact as long as nobody has written, vacuumed or analyzed since: right after a load.
///
/// `index_update_stats` in PostgreSQL's `catalog/index.c` writes it down as a `float4`, so a larger number is not believed.
pub async fn rows_of_index(session: &mut Session, table: &str) -> Result<Option<u64>, Error> {
    #[derive(Deserialize)]
    struct Rows {
        rows: Option<u64>,
    }
    let query = format!(
        "SELECT CASE WHEN min(x.reltuples) = max(x.reltuples) THEN max(x.reltuples)::pg_catalog.int8 END AS rows FROM pg_catalog.pg_index AS i \
         JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid JOIN pg_catalog.pg_am AS a ON a.oid = x.relam \
         JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE a.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL AND c.relkind = 'r' AND n.nspname || '.' || c.relname = {}",
        sql::literal(table)
    );
    let counted: Rows = session.one("the count of an index", &query).await?;
    Ok(counted.rows.filter(|rows| *rows < FLOAT4_EXACT_MAX))
}

/// A sentence for each sequence that is missing or behind.
pub async fn sequence_differences(session: &mut Session, expected: &BTreeMap<String, i64>) -> Result<Vec<String>, Error> {
    let there: Vec<Sequence> = session.query("the values of the sequences", SEQUENCES).await?;
    let there: BTreeMap<String, Sequence> = there.into_iter().map(|one| (format!("{}.{}", one.schema, one.name), one)).collect();
    let behind = |(name, wanted): (&String, &i64)| match there.get(name) {
        None => Some(format!("the sequence {name} is missing")),
        Some(Sequence {
            value: Some(value),
            rising,
            ..
        }) if (value >= wanted) == *rising || value == wanted => None,
        Some(Sequence { value, .. }) => {
            let value = value.map_or_else(|| "its start".to_owned(), |value| value.to_string());
            Some(format!("the sequence {name} is at {value}, behind {wanted}"))
        }
    };
    Ok(expected.iter().filter_map(behind).collect())
}

/// A sentence for each sequence that is missing, or not exactly where it was.
pub async fn sequences_elsewhere(session: &mut Session, expected: &BTreeMap<String, i64>) -> Result<Vec<String>, Error> {
    let there: Vec<Sequence> = session.query("the values of the sequences", SEQUENCES).await?;
    let there: BTreeMap<String, Option<i64>> = there
        .into_iter()
        .map(|one| (format!("{}.{}", one.schema, one.name), one.value))
        .collect();
    let elsewhere = |(name, wanted): (&String, &i64)| match there.get(name) {
        None => Some(format!("the sequence {name} is missing")),
        Some(Some(value)) if value == wanted => None,
        Some(Some(value)) => Some(format!("the sequence {name} is at {value}, not at {wanted}")),
        Some(None) => Some(format!("the sequence {name} is at its start, not at {wanted}")),
    };
    Ok(expected.iter().filter_map(elsewhere).collect())
}

async fn large_objects(session: &mut Session, expected: Option<u64>) -> Result<Option<String>, Error> {
    let Some(wanted) = expected else { return Ok(None) };
    let there = session.one::<Count>("the count of large objects", LARGE_OBJECTS).await?.count;
    Ok((there != wanted).then(|| format!("there are {there} large objects, not {wanted}")))
}

/// Fill the materialized views that had rows, by `schema.name`; one that reads another waits for it.
pub async fn refresh(session: &mut Session, populated: &[String]) -> Result<(), Error> {
    let views: Vec<Named> = session.query("the list of materialized views", VIEWS).await?;
    let mut waiting: Vec<String> = views
        .iter()
        .filter(|view| populated.contains(&view.plain()))
        .map(Named::quoted)
        .collect();
    while !waiting.is_empty() {
        let mut early = Vec::new();
        let before = waiting.len();
        let mut last = None;
        for view in waiting {
            let statement = format!("REFRESH MATERIALIZED VIEW {view}");
            match session.execute(&format!("filling the view {view}"), &statement).await {
                Ok(()) => {}
                Err(error @ Error::Statement { .. }) if is_too_early(&error) => {
                    early.push(view);
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        waiting = early;
        match last {
            Some(error) if waiting.len() == before => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// It reads a view that has not been filled yet.
fn is_too_early(error: &Error) -> bool {
    matches!(error, Error::Statement { sqlstate, .. } if sqlstate == "55000")
}

/// Let the planner know what was loaded: without it the first hours are slow. As a plain `ANALYZE` does it, but by all
/// of these sessions, large tables first, and only those of which `which` (asked with `schema.name`) says so.
pub async fn analyze(sessions: &mut [Session], which: impl Fn(&str) -> bool) -> Result<(), Error> {
    let Some(first) = sessions.first_mut() else { return Ok(()) };
    let mut tables: Vec<Sized> = first.query("the list of tables", ANALYZED).await?;
    tables.retain(|table| which(&table.plain()));
    let (large, small): (Vec<Sized>, Vec<Sized>) = tables.into_iter().partition(|table| table.bytes >= ALONE_BYTES_MIN);
    let lots = large.chunks(1).chain(small.chunks(TABLES_PER_ANALYZE)).map(|lot| {
        let names: Vec<String> = lot.iter().map(|table| sql::qualified(&table.schema, &table.name)).collect();
        format!("ANALYZE {}", names.join(", "))
    });
    let lots: Mutex<VecDeque<String>> = Mutex::new(lots.collect());
    let next = || lots.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = sessions.iter_mut().map(|session| async {
        while let Some(statement) = next() {
            session.execute("ANALYZE", &statement).await?;
        }
        Ok(())
    });
    futures::future::try_join_all(work).await.map(drop)
}

pub(super) const TABLES: &str = "SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2";
/// The catalogs too, which a load fills as well; not those that all databases share.
const ANALYZED: &str = "SELECT n.nspname AS schema, c.relname AS name, coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND NOT c.relisshared ORDER BY 3 DESC";
const SEQUENCES: &str = "SELECT schemaname AS schema, sequencename AS name, last_value AS value, increment_by > 0 AS rising \
    FROM pg_catalog.pg_sequences";
const VIEWS: &str = "SELECT schemaname AS schema, matviewname AS name FROM pg_catalog.pg_matviews WHERE schemaname !~ '^pg_' ORDER BY 1, 2";
