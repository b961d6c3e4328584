//! Stories of a homeserver: backed up from a real PostgreSQL, damaged in every way we can think of, and brought back.
//!
//! The verbs of `ops` are called as `cli` calls them, over stores in memory or in a folder, with wrappers around them. Each
//! file under `tests/backup/` tells the stories of one kind of trouble; `homeserver.rs` is the fixture they share.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/canned.rs"]
#[expect(dead_code, unreachable_pub, reason = "what a store is sent is asked for by other tests")]
mod canned;
#[path = "support/postgres.rs"]
mod cluster;

#[path = "backup/homeserver.rs"]
mod homeserver;
#[path = "backup/hook.rs"]
mod hook;
#[path = "backup/processes.rs"]
mod processes;
#[path = "backup/rig.rs"]
mod rig;
#[path = "backup/tree.rs"]
mod tree;

#[path = "backup/advice.rs"]
mod advice;
#[path = "backup/bases.rs"]
mod bases;
#[path = "backup/cancel.rs"]
mod cancel;
#[path = "backup/copy.rs"]
mod copy;
#[path = "backup/doctor.rs"]
mod doctor;
#[path = "backup/drill.rs"]
mod drill;
#[path = "backup/dump.rs"]
mod dump;
#[path = "backup/faults.rs"]
mod faults;
#[path = "backup/forged.rs"]
mod forged;
#[path = "backup/full.rs"]
mod full;
#[path = "backup/media.rs"]
mod media;
#[path = "backup/moving.rs"]
mod moving;
#[path = "backup/names.rs"]
mod names;
#[path = "backup/offsite.rs"]
mod offsite;
#[path = "backup/planted.rs"]
mod planted;
#[path = "backup/repair.rs"]
mod repair;
#[path = "backup/restore.rs"]
mod restore;
#[path = "backup/round_trip.rs"]
mod round_trip;
#[path = "backup/sealed.rs"]
mod sealed;
#[path = "backup/together.rs"]
mod together;
#[path = "backup/uploads.rs"]
mod uploads;
#[path = "backup/verified.rs"]
mod verified;
#[path = "backup/walk.rs"]
mod walk;
#[path = "backup/wrong.rs"]
mod wrong;
