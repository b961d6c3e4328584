//! One seed: a world from its first backup to its last prune.
//!
//! When every process waits for the store, the scheduler chooses: a request lands, an answer arrives, the clock moves, a process stands still or
//! dies, a request that nobody waits for lands after all. After every request that took effect the truth is asked. In the end all processes are
//! dropped, and prunes alone must remove all garbage. The same seed gives the same world, request for request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::again::Again;
use super::homeserver::Homeserver;
use super::pause::Pause;
use super::processes::{Ended, Moment, Prune, Role, Which, run};
use super::rng::Rng;
use super::site::{Place, Site};
use super::truth::Broken;
use super::wire::{Answer, Ask, Line, Request, Wire, land, lock};
use super::worlds::{Actor, CALM, Odds, World};
use crate::repo::{Ids, Repository};
use crate::store;

/// Steps of the middle part, at most: then everybody is dropped.
const STEPS_MAX: usize = 4_000;
/// So often the runtime is let go on without anything new before it counts as waiting: a process may hand work to tasks of its own.
const QUIET: usize = 10;
/// Prunes in the end, one grace apart, at most.
const LAST_PRUNES: usize = 5;
/// So long may a process stand still: until the clock has moved so many times.
const JUMPS_MAX: usize = 4;
/// A process stands still so often at moments that were chosen for it.
const PAUSES_MAX: usize = 2;

