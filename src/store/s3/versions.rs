//! Versions and retention: the requests that only a bucket with versions, or with Object Lock, answers.
//!
//! A listing of versions comes as two lists, of objects and of markers; here they are one again, each key's newest
//! first. Where two have the same time, the object stands before the marker: a reader of the past then sees rather
//! too much than too little. The end of a retention is told in whole seconds of the store's own clock.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{EncodingType, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};

use super::super::counters::Kind;
use super::super::error::Cause;
use super::super::versions::{LockMode, ObjectLock, Retention, Version, VersionMark, VersionPage, Versions};
use super::super::{ByteRange, Call, Error, Got, Stamp};
use super::S3;
use super::calls::{length, modified, percent_decode};
use super::classify::Failure;
use super::meter::{Seen, timestamp};
use super::retry::Ask;

/// For the headers of a write.
pub(super) fn mode(retention: Retention) -> ObjectLockMode {
    match retention.mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

/// The end, in whole seconds.
pub(super) fn until(retention: Retention) -> DateTime {
    DateTime::from_secs(retention.until.as_second())
}

impl S3 {
    /// The retention of what is written now, by the store's clock; before its first answer the store is asked for its time.
    pub(super) async fn held(&self, kind: Kind, key: &str) -> Result<Option<Retention>, Error> {
        // Probes are thrown away.
        let Some(lock) = self.object_lock.filter(|_| !key.starts_with("probe/")) else {
            return Ok(None);
        };
        if self.clock.now().is_none() {
            let asked = self.tries(Ask::new(Kind::List), || self.list_once("probe/", None)).await;
            asked.map_err(|failure| self.error(Kind::List, "probe/", failure))?;
        }
        let now = self.clock.now().ok_or_else(|| Error::Failed {
            action: kind.verb(),
            key: key.to_owned(),
            source: Cause::new("the store's time is not known").into(),
        })?;
        Ok(Some(lock.from(now)))
    }

    async fn list_versions_once(&self, prefix: &str, after: Option<&VersionMark>) -> Result<VersionPage, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .list_object_versions()
            .bucket(&self.bucket)
            .prefix(self.full(prefix))
            .set_key_marker(after.map(|mark| self.full(&mark.key)))
            .set_version_id_marker(after.and_then(|mark| mark.version.clone()))
            .encoding_type(EncodingType::Url);
        let answer = request
            .customize()
            .interceptor(self.meter(&seen))
            .send()
            .await
            .map_err(Failure::of)?;
        let next = self.next_mark(&answer)?;
        Ok(VersionPage {
            versions: self.read_versions(answer)?,
            next,
            date: seen.date()?,
        })
    }

    fn next_mark(&self, answer: &ListObjectVersionsOutput) -> Result<Option<VersionMark>, Failure> {
        if answer.is_truncated != Some(true) {
            return Ok(None);
        }
        let key = answer.next_key_marker.as_deref().map(|key| self.own_key(key, answer));
        let key = key.flatten().filter(|key| !key.is_empty());
        let version = answer.next_version_id_marker.clone().filter(|version| !version.is_empty());
        let lost = || Failure::fatal(Cause::new("the listing of versions goes on but does not say where"));
        Ok(Some(VersionMark {
            key: key.ok_or_else(lost)?,
            version,
        }))
    }

    /// The key without our prefix; `None` for one that is not ours.
    fn own_key(&self, key: &str, answer: &ListObjectVersionsOutput) -> Option<String> {
        let is_encoded = answer.encoding_type == Some(EncodingType::Url);
        let key = if is_encoded { percent_decode(key) } else { key.to_owned() };
        key.strip_prefix(&self.prefix).map(str::to_owned)
    }

    fn read_versions(&self, mut answer: ListObjectVersionsOutput) -> Result<Vec<Version>, Failure> {
        let (objects, markers) = (answer.versions.take(), answer.delete_markers.take());
        let mut versions = Vec::new();
        for object in objects.unwrap_or_default() {
            let Some(key) = self.own_key(&object.key.unwrap_or_default(), &answer) else {
                continue;
            };
            versions.push(Version {
                key,
                id: object.version_id.unwrap_or_else(|| "null".to_owned()),
                is_latest: object.is_latest == Some(true),
                last_modified: modified(object.last_modified.as_ref())?,
                bytes: Some(length(object.size)?),
            });
        }
        for marker in markers.unwrap_or_default() {
            let Some(key) = self.own_key(&marker.key.unwrap_or_default(), &answer) else {
                continue;
            };
            versions.push(Version {
                key,
                id: marker.version_id.unwrap_or_else(|| "null".to_owned()),
                is_latest: marker.is_latest == Some(true),
                last_modified: modified(marker.last_modified.as_ref())?,
                bytes: None,
            });
        }
        // Stable: objects of one moment stay in the store's order, and before a marker.
        versions.sort_by(|a, b| a.key.cmp(&b.key).then(b.last_modified.cmp(&a.last_modified)));
        Ok(versions)
    }

    async fn delete_version_once(&self, key: &str, version: &str) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .version_id(version);
        request
            .customize()
            .interceptor(self.meter(&seen))
            .send()
            .await
            .map_err(Failure::of)?;
        Ok(Stamp { date: seen.date()? })
    }

    async fn retention_once(&self, key: &str) -> Result<Option<Retention>, Failure> {
        let request = self.client.get_object_retention().bucket(&self.bucket).key(self.full(key));
        let answer = match request.customize().interceptor(self.meter(&Seen::default())).send().await {
            Ok(answer) => answer,
            // How a store says that there is none, or that the bucket was made without Object Lock.
            Err(error)
                if error.code() == Some("NoSuchObjectLockConfiguration")
                    || error.code() == Some("InvalidRequest") && error.message().is_some_and(|text| text.contains("Object Lock")) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Failure::of(error)),
        };
        let Some(retention) = answer.retention else { return Ok(None) };
        let mode = match retention.mode {
            Some(ObjectLockRetentionMode::Governance) => LockMode::Governance,
            Some(ObjectLockRetentionMode::Compliance) => LockMode::Compliance,
            _ => return Ok(None),
        };
        Ok(retention
            .retain_until_date
            .as_ref()
            .and_then(timestamp)
            .map(|until| Retention { mode, until }))
    }

    async fn extend_once(&self, key: &str, retention: Retention) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let mode = match retention.mode {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let held = ObjectLockRetention::builder()
            .mode(mode)
            .retain_until_date(until(retention))
            .build();
        let request = self
            .client
            .put_object_retention()
            .bucket(&self.bucket)
            .key(self.full(key))
            .retention(held);
        request
            .customize()
            .interceptor(self.meter(&seen))
            .send()
            .await
            .map_err(Failure::of)?;
        Ok(Stamp { date: seen.date()? })
    }
}

