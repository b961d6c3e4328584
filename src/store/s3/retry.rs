//! When a request is made again, how long is waited before, and how long a single try may take.
//!
//! The SDK's own retries are off: it would repeat a PUT whose answer was lost (against rule G1), and its retry quota is shared
//! by everything in flight, so that a short outage ends all retrying. Here each call has its own patience: seconds
//! until the store has answered for the first time, since a typing error in the settings should be told at once, and
//! minutes after that, since a night's work should survive a restart of the store.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::super::counters::{Counters, Kind};
use super::super::error::Cause;
use super::S3;
use super::classify::{Failure, Reason};

/// The pause before the second try, before jitter; it doubles from try to try.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Tries to connect before the store has ever answered: it may be starting just now.
const CONNECTS_FIRST: u32 = 3;
/// The slowest pace at which a body still arrives in time. Bodies share the link: four on their way, as is usual, need 1 Mbit/s.
const BYTES_PER_SECOND_MIN: u64 = 32 << 10;
/// The same for the body of an answer. One that stands still is given up long before that (`client`).
const ANSWER_BYTES_PER_SECOND_MIN: u64 = 8 << 10;
/// Tries of a body that arrives damaged: once may be chance.
const GARBLED_TRIES: u32 = 3;
/// What a try may take at least, once the store has answered; and before, when silence probably means a wrong address.
const TRY_TIME: Duration = Duration::from_mins(1);
const TRY_TIME_FIRST: Duration = Duration::from_secs(10);

/// How long a call goes on trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the store has answered for the first time. Default: 5 s.
    pub first: Duration,
    /// For every call after that. Default: 5 minutes.
    pub settled: Duration,
    /// The longest pause between two tries. Default: 20 s.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            settled: Duration::from_mins(5),
            pause_max: Duration::from_secs(20),
        }
    }
}

/// What is asked, as far as retrying depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    /// Body bytes that go out with each try.
    pub(super) sent_bytes: u64,
    /// What the store may need to think about it, beyond the time for the body.
    pub(super) thinking: Duration,
    /// It may be done twice.
    pub(super) is_repeatable: bool,
}

impl Ask {
    pub(super) fn new(kind: Kind) -> Self {
        let is_repeatable = !matches!(kind, Kind::Put | Kind::Copy);
        Self {
            kind,
            sent_bytes: 0,
            thinking: Duration::ZERO,
            is_repeatable,
        }
    }

    pub(super) fn sending(mut self, bytes: usize) -> Self {
        self.sent_bytes = bytes as u64;
        self
    }

    pub(super) fn thinking(mut self, time: Duration) -> Self {
        self.thinking = time;
        self
    }

    /// Until the answer begins.
    fn try_time(&self, has_answered: bool) -> Duration {
        let needed = travel_time(self.sent_bytes, BYTES_PER_SECOND_MIN) + self.thinking;
        if has_answered {
            needed.max(TRY_TIME)
        } else {
            needed + TRY_TIME_FIRST
        }
    }
}

fn travel_time(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_secs(bytes / bytes_per_second)
}

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Tries {
    began: Instant,
    try_began: Instant,
    /// Time of slow tries that does not use up the patience: on a slow link each is one all the same.
    excused: Duration,
    failed: u32,
}

impl Tries {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            try_began: now,
            excused: Duration::ZERO,
            failed: 0,
        }
    }

    /// How long to wait before the next try, or `None` when there should be none.
    pub(super) fn pause(&mut self, patience: &Patience, has_answered: bool, reason: Reason) -> Option<Duration> {
        self.excuse(self.try_began.elapsed());
        let pause = self.pause_after(self.began.elapsed(), patience, has_answered, reason, jitter())?;
        self.try_began = Instant::now() + pause;
        Some(pause)
    }

    fn excuse(&mut self, tried: Duration) {
        self.excused += tried.saturating_sub(TRY_TIME);
    }

    /// The same as a rule: the time that has passed and the jitter (between 0 and 1) come from outside.
    fn pause_after(&mut self, passed: Duration, patience: &Patience, has_answered: bool, reason: Reason, jitter: f64) -> Option<Duration> {
        self.failed += 1;
        let in_time = match reason {
            Reason::Transient => true,
            Reason::Unreachable => has_answered || self.failed < CONNECTS_FIRST,
            // The name service, or a certificate that is being replaced, may fail for a moment too; but not at the beginning.
            Reason::WrongAddress => has_answered,
            Reason::Garbled => self.failed < GARBLED_TRIES,
            // The SDK has learnt the difference from the answer and signs the next try with it.
            Reason::Skewed => return (self.failed == 1).then_some(Duration::ZERO),
            _ => false,
        };
        let doubled = PAUSE_FIRST.saturating_mul(1 << (self.failed - 1).min(16)).min(patience.pause_max);
        let pause = doubled.mul_f64(jitter.mul_add(0.5, 0.5));
        let limit = if has_answered { patience.settled } else { patience.first };
        (in_time && passed.saturating_sub(self.excused) + pause < limit).then_some(pause)
    }
}

/// A number between 0 and 1 that spreads the tries of many callers; nothing else depends on it.
fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

/// Counts a body as sent when it goes out of scope, however the try ended, unless it never left.
struct OnTheWire<'a> {
    counters: &'a Counters,
    bytes: u64,
}

