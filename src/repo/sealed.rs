//! A sealed repository's store: a store around the bucket that seals what is written and opens what is read.
//!
//! Names are those of `format::keys` on this side and end in `.age` on the other. Segments and snapshots are sealed here, whole. Packs
//! come sealed by the writer, which seals them while they are being filled, and are opened here by range: the header once for
//! each pack, then the 64 KiB chunks that cover what is asked for. Listings and heads tell sealed lengths (the
//! index has those), a read tells the plain length, since offsets are those of the unsealed object.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::keyring::Keyring;
use crate::format::seal::{self, HEADER_BYTES_MAX, Header, Identity, Opener, Recipient};
use crate::format::{Error as Unsealable, PACK_BYTES_MAX, keys};
use crate::store::bucket::Bucket;
use crate::store::uploads::{OpenUpload, Uploads};
use crate::store::versions::{ObjectLock, Retention, Version, VersionMark, VersionPage, Versions};
use crate::store::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// Opened headers that are kept: a hundred bytes each.
const OPENERS_KEPT: usize = 4096;
/// What an object under a name of ours is called that is not sealed: nobody takes it for one of ours.
const NOT_SEALED: &str = " (not sealed)";

/// The store.
pub(super) struct Sealed {
    inner: Arc<dyn Store>,
    recipients: Vec<Recipient>,
    identities: Arc<Vec<Identity>>,
    /// Of those, the first so many open content; the writer key follows.
    identity_count: usize,
    /// A key has opened something, and one that opens content has.
    opens: AtomicBool,
    opens_content: AtomicBool,
    openers: Mutex<BTreeMap<String, Opener>>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({:?})", self.inner)
    }
}

impl Sealed {
    pub(super) fn new(inner: Arc<dyn Store>, keyring: &Keyring) -> Self {
        Self {
            inner,
            recipients: keyring.recipients_of_metadata(),
            identities: Arc::new(keyring.openers()),
            identity_count: keyring.identities.len(),
            opens: AtomicBool::new(false),
            opens_content: AtomicBool::new(false),
            openers: Mutex::default(),
        }
    }

    /// To how many this object is sealed, and which keys at hand open it.
    pub(super) async fn header(&self, key: &str) -> Result<Header, Error> {
        let range = ByteRange::From {
            offset: 0,
            length: HEADER_BYTES_MAX,
        };
        let head = self.inner.get(&keys::sealed(key), range).await?.bytes;
        Header::read(&head, &self.identities).map_err(|error| unopened(key, error))
    }

