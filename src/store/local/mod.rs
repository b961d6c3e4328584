//! A store in a directory (`file://`): one file per object, under its key.
//!
//! An object appears whole or not at all: it is written into `.unfinished/`, synced, and moved to its name in one
//! step that refuses to replace anything; then the directory is synced. Last-Modified is the file's ctime, which the move
//! sets and nobody can set back, and the store's Date is the ctime of a file made at that moment (rule G2), so that both
//! come from the file system's clock, which for a network file system is the server's.
//! What is *not* here: the blocking work (`files`), uploads in parts (`upload`), listings (`walk`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::counters::{Counters, Kind};
use super::error::Cause;
use super::uploads::{self, OpenUpload};
use super::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};
use files::Root;
use upload::Uploads;

mod files;
mod upload;
mod walk;

/// Objects of one page of a listing, as on S3.
const PAGE_OBJECTS: usize = 1000;

/// Open the directory as a store; with `create` it is made when it is missing (and then only its owner can read it).
///
/// # Errors
/// [`Error::NoBucket`] when it is missing, [`Error::BadUrl`] when it is no directory, [`Error::Denied`].
pub async fn open(path: &Path, create: bool, counters: Arc<Counters>) -> Result<Arc<dyn Store>, Error> {
    let local = Local {
        url: format!("file://{}", path.display()),
        root: Arc::new(Root::new(path)),
        uploads: Arc::new(Uploads::default()),
        counters,
    };
    let directory: PathBuf = path.to_owned();
    local.blocking(None, "OPEN", "", move |root| root.open(&directory, create)).await?;
    Ok(Arc::new(local))
}

#[derive(Debug)]
struct Local {
    url: String,
    root: Arc<Root>,
    uploads: Arc<Uploads>,
    counters: Arc<Counters>,
}

impl Local {
    /// Run `work` where it may block. The future may be dropped: the work then ends by itself, with or without effect.
    async fn blocking<T: Send + 'static>(
        &self,
        kind: Option<Kind>,
        action: &'static str,
        key: &str,
        work: impl FnOnce(&Root) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(kind) = kind {
            self.counters.count(kind);
            // An upload is named by its id, which has rules of its own: that of a killed run has no key but its scratch file's.
            if !matches!(kind, Kind::List | Kind::Abort) && !files::is_key(key) {
                return Err(failed(
                    action,
                    key,
                    Cause::new("a key has no empty parts, no `.` or `..`, and does not begin with `/`"),
                ));
            }
        }
        let root = Arc::clone(&self.root);
        match tokio::task::spawn_blocking(move || work(&root)).await {
            Ok(result) => result.map_err(|error| self.error(action, key, error)),
            Err(panicked) => Err(failed(action, key, Cause::new("the task for it ended").source(panicked))),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        key: &str,
        work: impl FnOnce(&Root) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.blocking(Some(kind), kind.verb(), key, work).await
    }

    fn error(&self, action: &'static str, key: &str, error: std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        // What is an error of ours already.
        let error = match error.downcast::<Error>() {
            Ok(ours) => return ours,
            Err(error) => error,
        };
        let url = self.url.clone();
        match error.kind() {
            Io::NotFound if self.root.is_missing() => Error::NoBucket { url },
            Io::NotFound if matches!(action, "GET" | "HEAD" | "COPY") => Error::NotFound { key: key.to_owned() },
            Io::NotADirectory if action == "OPEN" => Error::BadUrl {
                message: format!("{url} is not a directory"),
            },
            Io::PermissionDenied => Error::Denied {
                url,
                action,
                key: key.to_owned(),
            },
            Io::ReadOnlyFilesystem => failed(
                action,
                key,
                Cause::new("the file system is mounted read-only")
                    .hint(Some("mount it read-write"))
                    .source(error),
            ),
            Io::StorageFull | Io::QuotaExceeded => failed(
                action,
                key,
                Cause::new("no space left")
                    .hint(Some("free some space there; nothing half-written was kept"))
                    .source(error),
            ),
            _ => failed(action, key, error),
        }
    }
}

fn failed(action: &'static str, key: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Failed {
        action,
        key: key.to_owned(),
        source: source.into(),
    }
}

impl Store for Local {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        let name = key.to_owned();
        Box::pin(async move {
            self.counters.sent(body.len() as u64);
            self.call(Kind::Put, key, move |root| root.put(&name, &body)).await
        })
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        let uploads = Arc::clone(&self.uploads);
        Box::pin(async move { self.call(Kind::Create, key, move |root| uploads.create(root)).await })
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a UploadId, number: u32, body: Bytes) -> Call<'a, PartTag> {
        let (uploads, upload) = (Arc::clone(&self.uploads), upload.clone());
        Box::pin(async move {
            self.counters.sent(body.len() as u64);
            self.call(Kind::Part, key, move |root| uploads.add(root, &upload, number, &body))
                .await
        })
    }

    fn complete_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId, parts: Vec<PartTag>, object_bytes: u64) -> Call<'a, Stamp> {
        let (uploads, upload, name) = (Arc::clone(&self.uploads), upload.clone(), key.to_owned());
        let work = move |root: &Root| uploads.complete(root, &upload, &name, &parts, object_bytes);
        Box::pin(async move { self.call(Kind::Complete, key, work).await })
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a UploadId) -> Call<'a, ()> {
        let (uploads, upload) = (Arc::clone(&self.uploads), upload.clone());
        Box::pin(async move { self.call(Kind::Abort, key, move |root| uploads.abort(root, &upload)).await })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        let (source, target) = (from.to_owned(), to.to_owned());
        Box::pin(async move {
            if !files::is_key(to) {
                return Err(failed("COPY", to, Cause::new("this is not a key")));
            }
            self.call(Kind::Copy, from, move |root| root.copy(&source, &target)).await
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        let name = key.to_owned();
        Box::pin(async move {
            let got = self.call(Kind::Get, key, move |root| root.get(&name, range)).await?;
            self.counters.received(got.bytes.len() as u64);
            Ok(got)
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        let name = key.to_owned();
        Box::pin(async move { self.call(Kind::Head, key, move |root| root.head(&name)).await })
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        let (start, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(async move {
            self.call(Kind::List, prefix, move |root| {
                walk::page(root, &start, after.as_deref(), PAGE_OBJECTS)
            })
            .await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        let name = key.to_owned();
        Box::pin(async move { self.call(Kind::Delete, key, move |root| root.delete(&name)).await })
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn uploads(&self) -> Option<&dyn uploads::Uploads> {
        Some(self)
    }
}

impl uploads::Uploads for Local {
    /// All scratch files, whatever key they were to get: that is known only to the run that began them.
    fn list_uploads<'a>(&'a self, prefix: &'a str) -> Call<'a, Vec<OpenUpload>> {
        Box::pin(async move { self.call(Kind::List, prefix, Root::scratch_files).await })
    }
}
