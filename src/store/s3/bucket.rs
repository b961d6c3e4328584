//! How the bucket is set up, and what the store makes of conditions and checksums: a doctor's questions.
//!
//! An answer that says "there is no such configuration" is an answer. A store that does not know the request at all
//! (405, 501) says so in its error, and the doctor tells that.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus, LifecycleRule as Rule, ObjectLockEnabled, ObjectLockRetentionMode};
use bytes::Bytes;

use super::super::bucket::{Bucket, BucketLock, LifecycleRule, Versioning};
use super::super::counters::Kind;
use super::super::versions::LockMode;
use super::super::{Call, Stamp};
use super::S3;
use super::checksum::Sum;
use super::classify::Failure;
use super::meter::Seen;
use super::provider::Provider;
use super::retry::Ask;

/// Days of a default retention that is given in years.
const DAYS_A_YEAR: i32 = 365;

impl S3 {
    async fn versioning_once(&self) -> Result<Versioning, Failure> {
        let request = self.client.get_bucket_versioning().bucket(&self.bucket);
        let answer = request.customize().interceptor(self.meter(&Seen::default())).send().await;
        Ok(match answer.map_err(Failure::of)?.status {
            Some(BucketVersioningStatus::Enabled) => Versioning::On,
            Some(BucketVersioningStatus::Suspended) => Versioning::Suspended,
            _ => Versioning::Off,
        })
    }

    async fn lock_once(&self) -> Result<BucketLock, Failure> {
        let request = self.client.get_object_lock_configuration().bucket(&self.bucket);
        let answer = match request.customize().interceptor(self.meter(&Seen::default())).send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => return Ok(BucketLock::Off),
            Err(error) => return Err(Failure::of(error)),
        };
        let Some(lock) = answer.object_lock_configuration else {
            return Ok(BucketLock::Off);
        };
        if lock.object_lock_enabled != Some(ObjectLockEnabled::Enabled) {
            return Ok(BucketLock::Off);
        }
        let held = lock.rule.and_then(|rule| rule.default_retention).and_then(|held| {
            let mode = match held.mode? {
                ObjectLockRetentionMode::Governance => LockMode::Governance,
                ObjectLockRetentionMode::Compliance => LockMode::Compliance,
                _ => return None,
            };
            let years = held.years.map(|years| years.saturating_mul(DAYS_A_YEAR));
            Some(BucketLock::Default(mode, held.days.or(years)?))
        });
        Ok(held.unwrap_or(BucketLock::On))
    }

    async fn lifecycle_once(&self) -> Result<Vec<LifecycleRule>, Failure> {
        let request = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket);
        let answer = match request.customize().interceptor(self.meter(&Seen::default())).send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => return Ok(Vec::new()),
            Err(error) => return Err(Failure::of(error)),
        };
        let rules = answer.rules.unwrap_or_default().into_iter().map(rule);
        let touches = |rule: &LifecycleRule| rule.prefix.starts_with(&self.prefix) || self.prefix.starts_with(&rule.prefix);
        Ok(rules.filter(touches).collect())
    }

    /// `false`: the condition failed, as it should where something is.
    async fn put_if_absent_once(&self, key: &str, body: Bytes, sum: &Sum) -> Result<bool, Failure> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.full(key)).if_none_match("*");
        let request = sum.on_put(request.body(ByteStream::from(body)));
        match request.customize().interceptor(self.meter(&Seen::default())).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(error.code(), Some("PreconditionFailed" | "ConditionalRequestConflict"))
                    || error.raw_response().is_some_and(|raw| raw.status().as_u16() == 412) =>
            {
                Ok(false)
            }
            Err(error) => Err(Failure::of(error)),
        }
    }

    async fn wrong_checksum_once(&self, key: &str, body: Bytes, sum: &Sum) -> Result<bool, Failure> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.full(key));
        let request = sum.on_put(request.body(ByteStream::from(body)));
        match request.customize().interceptor(self.meter(&Seen::default())).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 400) => Ok(false),
            Err(error) => Err(Failure::of(error)),
        }
    }

    async fn delete_bypassing_once(&self, key: &str, version: &str) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .version_id(version);
        request
            .bypass_governance_retention(true)
            .customize()
            .interceptor(self.meter(&seen))
            .send()
            .await
            .map_err(Failure::of)?;
        Ok(Stamp { date: seen.date()? })
    }
}

fn rule(rule: Rule) -> LifecycleRule {
    let filter = rule.filter;
    let inner = filter.as_ref().and_then(|filter| {
        let both = filter.and.as_ref().and_then(|both| both.prefix.clone());
        filter.prefix.clone().or(both)
    });
    #[expect(deprecated, reason = "older rules have their prefix here")]
    let prefix = inner.or(rule.prefix).unwrap_or_default();
    LifecycleRule {
        id: rule.id.unwrap_or_default(),
        is_on: rule.status == ExpirationStatus::Enabled,
        prefix,
        // A fixed date is as good as at once: it comes, or has come.
        expires_days: rule.expiration.and_then(|end| end.days.or(end.date.map(|_| 0))),
        old_versions_days: rule.noncurrent_version_expiration.and_then(|old| old.noncurrent_days),
        aborts_uploads_days: rule.abort_incomplete_multipart_upload.and_then(|abort| abort.days_after_initiation),
    }
}

impl Bucket for S3 {
    fn versioning(&self) -> Call<'_, Versioning> {
        Box::pin(async move {
            let asked = self.tries(Ask::new(Kind::Head), || self.versioning_once()).await;
            asked.map_err(|failure| self.error(Kind::Head, "?versioning", failure))
        })
    }

    fn lock(&self) -> Call<'_, BucketLock> {
        Box::pin(async move {
            let asked = self.tries(Ask::new(Kind::Head), || self.lock_once()).await;
            asked.map_err(|failure| self.error(Kind::Head, "?object-lock", failure))
        })
    }

    fn lifecycle(&self) -> Call<'_, Vec<LifecycleRule>> {
        Box::pin(async move {
            let asked = self.tries(Ask::new(Kind::Head), || self.lifecycle_once()).await;
            asked.map_err(|failure| self.error(Kind::Head, "?lifecycle", failure))
        })
    }

    fn aborts_uploads_itself(&self) -> bool {
        self.provider_seen() == Provider::Minio
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, bool> {
        Box::pin(async move {
            let sum = Sum::of(self.checksum(), &body).await;
            let ask = Ask::new(Kind::Put).sending(body.len());
            let put = self.tries(ask, || self.put_if_absent_once(key, body.clone(), &sum)).await;
            put.map_err(|failure| self.error(Kind::Put, key, failure))
        })
    }

    fn takes_wrong_checksum<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, bool> {
        Box::pin(async move {
            let sum = Sum::of(self.checksum(), &Bytes::from_static(b"other bytes")).await;
            let ask = Ask::new(Kind::Put).sending(body.len());
            let put = self.tries(ask, || self.wrong_checksum_once(key, body.clone(), &sum)).await;
            put.map_err(|failure| self.error(Kind::Put, key, failure))
        })
    }

    fn delete_bypassing<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move {
            let deleted = self
                .tries(Ask::new(Kind::Delete), || self.delete_bypassing_once(key, version))
                .await;
            deleted.map_err(|failure| self.error(Kind::Delete, key, failure))
        })
    }
}
