//! A store that lets a test do something right before a call happens: another machine that comes between.
//!
//! The hook is told the kind of the call and its key, and works on the store behind this one.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::versions::Versions;
use synapse_backup::store::{ByteRange, Call, Got, Head, Page, PartTag, Stamp, Store, UploadId};

type Act = dyn Fn(Kind, &str) + Send + Sync;

/// A store with somebody else at it.
pub(crate) struct Hook {
    inner: Arc<dyn Store>,
    act: Box<Act>,
    versions: Option<Arc<dyn Versions>>,
}

impl Hook {
    /// `act` runs when a call of ours is about to happen.
    pub(crate) fn new(inner: Arc<dyn Store>, act: impl Fn(Kind, &str) + Send + Sync + 'static) -> Self {
        Self {
            inner,
            act: Box::new(act),
            versions: None,
        }
    }

    /// The same, with old versions.
    pub(crate) fn with_versions(self, versions: Arc<dyn Versions>) -> Self {
        let versions = Some(versions);
        Self { versions, ..self }
    }

    fn after<'a, T: Send + 'a>(&'a self, kind: Kind, key: &'a str, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move {
            (self.act)(kind, key);
            call.await
        })
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Store for Hook {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        self.after(Kind::Put, key, self.inner.put(key, body))
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.after(Kind::Create, key, self.inner.create_upload(key))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        self.after(Kind::Part, key, self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        self.after(Kind::Complete, key, self.inner.complete_upload(key, upload, parts, object_bytes))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        self.after(Kind::Abort, key, self.inner.abort_upload(key, upload))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.after(Kind::Copy, to, self.inner.copy(from, to))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.after(Kind::Get, key, self.inner.get(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.after(Kind::Head, key, self.inner.head(key))
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.after(Kind::List, prefix, self.inner.list_page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.after(Kind::Delete, key, self.inner.delete(key))
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn versions(&self) -> Option<&dyn Versions> {
        self.versions.as_deref()
    }
}
