//! P1 to P5: looking, in exactly this order, each request after the answer of the one before.
//!
//! The store's time comes first, then the markers, the snapshots, the index and the packs. So a snapshot that counts and relies
//! on a pack with an old marker is seen, and a pack that is seen was not deleted since the markers were read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::compact::is_large;
use super::live::{Followed, blocking, concerned, read_snapshots};
use super::rows::{LINE_BYTES, Line};
use super::sorter::Sorter;
use super::{Missing, NO_RUN, SeenPack, SeenSegment, Share, Survey, SurveyOptions, join};
use crate::format::index::SegmentRead;
use crate::format::{self, ObjectId, PackId, PackKind, keys};
use crate::repo::catalog::{Catalog, ENTRY_BYTES, FOREIGN_NAMED_MAX, Presence, each_listed, each_segment};
use crate::repo::reader::Reader;
use crate::repo::snapshots;
use crate::repo::{Error, Repository, Result};
use crate::store::uploads::OpenUpload;
use crate::store::{self, Listed};

/// An LM so much after `now` means that the store's times cannot be believed (P6).
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(1);

/// So many lines of a large segment stand for all of them.
const LINES_SAMPLED: usize = 1024;
/// A large segment is written anew when one line in so many is dead.
const DEAD_LINES: usize = 4;

/// A scratch file that could not be written or read.
pub(super) fn spooled(folder: &Path, source: io::Error) -> Error {
    Error::Spool {
        folder: folder.display().to_string(),
        source,
    }
}

/// Look at everything.
pub async fn survey(repository: &Repository, options: &SurveyOptions) -> Result<Survey> {
    let mut times = Times::default();
    // P1: the store's time in an answer that came before P2 was asked.
    let now = repository.date().await?;
    let grace = SignedDuration::from_secs(i64::try_from(repository.info().grace_seconds).unwrap_or(i64::MAX));
    // P2: the markers.
    let mut markers = HashMap::new();
    each_listed(repository, keys::CONDEMNED, |object| {
        times.see(&object);
        if let Some(pack) = keys::parse_condemned(&object.key) {
            markers.insert(pack, object.last_modified);
        }
    })
    .await?;
    // P3: the snapshots. (What they name is followed when the packs are known.)
    let mut listed = snapshots::list(repository).await?;
    listed.retain(|key| !options.forgotten.contains(&key.key));
    for key in &listed {
        times.see_at(&key.key, key.last_modified);
    }
    let ids: HashSet<ObjectId> = listed.iter().map(|key| key.id).collect();
    let live = read_snapshots(repository, options, listed).await?;
    // P4: the index.
    let mut index = read_index(repository, options).await?;
    index
        .segments
        .iter()
        .for_each(|segment| times.see_at(&segment.key, segment.last_modified));
    // P5: the packs.
    let mut presence = Presence::default();
    let mut landed = HashMap::new();
    let date = each_listed(repository, keys::PACKS, |object| {
        times.see(&object);
        if let Some(pack) = keys::parse_pack(&object.key) {
            presence.packs.insert(pack, object.bytes);
            landed.insert(pack, object.last_modified);
        }
    })
    .await?;
    presence.date = Some(date);
    presence.condemned.extend(markers.keys().copied());
    index.note_dead(&presence);
    let rest = read_rest(repository, now, grace, &ids).await?;

    let mut packs = index.packs(&presence, &landed, &markers, now, grace);
    if let Some(reseal) = options.reseal {
        let done = index.named_by(reseal.run);
        for (pack, _) in packs.iter_mut().zip(0_u32..).filter(|(_, at)| !done.contains(at)) {
            pack.reseal = pack.usable() && (reseal.data || pack.kind == Some(PackKind::Metadata));
        }
    }
    let mut catalog = std::mem::take(&mut index.catalog);
    catalog.sort();
    catalog.note(&presence);
    let reader = Reader::with_catalog(repository, Arc::new(catalog), options.memory_bytes / 2, options.connections);
    let folder = options.spool_folder.clone();
    let lines = blocking(&folder, move || index.lines.finish()).await?;
    let followed = live.follow(repository, &reader).await?;
    let Followed {
        snapshots,
        damaged,
        blobs,
        unreadable,
    } = followed;
    let share = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let joining = folder.clone();
    let framed = options.frames.then(|| Sorter::new(share, &folder));
    let joined = blocking(&folder, move || join::join(packs, &lines, &blobs, framed, share, &joining)).await?;
    let mut missing = Missing {
        blobs: joined.missing_blobs + unreadable.len() as u64,
        snapshots: Vec::new(),
    };
    if missing.blobs > 0 {
        let lost = joined.missing.union(&unreadable).copied().collect();
        missing.snapshots = concerned(repository, &reader, &snapshots, &lost, options).await?;
    }
    let present = &presence.packs;
    Ok(Survey {
        now,
        grace,
        can_open_data: options.can_open_data,
        run: options.reseal.map(|reseal| reseal.run),
        snapshots,
        damaged_snapshots: damaged,
        damaged_segments: index.damaged,
        segments: index.segments,
        orphan_markers: {
            let orphans: BTreeSet<PackId> = markers.keys().copied().filter(|pack| !present.contains_key(pack)).collect();
            orphans.into_iter().collect()
        },
        packs: joined.packs,
        ahead: times.ahead(now),
        missing,
        live: joined.live,
        foreign: rest.foreign,
        foreign_count: rest.foreign_count,
        leftovers: rest.leftovers,
        stale_uploads: read_uploads(repository, now, grace).await?,
        moves: Arc::new(joined.moves),
        framed: joined.framed,
    })
}

