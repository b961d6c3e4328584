//! Compressors, as many as there are cores: each has megabytes of tables, and more at once would not be quicker.
//!
//! Whoever wants to compress is on a blocking thread and waits here for one that is free.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::format;
use crate::format::frame::FrameEncoder;

use super::COMPRESSION_LEVEL;

/// The compressors of a session.
#[derive(Debug)]
pub(super) struct Encoders {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<FrameEncoder>,
    /// How many more may be made.
    unmade: usize,
}

impl Encoders {
    pub(super) fn new(count: usize) -> Self {
        let state = State {
            idle: Vec::new(),
            unmade: count.max(1),
        };
        Self {
            state: Mutex::new(state),
            freed: Condvar::new(),
        }
    }

    /// Compress blobs into one frame.
    pub(super) fn encode(&self, blobs: &[&[u8]]) -> format::Result<Vec<u8>> {
        let mut encoder = self.take()?;
        let encoded = encoder.encode(blobs);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).idle.push(encoder);
        self.freed.notify_one();
        encoded
    }

    fn take(&self) -> format::Result<FrameEncoder> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(encoder) = state.idle.pop() {
                return Ok(encoder);
            }
            if state.unmade > 0 {
                state.unmade -= 1;
                return FrameEncoder::new(COMPRESSION_LEVEL);
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
