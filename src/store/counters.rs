//! How many requests went to the store, and how many bytes with them.
//!
//! Every *try* counts, not every call: a part that was sent three times is three requests and three times its bytes.
//! Bytes are those of HTTP bodies (no headers, no TLS). A try that broke half way counts its whole body as sent, since
//! nobody can say how much of it left the machine; a try that never reached the store counts no bytes.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The kinds of requests, one for each call of [`Store`](super::Store).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A whole object.
    Put,
    /// The begin of a multipart upload.
    Create,
    /// One part.
    Part,
    /// The end of a multipart upload.
    Complete,
    /// A multipart upload given up.
    Abort,
    /// A copy inside the store.
    Copy,
    /// A read.
    Get,
    /// One page of a listing.
    List,
    /// Length and times.
    Head,
    /// A removal.
    Delete,
}

impl Kind {
    /// Every kind, in the order of the report.
    pub const ALL: [Self; 10] = [
        Self::Put,
        Self::Create,
        Self::Part,
        Self::Complete,
        Self::Abort,
        Self::Copy,
        Self::Get,
        Self::List,
        Self::Head,
        Self::Delete,
    ];

    /// The word for messages: `PUT`, `LIST` …
    pub fn verb(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Create => "CREATE",
            Self::Part => "PART",
            Self::Complete => "COMPLETE",
            Self::Abort => "ABORT",
            Self::Copy => "COPY",
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Head => "HEAD",
            Self::Delete => "DELETE",
        }
    }
}

/// Shared by all users of a store; counting is lock free.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [AtomicU64; Kind::ALL.len()],
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Counters {
    /// One more try of this kind.
    pub fn count(&self, kind: Kind) {
        self.requests[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many body bytes went out.
    pub fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many body bytes came in.
    pub fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn totals(&self) -> Totals {
        let of = |kind: Kind| self.requests[kind as usize].load(Ordering::Relaxed);
        Totals {
            requests: Requests {
                put: of(Kind::Put),
                create: of(Kind::Create),
                part: of(Kind::Part),
                complete: of(Kind::Complete),
                abort: of(Kind::Abort),
                copy: of(Kind::Copy),
                get: of(Kind::Get),
                list: of(Kind::List),
                head: of(Kind::Head),
                delete: of(Kind::Delete),
            },
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }
}

/// A reading of [`Counters`], as it stands in reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests by kind.
    pub requests: Requests,
    /// Body bytes that went out.
    pub sent_bytes: u64,
    /// Body bytes that came in.
    pub received_bytes: u64,
}

/// Requests by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of `Kind`, where each is told")]
pub struct Requests {
    pub put: u64,
    pub create: u64,
    pub part: u64,
    pub complete: u64,
    pub abort: u64,
    pub copy: u64,
    pub get: u64,
    pub list: u64,
    pub head: u64,
    pub delete: u64,
}

impl Requests {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.put + self.create + self.part + self.complete + self.abort + self.copy + self.get + self.list + self.head + self.delete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_under_its_own_name() {
        let counters = Counters::default();
        for (times, kind) in Kind::ALL.into_iter().enumerate() {
            for _ in 0..=times {
                counters.count(kind);
            }
        }
        let json = serde_json::to_value(counters.totals().requests).unwrap_or_default();
        for (times, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(json[kind.verb().to_lowercase()], times + 1, "{kind:?}");
        }
        assert_eq!(counters.totals().requests.sum(), 55);
    }
}
