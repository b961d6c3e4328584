//! `doctor --media`: the media store held against the database, both ways, on demand.
//!
//! A backup asks the rows alone; what lies in the store without a row it never sees. Here the rows of all kinds, sorted by path,
//! and a walk over the store in the same order are merged, so memory is that of a few folders and a spool. Rows are read first
//! and no transaction stays open; a file that is younger than that may have got its row since, and a row that is gone by the end was
//! deleted meanwhile.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::{Check, Verdict};
use crate::ops::backup::{media_roots, spool};
use crate::ops::connect::{self, LOCK_SECONDS};
use crate::ops::{Run, Tools};
use crate::synapse::media::{MediaItem, MediaKind, MediaRow, MediaTables};
use crate::synapse::postgres::Session;
use crate::synapse::postgres::session::Purpose;
use crate::synapse::{Homeserver, ProviderKind};

mod store;

use store::{StoreWalk, Walked as Step};

/// Items that are named; all are counted.
const NAMED_MAX: usize = 1_000;
/// Items that the message for people names.
const SHOWN_MAX: usize = 3;

/// What the walk is told.
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// PostgreSQL's programs.
    pub tools: Tools,
    /// This machine's clock.
    pub now: Timestamp,
    /// Rows that wait may take so much memory; more go to an unlinked file.
    pub memory_bytes: u64,
    /// Where that file is.
    pub spool_folder: PathBuf,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MediaWalk {
    /// Rows that say that a file must exist, of all kinds.
    pub rows: u64,
    /// Files in the store.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files without a row: no backup takes them.
    pub without_row: u64,
    /// Their bytes.
    pub without_row_bytes: u64,
    /// Files younger than the look at the rows, which may have got theirs since.
    pub young: u64,
    /// Rows of local uploads without a file.
    pub missing: u64,
    /// Rows of thumbnails, previews and other servers' media without a file.
    pub caches_missing: u64,
    /// Rows whose file is not in the store but in the folder of a storage provider.
    pub elsewhere: u64,
    /// Rows of local uploads whose file is not here: a bucket of a storage provider may have it; a backup asks there.
    pub perhaps_in_a_bucket: u64,
    /// Rows that make no path.
    pub bad_ids: u64,
    /// Folders and files that could not be looked at.
    pub unreadable: u64,
    /// The first of the missing, as items.
    pub missing_items: Vec<String>,
    /// The first of the files without a row, as items.
    pub without_row_items: Vec<String>,
    /// The first of what could not be looked at, and why.
    pub unreadable_items: Vec<String>,
}

/// Walk and merge.
pub async fn walk_media(homeserver: &Homeserver, options: &WalkOptions, run: &Run<'_>) -> anyhow::Result<MediaWalk> {
    run.until_cancelled(Box::pin(walk(homeserver, options, run))).await
}

async fn walk(homeserver: &Homeserver, options: &WalkOptions, run: &Run<'_>) -> anyhow::Result<MediaWalk> {
    let tools = connect::tools(&options.tools).await?;
    let sources = connect::sources(homeserver, &[], &options.tools)?;
    let source = sources
        .iter()
        .find(|source| source.is_main)
        .context("no database to ask for media")?;
    let mut session = Session::open(&source.info, &tools, Purpose::Read, LOCK_SECONDS).await?;
    let tables = MediaTables::find(&mut session)
        .await?
        .context("the database has no tables of media")?;
    let memory = usize::try_from(options.memory_bytes / 4).unwrap_or(usize::MAX);
    let mut rows = spool::Spool::new(memory, &options.spool_folder);
    for kind in MediaKind::ALL {
        let mut of_kind = tables.rows(&mut session, kind).await?;
        while let Some(row) = of_kind.next().await? {
            rows.push(&row).context("keep the rows of media for later")?;
        }
    }
    let rows = rows.rows().context("keep the rows of media for later")?;
    run.progress.stage("media", None, Some(rows.count_left()));
    let merge = Merge {
        roots: media_roots(homeserver),
        has_bucket: homeserver
            .media
            .providers
            .iter()
            .any(|provider| !matches!(provider.kind, ProviderKind::FileSystem { .. })),
        young: options.now,
        found: MediaWalk::default(),
        missing: Vec::new(),
    };
    let cancel = run.cancel.clone();
    let merged = tokio::task::spawn_blocking(move || merge.run(rows, &|| cancel.is_cancelled())).await??;
    run.progress.done("media");
    let Merge { mut found, missing, .. } = merged;
    let there = tables.still_there(&mut session, MediaKind::Local, &missing).await?;
    session.close().await;
    forget_deleted(&mut found, &missing, &there);
    Ok(found)
}

/// Synapse deletes the file and then the row: what has no row any more is not missing.
fn forget_deleted(found: &mut MediaWalk, missing: &[String], there: &HashSet<String>) {
    for path in missing {
        if there.contains(path) {
            found.missing_items.push(format!("media/{path}"));
        } else {
            found.missing -= 1;
        }
    }
}

