//! Are the sequences where Synapse's tables need them? Synapse refuses to start on a sequence that is behind its table.
//!
//! Which sequence numbers which column is Synapse's knowledge (`storage/databases/main/*.py`, the `tables` of each
//! `MultiWriterIdGenerator` and the `id_column` of each `build_sequence_generator`). Those of a column's own `DEFAULT
//! nextval(…)` are PostgreSQL's. What a version does not have is passed over.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::session::Session;
use super::{Error, sql};

/// Sequence, table and column.
const NUMBERED: [(&str, &str, &str); 30] = [
    ("account_data_sequence", "account_data", "stream_id"),
    ("account_data_sequence", "room_account_data", "stream_id"),
    ("account_data_sequence", "room_tags_revisions", "stream_id"),
    ("application_services_txn_id_seq", "application_services_txns", "txn_id"),
    (
        "cache_invalidation_stream_seq",
        "cache_invalidation_stream_by_instance",
        "stream_id",
    ),
    ("device_inbox_sequence", "device_federation_outbox", "stream_id"),
    ("device_inbox_sequence", "device_inbox", "stream_id"),
    (
        "device_lists_sequence",
        "device_lists_changes_converted_stream_position",
        "stream_id",
    ),
    ("device_lists_sequence", "device_lists_changes_in_room", "stream_id"),
    ("device_lists_sequence", "device_lists_outbound_pokes", "stream_id"),
    ("device_lists_sequence", "device_lists_remote_pending", "stream_id"),
    ("device_lists_sequence", "device_lists_stream", "stream_id"),
    ("device_lists_sequence", "user_signature_stream", "stream_id"),
    ("e2e_cross_signing_keys_sequence", "e2e_cross_signing_keys", "stream_id"),
    ("event_auth_chain_id", "event_auth_chains", "chain_id"),
    ("events_stream_seq", "current_state_delta_stream", "stream_id"),
    ("events_stream_seq", "events", "stream_ordering"),
    ("events_stream_seq", "ex_outlier_stream", "event_stream_ordering"),
    ("presence_stream_sequence", "presence_stream", "stream_id"),
    ("profile_updates_sequence", "profile_updates", "stream_id"),
    ("push_rules_stream_sequence", "push_rules_stream", "stream_id"),
    ("pushers_sequence", "deleted_pushers", "stream_id"),
    ("pushers_sequence", "pushers", "id"),
    ("quarantined_media_id_seq", "quarantined_media_changes", "stream_id"),
    ("receipts_sequence", "receipts_linearized", "stream_id"),
    ("state_group_id_seq", "state_groups", "id"),
    ("sticky_events_sequence", "sticky_events", "stream_id"),
    ("thread_subscriptions_sequence", "thread_subscriptions", "stream_id"),
    (
        "un_partial_stated_event_stream_sequence",
        "un_partial_stated_event_stream",
        "stream_id",
    ),
    (
        "un_partial_stated_room_stream_sequence",
        "un_partial_stated_room_stream",
        "stream_id",
    ),
];

#[derive(Deserialize)]
struct Place {
    schema: String,
    sequence: String,
    table: String,
    column: String,
}

#[derive(Deserialize)]
struct Positions {
    reached: Option<i64>,
    needed: Option<i64>,
}

/// How many columns were compared with their sequences, and a sentence for each sequence that is behind.
pub async fn behind_their_tables(session: &mut Session) -> Result<(usize, Vec<String>), Error> {
    let places: Vec<Place> = session.query("the look for numbered columns", &numbered()).await?;
    let mut seen = BTreeSet::new();
    let mut behind = Vec::new();
    for place in &places {
        if !seen.insert((&place.schema, &place.sequence, &place.table, &place.column)) {
            continue;
        }
        let sequence = sql::qualified(&place.schema, &place.sequence);
        let query = format!(
            "SELECT (SELECT CASE WHEN is_called THEN last_value END FROM {sequence}) AS reached, \
             (SELECT pg_catalog.max({}) FROM {})::pg_catalog.int8 AS needed",
            sql::name(&place.column),
            sql::qualified(&place.schema, &place.table)
        );
        let positions: Positions = session.one("the position of a sequence", &query).await?;
        // Backfilled events have negative numbers, of a sequence of their own.
        let Some(needed) = positions.needed.filter(|needed| *needed > 0) else {
            continue;
        };
        if positions.reached.is_none_or(|reached| reached < needed) {
            let reached = positions
                .reached
                .map_or_else(|| "its start".to_owned(), |reached| reached.to_string());
            behind.push(format!(
                "the sequence {}.{} is at {reached}, but {}.{} has reached {needed}",
                place.schema, place.sequence, place.table, place.column
            ));
        }
    }
    Ok((seen.len(), behind))
}

/// Synapse's pairs that exist, and columns whose default comes from a rising sequence of the same schema.
fn numbered() -> String {
    let values: Vec<String> = NUMBERED
        .iter()
        .map(|(sequence, table, column)| format!("({},{},{})", sql::literal(sequence), sql::literal(table), sql::literal(column)))
        .collect();
    format!(
        "WITH columns AS (SELECT n.nspname, n.oid AS namespace, c.oid AS relation, c.relname, a.attname, a.attnum \
            FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid \
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
            WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (20, 21, 23) AND n.nspname !~ '^pg_'), \
         rising AS (SELECT c.oid, c.relname, c.relnamespace FROM pg_catalog.pg_class AS c \
            JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid WHERE c.relkind = 'S' AND s.seqincrement > 0 AND NOT s.seqcycle) \
         SELECT columns.nspname AS schema, rising.relname AS sequence, columns.relname AS \"table\", columns.attname AS \"column\" \
            FROM (VALUES {}) AS known(sequence, tab, col) JOIN columns ON columns.relname = known.tab AND columns.attname = known.col \
            JOIN rising ON rising.relname = known.sequence AND rising.relnamespace = columns.namespace \
         UNION SELECT columns.nspname, rising.relname, columns.relname, columns.attname FROM columns \
            JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = columns.relation AND d.adnum = columns.attnum \
            JOIN pg_catalog.pg_depend AS p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid \
                AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
            JOIN rising ON rising.oid = p.refobjid AND rising.relnamespace = columns.namespace ORDER BY 1, 2, 3, 4",
        values.join(",")
    )
}
