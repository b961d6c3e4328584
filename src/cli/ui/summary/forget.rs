//! What was forgotten by hand, tagged or adopted, for people: a line for each snapshot.
//!
//! What goes wrong with single ones follows as problems, like those of every verb.

use std::fmt::Write as _;

use super::{label, short};
use crate::cli::ui::text::{Colour, counted, escaped};
use crate::ops::{adopt, forget, tag};

pub(super) fn forgotten(out: &mut String, report: &forget::Report, colour: bool) {
    let number = counted(report.forgotten.len() as u64, "snapshot");
    let heading = if report.dry_run {
        format!("dry run, nothing was deleted; {number} would be forgotten")
    } else {
        format!("{number} forgotten")
    };
    let _ = writeln!(out, "{}", Colour::Bold.paint(&heading, colour));
    for one in &report.forgotten {
        let what = match (&one.time, &one.server_name) {
            (Some(time), Some(server_name)) => format!("{time} of {server_name}"),
            _ => "cannot be read".into(),
        };
        let late = if one.late { ", late" } else { "" };
        let tags = if one.tags.is_empty() {
            String::new()
        } else {
            format!(", {}", one.tags.join(", "))
        };
        label(out, &short(&one.id), &escaped(&format!("{what}{late}{tags}")));
    }
    if !report.dry_run {
        label(out, "room", "`synapse-backup prune` gives back what nothing else needs");
    }
}

pub(super) fn tagged(out: &mut String, report: &tag::Report) {
    let tags = if report.tags.is_empty() {
        "no tags".to_owned()
    } else {
        report.tags.join(", ")
    };
    let _ = writeln!(out, "snapshot {}: {}", escaped(&short(&report.snapshot)), escaped(&tags));
}

pub(super) fn adopted(out: &mut String, report: &adopt::Report, colour: bool) {
    let heading = format!("{} adopted", counted(report.adopted.len() as u64, "snapshot"));
    let _ = writeln!(out, "{}", Colour::Bold.paint(&heading, colour));
    for id in &report.adopted {
        label(out, &short(id), "counts from now on");
    }
    for id in &report.listed_already {
        label(out, &short(id), "counted already");
    }
    if report.originals_left > 0 {
        let left = counted(report.originals_left, "late original");
        label(out, "left", &format!("{left} could not be deleted and does no harm"));
    }
}
