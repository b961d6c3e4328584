//! How many seeds are tried, which mistakes are planted, and with how many seeds each must be found.
//!
//! One seed again, with all its requests: `SIMULATION_SEED=1234 cargo test --lib one_seed -- --nocapture` (in another world than its own:
//! `SIMULATION_WORLD=0`). One mistake: `SIMULATION_MISTAKE="no fence" cargo test --lib every_planted -- --nocapture` (with other seeds than
//! the table says: `SIMULATION_SEEDS=5000`). Many seeds: `scripts/soak`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and is told by the environment what to try"
)]
#![expect(clippy::print_stdout, reason = "a test may print")]

use std::time::{Duration, Instant};

use super::scheduler::Scheduler;
use super::worlds::{WORLDS, World};
use crate::repo::bugs::{self, Bug, plant};

/// Seeds of the usual test run.
const SEEDS: u64 = 4_000;
/// They are begun anew only so long: a slow machine tries fewer.
const TIME: Duration = Duration::from_secs(75);

/// What one seed came to.
struct Outcome {
    requests: usize,
    log: String,
    broken: Option<String>,
}

fn simulate(world: &World, seed: u64, bug: Option<Bug>) -> Outcome {
    plant(bug);
    bugs::simulate(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let processes = tokio::task::LocalSet::new();
    let outcome = processes.block_on(&runtime, async {
        let mut scheduler = Scheduler::new(world, seed);
        scheduler.to_the_end = bug.is_none();
        let broken = scheduler.run().await.err();
        Outcome {
            requests: scheduler.requests,
            log: std::mem::take(&mut scheduler.log),
            broken,
        }
    });
    plant(None);
    bugs::simulate(false);
    outcome
}

/// Worlds take turns.
fn world_of(seed: u64) -> &'static World {
    let number = told("SIMULATION_WORLD").unwrap_or(seed);
    &WORLDS[usize::try_from(number).unwrap() % WORLDS.len()]
}

fn refuse(seed: u64, outcome: &Outcome) {
    if let Some(broken) = &outcome.broken {
        panic!(
            "seed {seed}, world `{}`:\n{}\n{broken}\nagain: SIMULATION_SEED={seed} cargo test --lib one_seed",
            world_of(seed).name,
            outcome.log
        );
    }
}

/// A number from the environment.
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_listed_snapshot_is_complete_at_every_instant() {
    let threads = 2;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (0..SEEDS).filter(|seed| seed % threads == thread) {
                    if began.elapsed() > TIME {
                        break;
                    }
                    refuse(seed, &simulate(world_of(seed), seed, None));
                }
            });
        }
    });
}

#[test]
fn a_seed_gives_the_same_requests_again() {
    for seed in 0..WORLDS.len() as u64 * 3 {
        let (first, second) = (simulate(world_of(seed), seed, None), simulate(world_of(seed), seed, None));
        assert!(first.requests > 50, "seed {seed}: {} requests", first.requests);
        assert_eq!(first.log, second.log, "seed {seed}");
    }
}

/// A mistake that must be found.
struct Planted {
    what: &'static str,
    /// In the code.
    bug: Option<Bug>,
    /// In the world.
    change: fn(&mut World),
    /// Where in [`WORLDS`] it shows soonest.
    world: usize,
    /// With at most so many seeds.
    seeds: u64,
}

const fn code(what: &'static str, bug: Bug, world: usize, seeds: u64) -> Planted {
    let change = |_: &mut World| {};
    Planted {
        what,
        bug: Some(bug),
        change,
        world,
        seeds,
    }
}

const fn world(what: &'static str, change: fn(&mut World), world: usize, seeds: u64) -> Planted {
    Planted {
        what,
        bug: None,
        change,
        world,
        seeds,
    }
}

