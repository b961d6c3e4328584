//! The text that `node_exporter` reads: one figure a line, for each command what its last run came to.
//!
//! Each run writes the whole file anew out of what stands in it and its own figures, so that a failure takes away neither the
//! time of the last success nor what other commands and other repositories have told. Pure: no file is touched here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A figure's name after `synapse_backup_`, whether it outlives a run that does not tell it, and what it means.
type Metric = (&'static str, Lives, &'static str);

/// How long a figure stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lives {
    /// Until the next run of the same command.
    OneRun,
    /// Until a run tells it anew.
    On,
    /// Until a run tells a later one: an old snapshot may be drilled after a new one.
    Latest,
}

const PREFIX: &str = "synapse_backup_";

/// All figures, in the order of the file.
const METRICS: [Metric; 12] = [
    (
        "last_run_time_seconds",
        Lives::OneRun,
        "When the last run ended, in seconds since 1970.",
    ),
    (
        "last_success_time_seconds",
        Lives::On,
        "When the last run with exit code 0 ended, in seconds since 1970.",
    ),
    ("success", Lives::OneRun, "1 if the last run had exit code 0, else 0."),
    ("exit_code", Lives::OneRun, "Exit code of the last run."),
    ("duration_seconds", Lives::OneRun, "How long the last run took."),
    ("sent_bytes", Lives::OneRun, "Bytes that the last run sent to the store."),
    ("received_bytes", Lives::OneRun, "Bytes that the last run got from the store."),
    ("problems", Lives::OneRun, "Problems that the last run found."),
    (
        "snapshot_time_seconds",
        Lives::On,
        "When the newest snapshot was taken, by the store's clock, in seconds since 1970.",
    ),
    (
        "drill_seconds",
        Lives::On,
        "How long the last drill took until the homeserver would live again.",
    ),
    ("drill_success", Lives::OneRun, "1 if the last drill passed, else 0."),
    (
        "drill_snapshot_time_seconds",
        Lives::Latest,
        "When the newest snapshot that passed a drill was taken, in seconds since 1970.",
    ),
];

/// Whose figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    /// `backup`, `drill` …
    pub(super) command: String,
    /// Empty where the run is about all homeservers, or does not know.
    pub(super) server_name: String,
    /// The repository's URL.
    pub(super) repository: String,
}

/// Figures by the name in [`METRICS`], as they are written.
pub(super) type Figures = BTreeMap<&'static str, String>;

/// The file's new text. `standing` is the old one; what cannot be read in it is left out.
pub(super) fn merged(standing: &str, labels: &Labels, figures: &Figures) -> String {
    let mut all: BTreeMap<(usize, Labels), String> = standing.lines().filter_map(read_line).collect();
    let ours = with_known_name(labels, &all);
    all.retain(|(metric, theirs), _| {
        let nameless = theirs.server_name.is_empty() && theirs.command == ours.command && theirs.repository == ours.repository;
        *theirs != ours && !nameless || *theirs == ours && METRICS[*metric].1 != Lives::OneRun
    });
    for (metric, (name, lives, _)) in METRICS.iter().enumerate() {
        let Some(value) = figures.get(name) else { continue };
        let slot = all.entry((metric, ours.clone())).or_insert_with(|| value.clone());
        if *lives != Lives::Latest || number(value) > number(slot) {
            slot.clone_from(value);
        }
    }
    written(&all)
}

fn number(value: &str) -> f64 {
    value.parse().unwrap_or_default()
}

/// A run that broke off early does not know whose homeserver it was about; the runs before it did.
fn with_known_name(labels: &Labels, all: &BTreeMap<(usize, Labels), String>) -> Labels {
    let mut names: Vec<&str> = all
        .keys()
        .map(|(_, theirs)| theirs)
        .filter(|theirs| theirs.command == labels.command && theirs.repository == labels.repository && !theirs.server_name.is_empty())
        .map(|theirs| theirs.server_name.as_str())
        .collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [name] if labels.server_name.is_empty() => Labels {
            server_name: (*name).to_owned(),
            ..labels.clone()
        },
        _ => labels.clone(),
    }
}

