//! What only a doctor asks: how the bucket is set up, and whether the store checks what it is told to check.
//!
//! Nothing of the protocol rests on any of it. Each question is one request, answered or refused; a refusal is an
//! answer too, since it tells which rights the credentials have.

use std::fmt;

use bytes::Bytes;

use super::versions::LockMode;
use super::{Call, Stamp};

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// It never did: a second write replaces the first for good.
    Off,
    /// It did once. What is written now has no versions.
    Suspended,
    /// Nothing is lost by an overwrite or a deletion without a version.
    On,
}

/// Whether Object Lock is on for the bucket, and what it does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketLock {
    /// The bucket was made without it.
    Off,
    /// Objects may be held; none is by default.
    On,
    /// Every new object is held for so many days.
    Default(LockMode, i32),
}

/// One rule of the bucket's lifecycle, as far as it concerns a repository. Days; `None` where the rule does not do that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LifecycleRule {
    /// Its name.
    pub id: String,
    /// It is in force.
    pub is_on: bool,
    /// For which keys (of the bucket): all that begin so.
    pub prefix: String,
    /// Current objects are deleted after this.
    pub expires_days: Option<i32>,
    /// Old versions are deleted so long after they became old.
    pub old_versions_days: Option<i32>,
    /// Uploads that were not completed are aborted after this.
    pub aborts_uploads_days: Option<i32>,
}

/// A bucket that can be asked how it is set up.
pub trait Bucket: Send + Sync + fmt::Debug {
    /// Whether it keeps versions.
    fn versioning(&self) -> Call<'_, Versioning>;
    /// Whether it has Object Lock.
    fn lock(&self) -> Call<'_, BucketLock>;
    /// The rules of its lifecycle that can touch this repository.
    fn lifecycle(&self) -> Call<'_, Vec<LifecycleRule>>;
    /// It clears away unfinished uploads without being told, and refuses a rule that would.
    fn aborts_uploads_itself(&self) -> bool;
    /// Write, if there is nothing under the key: `false` when there was.
    fn put_if_absent<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, bool>;
    /// Write with a checksum that is wrong: `true` when the store took it all the same.
    fn takes_wrong_checksum<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, bool>;
    /// Delete this version, by the right to pass over a governance retention.
    fn delete_bypassing<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp>;
}
