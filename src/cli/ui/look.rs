//! What the looking verbs print on standard output: tables of snapshots and checks, one snapshot, lines of items.
//!
//! All of it is data: it goes through pipes, has no colours there, and `-q` does not silence it. Everything that came
//! from a homeserver or a bucket is made harmless on its way.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use super::keys::keys;
use super::show::head;
use super::stats;
use super::summary::{kind, short};
use super::table::{Side, Table};
use super::text::{Colour, bytes, count, counted, escaped, hanging};
use crate::cli::exit::Outcome;
use crate::ops::doctor::{self, Verdict};
use crate::ops::inspect::{Drilled, ItemLine, ShowReport, SnapshotLine, SnapshotsReport};
use crate::ops::prune;
use crate::ops::{Part, Parts, all_parts};

/// The data of a verb, for people; nothing for those whose summary says all.
pub(crate) fn look(outcome: &Outcome, colour: bool, columns: Option<usize>) -> String {
    match outcome {
        Outcome::Snapshots(report) => snapshots(report, colour),
        Outcome::Shown(report) => show(report, colour),
        Outcome::Examined(report) => checks(report, colour, columns),
        Outcome::Keys(report) => keys(report, colour),
        Outcome::Counted(report) => stats::stats(report, colour),
        Outcome::Pruned(report) => judged(report, colour),
        _ => String::new(),
    }
}

/// A table for each homeserver.
fn snapshots(report: &SnapshotsReport, colour: bool) -> String {
    let mut homeservers: BTreeMap<&str, Vec<&SnapshotLine>> = BTreeMap::new();
    for line in &report.snapshots {
        homeservers.entry(&line.server_name).or_default().push(line);
    }
    let of_one = |(server_name, lines): (&str, Vec<&SnapshotLine>)| {
        let number = counted(lines.len() as u64, "snapshot");
        let sealed = if report.sealed { "sealed" } else { "not sealed" };
        format!("{}: {number}, {sealed}\n{}", escaped(server_name), table(&lines, colour))
    };
    let tables: Vec<String> = homeservers.into_iter().map(of_one).collect();
    if tables.is_empty() {
        return "no snapshots yet\n".to_owned();
    }
    tables.join("\n")
}

fn table(lines: &[&SnapshotLine], colour: bool) -> String {
    let right = Side::Right;
    let left = Side::Left;
    let mut table = Table::new(&[
        ("id", left),
        ("time (UTC)", left),
        ("age", right),
        ("size", right),
        ("new", right),
        ("media", right),
        ("problems", right),
        ("drilled", left),
        ("tags", left),
    ]);
    for line in lines {
        let late = line.late.then(|| "late: does not count".to_owned());
        let doubt = line.doubt.is_some().then(|| "not authentic".to_owned());
        let part = (line.parts.len() < all_parts().len()).then(|| only(&line.parts));
        let tags: Vec<String> = late
            .into_iter()
            .chain(doubt)
            .chain(part)
            .chain(line.tags.iter().map(|tag| escaped(tag).into_owned()))
            .collect();
        table.row(vec![
            escaped(&short(&line.id)).into_owned(),
            escaped(&minute(&line.time)).into_owned(),
            age(line.age_seconds),
            bytes(line.bytes),
            bytes(line.new_bytes),
            count(line.media_files),
            count(line.problems),
            line.drilled
                .as_ref()
                .map_or_else(String::new, |drilled| drilled_text(drilled, colour)),
            tags.join(", "),
        ]);
    }
    table.print(colour)
}

/// `2026-11-23 02:00`; a table of nights needs no seconds.
fn minute(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => time.to_owned(),
    }
}

/// In the largest unit of which there are two.
fn age(seconds: i64) -> String {
    match seconds {
        ..120 => "now".to_owned(),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        172_800.. => format!("{} d", seconds / 86_400),
    }
}

