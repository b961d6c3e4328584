//! P6 and P7: what is to be done, decided from a survey alone. What is planned is printed, and what was printed is applied.
//!
//! *Delete* is the rule that must hold. What to condemn and what to move is thrift: nothing but work depends on it, so a
//! pack is moved when that frees more than it costs, and small packs of many nights are merged when they have become many.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Missing, SeenPack, Survey};
use crate::format::{FRAME_FILL_BYTES, PackId, PackKind};
use crate::repo::writer::PACK_BYTES;
use crate::store::uploads::OpenUpload;

#[cfg(test)]
use crate::repo::bugs::{Bug, planted};

/// Packs shorter than this are small: a quarter of a full one.
const SMALL_BYTES: u64 = PACK_BYTES / 4;
/// Small packs of a kind and size are merged when there are so many.
const SMALL_MAX: usize = 8;
/// Then so many of them at least, and more as long as little waits for the grace period.
const MERGED_MIN: usize = 4;
/// Below this they are all of one size: moving them costs a request or two, and together they fill a frame, in which what is
/// alike is compressed together.
const TINY_BYTES: u64 = FRAME_FILL_BYTES as u64;
/// A pack is mostly dead when moving what lives frees at least as much as it moves.
const DEAD_SHARE: u64 = 2;
/// As long as dead bytes are more than one in so many of the live ones, packs that are less dead are moved as well.
const SLACK_SHARE: u64 = 12;
/// But never one of which less than one in so many bytes is dead.
const DEAD_SHARE_MIN: u64 = 8;
/// Bytes of one ranged GET while moving, for the reckoning of requests.
const READ_BYTES: u64 = 8 << 20;

/// What a plan is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// Move at most so many stored bytes in this run.
    pub repack_bytes_max: Option<u64>,
    /// The store charges for at least so long: younger packs are not moved only to save space.
    pub storage_min: Option<SignedDuration>,
}

/// Why nothing may be deleted (P6).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A snapshot cannot be read, so nobody knows what it needs.
    #[error("{count} snapshots cannot be read, the first is `{key}`: {reason}")]
    DamagedSnapshots {
        /// How many.
        count: usize,
        /// The first.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Live blobs are in no present, indexed pack, and a segment that may name them cannot be read.
    #[error(
        "segment `{key}` cannot be read ({reason}), and {} blobs that snapshots need are in no pack that the others name: {}",
        .missing.blobs,
        names(.missing)
    )]
    DamagedSegment {
        /// The first of them.
        key: String,
        /// What is wrong with it.
        reason: String,
        /// What the others do not name.
        missing: Missing,
    },
    /// Live blobs are in no present, indexed pack.
    #[error("{} blobs that snapshots need are in no pack that is there and indexed: {}", .0.blobs, names(.0))]
    Missing(Missing),
    /// The store's times cannot be believed.
    #[error("`{key}` landed at {last_modified}, more than an hour after the store's own time {now}")]
    Ahead {
        /// The object.
        key: String,
        /// When it landed.
        last_modified: Timestamp,
        /// P1.
        now: Timestamp,
    },
}

fn names(missing: &Missing) -> String {
    let names = missing.snapshots.iter().map(|id| id.to_string()[..8].to_owned());
    format!("snapshots {}", names.collect::<Vec<_>>().join(", "))
}

impl Refused {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::DamagedSnapshots { .. } => "nothing was deleted; `synapse-backup forget` of that snapshot lets prune go on".into(),
            Self::DamagedSegment { .. } => {
                "nothing was deleted; `synapse-backup verify --repair-index` names anew what it named, and says what is lost and whether that object can be deleted".into()
            }
            // A lost segment looks the same as lost packs: whoever forgot these snapshots first would lose what is there.
            Self::Missing(_) => "nothing was deleted; `synapse-backup verify --repair-index` first: it names anew what is there and says what is lost; only then `forget` of what lost something lets prune go on".into(),
            Self::Ahead { .. } => "nothing was deleted; look at the clock of the store, and run prune again later".into(),
        }
    }
}

/// Why a pack is condemned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No snapshot needs a blob of it.
    Dead,
    /// Everything live in it is in other usable packs as well.
    Redundant,
    /// Most of it is dead; what lives is moved, or where data cannot be opened, sent again by the next backup.
    MostlyDead,
    /// One of many small packs that are merged.
    Small,
    /// It was condemned before, and something in it lives.
    Stranded,
    /// It is sealed to others than it should be.
    Resealed,
}

