//! Transcripts of the command line: what is typed, what comes back on both streams, and the exit code.
//!
//! One file in `tests/cli/` for each situation, named after it. Everything here needs no server. Run with
//! `TRYCMD=overwrite` to write new answers into the files, and read the difference before you commit it.

#[test]
fn every_situation_gets_its_answer() {
    trycmd::TestCases::new().case("tests/cli/*.toml");
}
