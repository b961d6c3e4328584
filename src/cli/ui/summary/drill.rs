//! What a drill came to, for people: one line for each check, with its figure.
//!
//! What was found wrong follows as problems, like those of every verb.

use std::fmt::Write as _;

use super::{label, short};
use crate::cli::ui::text::{Colour, escaped};
use crate::ops::drill::Report;

pub(super) fn drilled(out: &mut String, report: &Report, colour: bool) {
    let heading = if report.passed {
        Colour::Green.paint("would live again", colour)
    } else {
        Colour::Red.paint("would not be whole", colour)
    };
    let _ = writeln!(
        out,
        "{heading}: snapshot {} of {}, {} (media: {})",
        escaped(&short(&report.snapshot)),
        escaped(&report.server_name),
        escaped(&report.time),
        escaped(&report.media)
    );
    let wide = report
        .checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or_default();
    for check in &report.checks {
        let word = if check.ok {
            Colour::Green.paint("ok    ", colour)
        } else {
            Colour::Red.paint("FAILED", colour)
        };
        let _ = writeln!(out, "  {word}  {:wide$}  {}", escaped(&check.name), escaped(&check.figure));
    }
    let recorded = if report.recorded { "in the repository" } else { "no" };
    label(out, "recorded", recorded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::drill::Check;

    #[test]
    fn every_check_has_its_line_and_its_figure() {
        let check = |name: &str, ok, figure: &str| Check {
            name: name.into(),
            ok,
            figure: figure.into(),
        };
        let report = Report {
            snapshot: "3f9a0c11d2e4b5a697887766554433aa".into(),
            server_name: "example.org".into(),
            time: "2026-11-23T02:00:04Z".into(),
            media: "all".into(),
            passed: false,
            recorded: true,
            drill_seconds: 12.5,
            checks: vec![
                check("synapse: rows", true, "12 rows in 3 tables"),
                check("media", false, "7 rows; 1 found wrong"),
            ],
            problems: Vec::new(),
        };
        let mut out = String::new();
        drilled(&mut out, &report, false);
        assert_eq!(
            out,
            "would not be whole: snapshot 3f9a0c11 of example.org, 2026-11-23T02:00:04Z (media: all)\n\
             \x20 ok      synapse: rows  12 rows in 3 tables\n\
             \x20 FAILED  media          7 rows; 1 found wrong\n\
             \x20 recorded  in the repository\n"
        );
    }
}