/// A snapshot that is not whole.
fn only(parts: &Parts) -> String {
    let words: Vec<&str> = parts.iter().map(Part::word).collect();
    format!("only {}", words.join(" and "))
}

/// What `prune` lets go, and why the others stay.
fn judged(report: &prune::Report, colour: bool) -> String {
    let left = Side::Left;
    let mut table = Table::new(&[
        ("id", left),
        ("time (UTC)", left),
        ("homeserver", left),
        ("stays", left),
        ("why", left),
    ]);
    for one in &report.snapshots {
        let reasons: Vec<String> = one.reasons.iter().map(|reason| escaped(&reason.to_string()).into_owned()).collect();
        table.row(vec![
            short(&one.id.to_string()),
            escaped(&minute(&one.time)).into_owned(),
            escaped(&one.server_name).into_owned(),
            if one.forgotten { "no" } else { "yes" }.to_owned(),
            reasons.join(", "),
        ]);
    }
    table.print(colour)
}

/// The day, or that it failed.
fn drilled_text(drilled: &Drilled, colour: bool) -> String {
    let time = minute(&drilled.time);
    let day = escaped(time.split(' ').next().unwrap_or_default());
    if drilled.passed {
        day.into_owned()
    } else {
        format!("{} {day}", Colour::Red.paint("FAILED", colour))
    }
}

/// The document as an outline: whatever a snapshot says stands here, also what a later version adds.
fn show(report: &ShowReport, colour: bool) -> String {
    let mut out = String::new();
    if report.late {
        let warning = "this snapshot landed late: it does not count, and nothing protects what it needs";
        let _ = writeln!(out, "{}", Colour::Yellow.paint(warning, colour));
    }
    if let Some(doubt) = &report.doubt {
        let warning = format!("this snapshot is not authentic: {doubt}");
        let _ = writeln!(out, "{}", Colour::Yellow.paint(&warning, colour));
    }
    head(&mut out, &report.snapshot, colour);
    if let Some(signer) = &report.signer {
        let _ = writeln!(out, "{:20} {signer}", "signer");
    }
    if let Some(drilled) = &report.drilled {
        let _ = writeln!(out, "{:20} {}", "drilled", drilled_text(drilled, colour));
    }
    match serde_json::to_value(&report.snapshot) {
        Ok(document) => outline(&mut out, &counted_only(document), 0, colour),
        Err(error) => {
            let _ = writeln!(out, "{error}");
        }
    }
    if !report.problems.is_empty() {
        let _ = writeln!(out, "{}", Colour::Bold.paint("all problems", colour));
        for problem in &report.problems {
            let _ = writeln!(
                out,
                "  {:12}  {}: {}",
                kind(problem),
                escaped(&problem.item),
                escaped(&problem.message)
            );
        }
    }
    out
}

/// Without the bytes that were sent, where the document was written before anybody could count them: 0 reads as nothing.
fn counted_only(mut document: Value) -> Value {
    if let Some(totals) = document.get_mut("totals").and_then(Value::as_object_mut) {
        totals.retain(|name, value| name != "sent_bytes" || value.as_u64() != Some(0));
    }
    document
}

/// Fields that only the reader of a snapshot needs: where blobs are. `--json` has them.
const FOR_MACHINES: [&str; 4] = ["config_paths", "list", "packs", "shards"];
/// More elements than these of one list or map are counted only; `--json` has them all.
const ELEMENTS_SHOWN: usize = 12;

