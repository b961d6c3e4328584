//! At most so many calls at once, so that the number of connections and of bytes in flight is bounded.
//!
//! A permit is held for the whole call, its retries and waits included: a store that is in trouble gets fewer requests.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::store::bucket::Bucket;
use crate::store::uploads::Uploads;
use crate::store::versions::Versions;
use crate::store::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// A store that lets so many calls through at a time; the others wait, first come first served.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    permits: Semaphore,
}

impl Limit {
    /// At most `calls` (at least one) at once.
    pub fn new(inner: Arc<dyn Store>, calls: usize) -> Self {
        Self {
            inner,
            permits: Semaphore::new(calls.max(1)),
        }
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so there always is one.
        self.permits.acquire().await.ok()
    }

    fn limited<'a, T: Send + 'a>(&'a self, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move {
            let _permit = self.permit().await;
            let result: Result<T, Error> = call.await;
            result
        })
    }
}

impl Store for Limit {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        self.limited(self.inner.put(key, body))
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.limited(self.inner.create_upload(key))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        self.limited(self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        self.limited(self.inner.complete_upload(key, upload, parts, object_bytes))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        self.limited(self.inner.abort_upload(key, upload))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.limited(self.inner.copy(from, to))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.limited(self.inner.get(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.limited(self.inner.head(key))
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.limited(self.inner.list_page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.limited(self.inner.delete(key))
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn versions(&self) -> Option<&dyn Versions> {
        self.inner.versions()
    }

    fn uploads(&self) -> Option<&dyn Uploads> {
        self.inner.uploads()
    }

    fn bucket(&self) -> Option<&dyn Bucket> {
        self.inner.bucket()
    }
}
