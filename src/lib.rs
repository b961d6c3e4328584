//! Back up a Matrix Synapse homeserver into S3-compatible storage, and bring it back.
//!
//! ```text
//!  main.rs
//!     │
//!  ┌──▼───────────────────────────────────────────────┐
//!  │ cli     args settings ui                         │  the only floor that prints, exits, reads argv or env
//!  ├──────────────────────────────────────────────────┤
//!  │ ops     backup restore verify doctor …           │  the verbs; the only place where the two wings meet
//!  ├─────────────────────────────┬────────────────────┤
//!  │ repo    writer reader …     │                    │  values <-> objects
//!  ├──────────────┬──────────────┤  synapse           │
//!  │ format       │ store        │   config postgres  │
//!  │ pure, no IO  │ bytes by key │   media keys       │
//!  └──────────────┴──────────────┴────────────────────┘  progress: a trait, seen by all
//! ```
//!
//! Arrows only go down, and never through a wall: `synapse` has never heard of S3, `repo` has never heard of
//! Matrix, `format` does no IO. `tests/house.rs` holds this. `ARCHITECTURE.md` has the tour and the invariants.

pub mod progress;

pub mod format;
pub mod store;
pub mod synapse;

pub mod repo;

pub mod ops;

pub mod cli;
