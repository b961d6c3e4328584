//! `stats`: where the bytes are. What there would be without deduplication, what deduplication and compression leave of it,
//! what is dead or condemned, and what only one snapshot holds.
//!
//! What lives is found by prune's own survey, so `stats` and `prune` never disagree, and memory is bounded as there. What a blob takes
//! is its share of its frame, so nothing is estimated by pack: of every pack that is not condemned, what is needed, what is dead and
//! the overhead add up to its length.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::prune::PROGRAM_BYTES;
use super::{Limits, Run};
use crate::format::PackKind;
use crate::format::snapshot::{Problem, ProblemKind};
use crate::repo::sweep::{self, FrameBytes, SeenPack, Survey, SurveyOptions, Weighed};
use crate::repo::{Repository, snapshots, tags};

/// How.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Where rows are spooled that do not fit into memory.
    pub spool_folder: PathBuf,
}

/// Packs of one kind, or all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Packs.
    pub packs: u64,
    /// Raw bytes that snapshots need, late ones too, each blob once.
    pub deduplicated_bytes: u64,
    /// What those take, compressed: of a frame in which something is dead, the share of what is needed by raw bytes.
    pub compressed_bytes: u64,
    /// The lengths of all packs.
    pub stored_bytes: u64,
    /// In packs that are not condemned, what no snapshot needs, or what another pack has as well. The whole of a pack that no segment
    /// names.
    pub dead_bytes: u64,
    /// In packs that are not condemned, the tables of contents and what sealing adds.
    pub overhead_bytes: u64,
    /// The lengths of packs that are marked to be deleted, whether something in them is still needed or not.
    pub condemned_bytes: u64,
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Its id.
    pub id: String,
    /// When it was taken.
    pub time: String,
    /// Whose.
    pub server_name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// It does not count.
    pub late: bool,
    /// Raw bytes of its dump streams, files and media; lists and shards left out.
    pub raw_bytes: u64,
    /// Raw bytes of the blobs, lists and shards too, that no other snapshot has, late ones too.
    pub only_raw_bytes: u64,
    /// What those take, compressed. So much is dead when it is forgotten, and comes back when their packs are deleted or rebuilt.
    pub only_stored_bytes: u64,
}

/// Everything.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Raw bytes of all snapshots, as if each were alone, and with everything as often as it is in them; lists and shards left out.
    pub raw_bytes: u64,
    /// All packs.
    #[serde(flatten)]
    pub all: Figures,
    /// The index.
    pub index_bytes: u64,
    /// Database, media (with configuration), metadata, and `unnamed`: packs that no segment names.
    pub kinds: BTreeMap<&'static str, Figures>,
    /// Each snapshot, oldest first.
    pub snapshots: Vec<Held>,
    /// What could not be read, or is not there: what it needs is not in the figures. Exit code 3.
    pub problems: Vec<Problem>,
}

/// Count.
pub async fn stats(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let survey_options = SurveyOptions {
        memory_bytes: options.limits.memory_bytes.saturating_sub(PROGRAM_BYTES),
        connections: options.limits.connections,
        spool_folder: options.spool_folder.clone(),
        can_open_data: false,
        forgotten: std::collections::BTreeSet::new(),
        reseal: None,
        known: std::sync::Arc::default(),
        frames: true,
    };
    run.progress.stage("survey", None, None);
    let mut survey = run.until_cancelled(Box::pin(sweep::survey(repository, &survey_options))).await?;
    let weighed = run.until_cancelled(sweep::weigh(&mut survey, &survey_options)).await?;
    run.progress.done("survey");
    let mut report = of_packs(&survey, &weighed);
    drop(survey);
    run.progress.stage("snapshots", None, None);
    let only = sweep::only_held(repository, weighed, &survey_options);
    let only = run.until_cancelled(Box::pin(only)).await?;
    let (loaded, _) = run
        .until_cancelled(snapshots::load_all(repository))
        .await
        .context("load the snapshots")?;
    let mut loaded = snapshots::unique(repository, loaded);
    run.until_cancelled(tags::overlay(repository, &mut loaded)).await?;
    run.progress.done("snapshots");
    for one in &loaded {
        let held = only.get(&one.snapshot.id).copied().unwrap_or_default();
        let raw_bytes = one.snapshot.raw_bytes();
        report.raw_bytes = report.raw_bytes.saturating_add(raw_bytes);
        report.snapshots.push(Held {
            id: one.snapshot.id.to_string(),
            time: one.time().to_string(),
            server_name: one.snapshot.server_name.clone(),
            tags: one.tags.clone(),
            late: one.late,
            raw_bytes,
            only_raw_bytes: held.share.raw_bytes,
            only_stored_bytes: held.stored_bytes,
        });
    }
    Ok(report)
}

fn of_packs(survey: &Survey, weighed: &Weighed) -> Report {
    let mut report = Report {
        index_bytes: survey.segments.iter().map(|segment| segment.bytes).sum(),
        problems: problems(survey),
        ..Report::default()
    };
    for (pack, bytes) in survey.packs.iter().zip(&weighed.packs) {
        let kind = match pack.kind {
            Some(PackKind::Database) => "database",
            Some(PackKind::Media) => "media",
            Some(PackKind::Metadata) => "metadata",
            None => "unnamed",
        };
        report.all.add(pack, *bytes);
        report.kinds.entry(kind).or_default().add(pack, *bytes);
    }
    report
}

fn problems(survey: &Survey) -> Vec<Problem> {
    let unread = survey.damaged_snapshots.iter().chain(&survey.damaged_segments);
    let damaged = unread.map(|(key, reason)| Problem {
        kind: ProblemKind::Damaged,
        item: key.clone(),
        message: format!("it cannot be read, so what it names is not counted: {reason}"),
    });
    let missing = &survey.missing;
    let lost = missing.snapshots.iter().map(|id| Problem {
        kind: ProblemKind::Missing,
        item: format!("snapshot {id}"),
        message: format!(
            "it needs some of the {} blobs that are in no pack that is there and indexed",
            missing.blobs
        ),
    });
    damaged.chain(lost).collect()
}

impl Figures {
    fn add(&mut self, pack: &SeenPack, bytes: FrameBytes) {
        let Some(present) = pack.present_bytes else { return };
        // Of several copies of a blob one is needed: that in a usable pack, or else the one that would be moved.
        let needed = if pack.usable() { pack.kept } else { pack.rescued };
        self.packs += 1;
        self.stored_bytes += present;
        self.deduplicated_bytes += needed.raw_bytes;
        self.compressed_bytes += bytes.needed;
        if pack.marked.is_some() {
            self.condemned_bytes += present;
        } else if pack.readable() {
            self.dead_bytes += bytes.all.saturating_sub(bytes.needed);
            self.overhead_bytes += present.saturating_sub(bytes.all);
        } else {
            self.dead_bytes += present;
        }
    }
}
