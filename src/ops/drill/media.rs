//! Every media row of the restored database has its file, with the length and the hash that the row says.
//!
//! Rows and the saved files both come sorted by path, and are walked side by side with bounded memory. Files are read
//! back from the scratch folder, or (`hash-only`) from the repository alone. What the snapshot already calls a problem is counted.

use anyhow::Context;
use tokio::sync::mpsc;

use super::Trial;
use super::checks::{Checks, Found, counted};
use super::databases::{Loaded, chain, is_about_the_snapshot};
use super::files::{inside, share};
use crate::format::BlobId;
use crate::format::manifest::{MediaEntry, Shard};
use crate::format::snapshot::{self, ProblemKind};
use crate::ops::connect::LOCK_SECONDS;
use crate::ops::items::{self, DELETED, media_name};
use crate::ops::restore::media_root;
use crate::ops::{Run, Share};
use crate::repo::reader::Reader;
use crate::synapse::media::{MediaChoice, MediaItem, MediaRow, MediaTables};
use crate::synapse::postgres::Session;
use crate::synapse::postgres::session::Purpose;

mod read;

use read::{Expected, Reads};

/// Rows that are read ahead.
const ROWS_AHEAD: usize = 1_024;
/// Rows without a file that are kept by name, until it is known how many of them were deleted during the backup.
const BARE_NAMED_MAX: usize = 100;
/// The stage that people see.
const STAGE: &str = "compare media";

/// Compare rows and files.
pub(super) async fn check(trial: &Trial<'_>, loaded: &[Loaded<'_>], checks: &mut Checks) -> anyhow::Result<()> {
    let Some(media) = &trial.snapshot.media else { return Ok(()) };
    let limits = trial.options.limits;
    let reader = Reader::open(trial.repository, limits.memory_bytes, limits.connections).await?;
    trial.run.progress.stage(STAGE, Some(media.bytes), Some(media.files));
    let main = loaded.iter().find(|one| one.database.name == "synapse");
    let (sender, rows) = mpsc::channel(ROWS_AHEAD);
    let mut compare = Compare {
        media,
        share: share(trial),
        reads: Reads::new(
            &reader,
            trial.options.media,
            inside(&trial.folder.files(), &media_root(trial.snapshot, media)),
        ),
        rows,
        next: None,
        tally: Tally::default(),
        bare: Vec::new(),
        found: Found::default(),
        shard_lost: false,
    };
    let comparing = async {
        let ended = compare.all(&reader, trial.run).await;
        // Whoever sends rows is told that nobody reads them any more.
        compare.rows.close();
        ended
    };
    let (sent, compared) = futures::join!(send_rows(main, media, sender), comparing);
    if let Err(error) = compared {
        if !is_about_the_snapshot(&error) || trial.run.cancel.is_cancelled() {
            return Err(error);
        }
        compare.found.add(ProblemKind::Damaged, "media", chain(&error));
    }
    sent?;
    trial.run.progress.done(STAGE);
    compare.told(main.is_some(), checks);
    Ok(())
}

/// All rows of the kinds that the snapshot was to have, in the order of their paths.
async fn send_rows(main: Option<&Loaded<'_>>, media: &snapshot::Media, sender: mpsc::Sender<MediaRow>) -> anyhow::Result<()> {
    let Some(loaded) = main else { return Ok(()) };
    let mut session = Session::open(&loaded.info, &loaded.tools, Purpose::Read, LOCK_SECONDS).await?;
    let Some(tables) = MediaTables::find(&mut session).await? else {
        return Ok(());
    };
    let choice = MediaChoice {
        thumbnails: media.included.thumbnails,
        remote: media.included.remote,
        url_cache: media.included.url_cache,
    };
    for kind in choice.kinds() {
        let mut rows = tables.rows(&mut session, kind).await?;
        while let Some(item) = rows.next().await.context("read the rows of media")? {
            // A row whose id makes no path was named by the backup.
            if let MediaItem::File(row) = item
                && sender.send(row).await.is_err()
            {
                return Ok(());
            }
        }
    }
    session.close().await;
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    rows: u64,
    known: u64,
    healed: u64,
    bare: u64,
}

/// Rows on one side, saved files on the other.
struct Compare<'a> {
    media: &'a snapshot::Media,
    share: Option<Share>,
    reads: Reads<'a>,
    rows: mpsc::Receiver<MediaRow>,
    next: Option<MediaRow>,
    tally: Tally,
    bare: Vec<String>,
    found: Found,
    shard_lost: bool,
}

