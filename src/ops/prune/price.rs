//! Storage that is paid for longer than it is used: what the vendors charge at least, as data with a date.
//!
//! As commonly known in November 2026 of Amazon S3 and Wasabi, not copied from their pages: a hint, not an invoice. Prices themselves are not here: they change, and
//! what is told are bytes and days.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::repo::sweep::Plan;

/// Storage classes of Amazon S3 (`s3.storage_class`) that charge each object for so many days.
const CLASSES: [(&str, i64); 5] = [
    ("STANDARD_IA", 30),
    ("ONEZONE_IA", 30),
    ("GLACIER_IR", 90),
    ("GLACIER", 90),
    ("DEEP_ARCHIVE", 180),
];
/// Vendors (`s3.provider`, or the end of the endpoint's host) that charge all objects so.
const VENDORS: [(&str, &str, i64); 1] = [("wasabi", "wasabisys.com", 90)];

/// How long an object is paid for at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StorageMin {
    /// Which class or vendor says so.
    pub name: String,
    /// For so many days.
    pub days: i64,
}

impl StorageMin {
    /// What the settings lead to expect.
    pub fn of(storage_class: Option<&str>, provider: Option<&str>, endpoint: Option<&str>) -> Option<Self> {
        let class = CLASSES
            .iter()
            .find(|(name, _)| storage_class.is_some_and(|class| class.eq_ignore_ascii_case(name)));
        let vendor = VENDORS.iter().find(|(name, host, _)| {
            provider.is_some_and(|provider| provider == *name)
                || provider.is_none() && endpoint.is_some_and(|endpoint| host_of(endpoint).ends_with(host))
        });
        let class = class.map(|(name, days)| (*name, *days));
        let (name, days) = class.or(vendor.map(|(name, _, days)| (*name, *days)))?;
        Some(Self {
            name: name.to_owned(),
            days,
        })
    }

    /// As a length of time.
    pub fn time(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * self.days)
    }
}

fn host_of(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

/// What of a plan is charged for after it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PriceHint {
    /// Who charges.
    #[serde(flatten)]
    pub minimum: StorageMin,
    /// Bytes that will be deleted before their minimum has passed.
    pub early_bytes: u64,
    /// Their bytes times the days that are charged all the same.
    pub early_byte_days: u64,
}

/// Reckon it. Marked packs go a grace period from now.
pub(super) fn hint(plan: &Plan, minimum: StorageMin) -> PriceHint {
    let mut hint = PriceHint {
        minimum,
        early_bytes: 0,
        early_byte_days: 0,
    };
    let time = hint.minimum.time();
    let mut add = |landed: Option<Timestamp>, bytes: u64, wait: SignedDuration| {
        let Some(landed) = landed else { return };
        let left = time - plan.now.duration_since(landed) - wait;
        if left.is_positive() {
            let days = u64::try_from(left.as_hours() / 24 + 1).unwrap_or(0);
            hint.early_bytes += bytes;
            hint.early_byte_days = hint.early_byte_days.saturating_add(bytes.saturating_mul(days));
        }
    };
    let grace = SignedDuration::from_secs(plan.grace_seconds);
    plan.delete
        .iter()
        .for_each(|pack| add(pack.landed, pack.bytes, SignedDuration::ZERO));
    plan.condemn.iter().for_each(|pack| add(pack.landed, pack.bytes, grace));
    plan.repack.iter().for_each(|pack| add(pack.landed, pack.bytes, grace));
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimums_are_known_by_class_vendor_and_host() {
        for (class, provider, endpoint, days) in [
            (None, None, None, None),
            (Some("STANDARD"), Some("aws"), None, None),
            (Some("standard_ia"), None, None, Some(30)),
            (Some("GLACIER_IR"), None, None, Some(90)),
            (None, Some("wasabi"), None, Some(90)),
            (None, None, Some("https://s3.eu-central-1.wasabisys.com:443/x"), Some(90)),
            (None, Some("minio"), Some("https://s3.wasabisys.com"), None),
        ] {
            let found = StorageMin::of(class, provider, endpoint).map(|minimum| minimum.days);
            assert_eq!(found, days, "{class:?} {provider:?} {endpoint:?}");
        }
    }
}
