//! One pass of the policy over one group: the newest ones, and one for each day, week, month and year that has any.
//!
//! A slot is taken by the best snapshot in it: a good one if there is one, and of equals the newest. Slots that have no
//! snapshot are not counted, so that a machine that was off for a month loses nothing by it.

use std::collections::BTreeMap;

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::{Candidate, Keep, Reason};

/// A day, a week, a month or a year: how it sorts, and what it is called.
type Slot = (i16, i16);

/// One of the rules of the calendar.
struct Rule {
    count: Option<u32>,
    slot: fn(&Zoned) -> Slot,
    reason: fn(&Zoned) -> Reason,
}

/// Tell of every snapshot that the rules keep, and why. `pass` is sorted, oldest first.
pub(super) fn keep<'a>(pass: &[&'a Candidate], keep: &Keep, mut stays: impl FnMut(&'a Candidate, Reason)) {
    let newest_first = || pass.iter().rev().copied();
    for one in newest_first().take(size(keep.last)) {
        stays(one, Reason::Last);
    }
    if let (Some(span), Some(newest)) = (keep.within, pass.last()) {
        let young = |one: &&Candidate| newest.time.duration_since(one.time).unsigned_abs() <= span;
        for one in newest_first().take_while(young) {
            stays(one, Reason::Within);
        }
    }
    for rule in rules(keep) {
        for (one, at) in best_of_each(pass, &rule, &keep.time_zone)
            .into_values()
            .rev()
            .take(size(rule.count))
        {
            stays(one, (rule.reason)(&at));
        }
    }
}

fn size(count: Option<u32>) -> usize {
    usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX)
}

fn rules(keep: &Keep) -> [Rule; 4] {
    [
        Rule {
            count: keep.daily,
            slot: |at| (at.year(), at.day_of_year()),
            reason: |at| Reason::Daily(at.strftime("%Y-%m-%d").to_string()),
        },
        Rule {
            count: keep.weekly,
            slot: |at| {
                let week = at.date().iso_week_date();
                (week.year(), week.week().into())
            },
            reason: |at| Reason::Weekly(at.strftime("%G-W%V").to_string()),
        },
        Rule {
            count: keep.monthly,
            slot: |at| (at.year(), at.month().into()),
            reason: |at| Reason::Monthly(at.strftime("%Y-%m").to_string()),
        },
        Rule {
            count: keep.yearly,
            slot: |at| (at.year(), 0),
            reason: |at| Reason::Yearly(at.strftime("%Y").to_string()),
        },
    ]
}

fn best_of_each<'a>(pass: &[&'a Candidate], rule: &Rule, time_zone: &TimeZone) -> BTreeMap<Slot, (&'a Candidate, Zoned)> {
    let mut slots: BTreeMap<Slot, (&Candidate, Zoned)> = BTreeMap::new();
    if rule.count.is_none_or(|count| count == 0) {
        return slots;
    }
    for &one in pass {
        let at = one.time.to_zoned(time_zone.clone());
        let slot = (rule.slot)(&at);
        let better = |(other, _): &(&Candidate, Zoned)| (one.standing(), one.age()) > (other.standing(), other.age());
        if slots.get(&slot).is_none_or(better) {
            slots.insert(slot, (one, at));
        }
    }
    slots
}