/// A pack whose marker is older than the grace period: it goes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Its id.
    pub id: PackId,
    /// Its length.
    pub bytes: u64,
    /// When it landed.
    pub landed: Option<Timestamp>,
}

/// A pack that is marked now and goes after the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Condemned {
    /// Its id.
    pub id: PackId,
    /// Its length.
    pub bytes: u64,
    /// Why.
    pub why: Why,
    /// When it landed.
    pub landed: Option<Timestamp>,
}

/// A pack whose live blobs are moved; then it is marked, unless it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Repacked {
    /// Its id.
    pub id: PackId,
    /// What it holds.
    pub kind: PackKind,
    /// Its length.
    pub bytes: u64,
    /// Stored bytes that are moved, about.
    pub live_bytes: u64,
    /// Blobs that are moved.
    pub live_blobs: u64,
    /// Why.
    pub why: Why,
    /// When it landed.
    pub landed: Option<Timestamp>,
}

/// An upload that a killed run left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleUpload {
    /// The key it was for.
    pub key: String,
    /// Its name.
    pub id: String,
    /// When it was begun.
    pub begun: Timestamp,
}

impl From<&OpenUpload> for StaleUpload {
    fn from(upload: &OpenUpload) -> Self {
        Self {
            key: upload.key.clone(),
            id: upload.id.0.clone(),
            begun: upload.begun,
        }
    }
}

/// What will be done, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// P1, by which ages were judged.
    pub now: Timestamp,
    /// How long a condemned pack stays, in seconds.
    pub grace_seconds: i64,
    /// Packs that are deleted now, then their markers.
    pub delete: Vec<Deleted>,
    /// Packs that are marked.
    pub condemn: Vec<Condemned>,
    /// Packs whose live blobs are moved.
    pub repack: Vec<Repacked>,
    /// Markers of packs that are gone.
    pub orphan_markers: Vec<PackId>,
    /// Small facts that are no longer needed.
    pub leftovers: Vec<String>,
    /// Uploads of killed runs that are aborted.
    pub abort: Vec<StaleUpload>,
    /// Objects that are not ours, the first of them: they are left alone.
    pub foreign: Vec<String>,
    /// How many they are.
    pub foreign_count: u64,
    /// Bytes that come back now.
    pub bytes_now: u64,
    /// Bytes that come back after the grace period, from packs that are marked now or were marked before.
    pub bytes_after_grace: u64,
    /// Stored bytes that are read and written again, about.
    pub bytes_moved: u64,
    /// Requests to the store, about.
    pub requests: u64,
}

impl Plan {
    /// Nothing yet.
    pub(super) fn of(survey: &Survey) -> Self {
        Self {
            now: survey.now,
            grace_seconds: survey.grace.as_secs(),
            delete: Vec::new(),
            condemn: Vec::new(),
            repack: Vec::new(),
            orphan_markers: Vec::new(),
            leftovers: Vec::new(),
            abort: Vec::new(),
            foreign: Vec::new(),
            foreign_count: 0,
            bytes_now: 0,
            bytes_after_grace: 0,
            bytes_moved: 0,
            requests: 0,
        }
    }

    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
            && self.condemn.is_empty()
            && self.repack.is_empty()
            && self.orphan_markers.is_empty()
            && self.leftovers.is_empty()
            && self.abort.is_empty()
    }
}

impl SeenPack {
    pub(super) fn is_small(&self) -> bool {
        self.present_bytes.is_some_and(|bytes| bytes < SMALL_BYTES)
    }

    fn dead_bytes(&self) -> u64 {
        self.present_bytes.unwrap_or(0).saturating_sub(self.stored_bytes(self.kept))
    }
}

