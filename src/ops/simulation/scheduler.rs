//! One seed: a world from its first backup to its last prune.
//!
//! When every process waits for the store, the scheduler chooses: a request lands, an answer arrives, the clock moves, a process stands still or
//! dies, a request that nobody waits for lands after all. After every request that took effect the truth is asked. In the end all processes are
//! dropped, and prunes alone must remove all garbage. The same seed gives the same world, request for request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::homeserver::Homeserver;
use super::pause::Pause;
use super::processes::{Ended, Prune, Role, run};
use super::rng::Rng;
use super::truth::{Broken, Truth};
use super::wire::{Ask, Line, Wire, land, lock};
use super::worlds::{CALM, Odds, World};
use crate::format::repository::RepositoryInfo;
use crate::format::{ObjectId, keys};
use crate::repo::{Ids, Repository};
use crate::store::memory::{Clock, Memory};

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
    world: &'a World,
    rng: Rng,
    memory: Memory,
    wire: Arc<Mutex<Wire>>,
    truth: Arc<Mutex<Truth>>,
    info: Arc<RepositoryInfo>,
    running: JoinSet<(usize, Ended)>,
    /// Processes that live, and for how many moves of the clock each still stands still.
    alive: BTreeMap<usize, usize>,
    pauses: Vec<Pause>,
    started: usize,
    current: usize,
    /// What was written, and when: for writes that land twice.
    written: Vec<(Ask, Timestamp)>,
    lag_hours: i64,
    /// Sweep up at the end, and look for garbage.
    pub(super) to_the_end: bool,
    pub(super) requests: usize,
    pub(super) log: String,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(world: &'a World, seed: u64) -> Self {
        let rng = Rng::new(seed);
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 20_000));
        let mut info = RepositoryInfo::new(ObjectId::from_bytes(rng.fork(2).id()), clock.now());
        info.grace_seconds = u64::try_from(world.grace_hours * 3600).unwrap_or(0);
        info.window_seconds = u64::try_from(world.window_hours * 3600).unwrap_or(0);
        let memory = Memory::new(clock).with_page_objects(world.page_objects);
        // Nobody writes it here: it is only asked for the time.
        let json = info.to_json().unwrap_or_else(|_| b"{}".to_vec());
        let _ = land(&memory, &Ask::Put(keys::REPOSITORY.into(), json.into()), SignedDuration::ZERO);
        Self {
            world,
            rng,
            memory,
            wire: Arc::default(),
            truth: Arc::default(),
            info: Arc::new(info),
            running: JoinSet::new(),
            alive: BTreeMap::new(),
            pauses: Vec::new(),
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
            self.start(Role::Backup(home.clone()), 0);
            self.play(&CALM).await?;
            self.jump_one_of(&[24, 30, 49]);
            if night > 0 && self.rng.chance(400) {
                let wild = self.rng.chance(500).then(|| self.rng.fork(3));
                self.prune(None, wild).await?;
                self.jump_one_of(&[2, 14, 23, 25]);
            }
        }
        self.note("--- all together");
        self.lag_hours = self.world.lag_hours;
        for role in (self.world.cast)(&mut self.rng, &home) {
            // Mostly a backup has begun when the others come.
            let first = matches!(role, Role::Backup(_) | Role::Restore) && self.rng.chance(700);
            let later = if first { 0 } else { self.rng.below(JUMPS_MAX) };
            self.draw_pauses(&role, first);
            self.start(role, later);
        }
        self.play(&self.world.odds).await?;
        if !self.to_the_end {
            return Ok(());
        }
        self.note("--- all are dropped");
        self.lag_hours = 0;
        self.sweep_up().await
    }

    /// Where the next process to start will stand still.
    fn draw_pauses(&mut self, role: &Role, mut one: bool) {
        for _ in 0..PAUSES_MAX {
            if !std::mem::take(&mut one) && !self.rng.chance(self.world.odds.pause) {
                return;
            }
            let (before, nth) = self.rng.pick(role.moments());
            let pause = Pause {
                process: self.started + 1,
                before,
                nth,
                jumps: 1 + self.rng.below(JUMPS_MAX),
            };
            self.note(&format!(
                "{} will stand still before {} ({}), {} times the clock",
                pause.process, pause.before, pause.nth, pause.jumps
            ));
            self.pauses.push(pause);
        }
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
    fn start(&mut self, role: Role, later: usize) {
        self.started += 1;
        let process = self.started;
        let name = match &role {
            Role::Backup(_) => "backup".to_owned(),
            Role::Prune(how) => format!("prune (keeps {:?}, wild: {})", how.keep, how.wild.is_some()),
            other => format!("{other:?}"),
        };
        self.note(&format!("{process} is a {name}"));
        let ids = Mutex::new(self.rng.fork(1000 + process as u64));
        let line = Arc::new(Line::new(Arc::clone(&self.wire), process));
        let repository = Repository::plain(line, (*self.info).clone(), Ids::new(move || lock(&ids).id()));
        let truth = Arc::clone(&self.truth);
        self.running
            .spawn_local(async move { (process, Box::pin(run(role, repository, truth)).await) });
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
                let (process, ended) = ended.map_err(|error| format!("a process panicked: {error}"))?;
                self.ended(process, &ended)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, process: usize, ended: &Ended) -> Result<(), Broken> {
        if self.alive.remove(&process).is_none() {
            return Ok(());
        }
        self.note(&format!("{process} ended: {ended:?}"));
        match ended {
            Ended::Committed(id) if !lock(&self.truth).ever_listed.contains(id) => {
                Err(format!("process {process} tells success of snapshot {id}, which never counted"))
            }
            Ended::Restored(key, Err(why)) => Err(format!("process {process} could not restore {key}, which is there: {why}")),
            _ => Ok(()),
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
        if !ready.iter().any(|(process, _)| *process == self.current) || self.rng.chance(150) {
            self.current = self.rng.pick(&ready).0;
        }
        ready.retain(|(process, _)| *process == self.current);
        let number = self.rng.pick(&ready).1;
        let mut request = self.take(number);
        if request.landed.is_none() && !std::mem::replace(&mut request.considered, true) {
            let ask = request.ask.to_string();
            if self.pauses_before(request.process, &ask) {
                lock(&self.wire).requests.push(request);
                return Ok(());
            }
        }
        if let Some(answer) = request.landed.take() {
            self.note(&format!("{} is told of {number}", request.process));
            request.answer(answer);
            return Ok(());
        }
        let what = format!("{} {number} {}", request.process, request.ask);
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
                    let _ = self.land(&request.ask)?;
                }
            }
            request.answer(Err(lost));
            return Ok(());
        }
        self.note(&what);
        let answer = self.land(&request.ask)?;
        if self.rng.chance(odds.apart) {
            request.landed = Some(answer);
            lock(&self.wire).requests.push(request);
        } else {
            request.answer(answer);
        }
        Ok(())
    }

    fn take(&mut self, number: u64) -> super::wire::Request {
        let mut wire = lock(&self.wire);
        let at = wire.requests.iter().position(|request| request.number == number).unwrap_or(0);
        wire.requests.remove(at)
    }

    /// It takes effect, and the truth is asked.
    fn land(&mut self, ask: &Ask) -> Result<Result<super::wire::Answer, crate::store::Error>, Broken> {
        self.requests += 1;
        // A landing whose stamp is old beside a Date that is not: that is what eats up the margin.
        let share = if ask.writes() {
            self.rng.pick(&[0, 2, 4, 4])
        } else {
            self.rng.pick(&[0, 0, 0, 2, 4])
        };
        let lag = SignedDuration::from_mins(15 * share * self.lag_hours);
        let answer = land(&self.memory, ask, lag);
        if ask.writes() {
            if self.world.repeat_hours.is_some() {
                self.written.push((ask.clone(), self.memory.clock().now()));
            }
            let looked = lock(&self.truth).landed(&self.memory, ask);
            looked?;
        }
        Ok(answer)
    }

    /// Requests that nobody waits for: their process has given up, or is dead.
    fn strays(&self) -> Vec<u64> {
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

    fn land_a_stray(&mut self) -> Result<(), Broken> {
        let strays = self.strays();
        if strays.is_empty() {
            return Ok(());
        }
        let number = self.rng.pick(&strays);
        let request = self.take(number);
        if self.rng.chance(100) {
            self.note(&format!("{} {number} {}: lost", request.process, request.ask));
            return Ok(());
        }
        self.note(&format!("{} {number} {}: lands, nobody waits for it", request.process, request.ask));
        self.land(&request.ask).map(drop)
    }

    fn repeat(&mut self) -> Result<(), Broken> {
        let Some(hours) = self.world.repeat_hours else { return Ok(()) };
        let (now, within) = (self.memory.clock().now(), SignedDuration::from_hours(hours));
        self.written.retain(|(_, landed)| now.duration_since(*landed) <= within);
        if self.written.is_empty() {
            return Ok(());
        }
        // What comes back from the dead is worth more than what is there anyway.
        let dead =
            |ask: &Ask| matches!(ask, Ask::Put(key, _) if keys::parse_pack(key).is_some_and(|id| !lock(&self.truth).packs.contains(&id)));
        let risen: Vec<usize> = (0..self.written.len()).filter(|at| dead(&self.written[*at].0)).collect();
        let any = self.rng.below(self.written.len());
        let at = if risen.is_empty() || self.rng.chance(300) {
            any
        } else {
            self.rng.pick(&risen)
        };
        let ask = self.written[at].0.clone();
        self.note(&format!("{ask}: takes effect again"));
        // Not noted as written once more: one request repeats within a bound, not for ever.
        let _ = land(&self.memory, &ask, SignedDuration::ZERO);
        lock(&self.truth).landed(&self.memory, &ask)
    }

    fn jump_one_of(&mut self, hours: &[i64]) {
        let hours = self.rng.pick(hours);
        self.jump(SignedDuration::from_hours(hours));
    }

    fn jump(&mut self, by: SignedDuration) {
        self.memory.clock().advance(by);
        for still in self.alive.values_mut() {
            *still = still.saturating_sub(1);
        }
        let now = self.memory.clock().now();
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
        self.start(Role::Prune(Prune { keep, wild }), 0);
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
            self.start(Role::Compact, 0);
            self.play(&CALM).await?;
            self.jump(apart);
            garbage = lock(&self.truth).garbage();
            if garbage.is_ok() {
                break;
            }
        }
        garbage.map_err(|what| format!("after {LAST_PRUNES} prunes there is garbage: {what}"))
    }

    fn note(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
    }
}
