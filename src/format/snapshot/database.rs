//! A database of the homeserver in the snapshot document: its streams, and the facts read in the same database snapshot.
//!
//! What the facts mean, and which tables are left out, is `synapse`'s knowledge; here they are only written down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::list::List;

/// One dumped database, with what is needed to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// `synapse`, `synapse-<label>` or the name in the settings.
    pub name: String,
    /// Its own name on the server.
    pub database: String,
    /// `server_version` of the server, such as `15.8 (Debian 15.8-0+deb12u1)`.
    pub server_version: String,
    /// Of the `pg_dump` that wrote the streams.
    pub pg_dump_version: String,
    /// `UTF8`, as Synapse wants it.
    pub encoding: String,
    /// `C`, as Synapse wants it.
    pub collation: String,
    /// `C`, as Synapse wants it.
    pub ctype: String,
    /// The role that owns it.
    pub owner: String,
    /// In the order in which they are loaded.
    pub streams: Vec<Stream>,
    /// Tables whose rows were left out on purpose, as patterns of `pg_dump --exclude-table-data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_table_data: Vec<String>,
    /// Counts and positions.
    #[serde(default)]
    pub facts: Facts,
}

/// One dump stream. It is an item: `database/<name>/<stream>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// What its bytes are.
    pub format: StreamFormat,
    /// Its bytes.
    pub list: List,
    /// The tables whose rows are in it, as `schema.table`; empty: none in the stream `schema`, else all but the excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
}

/// What the bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFormat {
    /// `pg_dump --format=custom --compress=0`, for `pg_restore`.
    Custom,
    /// A format that this program does not know yet: such a database cannot be loaded by it.
    #[serde(other)]
    Unknown,
}

/// Counts and positions, read in the database snapshot of the dump. What is absent was not read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// By `schema.table`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TableFact>,
    /// Of the whole database on disk, indexes too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many large objects there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<u64>,
    /// The largest `stream_ordering` of Synapse's `events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_stream_ordering: Option<i64>,
    /// Synapse's `schema_version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// The oldest schema version that a Synapse must have to run on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_compat_version: Option<i64>,
    /// Names of unfinished background updates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub background_updates: Vec<String>,
    /// `stream_positions`, by `stream_name` or `stream_name/instance_name`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stream_positions: BTreeMap<String, i64>,
    /// `last_value` of sequences, by `schema.sequence`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, i64>,
    /// Materialized views that have rows, as `schema.view`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub materialized_views: Vec<String>,
    /// Version of the collation, where the server records one; another one on another machine may sort differently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    /// Every role that owns something in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// Every role that was granted something in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grantees: Vec<String>,
    /// Version by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
}

/// A table at the moment of the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableFact {
    /// Exact; absent where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// On disk.
    pub bytes: u64,
}
