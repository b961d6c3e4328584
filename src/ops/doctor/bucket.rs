//! What the rights mean in a bucket as it is set up: would a thief of these credentials destroy the backups?
//!
//! Each check is a small function that adds its lines. Severity: credentials that may delete are a warning, since a small
//! installation may want it so. Credentials that may not, in a bucket that forgets what is overwritten, are a failure: that looks
//! like protection and is none. So is an `object_lock` in the settings that the bucket cannot keep.

use bytes::Bytes;
use futures::future::join_all;
use jiff::SignedDuration;

use super::Report;
use super::rights::{May, Rights};
use crate::format::keys;
use crate::repo::Repository;
use crate::store::bucket::{Bucket, BucketLock, LifecycleRule, Versioning};
use crate::store::versions::{ObjectLock, Retention, Versions};
use crate::store::{Error, Store};

/// Old versions that are kept for less will be gone before many a break-in is noticed.
const NOTICE_DAYS: i32 = 14;
/// Writers that race for one key.
const RACERS: usize = 8;
const POLICIES: &str = "use a key that may list, get and put only: deploy/policies has them ready";

/// All of them; a store without a bucket has no rights to ask about.
pub(super) async fn check(repository: &Repository, rights: Rights, report: &mut Report) {
    let store = &**repository.store();
    let (Some(bucket), Some(versions)) = (store.bucket(), store.versions()) else {
        return;
    };
    let versioning = bucket.versioning().await;
    check_rights(rights, &versioning, versions.object_lock(), report);
    check_versioning(rights, &versioning, report);
    if let Some(lock) = versions.object_lock() {
        check_object_lock(repository, bucket, versions, lock, report).await;
    }
    check_lifecycle(bucket, versions.object_lock(), report).await;
    check_conditions(repository, store, bucket, report).await;
    check_checksums(repository, store, bucket, report).await;
}

/// May a thief of these credentials delete?
fn check_rights(rights: Rights, versioning: &Result<Versioning, Error>, lock: Option<ObjectLock>, report: &mut Report) {
    let what = match (rights.delete_versions, rights.delete) {
        (May::Yes, _) if lock.is_some() => "delete for good whatever is no longer held",
        (May::Yes, _) => "delete every backup for good",
        (_, May::Yes) if matches!(versioning, Ok(Versioning::On)) => "hide every backup (old versions stay)",
        (_, May::Yes) => "delete every backup",
        _ => return report.ok("rights", rights.to_string()),
    };
    report.warn("rights", format!("{rights}: whoever takes over this machine can {what}"), POLICIES);
}

/// A right to put is a right to overwrite: without versions nothing protects what is there.
fn check_versioning(rights: Rights, versioning: &Result<Versioning, Error>, report: &mut Report) {
    let protects = rights.delete == May::No && rights.delete_versions != May::Yes;
    let cure = "turn on versioning for the bucket, or make a new one with Object Lock: see docs/object-lock.md";
    match versioning {
        Ok(Versioning::On) => report.ok("versions", "the bucket keeps them: what is overwritten or deleted is still there"),
        Ok(_) if protects && rights.overwrite != May::No => {
            let message = "these credentials may not delete, but the bucket keeps no versions: they can overwrite every backup";
            report.fail("versions", message, cure);
        }
        Ok(_) => report.ok("versions", "the bucket keeps none: what is overwritten or deleted is gone"),
        Err(Error::Denied { .. }) if protects => {
            let cure = "allow s3:GetBucketVersioning, or make sure yourself that the bucket keeps versions";
            report.warn(
                "versions",
                "whether the bucket keeps them cannot be seen with these credentials",
                cure,
            );
        }
        Err(error) => report.ok("versions", format!("not known: {error}")),
    }
}

/// The settings ask for it: the bucket must have it, and the credentials must be allowed to set it.
async fn check_object_lock(repository: &Repository, bucket: &dyn Bucket, versions: &dyn Versions, lock: ObjectLock, report: &mut Report) {
    match bucket.lock().await {
        Ok(BucketLock::Off) => {
            let cure = "make a new bucket with Object Lock (most stores cannot add it later), or take `object_lock` out of the settings";
            return report.fail(
                "object lock",
                "`object_lock` is set, and the bucket was made without Object Lock",
                cure,
            );
        }
        Err(Error::Failed { .. }) => {
            let cure = "this store may not have it: take `object_lock` out of the settings, or use another store";
            return report.fail(
                "object lock",
                "`object_lock` is set, and the store does not tell whether it has Object Lock",
                cure,
            );
        }
        Ok(BucketLock::Default(mode, days)) => {
            let message =
                format!("the bucket holds every new object for {days} days in {mode} mode by itself; the longer retention counts");
            report.ok("object lock", message);
        }
        Ok(BucketLock::On) | Err(_) => {}
    }
    match hold_for_a_moment(repository, bucket, versions, lock).await {
        Ok(May::Yes) => report.warn(
            "object lock",
            "these credentials may pass over a governance retention: nothing is held against whoever has them",
            "take the right s3:BypassGovernanceRetention from them, or set `object_lock.mode: compliance`",
        ),
        Ok(_) => report.ok(
            "object lock",
            format!(
                "everything is held in {} mode for {} days after each backup that needs it",
                lock.mode, lock.days
            ),
        ),
        Err(error) => report.fail(
            "object lock",
            format!("no retention can be set: {error}"),
            "allow s3:PutObjectRetention and s3:GetObjectRetention; the bucket must have Object Lock",
        ),
    }
}

