//! Work that takes long, beside the tasks of the runtime; and pauses before a write is tried again.
//!
//! Both go through here, so that a simulation repeats: on a runtime of one thread work is done in place, in the order in which it was
//! asked for, and a simulated process does not wait for a real clock.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Error, Result};

/// Begin work that blocks, at once, on a thread of its own; the future gives what came of it.
pub(super) fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> BoxFuture<'static, Result<T>> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        let done = work();
        return Box::pin(async { Ok(done) });
    }
    let working = tokio::task::spawn_blocking(work);
    Box::pin(async move { working.await.map_err(|error| Error::Worker(error.to_string())) })
}

/// Wait so long.
pub(super) async fn pause(duration: Duration) {
    #[cfg(test)]
    if super::bugs::simulating() {
        return;
    }
    tokio::time::sleep(duration).await;
}
