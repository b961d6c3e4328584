//! Progress without a terminal: quiet lines for people who read logs, events for programs, nothing for `-q`.
//!
//! A stage gets a line when it begins and when it ends, and one in between now and then. The clock is `tick`, called by
//! the loop that waits for the verb, so that a stage in which nothing moves says so too. Only for eyes: what a run did
//! stands in its report.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bars::Bars;
use super::text::{bytes, count, counted, escaped, seconds};
use super::{Audience, Screen};
use crate::progress::Progress;

/// A line at most so often, for each audience.
const PERSON_PERIOD: Duration = Duration::from_mins(1);
const PROGRAM_PERIOD: Duration = Duration::from_secs(10);

/// Whatever fits the audience.
#[derive(Debug)]
pub(crate) enum Watcher {
    /// Bars on a terminal.
    Bars(Bars),
    /// Lines in a log, or events.
    Lines(Lines),
    /// Nothing.
    Nobody,
}

impl Watcher {
    /// For this screen.
    pub(crate) fn new(screen: &Screen) -> Self {
        match (screen.audience, screen.bars()) {
            (Audience::QuietPerson | Audience::Program { quiet: true }, _) => Self::Nobody,
            (Audience::Person, Some(bars)) => Self::Bars(Bars::new(bars.clone())),
            (Audience::Person | Audience::Program { quiet: false }, _) => Self::Lines(Lines::new(screen.clone())),
        }
    }

    /// Time went by.
    pub(crate) fn tick(&self) {
        if let Self::Lines(lines) = self {
            lines.tick();
        }
    }

    /// The verb ended, well or not: nothing of the progress stays.
    pub(crate) fn clear(&self) {
        if let Self::Bars(bars) = self {
            bars.clear();
        }
    }
}

impl Progress for Watcher {
    fn stage(&self, name: &str, bytes_expected: Option<u64>, items_expected: Option<u64>) {
        match self {
            Self::Bars(bars) => bars.stage(name, bytes_expected, items_expected),
            Self::Lines(lines) => lines.stage(name, bytes_expected, items_expected),
            Self::Nobody => {}
        }
    }

    fn advance(&self, stage: &str, bytes: u64, items: u64) {
        match self {
            Self::Bars(bars) => bars.advance(stage, bytes, items),
            Self::Lines(lines) => lines.advance(stage, bytes, items),
            Self::Nobody => {}
        }
    }

    fn done(&self, stage: &str) {
        match self {
            Self::Bars(bars) => bars.done(stage),
            Self::Lines(lines) => lines.done(stage),
            Self::Nobody => {}
        }
    }

    fn problem(&self, kind: &str, item: &str, message: &str) {
        match self {
            Self::Bars(bars) => bars.problem(),
            Self::Lines(lines) => lines.problem(kind, item, message),
            Self::Nobody => {}
        }
    }
}

/// One stage that goes on.
#[derive(Debug)]
struct Stage {
    name: String,
    bytes_expected: Option<u64>,
    items_expected: Option<u64>,
    bytes: u64,
    items: u64,
    began: Instant,
    told: Instant,
}

/// A moment in a stage's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Begin,
    Middle,
    End,
}

/// Lines for people or programs.
#[derive(Debug)]
pub(crate) struct Lines {
    screen: Screen,
    /// A handful at a time; the lock is held for an addition.
    stages: Mutex<Vec<Stage>>,
}

impl Lines {
    const fn new(screen: Screen) -> Self {
        Self {
            screen,
            stages: Mutex::new(Vec::new()),
        }
    }

    fn stages(&self) -> std::sync::MutexGuard<'_, Vec<Stage>> {
        self.stages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn tick(&self) {
        let period = if self.screen.for_program() { PROGRAM_PERIOD } else { PERSON_PERIOD };
        for stage in self.stages().iter_mut().filter(|stage| stage.told.elapsed() >= period) {
            self.say(stage, Moment::Middle);
            stage.told = Instant::now();
        }
    }

    fn say(&self, stage: &Stage, moment: Moment) {
        if self.screen.for_program() {
            Screen::event(&event(stage, moment));
        } else {
            self.screen.tell(&line(stage, moment));
        }
    }
}

impl Progress for Lines {
    fn stage(&self, name: &str, bytes_expected: Option<u64>, items_expected: Option<u64>) {
        let now = Instant::now();
        let stage = Stage {
            name: name.to_owned(),
            bytes_expected,
            items_expected,
            bytes: 0,
            items: 0,
            began: now,
            told: now,
        };
        self.say(&stage, Moment::Begin);
        let mut stages = self.stages();
        stages.retain(|other| other.name != name);
        stages.push(stage);
    }

    fn advance(&self, stage: &str, bytes: u64, items: u64) {
        if let Some(stage) = self.stages().iter_mut().find(|other| other.name == stage) {
            stage.bytes += bytes;
            stage.items += items;
        }
    }

    fn done(&self, stage: &str) {
        let mut stages = self.stages();
        if let Some(at) = stages.iter().position(|other| other.name == stage) {
            let stage = stages.remove(at);
            drop(stages);
            self.say(&stage, Moment::End);
        }
    }