impl Drop for OnTheWire<'_> {
    fn drop(&mut self) {
        self.counters.sent(self.bytes);
    }
}

impl S3 {
    /// Try until it works, or until there is no point in it, or no time.
    pub(super) async fn tries<T, F>(&self, ask: Ask, mut try_once: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = Tries::new();
        loop {
            let failure = match self.one_try(ask, Box::pin(try_once())).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let may_repeat = ask.is_repeatable || failure.had_no_effect;
            let pause = tries.pause(&self.patience, self.has_answered(), failure.reason);
            let Some(pause) = pause.filter(|_| may_repeat) else {
                return Err(failure);
            };
            tracing::debug!(kind = ask.kind.verb(), cause = %failure.cause, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// A single try, counted, and ended when it takes too long.
    pub(super) async fn one_try<T>(&self, ask: Ask, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.counters.count(ask.kind);
        let mut wire = OnTheWire {
            counters: &self.counters,
            bytes: ask.sent_bytes,
        };
        // A download is timed where its length is known: first its head, then its body.
        let result = if ask.kind == Kind::Get {
            work.await
        } else {
            self.in_time(ask, work).await
        };
        match &result {
            Ok(_) => self.remember_answer(),
            Err(failure) if failure.shows_that_the_store_works() => self.remember_answer(),
            Err(failure) if matches!(failure.reason, Reason::Unreachable | Reason::WrongAddress | Reason::Tls) => wire.bytes = 0,
            Err(_) => {}
        }
        result
    }

    /// Give up on an answer that does not begin.
    pub(super) async fn in_time<T>(&self, ask: Ask, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let time = ask.try_time(self.has_answered());
        let late = || Failure::transient(Cause::new(format!("no answer within {} s", time.as_secs())).hint(self.silence_hint()));
        tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(late()))
    }

    /// Give up on a body that does not end.
    pub(super) async fn whole_in_time<T>(&self, bytes: u64, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let time = travel_time(bytes, ANSWER_BYTES_PER_SECOND_MIN).max(TRY_TIME);
        let late = || Failure::transient(Cause::new(format!("{bytes} bytes did not come within {} s", time.as_secs())));
        tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(late()))
    }

    fn silence_hint(&self) -> Option<&'static str> {
        (!self.has_answered()).then_some("something listens there but does not answer: check s3.endpoint, and the store's own log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses until there is none left, when each try takes no time at all.
    fn pauses(has_answered: bool, reason: Reason) -> Vec<Duration> {
        let (mut tries, mut passed) = (Tries::new(), Duration::ZERO);
        let mut next = || {
            let pause = tries.pause_after(passed, &Patience::default(), has_answered, reason, 1.0)?;
            passed += pause;
            Some(pause)
        };
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let cases = [
            (false, Reason::Unreachable, 2),
            (false, Reason::WrongAddress, 0),
            (false, Reason::Transient, 4),
            (true, Reason::WrongAddress, 20),
            (true, Reason::Unreachable, 20),
            (true, Reason::Transient, 20),
            (false, Reason::Credentials, 0),
            (true, Reason::Credentials, 0),
            (true, Reason::Denied, 0),
            (true, Reason::Tls, 0),
            (true, Reason::NotFound, 0),
            (true, Reason::Fatal, 0),
            (false, Reason::Garbled, 2),
            (true, Reason::Garbled, 2),
        ];
        for (has_answered, reason, wanted) in cases {
            assert_eq!(pauses(has_answered, reason).len(), wanted, "{reason:?} {has_answered}");
        }
        let mut tries = Tries::new();
        assert_eq!(tries.pause(&Patience::default(), false, Reason::Skewed), Some(Duration::ZERO));
        assert_eq!(tries.pause(&Patience::default(), true, Reason::Skewed), None);
    }

    #[test]
    fn patience_is_short_at_first_and_long_later() {
        for (has_answered, least, most) in [(false, 3, 5), (true, 280, 300)] {
            let pauses = pauses(has_answered, Reason::Transient);
            let sum = pauses.iter().sum::<Duration>().as_secs();
            assert!((least..most).contains(&sum), "{sum} s: {pauses:?}");
            assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(20)), "{pauses:?}");
        }
    }

    #[test]
    fn a_try_has_time_for_its_bytes_on_a_slow_link_that_others_use_too() {
        let part = 8 << 20;
        let ask = Ask::new(Kind::Part).sending(part);
        // 1 Mbit/s, and four parts on their way at once.
        let share = 1_000_000 / 8 / 4;
        assert!(ask.try_time(true) + Duration::from_secs(16) >= Duration::from_secs(part as u64 / share));
        assert_eq!(Ask::new(Kind::Part).sending(1 << 20).try_time(true), Duration::from_mins(1));
        assert_eq!(ask.try_time(false), Duration::from_secs(266));
    }

    #[test]
    fn slow_tries_use_up_no_more_patience_than_others() {
        let (mut tries, mut passed) = (Tries::new(), Duration::ZERO);
        let mut failed = 0;
        loop {
            // A part that takes all of its time and then breaks off.
            let tried = Duration::from_secs(256);
            passed += tried;
            tries.excuse(tried);
            failed += 1;
            match tries.pause_after(passed, &Patience::default(), true, Reason::Transient, 1.0) {
                Some(pause) => passed += pause,
                None => break,
            }
        }
        assert_eq!(failed, 5, "a minute of each counts");
    }
}
