//! A fault at a chosen call: the network that breaks, the store that is full, the process that dies.
//!
//! A call fails either before it takes effect, or after: then it happened and its answer is lost. A lost answer of
//! `put` and `copy` is [`Error::Unknown`], as a real store's is. Calls are numbered from 1 in the order in which
//! their futures are first polled; what is counted can be narrowed to some kinds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::store::bucket::Bucket;
use crate::store::counters::Kind;
use crate::store::error::Cause;
use crate::store::uploads::Uploads;
use crate::store::versions::Versions;
use crate::store::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store never hears of it.
    Before,
    /// It happens, and the answer is lost.
    After,
    /// The store never hears of this one nor of any that comes later: the machine is cut off.
    BeforeAndEver,
    /// It happens, the answer is lost, and nothing later reaches the store.
    AfterAndEver,
}

/// A store that fails at call `n`.
#[derive(Debug)]
pub struct Fail {
    inner: Arc<dyn Store>,
    at: u64,
    fault: Fault,
    /// So many calls from that one on.
    calls: u64,
    kinds: Option<Vec<Kind>>,
    begun: AtomicU64,
}

impl Fail {
    /// Call `at` (from 1) fails.
    pub fn new(inner: Arc<dyn Store>, at: u64, fault: Fault) -> Self {
        Self {
            inner,
            at,
            fault,
            calls: 1,
            kinds: None,
            begun: AtomicU64::new(0),
        }
    }

    /// Fail so many calls in a row, not one.
    #[must_use]
    pub fn calls(mut self, calls: u64) -> Self {
        self.calls = calls;
        self
    }

    /// Count, and fail, only calls of these kinds.
    #[must_use]
    pub fn only(mut self, kinds: &[Kind]) -> Self {
        self.kinds = Some(kinds.to_vec());
        self
    }

    /// How many calls (of the kinds that count) were begun: a test that tries each in turn knows when to stop.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn faulty<'a, T: Send + 'a>(&'a self, kind: Kind, key: &'a str, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move {
            if self.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&kind)) {
                return call.await;
            }
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let ever = matches!(self.fault, Fault::BeforeAndEver | Fault::AfterAndEver);
            let is_first = (self.at..self.at.saturating_add(self.calls)).contains(&number);
            if number < self.at || (!is_first && !ever) {
                return call.await;
            }
            let takes_effect = is_first && matches!(self.fault, Fault::After | Fault::AfterAndEver);
            if takes_effect {
                call.await?;
            }
            Err(broken(kind, key, takes_effect))
        })
    }
}

fn broken(kind: Kind, key: &str, takes_effect: bool) -> Error {
    let (action, key) = (kind.verb(), key.to_owned());
    if takes_effect && matches!(kind, Kind::Put | Kind::Copy) {
        let source = Cause::new("the answer was lost (a fault that was asked for)").into();
        return Error::Unknown { action, key, source };
    }
    let source = Cause::new("the connection broke (a fault that was asked for)").into();
    Error::Failed { action, key, source }
}

impl Store for Fail {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        self.faulty(Kind::Put, key, self.inner.put(key, body))
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.faulty(Kind::Create, key, self.inner.create_upload(key))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        self.faulty(Kind::Part, key, self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        self.faulty(Kind::Complete, key, self.inner.complete_upload(key, upload, parts, object_bytes))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        self.faulty(Kind::Abort, key, self.inner.abort_upload(key, upload))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.faulty(Kind::Copy, to, self.inner.copy(from, to))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.faulty(Kind::Get, key, self.inner.get(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.faulty(Kind::Head, key, self.inner.head(key))
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.faulty(Kind::List, prefix, self.inner.list_page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.faulty(Kind::Delete, key, self.inner.delete(key))
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
