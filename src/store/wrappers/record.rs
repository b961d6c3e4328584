//! A log of the calls, in the order in which they were begun: the write order of the protocol is tested against it.
//!
//! It changes nothing about the calls, and remembers keys and outcomes, never bytes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::store::bucket::Bucket;
use crate::store::counters::Kind;
use crate::store::uploads::Uploads;
use crate::store::versions::Versions;
use crate::store::{ByteRange, Call, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What was asked.
    pub kind: Kind,
    /// The key; the prefix of a listing; the new key of a copy.
    pub key: String,
    /// How it ended; `None` while it runs, or when its future was dropped.
    pub ok: Option<bool>,
}

/// A store that remembers what it was asked.
#[derive(Debug)]
pub struct Record {
    inner: Arc<dyn Store>,
    calls: Mutex<Vec<Recorded>>,
}

impl Record {
    /// With an empty log.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
        }
    }

    /// The log until now.
    pub fn calls(&self) -> Vec<Recorded> {
        self.log().clone()
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Vec<Recorded>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorded<'a, T: Send + 'a>(&'a self, kind: Kind, key: &'a str, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move {
            let at = {
                let mut log = self.log();
                log.push(Recorded {
                    kind,
                    key: key.to_owned(),
                    ok: None,
                });
                log.len() - 1
            };
            let result = call.await;
            if let Some(line) = self.log().get_mut(at) {
                line.ok = Some(result.is_ok());
            }
            result
        })
    }
}

impl Store for Record {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        self.recorded(Kind::Put, key, self.inner.put(key, body))
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.recorded(Kind::Create, key, self.inner.create_upload(key))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        self.recorded(Kind::Part, key, self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        self.recorded(Kind::Complete, key, self.inner.complete_upload(key, upload, parts, object_bytes))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        self.recorded(Kind::Abort, key, self.inner.abort_upload(key, upload))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.recorded(Kind::Copy, to, self.inner.copy(from, to))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.recorded(Kind::Get, key, self.inner.get(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.recorded(Kind::Head, key, self.inner.head(key))
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.recorded(Kind::List, prefix, self.inner.list_page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.recorded(Kind::Delete, key, self.inner.delete(key))
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