/// Rows and files, side by side.
struct Merge {
    /// The store, then folders of providers.
    roots: Vec<PathBuf>,
    has_bucket: bool,
    young: Timestamp,
    found: MediaWalk,
    /// The first of the missing, by their paths.
    missing: Vec<String>,
}

impl Merge {
    fn run(mut self, rows: spool::Rows, cancelled: &dyn Fn() -> bool) -> anyhow::Result<Self> {
        let mut rows = rows.peekable();
        let mut files = StoreWalk::new(&self.roots[0]);
        let mut file = self.next_file(&mut files);
        let mut last = String::new();
        loop {
            anyhow::ensure!(!cancelled(), crate::ops::Error::interrupted());
            let row = match rows.next().transpose().context("read the list of media back")? {
                None => break,
                Some(MediaItem::BadId { .. }) => {
                    self.found.bad_ids += 1;
                    continue;
                }
                Some(MediaItem::File(row)) => row,
            };
            // Two rows of the same file are one.
            if row.path == last {
                continue;
            }
            self.found.rows += 1;
            loop {
                let order = file
                    .as_ref()
                    .map_or(Ordering::Greater, |file| file.path.as_bytes().cmp(row.path.as_bytes()));
                match order {
                    Ordering::Less => {
                        self.without_row(file.take());
                        file = self.next_file(&mut files);
                    }
                    Ordering::Equal => {
                        file = self.next_file(&mut files);
                        break;
                    }
                    Ordering::Greater => {
                        self.without_file(&row);
                        break;
                    }
                }
            }
            last = row.path;
        }
        while file.is_some() {
            anyhow::ensure!(!cancelled(), crate::ops::Error::interrupted());
            self.without_row(file.take());
            file = self.next_file(&mut files);
        }
        Ok(self)
    }

    fn next_file(&mut self, files: &mut StoreWalk) -> Option<store::StoredFile> {
        loop {
            match files.step()? {
                Step::File(file) => {
                    self.found.files += 1;
                    self.found.bytes += file.bytes;
                    return Some(file);
                }
                Step::Unreadable(what) => {
                    self.found.unreadable += 1;
                    if self.found.unreadable_items.len() < NAMED_MAX {
                        self.found.unreadable_items.push(what);
                    }
                }
            }
        }
    }

    fn without_row(&mut self, file: Option<store::StoredFile>) {
        let Some(file) = file else { return };
        if file.modified.is_none_or(|modified| modified >= self.young) {
            self.found.young += 1;
            return;
        }
        self.found.without_row += 1;
        self.found.without_row_bytes += file.bytes;
        if self.found.without_row_items.len() < NAMED_MAX {
            self.found.without_row_items.push(format!("media/{}", file.path));
        }
    }

    fn without_file(&mut self, row: &MediaRow) {
        let in_folder = |root: &PathBuf| fs::metadata(root.join(&row.path)).is_ok_and(|metadata| metadata.is_file());
        if self.roots.iter().skip(1).any(in_folder) {
            self.found.elsewhere += 1;
        } else if row.kind != MediaKind::Local {
            self.found.caches_missing += 1;
        } else if self.has_bucket {
            self.found.perhaps_in_a_bucket += 1;
        } else {
            self.found.missing += 1;
            if self.missing.len() < NAMED_MAX {
                self.missing.push(row.path.clone());
            }
        }
    }
}

impl MediaWalk {
    /// As a check among the others.
    pub fn check(&self) -> Check {
        let mut lines = vec![format!("{} rows, {} files with {} bytes", self.rows, self.files, self.bytes)];
        let mut add = |count: u64, text: &str, items: &[String]| {
            if count > 0 {
                let shown = items.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
                let colon = if shown.is_empty() { "" } else { ": " };
                let more = if count > SHOWN_MAX as u64 && !shown.is_empty() {
                    ", …"
                } else {
                    ""
                };
                lines.push(format!("{count} {text}{colon}{shown}{more}"));
            }
        };
        add(self.missing, "rows of uploads have no file", &self.missing_items);
        add(self.bad_ids, "rows have ids that make no path", &[]);
        add(self.unreadable, "could not be looked at", &self.unreadable_items);
        let strays = format!("files have no row ({} bytes); no backup takes them", self.without_row_bytes);
        add(self.without_row, &strays, &self.without_row_items);
        add(
            self.caches_missing,
            "thumbnails and cached media have a row and no file; Synapse makes or fetches them again",
            &[],
        );
        add(self.elsewhere, "files are in the folder of a storage provider", &[]);
        add(
            self.perhaps_in_a_bucket,
            "uploads are not in the store; a backup looks for them in the media bucket",
            &[],
        );
        add(self.young, "files are younger than this look at the rows", &[]);
        let bad = self.missing + self.bad_ids + self.unreadable > 0;
        Check {
            name: "media files".into(),
            verdict: if bad { Verdict::Warning } else { Verdict::Ok },
            message: lines.join("\n"),
            cure: bad.then(|| CURE.to_owned()),
        }
    }
}

const CURE: &str = "an older snapshot may have what is lost: `restore SNAPSHOT --to DIR --only media --prefix ITEM`;\n\
                    `show SNAPSHOT --losses` writes what cannot be had any more for `media.accepted_losses`";
