//! The guard before forgetting by policy: signs that somebody, or a broken clock, uses the policy to drive out what is good.
//!
//! Whoever can write snapshots can write many, empty ones, and ones that claim other times. A policy that counts would
//! then let go of the real ones, so that these signs stop it until a person has looked.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::format::ObjectId;
use crate::ops::Part;

use super::{Candidate, Parts, Verdict};

/// Times so much after the store's clock are from the future; clocks of a healthy store and its readers agree better (P6).
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(1);
/// More than this share of a homeserver's snapshots is not forgotten at once without a yes …
const SHARE_PERCENT_MAX: u64 = 50;
/// … unless it is only so few: where two of three go, nobody drives anything out.
const FEW: u64 = 3;
/// The newest must have at least this share of what those before it had …
const SIZE_PERCENT_MIN: u64 = 50;
/// … in the middle of so many: a week of nights.
const BEFORE: usize = 7;

/// A sign that forgetting would do harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flood {
    /// A snapshot landed, or claims to have been taken, after now.
    Future {
        /// Which.
        id: ObjectId,
        /// The time it claims.
        time: Timestamp,
    },
    /// The newest snapshot has much less in it than those before.
    Shrunk {
        /// Whose.
        server_name: String,
        /// The newest.
        id: ObjectId,
        /// What is in it.
        bytes: u64,
        /// What usually was in those before.
        usual_bytes: u64,
    },
    /// Too many would go at once.
    Many {
        /// Whose.
        server_name: String,
        /// So many would go …
        forgotten: u64,
        /// … of so many.
        all: u64,
    },
}

impl Flood {
    /// One line.
    pub fn message(&self) -> String {
        match self {
            Self::Future { id, time } => format!("snapshot {id} is from the future: {time}"),
            Self::Shrunk {
                server_name,
                id,
                bytes,
                usual_bytes,
            } => format!(
                "snapshot {id}, the newest of `{server_name}`, has only {} % of the bytes that those before it had",
                u128::from(*bytes) * 100 / u128::from(*usual_bytes).max(1)
            ),
            Self::Many {
                server_name,
                forgotten,
                all,
            } => format!("{forgotten} of {all} snapshots of `{server_name}` would be forgotten at once"),
        }
    }

    /// What to look at.
    pub fn hint(&self) -> String {
        match self {
            Self::Future { id, .. } => format!(
                "look at `synapse-backup show {id}` and at the clocks; forget it by hand if it is none of yours, or go on with `--yes-really`"
            ),
            Self::Shrunk { id, .. } => format!(
                "compare `synapse-backup show {id}` with the one before; if much was really deleted on the homeserver, go on with `--yes-really`"
            ),
            Self::Many { .. } => {
                "look at the same with `--dry-run` and at `synapse-backup snapshots`: are all of them yours, and do you mean these rules? Then go on with `--yes-really`".into()
            }
        }
    }
}

/// The signs, worst first; none where nothing would be forgotten. `now` is the store's own clock.
pub fn floods(candidates: &[Candidate], verdicts: &[Verdict], now: Timestamp) -> Vec<Flood> {
    if !verdicts.iter().any(Verdict::is_forgotten) {
        return Vec::new();
    }
    let mut found = from_the_future(candidates, now);
    found.extend(shrunk(candidates));
    found.extend(too_many(candidates, verdicts));
    found
}

fn from_the_future(candidates: &[Candidate], now: Timestamp) -> Vec<Flood> {
    let claimed = |one: &Candidate| (one.id, one.last_modified.max(one.document_time));
    let mut future: Vec<(ObjectId, Timestamp)> = candidates
        .iter()
        .map(claimed)
        .filter(|(_, time)| time.duration_since(now) > AHEAD_MAX)
        .collect();
    future.sort_unstable();
    future.into_iter().map(|(id, time)| Flood::Future { id, time }).collect()
}

/// Only snapshots that have the database or the media, and count: those are what a policy is there for.
fn shrunk(candidates: &[Candidate]) -> Vec<Flood> {
    let mut groups: BTreeMap<(&str, &Parts), Vec<&Candidate>> = BTreeMap::new();
    for one in candidates.iter().filter(|one| !one.late) {
        if one.parts.iter().any(|part| *part != Part::Config) {
            groups.entry((&one.server_name, &one.parts)).or_default().push(one);
        }
    }
    let small = |mut group: Vec<&Candidate>| {
        group.sort_by_key(|one| one.age());
        let (newest, before) = group.split_last()?;
        let mut sizes: Vec<u64> = before.iter().rev().take(BEFORE).map(|one| one.bytes).collect();
        sizes.sort_unstable();
        let usual = *sizes.get(sizes.len() / 2)?;
        let small = u128::from(newest.bytes) * 100 < u128::from(usual) * u128::from(SIZE_PERCENT_MIN);
        small.then(|| Flood::Shrunk {
            server_name: newest.server_name.clone(),
            id: newest.id,
            bytes: newest.bytes,
            usual_bytes: usual,
        })
    };
    groups.into_values().filter_map(small).collect()
}

fn too_many(candidates: &[Candidate], verdicts: &[Verdict]) -> Vec<Flood> {
    let forgotten: std::collections::BTreeSet<ObjectId> = verdicts.iter().filter(|one| one.is_forgotten()).map(|one| one.id).collect();
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in candidates {
        let (gone, all) = counts.entry(&one.server_name).or_default();
        *gone += u64::from(forgotten.contains(&one.id));
        *all += 1;
    }
    let many = |(server_name, (forgotten, all)): (&str, (u64, u64))| {
        (forgotten > FEW && forgotten * 100 > all * SHARE_PERCENT_MAX).then(|| Flood::Many {
            server_name: server_name.to_owned(),
            forgotten,
            all,
        })
    };
    counts.into_iter().filter_map(many).collect()
}
