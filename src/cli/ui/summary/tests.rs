//! Summaries of runs, as they stand on a terminal.

use serde_json::json;

use super::*;
use crate::store::counters::Requests;

fn totals() -> Totals {
    Totals {
        requests: Requests {
            put: 3,
            part: 24,
            ..Requests::default()
        },
        sent_bytes: 4_300_000,
        received_bytes: 12_000,
    }
}

fn problem(item: &str) -> Problem {
    // Built from JSON, so that this test says the word that users read.
    let value = json!({ "kind": "missing", "item": item, "message": "no such file" });
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
}

fn backed_up_with(problems: Vec<Problem>, problem_count: u64) -> Outcome {
    Outcome::BackedUp(backup::Report {
        snapshot: Some("3f9a0c11d2e4b5a697887766554433aa".into()),
        time: Some("2026-11-23T02:00:04Z".into()),
        server_name: "example.org".into(),
        read_bytes: 1 << 30,
        new_bytes: 12 << 20,
        config_items: 14,
        media: backup::MediaReport {
            files: 20_000,
            bytes: 3 << 30,
            new: 12,
            unchanged: 19_988,
            missing: 1,
            ..backup::MediaReport::default()
        },
        databases: vec![backup::DatabaseReport {
            name: "synapse".into(),
            read_bytes: 1 << 30,
            new_bytes: 11 << 20,
            streams: 1,
            tables: 162,
        }],
        problems,
        problem_count,
        object_lock: None,
    })
}

#[test]
fn a_backup_tells_what_was_read_new_and_sent() {
    let outcome = backed_up_with(vec![problem("media/local_content/aa/bb\n/cc")], 1);
    let time = Duration::from_millis(12_300);
    assert_eq!(
        summary(&outcome, &totals(), time, false, false),
        "snapshot 3f9a0c11d2e4b5a697887766554433aa of example.org, 2026-11-23T02:00:04Z
  read      1.00 GiB
  new       12.00 MiB before compression
  database  synapse: 1.00 GiB in 1 stream (162 tables), 11.00 MiB new
  media     20,000 files, 3.00 GiB: 12 new, 19,988 unchanged, 1 missing
  config    14 items
  took      12.3 s, 4.10 MiB sent, 11.72 KiB received, 27 requests

1 problem (1 missing)
  missing       media/local_content/aa/bb\\n/cc: no such file
"
    );
}

#[test]
fn quiet_leaves_the_problems_and_nothing_else() {
    let time = Duration::from_secs(1);
    assert_eq!(summary(&backed_up_with(Vec::new(), 0), &totals(), time, true, false), "");
    assert_eq!(
        summary(&backed_up_with(vec![problem("media/x")], 1), &totals(), time, true, false),
        "1 problem (1 missing)\n  missing       media/x: no such file\n"
    );
}

#[test]
fn many_problems_are_counted_and_the_way_to_all_is_told() {
    let problems = (0..30).map(|n| problem(&format!("media/{n}"))).collect();
    let text = summary(&backed_up_with(problems, 4_000), &totals(), Duration::ZERO, true, false);
    assert!(text.starts_with("4,000 problems\n"), "{text}");
    assert!(
        text.ends_with("  and 3,980 more; all of them: synapse-backup show 3f9a0c11 --problems\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 22);
}

#[test]
fn a_restore_ends_with_what_to_do_next() {
    let outcome = Outcome::Restored {
        report: restore::Report {
            snapshot: "3f9a0c11d2e4b5a697887766554433aa".into(),
            config_items: 2,
            media_files: 3,
            written_bytes: 4_096,
            databases: vec!["synapse".into()],
            databases_kept: vec!["mas".into()],
            media_kept: 40,
            signing_keys: vec![restore::RestoredKey {
                id: "ed25519:a_x".into(),
                public_key: "A6EH".into(),
                path: Some("/etc/x.key".into()),
                in_place: true,
            }],
            next_steps: vec!["start Synapse:\nsystemctl start matrix-synapse".into(), "log in".into()],
            ..restore::Report::default()
        },
        dry_run: false,
    };
    let text = summary(&outcome, &totals(), Duration::ZERO, false, false);
    for line in [
        "  database  mas: was there already, whole\n",
        "  media     3 files, 40 were there already\n",
        "  key       ed25519:a_x A6EH is in place in /etc/x.key\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        text.ends_with("\nwhat to do next\n  1. start Synapse:\n     systemctl start matrix-synapse\n  2. log in\n"),
        "{text}"
    );
}

#[test]
fn a_dry_run_of_a_restore_prints_the_plan() {
    let outcome = Outcome::Restored {
        report: restore::Report {
            snapshot: "3f9a".into(),
            plan: vec!["load database `synapse`".into(), "write /etc/x\x1b".into()],
            first_steps: vec!["make the role:\ncreateuser synapse_user".into()],
            ..restore::Report::default()
        },
        dry_run: true,
    };
    let text = summary(&outcome, &totals(), Duration::ZERO, false, false);
    assert!(
        text.starts_with("dry run, nothing was written; snapshot 3f9a\n  load database `synapse`\n  write /etc/x\\u{1b}\n"),
        "{text}"
    );
    assert!(
        text.ends_with("\nwhat to do first\n  1. make the role:\n     createuser synapse_user\n"),
        "{text}"
    );
}

#[test]
fn what_was_held_longer_is_told_and_what_was_not() {
    let lock = crate::repo::extend::Extended {
        needed: 900,
        extended: 30,
        failed: 1,
        error: Some("packs/00/x.zst: s3://b does not allow PUT".into()),
        until: "2026-12-31T02:00:00Z".parse().ok(),
    };
    let Outcome::BackedUp(mut report) = backed_up_with(Vec::new(), 0) else {
        panic!("a backup")
    };
    report.object_lock = Some(lock.clone());
    let text = summary(&Outcome::BackedUp(report), &totals(), Duration::ZERO, false, false);
    assert!(
        text.contains(
            "  held      30 older objects until 2026-12-31T02:00:00Z
  not held  1 object: packs/00/x.zst: s3://b does not allow PUT
"
        ),
        "{text}"
    );
    let outcome = Outcome::Extended(crate::ops::extend::Report {
        snapshots: 12,
        object_lock: lock,
    });
    let text = summary(&outcome, &totals(), Duration::ZERO, false, false);
    assert!(
        text.starts_with(
            "30 objects held longer, of 900 that 12 snapshots need
  until     2026-12-31"
        ),
        "{text}"
    );
}
