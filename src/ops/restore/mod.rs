//! Bringing a homeserver back: plan (pure), check that the targets are empty, load, write, keys last.
//!
//! Nothing is merged and nothing is overwritten. The signing key and homeserver.yaml are the last files written, so
//! that a half restore cannot be started. A database or signing key that is damaged ends the restore; damaged media
//! and other files are named, and the rest is written.

use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;
use zeroize::Zeroize as _;

use super::{Error, Limits, Part, Parts, Run, Share, Tools, items, signers, verify};
use crate::format::snapshot::{ConfigRole, Problem, Snapshot};
use crate::repo::reader::Reader;
use crate::repo::{Repository, snapshots};

mod access;
mod advice;
mod choice;
mod config;
mod databases;
mod identity;
mod links;
mod load;
mod media;
mod plan;
mod saved;
mod targets;
mod write;

pub use choice::Uploaded;
pub use identity::RestoredKey;
pub(super) use links::media_root;
pub(super) use load::expected;
pub(super) use write::is_full;

/// Where a database of the snapshot goes.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseTarget {
    /// A libpq URL or `key=value` string.
    ConnInfo(String),
    /// `NAME=skip`: leave it out.
    Skip,
}

/// It may hold a password.
impl Drop for DatabaseTarget {
    fn drop(&mut self) {
        if let Self::ConnInfo(text) = self {
            text.zeroize();
        }
    }
}

/// What a restore is told.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub struct Options {
    /// `--to DIR`: everything under here; `None` is back in place.
    pub to: Option<PathBuf>,
    /// `--database NAME=CONNINFO`.
    pub databases: Vec<(String, DatabaseTarget)>,
    /// Create the databases as Synapse wants them.
    pub create_database: bool,
    /// What to bring back.
    pub parts: Parts,
    /// `--prefix PATH`: only media whose path in the store begins so; or `mxc://server/media_id`, of this homeserver.
    pub prefix: Option<String>,
    /// Only this share of the media files, by their paths: for a drill.
    pub media_share: Option<Share>,
    /// `--uploaded-by`, `--uploaded-after`, `--uploaded-before`: only media whose rows say so.
    pub uploaded: Option<Uploaded>,
    /// `--forget-remote-media`: remove the rows of remote media whose files are not in the snapshot, also if no media are brought back.
    pub forget_remote_media: bool,
    /// `--keep-remote-media-rows`: leave the rows of remote media although their files are not in the snapshot.
    pub keep_remote_media_rows: bool,
    /// `--resume`: leave alone what is there already with the right bytes or rows, and write the rest.
    pub resume: bool,
    /// `--path-map OLD=NEW`, applied before `to`.
    pub path_map: Vec<(PathBuf, PathBuf)>,
    /// The settings' `synapse.path_map`: container path, path here. The restored configuration speaks of the former.
    pub container_path_map: Vec<(PathBuf, PathBuf)>,
    /// The settings' `synapse.working_directory`.
    pub working_directory: Option<PathBuf>,
    /// Databases from the settings, by name: where they go back to.
    pub settings_databases: Vec<(String, String)>,
    /// `--owner USER:GROUP` as ids; `None` takes the snapshot's when root.
    pub owner: Option<(u32, u32)>,
    /// Print the plan, write nothing.
    pub dry_run: bool,
    /// Take a late snapshot too.
    pub late: bool,
    /// Bounds.
    pub limits: Limits,
    /// PostgreSQL's programs.
    pub tools: Tools,
}