/// A retention of some seconds on an object of ours, and an attempt to pass over it.
async fn hold_for_a_moment(repository: &Repository, bucket: &dyn Bucket, versions: &dyn Versions, lock: ObjectLock) -> Result<May, Error> {
    let key = keys::probe(repository.ids().object());
    let now = repository
        .store()
        .put(&key, Bytes::from_static(b"synapse-backup doctor"))
        .await?
        .date;
    let until = now + SignedDuration::from_secs(20);
    versions.extend(&key, Retention { mode: lock.mode, until }).await?;
    let Ok(listed) = versions.list_versions(&key, None).await else {
        return Ok(May::Unknown);
    };
    let Some(held) = listed.versions.iter().find(|version| version.key == key) else {
        return Ok(May::Unknown);
    };
    Ok(May::of(&bucket.delete_bypassing(&key, &held.id).await))
}

/// Rules that take away too early, and uploads that nobody clears away.
async fn check_lifecycle(bucket: &dyn Bucket, lock: Option<ObjectLock>, report: &mut Report) {
    if bucket.aborts_uploads_itself() {
        report.ok(
            "lifecycle",
            "this store clears away unfinished uploads by itself, and refuses a rule for it",
        );
    }
    let rules = match bucket.lifecycle().await {
        Ok(rules) => rules,
        Err(Error::Denied { .. }) => return report.ok("lifecycle", "it cannot be seen with these credentials"),
        Err(error) => return report.ok("lifecycle", format!("this store tells nothing about it: {error}")),
    };
    let rules: Vec<LifecycleRule> = rules.into_iter().filter(|rule| rule.is_on).collect();
    for rule in &rules {
        if let Some(days) = rule.expires_days {
            let message = format!(
                "rule `{}` deletes objects after {days} days, packs that backups need among them",
                rule.id
            );
            report.warn(
                "lifecycle",
                message,
                "take the expiration out: `prune` knows what is no longer needed",
            );
        }
        let least = lock.map_or(NOTICE_DAYS, |lock| i32::try_from(lock.days).unwrap_or(i32::MAX));
        if let Some(days) = rule.old_versions_days.filter(|days| *days < least) {
            let message = format!(
                "rule `{}` deletes old versions after {days} days: so soon must a break-in be noticed",
                rule.id
            );
            report.warn("lifecycle", message, format!("keep old versions for {least} days or more"));
        }
    }
    if let Some(days) = rules.iter().filter_map(|rule| rule.aborts_uploads_days).min() {
        report.ok("lifecycle", format!("unfinished uploads are cleared away after {days} days"));
    } else if !bucket.aborts_uploads_itself() {
        let cure = "add a lifecycle rule with AbortIncompleteMultipartUpload (7 days): what a machine without power leaves is billed";
        report.warn("lifecycle", "no rule clears away unfinished uploads", cure);
    }
}

/// Whether `If-None-Match` is kept also by writers that race. For information: no correctness here rests on it.
async fn check_conditions(repository: &Repository, store: &dyn Store, bucket: &dyn Bucket, report: &mut Report) {
    let key = keys::probe(repository.ids().object());
    let put = |_| bucket.put_if_absent(&key, Bytes::from_static(b"synapse-backup doctor"));
    let ended = join_all((0..RACERS).map(put)).await;
    let _ = store.delete(&key).await;
    let won = ended.iter().filter(|ended| matches!(ended, Ok(true))).count();
    let message = match ended.into_iter().find_map(Result::err) {
        Some(error) => format!("the store does not have them ({error}); none are needed"),
        None if won == 1 => "kept, also when writers race; none are needed".to_owned(),
        None => format!("not kept: {won} of {RACERS} racing writers won; none are needed"),
    };
    report.ok("conditional writes", message);
}

