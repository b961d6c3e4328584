//! Tables of what stays, and what must hold for every set of snapshots.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::ops::all_parts;

/// `2026-03-01T02:00` with flags: `!` has problems, `~` is late, `#tag`, `@server`, `c` only the configuration.
fn one(number: usize, text: &str) -> Candidate {
    let mut words = text.split(' ');
    let time: Timestamp = format!("{}:00Z", words.next().unwrap()).parse().unwrap();
    let mut found = Candidate {
        id: id(number),
        time,
        document_time: time,
        last_modified: time,
        server_name: "a.example".into(),
        tags: BTreeSet::new(),
        parts: all_parts(),
        bytes: 100,
        problems: 0,
        late: false,
    };
    for word in words {
        match word.split_at(1) {
            ("!", _) => found.problems = 1,
            ("~", _) => found.late = true,
            ("c", _) => found.parts = [Part::Config].into(),
            ("#", tag) => {
                found.tags.insert(tag.to_owned());
            }
            ("@", name) => name.clone_into(&mut found.server_name),
            ("=", bytes) => found.bytes = bytes.parse().unwrap(),
            _ => panic!("{word}"),
        }
    }
    found
}

fn id(number: usize) -> ObjectId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&(number as u64).to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn all(texts: &[&str]) -> Vec<Candidate> {
    texts.iter().enumerate().map(|(number, text)| one(number, text)).collect()
}

/// `last=2 daily=7 within=3 zone=Europe/Berlin tag=x`; `within` in days.
fn rules(text: &str) -> Keep {
    let mut keep = Keep::everything();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap();
        let count = || Some(value.parse().unwrap());
        match key {
            "last" => keep.last = count(),
            "daily" => keep.daily = count(),
            "weekly" => keep.weekly = count(),
            "monthly" => keep.monthly = count(),
            "yearly" => keep.yearly = count(),
            "within" => keep.within = Some(Duration::from_hours(24) * value.parse().unwrap()),
            "zone" => keep.time_zone = TimeZone::get(value).unwrap(),
            "tag" => {
                keep.tags.insert(value.to_owned());
            }
            _ => panic!("{key}"),
        }
    }
    keep
}

/// Which of them stay, by their places in the table.
fn kept(candidates: &[Candidate], keep: &Keep) -> BTreeSet<usize> {
    let stay: BTreeSet<ObjectId> = decide(candidates, keep)
        .into_iter()
        .filter(|verdict| !verdict.is_forgotten())
        .map(|verdict| verdict.id)
        .collect();
    let places = candidates.iter().enumerate();
    places.filter(|(_, one)| stay.contains(&one.id)).map(|(at, _)| at).collect()
}

type Case<'a> = (&'a str, &'a [&'a str], &'a str, &'a [usize]);

