//! What a bucket with versions and Object Lock can do beside the plain calls: every version of a key, its retention.
//!
//! A store that has none says so by [`Store::versions`](super::Store::versions) giving nothing. The protocol needs
//! none of this: it is for what comes after a break-in (reading the bucket as it was at some time), for making such a
//! break-in harmless (retention), and for taking away what is no longer wanted.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{ByteRange, Call, Got, Stamp};

/// How strict a retention is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Those with a right of its own (`s3:BypassGovernanceRetention`) may shorten it.
    Governance,
    /// Nobody may, until it has ended.
    Compliance,
}

/// Until when a version cannot be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How strict it is.
    pub mode: LockMode,
    /// When it ends, by the store's clock.
    pub until: Timestamp,
}

/// The retention that every object gets when it is written (`object_lock` in the settings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// How strict it is.
    pub mode: LockMode,
    /// For how long after each backup what it needs cannot be deleted.
    pub days: u32,
}

/// A retention is extended at most this often: a request per pack and night would cost more than the locks are worth.
const PERIOD_MIN: SignedDuration = SignedDuration::from_hours(24);

impl ObjectLock {
    /// The promise: what a backup needs cannot be deleted for so long after it.
    pub fn promised(self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.days))
    }

    /// How often each object's retention is renewed: every quarter of the promise, but not more often than daily.
    pub fn period(self) -> SignedDuration {
        (self.promised() / 4).max(PERIOD_MIN)
    }

    /// What an object gets that is written, or renewed, now: the promise still holds when the next renewal is due.
    pub fn from(self, now: Timestamp) -> Retention {
        Retention {
            mode: self.mode,
            until: now.saturating_add(self.promised() + self.period()).unwrap_or(Timestamp::MAX),
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        })
    }
}

/// One version of a key, or the marker that its deletion left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Relative to the repository's prefix.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// It is what a plain read gives (or, for a marker, why it gives nothing).
    pub is_latest: bool,
    /// When it landed, by the store's clock.
    pub last_modified: Timestamp,
    /// Its length; `None` for the marker of a deletion.
    pub bytes: Option<u64>,
}

/// Where the next page of versions begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionMark {
    /// The last key of the page before; `MinIO` appends words of its own.
    pub key: String,
    /// Its last version; `None`: all of that key's versions are passed over.
    pub version: Option<String>,
}

/// One page of versions: by key, and of each key the newest first.
#[derive(Debug, Clone)]
pub struct VersionPage {
    /// At most 1,000 on S3.
    pub versions: Vec<Version>,
    /// `None` on the last.
    pub next: Option<VersionMark>,
    /// The store's clock in this answer.
    pub date: Timestamp,
}

/// A store whose bucket keeps versions. Retries as in [`Store`](super::Store).
pub trait Versions: Send + Sync + fmt::Debug {
    /// The retention that objects get when they are written; `None` unless the settings ask for one.
    fn object_lock(&self) -> Option<ObjectLock>;
    /// A page of all versions of the keys that begin with `prefix`.
    fn list_versions<'a>(&'a self, prefix: &'a str, after: Option<&'a VersionMark>) -> Call<'a, VersionPage>;
    /// Read one version. One that is gone is [`Error::NotFound`](super::Error::NotFound).
    fn get_version<'a>(&'a self, key: &'a str, version: &'a str, range: ByteRange) -> Call<'a, Got>;
    /// Delete one version for good; of a marker: bring the key back. A retention is never bypassed: what it holds is refused.
    fn delete_version<'a>(&'a self, key: &'a str, version: &'a str) -> Call<'a, Stamp>;
    /// The retention of a key's newest version.
    fn retention<'a>(&'a self, key: &'a str) -> Call<'a, Option<Retention>>;
    /// Hold a key's newest version for so long. It is never shortened: a store that holds it longer refuses.
    fn extend<'a>(&'a self, key: &'a str, retention: Retention) -> Call<'a, Stamp>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_held_for_the_promise_and_until_its_next_renewal() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap_or_default();
        for (days, period_hours, until) in [
            (1, 24, "2026-11-03T00:00:00Z"),
            (4, 24, "2026-11-06T00:00:00Z"),
            (30, 180, "2026-12-08T12:00:00Z"),
            (36_500, 219_000, "2151-10-02T00:00:00Z"),
        ] {
            let lock = ObjectLock {
                mode: LockMode::Governance,
                days,
            };
            assert_eq!(lock.period(), SignedDuration::from_hours(period_hours), "{days}");
            assert_eq!(lock.from(now).until.to_string(), until, "{days}");
        }
    }
}
