//! The head of `show`: what a restorer wants to know first, before the whole document.
//!
//! Which snapshot, what must be installed for it, what is in it, and by which key others know the homeserver.

use std::fmt::Write as _;

use super::summary::label;
use super::text::{Colour, bytes, count, counted, escaped};
use crate::format::snapshot::{Database, Snapshot};

pub(super) fn head(out: &mut String, snapshot: &Snapshot, colour: bool) {
    let heading = format!("snapshot {}", snapshot.id);
    let heading = Colour::Bold.paint(&heading, colour);
    let _ = writeln!(out, "{heading} of {}, {}", escaped(&snapshot.server_name), snapshot.time);
    if let Some(needed) = needed(snapshot) {
        label(out, "needs", &needed);
    }
    for database in &snapshot.databases {
        label(out, "database", &of_database(database));
    }
    if let Some(media) = &snapshot.media {
        let root = media.root.to_string();
        let line = format!("{}, {}, from {}", counted(media.files, "file"), bytes(media.bytes), escaped(&root));
        label(out, "media", &line);
    }
    label(out, "config", &counted(snapshot.config.len() as u64, "item"));
    for (at, path) in snapshot.config_paths.iter().enumerate() {
        // In Synapse's order: a later one overrides an earlier one.
        label(
            out,
            if at == 0 { "started -c" } else { "        -c" },
            &format!(" {}", escaped(&path.to_string())),
        );
    }
    for key in &snapshot.signing_keys {
        label(out, "key", &format!("{} {}", escaped(&key.id), escaped(&key.public_key)));
    }
    let problems = snapshot.problem_count();
    if problems > 0 {
        let line = format!("{}; --problems names those of media too", count(problems));
        label(out, "problems", &line);
    }
    out.push('\n');
}

/// What the machine must have.
fn needed(snapshot: &Snapshot) -> Option<String> {
    let first = snapshot.databases.first()?;
    let postgres = first.server_version.split(' ').next().unwrap_or_default();
    let synapse = match (&snapshot.synapse_version, first.facts.schema_version) {
        (Some(version), _) => format!(", Synapse {} or newer", escaped(version)),
        (None, Some(version)) => format!(", a Synapse that knows schema version {version}"),
        (None, None) => String::new(),
    };
    Some(format!("PostgreSQL {} or newer{synapse}", escaped(postgres)))
}

fn of_database(database: &Database) -> String {
    let tables = database.facts.tables.len() as u64;
    let rows: u64 = database.facts.tables.values().filter_map(|table| table.rows).sum();
    let dumped: u64 = database.streams.iter().map(|stream| stream.list.bytes).sum();
    let (one, many) = (counted(tables, "table"), counted(rows, "row"));
    format!(
        "{}: {one}, {many}, {} of dump; it belongs to {}",
        escaped(&database.name),
        bytes(dumped),
        escaped(&database.owner)
    )
}
