//! Every store keeps the same contract: memory, a directory, a real `MinIO`, and each wrapper around one of them.
//!
//! `contract` is the one suite; `faults` breaks the network between us and `MinIO`; `refusals` plays answers that a real
//! store gives only on a bad day; `wire` looks at what is sent; `tls` has a server with a certificate of its own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![expect(unreachable_pub, reason = "modules of one test binary")]

mod support;

#[macro_use]
#[path = "store/contract.rs"]
mod contract;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/local.rs"]
mod local;
#[path = "store/refusals.rs"]
mod refusals;
#[path = "store/stores.rs"]
mod stores;
#[path = "store/tls.rs"]
mod tls;
#[path = "store/wire.rs"]
mod wire;
#[path = "store/wrappers.rs"]
mod wrappers;
