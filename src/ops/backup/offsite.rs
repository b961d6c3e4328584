//! Media that Synapse has moved to a bucket (`s3_storage_provider`): read from there, block by block.
//!
//! An object's key is the provider's prefix followed by the path in the media store (synapse-s3-storage-provider,
//! `s3_storage_provider.py`). Objects under a customer's key (SSE-C) are read with it: the text of `sse_customer_key`, as boto takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::files::{Outcome, SavedFile, save_part};
use crate::format::snapshot::ProblemKind;
use crate::format::{BLOB_BYTES_MAX, BlobId, PackKind};
use crate::repo::writer::Writer;
use crate::store::counters::Counters;
use crate::store::s3::{self, AccessKey, CustomerKey, S3Options};
use crate::store::wrappers::Limit;
use crate::store::{ByteRange, Error, Store};
use crate::synapse::{Homeserver, ProviderKind, S3Provider};

/// A bucket with media in it.
#[derive(Debug, Clone)]
pub(super) struct Offsite {
    /// Or why it cannot be opened.
    store: Result<Arc<dyn Store>, String>,
    prefix: String,
    sealed: bool,
    /// Objects that it did not give or tell of, one after the other.
    failures: Arc<AtomicU32>,
}

/// So many objects in a row that are not given are the bucket's fault. It is not asked in this run any more: each takes
/// minutes of trying again.
const FAILURES_MAX: u32 = 10;

impl Offsite {
    /// The store; or why it is not asked.
    fn store(&self) -> Result<&dyn Store, String> {
        let store = self
            .store
            .as_ref()
            .map_err(|why| format!("the media bucket cannot be opened: {why}"))?;
        if self.failures.load(Ordering::SeqCst) >= FAILURES_MAX {
            return Err(format!(
                "the media bucket did not give the last {FAILURES_MAX} objects, and is not asked any more in this run"
            ));
        }
        Ok(store.as_ref())
    }

    fn has_answered(&self) {
        self.failures.store(0, Ordering::SeqCst);
    }

    /// Count what says something about the other objects too, and may have taken long.
    fn has_failed(&self, error: &Error) {
        match error {
            Error::NotFound { .. } => self.has_answered(),
            Error::Denied { .. } | Error::NoBucket { .. } => {}
            // Each object has its own key, or none: what one cannot be read with says nothing about the others.
            error if self.sealed && error.is_refusal() => {}
            _ => {
                if self.failures.fetch_add(1, Ordering::SeqCst) + 1 == FAILURES_MAX {
                    tracing::warn!("a media bucket did not give {FAILURES_MAX} objects in a row, and is not asked any more in this run");
                }
            }
        }
    }
}

/// Open every S3 provider of the homeserver, each for so many requests at once. Nothing is asked of it yet. One that cannot be
/// opened, since there are no credentials for it, gives nothing.
pub(super) async fn open(homeserver: &Homeserver, connections: usize) -> Vec<Offsite> {
    let mut opened = Vec::new();
    for provider in &homeserver.media.providers {
        if let ProviderKind::S3(s3) = &provider.kind {
            let store = s3::open(options(s3), Arc::new(Counters::default())).await;
            let store = store.map(|store| Arc::new(Limit::new(store, connections)) as Arc<dyn Store>);
            opened.push(Offsite {
                store: store.map_err(|error| format!("{:#}", anyhow::Error::from(error))),
                prefix: s3.prefix.clone(),
                sealed: s3.sse_customer_key.is_some(),
                failures: Arc::default(),
            });
        }
    }
    opened
}

