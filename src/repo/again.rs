//! Writes of unknown outcome, made anew: under a fresh key each time (G1), and with patience.
//!
//! The store itself repeats what may be repeated, for minutes. A single PUT and a copy may not be, and a proxy before a store that
//! restarts answers each of them at once with a 502, of which nobody knows what it means. So the patience for them is here, where a fresh
//! key can be had.

use std::time::Duration;

use bytes::Bytes;

use super::aside;
use crate::store::{self, Store};

/// The pause before the second try; it doubles from try to try.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pauses of some four minutes in all: about what reads are given. Each try that landed all the same leaves an object.
const PAUSES_MAX: u32 = 15;

/// The tries of one write.
#[derive(Debug, Default)]
pub(super) struct Tries {
    failed: u32,
}

impl Tries {
    /// A try failed. Gives the error back if another one will not help; else waits, and the caller writes under a fresh key.
    pub(super) async fn after(&mut self, error: store::Error) -> Result<(), store::Error> {
        if self.failed == PAUSES_MAX || !matches!(error, store::Error::Unknown { .. }) {
            return Err(error);
        }
        tracing::debug!(%error, "writing again under another key");
        aside::pause(pause(self.failed)).await;
        self.failed += 1;
        Ok(())
    }
}

fn pause(failed: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failed.min(16)).min(PAUSE_MAX)
}

/// PUT what may be there twice, until one is answered. Gives the key of that one.
pub(super) async fn put(store: &dyn Store, mut fresh_key: impl FnMut() -> String, body: &Bytes) -> Result<String, store::Error> {
    let mut tries = Tries::default();
    loop {
        let key = fresh_key();
        match store.put(&key, body.clone()).await {
            Ok(_) => return Ok(key),
            Err(error) => tries.after(error).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::bugs;

    #[test]
    fn patience_is_minutes_and_begins_small() {
        let all: Duration = (0..PAUSES_MAX).map(pause).sum();
        assert!((Duration::from_mins(4)..Duration::from_mins(6)).contains(&all), "{all:?}");
        assert!(pause(0) < Duration::from_millis(500) && pause(PAUSES_MAX) == PAUSE_MAX);
    }

    #[tokio::test]
    async fn only_what_nobody_knows_is_written_again_and_not_for_ever() {
        bugs::simulate(true);
        let unknown = || store::Error::Unknown {
            action: "PUT",
            key: "key".into(),
            source: "the network".into(),
        };
        let mut tries = Tries::default();
        for _ in 0..PAUSES_MAX {
            assert!(tries.after(unknown()).await.is_ok());
        }
        assert!(tries.after(unknown()).await.is_err());
        let missing = store::Error::NotFound { key: "key".into() };
        assert!(Tries::default().after(missing).await.is_err());
        bugs::simulate(false);
    }
}
