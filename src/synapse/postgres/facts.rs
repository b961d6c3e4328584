//! What is true of a database at the moment of its snapshot: what a person asks about, and what a drill compares.
//!
//! Read through the snapshot's own session, after its locks. Tables under a size limit are counted row by row, larger
//! ones only tell their size. Whatever is Synapse's own (schema version, streams) is asked for only where its tables
//! are; a failed query would end the snapshot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outline::Outline;
use super::session::Session;
use super::snapshot::{Snapshot, Table};
use super::{Error, sql};

/// Tables below this size are counted exactly.
pub const COUNTED_BYTES_MAX: u64 = 1 << 30;
/// Tables counted by one statement.
const TABLES_PER_STATEMENT: usize = 100;

/// Facts of one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `server_version`, as the vendor spells it.
    pub server_version: String,
    /// `server_version_num`.
    pub server_version_number: u32,
    /// Was the source a replica? Unlogged tables are empty there.
    pub in_recovery: bool,
    /// Name, encoding, collation, owner, size.
    pub database: DatabaseFacts,
    /// Every table, by schema and name.
    pub tables: Vec<TableFacts>,
    /// Every sequence, with a value that the dump's is not behind.
    pub sequences: Vec<SequenceFacts>,
    /// Materialized views that have rows; by schema and name.
    pub materialized_views: Vec<ViewFacts>,
    /// Extensions, by name.
    pub extensions: Vec<ExtensionFacts>,
    /// Number of large objects.
    pub large_objects: u64,
    /// Roles that own something.
    pub owners: Vec<String>,
    /// Roles that something is granted to.
    pub grantees: Vec<String>,
    /// What Synapse says of itself, where its tables are.
    pub synapse: Option<SynapseFacts>,
}

/// Facts of the database as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// `UTF8`.
    pub encoding: String,
    /// `datcollate`: `C` as Synapse wants it.
    pub collation: String,
    /// `datctype`.
    pub ctype: String,
    /// `libc`, `icu`, `builtin`; servers before 15 know only libc.
    pub locale_provider: String,
    /// Version of the collation, where the server records one.
    pub collation_version: Option<String>,
    /// Its owner.
    pub owner: String,
    /// `pg_database_size`; none where our role may not ask.
    pub bytes: Option<u64>,
}

/// Facts of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Size with TOAST, without indexes.
    pub bytes: u64,
    /// Exact number of rows of its own; none for large and partitioned tables.
    pub rows: Option<u64>,
    /// Not in the server's log.
    #[serde(default)]
    pub unlogged: bool,
}

/// Facts of one sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// None before its first use.
    pub last_value: Option<i64>,
}

/// A materialized view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// Facts of one extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
}

/// What stands in Synapse's own tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynapseFacts {
    /// Where they are; `public` as a rule.
    pub schema: String,
    /// `schema_version`.
    pub schema_version: Option<i64>,
    /// `schema_compat_version`: the oldest Synapse that takes this database.
    pub schema_compat_version: Option<i64>,
    /// Names of unfinished background updates.
    pub background_updates: Vec<String>,
    /// Stream name and instance, and the position.
    pub stream_positions: BTreeMap<String, i64>,
    /// `max(events.stream_ordering)`.
    pub events_stream_ordering: Option<i64>,
}

impl Facts {
    /// Read what `outline` has not told. Tables of at least `counted_bytes_max` bytes are not counted.
    pub async fn read(snapshot: &mut Snapshot, outline: &Outline, counted_bytes_max: u64) -> Result<Self, Error> {
        let tables = snapshot.tables().to_vec();
        let session = &mut snapshot.session;
        let server = session.server().clone();
        let version = server.version().major;
        let database = session.one("the facts of the database", &database_query(version)).await?;
        let tables = table_facts(session, &tables, outline, counted_bytes_max).await?;
        Ok(Self {
            server_version: server.version,
            server_version_number: server.version_number,
            in_recovery: server.in_recovery,
            database,
            sequences: outline.sequences.clone(),
            materialized_views: session.query("the list of materialized views", VIEWS).await?,
            extensions: session.query("the list of extensions", EXTENSIONS).await?,
            large_objects: session.one::<Count>("the count of large objects", LARGE_OBJECTS).await?.count,
            owners: names(session.query("the list of owners", OWNERS).await?),
            grantees: names(session.query("the list of grantees", GRANTEES).await?),
            synapse: synapse_facts(session, &tables).await?,
            tables,
        })
    }
}