/// Ask a bucket for a first page: it is there, and lets us in. `false`: reading may be allowed, listing is not.
pub(in crate::ops) async fn reach(provider: &S3Provider) -> Result<bool, Error> {
    let store = s3::open(options(provider), Arc::new(Counters::default())).await?;
    match store.list_page(&provider.prefix, None).await {
        Ok(_) => Ok(true),
        Err(Error::Denied { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn options(s3: &S3Provider) -> S3Options {
    let secret = |secret: &Option<crate::synapse::Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    let access_key = s3
        .access_key_id
        .as_ref()
        .zip(secret(&s3.secret_access_key))
        .map(|(id, secret_key)| AccessKey {
            id: id.clone(),
            secret: secret_key,
            session_token: secret(&s3.session_token),
        });
    S3Options {
        bucket: s3.bucket.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key,
        customer_key: s3
            .sse_customer_key
            .as_ref()
            .map(|key| CustomerKey::new(key.expose().as_bytes(), s3.sse_customer_algorithm.as_deref())),
        ..S3Options::default()
    }
}

/// What the buckets say of a medium that is in no folder.
pub(super) enum Found {
    /// Its length.
    Length(u64),
    /// None has it.
    Nowhere,
    /// One that may have it does not say.
    Untold,
}

/// Look whether a bucket has the object of this path, without reading it.
pub(super) async fn look(buckets: &[Offsite], path: &str) -> Found {
    let mut found = Found::Nowhere;
    for bucket in buckets {
        let Ok(store) = bucket.store() else {
            found = Found::Untold;
            continue;
        };
        let head = store.head(&format!("{}{path}", bucket.prefix)).await;
        match head.inspect_err(|error| bucket.has_failed(error)) {
            Ok(head) => {
                bucket.has_answered();
                return Found::Length(head.bytes);
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::debug!(path, %error, "a media bucket does not say whether it has this");
                found = Found::Untold;
            }
        }
    }
    found
}

/// The object of a media path, from the first bucket that has it.
pub(super) async fn save(writer: &Writer, buckets: &[Offsite], path: &str) -> anyhow::Result<Outcome> {
    for bucket in buckets {
        match save_from(writer, bucket, path).await? {
            Outcome::Missing => {}
            found => return Ok(found),
        }
    }
    Ok(Outcome::Missing)
}

async fn save_from(writer: &Writer, bucket: &Offsite, path: &str) -> anyhow::Result<Outcome> {
    let store = match bucket.store() {
        Ok(store) => store,
        Err(why) => return Ok(Outcome::Failed(ProblemKind::Unreadable, why)),
    };
    let key = format!("{}{path}", bucket.prefix);
    let (mut whole, mut blobs, mut read) = (Sha256::new(), Vec::new(), 0);
    loop {
        let permit = writer.work(PackKind::Media, 2 * BLOB_BYTES_MAX).await?;
        let range = ByteRange::From {
            offset: read,
            length: BLOB_BYTES_MAX as u64,
        };
        let got = match store.get(&key, range).await {
            Ok(got) => got,
            Err(error) => {
                bucket.has_failed(&error);
                return Ok(not_given(bucket, error));
            }
        };
        bucket.has_answered();
        let bytes = got.bytes.len() as u64;
        let (hashed, blob) = if bytes == 0 {
            (whole, None)
        } else {
            save_part(writer, PackKind::Media, whole, got.bytes).await?
        };
        drop(permit);
        whole = hashed;
        blobs.extend(blob);
        read += bytes;
        if read >= got.object_bytes || bytes == 0 {
            let sha256 = BlobId::from_bytes(whole.finalize().into());
            // The defaults of the media store: an object has no mode and no owner.
            return Ok(Outcome::Saved(SavedFile {
                bytes: read,
                sha256,
                blobs,
                owner: None,
                changed: read != got.object_bytes,
                elsewhere: true,
            }));
        }
    }
}

/// What an object that is not given comes to. It is never the end of the run, which has databases to save.
fn not_given(bucket: &Offsite, error: Error) -> Outcome {
    let message = match error {
        Error::NotFound { .. } => return Outcome::Missing,
        // Amazon says so, too, of an object that is not there to who may not list the bucket.
        Error::Denied { .. } => "the media bucket does not allow reading it, or has no such object and we may not list it".into(),
        Error::NoBucket { .. } => "the media bucket does not exist".into(),
        Error::Failed { .. } if bucket.sealed => {
            let error = anyhow::Error::from(error);
            format!("the media bucket does not give it for the customer's key (SSE-C goes over https only): {error:#}")
        }
        _ => format!("the media bucket does not give it: {:#}", anyhow::Error::from(error)),
    };
    Outcome::Failed(ProblemKind::Unreadable, message)
}
