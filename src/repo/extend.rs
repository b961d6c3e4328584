//! Object Lock: which objects must be held longer, and holding them.
//!
//! Every object is written with a retention of the promise and a quarter more (`store::versions`). What a new snapshot
//! relies on is renewed once in each such quarter, at moments that follow from its key alone: a nightly run knows from
//! the listings which objects had such a moment since the last snapshot, and asks for those only. Nothing is written down
//! about it, so there is nothing that an attacker could forge. What the last snapshot did not rely on may have missed
//! moments; for it every moment since it landed counts. So at each commit all that it needs is held for the whole promise.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;

use super::catalog::each_listed;
use super::snapshots::Loaded;
use super::{Repository, Result};
use crate::format::{BlobId, PackId, keys};
use crate::store::versions::{ObjectLock, Retention, Versions};
use crate::store::{Error as StoreError, Listed};

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Extended {
    /// Objects that are needed.
    pub needed: u64,
    /// Those whose retention was extended now.
    pub extended: u64,
    /// Those that should have been and were not.
    pub failed: u64,
    /// Why the first of those was not.
    pub error: Option<String>,
    /// Until when the extended ones are held.
    pub until: Option<Timestamp>,
}

impl Extended {
    fn count(&mut self, key: &str, done: std::result::Result<bool, StoreError>) {
        match done {
            Ok(extended) => self.extended += u64::from(extended),
            Err(error) => {
                self.failed += 1;
                let source = std::error::Error::source(&error)
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                self.error.get_or_insert_with(|| format!("{key}: {error}{source}"));
            }
        }
    }
}

/// Before a commit: hold longer what it needs and whose moment has come. `None` where no Object Lock is asked for.
pub async fn extend_due(
    repository: &Repository,
    packs: &BTreeSet<PackId>,
    previous: Option<&Loaded>,
    at_once: usize,
) -> Result<Option<Extended>> {
    let Some((versions, lock)) = asked_for(repository) else {
        return Ok(None);
    };
    let known: BTreeSet<PackId> = previous.iter().flat_map(|loaded| loaded.snapshot.packs.iter().copied()).collect();
    let now = repository.date().await?;
    // A time in the future is none to rely on.
    let last = previous.map(|loaded| loaded.snapshot.time.min(loaded.key.last_modified));
    let mut report = Extended::default();
    let mut due = Vec::new();
    let mut look = |object: Listed, last: Option<Timestamp>| {
        report.needed += 1;
        let since = last.map_or(object.last_modified, |last| last.max(object.last_modified));
        if has_moment(&object.key, since, now, lock) {
            due.push(object.key);
        }
    };
    each_listed(repository, keys::PACKS, |object| match keys::parse_pack(&object.key) {
        Some(id) if packs.contains(&id) => look(object, last.filter(|_| known.contains(&id))),
        _ => {}
    })
    .await?;
    each_listed(repository, keys::INDEX, |object| look(object, last)).await?;
    each_listed(repository, keys::REPOSITORY, |object| look(object, last)).await?;
    hold(versions, lock, now, due, at_once, &mut report, Look::Never).await;
    Ok(Some(report))
}

/// Hold everything that these snapshots need for the whole promise; objects that are held for so long already are asked and left
/// alone. `None` where no Object Lock is asked for.
pub async fn extend_all(
    repository: &Repository,
    snapshots: &[String],
    packs: &BTreeSet<PackId>,
    at_once: usize,
) -> Result<Option<Extended>> {
    let Some((versions, lock)) = asked_for(repository) else {
        return Ok(None);
    };
    let now = repository.date().await?;
    let mut needed: Vec<String> = snapshots.to_vec();
    needed.extend(packs.iter().map(|id| keys::pack(*id)));
    each_listed(repository, keys::INDEX, |object| needed.push(object.key)).await?;
    needed.push(keys::REPOSITORY.to_owned());
    let mut report = Extended {
        needed: needed.len() as u64,
        ..Extended::default()
    };
    hold(versions, lock, now, needed, at_once, &mut report, Look::First).await;
    Ok(Some(report))
}

