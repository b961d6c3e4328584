//! What a prune did, or would do: bytes first, since they are what it is run for.
//!
//! What is not ours is named, so that a person can look at it: nothing ever deletes it.

use std::fmt::Write as _;

use crate::cli::ui::text::{Colour, bytes, count, counted, escaped};
use crate::ops::prune;
use crate::repo::sweep::Plan;

use super::label;

/// Objects that are not ours are named up to so many.
const FOREIGN_SHOWN: usize = 5;

pub(super) fn pruned(out: &mut String, report: &prune::Report, colour: bool) {
    let plan = &report.plan;
    let heading = if report.dry_run { "dry run, nothing was touched" } else { "pruned" };
    let _ = writeln!(out, "{}", Colour::Bold.paint(heading, colour));
    snapshots(out, report);
    let totals = &report.totals;
    let there = format!(
        "{} in {}, of {}",
        bytes(totals.pack_bytes),
        counted(totals.packs, "pack"),
        counted(totals.snapshots, "snapshot")
    );
    label(out, "there", &there);
    label(out, "now", &format!("{} back, {}", bytes(plan.bytes_now), packs(plan.delete.len())));
    let marked = packs(plan.condemn.len() + plan.repack.len());
    label(
        out,
        "later",
        &format!(
            "{} back after the grace period of {}; {marked} marked",
            bytes(plan.bytes_after_grace),
            grace(plan.grace_seconds)
        ),
    );
    if !plan.repack.is_empty() {
        let from = packs(plan.repack.len());
        label(out, "moved", &format!("{} out of {from}", bytes(plan.bytes_moved)));
    }
    label(out, "requests", &format!("about {}", count(plan.requests)));
    rest(out, report, plan);
}

/// Which go. Which stay, and why, is a table of its own.
fn snapshots(out: &mut String, report: &prune::Report) {
    let gone = report.snapshots.iter().filter(|one| one.forgotten).count();
    let stay = report.snapshots.len() - gone;
    label(out, "snapshots", &format!("{gone} forgotten, {stay} stay"));
}

fn rest(out: &mut String, report: &prune::Report, plan: &Plan) {
    if let Some(compacted) = report.compacted.filter(|compacted| compacted.merged > 0) {
        let into = format!("{} into {}", counted(compacted.merged, "segment"), compacted.written);
        label(out, "index", &into);
    }
    if let Some(versions) = &report.versions {
        let failed = match versions.failed {
            0 => String::new(),
            failed => format!(", {} failed", count(failed)),
        };
        let line = format!(
            "{} back from {}; {} too young, {} held by the store{failed}",
            bytes(versions.bytes),
            counted(versions.versions, "old version"),
            count(versions.young),
            count(versions.held)
        );
        label(out, "versions", &line);
    }
    if let Some(versions) = report.versions.as_ref().filter(|versions| versions.overwritten > 0) {
        let names: Vec<_> = versions
            .overwritten_keys
            .iter()
            .take(FOREIGN_SHOWN)
            .map(|key| escaped(key))
            .collect();
        let line = format!(
            "{}, which this program never does; their older versions stay: {}",
            counted(versions.overwritten, "overwritten key"),
            names.join(", ")
        );
        label(out, "", &line);
    }
    if let Some(price) = report.price.as_ref().filter(|price| price.early_bytes > 0) {
        let line = format!(
            "{} go before the {} days that {} charges for",
            bytes(price.early_bytes),
            price.minimum.days,
            escaped(&price.minimum.name)
        );
        label(out, "price", &line);
    }
    if !plan.foreign.is_empty() {
        let names: Vec<_> = plan.foreign.iter().take(FOREIGN_SHOWN).map(|key| escaped(key)).collect();
        let line = format!("{}, left alone: {}", counted(plan.foreign_count, "object"), names.join(", "));
        label(out, "not ours", &line);
    }
}

/// Why the prune that this was a dry run of would do nothing.
pub(super) fn stopped_by(out: &mut String, signs: &[prune::Sign], colour: bool) {
    if signs.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let heading = "nothing of this is done without --yes-really";
    let _ = writeln!(out, "{}", Colour::Red.paint(heading, colour));
    for sign in signs {
        let _ = writeln!(out, "  {}\n    {}", escaped(&sign.message), escaped(&sign.hint));
    }
}

fn packs(number: usize) -> String {
    counted(number as u64, "pack")
}

fn grace(seconds: i64) -> String {
    match seconds {
        0..3600 => format!("{seconds} s"),
        _ => format!("{} h", seconds / 3600),
    }
}
