//! What `stats` prints on standard output: where the bytes are, by kind and by snapshot.
//!
//! It is data, like the tables of the other commands that look.

use std::fmt::Write as _;

use super::summary::short;
use super::table::{Side, Table};
use super::text::{Colour, bytes, count, escaped};
use crate::ops::stats::{Figures, Report};

pub(super) fn stats(report: &Report, colour: bool) -> String {
    let mut out = String::new();
    let all = &report.all;
    let deduplicated = all.deduplicated_bytes;
    let lists = report.kinds.get("metadata").map_or(0, |kind| kind.deduplicated_bytes);
    let of_raw = times(report.raw_bytes, deduplicated.saturating_sub(lists));
    for (name, value, note) in [
        ("raw", report.raw_bytes, "all snapshots, each as if it were alone".to_owned()),
        (
            "deduplicated",
            deduplicated,
            format!("{of_raw} and {} of lists", bytes(lists)).trim_start().to_owned(),
        ),
        ("compressed", all.compressed_bytes, times(deduplicated, all.compressed_bytes)),
        ("stored", all.stored_bytes, format!("in {} packs", count(all.packs))),
        ("dead", all.dead_bytes, "no snapshot needs it".to_owned()),
        ("overhead", all.overhead_bytes, "tables of the packs, sealing".to_owned()),
        ("condemned", all.condemned_bytes, "deleted after the grace period".to_owned()),
        ("index", report.index_bytes, String::new()),
    ] {
        let line = format!("{name:12}  {:>11}  {note}", bytes(value));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push('\n');
    out.push_str(&kinds(report, colour));
    if !report.snapshots.is_empty() {
        out.push('\n');
        out.push_str(&snapshots(report, colour));
    }
    out
}

/// `1/9.4`: how much smaller it became.
#[expect(clippy::cast_precision_loss, reason = "two digits for a person")]
fn times(before: u64, after: u64) -> String {
    if after == 0 {
        return String::new();
    }
    format!("1/{:.1}", before as f64 / after as f64)
}

fn kinds(report: &Report, colour: bool) -> String {
    let right = Side::Right;
    let mut table = Table::new(&[
        ("kind", Side::Left),
        ("packs", right),
        ("deduplicated", right),
        ("compressed", right),
        ("stored", right),
        ("dead", right),
        ("overhead", right),
        ("condemned", right),
    ]);
    let mut row = |name: &str, figures: &Figures| {
        table.row(vec![
            name.to_owned(),
            count(figures.packs),
            bytes(figures.deduplicated_bytes),
            bytes(figures.compressed_bytes),
            bytes(figures.stored_bytes),
            bytes(figures.dead_bytes),
            bytes(figures.overhead_bytes),
            bytes(figures.condemned_bytes),
        ]);
    };
    for (name, figures) in &report.kinds {
        row(name, figures);
    }
    table.print(colour)
}

fn snapshots(report: &Report, colour: bool) -> String {
    let right = Side::Right;
    let mut table = Table::new(&[
        ("id", Side::Left),
        ("time", Side::Left),
        ("raw", right),
        ("only here", right),
        ("stored", right),
        ("homeserver", Side::Left),
    ]);
    for one in &report.snapshots {
        let late = if one.late { ", late" } else { "" };
        table.row(vec![
            escaped(&short(&one.id)).into_owned(),
            escaped(&one.time).into_owned(),
            bytes(one.raw_bytes),
            bytes(one.only_raw_bytes),
            bytes(one.only_stored_bytes),
            format!("{}{late}", escaped(&one.server_name)),
        ]);
    }
    let mut out = table.print(colour);
    let note = "what only one snapshot has is dead when it is forgotten; a prune gives it back after the grace period, when its packs go";
    let _ = writeln!(out, "{}", Colour::Cyan.paint(note, colour));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::stats::Held;

    #[test]
    fn bytes_are_told_by_stage_kind_and_snapshot() {
        let figures = Figures {
            packs: 3,
            deduplicated_bytes: 4 << 20,
            compressed_bytes: 2 << 20,
            stored_bytes: 3 << 20,
            dead_bytes: 900 << 10,
            overhead_bytes: 124 << 10,
            condemned_bytes: 0,
        };
        let report = Report {
            raw_bytes: 8 << 20,
            all: figures,
            index_bytes: 1024,
            kinds: [
                ("database", figures),
                (
                    "metadata",
                    Figures {
                        deduplicated_bytes: 2 << 20,
                        ..Figures::default()
                    },
                ),
            ]
            .into(),
            snapshots: vec![Held {
                id: "3f9a0c11d2e4b5a697887766554433aa".into(),
                time: "2026-11-23T02:00:04Z".into(),
                server_name: "example.org".into(),
                tags: Vec::new(),
                late: true,
                raw_bytes: 8 << 20,
                only_raw_bytes: 2 << 20,
                only_stored_bytes: 1 << 20,
            }],
            problems: Vec::new(),
        };
        let text = stats(&report, false);
        for line in [
            "deduplicated     4.00 MiB  1/4.0 and 2.00 MiB of lists",
            "compressed       2.00 MiB  1/2.0",
            "stored           3.00 MiB  in 3 packs",
            "database      3      4.00 MiB    2.00 MiB  3.00 MiB  900.00 KiB  124.00 KiB        0 B",
            "3f9a0c11  2026-11-23T02:00:04Z  8.00 MiB   2.00 MiB  1.00 MiB  example.org, late",
        ] {
            assert!(text.lines().any(|got| got == line), "{line:?} in\n{text}");
        }
    }
}
