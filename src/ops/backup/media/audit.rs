//! Noticing slow loss: in each run a share of the files that nobody opens is looked at, so that all are within a month.
//!
//! Only existence and length are asked, of the file system and then of the media buckets. The backup still has the bytes of
//! what is lost; the problem says that the homeserver has not.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use super::build::{OBJECTS_AT_ONCE, still_there};
use super::{Counts, Task};
use crate::format::BlobId;
use crate::format::snapshot::ProblemKind;
use crate::ops::backup::offsite::{self, Found};
use crate::synapse::media::MediaRow;

const SECONDS_PER_DAY: i64 = 86_400;
/// Parts of a million; a path's hash falls into one.
const PARTS: u32 = 1_000_000;

/// A share of all paths, by their hash, that moves on day by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops::backup) struct AuditShare {
    from: u64,
    parts: u64,
}

impl AuditShare {
    /// This share of all files, another one each day; `None` for none.
    pub(in crate::ops::backup) fn new(percent: f64, day: Timestamp) -> Option<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=100 percent of a million"
        )]
        let parts = (percent.clamp(0.0, 100.0) / 100.0 * f64::from(PARTS)).round() as u64;
        let day = u64::try_from(day.as_second() / SECONDS_PER_DAY).unwrap_or(0);
        (parts > 0).then_some(Self {
            from: day * parts % u64::from(PARTS),
            parts,
        })
    }

    fn has(self, path: &str) -> bool {
        let hash = BlobId::of(path.as_bytes());
        let number = u64::from_be_bytes(std::array::from_fn(|at| hash.as_bytes()[24 + at])) % u64::from(PARTS);
        (number + u64::from(PARTS) - self.from) % u64::from(PARTS) < self.parts
    }
}

/// How a file that was looked at stands.
enum Stand {
    Missing,
    Length(u64),
    Odd(ProblemKind, String),
}

/// Look at this run's share of these rows, whose files are not opened.
pub(super) async fn audit(task: &Task<'_>, rows: Vec<MediaRow>, counts: &Mutex<Counts>) -> anyhow::Result<()> {
    let Some(share) = task.audit else { return Ok(()) };
    let chosen: Vec<MediaRow> = rows.into_iter().filter(|row| share.has(&row.path)).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let roots = task.roots.clone();
    let paths: Vec<String> = chosen.iter().map(|row| row.path.clone()).collect();
    let looking = move || paths.iter().map(|path| look(&roots, path)).collect::<Vec<Stand>>();
    let Some(stands) = task.patience.wait_for(looking).await? else {
        // One stands for all: the next night asks for others, and by then it hangs no more or is known.
        let message = format!("{}; {STILL_SAVED}", task.patience.words());
        task.problem_outside(counts, ProblemKind::Unreadable, &chosen[0].path, message);
        return Ok(());
    };
    counts.lock().unwrap_or_else(PoisonError::into_inner).report.audited += chosen.len() as u64;
    let mut missing = Vec::new();
    for (row, stand) in chosen.iter().zip(stands) {
        match stand {
            _ if row.kind.heals() => {}
            Stand::Missing => missing.push(row),
            Stand::Length(bytes) => check_length(task, row, bytes, counts),
            Stand::Odd(kind, message) => task.problem_outside(counts, kind, &row.path, message),
        }
    }
    let missing = not_in_a_bucket(task, missing, counts).await;
    if missing.is_empty() {
        return Ok(());
    }
    let there = still_there(task, missing.iter().copied()).await?;
    for row in missing.into_iter().filter(|row| there.contains(&row.path)) {
        task.problem_outside(counts, ProblemKind::Missing, &row.path, format!("its file is gone; {STILL_SAVED}"));
    }
    Ok(())
}

/// Those of them that no media bucket has either; what a bucket will not tell is not called missing.
async fn not_in_a_bucket<'a>(task: &Task<'_>, missing: Vec<&'a MediaRow>, counts: &Mutex<Counts>) -> Vec<&'a MediaRow> {
    if task.buckets.is_empty() {
        return missing;
    }
    let asked = stream::iter(missing).map(|row| async move { (row, offsite::look(&task.buckets, &row.path).await) });
    let answers: Vec<(&MediaRow, Found)> = asked.buffer_unordered(OBJECTS_AT_ONCE).collect().await;
    let mut left = Vec::new();
    for (row, found) in answers {
        match found {
            Found::Length(bytes) => check_length(task, row, bytes, counts),
            Found::Nowhere => left.push(row),
            Found::Untold => {}
        }
    }
    left
}

const STILL_SAVED: &str = "this backup still has the bytes of an earlier one";

fn check_length(task: &Task<'_>, row: &MediaRow, bytes: u64, counts: &Mutex<Counts>) {
    let Some(expected) = row.bytes.filter(|expected| *expected != bytes) else {
        return;
    };
    let kind = if bytes < expected {
        ProblemKind::Short
    } else {
        ProblemKind::Changed
    };
    let message = format!("its file has {bytes} bytes now, its row says {expected}; {STILL_SAVED}");
    task.problem_outside(counts, kind, &row.path, message);
}

fn look(roots: &[PathBuf], path: &str) -> Stand {
    let mut stand = Stand::Missing;
    for root in roots {
        match fs::metadata(root.join(path)) {
            Ok(metadata) if metadata.is_file() => return Stand::Length(metadata.len()),
            Ok(_) => stand = Stand::Odd(ProblemKind::NotAFile, format!("it is not a regular file any more; {STILL_SAVED}")),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => stand = Stand::Odd(ProblemKind::Unreadable, format!("{error}; {STILL_SAVED}")),
        }
    }
    stand
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn every_file_is_looked_at_within_a_month_and_no_file_every_day() {
        let first: Timestamp = "2026-11-01T02:00:00Z".parse().unwrap();
        let paths: Vec<String> = (0..1000).map(|number| format!("local_content/{number}")).collect();
        let looked_at = |path: &String| {
            (0..30)
                .filter(|day| {
                    AuditShare::new(100.0 / 30.0, first + jiff::SignedDuration::from_hours(24 * day))
                        .unwrap()
                        .has(path)
                })
                .count()
        };
        let counts: Vec<usize> = paths.iter().map(looked_at).collect();
        assert!(counts.iter().all(|count| (1..=2).contains(count)), "{counts:?}");
        assert!(AuditShare::new(0.0, first).is_none());
        assert!(paths.iter().all(|path| AuditShare::new(100.0, first).unwrap().has(path)));
    }
}