/// The latest LM of all.
#[derive(Default)]
struct Times {
    latest: Option<(Timestamp, String)>,
}

impl Times {
    fn see(&mut self, object: &Listed) {
        self.see_at(&object.key, object.last_modified);
    }

    fn see_at(&mut self, key: &str, last_modified: Timestamp) {
        if self.latest.as_ref().is_none_or(|(latest, _)| last_modified > *latest) {
            self.latest = Some((last_modified, key.to_owned()));
        }
    }

    fn ahead(self, now: Timestamp) -> Option<(String, Timestamp)> {
        let (latest, key) = self.latest?;
        (latest.duration_since(now) > AHEAD_MAX).then_some((key, latest))
    }
}

/// What the index says.
pub(super) struct Index {
    /// Packs by their place, and where metadata are.
    pub(super) catalog: Catalog,
    pub(super) lines: Sorter<LINE_BYTES>,
    segments: Vec<SeenSegment>,
    damaged: Vec<(String, String)>,
    /// When each run wrote its last segment.
    runs: HashMap<ObjectId, Timestamp>,
    /// Which runs name a pack.
    named: Vec<(u32, ObjectId)>,
}

pub(super) async fn read_index(repository: &Repository, options: &SurveyOptions) -> Result<Index> {
    let share = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let begin = || Index {
        catalog: Catalog::default(),
        lines: Sorter::new(share, &options.spool_folder),
        segments: Vec::new(),
        damaged: Vec::new(),
        runs: HashMap::new(),
        named: Vec::new(),
    };
    each_segment(
        repository,
        |_| true,
        begin,
        |index, listed, segment| {
            let added = segment.and_then(|segment| index.add(listed, &segment, share / ENTRY_BYTES));
            match added {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(spooled(&options.spool_folder, error)),
                Err(error) => {
                    index.damaged.push((listed.key.clone(), error.to_string()));
                    Ok(())
                }
            }
        },
    )
    .await
}

impl Index {
    fn add(&mut self, listed: &Listed, segment: &SegmentRead<'_>, entries_max: usize) -> format::Result<io::Result<()>> {
        // What leads to other blobs is kept at hand.
        self.catalog.add(segment, entries_max, |pack| pack.kind == PackKind::Metadata)?;
        let ordinals = self.catalog.ordinals(segment);
        if segment.run != NO_RUN {
            let last = self.runs.entry(segment.run).or_insert(listed.last_modified);
            *last = listed.last_modified.max(*last);
            self.named.extend(ordinals.iter().map(|ordinal| (*ordinal, segment.run)));
        }
        // Lines stand in the order of hashes, so every so manyth is as good as chance.
        let step = if is_large(listed.bytes) {
            segment.len().div_ceil(LINES_SAMPLED)
        } else {
            usize::MAX
        };
        let mut sample = Vec::new();
        for (at, entry) in (1..).zip(segment.entries()) {
            let entry = entry?;
            let pack = ordinals[entry.pack as usize];
            if at % step.max(1) == 0 {
                sample.push(pack);
            }
            if let Err(error) = self.lines.push(Line { pack, blob: entry.blob }.encode()) {
                return Ok(Err(error));
            }
        }
        self.segments.push(SeenSegment {
            key: listed.key.clone(),
            last_modified: listed.last_modified,
            bytes: listed.bytes,
            sample,
            shrinks: false,
        });
        Ok(Ok(()))
    }

