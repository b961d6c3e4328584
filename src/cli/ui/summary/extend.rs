//! What was held longer: a few lines for `extend`, and one for a backup that did it on the way.
//!
//! What could not be held is told in both, since it can be deleted sooner than was promised.

use std::fmt::Write as _;

use crate::cli::ui::text::{Colour, counted, escaped};
use crate::ops::extend;
use crate::repo::extend::Extended;

use super::label;

pub(super) fn extended(out: &mut String, report: &extend::Report, colour: bool) {
    let heading = format!(
        "{} held longer, of {} that {} need",
        counted(report.object_lock.extended, "object"),
        report.object_lock.needed,
        counted(report.snapshots, "snapshot")
    );
    let _ = writeln!(out, "{}", Colour::Bold.paint(&heading, colour));
    if let Some(until) = report.object_lock.until {
        label(out, "until", &until.to_string());
    }
    failed(out, &report.object_lock);
}

/// A backup says something only where there was something to do.
pub(super) fn on_the_way(out: &mut String, lock: &Extended) {
    if let Some(until) = lock.until {
        label(out, "held", &format!("{} until {until}", counted(lock.extended, "older object")));
    }
    failed(out, lock);
}

fn failed(out: &mut String, lock: &Extended) {
    if lock.failed > 0 {
        let why = lock.error.as_deref().map(escaped).unwrap_or_default();
        label(out, "not held", &format!("{}: {why}", counted(lock.failed, "object")));
        label(
            out,
            "",
            "they can be deleted sooner than promised: `synapse-backup extend` tries again",
        );
    }
}
