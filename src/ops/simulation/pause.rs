//! Standing still where it hurts: before a request at which the protocol makes one thing wait for another.
//!
//! By chance alone a process would rarely be interrupted just there. Which moments there are is the role's knowledge
//! (`Role::moments`); the scheduler draws some for each process when it starts.

/// A process will stand still before the `nth` request of this kind, until the clock has moved `jumps` times.
pub(super) struct Pause {
    pub(super) process: usize,
    pub(super) before: &'static str,
    pub(super) nth: usize,
    pub(super) jumps: usize,
}

impl Pause {
    /// Of a listing, the first page counts.
    pub(super) fn is_before(&self, ask: &str) -> bool {
        let whole = self.before.starts_with("LIST ") && self.before.ends_with('/');
        if whole { ask == self.before } else { ask.starts_with(self.before) }
    }
}
