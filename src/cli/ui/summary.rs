//! What a run did, for people: a few lines at its end, and the problems that need somebody's eyes.
//!
//! Everything comes from the verb's report and the request counters; nothing is counted here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::text::{Colour, bytes, count, counted, escaped, seconds};
use crate::cli::exit::{Outcome, SealedTo};
use crate::format::snapshot::Problem;
use crate::ops::{backup, restore, verify};
use crate::store::counters::Totals;

mod copy;
mod drill;
mod extend;
mod forget;
mod prune;
mod rekey;

/// More problems than these are counted only; `show --problems` lists them.
const PROBLEMS_SHOWN: usize = 20;
/// Where the second column begins.
const LABEL_COLUMNS: usize = 10;

/// The lines for standard error; nothing where the data said it all. With `problems_only` (`-q`) what went well is left out.
pub(crate) fn summary(outcome: &Outcome, totals: &Totals, time: Duration, problems_only: bool, colour: bool) -> String {
    let mut out = String::new();
    let (problems, total, more) = match outcome {
        Outcome::BackedUp(report) => {
            backed_up(&mut out, report, colour);
            let more = report
                .snapshot
                .as_ref()
                .map(|id| format!("synapse-backup show {} --problems", short(id)));
            (report.problems.as_slice(), report.problem_count, more)
        }
        Outcome::Restored { report, dry_run } => {
            restored(&mut out, report, *dry_run, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::Verified(report) => {
            verified(&mut out, report, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::Extended(report) => {
            extend::extended(&mut out, report, colour);
            (&[][..], 0, None)
        }
        Outcome::Rekeyed(report) => {
            rekey::rekeyed(&mut out, report, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::RecipientsChanged(change) => {
            rekey::changed(&mut out, change);
            (&[][..], 0, None)
        }
        Outcome::Pruned(report) => {
            prune::pruned(&mut out, report, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::Drilled(report) => {
            drill::drilled(&mut out, report, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::Copied { report, dry_run } => {
            copy::copied(&mut out, report, *dry_run, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::Forgot(report) => {
            forget::forgotten(&mut out, report, colour);
            (&[][..], 0, None)
        }
        Outcome::Tagged(report) => {
            forget::tagged(&mut out, report);
            (&[][..], 0, None)
        }
        Outcome::Adopted(report) => {
            forget::adopted(&mut out, report, colour);
            (report.problems.as_slice(), report.problems.len() as u64, None)
        }
        Outcome::Created { url, sealed } => {
            let _ = writeln!(out, "created a repository at {}", escaped(url));
            if let Some(to) = sealed {
                sealed_to(&mut out, to);
            }
            (&[][..], 0, None)
        }
        Outcome::Keys(report) => (report.problems.as_slice(), report.problems.len() as u64, None),
        Outcome::Snapshots(report) => (report.problems.as_slice(), report.problems.len() as u64, None),
        Outcome::Counted(report) => (report.problems.as_slice(), report.problems.len() as u64, None),
        Outcome::Shown(_) | Outcome::Examined(_) | Outcome::Printed => (&[][..], 0, None),
    };
    if matches!(
        outcome,
        Outcome::BackedUp(_)
            | Outcome::Restored { .. }
            | Outcome::Verified(_)
            | Outcome::Copied { .. }
            | Outcome::Drilled(_)
            | Outcome::Extended(_)
            | Outcome::Pruned(_)
            | Outcome::Rekeyed(_)
    ) {
        went(&mut out, totals, time);
    }
    if problems_only {
        out.clear();
    }
    list_problems(&mut out, problems, total, more.as_deref(), colour);
    if let Outcome::Pruned(report) = outcome {
        prune::stopped_by(&mut out, &report.stopped_by, colour);
    }
    if let (Outcome::Restored { report, .. }, false) = (outcome, problems_only) {
        steps(&mut out, "what to do first", &report.first_steps, colour);
        steps(&mut out, "what to do next", &report.next_steps, colour);
    }
    out
}

/// Enough of an id to name it.
pub(super) fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

pub(super) fn label(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "  {name:LABEL_COLUMNS$}{text}");
}

/// What must be kept elsewhere is told once, when it is made.
fn sealed_to(out: &mut String, to: &SealedTo) {
    let alone = match to.recipients {
        1 => "; add a second one, whose identity lies in a safe: docs/keys.md",
        _ => "",
    };
    label(out, "sealed", &format!("to {}{alone}", counted(to.recipients, "recipient")));
    label(
        out,
        "writer",
        &format!("key in {}, which stays here", escaped(&to.writer_key_file.display().to_string())),
    );
    label(out, "signer", &escaped(&to.signer));
    label(
        out,
        "",
        "write the signer down, beside the identities: a restorer believes its signature",
    );
}

fn backed_up(out: &mut String, report: &backup::Report, colour: bool) {
    let heading = match &report.snapshot {
        Some(id) => format!("snapshot {}", escaped(id)),
        None => "dry run, nothing was sent".to_owned(),
    };
    let time = report.time.as_ref().map(|time| format!(", {}", escaped(time))).unwrap_or_default();
    let heading = Colour::Bold.paint(&heading, colour);
    let _ = writeln!(out, "{heading} of {}{time}", escaped(&report.server_name));
    label(out, "read", &bytes(report.read_bytes));
    label(out, "new", &format!("{} before compression", bytes(report.new_bytes)));
    for database in &report.databases {
        let line = format!(
            "{}: {} in {} ({}), {} new",
            escaped(&database.name),
            bytes(database.read_bytes),
            counted(database.streams, "stream"),
            counted(database.tables, "table"),
            bytes(database.new_bytes)
        );
        label(out, "database", &line);
    }
    let media = &report.media;
    let states = [
        (media.new, "new"),
        (media.unchanged, "unchanged"),
        (media.missing, "missing"),
        (media.short, "short"),
        (media.changed, "changed"),
        (media.hash_differs, "with another hash"),
        (media.unreadable, "unreadable"),
        (media.not_a_file, "not a file"),
        (media.deferred, "deferred"),
        (media.accepted, "lost and accepted"),
        (media.elsewhere, "from a storage provider"),
        (media.quarantined, "quarantined"),
        (media.not_uploaded, "not uploaded yet"),
        (media.deleted, "deleted meanwhile"),
        (media.thumbnails_missing, "thumbnails that Synapse will make again"),
    ];
    let states: Vec<String> = states
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, state)| format!("{} {state}", count(*number)))
        .collect();
    let colon = if states.is_empty() { "" } else { ": " };
    let line = format!(
        "{}, {}{colon}{}",
        counted(media.files, "file"),
        bytes(media.bytes),
        states.join(", ")
    );
    label(out, "media", &line);
    label(out, "config", &counted(report.config_items, "item"));
    if let Some(lock) = &report.object_lock {
        extend::on_the_way(out, lock);
    }
}

fn restored(out: &mut String, report: &restore::Report, dry_run: bool, colour: bool) {
    let heading = if dry_run {
        format!("dry run, nothing was written; snapshot {}", escaped(&report.snapshot))
    } else {
        format!("restored snapshot {}", escaped(&report.snapshot))
    };
    out.push_str(&Colour::Bold.paint(&heading, colour));
    out.push('\n');
    if dry_run {
        for line in &report.plan {
            let _ = writeln!(out, "  {}", escaped(line));
        }
        return;
    }
    for database in &report.databases {
        label(out, "database", &escaped(database));
    }
    for database in &report.databases_kept {
        label(out, "database", &format!("{}: was there already, whole", escaped(database)));
    }
    let kept = match report.media_kept {
        0 => String::new(),
        kept => format!(", {} were there already", count(kept)),
    };
    label(out, "media", &format!("{}{kept}", counted(report.media_files, "file")));
    label(out, "config", &counted(report.config_items, "item"));
    if report.remote_media_forgotten > 0 {
        let rows = counted(report.remote_media_forgotten, "row");
        label(
            out,
            "forgotten",
            &format!("{rows} of other servers' media, whose files are not in the snapshot"),
        );
    }
    label(out, "written", &bytes(report.written_bytes));
    for key in report.signing_keys.iter().filter(|key| key.in_place) {
        let place = key.path.as_ref().map_or_else(String::new, |path| format!(" in {path}"));
        let line = format!("{} {} is in place{place}", key.id, key.public_key);
        label(out, "key", &escaped(&line));
    }
}

fn verified(out: &mut String, report: &verify::Report, colour: bool) {
    let heading = if report.problems.is_empty() {
        Colour::Green.paint("all is there", colour)
    } else {
        Colour::Red.paint("damaged", colour)
    };
    let _ = write!(out, "{heading}: ");
    let read = match report.blobs_read {
        0 => "none read".to_owned(),
        blobs => format!("{} read and hashed", count(blobs)),
    };
    let _ = writeln!(
        out,
        "{}, {}, {} ({read})",
        counted(report.snapshots, "snapshot"),
        counted(report.packs, "pack"),
        counted(report.blobs, "blob")
    );
    if report.streams_read > 0 {
        let _ = writeln!(out, "{} read to the end by pg_restore", counted(report.streams_read, "dump stream"));
    }
    if let Some(repaired) = &report.repaired {
        let line = format!(
            "{} and {} named again in {}, of {}",
            counted(repaired.packs, "pack"),
            counted(repaired.blobs, "blob"),
            counted(repaired.segments, "new segment"),
            counted(repaired.tables, "table")
        );
        label(out, "index", &line);
    }
}

/// What it took.
fn went(out: &mut String, totals: &Totals, time: Duration) {
    let line = format!(
        "{}, {} sent, {} received, {}",
        seconds(time),
        bytes(totals.sent_bytes),
        bytes(totals.received_bytes),
        counted(totals.requests.sum(), "request")
    );
    label(out, "took", &line);
}

fn list_problems(out: &mut String, problems: &[Problem], total: u64, more: Option<&str>, colour: bool) {
    let total = total.max(problems.len() as u64);
    if total == 0 {
        return;
    }
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for problem in problems {
        *kinds.entry(kind(problem)).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, number)| format!("{} {kind}", count(*number))).collect();
    let all_counted = total == problems.len() as u64;
    let kinds = if all_counted {
        format!(" ({})", kinds.join(", "))
    } else {
        String::new()
    };
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{}{kinds}", Colour::Yellow.paint(&counted(total, "problem"), colour));
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        let kind = Colour::Yellow.paint(&format!("{:12}", kind(problem)), colour);
        let _ = writeln!(out, "  {kind}  {}: {}", escaped(&problem.item), escaped(&problem.message));
    }
    let hidden = total - problems.len().min(PROBLEMS_SHOWN) as u64;
    if hidden > 0 {
        let how = more.map(|command| format!("; all of them: {command}")).unwrap_or_default();
        let _ = writeln!(out, "  and {} more{how}", count(hidden));
    }
}

/// The kind's word, as in JSON.
pub(super) fn kind(problem: &Problem) -> String {
    serde_json::to_value(problem.kind)
        .ok()
        .and_then(|kind| kind.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn steps(out: &mut String, heading: &str, steps: &[String], colour: bool) {
    if steps.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", Colour::Bold.paint(heading, colour));
    for (at, step) in steps.iter().enumerate() {
        for (line_at, line) in step.lines().enumerate() {
            let lead = if line_at == 0 { format!("{:>3}. ", at + 1) } else { " ".repeat(5) };
            let _ = writeln!(out, "{lead}{}", escaped(line));
        }
    }
}

#[cfg(test)]
mod tests;
