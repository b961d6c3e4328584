//! The repository over a simulated store: what goes in comes out, in the right order of writes, whatever call fails.
//!
//! No server is needed here. The homeserver's side of the story is in `tests/backup.rs`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "repo/hook.rs"]
mod hook;
#[path = "repo/rig.rs"]
mod rig;
#[path = "support/sealing.rs"]
mod sealing;
#[path = "repo/small.rs"]
mod small;

#[path = "repo/attacker.rs"]
mod attacker;
#[path = "repo/calls.rs"]
mod calls;
#[path = "repo/copied.rs"]
mod copied;
#[path = "repo/damage.rs"]
mod damage;
#[path = "repo/distrust.rs"]
mod distrust;
#[path = "repo/faults.rs"]
mod faults;
#[path = "repo/figures.rs"]
mod figures;
#[path = "repo/flood.rs"]
mod flood;
#[path = "repo/keys_cli.rs"]
mod keys_cli;
#[path = "repo/later.rs"]
mod later;
#[path = "repo/many.rs"]
mod many;
#[path = "repo/nights.rs"]
mod nights;
#[path = "repo/protocol.rs"]
mod protocol;
#[path = "repo/rekey.rs"]
mod rekey;
#[path = "repo/retain.rs"]
mod retain;
#[path = "repo/round_trip.rs"]
mod round_trip;
#[path = "repo/sealed.rs"]
mod sealed;
#[path = "repo/secrets.rs"]
mod secrets;
#[path = "repo/sweep.rs"]
mod sweep;
#[path = "repo/thrift.rs"]
mod thrift;
#[path = "repo/unnamed.rs"]
mod unnamed;
#[path = "repo/versions.rs"]
mod versions;