fn outline(out: &mut String, value: &Value, depth: usize, colour: bool) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            // Such as the tables of a database: nobody reads two hundred of them.
            let is_crowd = fields.len() > ELEMENTS_SHOWN && fields.values().all(Value::is_object);
            let shown = if is_crowd { ELEMENTS_SHOWN } else { fields.len() };
            for (name, value) in fields.iter().take(shown) {
                let name_shown = escaped(name);
                match value {
                    _ if FOR_MACHINES.contains(&name.as_str()) => {}
                    Value::Null => {}
                    Value::Object(inner) if inner.is_empty() => {}
                    Value::Array(inner) if inner.is_empty() => {}
                    Value::Object(_) | Value::Array(_) => {
                        let heading = Colour::Bold.paint(&name_shown, colour && depth == 0);
                        let _ = writeln!(out, "{indent}{heading}");
                        outline(out, value, depth + 1, colour);
                    }
                    _ => {
                        let _ = writeln!(out, "{indent}{name_shown:20} {}", scalar(name, value));
                    }
                }
            }
            hidden(out, &indent, fields.len() - shown);
        }
        Value::Array(elements) => {
            for element in elements.iter().take(ELEMENTS_SHOWN) {
                match element {
                    Value::Object(fields) if fields.values().all(|value| !value.is_object() && !value.is_array()) => {
                        let fields: Vec<String> = fields
                            .iter()
                            .filter(|(_, value)| !value.is_null())
                            .map(|(name, value)| format!("{} {}", escaped(name), scalar(name, value)))
                            .collect();
                        let _ = writeln!(out, "{indent}- {}", fields.join(", "));
                    }
                    Value::Object(_) | Value::Array(_) => {
                        let _ = writeln!(out, "{indent}-");
                        outline(out, element, depth + 1, colour);
                    }
                    _ => {
                        let _ = writeln!(out, "{indent}- {}", scalar("", element));
                    }
                }
            }
            hidden(out, &indent, elements.len().saturating_sub(ELEMENTS_SHOWN));
        }
        _ => {
            let _ = writeln!(out, "{indent}{}", scalar("", value));
        }
    }
}

fn hidden(out: &mut String, indent: &str, number: usize) {
    if number > 0 {
        let _ = writeln!(out, "{indent}  and {} more; --json has them all", count(number as u64));
    }
}

fn scalar(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text).into_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(number) if name == "bytes" || name.ends_with("_bytes") => bytes(number),
            _ => number.to_string(),
        },
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => escaped(&other.to_string()).into_owned(),
    }
}

/// One line of `ls`.
pub(crate) fn item_line(item: &ItemLine) -> String {
    format!("{:>11}  {}\n", bytes(item.bytes), escaped(&item.name))
}

