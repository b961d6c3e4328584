//! In a bucket with versions a deleted object only hides: giving its bytes back, once nobody can want them any more.
//!
//! What prune deletes stays as an old version, held by Object Lock or not. Here such versions are deleted when they have been
//! old for a stated time and are no longer held; then the marker of the deletion goes, too. Objects of ours are never
//! overwritten: a key that has several objects was written by somebody else, so it is named and left alone, since the older
//! one may be the true one. Keys that are not ours are passed over. Nothing of the protocol sees any of this: it knows newest versions only.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Repository, Result};
use crate::format::keys;
use crate::store::Error as StoreError;
use crate::store::versions::{Version, Versions};

/// More versions of one key than this are no work of ours: the rest of them is left for somebody to look at.
const OF_ONE_KEY_MAX: usize = 1000;
/// So many overwritten keys are named; all are counted.
const NAMED_MAX: usize = 20;
/// After so many failures with nothing between them that was answered, the store is in trouble: each has cost all the patience
/// that a request has, and so would every one of those that are left.
pub(super) const FAILED_IN_A_ROW_MAX: usize = 3;

/// What was deleted, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Versions that are gone for good, and markers of deletions.
    pub versions: u64,
    /// Bytes that the store gives back.
    pub bytes: u64,
    /// Old versions that are not old enough.
    pub young: u64,
    /// Old versions that the store holds, or does not let us delete.
    pub held: u64,
    /// Old versions whose deletion failed for another reason.
    pub failed: u64,
    /// The first of them: its key, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failed: Option<Failed>,
    /// Several failed in a row, so the rest was not asked for.
    pub given_up: bool,
    /// Keys that were overwritten, which we never do.
    pub overwritten: u64,
    /// The first of them.
    pub overwritten_keys: Vec<String>,
}

/// A deletion that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Of what.
    pub key: String,
    /// What the store said, if anything.
    pub why: String,
}

/// Whether to delete or only to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Delete.
    Apply,
    /// Count what would be deleted (what is held is only known by trying).
    Plan,
}

/// Delete all versions that have been old for at least `age`; `None` where the store keeps no versions.
pub async fn clear(repository: &Repository, age: SignedDuration, what: Do, at_once: usize) -> Result<Option<Cleared>> {
    let Some(versions) = repository.store.versions() else {
        return Ok(None);
    };
    let before = repository.date().await? - age;
    let (mut cleared, mut failed_in_a_row) = (Cleared::default(), 0);
    let (mut of_key, mut after): (Vec<Version>, _) = (Vec::new(), None);
    loop {
        let page = versions.list_versions("", after.as_ref()).await?;
        let mut due = Vec::new();
        // Nothing is known of who needs what is not ours, or for how long.
        for version in page.versions.into_iter().filter(|version| keys::is_ours(&version.key)) {
            if of_key.first().is_some_and(|first| first.key != version.key) {
                due.extend(due_of_key(&std::mem::take(&mut of_key), before, &mut cleared));
            }
            if of_key.len() < OF_ONE_KEY_MAX {
                of_key.push(version);
            }
        }
        if page.next.is_none() {
            due.extend(due_of_key(&of_key, before, &mut cleared));
        }
        if what == Do::Plan {
            for version in &due {
                cleared.count(version);
            }
        } else {
            delete(versions, due, at_once, &mut cleared, &mut failed_in_a_row).await?;
        }
        after = page.next;
        if after.is_none() || cleared.given_up {
            return Ok(Some(cleared));
        }
    }
}

impl Cleared {
    fn count(&mut self, version: &Version) {
        self.versions += 1;
        self.bytes += version.bytes.unwrap_or(0);
    }

    fn failed(&mut self, key: &str, error: &StoreError) {
        self.failed += 1;
        self.first_failed.get_or_insert_with(|| Failed {
            key: key.to_owned(),
            why: error.with_cause(),
        });
    }
}

