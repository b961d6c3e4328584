//! When the homeserver was last backed up, and when a backup was last proven.
//!
//! A timer that stopped tells nothing by itself, so ages are judged, by the store's clock. Only snapshots that count are looked
//! at, and of a repository that holds several homeservers only those of this one; one that was taken with `--only` does not make up
//! for a whole one.

use jiff::{SignedDuration, Timestamp};

use super::Report;
use crate::ops::{all_parts, retention};
use crate::repo::snapshots::Loaded;
use crate::repo::{Repository, drills, snapshots};

/// A night and a day may be missed, since a machine may be off.
const SNAPSHOT_AGE_MAX: SignedDuration = SignedDuration::from_hours(48);
/// A drill is for every week; one may be missed.
const DRILL_AGE_MAX: SignedDuration = SignedDuration::from_hours(15 * 24);
const DRILL: &str = "run `synapse-backup drill`, and let a timer do it every week: docs/drill.md";

pub(super) async fn check(repository: &Repository, server_name: Option<&str>, report: &mut Report) {
    let looked = async {
        let now = repository.date().await?;
        let (mut loaded, damaged) = snapshots::load_all(repository).await?;
        loaded = snapshots::unique(repository, loaded);
        loaded.retain(|one| !one.late && server_name.is_none_or(|name| one.snapshot.server_name == name));
        loaded.sort_by_key(Loaded::time);
        Ok::<_, crate::repo::Error>((now, loaded, damaged))
    };
    let (now, loaded, damaged) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return report.error("newest snapshot", &error.into()),
    };
    for (key, error) in damaged {
        let message = format!("{} cannot be read: {error}", key.key);
        report.warn(
            "snapshots",
            message,
            "`synapse-backup verify` says what is lost; the others are not touched by it",
        );
    }
    let is_whole = |one: &&Loaded| retention::parts_of(&one.snapshot).len() == all_parts().len();
    match loaded.iter().rev().find(is_whole).or(loaded.last()) {
        Some(newest) if is_whole(&newest) => check_newest(newest, now, report),
        Some(newest) => {
            let message = format!(
                "{}, and there is none with configuration, database and media",
                aged(newest.time(), now)
            );
            report.warn(
                "newest snapshot",
                message,
                "take one without --only: parts of a homeserver do not live again",
            );
        }
        None => return report.ok("newest snapshot", "there is none yet; `synapse-backup backup` takes the first"),
    }
    if let Err(error) = check_drills(repository, &loaded, now, report).await {
        report.error("newest drill", &error.into());
    }
}

fn check_newest(newest: &Loaded, now: Timestamp, report: &mut Report) {
    let message = aged(newest.time(), now);
    if now.duration_since(newest.time()) > SNAPSHOT_AGE_MAX {
        let cure = "does the timer run, and how did it end? `synapse-backup backup` takes one now; docs/monitoring.md tells how to be told";
        return report.warn("newest snapshot", message, cure);
    }
    match newest.snapshot.problem_count() {
        0 => report.ok("newest snapshot", message),
        problems => report.warn(
            "newest snapshot",
            format!("{message}, with {problems} problem{}", if problems == 1 { "" } else { "s" }),
            "`synapse-backup show latest --problems` names them; docs/settings.md has `media.accepted_losses`",
        ),
    }
}

async fn check_drills(repository: &Repository, loaded: &[Loaded], now: Timestamp, report: &mut Report) -> Result<(), crate::repo::Error> {
    let ids: Vec<_> = loaded.iter().map(|one| one.snapshot.id).collect();
    let drills = drills::newest(repository, &ids).await?;
    let name = "newest drill";
    match (drills.values().max_by_key(|drill| drill.time), loaded.first()) {
        (Some(drill), _) if !drill.passed => {
            let message = format!(
                "{}: snapshot {:.8} would not live again",
                aged(drill.time, now),
                drill.snapshot.to_string()
            );
            report.warn(name, message, "run `synapse-backup drill`: it names what is wrong");
        }
        (Some(drill), _) if now.duration_since(drill.time) > DRILL_AGE_MAX => report.warn(name, aged(drill.time, now), DRILL),
        (Some(drill), _) => report.ok(
            name,
            format!(
                "{}: snapshot {:.8} would live again",
                aged(drill.time, now),
                drill.snapshot.to_string()
            ),
        ),
        (None, Some(oldest)) if now.duration_since(oldest.time()) > DRILL_AGE_MAX => {
            report.warn(name, "no snapshot was ever brought back on trial", DRILL);
        }
        (None, _) => report.ok(name, "there is none yet; `synapse-backup drill` makes the first"),
    }
    Ok(())
}

/// `2026-11-23T02:00:04Z, 5 hours ago`
fn aged(time: Timestamp, now: Timestamp) -> String {
    let hours = now.duration_since(time).as_hours();
    match hours {
        ..1 => format!("{time}, less than an hour ago"),
        1 => format!("{time}, an hour ago"),
        2..48 => format!("{time}, {hours} hours ago"),
        _ => format!("{time}, {} days ago", hours / 24),
    }
}