fn check(cases: &[Case<'_>]) {
    for (why, snapshots, keep, wanted) in cases {
        let got = kept(&all(snapshots), &rules(keep));
        assert_eq!(&got.into_iter().collect::<Vec<_>>(), wanted, "{why}");
    }
}

#[test]
fn what_stays_by_the_calendar() {
    let nights = ["2026-03-01T02:00", "2026-03-02T02:00", "2026-03-03T02:00", "2026-03-04T02:00"];
    check(&[
        ("no rule forgets nothing", &nights, "", &[0, 1, 2, 3]),
        ("a protected tag is no rule", &nights, "tag=x", &[0, 1, 2, 3]),
        ("the newest", &nights, "last=2", &[2, 3]),
        ("rules add up", &nights, "last=1 yearly=1 daily=2", &[2, 3]),
        ("more than there are", &nights, "last=9", &[0, 1, 2, 3]),
        ("the last good one, whatever the rules", &nights, "last=0", &[3]),
        (
            "the newest of each day",
            &["2026-03-01T02:00", "2026-03-01T22:00", "2026-03-02T02:00"],
            "daily=9",
            &[1, 2],
        ),
        (
            "days without a snapshot are not counted",
            &["2026-01-01T02:00", "2026-03-01T02:00", "2026-03-09T02:00"],
            "daily=2",
            &[1, 2],
        ),
        (
            "weeks begin on Monday, also over the new year",
            &["2026-12-27T02:00", "2026-12-28T02:00", "2027-01-03T02:00", "2027-01-04T02:00"],
            "weekly=9",
            &[0, 2, 3],
        ),
        (
            "months and years",
            &["2025-06-30T02:00", "2025-12-31T02:00", "2026-01-01T02:00", "2026-01-31T02:00"],
            "monthly=3 yearly=2",
            &[0, 1, 3],
        ),
        (
            "days are those of the time zone",
            &["2026-03-01T22:30", "2026-03-01T23:30", "2026-03-02T22:30"],
            "daily=9 zone=Europe/Berlin",
            &[0, 2],
        ),
        (
            "also where the clock goes back over midnight",
            // Havana, 2026-11-01: 01:00 becomes 00:00 again.
            &["2026-11-01T03:30", "2026-11-01T04:30", "2026-11-01T05:30", "2026-11-02T05:30"],
            "daily=9 zone=America/Havana",
            &[0, 2, 3],
        ),
        (
            "within counts from the newest",
            &["2026-03-01T02:00", "2026-03-03T01:59", "2026-03-03T02:00", "2026-03-05T02:00"],
            "within=2",
            &[2, 3],
        ),
    ]);
}

#[test]
fn what_is_bad_late_or_of_another_group_pushes_nothing_out() {
    check(&[
        (
            "homeservers do not push each other out",
            &["2026-03-01T02:00", "2026-03-02T02:00 @b.example", "2026-03-03T02:00 @b.example"],
            "last=1",
            &[0, 2],
        ),
        (
            "a tag set is a group of its own",
            &["2026-03-01T02:00 #x", "2026-03-02T02:00", "2026-03-03T02:00", "2026-03-04T02:00 #y"],
            "last=1",
            &[0, 2, 3],
        ),
        (
            "a protected tag stays",
            &["2026-03-01T02:00 #x", "2026-03-02T02:00 #x", "2026-03-03T02:00 #x"],
            "last=1 tag=x",
            &[0, 1, 2],
        ),
        (
            "a part does not push out what is whole",
            &["2026-03-01T02:00", "2026-03-02T02:00", "2026-03-03T02:00 c", "2026-03-04T02:00 c"],
            "last=1",
            &[1, 3],
        ),
        (
            "a slot is taken by the good one",
            &["2026-03-01T02:00", "2026-03-01T12:00 !", "2026-03-02T02:00"],
            "daily=2",
            &[0, 2],
        ),
        (
            "one with problems does not fill a slot alone",
            &["2026-03-01T02:00", "2026-03-02T02:00", "2026-03-03T02:00 !", "2026-03-04T02:00 !"],
            "daily=2",
            &[0, 1, 2, 3],
        ),
        (
            "a broken week takes nothing from what was good, and does not pile up",
            &[
                "2026-03-01T02:00",
                "2026-03-02T02:00",
                "2026-03-03T02:00 !",
                "2026-03-04T02:00 !",
                "2026-03-05T02:00 !",
            ],
            "last=1 daily=2",
            &[0, 1, 3, 4],
        ),
        (
            "late ones push nothing out",
            &["2026-03-01T02:00", "2026-03-02T02:00", "2026-03-03T02:00 ~", "2026-03-04T02:00 ~"],
            "last=1",
            &[1, 3],
        ),
        (
            "nothing but late ones, as after a mirroring: the same rules",
            &["2026-03-01T02:00 ~", "2026-03-02T02:00 ~", "2026-03-03T02:00 ~ !"],
            "last=1",
            &[1, 2],
        ),
        (
            "nothing good: the newest that counts stays",
            &["2026-03-01T02:00 !", "2026-03-02T02:00 !", "2026-03-03T02:00 ~"],
            "last=0",
            &[1],
        ),
        (
            "the last good one with the database stays, however good the parts are",
            &["2026-03-01T02:00", "2026-03-02T02:00 !", "2026-03-03T02:00 c"],
            "last=0",
            &[0, 2],
        ),
    ]);
}

#[test]
fn every_reason_is_kept() {
    let candidates = all(&["2026-03-01T02:00 #x", "2026-03-02T02:00 #x"]);
    let verdicts = decide(&candidates, &rules("last=1 daily=1 weekly=2 monthly=1 yearly=1 within=1 tag=x"));
    let said = |at: usize| verdicts[at].keep.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    assert_eq!(said(0), "weekly 2026-W09, within, tag x");
    assert_eq!(
        said(1),
        "last, daily 2026-03-02, weekly 2026-W10, monthly 2026-03, yearly 2026, within, tag x, newest good"
    );
    let json = serde_json::to_value(&verdicts[0].keep).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{"rule": "weekly", "of": "2026-W09"}, {"rule": "within"}, {"rule": "tag", "of": "x"}])
    );
}

