//! The worlds that are simulated: who lives in each, what its store is like, and how much goes wrong.
//!
//! A world leans towards one kind of trouble, so that few seeds find a mistake there. A new one is a constant in [`WORLDS`]; a fault is a
//! number in [`Odds`], and the scheduler's few lines that act on it.

use super::homeserver::Homeserver;
use super::processes::{Prune, Role};
use super::rng::Rng;

/// A world.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) name: &'static str,
    /// Of `repository.json`.
    pub(super) grace_hours: i64,
    /// Of `repository.json`.
    pub(super) window_hours: i64,
    /// A stamp is older than its moment by up to so much (A1).
    pub(super) lag_hours: i64,
    /// A write may take effect once more within so much (A2).
    pub(super) repeat_hours: Option<i64>,
    /// Lines on a page of a listing.
    pub(super) page_objects: usize,
    /// The clock moves by one of these.
    pub(super) jumps_hours: &'static [i64],
    /// Backups before it begins.
    pub(super) nights: usize,
    /// Who lives in it.
    pub(super) cast: fn(&mut Rng, &Homeserver) -> Vec<Role>,
    pub(super) odds: Odds,
}

/// How often something happens, in a thousand steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds {
    /// A request is lost, or its answer, or it lands when nobody waits any more.
    pub(super) fault: u64,
    /// The answer comes later than the request lands.
    pub(super) apart: u64,
    /// A request that nobody waits for lands.
    pub(super) stray: u64,
    /// A process dies.
    pub(super) kill: u64,
    /// A process stands still until the clock has moved, once or several times.
    pub(super) freeze: u64,
    /// Of a thousand processes so many stand still before a request that matters to the protocol, and of those so many once more.
    pub(super) pause: u64,
    /// The clock moves by hours.
    pub(super) jump: u64,
    /// A write takes effect again.
    pub(super) repeat: u64,
}

/// Nothing goes wrong, one request after the other.
pub(super) const CALM: Odds = Odds {
    fault: 0,
    apart: 0,
    stray: 0,
    kill: 0,
    freeze: 0,
    pause: 0,
    jump: 0,
    repeat: 0,
};

const STALLS: Odds = Odds {
    fault: 6,
    apart: 150,
    stray: 40,
    kill: 2,
    freeze: 8,
    pause: 500,
    jump: 4,
    repeat: 0,
};

const BASE: World = World {
    name: "",
    grace_hours: 24,
    window_hours: 12,
    lag_hours: 0,
    repeat_hours: None,
    page_objects: 1000,
    jumps_hours: &[1, 4, 7, 13, 25, 25, 31],
    nights: 2,
    cast: |_, _| Vec::new(),
    odds: STALLS,
};

/// All of them.
pub(super) const WORLDS: [World; 8] = [
    World {
        name: "a backup and prunes",
        cast: |rng, home| vec![backup(rng, home), prune(rng), prune(rng), prune(rng)],
        ..BASE
    },
    World {
        name: "two backups and prunes",
        cast: |rng, home| vec![backup(rng, home), backup(rng, home), prune(rng), prune(rng)],
        ..BASE
    },
    World {
        name: "compaction",
        cast: |rng, home| {
            let backups = [backup(rng, home), backup(rng, home)];
            let sweeps = [prune(rng), Role::Compact, Role::Compact];
            backups.into_iter().chain(sweeps).collect()
        },
        nights: 3,
        ..BASE
    },
    World {
        name: "stamps that lag",
        lag_hours: 6,
        cast: |rng, home| vec![backup(rng, home), prune(rng), prune(rng), prune(rng)],
        ..BASE
    },
    World {
        name: "small pages, late writes, orphans",
        page_objects: 2,
        cast: |rng, home| vec![backup(rng, home), backup(rng, home), prune(rng), prune(rng), Role::Compact],
        odds: Odds {
            fault: 25,
            stray: 60,
            kill: 6,
            ..STALLS
        },
        ..BASE
    },
    World {
        name: "a restore beside prunes",
        cast: |rng, home| {
            vec![
                backup(rng, home),
                Role::Restore,
                Role::Restore,
                prune(rng),
                prune(rng),
                Role::Compact,
            ]
        },
        ..BASE
    },
    World {
        name: "writes that land twice",
        repeat_hours: Some(6),
        cast: |rng, home| vec![backup(rng, home), prune(rng), prune(rng), prune(rng)],
        odds: Odds { repeat: 40, ..STALLS },
        ..BASE
    },
    World {
        name: "packs with the same blobs",
        nights: 4,
        cast: |rng, home| {
            let prunes = (0..4).map(|_| match prune(rng) {
                Role::Prune(how) => Role::Prune(Prune { keep: Some(1), ..how }),
                other => other,
            });
            let prunes: Vec<Role> = prunes.collect();
            [backup(rng, home)].into_iter().chain(prunes).collect()
        },
        ..BASE
    },
];

fn backup(rng: &mut Rng, home: &Homeserver) -> Role {
    Role::Backup(home.clone().changed(rng))
}

fn prune(rng: &mut Rng) -> Role {
    let keep = rng.pick(&[None, Some(0), Some(0), Some(0), Some(1), Some(1)]);
    let wild = rng.chance(600).then(|| rng.fork(1));
    Role::Prune(Prune { keep, wild })
}
