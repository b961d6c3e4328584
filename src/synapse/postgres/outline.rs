//! What must be known of an exported moment before its first stream begins: sizes, for the plan, and sequences.
//!
//! Sequences are not part of a snapshot: a dump has the value of the moment at which it gets to them. Read before any
//! dump begins, the values here are lower bounds of those in it, and what is loaded can be compared with them.

use serde::Deserialize;

use super::facts::{SequenceFacts, measured};
use super::snapshot::Snapshot;
use super::{Error, dump, plan, sql};

/// Sizes and sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Size on disk of each table of the snapshot, in its order, with TOAST and without indexes.
    pub table_bytes: Vec<u64>,
    /// The large objects' size on disk.
    pub large_object_bytes: u64,
    /// Every sequence.
    pub sequences: Vec<SequenceFacts>,
    /// Sequences that belong to a column (`serial`, identity), with the quoted name of its table.
    owned: Vec<Owned>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Owned {
    table_schema: String,
    table_name: String,
    schema: String,
    name: String,
}

#[derive(Deserialize)]
struct Bytes {
    bytes: u64,
}

/// A stream that is to be dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStream {
    /// Its name as an item.
    pub name: String,
    /// For its `pg_dump`.
    pub content: dump::Content,
    /// Bytes that are expected.
    pub bytes: u64,
    /// The tables whose rows are in it, as `schema.table`.
    pub tables: Vec<String>,
}

impl Outline {
    /// Read it through the snapshot's session.
    pub async fn read(snapshot: &mut Snapshot) -> Result<Self, Error> {
        let tables = snapshot.tables().to_vec();
        let session = &mut snapshot.session;
        let mut table_bytes = vec![0; tables.len()];
        let all: Vec<usize> = (0..tables.len()).collect();
        let size = |at: usize| {
            format!(
                "pg_catalog.pg_table_size({}::pg_catalog.regclass)",
                sql::literal(&tables[at].quoted())
            )
        };
        for one in measured(session, "the sizes of the tables", &all, size).await? {
            table_bytes[one.ordinal] = one.value;
        }
        Ok(Self {
            table_bytes,
            large_object_bytes: session.one::<Bytes>("the size of large objects", LARGE_OBJECTS).await?.bytes,
            sequences: session.query("the facts of the sequences", SEQUENCES).await?,
            owned: session.query("the owners of the sequences", OWNED).await?,
        })
    }

    /// The streams that dump this moment by so many jobs, the schema first, then the longest first. Rows of one-time
    /// keys are in none.
    pub fn streams(&self, snapshot: &Snapshot, jobs: usize) -> Vec<PlannedStream> {
        let tables = snapshot.tables();
        // A replica has no rows of unlogged tables.
        let replica = snapshot.session.server().in_recovery;
        let dumped = |at: usize| {
            let table = &tables[at];
            !table.partitioned && table.name != dump::ONE_TIME_KEYS && !(replica && table.unlogged)
        };
        let sizes: Vec<u64> = (0..tables.len())
            .map(|at| if dumped(at) { self.table_bytes[at] } else { 0 })
            .collect();
        let name = |at: usize| format!("{}.{}", tables[at].schema, tables[at].name);
        let stream = |planned: plan::Planned| match planned.content {
            plan::Content::Schema => (plan::SCHEMA_STREAM.to_owned(), dump::Content::Schema, Vec::new(), planned.bytes),
            plan::Content::AllBut(big) => {
                let rest = (0..tables.len()).filter(|at| dumped(*at) && !big.contains(at)).map(name).collect();
                let but = big.iter().map(|at| tables[*at].quoted()).collect();
                (plan::MAIN_STREAM.to_owned(), dump::Content::AllBut(but), rest, planned.bytes)
            }
            plan::Content::Table(at) => {
                let table = &tables[at];
                let content = dump::Content::Table {
                    table: table.quoted(),
                    sequences: self.owned_by(&table.schema, &table.name),
                };
                (
                    plan::table_stream(&table.schema, &table.name),
                    content,
                    vec![name(at)],
                    planned.bytes,
                )
            }
        };
        plan::plan(&sizes, self.large_object_bytes, jobs)
            .into_iter()
            .map(stream)
            .map(|(name, content, tables, bytes)| PlannedStream {
                name,
                content,
                bytes,
                tables,
            })
            .collect()
    }

    fn owned_by(&self, schema: &str, name: &str) -> Vec<String> {
        let ours = self.owned.iter().filter(|one| one.table_schema == schema && one.table_name == name);
        ours.map(|one| sql::qualified(&one.schema, &one.name)).collect()
    }
}

const LARGE_OBJECTS: &str = "SELECT pg_catalog.pg_table_size('pg_catalog.pg_largeobject'::pg_catalog.regclass) AS bytes";
const SEQUENCES: &str = "SELECT schemaname AS schema, sequencename AS name, last_value FROM pg_catalog.pg_sequences \
    WHERE schemaname !~ '^pg_' ORDER BY 1, 2";
const OWNED: &str = "SELECT tn.nspname AS table_schema, t.relname AS table_name, sn.nspname AS schema, s.relname AS name \
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S' \
    JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.relnamespace JOIN pg_catalog.pg_class AS t ON t.oid = d.refobjid \
    JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace \
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    AND d.refobjsubid <> 0 AND d.deptype IN ('a', 'i') ORDER BY 1, 2, 3, 4";