    /// Which large segments are worth to be written anew.
    fn note_dead(&mut self, presence: &Presence) {
        let packs = self.catalog.packs();
        for segment in &mut self.segments {
            let sample = std::mem::take(&mut segment.sample);
            let is_dead = |at: &&u32| !presence.packs.contains_key(&packs[**at as usize].id);
            segment.shrinks = !sample.is_empty() && sample.iter().filter(is_dead).count() * DEAD_LINES >= sample.len();
        }
    }

    /// The places of packs that a segment of this run names.
    fn named_by(&self, run: ObjectId) -> HashSet<u32> {
        let named = self.named.iter().filter(|(_, by)| *by == run);
        named.map(|(ordinal, _)| *ordinal).collect()
    }

    /// The packs of the index in their places, and behind them those that no segment names.
    fn packs(
        &self,
        presence: &Presence,
        landed: &HashMap<PackId, Timestamp>,
        markers: &HashMap<PackId, Timestamp>,
        now: Timestamp,
        grace: SignedDuration,
    ) -> Vec<SeenPack> {
        let seen = |id: PackId, kind: Option<PackKind>, indexed_bytes: u64| SeenPack {
            id,
            kind,
            indexed_bytes,
            present_bytes: presence.packs.get(&id).copied(),
            last_modified: landed.get(&id).copied(),
            marked: markers.get(&id).copied(),
            active: false,
            reseal: false,
            shares: false,
            all: Share::default(),
            live: Share::default(),
            kept: Share::default(),
            stranded: Share::default(),
            rescued: Share::default(),
        };
        let indexed = self.catalog.packs().iter().map(|pack| seen(pack.id, Some(pack.kind), pack.bytes));
        let mut packs: Vec<SeenPack> = indexed.collect();
        for (ordinal, run) in &self.named {
            let recent = self.runs.get(run).is_some_and(|last| now.duration_since(*last) < grace);
            packs[*ordinal as usize].active |= recent;
        }
        let unnamed: BTreeSet<PackId> = presence
            .packs
            .keys()
            .copied()
            .filter(|id| self.catalog.pack(*id).is_none())
            .collect();
        packs.extend(unnamed.into_iter().map(|id| seen(id, None, 0)));
        packs
    }
}

/// What else lies under the prefix.
#[derive(Default)]
struct Rest {
    foreign: Vec<String>,
    foreign_count: u64,
    leftovers: Vec<String>,
}

/// Small facts that are no longer needed, and objects that are not ours: those are told of and left alone.
async fn read_rest(repository: &Repository, now: Timestamp, grace: SignedDuration, snapshots: &HashSet<ObjectId>) -> Result<Rest> {
    let mut rest = Rest::default();
    each_listed(repository, "", |object| {
        // What is younger may belong to a snapshot that landed after P3.
        let old = now.duration_since(object.last_modified) > grace;
        let facts = keys::parse_tags(&object.key).or_else(|| keys::parse_drill(&object.key));
        let needed = facts.is_some_and(|(snapshot, _)| snapshots.contains(&snapshot));
        if !keys::is_ours(&object.key) {
            rest.foreign_count += 1;
            if rest.foreign.len() < FOREIGN_NAMED_MAX {
                rest.foreign.push(object.key);
            }
        } else if old && !needed && (facts.is_some() || keys::parse_probe(&object.key).is_some()) {
            rest.leftovers.push(object.key);
        }
    })
    .await?;
    Ok(rest)
}

/// Uploads of runs that were killed. A store that lists none, or will not tell, cleans up by itself or does not.
async fn read_uploads(repository: &Repository, now: Timestamp, grace: SignedDuration) -> Result<Vec<OpenUpload>> {
    let Some(uploads) = repository.store.uploads() else {
        return Ok(Vec::new());
    };
    match uploads.list_uploads(keys::PACKS).await {
        Ok(mut open) => {
            open.retain(|upload| now.duration_since(upload.begun) > grace);
            Ok(open)
        }
        Err(error @ (store::Error::Denied { .. } | store::Error::Failed { .. })) => {
            tracing::debug!(%error, "open uploads are not listed");
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}
