//! At most so many calls at once, so that the number of connections and of bytes in flight is bounded.
//!
//! A permit is held for the whole call, its retries and waits included: a store that is in trouble gets fewer requests.
//! A call runs in a task of its own, which ends when the caller lets go of the call. So it goes on, and gives its permit back, also while its
//! caller waits for another one first, and two that wait for each other's permits cannot be.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::store::bucket::{Bucket, BucketLock, LifecycleRule, Versioning};
use crate::store::error::Cause;
use crate::store::uploads::{OpenUpload, Uploads};
use crate::store::versions::{ObjectLock, Retention, VersionMark, VersionPage, Versions};
use crate::store::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// A store that lets so many calls through at a time; the others wait, first come first served.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    permits: Arc<Semaphore>,
}

impl Limit {
    /// At most `calls` (at least one) at once.
    pub fn new(inner: Arc<dyn Store>, calls: usize) -> Self {
        Self {
            inner,
            permits: Arc::new(Semaphore::new(calls.max(1))),
        }
    }

    fn limited<T, F>(&self, call: impl FnOnce(Arc<dyn Store>) -> F + Send + 'static) -> Call<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send,
    {
        Box::pin(async move {
            let (inner, permits) = (Arc::clone(&self.inner), Arc::clone(&self.permits));
            let mut task = JoinSet::new();
            task.spawn(async move {
                // The semaphore is never closed, so there always is one.
                let _permit = permits.acquire().await;
                call(inner).await
            });
            match task.join_next().await {
                Some(Ok(result)) => result,
                Some(Err(error)) => Err(failed(Cause::new("the task for it ended").source(error))),
                None => Err(failed(Cause::new("the task for it is gone"))),
            }
        })
    }

    /// The same for what not every store has; who has this one in hand knows that it does.
    fn special<T, F>(&self, call: impl FnOnce(Arc<dyn Store>) -> F + Send + 'static) -> Call<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Option<Result<T, Error>>> + Send,
    {
        self.limited(move |inner| {
            let called = call(inner);
            async move { called.await.unwrap_or_else(|| Err(failed(Cause::new("this store cannot do that")))) }
        })
    }
}

fn failed(cause: Cause) -> Error {
    Error::Failed {
        action: "a call",
        key: String::new(),
        source: cause.into(),
    }
}

impl Store for Limit {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        let key = key.to_owned();
        self.limited(move |inner| async move { inner.put(&key, body).await })
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        let key = key.to_owned();
        self.limited(|inner| async move { inner.create_upload(&key).await })
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        let (key, upload) = (key.to_owned(), upload.clone());
        self.limited(move |inner| async move { inner.put_part(&key, &upload, number, body).await })
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        let (key, upload) = (key.to_owned(), upload.clone());
        self.limited(move |inner| async move { inner.complete_upload(&key, &upload, parts, object_bytes).await })
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        let (key, upload) = (key.to_owned(), upload.clone());
        self.limited(|inner| async move { inner.abort_upload(&key, &upload).await })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.limited(|inner| async move { inner.copy(&from, &to).await })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        let key = key.to_owned();
        self.limited(move |inner| async move { inner.get(&key, range).await })
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        let key = key.to_owned();
        self.limited(|inner| async move { inner.head(&key).await })
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.limited(|inner| async move { inner.list_page(&prefix, after.as_deref()).await })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        let key = key.to_owned();
        self.limited(|inner| async move { inner.delete(&key).await })
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn versions(&self) -> Option<&dyn Versions> {
        self.inner.versions().map(|_| self as _)
    }

    fn uploads(&self) -> Option<&dyn Uploads> {
        self.inner.uploads().map(|_| self as _)
    }

    fn bucket(&self) -> Option<&dyn Bucket> {
        self.inner.bucket().map(|_| self as _)
    }
}

impl Uploads for Limit {
    fn list_uploads<'a>(&'a self, prefix: &'a str) -> Call<'a, Vec<OpenUpload>> {
        let prefix = prefix.to_owned();
        self.special(|inner| async move { Some(inner.uploads()?.list_uploads(&prefix).await) })
    }
}

impl Versions for Limit {
    fn object_lock(&self) -> Option<ObjectLock> {
        self.inner.versions()?.object_lock()
    }

    fn list_versions<'a>(&'a self, prefix: &'a str, after: Option<&'a VersionMark>) -> Call<'a, VersionPage> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.special(|inner| async move { Some(inner.versions()?.list_versions(&prefix, after.as_ref()).await) })
    }

    fn get_version<'a>(&'a self, key: &'a str, version: &'a str, range: ByteRange) -> Call<'a, Got> {
        let (key, version) = (key.to_owned(), version.to_owned());
        self.special(move |inner| async move { Some(inner.versions()?.get_version(&key, &version, range).await) })
    }

    fn delete_version<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp> {
        let (key, version) = (key.to_owned(), version.to_owned());
        self.special(|inner| async move { Some(inner.versions()?.delete_version(&key, &version).await) })
    }

    fn retention<'a>(&'a self, key: &'a str) -> Call<'a, Option<Retention>> {
        let key = key.to_owned();
        self.special(|inner| async move { Some(inner.versions()?.retention(&key).await) })
    }

    fn extend<'a>(&'a self, key: &'a str, retention: Retention) -> Call<'a, Stamp> {
        let key = key.to_owned();
        self.special(move |inner| async move { Some(inner.versions()?.extend(&key, retention).await) })
    }
}

impl Bucket for Limit {
    fn versioning(&self) -> Call<'_, Versioning> {
        self.special(|inner| async move { Some(inner.bucket()?.versioning().await) })
    }

    fn lock(&self) -> Call<'_, BucketLock> {
        self.special(|inner| async move { Some(inner.bucket()?.lock().await) })
    }

    fn lifecycle(&self) -> Call<'_, Vec<LifecycleRule>> {
        self.special(|inner| async move { Some(inner.bucket()?.lifecycle().await) })
    }

    fn aborts_uploads_itself(&self) -> bool {
        self.inner.bucket().is_some_and(Bucket::aborts_uploads_itself)
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, bool> {
        let key = key.to_owned();
        self.special(move |inner| async move { Some(inner.bucket()?.put_if_absent(&key, body).await) })
    }

    fn takes_wrong_checksum<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, bool> {
        let key = key.to_owned();
        self.special(move |inner| async move { Some(inner.bucket()?.takes_wrong_checksum(&key, body).await) })
    }

    fn delete_bypassing<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp> {
        let (key, version) = (key.to_owned(), version.to_owned());
        self.special(|inner| async move { Some(inner.bucket()?.delete_bypassing(&key, &version).await) })
    }
}
