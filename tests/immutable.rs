//! What a thief cannot do: real users of a real `MinIO` with the policies of `deploy/policies/`, buckets with versions and with
//! Object Lock, a homeserver that is backed up into them, and an attacker who takes away everything he can. And a prune, which
//! takes away only what nobody needs.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/postgres.rs"]
mod cluster;
mod support;

#[expect(dead_code, reason = "the fixture of the stories of a homeserver, of which this uses a part")]
#[path = "backup/homeserver.rs"]
mod homeserver;
#[expect(dead_code, reason = "as above")]
#[path = "backup/hook.rs"]
mod hook;
#[expect(dead_code, reason = "as above")]
#[path = "backup/rig.rs"]
mod rig;
#[expect(dead_code, reason = "as above")]
#[path = "backup/tree.rs"]
mod tree;

#[path = "immutable/buckets.rs"]
mod buckets;
#[path = "support/sealing.rs"]
mod sealing;

#[path = "immutable/doctor.rs"]
mod doctor;
#[path = "immutable/held.rs"]
mod held;
#[path = "immutable/mirrored.rs"]
mod mirrored;
#[path = "immutable/past.rs"]
mod past;
#[path = "immutable/prune.rs"]
mod prune;
#[path = "immutable/roles.rs"]
mod roles;
#[path = "immutable/secrets.rs"]
mod secrets;
#[path = "immutable/stores.rs"]
mod stores;
#[path = "immutable/swept.rs"]
mod swept;
#[path = "immutable/thief.rs"]
mod thief;
#[path = "immutable/translated.rs"]
mod translated;