/// Decide. Pure: the same survey gives the same plan.
pub fn plan(survey: &Survey, options: &PlanOptions) -> Result<Plan, Refused> {
    refuse(survey)?;
    let mut plan = Plan {
        orphan_markers: survey.orphan_markers.clone(),
        leftovers: survey.leftovers.clone(),
        abort: survey.stale_uploads.iter().map(StaleUpload::from).collect(),
        foreign: survey.foreign.clone(),
        foreign_count: survey.foreign_count,
        ..Plan::of(survey)
    };
    let mut budget = options.repack_bytes_max.unwrap_or(u64::MAX);
    for pack in &survey.packs {
        marked(survey, pack, &mut plan, &mut budget);
    }
    let mut partly = Vec::new();
    for pack in survey.packs.iter().filter(|pack| may_condemn(survey, pack)) {
        if pack.kept.blobs > 0 {
            partly.push(pack);
        } else {
            let why = if pack.live.blobs == 0 { Why::Dead } else { Why::Redundant };
            condemn(pack, why, &mut plan);
        }
    }
    if let Some(storage_min) = options.storage_min {
        partly.retain(|pack| {
            pack.last_modified
                .is_some_and(|landed| survey.now.duration_since(landed) > storage_min)
        });
    }
    mostly_dead(survey, &mut partly, &mut plan, &mut budget);
    small(survey, &partly, &mut plan, &mut budget);
    sum(&mut plan);
    Ok(plan)
}

/// P6: stop, delete nothing.
pub(super) fn refuse(survey: &Survey) -> Result<(), Refused> {
    if let Some((key, last_modified)) = &survey.ahead {
        return Err(Refused::Ahead {
            key: key.clone(),
            last_modified: *last_modified,
            now: survey.now,
        });
    }
    if let Some((key, reason)) = survey.damaged_snapshots.first() {
        return Err(Refused::DamagedSnapshots {
            count: survey.damaged_snapshots.len(),
            key: key.clone(),
            reason: reason.clone(),
        });
    }
    if survey.missing.blobs == 0 {
        return Ok(());
    }
    let missing = survey.missing.clone();
    Err(match survey.damaged_segments.first() {
        Some((key, reason)) => Refused::DamagedSegment {
            key: key.clone(),
            reason: reason.clone(),
            missing,
        },
        None => Refused::Missing(missing),
    })
}

/// A segment that cannot be read hides lines of any pack, also of those that other segments name: nobody knows then what is dead.
fn is_known(survey: &Survey) -> bool {
    survey.damaged_segments.is_empty()
}

/// P7, delete: it has a marker, older than the grace period, and each of its live blobs is in another usable pack. What
/// lives and is in no usable pack is moved out of it.
fn marked(survey: &Survey, pack: &SeenPack, plan: &mut Plan, budget: &mut u64) {
    let (Some(marked), Some(bytes)) = (pack.marked, pack.present_bytes) else {
        return;
    };
    #[cfg(test)]
    if planted(Bug::MarkerTakenBack) && pack.live.blobs > 0 {
        plan.orphan_markers.push(pack.id);
        return;
    }
    if pack.stranded.blobs > 0 {
        if pack.rescued.blobs > 0 {
            repack(survey, pack, Why::Stranded, plan, budget);
        }
    } else if survey.now.duration_since(marked) > survey.grace && is_known(survey) {
        plan.delete.push(Deleted {
            id: pack.id,
            bytes,
            landed: pack.last_modified,
        });
    } else {
        plan.bytes_after_grace += bytes;
    }
}

/// P7, condemn: for thrift not what is younger than the grace period, or belongs to a run that was at work within it.
pub(super) fn may_condemn(survey: &Survey, pack: &SeenPack) -> bool {
    let settled = pack
        .last_modified
        .is_some_and(|landed| survey.now.duration_since(landed) > survey.grace);
    pack.present_bytes.is_some() && pack.marked.is_none() && settled && !pack.active && is_known(survey)
}

pub(super) fn condemn(pack: &SeenPack, why: Why, plan: &mut Plan) {
    plan.condemn.push(Condemned {
        id: pack.id,
        bytes: pack.present_bytes.unwrap_or(0),
        why,
        landed: pack.last_modified,
    });
}

/// Move what lives in a pack, if its frames can be read and the budget allows; true when it is planned.
pub(super) fn repack(survey: &Survey, pack: &SeenPack, why: Why, plan: &mut Plan, budget: &mut u64) -> bool {
    let moved = if pack.marked.is_some() { pack.rescued } else { pack.kept };
    let live_bytes = pack.stored_bytes(moved);
    let Some(kind) = pack.kind else { return false };
    if !can_open(survey, pack) || live_bytes > *budget {
        return false;
    }
    *budget -= live_bytes;
    plan.repack.push(Repacked {
        id: pack.id,
        kind,
        bytes: pack.present_bytes.unwrap_or(0),
        live_bytes,
        live_blobs: moved.blobs,
        why,
        landed: pack.last_modified,
    });
    true
}

