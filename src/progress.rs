//! How work tells an onlooker what it is doing: a trait of four methods, passed as the last argument.
//!
//! The bars on a terminal, the quiet lines of a timer unit and the `--json` events are all implementations in
//! `cli`; `Quiet` serves tests and library users. Progress is only for eyes: totals come back in reports, never from here.

use std::fmt;

/// What an onlooker sees of a run. Every method is cheap and may be called from any thread.
pub trait Progress: Send + Sync + fmt::Debug {
    /// A stage with this name begins (`database synapse`, `media`, `check`); bytes and items expected, where known.
    fn stage(&self, name: &str, bytes_expected: Option<u64>, items_expected: Option<u64>);
    /// The current work of `stage` went on by so many raw bytes and items.
    fn advance(&self, stage: &str, bytes: u64, items: u64);
    /// The stage ended.
    fn done(&self, stage: &str);
    /// Something is wrong with one item while the run goes on; `kind` is one of DESIGN's problem kinds.
    fn problem(&self, kind: &str, item: &str, message: &str);
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn stage(&self, _: &str, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64, _: u64) {}
    fn done(&self, _: &str) {}
    fn problem(&self, _: &str, _: &str, _: &str) {}
}
