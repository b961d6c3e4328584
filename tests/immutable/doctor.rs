//! What a doctor says of rights and buckets: looked at with every kind of credentials, in every kind of bucket.

use std::sync::Arc;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
};
use synapse_backup::ops::Tools;
use synapse_backup::ops::doctor::{self, Check, Verdict};
use synapse_backup::store::Store;
use synapse_backup::store::versions::{LockMode, ObjectLock};

use crate::buckets::{Bucket, PREFIX};
use crate::rig::{init, reopen, run};
use crate::support::minio;

const LOCK: ObjectLock = ObjectLock {
    mode: LockMode::Governance,
    days: 30,
};

/// What is said of the bucket and the rights; the homeserver is not there.
pub(crate) async fn examined(store: Arc<dyn Store>) -> Vec<Check> {
    let options = doctor::Options {
        tools: Tools::default(),
        now: store.list_page("probe/", None).await.unwrap().date,
        databases: Vec::new(),
        dump_jobs: 2,
        textfile: None,
    };
    let homeserver = Err(anyhow::anyhow!("not looked at"));
    let report = doctor::doctor(Ok(reopen(store).await), homeserver, &options, &run()).await.unwrap();
    report.checks.into_iter().filter(|check| check.name != "configuration").collect()
}

fn of<'a>(checks: &'a [Check], name: &str) -> Vec<&'a Check> {
    checks.iter().filter(|check| check.name == name).collect()
}

/// Verdict and words of the one check of this name.
pub(crate) fn assert_check(checks: &[Check], name: &str, verdict: Verdict, words: &str) {
    let found = of(checks, name);
    assert!(
        found.iter().any(|check| check.verdict == verdict && check.message.contains(words)),
        "{name}, {words}: {found:#?}"
    );
    for check in found {
        assert_eq!(check.cure.is_some(), check.verdict != Verdict::Ok, "{check:?}");
    }
}

pub(crate) fn worst_is(checks: &[Check], verdict: Verdict) -> bool {
    let has = |wanted| checks.iter().any(|check| check.verdict == wanted);
    match verdict {
        Verdict::Ok => !has(Verdict::Warning) && !has(Verdict::Failure),
        Verdict::Warning => has(Verdict::Warning) && !has(Verdict::Failure),
        Verdict::Failure => has(Verdict::Failure),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_in_a_bucket_with_versions_is_in_order() {
    let bucket = Bucket::versioned().await;
    init(bucket.store().await).await;
    let checks = examined(bucket.store_as("writer").await).await;
    assert!(worst_is(&checks, Verdict::Ok), "{checks:#?}");
    assert_check(
        &checks,
        "rights",
        Verdict::Ok,
        // MinIO takes a right to list as one to list versions.
        "list, get, put, overwrite, list versions; not: delete, delete versions",
    );
    assert_check(&checks, "versions", Verdict::Ok, "keeps them");
    assert_check(&checks, "lifecycle", Verdict::Ok, "by itself");
    assert_check(&checks, "conditional writes", Verdict::Ok, "kept, also when writers race");
    assert_check(&checks, "checksums", Verdict::Ok, "checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_may_delete_are_a_warning() {
    let plain = Bucket::plain().await;
    init(plain.store().await).await;
    let checks = examined(plain.store().await).await;
    assert!(worst_is(&checks, Verdict::Warning), "{checks:#?}");
    assert_check(&checks, "rights", Verdict::Warning, "delete every backup for good");
    assert_check(&checks, "versions", Verdict::Ok, "keeps none");

    let versioned = Bucket::versioned().await;
    init(versioned.store().await).await;
    let checks = examined(versioned.store_as("pruner").await).await;
    assert!(worst_is(&checks, Verdict::Warning), "{checks:#?}");
    assert_check(&checks, "rights", Verdict::Warning, "delete every backup for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_can_overwrite_for_good_is_a_failure_with_its_cure() {
    let bucket = Bucket::plain().await;
    init(bucket.store().await).await;
    let checks = examined(bucket.store_as("writer").await).await;
    assert!(worst_is(&checks, Verdict::Failure), "{checks:#?}");
    assert_check(&checks, "versions", Verdict::Failure, "they can overwrite every backup");
    assert!(of(&checks, "versions")[0].cure.as_ref().unwrap().contains("turn on versioning"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_lock_that_is_asked_for_must_be_there() {
    let bucket = Bucket::locked(LOCK).await;
    init(bucket.store().await).await;
    let checks = examined(bucket.store_as("writer").await).await;
    assert!(worst_is(&checks, Verdict::Ok), "{checks:#?}");
    assert_check(&checks, "object lock", Verdict::Ok, "governance mode for 30 days");
    let checks = examined(bucket.store().await).await;
    assert_check(&checks, "object lock", Verdict::Warning, "may pass over a governance retention");
    let checks = examined(bucket.store_as("pruner").await).await;
    assert_check(&checks, "object lock", Verdict::Ok, "governance mode for 30 days");
    assert_check(&checks, "rights", Verdict::Warning, "delete for good whatever is no longer held");
    // A doctor's own objects are not held for 30 days.
    let probes = bucket.versions().await;
    for probe in probes
        .iter()
        .filter(|version| version.key.starts_with("probe/") && version.is_latest && version.bytes.is_some())
    {
        let held = bucket.store().await.versions().unwrap().retention(&probe.key).await.unwrap();
        assert!(
            held.is_none_or(|held| held.until <= probe.last_modified + jiff::SignedDuration::from_mins(1)),
            "{held:?}"
        );
    }

    let without = Bucket::versioned().await;
    init(without.store().await).await;
    let checks = examined(without.with_lock(LOCK).store_as("writer").await).await;
    assert_check(&checks, "object lock", Verdict::Failure, "the bucket was made without Object Lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_take_away_too_early_are_warnings() {
    let bucket = Bucket::versioned().await;
    init(bucket.store().await).await;
    let rule = |id: &str, prefix: &str| {
        let filter = LifecycleRuleFilter::builder().prefix(prefix).build();
        LifecycleRule::builder().id(id).status(ExpirationStatus::Enabled).filter(filter)
    };
    let rules = [
        rule("tidy", &format!("{PREFIX}/"))
            .expiration(LifecycleExpiration::builder().days(7).build())
            .build(),
        rule("forget", "")
            .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(3).build())
            .build(),
        rule("patient", "")
            .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(90).build())
            .build(),
        rule("elsewhere", "other/")
            .expiration(LifecycleExpiration::builder().days(1).build())
            .build(),
    ];
    let rules = BucketLifecycleConfiguration::builder()
        .set_rules(Some(rules.into_iter().map(Result::unwrap).collect()))
        .build()
        .unwrap();
    let request = minio::shared().client().put_bucket_lifecycle_configuration().bucket(&bucket.name);
    request.lifecycle_configuration(rules).send().await.unwrap();
    let checks = examined(bucket.store_as("writer").await).await;
    assert!(worst_is(&checks, Verdict::Warning), "{checks:#?}");
    assert_check(&checks, "lifecycle", Verdict::Warning, "rule `tidy` deletes objects after 7 days");
    assert_check(
        &checks,
        "lifecycle",
        Verdict::Warning,
        "rule `forget` deletes old versions after 3 days",
    );
    assert_eq!(of(&checks, "lifecycle").len(), 3, "{checks:#?}");
}
