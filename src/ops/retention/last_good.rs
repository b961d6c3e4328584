//! The last good snapshot of each homeserver: what no policy drops, and what `forget` refuses to drop by accident.
//!
//! It is asked for each part by itself: a snapshot of the configuration alone, however good, is no reason to let go of
//! the last one that has the database.

use std::collections::BTreeMap;

use crate::format::ObjectId;
use crate::ops::Part;

use super::{Candidate, Standing};

/// The best snapshot of each homeserver for each part: good before bad, listed before late, then the newest.
pub(super) fn best<'a>(candidates: &[&'a Candidate]) -> Vec<&'a Candidate> {
    best_for(candidates.iter().copied()).into_values().collect()
}

fn best_for<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> BTreeMap<(&'a str, Part), &'a Candidate> {
    let mut best: BTreeMap<(&str, Part), &Candidate> = BTreeMap::new();
    for one in candidates {
        for &part in &one.parts {
            let held = best.entry((one.server_name.as_str(), part)).or_insert(one);
            if (one.standing(), one.age()) > (held.standing(), held.age()) {
                *held = one;
            }
        }
    }
    best
}

/// What a homeserver would not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Whose.
    pub server_name: String,
    /// Which part.
    pub part: Part,
    /// The snapshot that has it.
    pub id: ObjectId,
    /// It is good; else it is merely the best that is left.
    pub good: bool,
}

/// What would be lost if these went: the last good snapshot of a part, or, where none is good, the last of any kind.
pub fn losses(candidates: &[Candidate], goes: impl Fn(&ObjectId) -> bool) -> Vec<Loss> {
    let after = best_for(candidates.iter().filter(|one| !goes(&one.id)));
    let lost = |(server_name, part): (&str, Part), before: &Candidate| {
        let as_good = after
            .get(&(server_name, part))
            .is_some_and(|after| after.standing() >= before.standing());
        (!as_good).then(|| Loss {
            server_name: server_name.to_owned(),
            part,
            id: before.id,
            good: before.standing() == Standing::Good,
        })
    };
    let before = best_for(candidates.iter());
    before.into_iter().filter_map(|(of, before)| lost(of, before)).collect()
}
