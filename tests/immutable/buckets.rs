//! Buckets and users of one `MinIO` that the tests of this binary share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockRetention, ObjectLockRetentionMode};
use jiff::{SignedDuration, Timestamp};
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::counters::Counters;
use synapse_backup::store::s3::{self, S3Options};
use synapse_backup::store::versions::{ObjectLock, Version};
use synapse_backup::store::{Error, Store};

use crate::support::minio;

/// Everything of a repository lies below this.
pub(crate) const PREFIX: &str = "matrix";

const WRITER: &str = include_str!("../../deploy/policies/minio/writer.json");
const PRUNER: &str = include_str!("../../deploy/policies/minio/pruner.json");
const READER: &str = include_str!("../../deploy/policies/minio/reader.json");

/// A bucket of its own with the three roles.
pub(crate) struct Bucket {
    pub(crate) name: String,
    lock: Option<ObjectLock>,
}

impl Bucket {
    fn fresh(lock: Option<ObjectLock>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { name, lock }
    }

    /// One that keeps versions.
    pub(crate) async fn versioned() -> Self {
        let bucket = Self::fresh(None);
        minio::shared().create_versioned_bucket(&bucket.name).await;
        bucket.with_users()
    }

    /// One with Object Lock, into which everything is written with this retention.
    pub(crate) async fn locked(lock: ObjectLock) -> Self {
        let bucket = Self::fresh(Some(lock));
        minio::shared().create_locked_bucket(&bucket.name).await;
        bucket.with_users()
    }

    /// One that forgets what is overwritten.
    pub(crate) async fn plain() -> Self {
        let bucket = Self::fresh(None);
        minio::shared().create_bucket(&bucket.name).await;
        bucket.with_users()
    }

    fn with_users(self) -> Self {
        for (role, policy) in [("writer", WRITER), ("pruner", PRUNER), ("reader", READER)] {
            let policy = policy.replace("BUCKET", &self.name).replace("PREFIX", PREFIX);
            self.add_user(role, &policy);
        }
        self
    }

    /// One more role, which this policy makes.
    pub(crate) fn add_user(&self, role: &str, policy: &str) {
        minio::shared().add_user(&self.user(role), policy);
    }

    /// The same bucket under other settings.
    pub(crate) fn with_lock(&self, lock: ObjectLock) -> Self {
        Self {
            name: self.name.clone(),
            lock: Some(lock),
        }
    }

    /// End a governance retention earlier, which only the owner may: as if time had passed.
    pub(crate) async fn shorten(&self, key: &str, until: Timestamp) {
        self.hold(key, None, until).await;
    }

    /// The same with one version, which is held no longer.
    pub(crate) async fn release(&self, key: &str, version: &str) {
        let now = self.store().await.list_page("probe/", None).await.unwrap().date;
        self.hold(key, Some(version.to_owned()), now + SignedDuration::from_secs(2)).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    }

    async fn hold(&self, key: &str, version: Option<String>, until: Timestamp) {
        let held = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::Governance)
            .retain_until_date(DateTime::from_secs(until.as_second()))
            .build();
        let client = minio::shared().client();
        let request = client.put_object_retention().bucket(&self.name).key(format!("{PREFIX}/{key}"));
        let request = request.set_version_id(version);
        request.retention(held).bypass_governance_retention(true).send().await.unwrap();
    }

    pub(crate) fn user(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// The store as `writer`, `pruner` or `reader` sees it.
    pub(crate) async fn store_as(&self, role: &str) -> Arc<dyn Store> {
        self.open(minio::shared().options_as(&self.user(role), &self.name, PREFIX)).await
    }

    /// As the owner of the server.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        let options = S3Options {
            prefix: PREFIX.to_owned(),
            ..minio::shared().options(&self.name)
        };
        self.open(options).await
    }

    /// The same, whose requests are counted.
    pub(crate) async fn counted(&self) -> (Arc<dyn Store>, Arc<Counters>) {
        let options = S3Options {
            prefix: PREFIX.to_owned(),
            ..minio::shared().options(&self.name)
        };
        let counters = Arc::new(Counters::default());
        (s3::open(options, Arc::clone(&counters)).await.unwrap(), counters)
    }

    async fn open(&self, options: S3Options) -> Arc<dyn Store> {
        let options = S3Options {
            object_lock: self.lock,
            ..options
        };
        s3::open(options, Arc::default()).await.unwrap()
    }

    /// Every version in the bucket, as its owner sees them.
    pub(crate) async fn versions(&self) -> Vec<Version> {
        let store = self.store().await;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.versions().unwrap().list_versions("", after.as_ref()).await.unwrap();
            all.extend(page.versions);
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }
}

/// A new repository there: sealed, where the keyring has recipients.
pub(crate) async fn init_with(store: Arc<dyn Store>, keyring: Keyring) -> Repository {
    open::init_with(store, Ids::random(), keyring).await.unwrap()
}

/// The repository there, with these keys.
pub(crate) async fn reopen_with(store: Arc<dyn Store>, keyring: Keyring) -> Repository {
    open::open_with(store, Ids::random(), keyring).await.unwrap()
}

/// All keys of a store.
pub(crate) async fn keys(store: &dyn Store) -> Vec<String> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_page("", after.as_deref()).await.unwrap();
        keys.extend(page.objects.into_iter().map(|object| object.key));
        after = page.next;
        if after.is_none() {
            return keys;
        }
    }
}

/// The store knows who asks, and that he may not.
pub(crate) fn is_denied<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Denied { .. }))
}
