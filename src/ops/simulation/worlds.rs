//! The worlds that are simulated: who lives in each, what its store is like, and how much goes wrong.
//!
//! A world leans towards one kind of trouble, so that few seeds find a mistake there; where that takes several processes that stand
//! still at the right moments, some of those are told ([`Actor`]), and all else is chance. A new one is a constant in [`WORLDS`]; a fault
//! is a number in [`Odds`], and the scheduler's few lines that act on it.

use super::homeserver::Homeserver;
use super::processes::{Moment, Prune, Role, Which};
use super::rng::Rng;
use super::site::Site;

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
    /// Only those that begin so.
    pub(super) repeated: &'static str,
    /// Lines on a page of a listing.
    pub(super) page_objects: usize,
    /// The clock moves by one of these.
    pub(super) jumps_hours: &'static [i64],
    /// Backups before it begins.
    pub(super) nights: usize,
    /// And before the first so many of them, one of the source.
    pub(super) source_nights: usize,
    /// Then the whole repository is mirrored, object by object: all Last-Modified are new (A3).
    pub(super) mirrored: bool,
    /// Who lives in it.
    pub(super) cast: fn(&mut Rng, &Homeserver) -> Vec<Actor>,
    pub(super) odds: Odds,
}

/// Somebody in a world. What is not told is left to chance.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) role: Role,
    pub(super) site: Site,
    /// It begins when the clock has moved so often.
    pub(super) later: Option<usize>,
    /// It stands still before this request until the clock has moved so often.
    pub(super) stands: Option<(Moment, usize)>,
}

impl From<Role> for Actor {
    fn from(role: Role) -> Self {
        Self {
            role,
            site: Site::Here,
            later: None,
            stands: None,
        }
    }
}

impl Actor {
    fn at_source(self) -> Self {
        let site = Site::Source;
        Self { site, ..self }
    }

    fn later(self, jumps: usize) -> Self {
        let later = Some(jumps);
        Self { later, ..self }
    }

    fn stands(self, before: &'static str, nth: usize, jumps: usize) -> Self {
        let stands = Some(((before, nth), jumps));
        Self { stands, ..self }
    }
}

/// How often something happens, in a thousand steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds {
    /// A request is lost, or its answer, or it lands when nobody waits any more.
    pub(super) fault: u64,
    /// The answer comes later than the request lands.
    pub(super) apart: u64,
    /// Another process goes on than the one of the step before.
    pub(super) turn: u64,
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
    turn: 150,
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
    turn: 150,
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
    repeated: "",
    page_objects: 1000,
    jumps_hours: &[1, 4, 7, 13, 25, 25, 31],
    nights: 2,
    source_nights: 0,
    mirrored: false,
    cast: |_, _| Vec::new(),
    odds: STALLS,
};