impl Compare<'_> {
    async fn all(&mut self, reader: &Reader, run: &Run<'_>) -> anyhow::Result<()> {
        let media = self.media;
        items::walk_media(reader, media, b"", run, async |walked| {
            self.rows_before(walked.shard.first.as_bytes()).await;
            match walked.entries {
                Ok(shard) => self.shard(&shard, run).await,
                Err(error) => {
                    self.found.add_all([items::lost_shard(&walked.shard, &error)]);
                    self.shard_lost = true;
                    Ok(())
                }
            }
        })
        .await?;
        self.rows_before(&[0xff]).await;
        self.reads.flush(&mut self.found, run).await
    }

    async fn shard(&mut self, shard: &Shard, run: &Run<'_>) -> anyhow::Result<()> {
        for entry in &shard.entries {
            self.rows_before(entry.path.as_bytes()).await;
            let mut expected = Expected::of(shard, entry);
            while let Some(row) = self.take_row(|path| path == entry.path.as_bytes()).await {
                self.tally.rows += 1;
                self.compare(&row, entry, &mut expected);
            }
            let chosen = self.share.as_ref().is_none_or(|share| share.has(entry.path.as_bytes()));
            if let (Some(expected), true) = (expected, chosen) {
                self.reads.add(expected, &mut self.found, run).await?;
            }
        }
        Ok(())
    }

    /// Rows whose paths come before this one have no file in the snapshot.
    async fn rows_before(&mut self, path: &[u8]) {
        while let Some(row) = self.take_row(|other| other < path).await {
            self.tally.rows += 1;
            if self.shard_lost {
                continue;
            }
            if row.kind.heals() {
                self.tally.healed += 1;
                continue;
            }
            self.tally.bare += 1;
            if self.bare.len() < BARE_NAMED_MAX {
                self.bare.push(row.path);
            }
        }
        self.shard_lost = false;
    }

    /// The next row, if its path is like this.
    async fn take_row(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<MediaRow> {
        if self.next.is_none() {
            self.next = self.rows.recv().await;
        }
        let is_wanted = self.next.as_ref().is_some_and(|row| wanted(row.path.as_bytes()));
        if is_wanted { self.next.take() } else { None }
    }

    fn compare(&mut self, row: &MediaRow, entry: &MediaEntry, expected: &mut Option<Expected>) {
        let Some(sha256) = entry.sha256.filter(|_| entry.problem.is_none()) else {
            self.tally.known += 1;
            return;
        };
        // Synapse may make them anew at any time.
        if row.kind.heals() {
            return;
        }
        let item = media_name(&entry.path);
        if let Some(bytes) = row.bytes.filter(|bytes| *bytes != entry.bytes) {
            let message = format!("its row says {bytes} bytes, what was saved has {}", entry.bytes);
            self.found.add(ProblemKind::Short, item, message);
        } else if let Some(wanted) = row.sha256.map(BlobId::from_bytes).filter(|wanted| *wanted != sha256) {
            let message = format!("its row says SHA-256 {wanted}, what was saved has {sha256}");
            self.found.add(ProblemKind::HashDiffers, item, message);
        } else if let (Some(expected), Some(wanted)) = (expected, row.sha256) {
            expected.sha256 = BlobId::from_bytes(wanted);
        }
    }

    fn told(mut self, with_rows: bool, checks: &mut Checks) {
        let deleted = self.media.counts.get(DELETED).copied().unwrap_or(0).min(self.tally.bare);
        let bare = self.tally.bare - deleted;
        for path in self.bare.iter().take(usize::try_from(bare).unwrap_or(usize::MAX)) {
            let message = "the database has a row for it, the snapshot has no file";
            self.found.add(ProblemKind::Missing, format!("media/{path}"), message);
        }
        let mut figure = if with_rows {
            counted(self.tally.rows, "row")
        } else {
            "no database to compare with".to_owned()
        };
        figure = format!(
            "{figure}, {} and {} read back and hashed",
            counted(self.reads.files, "file"),
            counted(self.reads.bytes, "byte")
        );
        for (count, what) in [
            (bare, "without a file"),
            (self.tally.known, "named by the snapshot as a problem"),
            (self.tally.healed, "thumbnails or previews that Synapse makes again"),
            (deleted, "deleted while the snapshot was taken"),
        ] {
            if count > 0 {
                figure = format!("{figure}; {count} {what}");
            }
        }
        checks.add("media", figure, self.found);
    }
}