fn written(all: &BTreeMap<(usize, Labels), String>) -> String {
    let mut out = String::new();
    for (metric, (name, _, help)) in METRICS.iter().enumerate() {
        let mut lines = all.iter().filter(|((of, _), _)| *of == metric).peekable();
        if lines.peek().is_none() {
            continue;
        }
        let _ = writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} gauge");
        for ((_, labels), value) in lines {
            let _ = write!(out, "{PREFIX}{name}{{command=\"{}\"", escaped(&labels.command));
            // For Prometheus an empty label is none.
            for (label, value) in [("server_name", &labels.server_name), ("repository", &labels.repository)] {
                if !value.is_empty() {
                    let _ = write!(out, ",{label}=\"{}\"", escaped(value));
                }
            }
            let _ = writeln!(out, "}} {value}");
        }
    }
    out
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `None` for comments, and for what this version does not write.
fn read_line(line: &str) -> Option<((usize, Labels), String)> {
    let (name, rest) = line.strip_prefix(PREFIX)?.split_once('{')?;
    let metric = METRICS.iter().position(|(known, _, _)| *known == name)?;
    let mut labels = Labels::default();
    let mut rest = rest;
    loop {
        let (label, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        match label {
            "command" => labels.command = value,
            "server_name" => labels.server_name = value,
            "repository" => labels.repository = value,
            _ => return None,
        }
        let Some(more) = after.strip_prefix(',') else {
            let value = after.strip_prefix("} ")?;
            value.parse::<f64>().ok()?;
            return Some(((metric, labels), value.to_owned()));
        };
        rest = more;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(command: &str, server_name: &str) -> Labels {
        Labels {
            command: command.into(),
            server_name: server_name.into(),
            repository: "s3://offsite/matrix".into(),
        }
    }

    fn figures(given: &[(&'static str, &str)]) -> Figures {
        given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn a_run_is_written_with_help_and_type() {
        let text = merged(
            "",
            &labels("backup", "example.org"),
            &figures(&[("exit_code", "0"), ("success", "1")]),
        );
        assert_eq!(
            text,
            "# HELP synapse_backup_success 1 if the last run had exit code 0, else 0.\n\
             # TYPE synapse_backup_success gauge\n\
             synapse_backup_success{command=\"backup\",server_name=\"example.org\",repository=\"s3://offsite/matrix\"} 1\n\
             # HELP synapse_backup_exit_code Exit code of the last run.\n\
             # TYPE synapse_backup_exit_code gauge\n\
             synapse_backup_exit_code{command=\"backup\",server_name=\"example.org\",repository=\"s3://offsite/matrix\"} 0\n"
        );
    }

    #[test]
    fn a_failure_keeps_the_last_success_and_all_that_others_told() {
        let good = figures(&[
            ("last_success_time_seconds", "1000"),
            ("success", "1"),
            ("sent_bytes", "5"),
            ("snapshot_time_seconds", "900"),
        ]);
        let text = merged("", &labels("backup", "example.org"), &good);
        let text = merged(&text, &labels("prune", ""), &figures(&[("success", "1")]));
        let text = merged(
            &text,
            &labels("backup", "other.org"),
            &figures(&[("success", "1"), ("sent_bytes", "7")]),
        );
        let text = merged(&text, &labels("backup", "example.org"), &figures(&[("success", "0")]));
        let of = |name: &str, rest: &str| {
            text.contains(&format!(
                "synapse_backup_{name}{{command={rest},repository=\"s3://offsite/matrix\"}}"
            ))
        };
        for (name, whose, is_there) in [
            ("last_success_time_seconds", "\"backup\",server_name=\"example.org\"", true),
            ("snapshot_time_seconds", "\"backup\",server_name=\"example.org\"", true),
            ("sent_bytes", "\"backup\",server_name=\"example.org\"", false),
            ("sent_bytes", "\"backup\",server_name=\"other.org\"", true),
            ("success", "\"prune\"", true),
        ] {
            assert_eq!(of(name, whose), is_there, "{name} {whose}\n{text}");
        }
        assert!(
            text.contains("success{command=\"backup\",server_name=\"example.org\",repository=\"s3://offsite/matrix\"} 0\n"),
            "{text}"
        );
        assert_eq!(text.matches("# HELP synapse_backup_success ").count(), 1, "{text}");
    }

    #[test]
    fn a_run_that_broke_off_early_is_the_one_that_was_meant() {
        let failed = figures(&[("success", "0")]);
        // Nobody knows yet whose it is; as soon as somebody does, the nameless figures are gone.
        let text = merged("", &labels("backup", ""), &failed);
        assert!(text.contains("{command=\"backup\",repository="), "{text}");
        let text = merged(&text, &labels("backup", "example.org"), &figures(&[("success", "1")]));
        assert_eq!(text.matches("success{").count(), 1, "{text}");
        let text = merged(&text, &labels("backup", ""), &failed);
        assert!(
            text.ends_with("server_name=\"example.org\",repository=\"s3://offsite/matrix\"} 0\n"),
            "{text}"
        );
        // With two homeservers it can be either.
        let text = merged(&text, &labels("backup", "other.org"), &failed);
        let text = merged(&text, &labels("backup", ""), &failed);
        assert_eq!(text.matches("success{").count(), 3, "{text}");
    }

    #[test]
    fn a_drill_of_an_old_snapshot_takes_nothing_back() {
        let drill = labels("drill", "example.org");
        let told = |time| figures(&[("drill_snapshot_time_seconds", time), ("drill_seconds", time)]);
        let mut text = String::new();
        for (time, wanted) in [("900", "900"), ("100", "900"), ("1000", "1000")] {
            text = merged(&text, &drill, &told(time));
            let line = |name: &str, value: &str| {
                text.contains(&format!(
                    "{name}{{command=\"drill\",server_name=\"example.org\",repository=\"s3://offsite/matrix\"}} {value}\n"
                ))
            };
            assert!(line("drill_snapshot_time_seconds", wanted) && line("drill_seconds", time), "{text}");
        }
    }

    #[test]
    fn labels_of_every_kind_come_back() {
        let odd = Labels {
            repository: "file:///a \"b\\c\n},x=\"".into(),
            ..labels("verify", "")
        };
        let text = merged("", &odd, &figures(&[("last_success_time_seconds", "5")]));
        assert_eq!(text.lines().count(), 3, "{text}");
        let again = merged(&text, &odd, &figures(&[("success", "0")]));
        assert!(again.starts_with(&text), "{again}");
    }

    #[test]
    fn what_is_not_ours_is_left_out() {
        let standing = "node_load1 0.5\nsynapse_backup_success{command=\"prune\"\nsynapse_backup_success{command=\"x\"} high\n\
                        synapse_backup_of_later{command=\"x\"} 1\nsynapse_backup_success{job=\"x\"} 1\n\u{0}\n";
        assert_eq!(merged(standing, &labels("backup", ""), &Figures::new()), "");
    }
}
