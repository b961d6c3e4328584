//! Bytes by key: the contract that every store keeps, and the errors by which a caller decides what to do.
//!
//! A store is a bucket (or a directory). Keys are `/`-separated ASCII, relative to the repository's prefix. Objects
//! are written whole or not at all. What is *not* here: renaming, appending, conditional writes, locks: no
//! correctness of ours rests on them. Behaviours (limits, faults, latency, recording) are stores around a store.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;

pub mod bucket;
pub mod counters;
pub mod local;
pub mod memory;
pub mod s3;
pub mod uploads;
pub mod url;
pub mod versions;
pub mod wrappers;

mod error;

pub use error::{Error, Hint};

use bucket::Bucket;
use uploads::Uploads;
use versions::Versions;

/// What every call gives: a boxed future, so that a store can be a trait object.
pub type Call<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// Which bytes of an object to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// The whole object, whatever its length: for who wrote it himself.
    All,
    /// The whole object, if it has no more bytes than this; else [`Error::TooLong`], before memory is taken for any of it.
    AtMost(u64),
    /// `length` bytes from `offset`; fewer at the end of the object; an offset at or past the end is `NotFound`-free and gives no bytes.
    From {
        /// First byte.
        offset: u64,
        /// At most so many bytes.
        length: u64,
    },
    /// The last so many bytes, or the whole object where it is shorter.
    Last(u64),
}

impl ByteRange {
    /// First byte and the byte after the last, in an object of so many bytes.
    pub fn within(self, object_bytes: u64) -> (u64, u64) {
        match self {
            Self::All | Self::AtMost(_) => (0, object_bytes),
            Self::From { offset, length } => (offset.min(object_bytes), offset.saturating_add(length).min(object_bytes)),
            Self::Last(length) => (object_bytes.saturating_sub(length), object_bytes),
        }
    }

    /// Refuse an object of so many bytes, if it is longer than it may be.
    pub fn admit(self, key: &str, object_bytes: u64) -> Result<(), Error> {
        match self {
            Self::AtMost(limit) if object_bytes > limit => Err(Error::TooLong {
                key: key.to_owned(),
                bytes: object_bytes,
                limit,
            }),
            _ => Ok(()),
        }
    }
}

/// The store's own clock in an answer (HTTP `Date`). The protocol's times are only ever these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When the store answered, by its own clock.
    pub date: Timestamp,
}

/// What a read gives.
#[derive(Debug, Clone)]
pub struct Got {
    /// The bytes asked for.
    pub bytes: Bytes,
    /// Length of the whole object.
    pub object_bytes: u64,
    /// When it landed, by the store's clock.
    pub last_modified: Timestamp,
    /// The store's clock in this answer.
    pub date: Timestamp,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Length of the object.
    pub bytes: u64,
    /// When it landed, by the store's clock.
    pub last_modified: Timestamp,
    /// The store's clock in this answer.
    pub date: Timestamp,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the repository's prefix.
    pub key: String,
    /// Length of the object.
    pub bytes: u64,
    /// When it landed, by the store's clock.
    pub last_modified: Timestamp,
}

/// One page of a listing, in key order.
#[derive(Debug, Clone)]
pub struct Page {
    /// At most 1,000 lines on S3.
    pub objects: Vec<Listed>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<String>,
    /// The store's clock in this answer.
    pub date: Timestamp,
}

/// An open multipart upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// What the store gave back for a part; wanted when the upload is completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTag {
    /// From 1, without gaps.
    pub number: u32,
    /// Opaque.
    pub etag: String,
    /// The part's checksum as sent, base64, where the store takes one.
    pub checksum: Option<String>,
}

/// A bucket, or what stands for one. Cheap to share as `Arc<dyn Store>`.
///
/// Retries: reads, listings, deletes and parts are retried inside (jittered, bounded by a deadline), since they may be
/// repeated. `put` and `copy` are tried again only when the store surely did not take the first try; where that is not
/// known they fail with [`Error::Unknown`] and the caller goes on under a fresh key (rule G1).
pub trait Store: Send + Sync + fmt::Debug {
    /// Write a whole object under a key that was never used. No overwrite is ever asked for, none need be refused.
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp>;
    /// Begin an object that is sent in parts.
    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId>;
    /// Send part `number` (from 1). All parts but the last have the same length, at least 5 MiB.
    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag>;
    /// Make the object appear. `object_bytes` is its full length: an unknown outcome is settled by a HEAD (rule G1).
    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp>;
    /// Forget an upload and its parts. An upload that is already gone is fine.
    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()>;
    /// Copy inside the store, under a fresh key.
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp>;
    /// Read. A missing object is [`Error::NotFound`].
    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got>;
    /// Length and times. A missing object is [`Error::NotFound`].
    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head>;
    /// A page of the keys that begin with `prefix`, in order; `after` is the `next` of the page before.
    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page>;
    /// Remove an object. One that is not there is fine.
    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp>;
    /// `s3://bucket/prefix`, `file:///path`, `memory:`: for messages.
    fn url(&self) -> &str;
    /// Its versions and retentions, where the store can have such. (A bucket that could may still have none.)
    fn versions(&self) -> Option<&dyn Versions> {
        None
    }
    /// Uploads that nobody completed, where the store lists such.
    fn uploads(&self) -> Option<&dyn Uploads> {
        None
    }
    /// How its bucket is set up, where there is one to ask.
    fn bucket(&self) -> Option<&dyn Bucket> {
        None
    }
}
