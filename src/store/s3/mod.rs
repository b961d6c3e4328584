//! A store in a bucket, over `aws-sdk-s3`: Amazon's and everybody else's.
//!
//! This file is the door: the settings, and the [`Store`] calls made of requests (`calls`) that are tried again where
//! that is safe (`retry`). What an answer means is decided in `classify`, what a vendor can do in `provider`. The traps that
//! shaped all this stand in `docs/providers.md`.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::StorageClass;
use bytes::Bytes;
use zeroize::Zeroize as _;

use super::bucket::Bucket;
use super::counters::{Counters, Kind};
use super::error::Cause;
use super::uploads::Uploads;
use super::versions::{ObjectLock, Versions};
use super::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};
use checksum::Sum;
use classify::{Failure, Reason};
pub use customer::CustomerKey;
use meter::Clock;
pub use provider::{Checksum, Provider};
pub use retry::Patience;
use retry::{Ask, Tries};

mod bucket;
mod calls;
mod checksum;
mod classify;
mod client;
mod credentials;
mod customer;
mod meter;
mod provider;
mod retry;
mod uploads;
mod versions;

/// What a Complete, which may put many parts together, may take beyond the usual.
const COMPLETE_TIME: Duration = Duration::from_mins(2);
/// What a copy inside the store may take.
const COPY_TIME: Duration = Duration::from_mins(5);

/// Where the bucket is and how to talk to it (`s3` in the settings).
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// Before all keys, without slashes at either end; may be empty.
    pub prefix: String,
    /// `https://host:port`; without it, `AWS_ENDPOINT_URL_S3` or Amazon.
    pub endpoint: Option<String>,
    /// Without it: the environment's, the profile's, or what the provider wants.
    pub region: Option<String>,
    /// A profile of `~/.aws`, and then no other source of credentials.
    pub profile: Option<String>,
    /// A key pair, for programs that use this library; the command takes them from the environment or a profile.
    pub access_key: Option<AccessKey>,
    /// `http://host/bucket/key`; without it, as the provider prefers.
    pub path_style: Option<bool>,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// For packs only; everything else is read at every run.
    pub storage_class: Option<String>,
    /// Without it, guessed from the endpoint's host and the answers' `Server` header.
    pub provider: Option<Provider>,
    /// How long to go on trying.
    pub patience: Patience,
    /// Objects are read with this key (SSE-C); what is written lies under no key.
    pub customer_key: Option<CustomerKey>,
    /// Hold every object that is written for so long.
    pub object_lock: Option<ObjectLock>,
}

/// A key pair. It has no secrets in its `Debug`.
#[derive(Clone)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: String,
    /// For temporary credentials.
    pub session_token: Option<String>,
}

