//! A repository of a world: its objects, what is promised of them, and what `repository.json` says.
//!
//! Every world has one *here*. Where snapshots are copied there is a second one, the *source*: another store, with a clock of its
//! own that is ahead of the one here, since two stores need not agree on the time.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

use super::rng::Rng;
use super::truth::Truth;
use super::wire::{Ask, land, lock};
use super::worlds::World;
use crate::format::repository::RepositoryInfo;
use crate::format::{ObjectId, keys};
use crate::store::memory::{Clock, Memory};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    Here,
    Source,
}

impl Site {
    /// Behind a request in the log.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Here => "",
            Self::Source => " (source)",
        }
    }
}

/// The clock of the source is ahead by so much: a time of the one store that is compared with one of the other is a mistake that shows.
const AHEAD: SignedDuration = SignedDuration::from_hours(40);

/// A repository.
pub(super) struct Place {
    pub(super) memory: Memory,
    pub(super) truth: Arc<Mutex<Truth>>,
    pub(super) info: Arc<RepositoryInfo>,
}

impl Place {
    /// Empty, but for its `repository.json`.
    pub(super) fn new(world: &World, rng: &Rng, site: Site) -> Self {
        let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 20_000);
        let (clock, id) = match site {
            Site::Here => (Clock::starting_at(start), rng.fork(2).id()),
            Site::Source => (Clock::starting_at(start + AHEAD), rng.fork(4).id()),
        };
        let mut info = RepositoryInfo::new(ObjectId::from_bytes(id), clock.now());
        info.grace_seconds = u64::try_from(world.grace_hours * 3600).unwrap_or(0);
        info.window_seconds = u64::try_from(world.window_hours * 3600).unwrap_or(0);
        let memory = Memory::new(clock).with_page_objects(world.page_objects);
        // Nobody writes it here: it is only asked for the time.
        let json = info.to_json().unwrap_or_else(|_| b"{}".to_vec());
        let _ = land(&memory, &Ask::Put(keys::REPOSITORY.into(), json.into()), SignedDuration::ZERO);
        Self {
            memory,
            truth: Arc::default(),
            info: Arc::new(info),
        }
    }

    /// Did this snapshot count at some time?
    pub(super) fn ever_listed(&self, id: ObjectId) -> bool {
        lock(&self.truth).ever_listed.contains(&id)
    }
}