    fn known(&self, key: &str) -> Option<Opener> {
        self.openers.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The header of a pack, read once. What is read whole is opened by its own header, so that damage to it is seen.
    async fn opener(&self, key: &str, got: Option<&Got>) -> Result<Opener, Error> {
        if let (None, Some(opener)) = (got, self.known(key)) {
            return Ok(opener);
        }
        let head = if let Some(got) = got {
            got.bytes.clone()
        } else {
            let range = ByteRange::From {
                offset: 0,
                length: HEADER_BYTES_MAX,
            };
            self.inner.get(&keys::sealed(key), range).await?.bytes
        };
        let opener = Opener::new(&head, &self.identities).map_err(|error| self.not_opened(key, error))?;
        self.opens.store(true, Ordering::Relaxed);
        self.opens_content
            .fetch_or(opener.opened_by() < self.identity_count, Ordering::Relaxed);
        if got.is_none() {
            let mut openers = self.openers.lock().unwrap_or_else(PoisonError::into_inner);
            if openers.len() >= OPENERS_KEPT {
                openers.pop_first();
            }
            openers.insert(key.to_owned(), opener.clone());
        }
        Ok(opener)
    }

    /// Keys that have opened other objects would open this one if it were ours and whole.
    fn not_opened(&self, key: &str, error: Unsealable) -> Error {
        let opens = if key.starts_with(keys::PACKS) {
            &self.opens_content
        } else {
            &self.opens
        };
        let error = match error {
            Unsealable::NoKey if opens.load(Ordering::Relaxed) => Unsealable::Damaged {
                what: "seal",
                place: "its header: it is sealed to others, or damaged".into(),
            },
            error => error,
        };
        unopened(key, error)
    }

    async fn whole(&self, key: &str, range: ByteRange) -> Result<Got, Error> {
        let got = self.inner.get(&keys::sealed(key), around(range)).await?;
        let opener = self.opener(key, Some(&got)).await?;
        let plain_bytes = opener.plain_bytes(got.object_bytes).map_err(|error| unopened(key, error))?;
        range.admit(key, plain_bytes)?;
        let sealed = got.bytes;
        let opened = blocking(key, move || opener.open_whole(&sealed)).await?;
        Ok(Got {
            object_bytes: opened.len() as u64,
            bytes: Bytes::from(opened),
            ..got
        })
    }

    /// The end of an object: as many sealed bytes as surely hold the plain ones.
    async fn last(&self, key: &str, plain: u64) -> Result<Got, Error> {
        let opener = self.opener(key, None).await?;
        // They end where a chunk ends, and may begin and end within one.
        let sealed = (plain / seal::CHUNK_BYTES)
            .saturating_add(2)
            .saturating_mul(seal::SEALED_CHUNK_BYTES);
        let got = self.inner.get(&keys::sealed(key), ByteRange::Last(sealed)).await?;
        let plain_bytes = opener.plain_bytes(got.object_bytes).map_err(|error| unopened(key, error))?;
        let range = (plain_bytes.saturating_sub(plain), plain_bytes);
        let begin = got.object_bytes - got.bytes.len() as u64;
        self.cut(key, opener, got, begin, range).await
    }

    async fn range(&self, key: &str, offset: u64, length: u64) -> Result<Got, Error> {
        let opener = self.opener(key, None).await?;
        let end = offset.saturating_add(length);
        let (_, (from, to)) = opener.covering((offset, end), u64::MAX);
        let range = ByteRange::From {
            offset: from,
            length: to - from,
        };
        let got = self.inner.get(&keys::sealed(key), range).await?;
        let plain_bytes = opener.plain_bytes(got.object_bytes).map_err(|error| unopened(key, error))?;
        self.cut(key, opener, got, from, (offset.min(plain_bytes), end.min(plain_bytes)))
            .await
    }

    /// Open the chunks for a plain range out of sealed bytes that begin at `begin`.
    async fn cut(&self, key: &str, opener: Opener, got: Got, begin: u64, plain: (u64, u64)) -> Result<Got, Error> {
        let (sealed_bytes, sealed) = (got.object_bytes, got.bytes);
        let object_bytes = opener.plain_bytes(sealed_bytes).map_err(|error| unopened(key, error))?;
        let open = move || {
            if plain.0 >= plain.1 && plain.0 < object_bytes {
                return Ok(Vec::new());
            }
            let (first, (from, to)) = opener.covering(plain, sealed_bytes);
            let place = |at: u64| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX);
            let chunks = sealed.get(place(from)..place(to)).unwrap_or_default();
            let mut opened = opener.open(first, chunks, sealed_bytes)?;
            let skip = usize::try_from(plain.0.saturating_sub(first * seal::CHUNK_BYTES)).unwrap_or(usize::MAX);
            opened.drain(..skip.min(opened.len()));
            opened.truncate(usize::try_from(plain.1 - plain.0).unwrap_or(usize::MAX));
            Ok(opened)
        };
        let opened = blocking(key, open).await?;
        Ok(Got {
            bytes: Bytes::from(opened),
            object_bytes,
            last_modified: got.last_modified,
            date: got.date,
        })
    }

    /// Segments and snapshots; packs come sealed.
    async fn put_sealed(&self, key: &str, body: Bytes) -> Result<Stamp, Error> {
        if key.starts_with(keys::PACKS) {
            return self.inner.put(&keys::sealed(key), body).await;
        }
        let recipients = self.recipients.clone();
        let sealed = blocking(key, move || seal::seal(&recipients, &body)).await?;
        self.inner.put(&keys::sealed(key), Bytes::from(sealed)).await
    }
}

async fn blocking(key: &str, work: impl FnOnce() -> Result<Vec<u8>, Unsealable> + Send + 'static) -> Result<Vec<u8>, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed(key, error))?.map_err(|error| unopened(key, error))
}

/// The repository's own errors come out of this again: `repo::Error` looks for them.
fn unopened(key: &str, error: Unsealable) -> Error {
    failed(key, error)
}

fn failed(key: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Failed {
        action: "opening",
        key: key.to_owned(),
        source: Box::new(source),
    }
}

fn not_sealed() -> Unsealable {
    Unsealable::Damaged {
        what: "seal",
        place: "its beginning: it has none".into(),
    }
}

/// What to read of a sealed object that is opened whole.
fn around(range: ByteRange) -> ByteRange {
    match range {
        ByteRange::AtMost(limit) => ByteRange::AtMost(seal::sealed_bytes_max(limit)),
        _ => ByteRange::AtMost(seal::sealed_bytes_max(PACK_BYTES_MAX)),
    }
}

