//! The shard list of the last snapshot, walked beside the rows: which of its shards overlap a group of rows.
//!
//! It is read ahead by a few shards only, so that memory does not depend on the number of media. A list that is damaged
//! costs time, not correctness: the files are opened again.

use std::collections::VecDeque;
use std::pin::Pin;

use anyhow::Context;
use futures::stream::{Stream, StreamExt};

use crate::format::ItemPath;
use crate::format::manifest::{ShardRef, decode_shard_ref};
use crate::format::snapshot::Media;
use crate::repo;
use crate::repo::reader::{Reader, Window};

type Windows<'a> = Pin<Box<dyn Stream<Item = repo::Result<Window>> + Send + 'a>>;

/// A walk along the last snapshot's shards.
pub(super) struct Previous<'a> {
    windows: Option<Windows<'a>>,
    /// Shards that were read ahead; the first may still overlap the next group.
    ahead: VecDeque<ShardRef>,
    lines: u64,
}

impl<'a> Previous<'a> {
    /// At the start; `None` inherits nothing.
    pub(super) fn new(reader: &'a Reader, media: Option<&Media>) -> Self {
        let windows = media.map(|media| Box::pin(reader.windows(&media.shards)) as Windows<'a>);
        Self {
            windows,
            ahead: VecDeque::new(),
            lines: 0,
        }
    }

    /// The shards that may hold a path between `first` and `last`. Must be asked in ascending order.
    ///
    /// A shard list that can no longer be read is as good as none: the files are opened again.
    pub(super) async fn overlapping(&mut self, first: &ItemPath, last: &ItemPath) -> anyhow::Result<Vec<ShardRef>> {
        // A shard reaches up to the next one's first path.
        while self.ahead.len() < 2 || self.ahead.back().is_some_and(|shard| shard.first <= *last) {
            if !self.read_more().await? {
                break;
            }
        }
        while self.ahead.len() >= 2 && self.ahead[1].first <= *first {
            self.ahead.pop_front();
        }
        Ok(self.ahead.iter().take_while(|shard| shard.first <= *last).cloned().collect())
    }

    async fn read_more(&mut self) -> anyhow::Result<bool> {
        let Some(windows) = &mut self.windows else { return Ok(false) };
        let Some(window) = windows.next().await else {
            self.windows = None;
            return Ok(false);
        };
        match self.decode(window) {
            Ok(()) => Ok(true),
            Err(error) if is_damage(&error) => {
                tracing::warn!("the media list of the last snapshot cannot be read ({error:#}); its files are opened again");
                (self.windows, self.ahead) = (None, VecDeque::new());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn decode(&mut self, window: repo::Result<Window>) -> anyhow::Result<()> {
        for (_, blob) in window? {
            for line in blob?.split_inclusive(|byte| *byte == b'\n') {
                self.lines += 1;
                self.ahead
                    .push_back(decode_shard_ref(line, self.lines).context("the last snapshot's media list")?);
            }
        }
        Ok(())
    }
}

/// Damage of what was written earlier, as opposed to a store that does not answer.
pub(super) fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(repo::Error::Lost { .. } | repo::Error::Damaged { .. }))
            || cause.downcast_ref::<crate::format::Error>().is_some()
    })
}