impl SynapseFacts {
    /// Read them anew, in a database that was brought back.
    pub async fn read(session: &mut Session) -> Result<Option<Self>, Error> {
        #[derive(Deserialize)]
        struct Named {
            schema: String,
            name: String,
        }
        let named: Vec<Named> = session.query("the list of tables", super::check::TABLES).await?;
        let table = |Named { schema, name }| TableFacts {
            schema,
            name,
            bytes: 0,
            rows: None,
            unlogged: false,
        };
        let tables: Vec<TableFacts> = named.into_iter().map(table).collect();
        synapse_facts(session, &tables).await
    }
}

/// How many there are.
#[derive(Deserialize)]
pub(super) struct Count {
    pub(super) count: u64,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// A number that was asked for.
#[derive(Deserialize)]
pub(super) struct Measured {
    pub(super) ordinal: usize,
    pub(super) value: u64,
}

fn names(rows: Vec<Name>) -> Vec<String> {
    rows.into_iter().map(|row| row.name).collect()
}

async fn table_facts(session: &mut Session, tables: &[Table], outline: &Outline, counted_bytes_max: u64) -> Result<Vec<TableFacts>, Error> {
    let fact = |(table, bytes): (&Table, &u64)| TableFacts {
        schema: table.schema.clone(),
        name: table.name.clone(),
        bytes: *bytes,
        rows: None,
        unlogged: table.unlogged,
    };
    let mut facts: Vec<TableFacts> = tables.iter().zip(&outline.table_bytes).map(fact).collect();
    // On a replica an unlogged table cannot even be looked into.
    let replica = session.server().in_recovery;
    let counted: Vec<usize> = (0..facts.len())
        .filter(|at| !tables[*at].partitioned && facts[*at].bytes < counted_bytes_max && !(replica && tables[*at].unlogged))
        .collect();
    let rows = |at: usize| format!("(SELECT pg_catalog.count(*) FROM ONLY {})", tables[at].quoted());
    for one in measured(session, "the count of the rows", &counted, rows).await? {
        facts[one.ordinal].rows = Some(one.value);
    }
    Ok(facts)
}

/// One number for each of the `chosen` ordinals, many by one statement.
pub(super) async fn measured(
    session: &mut Session,
    what: &str,
    chosen: &[usize],
    expression: impl Fn(usize) -> String,
) -> Result<Vec<Measured>, Error> {
    let mut values = Vec::with_capacity(chosen.len());
    for lot in chosen.chunks(TABLES_PER_STATEMENT) {
        let select = |at: &usize| format!("SELECT {at} AS ordinal, {} AS value", expression(*at));
        let selects: Vec<String> = lot.iter().map(select).collect();
        let answers: Vec<Measured> = session.query(what, &selects.join(" UNION ALL ")).await?;
        if let Some(strange) = answers.iter().find(|one| !lot.contains(&one.ordinal)) {
            return Err(Error::Answer {
                what: what.to_owned(),
                reason: format!("nobody asked for number {}", strange.ordinal),
            });
        }
        values.extend(answers);
    }
    Ok(values)
}

/// The schema of the search path that has this table, as Synapse would find it; else the only schema that has it.
pub fn schema_of<'a>(search_path: &[String], tables: impl Iterator<Item = (&'a str, &'a str)>, wanted: &str) -> Option<String> {
    let schemas: Vec<&str> = tables.filter(|(_, name)| *name == wanted).map(|(schema, _)| schema).collect();
    let by_path = search_path.iter().find(|schema| schemas.contains(&schema.as_str())).cloned();
    by_path.or_else(|| if let [only] = schemas[..] { Some(only.to_owned()) } else { None })
}