/// What a restore did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Which snapshot.
    pub snapshot: String,
    /// Config items written.
    pub config_items: u64,
    /// Media files written.
    pub media_files: u64,
    /// Media files that were there already (`--resume`).
    pub media_kept: u64,
    /// Bytes of config and media written.
    pub written_bytes: u64,
    /// Databases loaded.
    pub databases: Vec<String>,
    /// Databases that were there already with all their rows (`--resume`).
    pub databases_kept: Vec<String>,
    /// One-time keys that the dumps had although they never should; they were removed.
    pub one_time_keys: u64,
    /// Rows of cached media of other servers that were removed, since their files are not in the snapshot.
    pub remote_media_forgotten: u64,
    /// What would be done (dry run), or was done: one line each.
    pub plan: Vec<String>,
    /// A dry run: what to do before, with this server's values.
    pub first_steps: Vec<String>,
    /// What to do next, with this server's values.
    pub next_steps: Vec<String>,
    /// The keys that the homeserver signs with, and whether each was found in its place.
    pub signing_keys: Vec<RestoredKey>,
    /// What Synapse is started with (`-c`), in its order, where it is now.
    pub synapse_config: Vec<String>,
    /// The folder that Synapse is started in, where the snapshot tells.
    pub working_directory: Option<String>,
    /// Damaged or unwritable items (exit code 3 when any).
    pub problems: Vec<Problem>,
}

/// Bring a snapshot back. `snapshot` is an id prefix, `latest` or `latest:server_name`.
pub async fn restore(repository: &Repository, snapshot: &str, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    run.until_cancelled(Box::pin(bring_back(repository, snapshot, options, run))).await
}

