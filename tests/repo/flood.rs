//! What a person sees when somebody drives out what is good: the policy stops, says why, shows what it would do, and goes on when told.
//!
//! The program itself over a folder. Which signs there are, and where they begin, is told in `ops::retention`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::Value;
use synapse_backup::format::keys;
use synapse_backup::format::snapshot::{self, Problem, ProblemKind, Snapshot};
use synapse_backup::store::{Store, local};

use crate::rig::{Bytes, backup, init, noise};

const USUAL: usize = 50_000;

/// A snapshot of a story: how long ago it was taken, what is in it, and whether it is whole.
#[derive(Clone, Copy)]
struct Night {
    hours_ago: i64,
    bytes: usize,
    is_good: bool,
}

fn night(hours_ago: i64) -> Night {
    Night {
        hours_ago,
        bytes: USUAL,
        is_good: true,
    }
}

/// So many nights, oldest first, the newest an hour ago.
fn nights(number: i64) -> Vec<Night> {
    (1..=number).rev().map(night).collect()
}

/// A repository in the folder with these snapshots; gives their ids.
async fn repository_with(folder: &Path, nights: &[Night]) -> Vec<String> {
    let store: Arc<dyn Store> = local::open(&folder.join("bucket"), true, Arc::default()).await.unwrap();
    let repository = init(Arc::clone(&store)).await;
    let mut taken = Vec::new();
    for (seed, night) in (1..).zip(nights) {
        let ours = backup(&repository, &mut Bytes::new(&noise(seed, night.bytes))).await.unwrap();
        let problem = Problem {
            kind: ProblemKind::Missing,
            item: "config/etc/a".into(),
            message: "no such file".into(),
        };
        let told = Snapshot {
            time: ours.time - SignedDuration::from_hours(night.hours_ago),
            problems: (!night.is_good).then_some(problem).into_iter().collect(),
            ..ours.clone()
        };
        let object = snapshot::encode(&told, ours.time + SignedDuration::from_hours(12)).unwrap();
        store.delete(&keys::snapshot(ours.time, ours.id).unwrap()).await.unwrap();
        store
            .put(&keys::snapshot(told.time, told.id).unwrap(), object.into())
            .await
            .unwrap();
        taken.push(ours.id.to_string());
    }
    taken
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let url = format!("file://{}", folder.join("bucket").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
    command.env_clear().current_dir(folder);
    command.args(["--repository", &url]).args(arguments).output().unwrap()
}

/// One call for a program: its exit code, and the report.
fn call(folder: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = run(folder, &[&["--json"], arguments].concat());
    let report = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(report.lines().last().unwrap()).unwrap();
    (output.status.code().unwrap(), report)
}

/// The same for a person: what he reads.
fn shown(folder: &Path, arguments: &[&str]) -> String {
    String::from_utf8(run(folder, arguments).stderr).unwrap()
}

/// The names of all objects.
async fn objects(folder: &Path) -> BTreeSet<String> {
    let store = local::open(&folder.join("bucket"), false, Arc::default()).await.unwrap();
    let page = store.list_page("", None).await.unwrap();
    page.objects.into_iter().map(|object| object.key).collect()
}

/// The ids that stay, or would, by the report of a prune.
fn staying(report: &Value) -> BTreeSet<String> {
    let all = report["snapshots"].as_array().unwrap().iter();
    let stay = all.filter(|one| one["forgotten"] == false);
    stay.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_stops_at_a_sign_shows_its_plan_and_goes_on_when_told() {
    let small = Night {
        bytes: USUAL / 3,
        ..night(0)
    };
    for (keep, story, signs, wanted) in [
        ("3", [nights(4), vec![night(-48)]].concat(), 1, "is from the future"),
        ("3", [nights(8), vec![night(-48)]].concat(), 2, "is from the future"),
        (
            "4",
            [nights(4), vec![small]].concat(),
            1,
            "the newest of `example.org`, has only 33 % of the bytes",
        ),
        ("3", nights(8), 1, "5 of 8 snapshots of `example.org` would be forgotten at once"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let taken = repository_with(folder.path(), &story).await;
        let before = objects(folder.path()).await;
        let prune = ["prune", "--keep-last", keep];
        let (code, report) = call(folder.path(), &prune);
        let message = report["error"]["message"].as_str().unwrap();
        let hint = report["error"]["hint"].as_str().unwrap();
        assert!(code == 1 && message.contains(wanted) && hint.contains("--yes-really"), "{report}");
        let read = shown(folder.path(), &prune);
        assert!(read.contains(message) && read.contains(hint), "{read}");
        assert!(report["requests"]["delete"] == 0 && report["requests"]["put"] == 0, "{report}");

        // Who looks sees what would go, and why it does not.
        let dry = [prune.as_slice(), &["--dry-run"]].concat();
        let (code, looked) = call(folder.path(), &dry);
        assert_eq!((code, &looked["error"]), (1, &Value::Null), "{wanted}");
        assert_eq!(looked["stopped_by"][0]["message"], message, "{wanted}");
        assert_eq!(looked["stopped_by"].as_array().unwrap().len(), signs, "{wanted}");
        assert_eq!(hint.contains("names 1 more"), signs == 2, "{hint}");
        // Without the rules of this call it would show another plan.
        assert!(!hint.contains("prune --dry-run"), "{hint}");
        let read = shown(folder.path(), &dry);
        let hint = looked["stopped_by"][0]["hint"].as_str().unwrap();
        for words in ["nothing of this is done without --yes-really", message, hint] {
            assert!(read.contains(words), "{read}");
        }
        assert_eq!(objects(folder.path()).await, before, "{wanted}");

        let (code, done) = call(folder.path(), &[prune.as_slice(), &["--yes-really"]].concat());
        assert_eq!((code, done.get("stopped_by")), (0, None), "{wanted}");
        assert_eq!(staying(&done), staying(&looked), "{wanted}");
        let (_, listed) = call(folder.path(), &["snapshots"]);
        let left: BTreeSet<String> = listed["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(left, staying(&done), "{wanted}");
        assert!(left.len() < taken.len(), "{wanted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_one_stays_whatever_came_after_it_and_whoever_says_yes() {
    let folder = tempfile::tempdir().unwrap();
    let broken = nights(6).into_iter().map(|night| Night { is_good: false, ..night });
    let story: Vec<Night> = [night(48)].into_iter().chain(broken).collect();
    let taken = repository_with(folder.path(), &story).await;
    let (code, report) = call(folder.path(), &["prune", "--keep-last", "1", "--yes-really"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        staying(&report),
        [taken[0].clone(), taken[6].clone()].into(),
        "the good one, and the newest"
    );
    for (arguments, wanted) in [(vec!["forget", &taken[0]], 1), (vec!["forget", &taken[0], "--yes-really"], 0)] {
        let (code, report) = call(folder.path(), &arguments);
        assert_eq!(code, wanted, "{report}");
        if wanted == 1 {
            let message = report["error"]["message"].as_str().unwrap();
            assert!(
                message.contains("is the last good one of `example.org` with the database"),
                "{message}"
            );
        }
    }
}
