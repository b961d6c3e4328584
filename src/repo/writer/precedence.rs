//! Permits that dumps get before media: the transaction of a dump is open as long as its bytes are on their way.
//!
//! Who waits for a permit for a dump or its lists holds back those who ask for media, but takes nothing from who has one already.
//! Dumps never wait for anybody's precedence, so whatever holds a permit comes to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::format::PackKind;

/// Permits of one thing that is short: memory, or uploads.
#[derive(Debug)]
pub(super) struct Permits {
    /// Arc: a permit goes with its task.
    free: Arc<Semaphore>,
    /// How many wait for a dump.
    waiting: AtomicUsize,
    /// Told when nobody of them waits any more.
    nobody: Notify,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            waiting: AtomicUsize::new(0),
            nobody: Notify::new(),
        }
    }

    /// So many of them, for this kind of pack. `None`: closed.
    pub(super) async fn acquire(&self, kind: PackKind, count: u32) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free);
        if kind != PackKind::Media {
            let _waiting = Waiting::new(self);
            return free.acquire_many_owned(count).await.ok();
        }
        loop {
            let nobody = self.nobody.notified();
            if self.waiting.load(Ordering::SeqCst) == 0 {
                break;
            }
            nobody.await;
        }
        free.acquire_many_owned(count).await.ok()
    }
}

/// One who waits, until it is dropped: also when the wait is given up.
struct Waiting<'a>(&'a Permits);

impl<'a> Waiting<'a> {
    fn new(permits: &'a Permits) -> Self {
        permits.waiting.fetch_add(1, Ordering::SeqCst);
        Self(permits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.nobody.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_dump_that_waits_goes_before_media_that_ask_later() {
        let permits = Permits::new(1);
        let held = permits.acquire(PackKind::Media, 1).await.unwrap();
        let mut dump = Box::pin(permits.acquire(PackKind::Database, 1));
        assert!(dump.as_mut().now_or_never().is_none(), "the only permit is held");
        let mut media = Box::pin(permits.acquire(PackKind::Media, 1));
        assert!(media.as_mut().now_or_never().is_none());
        drop(held);
        assert!(media.as_mut().now_or_never().is_none(), "free, but a dump waits for it");
        let dumped = dump.await.unwrap();
        assert!(media.as_mut().now_or_never().is_none());
        drop(dumped);
        assert!(media.await.is_some());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_holds_nobody_back() {
        let permits = Permits::new(1);
        let held = permits.acquire(PackKind::Media, 1).await.unwrap();
        let mut dump = Box::pin(permits.acquire(PackKind::Database, 1));
        assert!(dump.as_mut().now_or_never().is_none());
        drop(dump);
        drop(held);
        assert!(permits.acquire(PackKind::Media, 1).now_or_never().flatten().is_some());
    }
}
