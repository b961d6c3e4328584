//! Behaviours that are put around a store: each is a store itself, so they stack.
//!
//! [`Limit`] is part of the product (`limits.connections`); [`Record`], [`Fail`] and [`Latency`] are for tests and
//! simulations, which is why they live beside it and not in a test: every floor above tests with them.

mod fail;
mod latency;
mod limit;
mod record;

pub use fail::{Fail, Fault};
pub use latency::Latency;
pub use limit::Limit;
pub use record::{Record, Recorded};