impl Drop for AccessKey {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.session_token.zeroize();
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Make a store of these settings. Nothing is asked of it yet, but credentials are looked up: without any, this fails.
///
/// # Errors
/// [`Error::Unauthenticated`] without credentials; [`Error::BadUrl`] for a setting that cannot be meant.
pub async fn open(options: S3Options, counters: Arc<Counters>) -> Result<Arc<dyn Store>, Error> {
    let prefix = if options.prefix.is_empty() {
        String::new()
    } else {
        format!("{}/", options.prefix)
    };
    let url = format!("s3://{}/{}", options.bucket, options.prefix)
        .trim_end_matches('/')
        .to_owned();
    let built = client::build(&options, &url).await?;
    Ok(Arc::new(S3 {
        client: built.client,
        bucket: options.bucket,
        prefix,
        url,
        storage_class: options.storage_class.as_deref().map(StorageClass::from),
        provider: built.provider,
        is_https: built.is_https,
        patience: options.patience,
        counters,
        server: Arc::default(),
        checksum: OnceLock::new(),
        answered: AtomicBool::new(false),
        object_lock: options.object_lock,
        customer_key: options.customer_key,
        clock: Arc::default(),
    }))
}

struct S3 {
    client: Client,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    url: String,
    storage_class: Option<StorageClass>,
    provider: Provider,
    is_https: bool,
    patience: Patience,
    counters: Arc<Counters>,
    server: Arc<OnceLock<Provider>>,
    checksum: OnceLock<Checksum>,
    answered: AtomicBool,
    object_lock: Option<ObjectLock>,
    customer_key: Option<CustomerKey>,
    clock: Arc<Clock>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("url", &self.url)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl S3 {
    /// Decided at the first write, and the same ever after: the parts of an upload must have what its begin has named.
    fn checksum(&self) -> Checksum {
        *self.checksum.get_or_init(|| self.provider_seen().checksum())
    }

    /// What the settings or the endpoint say; where they say nothing, what the answers did.
    fn provider_seen(&self) -> Provider {
        let told = self.server.get().copied().filter(|_| self.provider == Provider::Generic);
        told.unwrap_or(self.provider)
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn remember_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    fn error(&self, kind: Kind, key: &str, failure: Failure) -> Error {
        failure.into_error(&self.url, kind, key)
    }

    /// A 404 for a HEAD has no body that says what is missing. Until the bucket has shown itself, look.
    async fn what_is_missing(&self, key: &str, failure: Failure) -> Error {
        if failure.reason == Reason::NothingThere
            && !self.has_answered()
            && let Err(failure) = self.one_try(Ask::new(Kind::List), Box::pin(self.list_once("", None))).await
            && failure.reason == Reason::NoBucket
        {
            return self.error(Kind::List, "", failure);
        }
        self.error(Kind::Head, key, failure)
    }

    /// Nothing to read: only the object's length and times are wanted. A store that says so must be right.
    async fn get_nothing(&self, key: &str, range: ByteRange) -> Result<Got, Error> {
        let head = self.head(key).await?;
        let (start, end) = range.within(head.bytes);
        if start < end {
            let source = Cause::new(format!("the store has no bytes {start} to {end} of an object of {}", head.bytes)).into();
            return Err(Error::Failed {
                action: "GET",
                key: key.to_owned(),
                source,
            });
        }
        Ok(Got {
            bytes: Bytes::new(),
            object_bytes: head.bytes,
            last_modified: head.last_modified,
            date: head.date,
        })
    }

    /// Rule G1: an upload completes only once, so after a try of unknown outcome the object itself is asked.
    async fn complete(&self, key: &str, upload: &UploadId, parts: &[PartTag], object_bytes: u64) -> Result<Stamp, Error> {
        let ask = Ask::new(Kind::Complete).thinking(COMPLETE_TIME);
        let mut tries = Tries::new();
        let mut is_unknown = false;
        loop {
            let failure = match self
                .one_try(ask, Box::pin(self.complete_once(key, upload, parts, object_bytes)))
                .await
            {
                Ok(stamp) => return Ok(stamp),
                Err(failure) => failure,
            };
            is_unknown |= !failure.had_no_effect;
            if is_unknown || failure.reason == Reason::NoUpload {
                match self.head(key).await {
                    Ok(head) if head.bytes == object_bytes => return Ok(Stamp { date: head.date }),
                    Ok(head) => {
                        let text = format!("the object has {} bytes instead of {object_bytes}", head.bytes);
                        return Err(Error::Failed {
                            action: "COMPLETE",
                            key: key.to_owned(),
                            source: Cause::new(text).into(),
                        });
                    }
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            // It may still be at work on a try whose answer was lost: then the upload is gone and the object not there yet.
            let reason = if is_unknown && failure.reason == Reason::NoUpload {
                Reason::Transient
            } else {
                failure.reason
            };
            match tries.pause(&self.patience, self.has_answered(), reason) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(self.error(Kind::Complete, key, failure)),
            }
        }
    }

    async fn upload_part(&self, key: &str, upload: &UploadId, number: u32, body: Bytes) -> Result<PartTag, Error> {
        let signed = i32::try_from(number).ok().filter(|number| (1..=10_000).contains(number));
        let signed = signed.ok_or_else(|| {
            let source = Cause::new(format!("part {number}: an upload has parts 1 to 10,000")).into();
            Error::Failed {
                action: "PART",
                key: key.to_owned(),
                source,
            }
        })?;
        let sum = Sum::of(self.checksum(), &body).await;
        let ask = Ask::new(Kind::Part).sending(body.len());
        let etag = self.tries(ask, || self.part_once(key, upload, signed, body.clone(), &sum)).await;
        let etag = etag.map_err(|failure| self.error(Kind::Part, key, failure))?;
        Ok(PartTag {
            number,
            etag,
            checksum: (sum.kind != Checksum::Md5).then_some(sum.value),
        })
    }
}

impl Store for S3 {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        Box::pin(async move {
            let held = self.held(Kind::Put, key).await?;
            let sum = Sum::of(self.checksum(), &body).await;
            let ask = Ask::new(Kind::Put).sending(body.len());
            self.tries(ask, || self.put_once(key, body.clone(), &sum, held))
                .await
                .map_err(|failure| self.error(Kind::Put, key, failure))
        })
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        Box::pin(async move {
            let held = self.held(Kind::Create, key).await?;
            let created = self.tries(Ask::new(Kind::Create), || self.create_once(key, held)).await;
            created.map_err(|failure| self.error(Kind::Create, key, failure))
        })
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        Box::pin(self.upload_part(key, upload, number, body))
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        Box::pin(async move { self.complete(key, upload, &parts, object_bytes).await })
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        Box::pin(async move {
            match self.tries(Ask::new(Kind::Abort), || self.abort_once(key, upload)).await {
                Err(failure) if failure.reason != Reason::NoUpload && !failure.is_missing_object() => {
                    Err(self.error(Kind::Abort, key, failure))
                }
                _ => Ok(()),
            }
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move {
            let ask = Ask::new(Kind::Copy).thinking(COPY_TIME);
            let held = self.held(Kind::Copy, to).await?;
            let copied = self.tries(ask, || self.copy_once(from, to, held)).await;
            copied.map_err(|failure| {
                let key = if failure.is_missing_object() { from } else { to };
                self.error(Kind::Copy, key, failure)
            })
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        Box::pin(async move {
            if matches!(range, ByteRange::From { length: 0, .. } | ByteRange::Last(0)) {
                return self.get_nothing(key, range).await;
            }
            match self.tries(Ask::new(Kind::Get), || self.get_once(key, None, range)).await {
                Err(failure) if failure.reason == Reason::PastEnd => self.get_nothing(key, range).await,
                result => result.map_err(|failure| self.error(Kind::Get, key, failure)),
            }
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        Box::pin(async move {
            match self.tries(Ask::new(Kind::Head), || self.head_once(key)).await {
                Ok(head) => Ok(head),
                Err(failure) => Err(self.what_is_missing(key, failure).await),
            }
        })
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        Box::pin(async move {
            let page = self.tries(Ask::new(Kind::List), || self.list_once(prefix, after)).await;
            page.map_err(|failure| self.error(Kind::List, prefix, failure))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        Box::pin(async move {
            let deleted = self.tries(Ask::new(Kind::Delete), || self.delete_once(key)).await;
            deleted.map_err(|failure| self.error(Kind::Delete, key, failure))
        })
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn versions(&self) -> Option<&dyn Versions> {
        Some(self)
    }

    fn uploads(&self) -> Option<&dyn Uploads> {
        Some(self)
    }

    fn bucket(&self) -> Option<&dyn Bucket> {
        Some(self)
    }
}