#[test]
fn rules_that_are_all_zero_are_told_from_none() {
    for (text, has_rule, keeps_nothing) in [
        ("", false, false),
        ("tag=x", false, false),
        ("last=0", true, true),
        ("last=0 daily=0", true, true),
        ("last=0 yearly=1", true, false),
        ("last=0 within=1", true, false),
    ] {
        let keep = rules(text);
        assert_eq!((keep.has_rule(), keep.keeps_nothing()), (has_rule, keeps_nothing), "{text}");
    }
}

#[test]
fn what_is_lost_by_hand_is_named() {
    let candidates = all(&[
        "2026-03-01T02:00",
        "2026-03-02T02:00",
        "2026-03-03T02:00 !",
        "2026-03-04T02:00 c",
        "2026-03-05T02:00 ~ @b.example",
        "2026-03-06T02:00 ! @b.example",
    ]);
    for (gone, wanted) in [
        (&[0][..], &[][..]),
        (&[1, 2, 3], &[]),
        (
            &[0, 1, 3],
            &[
                ("a.example", Part::Config, 3, true),
                ("a.example", Part::Database, 1, true),
                ("a.example", Part::Media, 1, true),
            ],
        ),
        (
            &[0, 1],
            &[("a.example", Part::Database, 1, true), ("a.example", Part::Media, 1, true)],
        ),
        (&[4], &[]),
        (
            &[5],
            &[
                ("b.example", Part::Config, 5, false),
                ("b.example", Part::Database, 5, false),
                ("b.example", Part::Media, 5, false),
            ],
        ),
    ] {
        let got = losses(&candidates, |one| gone.iter().any(|at| *one == id(*at)));
        let got: Vec<_> = got
            .iter()
            .map(|loss| (loss.server_name.as_str(), loss.part, loss.id, loss.good))
            .collect();
        let wanted: Vec<_> = wanted.iter().map(|(name, part, at, good)| (*name, *part, id(*at), *good)).collect();
        assert_eq!(got, wanted, "{gone:?}");
    }
}

#[test]
fn signs_of_a_flood_stop_the_policy() {
    let now: Timestamp = "2026-03-10T00:00:00Z".parse().unwrap();
    let night = |day: usize, flags: &str| format!("2026-03-{day:02}T02:00{flags}");
    let nights = |days: std::ops::RangeInclusive<usize>| days.map(|day| night(day, "")).collect::<Vec<_>>();
    let with = |mut list: Vec<String>, more: &[&str]| {
        list.extend(more.iter().map(|text| (*text).to_owned()));
        list
    };
    for (why, snapshots, keep, wanted) in [
        ("a usual night", nights(1..=8), "last=7", &[][..]),
        ("a few of a few", nights(1..=4), "last=1", &[]),
        ("half of many", nights(1..=8), "last=4", &[]),
        (
            "more than half of many",
            nights(1..=8),
            "last=3",
            &["5 of 8 snapshots of `a.example` would be forgotten at once"],
        ),
        ("nothing would go", with(nights(1..=2), &["2026-03-12T02:00 =1"]), "last=9", &[]),
        (
            "from the future",
            with(nights(1..=2), &["2026-03-10T01:00", "2026-03-10T01:01"]),
            "last=3",
            &["snapshot 00000000000000000000000000000003 is from the future: 2026-03-10T01:01:00Z"],
        ),
        (
            "the newest is small",
            with(nights(1..=5), &["2026-03-06T02:00 =49"]),
            "last=5",
            &["snapshot 00000000000000000000000000000005, the newest of `a.example`, has only 49 % of the bytes that those before it had"],
        ),
        (
            "half of what was is not much smaller",
            with(nights(1..=5), &["2026-03-06T02:00 =50"]),
            "last=5",
            &[],
        ),
        (
            "a late one is not the newest",
            with(nights(1..=5), &["2026-03-06T02:00 =1 ~"]),
            "last=4",
            &[],
        ),
        (
            "a part is not the newest whole one",
            with(nights(1..=5), &["2026-03-06T02:00 =1 c"]),
            "last=4",
            &[],
        ),
    ] {
        let texts: Vec<&str> = snapshots.iter().map(String::as_str).collect();
        let candidates = all(&texts);
        let got = floods(&candidates, &decide(&candidates, &rules(keep)), now);
        assert!(got.iter().all(|flood| flood.hint().contains("--yes-really")), "{why}");
        assert_eq!(got.iter().map(Flood::message).collect::<Vec<_>>(), wanted, "{why}");
    }
}