fn checks(report: &doctor::Report, colour: bool, columns: Option<usize>) -> String {
    let wide = report
        .checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    for check in &report.checks {
        let (word, tint) = match check.verdict {
            Verdict::Ok => ("ok     ", Colour::Green),
            Verdict::Warning => ("warning", Colour::Yellow),
            Verdict::Failure => ("FAILURE", Colour::Red),
        };
        let name = escaped(&check.name);
        let _ = write!(out, "{}  {name:wide$}  ", tint.paint(word, colour));
        let indent = " ".repeat(wide + 11);
        out.push_str(&hanging(&check.message, &indent, columns));
        if let Some(cure) = &check.cure {
            let _ = write!(out, "{indent}{} ", Colour::Cyan.paint("hint:", colour));
            out.push_str(&hanging(cure, &format!("{indent}      "), columns));
        }
    }
    let number = |verdict| report.checks.iter().filter(|check| check.verdict == verdict).count() as u64;
    let (failures, warnings) = (number(Verdict::Failure), number(Verdict::Warning));
    let verdict = match (failures, warnings) {
        (0, 0) => "all is in place".to_owned(),
        (0, _) => counted(warnings, "warning"),
        (_, 0) => format!("{}: a backup would fail, or be worth little", counted(failures, "failure")),
        _ => format!(
            "{} and {}: a backup would fail, or be worth little",
            counted(failures, "failure"),
            counted(warnings, "warning")
        ),
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::doctor::Check;
    use crate::ops::inspect::SnapshotLine;

    #[test]
    fn a_late_snapshot_is_marked_and_names_cannot_paint() {
        let late = SnapshotLine {
            id: "3f9a0c11d2e4b5a697887766554433aa".into(),
            time: "2026-11-23T02:00:04Z".into(),
            server_name: "exa\x1bmple.org".into(),
            tags: vec!["weekly".into()],
            parts: all_parts(),
            late: true,
            doubt: None,
            age_seconds: 86_400 * 3,
            problems: 2,
            bytes: 1 << 30,
            new_bytes: 3 << 20,
            media_files: 20_000,
            drilled: Some(Drilled {
                time: "2026-11-24T04:00:00Z".into(),
                passed: true,
            }),
        };
        let part = SnapshotLine {
            id: "4a9a0c11d2e4b5a697887766554433aa".into(),
            server_name: "other.org".into(),
            tags: Vec::new(),
            parts: [Part::Config].into(),
            late: false,
            doubt: Some("it is not signed".into()),
            age_seconds: 7_100,
            drilled: None,
            ..late.clone()
        };
        let report = SnapshotsReport {
            snapshots: vec![part, late],
            sealed: true,
            problems: Vec::new(),
        };
        assert_eq!(
            snapshots(&report, false),
            "exa\\u{1b}mple.org: 1 snapshot, sealed\n\
             id        time (UTC)        age      size       new   media  problems  drilled     tags\n\
             3f9a0c11  2026-11-23 02:00  3 d  1.00 GiB  3.00 MiB  20,000         2  2026-11-24  late: does not count, weekly\n\
             \n\
             other.org: 1 snapshot, sealed\n\
             id        time (UTC)            age      size       new   media  problems  drilled  tags\n\
             4a9a0c11  2026-11-23 02:00  118 min  1.00 GiB  3.00 MiB  20,000         2           not authentic, only config\n"
        );
        assert_eq!(snapshots(&SnapshotsReport::default(), false), "no snapshots yet\n");
    }

    #[test]
    fn an_outline_shows_every_field_that_says_something() {
        let document = serde_json::json!({
            "server_name": "example.org",
            "nothing": null,
            "empty": [],
            "totals": { "read_bytes": 2048, "items": 7, "sealed": false },
            "databases": [ { "name": "synapse", "collation": "C" } ],
            "tags": ["a\nb"],
            "packs": ["00"],
        });
        let mut out = String::new();
        outline(&mut out, &document, 0, false);
        assert_eq!(
            out,
            "databases\n  - collation C, name synapse\nserver_name          example.org\ntags\n  - a\\nb\ntotals\n  items                7\n  read_bytes           2.00 KiB\n  sealed               no\n"
        );
    }

    #[test]
    fn bytes_sent_are_not_shown_where_nobody_counted_them() {
        let totals = |sent: u64| counted_only(serde_json::json!({ "totals": { "new_bytes": 7, "sent_bytes": sent } }));
        assert_eq!(totals(0), serde_json::json!({ "totals": { "new_bytes": 7 } }));
        assert_eq!(totals(5), serde_json::json!({ "totals": { "new_bytes": 7, "sent_bytes": 5 } }));
    }

    #[test]
    fn a_check_that_failed_brings_its_cure() {
        let check = |name: &str, verdict, message: &str, cure: Option<&str>| Check {
            name: name.into(),
            verdict,
            message: message.into(),
            cure: cure.map(str::to_owned),
        };
        let report = doctor::Report {
            checks: vec![
                check("configuration", Verdict::Ok, "2 files", None),
                check(
                    "pg_dump",
                    Verdict::Failure,
                    "version 13, the server has 15",
                    Some("install postgresql-client-15"),
                ),
            ],
            media: None,
        };
        assert_eq!(
            checks(&report, false, None),
            "ok       configuration  2 files\n\
             FAILURE  pg_dump        version 13, the server has 15\n                        hint: install postgresql-client-15\n\n\
             1 failure: a backup would fail, or be worth little\n"
        );
    }
}
