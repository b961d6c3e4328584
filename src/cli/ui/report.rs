//! The last line of `--json`: one object that says how the run ended, whatever happened.
//!
//! Every report has the same keys, and each verb adds those of its own report, under the names that the structs in
//! `ops` give them. Events and items are lines of their own, elsewhere.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::error::Told;
use super::progress::rounded;
use super::signing_keys::old_signing_keys;
use crate::cli::exit::Outcome;
use crate::cli::system;
use crate::store::counters::Totals;

/// What every report says.
#[derive(Debug)]
pub(crate) struct End<'a> {
    /// As typed; `None` when no command could be made out.
    pub(crate) command: Option<&'a str>,
    /// The exit code.
    pub(crate) exit_code: u8,
    /// Why it failed.
    pub(crate) error: Option<&'a Told>,
    /// How long it took.
    pub(crate) time: Duration,
    /// What went to the store and came back.
    pub(crate) totals: &'a Totals,
    /// The most memory the process ever held.
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// The line, without its end.
pub(crate) fn report(end: &End<'_>, outcome: Option<&Outcome>) -> Result<String, serde_json::Error> {
    let mut fields: Vec<(String, Value)> = vec![
        ("type".into(), "report".into()),
        ("command".into(), end.command.into()),
        ("exit_code".into(), end.exit_code.into()),
        ("problems".into(), Value::Array(Vec::new())),
        ("error".into(), serde_json::to_value(end.error)?),
        ("seconds".into(), rounded(end.time).into()),
    ];
    fields.push(("requests".into(), serde_json::to_value(end.totals.requests)?));
    fields.push(("sent_bytes".into(), end.totals.sent_bytes.into()));
    fields.push(("received_bytes".into(), end.totals.received_bytes.into()));
    fields.push(("peak_memory_bytes".into(), end.peak_memory_bytes.into()));
    for (name, value) in outcome.map(of_verb).transpose()?.unwrap_or_default() {
        match fields.iter_mut().find(|(other, _)| *other == name) {
            Some((_, slot)) => *slot = value,
            None => fields.push((name, value)),
        }
    }
    serde_json::to_string(&Line(fields))
}

/// What the verb adds.
fn of_verb(outcome: &Outcome) -> Result<Vec<(String, Value)>, serde_json::Error> {
    let value = match outcome {
        Outcome::Created { url, sealed: None } => serde_json::json!({ "repository": url }),
        Outcome::Created { url, sealed: Some(to) } => {
            serde_json::json!({ "repository": url, "recipients": to.recipients, "signer": to.signer })
        }
        Outcome::BackedUp(report) => serde_json::to_value(report)?,
        Outcome::Snapshots(report) => serde_json::to_value(report)?,
        Outcome::Shown(report) => serde_json::json!({
            "snapshot": serde_json::to_value(&report.snapshot)?,
            "late": report.late,
            "signer": report.signer,
            "doubt": report.doubt,
            "old_signing_keys": old_signing_keys(&report.snapshot, system::now()),
            "drilled": serde_json::to_value(&report.drilled)?,
            "problems": serde_json::to_value(&report.problems)?,
        }),
        Outcome::Restored { report, .. } => serde_json::to_value(report)?,
        Outcome::Copied { report, .. } => serde_json::to_value(report)?,
        Outcome::Verified(report) => serde_json::to_value(report)?,
        Outcome::Pruned(report) => serde_json::to_value(report)?,
        Outcome::Drilled(report) => serde_json::to_value(report)?,
        Outcome::Examined(report) => serde_json::to_value(report)?,
        Outcome::Extended(report) => serde_json::to_value(report)?,
        Outcome::Forgot(report) => serde_json::to_value(report)?,
        Outcome::Counted(report) => serde_json::to_value(report)?,
        Outcome::Tagged(report) => serde_json::to_value(report)?,
        Outcome::Keys(report) => serde_json::to_value(report)?,
        Outcome::RecipientsChanged(change) => serde_json::to_value(change)?,
        Outcome::Rekeyed(report) => serde_json::to_value(report)?,
        Outcome::Adopted(report) => serde_json::to_value(report)?,
        Outcome::Printed => Value::Null,
    };
    Ok(match value {
        Value::Object(fields) => fields.into_iter().collect(),
        _ => Vec::new(),
    })
}

/// An object whose fields keep their order, `type` first.
struct Line(Vec<(String, Value)>);

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::ops::backup;

    fn end<'a>(error: Option<&'a Told>, totals: &'a Totals) -> End<'a> {
        End {
            command: Some("backup"),
            exit_code: 0,
            error,
            time: Duration::from_millis(1_500),
            totals,
            peak_memory_bytes: Some(9),
        }
    }

    #[test]
    fn a_failed_run_has_all_common_keys() {
        let told = Told {
            message: "m".into(),
            cause: None,
            hint: Some("h".into()),
        };
        let totals = Totals {
            sent_bytes: 5,
            received_bytes: 7,
            ..Totals::default()
        };
        let line = report(&end(Some(&told), &totals), None).unwrap();
        assert_eq!(
            line,
            r#"{"type":"report","command":"backup","exit_code":0,"problems":[],"error":{"cause":null,"hint":"h","message":"m"},"seconds":1.5,"requests":{"abort":0,"complete":0,"copy":0,"create":0,"delete":0,"get":0,"head":0,"list":0,"part":0,"put":0},"sent_bytes":5,"received_bytes":7,"peak_memory_bytes":9}"#
        );
    }

    #[test]
    fn a_verb_adds_its_keys_and_never_doubles_one() {
        let outcome = Outcome::BackedUp(backup::Report {
            server_name: "example.org".into(),
            ..backup::Report::default()
        });
        let line = report(&end(None, &Totals::default()), Some(&outcome)).unwrap();
        assert_eq!(line.matches("\"problems\"").count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["server_name"], "example.org");
        assert_eq!(value["error"], Value::Null);
        for key in ["files", "bytes", "new", "unchanged", "missing", "deferred"] {
            assert_eq!(value["media"][key], 0, "{key}");
        }
    }
}