/// Whether the store refuses a body that does not fit its checksum. For information: what is read back is hashed in any case.
async fn check_checksums(repository: &Repository, store: &dyn Store, bucket: &dyn Bucket, report: &mut Report) {
    let key = keys::probe(repository.ids().object());
    let taken = bucket
        .takes_wrong_checksum(&key, Bytes::from_static(b"synapse-backup doctor"))
        .await;
    let message = match taken {
        Ok(false) => "checked: a body that arrives damaged is refused".to_owned(),
        Ok(true) => {
            let _ = store.delete(&key).await;
            "not checked: a body that arrives damaged is found by `verify --read-data` only".to_owned()
        }
        Err(error) => format!("not known: {error}"),
    };
    report.ok("checksums", message);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ops::doctor::Verdict;
    use crate::repo::{Ids, open};
    use crate::store::memory::{Clock, Memory};
    use crate::store::{Call, Stamp};

    /// A bucket as other stores have it: what a real one here does not do.
    #[derive(Debug, Default)]
    struct Fake {
        rules: Vec<LifecycleRule>,
        is_secret: bool,
        /// So many racing writers win.
        winners: usize,
        raced: AtomicUsize,
        takes_anything: bool,
    }

    fn denied() -> Error {
        Error::Denied {
            url: "s3://x".into(),
            action: "GET",
            key: String::new(),
        }
    }

    impl Bucket for Fake {
        fn versioning(&self) -> Call<'_, Versioning> {
            Box::pin(async { Err(denied()) })
        }

        fn lock(&self) -> Call<'_, BucketLock> {
            Box::pin(async { Err(denied()) })
        }

        fn lifecycle(&self) -> Call<'_, Vec<LifecycleRule>> {
            Box::pin(async { if self.is_secret { Err(denied()) } else { Ok(self.rules.clone()) } })
        }

        fn aborts_uploads_itself(&self) -> bool {
            false
        }

        fn put_if_absent<'a>(&'a self, _: &'a str, _: Bytes) -> Call<'a, bool> {
            Box::pin(async { Ok(self.raced.fetch_add(1, Ordering::Relaxed) < self.winners) })
        }

        fn takes_wrong_checksum<'a>(&'a self, _: &'a str, _: Bytes) -> Call<'a, bool> {
            Box::pin(async { Ok(self.takes_anything) })
        }

        fn delete_bypassing<'a>(&'a self, _: &'a str, _: &'a str) -> Call<'a, Stamp> {
            Box::pin(async { Err(denied()) })
        }
    }

    fn assert_says(report: &Report, verdict: Verdict, words: &str) {
        let is_it = |check: &&crate::ops::doctor::Check| check.verdict == verdict && check.message.contains(words);
        assert!(report.checks.iter().any(|check| is_it(&check)), "{words}: {report:#?}");
        assert!(
            report
                .checks
                .iter()
                .all(|check| check.cure.is_some() == (check.verdict != Verdict::Ok))
        );
    }

    fn aborting(is_on: bool, days: i32) -> LifecycleRule {
        LifecycleRule {
            id: "tidy".into(),
            is_on,
            aborts_uploads_days: Some(days),
            ..LifecycleRule::default()
        }
    }

    #[tokio::test]
    async fn uploads_that_nobody_clears_away_are_a_warning() {
        for (rules, is_secret, verdict, words) in [
            (vec![], false, Verdict::Warning, "no rule clears away"),
            (vec![aborting(false, 7)], false, Verdict::Warning, "no rule clears away"),
            (vec![aborting(true, 7), aborting(true, 3)], false, Verdict::Ok, "after 3 days"),
            (vec![], true, Verdict::Ok, "cannot be seen"),
        ] {
            let bucket = Fake {
                rules,
                is_secret,
                ..Fake::default()
            };
            let mut report = Report::default();
            check_lifecycle(&bucket, None, &mut report).await;
            assert_says(&report, verdict, words);
        }
    }

    #[tokio::test]
    async fn conditions_and_checksums_are_told_as_they_are_kept() {
        let memory = Arc::new(Memory::new(Clock::starting_at("2026-11-01T00:00:00Z".parse().unwrap())));
        let repository = open::init(memory.clone(), Ids::random()).await.unwrap();
        for (winners, takes_anything, words) in [
            (1, false, ["kept, also when writers race", "checked: a body"]),
            (3, true, ["not kept: 3 of 8 racing writers won", "not checked: a body"]),
        ] {
            let bucket = Fake {
                winners,
                takes_anything,
                ..Fake::default()
            };
            let mut report = Report::default();
            check_conditions(&repository, &*memory, &bucket, &mut report).await;
            check_checksums(&repository, &*memory, &bucket, &mut report).await;
            for words in words {
                assert_says(&report, Verdict::Ok, words);
            }
        }
    }
}