impl Versions for S3 {
    fn object_lock(&self) -> Option<ObjectLock> {
        self.object_lock
    }

    fn list_versions<'a>(&'a self, prefix: &'a str, after: Option<&'a VersionMark>) -> Call<'a, VersionPage> {
        Box::pin(async move {
            let page = self.tries(Ask::new(Kind::List), || self.list_versions_once(prefix, after)).await;
            page.map_err(|failure| self.error(Kind::List, prefix, failure))
        })
    }

    fn get_version<'a>(&'a self, key: &'a str, version: &'a str, range: ByteRange) -> Call<'a, Got> {
        Box::pin(async move {
            let got = self.tries(Ask::new(Kind::Get), || self.get_once(key, Some(version), range)).await;
            got.map_err(|failure| self.error(Kind::Get, key, failure))
        })
    }

    fn delete_version<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move {
            let deleted = self.tries(Ask::new(Kind::Delete), || self.delete_version_once(key, version)).await;
            deleted.map_err(|failure| self.error(Kind::Delete, key, failure))
        })
    }

    fn retention<'a>(&'a self, key: &'a str) -> Call<'a, Option<Retention>> {
        Box::pin(async move {
            let retention = self.tries(Ask::new(Kind::Head), || self.retention_once(key)).await;
            retention.map_err(|failure| self.error(Kind::Head, key, failure))
        })
    }

    fn extend<'a>(&'a self, key: &'a str, retention: Retention) -> Call<'a, Stamp> {
        Box::pin(async move {
            // It may be done twice: the same end is set again.
            let ask = Ask {
                is_repeatable: true,
                ..Ask::new(Kind::Put)
            };
            let extended = self.tries(ask, || self.extend_once(key, retention)).await;
            extended.map_err(|failure| self.error(Kind::Put, key, failure))
        })
    }
}
