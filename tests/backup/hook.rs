//! Doing something at a chosen moment of a run: before a call to the store, or when a stage has come so far.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use synapse_backup::progress::Progress;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::{ByteRange, Call, Got, Head, Page, PartTag, Stamp, Store, UploadId};

type Act = dyn Fn(Kind, &str) -> Option<BoxFuture<'static, ()>> + Send + Sync;

/// A store that does something before it hands a call on.
pub(crate) struct Hook {
    inner: Arc<dyn Store>,
    act: Box<Act>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Hook {
    /// `act` is asked before every call; what it gives is waited for.
    pub(crate) fn new(inner: Arc<dyn Store>, act: impl Fn(Kind, &str) -> Option<BoxFuture<'static, ()>> + Send + Sync + 'static) -> Self {
        Self { inner, act: Box::new(act) }
    }

    /// `act` is done before the first call for which `when` holds.
    pub(crate) fn once(
        inner: Arc<dyn Store>,
        when: impl Fn(Kind, &str) -> bool + Send + Sync + 'static,
        act: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let done = AtomicBool::new(false);
        Self::new(inner, move |kind, key| {
            (when(kind, key) && !done.swap(true, Ordering::SeqCst)).then(&act)
        })
    }

    fn hooked<'a, T: Send + 'a>(&'a self, kind: Kind, key: &'a str, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move {
            if let Some(act) = (self.act)(kind, key) {
                act.await;
            }
            call.await
        })
    }
}

impl Store for Hook {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        self.hooked(Kind::Put, key, self.inner.put(key, body))
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.hooked(Kind::Create, key, self.inner.create_upload(key))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        self.hooked(Kind::Part, key, self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        self.hooked(Kind::Complete, key, self.inner.complete_upload(key, upload, parts, object_bytes))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        self.hooked(Kind::Abort, key, self.inner.abort_upload(key, upload))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.hooked(Kind::Copy, to, self.inner.copy(from, to))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.hooked(Kind::Get, key, self.inner.get(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.hooked(Kind::Head, key, self.inner.head(key))
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.hooked(Kind::List, prefix, self.inner.list_page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.hooked(Kind::Delete, key, self.inner.delete(key))
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}

/// Does something once, when a stage has come so many bytes far; blocks the run meanwhile.
pub(crate) struct At {
    stage: &'static str,
    bytes: u64,
    seen: AtomicU64,
    done: AtomicBool,
    act: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("At")
    }
}

impl At {
    pub(crate) fn new(stage: &'static str, bytes: u64, act: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            stage,
            bytes,
            seen: AtomicU64::new(0),
            done: AtomicBool::new(false),
            act: Box::new(act),
        }
    }

    /// It came to that.
    pub(crate) fn was_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    fn reached(&self, stage: &str, bytes: u64) {
        if stage == self.stage
            && self.seen.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.bytes
            && !self.done.swap(true, Ordering::SeqCst)
        {
            (self.act)();
        }
    }
}

impl Progress for At {
    fn stage(&self, name: &str, _: Option<u64>, _: Option<u64>) {
        self.reached(name, 0);
    }

    fn advance(&self, stage: &str, bytes: u64, _: u64) {
        self.reached(stage, bytes);
    }

    fn done(&self, _: &str) {}

    fn problem(&self, _: &str, _: &str, _: &str) {}
}
