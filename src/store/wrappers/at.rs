//! The bucket as it was at a time: of each key the newest version that had landed by then, unless it was deleted then.
//!
//! What anybody deleted, overwrote or added later is not seen, so that a repository is read as it was before a break-in.
//! It only reads: every write is refused. Listings are made page by page from listings of versions, and of all versions
//! of one key only the best is kept, so that a million overwrites cost requests and no memory. The versions of keys that
//! were listed are remembered, as far as there is room: a read of another key asks for its versions first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use crate::store::error::Cause;
use crate::store::versions::{Version, VersionMark, Versions};
use crate::store::{ByteRange, Call, Error, Got, Head, Listed, Page, PartTag, Stamp, Store, UploadId};

/// Keys whose version is remembered: some 10 MB at most, and all packs of 4 TB.
const REMEMBERED_MAX: usize = 1 << 16;

/// A store as it was.
#[derive(Debug)]
pub struct At {
    inner: Arc<dyn Store>,
    time: Timestamp,
    remembered: Mutex<HashMap<String, Version>>,
}

/// The best version of one key so far.
#[derive(Debug, Default)]
struct Best(Option<Version>);

impl Best {
    /// Versions come newest first; of two with the same time an object is better than a marker.
    fn see(&mut self, version: Version, time: Timestamp) {
        let is_better = self.0.as_ref().is_none_or(|best| {
            version.last_modified > best.last_modified
                || version.last_modified == best.last_modified && best.bytes.is_none() && version.bytes.is_some()
        });
        if version.last_modified <= time && is_better {
            self.0 = Some(version);
        }
    }

    /// The object, if the key had one.
    fn object(self) -> Option<(Version, u64)> {
        let version = self.0?;
        let bytes = version.bytes?;
        Some((version, bytes))
    }
}

impl At {
    /// `inner` as it was at `time`, by its own clock; `None` where it keeps no versions.
    pub fn new(inner: Arc<dyn Store>, time: Timestamp) -> Option<Self> {
        inner.versions()?;
        Some(Self {
            inner,
            time,
            remembered: Mutex::default(),
        })
    }

    fn versions(&self) -> Result<&dyn Versions, Error> {
        self.inner.versions().ok_or_else(|| self.refused("LIST", ""))
    }

    fn refused(&self, action: &'static str, key: &str) -> Error {
        let text = format!("{} is shown as it was at {}, which nothing can change", self.inner.url(), self.time);
        Error::Failed {
            action,
            key: key.to_owned(),
            source: Cause::new(text).hint(Some("leave out --at to write")).into(),
        }
    }

    fn refuse<T: Send>(&self, action: &'static str, key: &str) -> Call<'_, T> {
        let error = self.refused(action, key);
        Box::pin(async move { Err(error) })
    }

    fn remember(&self, version: Version) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(version.key.clone(), version);
        }
    }

    /// The version of this key.
    async fn find(&self, key: &str) -> Result<Version, Error> {
        let known = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(version) = known {
            return Ok(version);
        }
        let mut best = Best::default();
        let mut after = None;
        // Other keys may begin with this one; it comes first of all that do.
        'pages: loop {
            let page = self.versions()?.list_versions(key, after.as_ref()).await?;
            for version in page.versions {
                if version.key != key {
                    break 'pages;
                }
                best.see(version, self.time);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let (version, _) = best.object().ok_or_else(|| Error::NotFound { key: key.to_owned() })?;
        self.remember(version.clone());
        Ok(version)
    }

    /// A page begins after a whole key, so `after` is a key. The last key of a listing of versions may go on in the next: it is
    /// left to the next page, unless there is nothing else to give yet.
    async fn page(&self, prefix: &str, after: Option<&str>) -> Result<Page, Error> {
        let mut mark = after.map(|key| VersionMark {
            key: key.to_owned(),
            version: None,
        });
        let mut objects: Vec<Listed> = Vec::new();
        let (mut key, mut best) = (String::new(), Best::default());
        loop {
            let page = self.versions()?.list_versions(prefix, mark.as_ref()).await?;
            for version in page.versions {
                if version.key != key {
                    self.list(std::mem::take(&mut best), &mut objects);
                    key.clone_from(&version.key);
                }
                best.see(version, self.time);
            }
            if page.next.is_none() {
                self.list(std::mem::take(&mut best), &mut objects);
            }
            if page.next.is_none() || !objects.is_empty() {
                return Ok(Page {
                    next: page.next.and_then(|_| objects.last().map(|last| last.key.clone())),
                    objects,
                    date: page.date,
                });
            }
            mark = page.next;
        }
    }

    /// The key is whole: put it on the page, if it was there at the time.
    fn list(&self, best: Best, objects: &mut Vec<Listed>) {
        if let Some((version, bytes)) = best.object() {
            objects.push(Listed {
                key: version.key.clone(),
                bytes,
                last_modified: version.last_modified,
            });
            self.remember(version);
        }
    }

    async fn read(&self, key: &str, range: ByteRange) -> Result<Got, Error> {
        let version = self.find(key).await?;
        let object_bytes = version.bytes.unwrap_or(0);
        range.admit(key, object_bytes)?;
        let (start, end) = range.within(object_bytes);
        if start < end {
            let mut got = self.versions()?.get_version(key, &version.id, range).await?;
            got.last_modified = version.last_modified;
            return Ok(got);
        }
        // No store has a range for nothing.
        let date = self.inner.list_page("probe/", None).await?.date;
        Ok(Got {
            bytes: Bytes::new(),
            object_bytes,
            last_modified: version.last_modified,
            date,
        })
    }
}

impl Store for At {
    fn put<'a>(&'a self, key: &'a str, _: Bytes) -> Call<'a, Stamp> {
        self.refuse("PUT", key)
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        self.refuse("CREATE", key)
    }

    fn put_part<'a>(&'a self, key: &'a str, _: &'a UploadId, _: u32, _: Bytes) -> Call<'a, PartTag> {
        self.refuse("PART", key)
    }

    fn complete_upload<'a>(&'a self, key: &'a str, _: &'a UploadId, _: Vec<PartTag>, _: u64) -> Call<'a, Stamp> {
        self.refuse("COMPLETE", key)
    }

    fn abort_upload<'a>(&'a self, key: &'a str, _: &'a UploadId) -> Call<'a, ()> {
        self.refuse("ABORT", key)
    }

    fn copy<'a>(&'a self, _: &'a str, to: &'a str) -> Call<'a, Stamp> {
        self.refuse("COPY", to)
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        Box::pin(self.read(key, range))
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        Box::pin(async move {
            let got = self.read(key, ByteRange::Last(0)).await?;
            Ok(Head {
                bytes: got.object_bytes,
                last_modified: got.last_modified,
                date: got.date,
            })
        })
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        Box::pin(self.page(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        self.refuse("DELETE", key)
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}
