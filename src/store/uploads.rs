//! Uploads in parts that were begun and neither completed nor aborted: what killed runs leave, where a store lists them.
//!
//! Parts of such uploads cost money and no listing of objects shows them. Not every store tells of them: `MinIO` does only for
//! an exact key, and takes them away itself after a day.

use std::fmt;

use jiff::Timestamp;

use super::{Call, UploadId};

/// An upload that is still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key it is for, relative to the repository's prefix.
    pub key: String,
    /// Its name, for aborting it.
    pub id: UploadId,
    /// When it was begun, by the store's clock.
    pub begun: Timestamp,
}

/// A store that lists open uploads. Retries as in [`Store`](super::Store).
pub trait Uploads: Send + Sync + fmt::Debug {
    /// Open uploads for keys that begin with `prefix`: one page of them, 1,000 on S3. Who aborts them sees the others next time.
    fn list_uploads<'a>(&'a self, prefix: &'a str) -> Call<'a, Vec<OpenUpload>>;
}
