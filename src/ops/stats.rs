//! `stats`: where the bytes are. What there would be without deduplication, what deduplication and compression leave of it,
//! what is dead or condemned, and what only one snapshot holds.
//!
//! The figures are those of prune's own survey, so `stats` and `prune` never disagree, and memory is bounded as there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::{Limits, Run};
use crate::format::PackKind;
use crate::repo::sweep::{self, SeenPack, Share, Survey, SurveyOptions};
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
    /// Raw bytes that snapshots need, each blob once.
    pub deduplicated_bytes: u64,
    /// What those take, compressed.
    pub compressed_bytes: u64,
    /// What all packs take.
    pub stored_bytes: u64,
    /// Of those, what no snapshot needs, or what another pack has as well.
    pub dead_bytes: u64,
    /// Packs that are marked to be deleted.
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
    /// Raw bytes of everything in it.
    pub raw_bytes: u64,
    /// Raw bytes that no other snapshot has.
    pub only_raw_bytes: u64,
    /// About so many bytes come back when it is forgotten.
    pub only_stored_bytes: u64,
}

/// Everything.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Raw bytes of all snapshots, each as if it were alone.
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
}

/// Count.
pub async fn stats(repository: &Repository, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let survey_options = SurveyOptions {
        memory_bytes: options.limits.memory_bytes,
        connections: options.limits.connections,
        spool_folder: options.spool_folder.clone(),
        can_open_data: false,
        forgotten: std::collections::BTreeSet::new(),
        reseal: None,
        known: std::sync::Arc::default(),
    };
    run.progress.stage("survey", None, None);
    let survey = run.until_cancelled(Box::pin(sweep::survey(repository, &survey_options))).await?;
    run.progress.done("survey");
    let mut report = of_packs(&survey);
    drop(survey);
    run.progress.stage("snapshots", None, None);
    let only = run.until_cancelled(Box::pin(sweep::only_held(repository, &survey_options))).await?;
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
            only_raw_bytes: held.raw_bytes,
            only_stored_bytes: scaled(held, &report.all),
        });
    }
    Ok(report)
}

/// Compression is taken to be even.
fn scaled(share: Share, all: &Figures) -> u64 {
    let raw = u128::from(all.deduplicated_bytes.max(1));
    let stored = u128::from(all.compressed_bytes) * u128::from(share.raw_bytes) / raw;
    u64::try_from(stored).unwrap_or(u64::MAX)
}

fn of_packs(survey: &Survey) -> Report {
    let mut report = Report {
        index_bytes: survey.segments.iter().map(|segment| segment.bytes).sum(),
        ..Report::default()
    };
    for pack in &survey.packs {
        let kind = match pack.kind {
            Some(PackKind::Database) => "database",
            Some(PackKind::Media) => "media",
            Some(PackKind::Metadata) => "metadata",
            None => "unnamed",
        };
        report.all.add(pack);
        report.kinds.entry(kind).or_default().add(pack);
    }
    report
}

impl Figures {
    fn add(&mut self, pack: &SeenPack) {
        let Some(present) = pack.present_bytes else { return };
        // Of several copies of a blob one is needed: that in a usable pack, or else the one that would be moved.
        let needed = if pack.usable() { pack.kept } else { pack.rescued };
        let needed_bytes = pack.stored_bytes(needed);
        self.packs += 1;
        self.stored_bytes += present;
        self.deduplicated_bytes += needed.raw_bytes;
        self.compressed_bytes += needed_bytes;
        if pack.marked.is_some() {
            self.condemned_bytes += present;
        } else {
            self.dead_bytes += present.saturating_sub(needed_bytes);
        }
    }
}
