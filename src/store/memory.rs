//! A store in memory with a clock of its own, for tests and simulations.
//!
//! Time stands still until the test moves it, so that whatever runs over it is deterministic. It behaves as S3 does:
//! a second `put` under a key replaces the object and its Last-Modified, a completed upload is gone, parts may come in
//! any order. What is *not* here: faults and delays (see `wrappers`), persistence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};

use super::error::Cause;
use super::uploads::{OpenUpload, Uploads};
use super::{ByteRange, Call, Error, Got, Head, Listed, Page, PartTag, Stamp, Store, UploadId};

/// The store's clock. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Mutex<Timestamp>>);

impl Clock {
    /// A clock that stands at this time.
    pub fn starting_at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        *lock(&self.0)
    }

    /// Move it; by a negative duration, back.
    ///
    /// # Panics
    /// Past the year 9999.
    pub fn advance(&self, by: SignedDuration) {
        *lock(&self.0) += by;
    }
}

/// Objects in memory.
#[derive(Debug)]
pub struct Memory {
    clock: Clock,
    page_objects: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    uploads_begun: u64,
}

#[derive(Debug)]
struct Upload {
    key: String,
    begun: Timestamp,
    parts: BTreeMap<u32, Bytes>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    last_modified: Timestamp,
}

impl Memory {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            page_objects: 1000,
            state: Mutex::default(),
        }
    }

    /// The same with so many objects on a page of a listing (at least one), instead of 1,000.
    #[must_use]
    pub fn with_page_objects(mut self, page_objects: usize) -> Self {
        self.page_objects = page_objects.max(1);
        self
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// All objects, for a test to look at or to damage: by key, their bytes.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state()
            .objects
            .iter()
            .map(|(key, object)| (key.clone(), object.bytes.clone()))
            .collect()
    }

    /// Replace an object's bytes and leave its time alone: damage, as a test wants it.
    pub fn damage(&self, key: &str, bytes: Bytes) {
        if let Some(object) = self.state().objects.get_mut(key) {
            object.bytes = bytes;
        }
    }

    /// Uploads that were neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn stamp(&self) -> Stamp {
        Stamp { date: self.clock.now() }
    }

    fn insert(&self, key: &str, bytes: Bytes) -> Stamp {
        self.state().objects.insert(
            key.to_owned(),
            Object {
                bytes,
                last_modified: self.clock.now(),
            },
        );
        self.stamp()
    }

    fn object(&self, key: &str) -> Result<Object, Error> {
        self.state()
            .objects
            .get(key)
            .cloned()
            .ok_or_else(|| Error::NotFound { key: key.to_owned() })
    }

    fn add_part(&self, key: &str, upload: &UploadId, number: u32, body: Bytes) -> Result<PartTag, Error> {
        let mut state = self.state();
        let parts = &mut state.uploads.get_mut(&upload.0).ok_or_else(|| gone("PART", key))?.parts;
        let etag = format!("{number}-{}", body.len());
        parts.insert(number, body);
        Ok(PartTag {
            number,
            etag,
            checksum: None,
        })
    }

    fn finish(&self, key: &str, upload: &UploadId, wanted: &[PartTag], object_bytes: u64) -> Result<Stamp, Error> {
        let fail = |why: &str| failed("COMPLETE", key, why);
        let mut state = self.state();
        let Some(Upload { parts, .. }) = state.uploads.get(&upload.0) else {
            drop(state);
            // Unknown outcome of an earlier try is settled by looking (rule G1).
            let there = self.object(key).is_ok_and(|object| object.bytes.len() as u64 == object_bytes);
            return if there { Ok(self.stamp()) } else { Err(gone("COMPLETE", key)) };
        };
        let mut whole = BytesMut::new();
        for (at, tag) in wanted.iter().enumerate() {
            let part = parts.get(&tag.number).ok_or_else(|| fail("a part is missing"))?;
            if tag.number as usize != at + 1 || tag.etag != format!("{}-{}", tag.number, part.len()) {
                return Err(fail("the parts are not those that were sent, from 1, in order"));
            }
            whole.extend_from_slice(part);
        }
        if whole.is_empty() || whole.len() as u64 != object_bytes {
            return Err(fail("the parts do not add up to the object's length"));
        }
        state.uploads.remove(&upload.0);
        drop(state);
        Ok(self.insert(key, whole.freeze()))
    }

    fn page(&self, prefix: &str, after: Option<&str>) -> Page {
        let state = self.state();
        let mut matching = state
            .objects
            .range::<str, _>((
                after.map_or(std::ops::Bound::Included(prefix), std::ops::Bound::Excluded),
                std::ops::Bound::Unbounded,
            ))
            .skip_while(|(key, _)| key.as_str() < prefix)
            .take_while(|(key, _)| key.starts_with(prefix));
        let objects: Vec<Listed> = matching
            .by_ref()
            .take(self.page_objects)
            .map(|(key, object)| Listed {
                key: key.clone(),
                bytes: object.bytes.len() as u64,
                last_modified: object.last_modified,
            })
            .collect();
        let next = matching.next().and_then(|_| objects.last().map(|last| last.key.clone()));
        Page {
            objects,
            next,
            date: self.clock.now(),
        }
    }
}

