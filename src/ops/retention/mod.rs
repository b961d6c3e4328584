//! Which snapshots stay: a pure function of what there is and of the rules. It reads nothing and deletes nothing.
//!
//! Rules count within a group: one homeserver, one set of tags, the same parts. The policy is applied four times, to the
//! good snapshots, to all that are listed, and to both together with late ones, and whatever one of them keeps is kept
//! (P0). So a broken week, or a flood of late ones, takes no place from what was good, and what is kept stays bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::format::ObjectId;
use crate::format::snapshot::Snapshot;
use crate::repo::snapshots::Loaded;

use super::{Part, Parts};

mod flood;
mod last_good;
mod slots;

pub use flood::{Flood, floods};
pub use last_good::{Loss, losses};

/// The rules. `None`: this rule was not given.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The newest so many.
    pub last: Option<u32>,
    /// One of each of the newest so many days that have any.
    pub daily: Option<u32>,
    /// The same of weeks, which begin on Monday (ISO 8601).
    pub weekly: Option<u32>,
    /// The same of months.
    pub monthly: Option<u32>,
    /// The same of years.
    pub yearly: Option<u32>,
    /// All that are at most so much older than the newest of their group.
    pub within: Option<Duration>,
    /// Where days begin and end.
    pub time_zone: TimeZone,
    /// A snapshot with one of these tags is never forgotten.
    pub tags: BTreeSet<String>,
}

impl Keep {
    /// No rule: nothing is forgotten.
    pub const fn everything() -> Self {
        Self {
            last: None,
            daily: None,
            weekly: None,
            monthly: None,
            yearly: None,
            within: None,
            time_zone: TimeZone::UTC,
            tags: BTreeSet::new(),
        }
    }

    /// Some rule says what may go. Tags only protect.
    pub fn has_rule(&self) -> bool {
        self.within.is_some() || self.counts().into_iter().flatten().next().is_some()
    }

    /// There are rules, and all of them are zero: nobody can mean that.
    pub fn keeps_nothing(&self) -> bool {
        self.has_rule() && self.within.is_none_or(|span| span.is_zero()) && self.counts().into_iter().flatten().all(|count| count == 0)
    }

    fn counts(&self) -> [Option<u32>; 5] {
        [self.last, self.daily, self.weekly, self.monthly, self.yearly]
    }
}

/// A snapshot, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: ObjectId,
    /// By which it is sorted into days and weeks.
    pub time: Timestamp,
    /// What the document says, believed or not.
    pub document_time: Timestamp,
    /// When it landed.
    pub last_modified: Timestamp,
    /// Whose homeserver.
    pub server_name: String,
    /// Its tags now.
    pub tags: BTreeSet<String>,
    /// What is in it.
    pub parts: Parts,
    /// Raw bytes of everything in it.
    pub bytes: u64,
    /// How many problems it carries.
    pub problems: u64,
    /// It does not count (G4).
    pub late: bool,
}

/// How much a snapshot is worth beside another one of the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Late, and with problems.
    LateWithProblems,
    /// Late.
    Late,
    /// Listed, with problems.
    WithProblems,
    /// Listed, and without a problem.
    Good,
}

impl Candidate {
    fn standing(&self) -> Standing {
        match (self.late, self.problems) {
            (true, 1..) => Standing::LateWithProblems,
            (true, 0) => Standing::Late,
            (false, 1..) => Standing::WithProblems,
            (false, 0) => Standing::Good,
        }
    }

    /// Newest is greatest; of two of one moment the id decides, so that the order of a listing never does.
    fn age(&self) -> (Timestamp, ObjectId) {
        (self.time, self.id)
    }
}

/// Snapshots that were read, each once (see [`crate::repo::snapshots::unique`]), as candidates.
pub fn candidates(loaded: &[Loaded]) -> Vec<Candidate> {
    let candidate = |one: &Loaded| Candidate {
        id: one.snapshot.id,
        time: one.time(),
        document_time: one.snapshot.time,
        last_modified: one.key.last_modified,
        server_name: one.snapshot.server_name.clone(),
        tags: one.tags.iter().cloned().collect(),
        parts: parts_of(&one.snapshot),
        bytes: one.snapshot.raw_bytes(),
        problems: one.snapshot.problem_count(),
        late: one.late,
    };
    loaded.iter().map(candidate).collect()
}