/// All of them.
pub(super) const WORLDS: [World; 15] = [
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
            let sweeps = [prune(rng), compact(rng), compact(rng)];
            backups.into_iter().chain(sweeps).collect()
        },
        nights: 3,
        ..BASE
    },
    World {
        name: "stamps that lag",
        lag_hours: 6,
        cast: |rng, home| {
            if rng.chance(500) {
                return vec![backup(rng, home), prune(rng), prune(rng), prune(rng)];
            }
            let role = Role::Backup(home.clone().changed(rng));
            slow_commit(role, rng)
        },
        ..BASE
    },
    World {
        name: "small pages, late writes, orphans",
        page_objects: 2,
        cast: |rng, home| vec![backup(rng, home), backup(rng, home), prune(rng), prune(rng), compact(rng)],
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
                Role::Restore.into(),
                Role::Restore.into(),
                prune(rng),
                prune(rng),
                compact(rng),
            ]
        },
        ..BASE
    },
    World {
        name: "writes that land twice",
        repeat_hours: Some(6),
        jumps_hours: &[3, 5, 8, 25, 31],
        cast: |rng, home| {
            let backup = backup(rng, home);
            // It lands late in its window.
            let backup = if rng.chance(500) {
                backup.later(0).stands("PUT snapshots/", 1, 1)
            } else {
                backup
            };
            vec![backup, prune(rng), prune(rng), prune(rng)]
        },
        odds: Odds { repeat: 40, ..STALLS },
        ..BASE
    },
    World {
        name: "packs with the same blobs",
        nights: 4,
        cast: |rng, home| {
            let prunes = (0..4).map(|_| prune_that(rng, Some(1)));
            let prunes: Vec<Actor> = prunes.collect();
            [backup(rng, home)].into_iter().chain(prunes).collect()
        },
        ..BASE
    },
    // One prune knows of no snapshot that needs a marked pack, and is about to delete it. Another one knew of such a snapshot.
    World {
        name: "prunes that disagree",
        nights: 3,
        cast: |rng, home| {
            vec![
                prune_that(rng, None).later(0).stands("DELETE condemned/", 1, 2),
                prune_that(rng, Some(0)).later(1).stands("DELETE packs/", 1, 2 + rng.below(2)),
                Actor::from(Role::Backup(home.clone())).later(2).stands("LIST index/", 1, 1),
                prune(rng),
            ]
        },
        ..BASE
    },
    // Two prunes delete the same pack, and one of them takes long. Meanwhile its PUT comes again.
    World {
        name: "packs that come back",
        repeat_hours: Some(6),
        repeated: "PUT packs/",
        nights: 3,
        cast: |rng, home| {
            vec![
                prune_that(rng, Some(0)).later(0).stands("DELETE packs/", 1, 2 + rng.below(2)),
                prune_that(rng, Some(0)).later(0),
                Actor::from(Role::Backup(home.clone()))
                    .later(1)
                    .stands("LIST index/", 1, rng.below(2)),
                prune(rng),
            ]
        },
        odds: Odds { repeat: 40, ..STALLS },
        ..BASE
    },
    // Two prunes have decided to delete, and do so while a backup that relies on these packs checks them.
    World {
        name: "a check beside a deletion",
        nights: 1,
        jumps_hours: &[25, 31],
        cast: |rng, home| {
            vec![
                Actor::from(Role::Backup(home.clone()))
                    .later(0)
                    .stands("HEAD repository.json", 2, 3),
                wild(rng, None).later(1),
                prune_that(rng, Some(0)).later(2).stands("DELETE packs/", 1, 1),
                prune_that(rng, Some(0)).later(2).stands("DELETE packs/", 1, 1),
            ]
        },
        odds: Odds {
            fault: 0,
            kill: 0,
            freeze: 0,
            jump: 0,
            turn: 500,
            ..STALLS
        },
        ..BASE
    },
    World {
        name: "a copy from elsewhere",
        nights: 3,
        source_nights: 2,
        cast: |rng, home| {
            if rng.chance(300) {
                return slow_commit(Role::Copy, rng);
            }
            let backup = rng.chance(300).then(|| backup(rng, home));
            let others = vec![
                Role::Copy.into(),
                prune(rng),
                prune(rng),
                prune(rng),
                prune(rng).at_source(),
                Role::Copy.into(),
            ];
            others.into_iter().chain(backup).collect()
        },
        ..BASE
    },
    World {
        name: "a mirror that is adopted",
        mirrored: true,
        cast: |rng, home| {
            vec![
                Role::Adopt.into(),
                prune(rng),
                prune(rng),
                prune(rng),
                backup(rng, home),
                Role::Adopt.into(),
            ]
        },
        ..BASE
    },
    World {
        name: "sealed anew",
        page_objects: 3,
        cast: |rng, home| {
            if rng.chance(300) {
                let role = Role::Rekey(rng.chance(500));
                return slow_commit(role, rng);
            }
            let backup = rng.chance(500).then(|| backup(rng, home));
            let others = vec![
                Role::Rekey(rng.chance(500)).into(),
                prune(rng),
                prune(rng),
                compact(rng),
                Role::Rekey(true).into(),
            ];
            others.into_iter().chain(backup).collect()
        },
        ..BASE
    },
    // What a prune is about to forget is the last that needs a pack whose grace period is over; and it dies half way.
    World {
        name: "forgotten half way",
        nights: 3,
        cast: |rng, home| {
            vec![
                wild(rng, None).later(0),
                prune_that(rng, Some(0)).later(2).stands("DELETE snapshots/", 1 + rng.below(2), 1),
                prune_that(rng, Some(0)).later(2),
                Role::Restore.into(),
                backup(rng, home),
                prune(rng),
            ]
        },
        odds: Odds { kill: 8, ..STALLS },
        ..BASE
    },
];

fn compact(rng: &mut Rng) -> Actor {
    Role::Compact(rng.pick(&[Which::Small, Which::All])).into()
}

fn backup(rng: &mut Rng, home: &Homeserver) -> Actor {
    Role::Backup(home.clone().changed(rng)).into()
}

/// A commit takes long; meanwhile one prune marks and the next one deletes.
fn slow_commit(role: Role, rng: &mut Rng) -> Vec<Actor> {
    let jumps = 1 + rng.below(2);
    vec![
        Actor::from(role).later(0).stands("PUT snapshots/", 1, jumps + 1),
        wild(rng, Some(0)).later(0),
        prune_that(rng, Some(0)).later(jumps),
        prune(rng),
    ]
}

fn prune(rng: &mut Rng) -> Actor {
    let keep = rng.pick(&[None, Some(0), Some(0), Some(0), Some(1), Some(1)]);
    prune_that(rng, keep)
}

fn prune_that(rng: &mut Rng, keep: Option<usize>) -> Actor {
    if rng.chance(600) {
        return wild(rng, keep);
    }
    Role::Prune(Prune { keep, wild: None }).into()
}

fn wild(rng: &Rng, keep: Option<usize>) -> Actor {
    let wild = Some(rng.fork(1));
    Role::Prune(Prune { keep, wild }).into()
}
