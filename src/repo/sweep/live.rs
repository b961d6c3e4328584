//! P3: which blobs live. All snapshots are read, late ones too (G4), and all their lists are followed.
//!
//! Listed snapshots go first: a blob that one of them needs must be there (P6), one that only late ones need may be gone.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::rows::{self, LIVE_BYTES};
use super::sorter::{Sorted, Sorter};
use super::survey::spooled;
use super::{SeenSnapshot, SurveyOptions};
use crate::format::{BlobId, ObjectId};
use crate::repo::reader::Reader;
use crate::repo::snapshots::{self, Loaded, SnapshotKey};
use crate::repo::walk::{Sink, Walk};
use crate::repo::{Error, Repository, Result, aside};

/// Missing blobs that are remembered, to find the snapshots that need them.
pub(super) const MISSING_KEPT: usize = 10_000;

/// What was read of the snapshots.
pub(super) struct Live {
    pub(super) snapshots: Vec<SeenSnapshot>,
    pub(super) damaged: Vec<(String, String)>,
    late: Vec<SnapshotKey>,
    walk: Walk,
    sink: LiveSink,
}

/// Live blobs into the sorter.
struct LiveSink {
    blobs: Sorter<LIVE_BYTES>,
    late: bool,
    /// Lists of listed snapshots that cannot be read.
    unreadable: HashSet<BlobId>,
    folder: std::path::PathBuf,
}

impl Sink for LiveSink {
    fn blob(&mut self, id: &BlobId, _: u32) -> Result<()> {
        let pushed = self.blobs.push(rows::live(id, self.late));
        pushed.map_err(|error| spooled(&self.folder, error))
    }

    fn unreadable(&mut self, id: &BlobId, error: Error) -> Result<()> {
        tracing::debug!(%id, %error, late = self.late, "a list cannot be read");
        if !self.late {
            self.unreadable.insert(*id);
        }
        Ok(())
    }
}

/// LIST snapshots/ and GET every one (404: it was forgotten meanwhile). What they name directly is noted.
pub(super) async fn read_snapshots(repository: &Repository, options: &SurveyOptions, listed: Vec<SnapshotKey>) -> Result<Live> {
    let share = options.memory_bytes / 8;
    let mut live = Live {
        snapshots: Vec::new(),
        damaged: Vec::new(),
        late: Vec::new(),
        walk: Walk::new(options.memory_bytes / 16),
        sink: LiveSink {
            blobs: Sorter::new(usize::try_from(share).unwrap_or(usize::MAX), &options.spool_folder),
            late: false,
            unreadable: HashSet::new(),
            folder: options.spool_folder.clone(),
        },
    };
    for key in listed {
        if let Some(loaded) = options.known.get(&key.key) {
            live.note(key, loaded)?;
            continue;
        }
        match snapshots::load(repository, &key).await {
            Ok(Some(loaded)) => live.note(key, &loaded)?,
            Ok(None) => {}
            Err(error @ Error::Damaged { .. }) => live.damaged.push((key.key, format!("{:#}", Chain(&error)))),
            Err(error) => return Err(error),
        }
    }
    Ok(live)
}

/// An error with its causes, as one line.
struct Chain<'a>(&'a Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// The lists of all snapshots have been followed.
pub(super) struct Followed {
    pub(super) snapshots: Vec<SeenSnapshot>,
    pub(super) damaged: Vec<(String, String)>,
    pub(super) blobs: Sorted<LIVE_BYTES>,
    pub(super) unreadable: HashSet<BlobId>,
}

impl Live {
    fn note(&mut self, key: SnapshotKey, loaded: &Loaded) -> Result<()> {
        if loaded.late {
            self.late.push(key.clone());
        } else {
            self.walk.begin(&loaded.snapshot, &mut self.sink)?;
        }
        self.snapshots.push(SeenSnapshot {
            key: key.key,
            id: key.id,
            late: loaded.late,
        });
        Ok(())
    }

    /// Follow every list.
    pub(super) async fn follow(mut self, repository: &Repository, reader: &Reader) -> Result<Followed> {
        self.walk.finish(reader, &mut self.sink).await?;
        // Late ones are read a second time rather than kept: in a mirrored bucket all are late.
        self.sink.late = true;
        for key in &self.late {
            if let Some(loaded) = snapshots::load(repository, key).await? {
                self.walk.begin(&loaded.snapshot, &mut self.sink)?;
                self.walk.finish(reader, &mut self.sink).await?;
            }
        }
        let folder = self.sink.folder.clone();
        let blobs = blocking(&folder, move || self.sink.blobs.finish()).await?;
        Ok(Followed {
            snapshots: self.snapshots,
            damaged: self.damaged,
            blobs,
            unreadable: self.sink.unreadable,
        })
    }
}

/// Sorting, on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(folder: &Path, work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    aside::work(work).await?.map_err(|error| spooled(folder, error))
}

/// The listed snapshots that need one of these blobs. Each is walked on its own, so this is for when something is wrong.
pub(super) async fn concerned(
    repository: &Repository,
    reader: &Reader,
    seen: &[SeenSnapshot],
    missing: &HashSet<BlobId>,
    options: &SurveyOptions,
) -> Result<Vec<ObjectId>> {
    let mut concerned = BTreeSet::new();
    for snapshot in seen.iter().filter(|snapshot| !snapshot.late) {
        let key = SnapshotKey {
            key: snapshot.key.clone(),
            id: snapshot.id,
            last_modified: jiff::Timestamp::UNIX_EPOCH,
        };
        let Some(loaded) = snapshots::load(repository, &key).await? else {
            continue;
        };
        let mut search = Search { missing, found: false };
        let mut walk = Walk::new(options.memory_bytes / 16);
        walk.begin(&loaded.snapshot, &mut search)?;
        walk.finish(reader, &mut search).await?;
        if search.found {
            concerned.insert(snapshot.id);
        }
    }
    Ok(concerned.into_iter().collect())
}

/// Is one of these among the blobs?
struct Search<'a> {
    missing: &'a HashSet<BlobId>,
    found: bool,
}

impl Sink for Search<'_> {
    fn blob(&mut self, id: &BlobId, _: u32) -> Result<()> {
        self.found |= self.missing.contains(id);
        Ok(())
    }

    fn unreadable(&mut self, _: &BlobId, _: Error) -> Result<()> {
        self.found = true;
        Ok(())
    }
}