/// What is in a snapshot: all three, unless `--only` was given.
pub fn parts_of(snapshot: &Snapshot) -> Parts {
    let has = [
        (Part::Config, !snapshot.config.is_empty()),
        (Part::Database, !snapshot.databases.is_empty()),
        (Part::Media, snapshot.media.is_some()),
    ];
    has.into_iter().filter(|(_, has)| *has).map(|(part, _)| part).collect()
}

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "rule", content = "of", rename_all = "snake_case")]
pub enum Reason {
    /// No rule says what may go.
    NoRule,
    /// One of the newest.
    Last,
    /// Of this day.
    Daily(String),
    /// Of this week.
    Weekly(String),
    /// Of this month.
    Monthly(String),
    /// Of this year.
    Yearly(String),
    /// Young enough.
    Within,
    /// It has this protected tag.
    Tag(String),
    /// The newest good one of its homeserver, which always stays.
    NewestGood,
    /// Its homeserver has no good one, and nothing better than this.
    NothingBetter,
    /// It is not authentic, as far as the keys at hand can tell: it counts for no rule, and only a person forgets it.
    NotAuthentic,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule"),
            Self::Last => f.write_str("last"),
            Self::Daily(slot) => write!(f, "daily {slot}"),
            Self::Weekly(slot) => write!(f, "weekly {slot}"),
            Self::Monthly(slot) => write!(f, "monthly {slot}"),
            Self::Yearly(slot) => write!(f, "yearly {slot}"),
            Self::Within => f.write_str("within"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::NewestGood => f.write_str("newest good"),
            Self::NothingBetter => f.write_str("nothing better"),
            Self::NotAuthentic => f.write_str("not authentic"),
        }
    }
}

/// What is to happen to one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    pub id: ObjectId,
    /// Why it stays; empty: it is forgotten.
    pub keep: Vec<Reason>,
}

impl Verdict {
    /// Nothing keeps it.
    pub fn is_forgotten(&self) -> bool {
        self.keep.is_empty()
    }
}

/// Reasons of each snapshot that stays.
type Reasons = BTreeMap<ObjectId, BTreeSet<Reason>>;

/// The verdict on each snapshot, oldest first. The order of the candidates does not matter.
pub fn decide(candidates: &[Candidate], keep: &Keep) -> Vec<Verdict> {
    let mut ordered: Vec<&Candidate> = candidates.iter().collect();
    ordered.sort_by_key(|one| one.age());
    let mut reasons = Reasons::new();
    if keep.has_rule() {
        for group in groups(&ordered) {
            apply(&group, keep, &mut reasons);
        }
    } else {
        for one in &ordered {
            reasons.entry(one.id).or_default().insert(Reason::NoRule);
        }
    }
    for one in &ordered {
        let protected = one.tags.intersection(&keep.tags).map(|tag| Reason::Tag(tag.clone()));
        let mut protected = protected.peekable();
        if protected.peek().is_some() {
            reasons.entry(one.id).or_default().extend(protected);
        }
    }
    for best in last_good::best(&ordered) {
        let good = best.standing() == Standing::Good;
        let reason = if good { Reason::NewestGood } else { Reason::NothingBetter };
        reasons.entry(best.id).or_default().insert(reason);
    }
    let verdict = |one: &&Candidate| Verdict {
        id: one.id,
        keep: reasons.get(&one.id).into_iter().flatten().cloned().collect(),
    };
    ordered.iter().map(verdict).collect()
}

/// One homeserver, one set of tags, the same parts: what can stand for one another. Each keeps its order.
fn groups<'a>(ordered: &[&'a Candidate]) -> Vec<Vec<&'a Candidate>> {
    let mut groups: BTreeMap<(&str, &BTreeSet<String>, &Parts), Vec<&'a Candidate>> = BTreeMap::new();
    for one in ordered {
        let group = (one.server_name.as_str(), &one.tags, &one.parts);
        groups.entry(group).or_default().push(one);
    }
    groups.into_values().collect()
}

/// P0: what the policy keeps of the listed ones, and what it keeps of listed and late ones together. Each once more
/// without those that have problems.
fn apply(group: &[&Candidate], keep: &Keep, reasons: &mut Reasons) {
    for late_too in [false, true] {
        for problems_too in [false, true] {
            let counted = |one: &&Candidate| (late_too || !one.late) && (problems_too || one.problems == 0);
            let pass: Vec<&Candidate> = group.iter().copied().filter(counted).collect();
            slots::keep(&pass, keep, |one, reason| {
                reasons.entry(one.id).or_default().insert(reason);
            });
        }
    }
}

#[cfg(test)]
mod tests;