fn can_open(survey: &Survey, pack: &SeenPack) -> bool {
    pack.readable() && (survey.can_open_data || pack.kind == Some(PackKind::Metadata))
}

/// Packs that are mostly dead, and those that are partly dead while too much of the whole is.
fn mostly_dead(survey: &Survey, partly: &mut Vec<&SeenPack>, plan: &mut Plan, budget: &mut u64) {
    let live = kept_bytes(survey);
    let mut dead: u64 = partly.iter().map(|pack| pack.dead_bytes()).sum();
    // The most dead first: they free the most for what they cost.
    let share = |pack: &SeenPack| u128::from(pack.dead_bytes()) * 1_000_000 / u128::from(pack.present_bytes.unwrap_or(1).max(1));
    partly.sort_by_key(|pack| (std::cmp::Reverse(share(pack)), pack.id));
    partly.retain(|pack| {
        let (bytes, gone) = (pack.present_bytes.unwrap_or(0), pack.dead_bytes());
        let wanted = gone >= bytes / DEAD_SHARE || dead > live / SLACK_SHARE && gone >= bytes / DEAD_SHARE_MIN;
        if !wanted {
            return true;
        }
        let planned = if can_open(survey, pack) {
            repack(survey, pack, Why::MostlyDead, plan, budget)
        } else if gone >= bytes / DEAD_SHARE {
            condemn(pack, Why::MostlyDead, plan);
            true
        } else {
            false
        };
        if planned {
            dead = dead.saturating_sub(gone);
        }
        !planned
    });
}

/// Small packs of one kind and about one size, when they have become many. Each merge makes larger ones, so a blob is moved
/// a few times in its life. The smallest go first, and what waits for the grace period on their account stays within the
/// slack.
fn small(survey: &Survey, partly: &[&SeenPack], plan: &mut Plan, budget: &mut u64) {
    let mut alike: BTreeMap<(Option<PackKind>, u32), Vec<&SeenPack>> = BTreeMap::new();
    for pack in partly.iter().filter(|pack| pack.is_small() && can_open(survey, pack)) {
        // Media do not compress together.
        let tiny = if pack.kind == Some(PackKind::Media) { 1 } else { TINY_BYTES - 1 };
        let size = pack.present_bytes.unwrap_or(0).max(tiny).ilog2() / 2;
        alike.entry((pack.kind, size)).or_default().push(pack);
    }
    let mut slack = kept_bytes(survey) / SLACK_SHARE;
    for mut packs in alike.into_values().filter(|packs| packs.len() >= SMALL_MAX) {
        packs.sort_by_key(|pack| (pack.present_bytes, pack.id));
        for (at, pack) in packs.into_iter().enumerate() {
            let bytes = pack.present_bytes.unwrap_or(0);
            if at >= MERGED_MIN && bytes > slack {
                break;
            }
            slack = slack.saturating_sub(bytes);
            repack(survey, pack, Why::Small, plan, budget);
        }
    }
}

/// Stored bytes of what lives in usable packs.
fn kept_bytes(survey: &Survey) -> u64 {
    let usable = survey.packs.iter().filter(|pack| pack.usable());
    usable.map(|pack| pack.stored_bytes(pack.kept)).sum()
}

pub(super) fn sum(plan: &mut Plan) {
    plan.bytes_now = plan.delete.iter().map(|pack| pack.bytes).sum();
    plan.bytes_moved = plan.repack.iter().map(|pack| pack.live_bytes).sum();
    let condemned: u64 = plan.condemn.iter().map(|pack| pack.bytes).sum();
    let emptied: u64 = plan.repack.iter().map(|pack| pack.bytes).sum();
    plan.bytes_after_grace += condemned + emptied;
    let reads: u64 = plan.repack.iter().map(|pack| 1 + pack.live_bytes.div_ceil(READ_BYTES)).sum();
    let writes = plan.bytes_moved.div_ceil(READ_BYTES) + 3 * plan.bytes_moved.div_ceil(PACK_BYTES);
    let marks = plan.condemn.len() + plan.repack.iter().filter(|pack| pack.why != Why::Stranded).count();
    let deletes = 2 * plan.delete.len() + plan.orphan_markers.len() + plan.leftovers.len() + plan.abort.len();
    plan.requests = reads + writes + (marks + deletes) as u64;
}
