//! Transcripts of the command line: what is typed, what comes back on both streams, and the exit code.
//!
//! One file in `tests/cli/` for each situation, named after it. Everything here needs no server but what `metrics` makes itself. Run
//! with `TRYCMD=overwrite` to write new answers into the files, and read the difference before you commit it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![expect(unreachable_pub, reason = "modules of one test binary")]

#[path = "support/canned.rs"]
#[expect(dead_code, reason = "what a store answers is asked for by other tests")]
mod canned;

#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/metrics.rs"]
mod metrics;
#[path = "cli/region.rs"]
mod region;
#[path = "cli/sealed.rs"]
mod sealed;

#[test]
fn every_situation_gets_its_answer() {
    trycmd::TestCases::new().case("tests/cli/*.toml");
}
