//! What a copy did: which snapshots are on the other side now.
//!
//! Problems are listed by the caller, as for every verb.

use std::fmt::Write as _;

use super::{label, short};
use crate::cli::ui::text::{Colour, bytes, counted, escaped};
use crate::ops::copy::Report;

pub(super) fn copied(out: &mut String, report: &Report, dry_run: bool, colour: bool) {
    let number = report.copied.len() as u64;
    let heading = match (dry_run, number) {
        (true, _) => format!("dry run, nothing was sent; {} would be copied", counted(number, "snapshot")),
        (false, 0) => "nothing to copy".to_owned(),
        (false, _) => format!("copied {}", counted(number, "snapshot")),
    };
    let _ = writeln!(out, "{} to {}", Colour::Bold.paint(&heading, colour), escaped(&report.to));
    for line in &report.copied {
        let text = format!("{}  {}  {}", short(&line.id), escaped(&line.time), escaped(&line.server_name));
        label(out, "snapshot", &text);
    }
    if report.present > 0 {
        label(out, "there", &counted(report.present, "snapshot"));
    }
    if !dry_run {
        let line = format!("{} of {}", bytes(report.new_bytes), counted(report.blobs, "blob"));
        label(out, "new", &line);
    }
}
