//! The format, from outside: golden bytes, round trips, damage.
//!
//! `values` makes fixed values and byte streams that every run makes alike; the other files hold one question each.
//! What a single function does at its edges is tested beside it in `src/format/`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod chunker;
mod damage;
mod golden;
mod pack;
mod round_trip;
mod values;