fn asked_for(repository: &Repository) -> Option<(&dyn Versions, ObjectLock)> {
    let versions = repository.store.versions()?;
    Some((versions, versions.object_lock()?))
}

/// Whether one of the moments at which this object is renewed lies after `since` and not after `now`.
fn has_moment(key: &str, since: Timestamp, now: Timestamp, lock: ObjectLock) -> bool {
    let period = lock.period().as_secs();
    // A moment of its own for every object, so that not all of them are renewed in one night.
    let hash = BlobId::of(key.as_bytes());
    let number = hash
        .as_bytes()
        .iter()
        .take(4)
        .fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
    let phase = number % period;
    let moments = |time: Timestamp| (time.as_second() - phase).div_euclid(period);
    moments(now) > moments(since)
}

/// Whether an object is asked for its retention before it is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Most need it: one request each.
    Never,
    /// Most do not: reading is cheaper than writing.
    First,
}

async fn hold(
    versions: &dyn Versions,
    lock: ObjectLock,
    now: Timestamp,
    keys: Vec<String>,
    at_once: usize,
    report: &mut Extended,
    look: Look,
) {
    let wanted = lock.from(now);
    let enough = now.saturating_add(lock.promised()).unwrap_or(Timestamp::MAX);
    let mut done = stream::iter(keys)
        .map(|key| async move {
            let done = hold_one(versions, &key, wanted, enough, look).await;
            (key, done)
        })
        .buffer_unordered(at_once.max(1));
    while let Some((key, done)) = done.next().await {
        report.count(&key, done);
    }
    if report.extended > 0 {
        report.until = Some(wanted.until);
    }
}

/// `false`: it is held long enough.
async fn hold_one(
    versions: &dyn Versions,
    key: &str,
    wanted: Retention,
    enough: Timestamp,
    look: Look,
) -> std::result::Result<bool, StoreError> {
    if look == Look::First && versions.retention(key).await?.is_some_and(|held| held.until >= enough) {
        return Ok(false);
    }
    let Err(error) = versions.extend(key, wanted).await else {
        return Ok(true);
    };
    // It may be held longer than that, or in another mode, which only extends in its own.
    match versions.retention(key).await {
        Ok(Some(held)) if held.until >= enough => Ok(false),
        Ok(Some(held)) if held.mode != wanted.mode => {
            let wanted = Retention { mode: held.mode, ..wanted };
            versions.extend(key, wanted).await.map(|_| true)
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::store::versions::LockMode;

    #[test]
    fn every_object_has_one_moment_in_each_period_and_not_all_have_the_same() {
        let lock = ObjectLock {
            mode: LockMode::Governance,
            days: 28,
        };
        let begin: Timestamp = "2026-11-01T02:00:00Z".parse().unwrap_or_default();
        let night = |number: i64| begin + SignedDuration::from_hours(24 * number);
        let mut by_night = [0; 28];
        for object in 0..700 {
            let key = format!("packs/00/{object:032x}.zst");
            let nights = (0..28).filter(|number| has_moment(&key, night(*number), night(number + 1), lock));
            let nights: Vec<i64> = nights.collect();
            assert_eq!(nights.len(), 4, "{key}: a quarter of 28 nights has 7");
            assert!(nights.windows(2).all(|two| two[1] - two[0] == 7), "{nights:?}");
            for number in nights {
                by_night[usize::try_from(number).unwrap_or(0)] += 1;
            }
        }
        assert!(by_night.iter().all(|count| (50..200).contains(count)), "{by_night:?}");
    }

    #[test]
    fn a_run_that_comes_late_finds_the_moments_it_has_missed() {
        let lock = ObjectLock {
            mode: LockMode::Governance,
            days: 4,
        };
        let begin: Timestamp = "2026-11-01T02:00:00Z".parse().unwrap_or_default();
        for hours in [24, 25, 1000] {
            let late = begin + SignedDuration::from_hours(hours);
            assert!(has_moment("index/x.idx", begin, late, lock), "{hours}");
        }
        assert!(!has_moment("index/x.idx", begin, begin, lock));
    }
}