fn some_candidate() -> impl Strategy<Value = Candidate> {
    let time = (0_u32..60, 0_u32..24);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..3, any::<u64>());
    (time, flags).prop_map(|((day, hour), (bad, late, part, tag, number))| {
        let mut found = one(usize::try_from(number >> 1).unwrap(), "2026-03-01T00:00");
        found.time += jiff::SignedDuration::from_hours(i64::from(day * 24 + hour));
        found.problems = u64::from(bad);
        found.late = late;
        if part {
            found.parts = [Part::Database].into();
        }
        found.tags.extend(["x", "y"].get(tag).map(|tag| (*tag).to_owned()));
        found
    })
}

fn some_keep() -> impl Strategy<Value = Keep> {
    let count = || proptest::option::of(0_u32..5);
    (count(), count(), count(), count(), count(), proptest::option::of(1_u64..20)).prop_map(
        |(last, daily, weekly, monthly, yearly, days)| Keep {
            last,
            daily,
            weekly,
            monthly,
            yearly,
            within: days.map(|days| Duration::from_hours(24 * days)),
            ..Keep::everything()
        },
    )
}

fn some_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    proptest::collection::vec(some_candidate(), 0..24).prop_map(|mut found| {
        found.sort_by_key(|one| one.id);
        found.dedup_by_key(|one| one.id);
        found
    })
}

fn ids_kept(candidates: &[Candidate], keep: &Keep) -> BTreeSet<ObjectId> {
    let stays = |verdict: &Verdict| !verdict.is_forgotten();
    decide(candidates, keep)
        .into_iter()
        .filter(stays)
        .map(|verdict| verdict.id)
        .collect()
}

proptest! {
    #[test]
    fn the_order_of_a_listing_does_not_matter(candidates in some_candidates(), keep in some_keep(), turn in 0_usize..24) {
        let mut turned = candidates.clone();
        turned.reverse();
        let by = turn % turned.len().max(1);
        turned.rotate_left(by);
        prop_assert_eq!(decide(&candidates, &keep), decide(&turned, &keep));
    }

    #[test]
    fn late_ones_and_those_with_problems_push_out_nothing_good(candidates in some_candidates(), keep in some_keep()) {
        let good: Vec<Candidate> = candidates.iter().filter(|one| one.standing() == Standing::Good).cloned().collect();
        let alone = ids_kept(&good, &keep);
        let together = ids_kept(&candidates, &keep);
        prop_assert!(alone.is_subset(&together), "{:?}", alone.difference(&together));
    }

    #[test]
    fn the_newest_good_one_of_each_part_stays(candidates in some_candidates(), keep in some_keep()) {
        let stay = ids_kept(&candidates, &keep);
        for part in all_parts() {
            let good = candidates.iter().filter(|one| one.standing() == Standing::Good && one.parts.contains(&part));
            if let Some(newest) = good.max_by_key(|one| one.age()) {
                prop_assert!(stay.contains(&newest.id));
            }
        }
        prop_assert!(losses(&candidates, |id| !stay.contains(id)).is_empty());
    }

    #[test]
    fn what_was_forgotten_once_is_not_wanted_back(candidates in some_candidates(), keep in some_keep()) {
        let stay = ids_kept(&candidates, &keep);
        let left: Vec<Candidate> = candidates.into_iter().filter(|one| stay.contains(&one.id)).collect();
        prop_assert_eq!(ids_kept(&left, &keep), stay);
    }
}