/// The key in the bucket.
fn there(key: &str) -> String {
    if let Some(planted) = key.strip_suffix(NOT_SEALED) {
        planted.to_owned()
    } else if keys::is_sealed_kind(key) {
        keys::sealed(key)
    } else {
        key.to_owned()
    }
}

/// The name on this side of a key in the bucket.
fn here(key: String) -> String {
    if !keys::is_sealed_kind(&key) {
        return key;
    }
    match keys::unsealed(&key) {
        Some(name) => name.to_owned(),
        None => format!("{key}{NOT_SEALED}"),
    }
}

impl Store for Sealed {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        if keys::is_sealed_kind(key) {
            Box::pin(self.put_sealed(key, body))
        } else {
            self.inner.put(key, body)
        }
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        Box::pin(async move { self.inner.create_upload(&there(key)).await })
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        Box::pin(async move { self.inner.put_part(&there(key), upload, number, body).await })
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        Box::pin(async move { self.inner.complete_upload(&there(key), upload, parts, object_bytes).await })
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        Box::pin(async move { self.inner.abort_upload(&there(key), upload).await })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move { self.inner.copy(&there(from), &there(to)).await })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        if !keys::is_sealed_kind(key) {
            return self.inner.get(key, range);
        }
        Box::pin(async move {
            if key.ends_with(NOT_SEALED) {
                return Err(unopened(key, not_sealed()));
            }
            match range {
                ByteRange::All | ByteRange::AtMost(_) => self.whole(key, range).await,
                ByteRange::From { offset, length } => self.range(key, offset, length).await,
                ByteRange::Last(length) => self.last(key, length).await,
            }
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        Box::pin(async move { self.inner.head(&there(key)).await })
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        Box::pin(async move {
            let mut page = self.inner.list_page(prefix, after).await?;
            for object in &mut page.objects {
                object.key = here(std::mem::take(&mut object.key));
            }
            Ok(page)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move { self.inner.delete(&there(key)).await })
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
        self.inner.bucket()
    }
}

impl Uploads for Sealed {
    fn list_uploads<'a>(&'a self, prefix: &'a str) -> Call<'a, Vec<OpenUpload>> {
        Box::pin(async move {
            let Some(uploads) = self.inner.uploads() else {
                return Ok(Vec::new());
            };
            let open = uploads.list_uploads(prefix).await?.into_iter();
            let renamed = open.map(|upload| OpenUpload {
                key: here(upload.key),
                ..upload
            });
            Ok(renamed.collect())
        })
    }
}

impl Sealed {
    fn inner_versions(&self) -> Result<&dyn Versions, Error> {
        self.inner.versions().ok_or_else(|| Error::NotFound { key: String::new() })
    }
}

impl Versions for Sealed {
    fn object_lock(&self) -> Option<ObjectLock> {
        self.inner.versions()?.object_lock()
    }

    fn list_versions<'a>(&'a self, prefix: &'a str, after: Option<&'a VersionMark>) -> Call<'a, VersionPage> {
        Box::pin(async move {
            let mut page = self.inner_versions()?.list_versions(prefix, after).await?;
            let renamed = page.versions.into_iter().map(|version| Version {
                key: here(version.key),
                ..version
            });
            page.versions = renamed.collect();
            Ok(page)
        })
    }

    fn get_version<'a>(&'a self, key: &'a str, version: &'a str, range: ByteRange) -> Call<'a, Got> {
        Box::pin(async move {
            if !keys::is_sealed_kind(key) {
                return self.inner_versions()?.get_version(key, version, range).await;
            }
            // An old version may have another header: it is read whole, and nothing of it is kept.
            let got = self.inner_versions()?.get_version(&there(key), version, around(range)).await?;
            let (sealed, identities) = (got.bytes, Arc::clone(&self.identities));
            let opened = Bytes::from(blocking(key, move || seal::open(&sealed, &identities)).await?);
            let object_bytes = opened.len() as u64;
            range.admit(key, object_bytes)?;
            let (from, to) = range.within(object_bytes);
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            Ok(Got {
                bytes: opened.slice(place(from)..place(to)),
                object_bytes,
                last_modified: got.last_modified,
                date: got.date,
            })
        })
    }

    fn delete_version<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move { self.inner_versions()?.delete_version(&there(key), version).await })
    }

    fn retention<'a>(&'a self, key: &'a str) -> Call<'a, Option<Retention>> {
        Box::pin(async move { self.inner_versions()?.retention(&there(key)).await })
    }

    fn extend<'a>(&'a self, key: &'a str, retention: Retention) -> Call<'a, Stamp> {
        Box::pin(async move { self.inner_versions()?.extend(&there(key), retention).await })
    }
}
