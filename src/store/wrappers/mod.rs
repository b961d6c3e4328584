//! Behaviours that are put around a store: each is a store itself, so they stack.
//!
//! [`Limit`] is part of the product (`limits.connections`), and so are [`Discard`] (`--dry-run`) and [`At`] (`--at`); [`Record`], [`Fail`] and [`Latency`] are for tests and
//! simulations, which is why they live beside it and not in a test: every floor above tests with them.

mod at;
mod discard;
mod fail;
mod latency;
mod limit;
mod record;

pub use at::At;
pub use discard::Discard;
pub use fail::{Fail, Fault};
pub use latency::Latency;
pub use limit::Limit;
pub use record::{Record, Recorded};