impl Store for Memory {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        Box::pin(async move { Ok(self.insert(key, body)) })
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        Box::pin(async move {
            let mut state = self.state();
            state.uploads_begun += 1;
            let id = state.uploads_begun.to_string();
            let upload = Upload {
                key: key.to_owned(),
                begun: self.clock.now(),
                parts: BTreeMap::new(),
            };
            state.uploads.insert(id.clone(), upload);
            Ok(UploadId(id))
        })
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        Box::pin(async move { self.add_part(key, upload, number, body) })
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        Box::pin(async move { self.finish(key, upload, &parts, object_bytes) })
    }

    fn abort_upload<'a>(&'a self, _key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        Box::pin(async move {
            self.state().uploads.remove(&upload.0);
            Ok(())
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move {
            let bytes = self.object(from)?.bytes;
            Ok(self.insert(to, bytes))
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        Box::pin(async move {
            let object = self.object(key)?;
            let all = object.bytes.len() as u64;
            range.admit(key, all)?;
            let (start, end) = range.within(all);
            #[expect(clippy::cast_possible_truncation, reason = "both lie inside a slice")]
            let bytes = object.bytes.slice(start as usize..end as usize);
            Ok(Got {
                bytes,
                object_bytes: all,
                last_modified: object.last_modified,
                date: self.clock.now(),
            })
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        Box::pin(async move {
            let object = self.object(key)?;
            Ok(Head {
                bytes: object.bytes.len() as u64,
                last_modified: object.last_modified,
                date: self.clock.now(),
            })
        })
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        Box::pin(async move { Ok(self.page(prefix, after)) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move {
            self.state().objects.remove(key);
            Ok(self.stamp())
        })
    }

    fn url(&self) -> &'static str {
        "memory:"
    }

    fn uploads(&self) -> Option<&dyn Uploads> {
        Some(self)
    }
}

impl Uploads for Memory {
    fn list_uploads<'a>(&'a self, prefix: &'a str) -> Call<'a, Vec<OpenUpload>> {
        Box::pin(async move {
            let state = self.state();
            let uploads = state.uploads.iter().filter(|(_, upload)| upload.key.starts_with(prefix));
            let open = uploads.map(|(id, upload)| OpenUpload {
                key: upload.key.clone(),
                id: UploadId(id.clone()),
                begun: upload.begun,
            });
            Ok(open.collect())
        })
    }
}

fn gone(action: &'static str, key: &str) -> Error {
    failed(action, key, "the upload is not there (completed or aborted)")
}

fn failed(action: &'static str, key: &str, why: &str) -> Error {
    Error::Failed {
        action,
        key: key.to_owned(),
        source: Cause::new(why).into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