/// The mistakes that `docs/protocol.md` names.
const PLANTED: [Planted; 39] = [
    code("no check before the commit", Bug::NoCheck, 0, 300),
    code("the Date taken after the lists", Bug::DateAfterLists, 0, 700),
    code("packs not listed", Bug::PacksNotListed, 0, 300),
    code("packs listed before the markers", Bug::PacksBeforeMarkers, 10, 300),
    code("no fence", Bug::NoFence, 3, 300),
    code("the check only after the commit", Bug::CheckAfterCommit, 0, 300),
    code("the snapshot before its segment", Bug::SnapshotBeforeSegment, 0, 300),
    code("the segment before its pack", Bug::SegmentBeforePack, 2, 300),
    code("success told without the HEAD", Bug::NoHead, 0, 300),
    world("no grace", |world| (world.grace_hours, world.jumps_hours) = (0, &[1, 2]), 0, 200),
    world("a window longer than the grace", |world| world.window_hours = 60, 3, 300),
    code("markers of an earlier look used again", Bug::MarksReused, 1, 300),
    code("a marker deleted before its pack", Bug::MarkerBeforePack, 0, 300),
    code("copies counted that are condemned", Bug::CondemnedCopies, 7, 300),
    code("copies counted that are not there", Bug::AbsentCopies, 7, 300),
    code("compaction that deletes before it writes", Bug::CompactDeletesFirst, 2, 300),
    code("compaction that deletes what it did not read", Bug::CompactDeletesUnread, 2, 300),
    code(
        "compaction that lists packs before it reads the index",
        Bug::CompactPacksFirst,
        2,
        300,
    ),
    code(
        "a segment that shrinks by the lines of marked packs",
        Bug::ShrinkDropsMarked,
        2,
        300,
    ),
    code("a segment that was to shrink, deleted unread", Bug::ShrinkDeletesUnread, 2, 300),
    code("a restore that keeps its first index", Bug::FirstIndexKept, 5, 300),
    code("markers not looked at", Bug::MarkersIgnored, 10, 300),
    code("a copy that does not check before its commit", Bug::NoCheck, 11, 300),
    code("a copy that does not look at markers", Bug::MarkersIgnored, 11, 300),
    code("a copy that forgets what it relies on", Bug::CopyForgets, 11, 300),
    code("a copy without a fence", Bug::NoFence, 11, 300),
    code("success of a copy told without the HEAD", Bug::NoHead, 11, 300),
    code("an adoption that does not check", Bug::NoCheck, 12, 300),
    code("success told although a second landing makes it late", Bug::CountsAnyhow, 6, 300),
    code(
        "packs deleted before the snapshots that were chosen",
        Bug::PacksBeforeSnapshots,
        14,
        300,
    ),
    code("a segment deleted before it is sealed anew", Bug::ResealDeletesFirst, 13, 300),
    code("a snapshot deleted before it is sealed anew", Bug::RekeyDeletesFirst, 13, 300),
    code("a rekey that forgets what it relies on", Bug::RekeyForgets, 13, 300),
    code("a rekey that does not check", Bug::NoCheck, 13, 300),
    code("a rekey without a fence", Bug::NoFence, 13, 300),
    code("a marker taken back", Bug::MarkerTakenBack, 8, 300),
    world(
        "stamps that lag too much",
        |world| (world.lag_hours, world.jumps_hours) = (14, &[7, 13]),
        3,
        300,
    ),
    world(
        "a pack that is written again much later",
        |world| world.repeat_hours = Some(24 * 30),
        9,
        300,
    ),
    world(
        "a snapshot that is written again much later",
        |world| world.repeat_hours = Some(24 * 30),
        6,
        300,
    ),
];

#[test]
fn every_planted_mistake_is_found() {
    let only = std::env::var("SIMULATION_MISTAKE").ok();
    let chosen = |planted: &&Planted| only.as_ref().is_none_or(|only| planted.what.contains(only.as_str()));
    let mut wrong = Vec::new();
    for planted in PLANTED.iter().filter(chosen) {
        let number = told("SIMULATION_WORLD").map_or(planted.world, |number| usize::try_from(number).unwrap());
        let mut world = WORLDS[number].clone();
        (planted.change)(&mut world);
        let seeds = told("SIMULATION_SEEDS").unwrap_or(planted.seeds);
        let found = (0..seeds).find_map(|seed| Some((seed, simulate(&world, seed, planted.bug).broken?)));
        let Some((seed, broken)) = found else {
            wrong.push(format!("{}: not found", planted.what));
            continue;
        };
        println!("{}: seed {seed}: {broken}", planted.what);
        // It is the mistake that was found, and nothing else.
        if let Some(broken) = simulate(&WORLDS[number], seed, None).broken {
            wrong.push(format!("{}: without it, seed {seed} breaks as well: {broken}", planted.what));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_seed() {
    if let Some(seed) = told("SIMULATION_SEED") {
        let outcome = simulate(world_of(seed), seed, None);
        println!("world `{}`, {} requests\n{}", world_of(seed).name, outcome.requests, outcome.log);
        refuse(seed, &outcome);
    }
}

/// For `scripts/soak`: from one seed on, for so many minutes.
#[test]
fn a_long_run() {
    let Some(minutes) = told("SIMULATION_MINUTES") else { return };
    let first = told("SIMULATION_FIRST").unwrap_or(SEEDS);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                let mut tried = 0_u64;
                while Instant::now() < until {
                    let seed = first + 2 * tried + thread;
                    refuse(seed, &simulate(world_of(seed), seed, None));
                    tried += 1;
                }
                println!("{tried} seeds, every second one from {}", first + thread);
            });
        }
    });
}