async fn synapse_facts(session: &mut Session, tables: &[TableFacts]) -> Result<Option<SynapseFacts>, Error> {
    #[derive(Deserialize)]
    struct Position {
        name: String,
        position: Option<i64>,
    }
    let search_path = session.server().search_path.clone();
    let find = |wanted: &str| {
        schema_of(
            &search_path,
            tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())),
            wanted,
        )
    };
    let Some(schema) = find("schema_version") else { return Ok(None) };
    let has = |wanted: &str| tables.iter().any(|table| table.schema == schema && table.name == wanted);
    let mut facts = SynapseFacts {
        schema: schema.clone(),
        ..SynapseFacts::default()
    };
    if !has("background_updates") {
        return Ok(None);
    }
    let number = |column: &str, table: &str| {
        format!(
            "SELECT 'it' AS name, pg_catalog.max({column})::pg_catalog.int8 AS position FROM {}",
            sql::qualified(&schema, table)
        )
    };
    facts.schema_version = session
        .one::<Position>("the schema version", &number("version", "schema_version"))
        .await?
        .position;
    if has("schema_compat_version") {
        let query = number("compat_version", "schema_compat_version");
        facts.schema_compat_version = session.one::<Position>("the schema compatibility", &query).await?.position;
    }
    if has("events") {
        facts.events_stream_ordering = session
            .one::<Position>("the last event", &number("stream_ordering", "events"))
            .await?
            .position;
    }
    let updates = format!(
        "SELECT update_name AS name FROM {} ORDER BY 1",
        sql::qualified(&schema, "background_updates")
    );
    facts.background_updates = names(session.query("the background updates", &updates).await?);
    if has("stream_positions") {
        let from = sql::qualified(&schema, "stream_positions");
        let query = format!("SELECT pg_catalog.concat_ws(' ', stream_name, instance_name) AS name, stream_id AS position FROM {from}");
        let rows: Vec<Position> = session.query("the stream positions", &query).await?;
        facts.stream_positions = rows.into_iter().filter_map(|row| Some((row.name, row.position?))).collect();
    }
    Ok(Some(facts))
}

fn database_query(major: u32) -> String {
    let provider = "CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END";
    let (provider, version) = if major >= 15 {
        (provider, "d.datcollversion")
    } else {
        ("'libc'", "NULL")
    };
    format!(
        "SELECT d.datname AS name, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collation, d.datctype AS ctype, \
         {provider} AS locale_provider, {version} AS collation_version, pg_catalog.pg_get_userbyid(d.datdba) AS owner, \
         CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') THEN pg_catalog.pg_database_size(d.oid) END AS bytes \
         FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()"
    )
}

const VIEWS: &str = "SELECT schemaname AS schema, matviewname AS name FROM pg_catalog.pg_matviews \
    WHERE ispopulated AND schemaname !~ '^pg_' ORDER BY 1, 2";
const EXTENSIONS: &str = "SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema FROM pg_catalog.pg_extension AS e \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace ORDER BY 1";
pub(super) const LARGE_OBJECTS: &str = "SELECT pg_catalog.count(*) AS count FROM pg_catalog.pg_largeobject_metadata";
/// `pg_shdepend` leaves out the role that made the cluster, so tables, schemas and functions are asked as well. The owner
/// of `public` is nobody that a load needs (`contents`).
const OWNERS: &str = "SELECT DISTINCT pg_catalog.pg_get_userbyid(owner) AS name FROM ( \
    SELECT d.refobjid AS owner FROM pg_catalog.pg_shdepend AS d JOIN pg_catalog.pg_database AS b ON b.oid = d.dbid \
        WHERE b.datname = pg_catalog.current_database() AND d.deptype = 'o' AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS s WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
            AND s.oid = d.objid AND s.nspname = 'public') \
    UNION ALL SELECT c.relowner FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    UNION ALL SELECT p.proowner FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e \
            WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid AND e.deptype = 'e') \
    UNION ALL SELECT n.nspowner FROM pg_catalog.pg_namespace AS n \
        WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')) AS owners ORDER BY 1";
const GRANTEES: &str = "SELECT DISTINCT pg_catalog.pg_get_userbyid(d.refobjid) AS name FROM pg_catalog.pg_shdepend AS d \
    JOIN pg_catalog.pg_database AS b ON b.oid = d.dbid WHERE b.datname = pg_catalog.current_database() AND d.deptype = 'a' ORDER BY 1";