    fn problem(&self, kind: &str, item: &str, message: &str) {
        // People find problems in the summary, where they stand together; a program may want them at once.
        if self.screen.for_program() {
            let event = json!({ "type": "event", "event": "problem", "kind": kind, "item": item, "message": message });
            Screen::event(&event.to_string());
        }
    }
}

fn event(stage: &Stage, moment: Moment) -> String {
    let word = match moment {
        Moment::Begin => "stage",
        Moment::Middle => "progress",
        Moment::End => "done",
    };
    let mut event = json!({ "type": "event", "event": word, "stage": stage.name });
    if let (Moment::Begin | Moment::Middle, Some(fields)) = (moment, event.as_object_mut()) {
        fields.insert("bytes_expected".into(), stage.bytes_expected.into());
        fields.insert("items_expected".into(), stage.items_expected.into());
    }
    if let (Moment::Middle | Moment::End, Some(fields)) = (moment, event.as_object_mut()) {
        fields.insert("bytes".into(), stage.bytes.into());
        fields.insert("items".into(), stage.items.into());
        fields.insert("seconds".into(), rounded(stage.began.elapsed()).into());
    }
    event.to_string()
}

/// Seconds with three decimals: more would pretend.
pub(crate) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn line(stage: &Stage, moment: Moment) -> String {
    let name = escaped(&stage.name);
    let amount = |bytes_now: Option<u64>, items_now: Option<u64>| {
        let items = items_now.filter(|items| *items > 0).map(|items| counted(items, "item"));
        let bytes_now = bytes_now.filter(|bytes| *bytes > 0).map(bytes);
        items.into_iter().chain(bytes_now).collect::<Vec<_>>().join(", ")
    };
    let time = stage.began.elapsed();
    match moment {
        Moment::Begin => match amount(stage.bytes_expected, stage.items_expected) {
            expected if expected.is_empty() => format!("{name}: begins\n"),
            expected => format!("{name}: begins, {expected} expected\n"),
        },
        Moment::Middle => {
            let done = amount(Some(stage.bytes), Some(stage.items));
            let done = if done.is_empty() { "nothing yet".to_owned() } else { done };
            format!("{name}: {done} after {}{}\n", seconds(time), share(stage))
        }
        Moment::End => {
            let done = amount(Some(stage.bytes), Some(stage.items));
            let done = if done.is_empty() { "done".to_owned() } else { done };
            format!("{name}: {done} in {}\n", seconds(time))
        }
    }
}

/// `, 42 %` and the time that is left, where the end is known.
fn share(stage: &Stage) -> String {
    let (now, expected) = match (stage.bytes_expected, stage.items_expected) {
        (Some(expected), _) if expected > 0 => (stage.bytes, expected),
        (_, Some(expected)) if expected > 0 => (stage.items, expected),
        _ => return String::new(),
    };
    let percent = u128::from(now.min(expected)) * 100 / u128::from(expected);
    let left = match stage
        .began
        .elapsed()
        .as_millis()
        .checked_mul(u128::from(expected.saturating_sub(now)))
    {
        Some(product) if now > 0 => u64::try_from(product / u128::from(now)).ok(),
        _ => None,
    };
    let left = left
        .map(|left| format!(", {} left", seconds(Duration::from_millis(left))))
        .unwrap_or_default();
    format!(" ({} %{left})", count(u64::try_from(percent).unwrap_or(100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(bytes_expected: Option<u64>, bytes: u64, items: u64) -> Stage {
        let began = Instant::now().checked_sub(Duration::from_secs(30)).unwrap_or_else(Instant::now);
        Stage {
            name: "media".into(),
            bytes_expected,
            items_expected: None,
            bytes,
            items,
            began,
            told: began,
        }
    }

    #[test]
    fn lines_tell_what_was_done_and_what_is_left() {
        for (stage, moment, wanted) in [
            (stage(None, 0, 0), Moment::Begin, "media: begins\n"),
            (stage(Some(3 << 20), 0, 0), Moment::Begin, "media: begins, 3.00 MiB expected\n"),
            (stage(None, 0, 0), Moment::Middle, "media: nothing yet after 30.0 s\n"),
            (
                stage(Some(4 << 20), 1 << 20, 12),
                Moment::Middle,
                "media: 12 items, 1.00 MiB after 30.0 s (25 %, 00:01:30 left)\n",
            ),
            (
                stage(Some(4 << 20), 4 << 20, 48),
                Moment::End,
                "media: 48 items, 4.00 MiB in 30.0 s\n",
            ),
        ] {
            assert_eq!(line(&stage, moment), wanted);
        }
    }

    #[test]
    fn events_are_objects_with_a_type() {
        for moment in [Moment::Begin, Moment::Middle, Moment::End] {
            let event: serde_json::Value = serde_json::from_str(&event(&stage(None, 1, 1), moment)).unwrap_or_default();
            assert_eq!(event["type"], "event", "{moment:?}");
            assert_eq!(event["stage"], "media", "{moment:?}");
        }
    }
}
