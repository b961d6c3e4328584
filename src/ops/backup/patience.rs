//! Work on a file system that may hang: a network file system whose server is gone answers nothing, for ever.
//!
//! Such a call cannot be ended, only left behind with its thread. So each has a deadline, and when a handful of them hang at
//! once no other is begun: what is asked then is told that the file system hangs, and the run goes on without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use crate::repo::{self, Result};

/// How long a batch, or one file of a batch that hangs, may take to be read.
const WAIT: Duration = Duration::from_mins(1);
/// Calls that hang at once, until no other is begun: each holds a thread.
const HANGING_MAX: usize = 16;

/// The patience of one run; clones share what hangs.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    wait: Duration,
    hanging: Arc<AtomicUsize>,
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(WAIT)
    }
}

const RUNS: u8 = 0;
const LEFT: u8 = 1;
const ENDED: u8 = 2;

impl Patience {
    pub(super) fn of(wait: Duration) -> Self {
        Self {
            wait,
            hanging: Arc::default(),
        }
    }

    /// Do this on a thread that may block. `None`: it did not end in time, or too much hangs already.
    pub(super) async fn wait_for<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
        if self.is_over() {
            return Ok(None);
        }
        let state = Arc::new(AtomicU8::new(RUNS));
        let (own, hanging) = (Arc::clone(&state), Arc::clone(&self.hanging));
        let working = tokio::task::spawn_blocking(move || {
            let done = job();
            if own.swap(ENDED, Ordering::SeqCst) == LEFT {
                hanging.fetch_sub(1, Ordering::SeqCst);
            }
            done
        });
        if let Ok(done) = tokio::time::timeout(self.wait, working).await {
            return done.map(Some).map_err(|error| repo::Error::Worker(error.to_string()));
        }
        self.hanging.fetch_add(1, Ordering::SeqCst);
        if state.swap(LEFT, Ordering::SeqCst) == ENDED {
            self.hanging.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(None)
    }

    /// So much hangs that nothing more is begun.
    fn is_over(&self) -> bool {
        self.hanging.load(Ordering::SeqCst) >= HANGING_MAX
    }

    /// What to say of a file that `wait_for` gave `None` for.
    pub(super) fn words(&self) -> String {
        if self.is_over() {
            return format!("not tried: {HANGING_MAX} calls to the file system hang");
        }
        format!("it did not answer within {} s: does the file system hang?", self.wait.as_secs())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn when_a_handful_hangs_nothing_more_is_begun_until_one_has_ended() {
        let patience = Patience::of(Duration::from_millis(50));
        let mut ends = Vec::new();
        for _ in 0..HANGING_MAX {
            let (end, ended) = mpsc::sync_channel::<()>(1);
            assert_eq!(patience.wait_for(move || ended.recv().is_err()).await.unwrap(), None);
            ends.push(end);
        }
        assert_eq!(patience.wait_for(|| 1).await.unwrap(), None);
        assert!(patience.words().contains("16 calls"), "{}", patience.words());
        drop(ends);
        while patience.is_over() {
            tokio::task::yield_now().await;
        }
        assert_eq!(patience.wait_for(|| 1).await.unwrap(), Some(1));
    }
}
