//! Time that passes before a call is handed on: a store far away, on a machine with none at hand.
//!
//! The wait is tokio's, so a test with paused time costs nothing. The body of a write takes longer the larger it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::store::bucket::Bucket;
use crate::store::uploads::Uploads;
use crate::store::versions::Versions;
use crate::store::{ByteRange, Call, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// A store that is slow to answer.
#[derive(Debug)]
pub struct Latency {
    inner: Arc<dyn Store>,
    each: Duration,
    bytes_per_second: Option<u32>,
}

impl Latency {
    /// Every call takes `each` longer.
    pub fn new(inner: Arc<dyn Store>, each: Duration) -> Self {
        Self {
            inner,
            each,
            bytes_per_second: None,
        }
    }

    /// And each body takes its time to travel.
    #[must_use]
    pub fn with_bytes_per_second(mut self, bytes_per_second: u32) -> Self {
        self.bytes_per_second = Some(bytes_per_second.max(1));
        self
    }

    fn late<'a, T: Send + 'a>(&'a self, body_bytes: usize, call: Call<'a, T>) -> Call<'a, T> {
        #[expect(clippy::cast_precision_loss, reason = "a simulated delay need not be exact")]
        let travel = self.bytes_per_second.map_or(0.0, |rate| body_bytes as f64 / f64::from(rate));
        Box::pin(async move {
            tokio::time::sleep(self.each + Duration::from_secs_f64(travel)).await;
            call.await
        })
    }
}

impl Store for Latency {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        self.late(body.len(), self.inner.put(key, body))
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.late(0, self.inner.create_upload(key))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        self.late(body.len(), self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        self.late(0, self.inner.complete_upload(key, upload, parts, object_bytes))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        self.late(0, self.inner.abort_upload(key, upload))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.late(0, self.inner.copy(from, to))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.late(0, self.inner.get(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.late(0, self.inner.head(key))
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.late(0, self.inner.list_page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.late(0, self.inner.delete(key))
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