async fn bring_back(repository: &Repository, name: &str, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let found = snapshots::find(repository, name, options.late).await?;
    repository.trust(&found)?;
    signers::warn_of_others(repository).await?;
    if found.late {
        refuse_unless_whole(repository, &found.snapshot, options.limits, run).await?;
    }
    let snapshot = found.snapshot;
    let reader = Reader::open(repository, options.limits.memory_bytes, options.limits.connections).await?;
    // Nothing is touched for the sake of a medium that cannot be meant.
    if let Some(prefix) = &options.prefix {
        items::media_path(&snapshot, prefix)?;
    }
    let mut plan = plan::plan(&snapshot, options)?;
    let must_ask = databases::ask_configuration(&snapshot, options);
    let saved = match saved::read(&reader, &snapshot, options).await {
        Ok(saved) => Some(saved),
        Err(error) if must_ask => return Err(error),
        // It is only for advice, and what is damaged is told when it is to be written.
        Err(_) => None,
    };
    let databases = databases::targets(name, &snapshot, saved.as_ref(), options)?;
    targets::check_files(&mut plan, options)?;
    let config_lines = plan.config_lines();
    // Without a whole signing key nothing is begun.
    let last = config::read_last(&reader, &mut plan).await?;
    let looked = databases::check(&databases, &snapshot, options).await?;
    let there = match (options.dry_run, options.resume) {
        (true, true) => media::count_there(&reader, &snapshot, &plan, options, run).await?,
        _ => (0, 0),
    };
    let mut report = Report {
        snapshot: snapshot.id.to_string(),
        databases_kept: looked.kept,
        plan: looked.lines.into_iter().chain(plan.media_line(there)).chain(config_lines).collect(),
        first_steps: looked.first_steps,
        ..Report::default()
    };
    let notes = std::mem::take(&mut plan.notes);
    report.plan.extend(notes.iter().cloned());
    let main = databases.iter().find(|target| target.database.name == "synapse");
    let forgets_in = main.filter(|_| load::will_forget(&snapshot, options));
    let forgets = match forgets_in {
        Some(target) if report.databases_kept.contains(&target.database.name) => load::has_remote_media(target, options).await?,
        forgets_in => forgets_in.is_some(),
    };
    if forgets {
        report.plan.push(load::FORGETS.into());
    }
    if options.dry_run {
        return Ok(report);
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    for load in looked.loads {
        let loaded = load::load(&reader, &snapshot, load, options, run).await?;
        report.databases.push(loaded.name);
        report.one_time_keys += loaded.one_time_keys;
        report.remote_media_forgotten += loaded.remote_media_forgotten;
    }
    if let Some(kept) = forgets_in.filter(|target| report.databases_kept.contains(&target.database.name)) {
        report.remote_media_forgotten += load::forget_in(kept, options).await?;
    }
    let written = write_files(&reader, &snapshot, &plan, last, options, &mut report, run).await;
    written.map_err(goes_on)?;
    conclude(&snapshot, saved.as_ref(), &databases, options, &mut report);
    Ok(report)
}

/// Media, then the configuration, homeserver.yaml and the signing key last.
async fn write_files(
    reader: &Reader,
    snapshot: &Snapshot,
    plan: &plan::Plan,
    last: config::Last,
    options: &Options,
    report: &mut Report,
    run: &Run<'_>,
) -> anyhow::Result<()> {
    media::write(reader, snapshot, plan, options, report, run).await?;
    let written = config::write(reader, plan, last, options, report, run).await;
    written.context("write the configuration")
}

/// A disk that was full half way: what is there need not be brought back again.
fn goes_on(error: anyhow::Error) -> anyhow::Error {
    if !error.chain().any(<dyn std::error::Error>::is::<write::Full>) {
        return error;
    }
    error.context(Error::failed(
        "the restore stopped half way, before homeserver.yaml was written",
        "make room there, then restore again with the same words and `--resume`: what is there already stays as it is",
    ))
}

/// What whoever restores must know now.
fn conclude(snapshot: &Snapshot, saved: Option<&saved::Saved>, databases: &[databases::Target], options: &Options, report: &mut Report) {
    let mut config = Vec::new();
    if wants(options, Part::Config) {
        report.signing_keys = identity::check(snapshot, saved, options);
        config = saved::started_with(snapshot, options);
        report.synapse_config = config.iter().map(|path| path.display().to_string()).collect();
        report.working_directory = saved.and_then(|saved| saved.working_directory(snapshot, options));
    }
    report.next_steps = advice::next_steps(&advice::Ending {
        snapshot,
        options,
        saved,
        targets: databases,
        keys: &report.signing_keys,
        config: &config,
    });
}

/// G4: what a late snapshot relies on may be gone, so everything is looked for before anything is written.
async fn refuse_unless_whole(repository: &Repository, snapshot: &Snapshot, limits: Limits, run: &Run<'_>) -> anyhow::Result<()> {
    let options = verify::Options {
        snapshot: Some(snapshot.id.to_string()),
        read_data: None,
        repair_index: false,
        tools: None,
        limits,
    };
    let report = verify::verify(repository, &options, run).await?;
    let Some(first) = report.problems.first() else { return Ok(()) };
    let message = format!(
        "snapshot {} is late and no longer whole: {}: {}",
        snapshot.id, first.item, first.message
    );
    let hint = "if it is only the index, `verify --repair-index` mends it; else take another snapshot: `cat` still gives single items of this one, \
                `verify` names what is lost";
    Err(Error::failed(message, hint).into())
}

/// Is this part wanted?
fn wants(options: &Options, part: Part) -> bool {
    options.parts.contains(&part)
}

/// Written last, so that a half restore cannot be started.
fn is_last(role: ConfigRole) -> bool {
    matches!(role, ConfigRole::Homeserver | ConfigRole::SigningKey)
}

/// The databases that are to be brought back.
fn wanted_databases<'a>(snapshot: &'a Snapshot, options: &Options) -> Vec<&'a crate::format::snapshot::Database> {
    if !wants(options, Part::Database) {
        return Vec::new();
    }
    let skipped = |name: &str| {
        options
            .databases
            .iter()
            .any(|(other, target)| other == name && *target == DatabaseTarget::Skip)
    };
    snapshot.databases.iter().filter(|database| !skipped(&database.name)).collect()
}

/// A database that `--database` names but the snapshot does not have.
pub(super) fn check_names(snapshot: &Snapshot, databases: &[(String, DatabaseTarget)]) -> Result<(), Error> {
    for (name, _) in databases {
        if !snapshot.databases.iter().any(|database| database.name == *name) {
            let known: Vec<&str> = snapshot.databases.iter().map(|database| database.name.as_str()).collect();
            let hint = match known.as_slice() {
                [] => "this snapshot has no database".to_owned(),
                _ => format!("this snapshot has: {}", known.join(", ")),
            };
            return Err(Error::usage(
                format!("--database: no database `{name}` in snapshot {}", snapshot.id),
                hint,
            ));
        }
    }
    Ok(())
}