/// Markers last: one whose object could not be deleted would bring it back. So none where that is not known.
async fn delete(
    versions: &dyn Versions,
    due: Vec<Version>,
    at_once: usize,
    cleared: &mut Cleared,
    failed_in_a_row: &mut usize,
) -> Result<()> {
    let (objects, markers): (Vec<Version>, Vec<Version>) = due.into_iter().partition(|version| version.bytes.is_some());
    let mut kept = BTreeSet::new();
    for group in [objects, markers] {
        let group: Vec<Version> = group.into_iter().filter(|version| !kept.contains(&version.key)).collect();
        let mut done = stream::iter(group)
            .map(|version| async move {
                let done = versions.delete_version(&version.key, &version.id).await;
                (version, done)
            })
            .buffer_unordered(at_once.max(1));
        while let Some((version, done)) = done.next().await {
            *failed_in_a_row = match done {
                Err(StoreError::Failed { .. }) => *failed_in_a_row + 1,
                _ => 0,
            };
            match done {
                Ok(_) | Err(StoreError::NotFound { .. }) => cleared.count(&version),
                Err(error @ StoreError::Denied { .. }) => {
                    tracing::debug!(key = version.key, %error, "an old version stays");
                    cleared.held += 1;
                    kept.insert(version.key);
                }
                Err(error @ StoreError::Failed { .. }) => {
                    cleared.failed(&version.key, &error);
                    kept.insert(version.key);
                }
                // Nobody answers, or no longer knows us: nothing is held on that account.
                Err(error) => return Err(error.into()),
            }
            if *failed_in_a_row == FAILED_IN_A_ROW_MAX {
                cleared.given_up = true;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Of one key, newest first: what was hidden by a deletion long enough ago, and the marker that then hides nothing.
fn due_of_key(of_key: &[Version], before: Timestamp, cleared: &mut Cleared) -> Vec<Version> {
    let Some(newest) = of_key.first() else { return Vec::new() };
    let objects = of_key.iter().filter(|version| version.bytes.is_some()).count();
    // Markers may be written twice, and probes are there to try that out.
    let may_be = [keys::CONDEMNED, keys::PROBES].iter().any(|prefix| newest.key.starts_with(prefix));
    if objects > 1 && !may_be {
        cleared.overwritten += 1;
        if cleared.overwritten_keys.len() < NAMED_MAX {
            cleared.overwritten_keys.push(newest.key.clone());
        }
        return Vec::new();
    }
    let mut due = Vec::new();
    for pair in of_key.windows(2) {
        // A version is old since the next newer one landed.
        if pair[0].last_modified <= before {
            due.push(pair[1].clone());
        } else {
            cleared.young += 1;
        }
    }
    let hides_nothing = due.len() + 1 == of_key.len() && of_key.len() < OF_ONE_KEY_MAX;
    if newest.bytes.is_none() && hides_nothing && newest.last_modified <= before {
        due.push(newest.clone());
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions of one key, newest first: at which hour, and whether it is an object.
    fn of_key(key: &str, versions: &[(i64, bool)]) -> Vec<Version> {
        let version = |(at, (hour, is_object)): (usize, &(i64, bool))| Version {
            key: key.to_owned(),
            id: at.to_string(),
            is_latest: at == 0,
            last_modified: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(*hour),
            bytes: is_object.then_some(10),
        };
        versions.iter().enumerate().map(version).collect()
    }

    #[test]
    fn only_what_was_hidden_long_ago_is_due() {
        let before = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100);
        let cases = [
            ("packs/00/there", &[(1, true)][..], &[][..]),
            ("packs/00/deleted", &[(90, false), (1, true)], &["1", "0"]),
            ("packs/00/deleted lately", &[(101, false), (1, true)], &[]),
            ("packs/00/overwritten", &[(90, true), (1, true)], &[]),
            ("packs/00/overwritten and deleted", &[(95, false), (90, true), (1, true)], &[]),
            ("packs/00/deleted twice", &[(95, false), (90, false), (1, true)], &["1", "2", "0"]),
            ("condemned/marked twice", &[(90, true), (1, true)], &["1"]),
            ("tags/overwritten", &[(90, true), (1, true)], &[]),
            ("drills/overwritten", &[(90, true), (1, true)], &[]),
            ("condemned/0123", &[(101, false), (90, true), (1, true)], &["2"]),
            ("probe/x", &[(99, false)], &["0"]),
        ];
        for (key, versions, wanted) in cases {
            let mut cleared = Cleared::default();
            let due = due_of_key(&of_key(key, versions), before, &mut cleared);
            let due: Vec<&str> = due.iter().map(|version| version.id.as_str()).collect();
            assert_eq!(due, wanted, "{key}");
            assert_eq!(cleared.overwritten, u64::from(key.contains("overwritten")), "{key}");
        }
    }
}
