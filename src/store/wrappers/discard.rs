//! Writes that vanish: what a dry run writes to. Reads go through, so that everything is looked up as in a real run.
//!
//! Nothing that was written through it can be read back; a dry run does not try to.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use crate::store::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// A store of which only reads are real.
#[derive(Debug)]
pub struct Discard {
    inner: Arc<dyn Store>,
    /// The store's clock in the last answer.
    date: Mutex<Option<Timestamp>>,
}

impl Discard {
    /// Reads of `inner`, and no writes.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            date: Mutex::new(None),
        }
    }

    fn note(&self, date: Timestamp) {
        *self.date.lock().unwrap_or_else(PoisonError::into_inner) = Some(date);
    }

    fn vanished(&self) -> Call<'_, Stamp> {
        Box::pin(async move {
            let seen = *self.date.lock().unwrap_or_else(PoisonError::into_inner);
            match seen {
                Some(date) => Ok(Stamp { date }),
                None => Ok(Stamp {
                    date: self.list_page("probe/", None).await?.date,
                }),
            }
        })
    }

    fn noted<'a, T: Send + 'a>(&'a self, call: Call<'a, T>, date: impl Fn(&T) -> Timestamp + Send + 'a) -> Call<'a, T> {
        Box::pin(async move {
            let answer: Result<T, Error> = call.await;
            if let Ok(answer) = &answer {
                self.note(date(answer));
            }
            answer
        })
    }
}

impl Store for Discard {
    fn put<'a>(&'a self, _: &'a str, _: Bytes) -> Call<'a, Stamp> {
        self.vanished()
    }

    fn create_upload<'a>(&'a self, key: &'a str) -> Call<'a, UploadId> {
        Box::pin(async move { Ok(UploadId(key.to_owned())) })
    }

    fn put_part<'a>(&'a self, _: &'a str, _: &'a UploadId, number: u32, _: Bytes) -> Call<'a, PartTag> {
        Box::pin(async move {
            Ok(PartTag {
                number,
                etag: String::new(),
                checksum: None,
            })
        })
    }

    fn complete_upload<'a>(&'a self, _: &'a str, _: &'a UploadId, _: Vec<PartTag>, _: u64) -> Call<'a, Stamp> {
        self.vanished()
    }

    fn abort_upload<'a>(&'a self, _: &'a str, _: &'a UploadId) -> Call<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn copy<'a>(&'a self, _: &'a str, _: &'a str) -> Call<'a, Stamp> {
        self.vanished()
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        self.noted(self.inner.get(key, range), |got| got.date)
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        self.noted(self.inner.head(key), |head| head.date)
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        self.noted(self.inner.list_page(prefix, after), |page| page.date)
    }

    fn delete<'a>(&'a self, _: &'a str) -> Call<'a, Stamp> {
        self.vanished()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}