/// A world that runs.
pub(super) struct Scheduler<'a> {
    pub(super) world: &'a World,
    pub(super) rng: Rng,
    here: Place,
    source: Place,
    pub(super) wire: Arc<Mutex<Wire>>,
    running: JoinSet<(usize, Site, Ended)>,
    /// Processes that live, and for how many moves of the clock each still stands still.
    alive: BTreeMap<usize, usize>,
    pauses: Vec<Pause>,
    pub(super) again: Again,
    started: usize,
    current: usize,
    /// What was written where, and when: for writes that land twice.
    pub(super) written: Vec<(Site, Ask, Timestamp)>,
    lag_hours: i64,
    /// Sweep up at the end, and look for garbage.
    pub(super) to_the_end: bool,
    pub(super) requests: usize,
    pub(super) log: String,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(world: &'a World, seed: u64) -> Self {
        let rng = Rng::new(seed);
        let place = |site| Place::new(world, &rng, site);
        let (here, source) = (place(Site::Here), place(Site::Source));
        Self {
            world,
            rng,
            here,
            source,
            wire: Arc::default(),
            running: JoinSet::new(),
            alive: BTreeMap::new(),
            pauses: Vec::new(),
            again: Again::default(),
            started: 0,
            current: 0,
            written: Vec::new(),
            lag_hours: 0,
            to_the_end: true,
            requests: 0,
            log: String::new(),
        }
    }

    /// The whole story.
    pub(super) async fn run(&mut self) -> Result<(), Broken> {
        let mut home = Homeserver::new();
        for night in 0..self.world.nights {
            home = home.changed(&mut self.rng);
            if night < self.world.source_nights {
                self.start(Role::Backup(home.clone()), Site::Source, 0);
                self.play(&CALM).await?;
                home = home.changed(&mut self.rng);
            }
            self.start(Role::Backup(home.clone()), Site::Here, 0);
            self.play(&CALM).await?;
            self.jump_one_of(&[24, 30, 49]);
            if night > 0 && self.rng.chance(400) {
                let wild = self.rng.chance(500).then(|| self.rng.fork(3));
                self.prune(None, wild).await?;
                self.jump_one_of(&[2, 14, 23, 25]);
            }
        }
        if self.world.mirrored {
            self.note("--- mirrored");
            lock(&self.here.truth).mirrored();
            for (key, body) in self.here.memory.objects() {
                self.land(Site::Here, &Ask::Put(key, body))?.map_err(|error| error.to_string())?;
            }
        }
        self.note("--- all together");
        self.lag_hours = self.world.lag_hours;
        for actor in (self.world.cast)(&mut self.rng, &home) {
            self.enter(actor);
        }
        self.play(&self.world.odds).await?;
        if !self.to_the_end {
            return Ok(());
        }
        self.note("--- all are dropped");
        self.lag_hours = 0;
        self.sweep_up().await
    }

    /// Somebody comes: at once or later, and stands still here and there.
    fn enter(&mut self, actor: Actor) {
        let Actor { role, site, later, stands } = actor;
        // Mostly a backup has begun when the others come.
        let first = later.is_none() && matches!(role, Role::Backup(_) | Role::Restore | Role::Copy | Role::Adopt) && self.rng.chance(700);
        let by_chance = if first { 0 } else { self.rng.below(JUMPS_MAX) };
        match stands {
            Some((moment, jumps)) => self.pause(moment, jumps),
            None => self.draw_pauses(&role, first),
        }
        self.start(role, site, later.unwrap_or(by_chance));
    }

    /// Where the next process to start will stand still.
    fn draw_pauses(&mut self, role: &Role, mut one: bool) {
        for _ in 0..PAUSES_MAX {
            if !std::mem::take(&mut one) && !self.rng.chance(self.world.odds.pause) {
                return;
            }
            let moment = self.rng.pick(role.moments());
            let jumps = 1 + self.rng.below(JUMPS_MAX);
            self.pause(moment, jumps);
        }
    }

    fn pause(&mut self, (before, nth): Moment, jumps: usize) {
        let process = self.started + 1;
        self.note(&format!(
            "{process} will stand still before {before} ({nth}), {jumps} times the clock"
        ));
        self.pauses.push(Pause {
            process,
            before,
            nth,
            jumps,
        });
    }

    /// Is this the moment to stand still?
    fn pauses_before(&mut self, process: usize, ask: &str) -> bool {
        for pause in self
            .pauses
            .iter_mut()
            .filter(|pause| pause.process == process && pause.is_before(ask))
        {
            pause.nth = pause.nth.wrapping_sub(1);
            if pause.nth == 0 {
                self.alive.insert(process, pause.jumps);
                self.note(&format!("{process} stands still before {ask}"));
                return true;
            }
        }
        false
    }

    /// A new process, which does nothing until the clock has moved `later` times.
    fn start(&mut self, role: Role, site: Site, later: usize) {
        self.started += 1;
        let process = self.started;
        let name = match &role {
            Role::Backup(_) => "backup".to_owned(),
            Role::Prune(how) => format!("prune (keeps {:?}, wild: {})", how.keep, how.wild.is_some()),
            other => format!("{other:?}"),
        };
        self.note(&format!("{process} is a {name}{}", site.suffix()));
        self.again.begins(process, &role);
        let ids = Mutex::new(self.rng.fork(1000 + process as u64));
        let ids = Ids::new(move || lock(&ids).id());
        let open = |site| {
            let line = Arc::new(Line::new(Arc::clone(&self.wire), process, site));
            Repository::plain(line, (*self.place(site).info).clone(), ids.clone())
        };
        let (repository, source) = (open(site), open(Site::Source));
        let truth = Arc::clone(&self.place(site).truth);
        self.running
            .spawn_local(async move { (process, site, Box::pin(run(role, repository, source, truth)).await) });
        self.alive.insert(process, later);
    }

    /// Until every process has ended, or is dropped.
    async fn play(&mut self, odds: &Odds) -> Result<(), Broken> {
        for _ in 0..STEPS_MAX {
            self.settle().await?;
            if self.alive.is_empty() {
                return Ok(());
            }
            self.stir(odds)?;
            self.step(odds)?;
        }
        for process in self.alive.clone().into_keys() {
            self.kill(process);
        }
        Ok(())
    }

    /// Let the processes work until all of them wait, and hear those that have ended.
    async fn settle(&mut self) -> Result<(), Broken> {
        let mut quiet = 0;
        while quiet < QUIET {
            let sent = lock(&self.wire).requests.len();
            tokio::task::yield_now().await;
            quiet += 1;
            if lock(&self.wire).requests.len() != sent {
                quiet = 0;
            }
            while let Some(ended) = self.running.try_join_next() {
                quiet = 0;
                let (process, site, ended) = ended.map_err(|error| format!("a process panicked: {error}"))?;
                self.ended(process, site, &ended)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, process: usize, site: Site, ended: &Ended) -> Result<(), Broken> {
        if self.alive.remove(&process).is_none() {
            return Ok(());
        }
        self.note(&format!("{process} ended: {ended:?}"));
        let (committed, lost) = match ended {
            Ended::Committed(id) => (std::slice::from_ref(id), [].as_slice()),
            Ended::Copied { committed, lost } => (committed.as_slice(), lost.as_slice()),
            Ended::Restored(key, Err(why)) => {
                return Err(format!("process {process} could not restore {key}, which is there: {why}"));
            }
            _ => return Ok(()),
        };
        for id in committed {
            if !self.place(site).ever_listed(*id) {
                return Err(format!("process {process} tells success of snapshot {id}, which never counted"));
            }
            lock(&self.place(site).truth).told(*id);
        }
        match lost.iter().find(|id| lock(&self.source.truth).lists(**id)) {
            Some(id) => Err(format!(
                "process {process} tells that snapshot {id} of the source is damaged, which is whole"
            )),
            None => Ok(()),
        }
    }

    /// What happens beside the requests that are waited for.
    fn stir(&mut self, odds: &Odds) -> Result<(), Broken> {
        if self.rng.chance(odds.jump) {
            self.jump_one_of(self.world.jumps_hours);
        }
        if self.rng.chance(odds.freeze) {
            let jumps = 1 + self.rng.below(JUMPS_MAX);
            if let Some(still) = self.alive.get_mut(&self.current) {
                *still = jumps;
                self.note(&format!("{} stands still", self.current));
            }
        }
        if self.rng.chance(odds.kill) && self.alive.len() > 1 {
            let alive: Vec<usize> = self.alive.keys().copied().collect();
            let process = self.rng.pick(&alive);
            self.kill(process);
        }
        if self.rng.chance(odds.stray) {
            self.land_a_stray()?;
        }
        if self.rng.chance(odds.repeat) {
            self.repeat()?;
        }
        Ok(())
    }

    /// One request of one process goes on.
    fn step(&mut self, odds: &Odds) -> Result<(), Broken> {
        let mut ready: Vec<(usize, u64)> = Vec::new();
        for request in &lock(&self.wire).requests {
            if request.is_waited_for() && self.alive.get(&request.process) == Some(&0) {
                ready.push((request.process, request.number));
            }
        }
        if ready.is_empty() {
            if self.alive.values().all(|still| *still == 0) {
                return Err(format!("{:?} wait, and for nothing that was asked", self.alive.keys()));
            }
            self.jump_one_of(self.world.jumps_hours);
            return Ok(());
        }
        // Mostly the same process goes on: what matters is where one is interrupted.
        if !ready.iter().any(|(process, _)| *process == self.current) || self.rng.chance(odds.turn) {
            self.current = self.rng.pick(&ready).0;
        }
        ready.retain(|(process, _)| *process == self.current);
        let number = self.rng.pick(&ready).1;
        let mut request = self.take(number);
        let what = request.to_string();
        if request.landed.is_none() && !std::mem::replace(&mut request.considered, true) {
            let ask = request.ask.to_string();
            if self.pauses_before(request.process, &ask) {
                lock(&self.wire).requests.push(request);
                return Ok(());
            }
        }
        if request.landed.is_none() {
            let truth = Arc::clone(&self.place(request.site).truth);
            self.again.asks(request.process, &request.ask, &lock(&truth))?;
        }
        if let Some(answer) = request.landed.take() {
            self.note(&format!("{} is told of {number}", request.process));
            request.answer(answer);
            return Ok(());
        }
        if self.rng.chance(odds.fault) {
            let lost = request.ask.lost();
            match self.rng.below(3) {
                0 => self.note(&format!("{what}: lost")),
                1 if request.ask.writes() => {
                    self.note(&format!("{what}: given up, and still on its way"));
                    request.answer(Err(lost));
                    lock(&self.wire).requests.push(request);
                    return Ok(());
                }
                _ => {
                    self.note(&format!("{what}: landed, its answer is lost"));
                    let _ = self.land(request.site, &request.ask)?;
                }
            }
            request.answer(Err(lost));
            return Ok(());
        }
        self.note(&what);
        let answer = self.land(request.site, &request.ask)?;
        if self.rng.chance(odds.apart) {
            request.landed = Some(answer);
            lock(&self.wire).requests.push(request);
        } else {
            request.answer(answer);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, number: u64) -> Request {
        let mut wire = lock(&self.wire);
        let at = wire.requests.iter().position(|request| request.number == number).unwrap_or(0);
        wire.requests.remove(at)
    }

    pub(super) fn place(&self, site: Site) -> &Place {
        match site {
            Site::Here => &self.here,
            Site::Source => &self.source,
        }
    }

    /// It takes effect, and the truth is asked.
    pub(super) fn land(&mut self, site: Site, ask: &Ask) -> Result<Result<Answer, store::Error>, Broken> {
        self.requests += 1;
        // A landing whose stamp is old beside a Date that is not: that is what eats up the margin.
        let share = if ask.writes() {
            self.rng.pick(&[0, 2, 4, 4])
        } else {
            self.rng.pick(&[0, 0, 0, 2, 4])
        };
        let lag = SignedDuration::from_mins(15 * share * self.lag_hours);
        let place = self.place(site);
        let answer = land(&place.memory, ask, lag);
        if ask.writes() {
            lock(&place.truth).landed(&place.memory, ask)?;
            if self.world.repeat_hours.is_some() && ask.to_string().starts_with(self.world.repeated) {
                let now = place.memory.clock().now();
                self.written.push((site, ask.clone(), now));
            }
        }
        Ok(answer)
    }

    fn jump_one_of(&mut self, hours: &[i64]) {
        let hours = self.rng.pick(hours);
        self.jump(SignedDuration::from_hours(hours));
    }

    fn jump(&mut self, by: SignedDuration) {
        for place in [&self.here, &self.source] {
            place.memory.clock().advance(by);
        }
        for still in self.alive.values_mut() {
            *still = still.saturating_sub(1);
        }
        let now = self.here.memory.clock().now();
        self.note(&format!("the clock moves by {} h: {now}", by.as_hours()));
    }

    /// What it has sent may still land; it sends nothing more, and hears nothing.
    fn kill(&mut self, process: usize) {
        self.note(&format!("{process} dies"));
        self.alive.remove(&process);
        let mut wire = lock(&self.wire);
        wire.dead.push(process);
        wire.requests
            .retain(|request| request.process != process || request.landed.is_none() && request.ask.writes());
        for request in wire.requests.iter_mut().filter(|request| request.process == process) {
            request.nobody_waits();
        }
    }

    async fn prune(&mut self, keep: Option<usize>, wild: Option<Rng>) -> Result<(), Broken> {
        self.start(Role::Prune(Prune { keep, wild }), Site::Here, 0);
        self.play(&CALM).await
    }

    /// What is still on its way lands or is lost; then prunes, one grace apart, must leave no garbage.
    async fn sweep_up(&mut self) -> Result<(), Broken> {
        while !self.strays().is_empty() {
            self.land_a_stray()?;
        }
        lock(&self.wire).requests.clear();
        let apart = SignedDuration::from_hours(self.world.grace_hours.max(24) + 1);
        self.jump(apart);
        let keep = self.rng.below(2);
        let mut garbage = Ok(());
        for _ in 0..LAST_PRUNES {
            self.prune(Some(keep), None).await?;
            self.start(Role::Compact(Which::Small), Site::Here, 0);
            self.play(&CALM).await?;
            self.jump(apart);
            garbage = lock(&self.here.truth).garbage();
            if garbage.is_ok() {
                break;
            }
        }
        garbage.map_err(|what| format!("after {LAST_PRUNES} prunes there is garbage: {what}"))
    }

    pub(super) fn note(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
    }
}
