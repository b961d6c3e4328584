//! Progress on a terminal: a bar for each stage that goes on, with its rate and the time that is left.
//!
//! A stage that ended leaves the screen; the summary tells what it did.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::text::{count, counted, escaped};

const REDRAW: Duration = Duration::from_millis(200);

/// The bars of one run.
#[derive(Debug)]
pub(crate) struct Bars {
    screen: MultiProgress,
    /// By stage; the lock is held to find one.
    stages: Mutex<BTreeMap<String, Bar>>,
    problems: AtomicU64,
}

#[derive(Debug, Clone)]
struct Bar {
    drawn: ProgressBar,
    /// Items, where the bar itself counts bytes.
    items: u64,
    items_expected: Option<u64>,
    counts_items: bool,
    /// Neither an end nor bytes are known yet: only time goes by.
    waits: bool,
}

impl Bars {
    pub(super) fn new(screen: MultiProgress) -> Self {
        Self {
            screen,
            stages: Mutex::default(),
            problems: AtomicU64::new(0),
        }
    }

    fn stages(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Bar>> {
        self.stages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn stage(&self, name: &str, bytes_expected: Option<u64>, items_expected: Option<u64>) {
        let counts_items = bytes_expected.is_none() && items_expected.is_some();
        let length = bytes_expected.or(items_expected);
        let drawn = self.screen.add(ProgressBar::new(length.unwrap_or_default()));
        drawn.set_style(style(if length.is_none() {
            WAITS
        } else if counts_items {
            ITEMS
        } else {
            BYTES
        }));
        drawn.set_prefix(escaped(name).into_owned());
        drawn.enable_steady_tick(REDRAW);
        let bar = Bar {
            drawn,
            items: 0,
            items_expected,
            counts_items,
            waits: length.is_none(),
        };
        if let Some(earlier) = self.stages().insert(name.to_owned(), bar) {
            earlier.drawn.finish_and_clear();
        }
    }

    pub(super) fn advance(&self, stage: &str, bytes: u64, items: u64) {
        let mut stages = self.stages();
        let Some(bar) = stages.get_mut(stage) else { return };
        bar.items += items;
        if bar.waits && bytes > 0 {
            bar.waits = false;
            bar.drawn.set_style(style(FLOWS));
        }
        if bar.counts_items {
            bar.drawn.inc(items);
        } else {
            bar.drawn.inc(bytes);
            if bar.items > 0 {
                bar.drawn.set_message(self.words(bar));
            }
        }
    }

    fn words(&self, bar: &Bar) -> String {
        let items = match bar.items_expected {
            Some(expected) => format!("{} of {}", count(bar.items), counted(expected, "item")),
            None => counted(bar.items, "item"),
        };
        match self.problems.load(Ordering::Relaxed) {
            0 => items,
            problems => format!("{items}, {}", counted(problems, "problem")),
        }
    }

    pub(super) fn done(&self, stage: &str) {
        if let Some(bar) = self.stages().remove(stage) {
            bar.drawn.finish_and_clear();
        }
    }

    pub(super) fn problem(&self) {
        self.problems.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        for (_, bar) in std::mem::take(&mut *self.stages()) {
            bar.drawn.finish_and_clear();
        }
        // What cannot be cleared cannot be helped: the terminal is gone.
        let _ = self.screen.clear();
    }
}

// A bar where the end is known, else a wheel that turns. They fit 80 columns; words that do not are cut off, since a line
// that wraps cannot be cleared.
const BYTES: &str = "{prefix:17} [{bar:12}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}{left}  {wide_msg}";
const ITEMS: &str = "{prefix:17} [{bar:12}] {human_pos} of {human_len}, {per_sec}{left}  {wide_msg}";
const FLOWS: &str = "{prefix:17} {spinner} {binary_bytes}, {binary_bytes_per_sec}, {elapsed}  {wide_msg}";
const WAITS: &str = "{prefix:17} {spinner} {elapsed}  {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    // A test holds that every template is valid.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").with_key("left", left)
}

/// Nobody knows before something has happened.
fn left(state: &ProgressState, out: &mut dyn Write) {
    if state.pos() > 0 {
        // What cannot be drawn is not missed.
        let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        for template in [BYTES, ITEMS, FLOWS, WAITS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_stage_that_ended_leaves_the_screen() {
        let bars = Bars::new(MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()));
        bars.stage("media", Some(10), Some(3));
        bars.problem();
        bars.advance("media", 4, 1);
        assert_eq!(bars.stages()["media"].drawn.message(), "1 of 3 items, 1 problem");
        bars.done("media");
        assert!(bars.stages().is_empty());
    }
}
