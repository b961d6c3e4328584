//! What the network does when nobody looks.
//!
//! Requests land although their process has given up or is dead, and writes land twice.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::scheduler::Scheduler;
use super::site::Site;
use super::truth::Broken;
use super::wire::{Ask, land, lock};
use crate::format::keys;

impl Scheduler<'_> {
    /// Requests that nobody waits for: their process has given up, or is dead.
    pub(super) fn strays(&self) -> Vec<u64> {
        let wire = lock(&self.wire);
        let strays = wire
            .requests
            .iter()
            .filter(|request| !request.is_waited_for() && request.landed.is_none());
        strays
            .filter(|request| request.ask.writes())
            .map(|request| request.number)
            .collect()
    }

    pub(super) fn land_a_stray(&mut self) -> Result<(), Broken> {
        let strays = self.strays();
        if strays.is_empty() {
            return Ok(());
        }
        let number = self.rng.pick(&strays);
        let request = self.take(number);
        if self.rng.chance(100) {
            self.note(&format!("{request}: lost"));
            return Ok(());
        }
        self.note(&format!("{request}: lands, nobody waits for it"));
        let truth = Arc::clone(&self.place(request.site).truth);
        self.again.asks(request.process, &request.ask, &lock(&truth))?;
        self.land(request.site, &request.ask).map(drop)
    }

    /// A write takes effect once more (A2).
    pub(super) fn repeat(&mut self) -> Result<(), Broken> {
        let Some(hours) = self.world.repeat_hours else { return Ok(()) };
        let within = SignedDuration::from_hours(hours);
        let mut written = std::mem::take(&mut self.written);
        let now = |site| self.place(site).memory.clock().now();
        written.retain(|(site, _, landed)| now(*site).duration_since(*landed) <= within);
        self.written = written;
        if self.written.is_empty() {
            return Ok(());
        }
        // What comes back from the dead is worth more than what is there anyway.
        let dead = |(site, ask, _): &(Site, Ask, Timestamp)| {
            let there = |id| lock(&self.place(*site).truth).packs.contains(&id);
            matches!(ask, Ask::Put(key, _) if keys::parse_pack(key).is_some_and(|id| !there(id)))
        };
        let risen: Vec<usize> = (0..self.written.len()).filter(|at| dead(&self.written[*at])).collect();
        let any = self.rng.below(self.written.len());
        let at = if risen.is_empty() || self.rng.chance(300) {
            any
        } else {
            self.rng.pick(&risen)
        };
        let (site, ask, _) = self.written[at].clone();
        self.note(&format!("{ask}{}: takes effect again", site.suffix()));
        // Not noted as written once more: one request repeats within a bound, not for ever.
        let place = self.place(site);
        let _ = land(&place.memory, &ask, SignedDuration::ZERO);
        lock(&place.truth).landed(&place.memory, &ask)
    }
}
