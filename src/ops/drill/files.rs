//! The configuration that was brought back: read as Synapse reads it, from the scratch folder.
//!
//! Discovery follows it there by a path map of everything into that folder: a file that it names and that did not come
//! back is found, and the public keys come from the private ones that did. What the snapshot itself says it lacks was told
//! when it was taken, and is counted here, not found again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::checks::{Checks, Found, counted};
use super::databases::{chain, is_about_the_snapshot, restore_options};
use super::{Media, Trial};
use crate::format::ItemPath;
use crate::format::snapshot::{ConfigRole, ProblemKind, Snapshot};
use crate::ops::{Part, Share, restore};
use crate::synapse::config::{self, discover};
use crate::synapse::{FindingKind, Homeserver};

/// Write configuration and media into the scratch folder.
pub(super) async fn restore(trial: &Trial<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    let mut parts = crate::ops::Parts::from([Part::Config]);
    if trial.options.media != Media::HashOnly {
        parts.insert(Part::Media);
    }
    let options = restore::Options {
        parts,
        media_share: share(trial),
        ..restore_options(trial, &trial.folder.files())
    };
    let mut found = Found::default();
    let mut figure = "nothing was written".to_owned();
    let ended = restore::restore(trial.repository, &trial.snapshot.id.to_string(), &options, trial.run).await;
    match ended {
        Ok(report) => {
            figure = format!(
                "{} and {} written, {}",
                counted(report.config_items, "config item"),
                counted(report.media_files, "media file"),
                counted(report.written_bytes, "byte")
            );
            found.add_all(report.problems);
        }
        Err(error) if is_about_the_snapshot(&error) && !trial.run.cancel.is_cancelled() => {
            let message = format!("{error}: {}", chain(&error));
            found.add(ProblemKind::Damaged, "config", message);
        }
        Err(error) => return Err(error),
    }
    checks.add("files", figure, found);
    Ok(())
}

/// Which media are written: another choice with every snapshot.
pub(super) fn share(trial: &Trial<'_>) -> Option<Share> {
    match trial.options.media {
        Media::Sample(percent) => Some(Share {
            percent,
            salt: trial.snapshot.id.as_bytes().to_vec(),
        }),
        Media::All | Media::HashOnly => None,
    }
}

/// Where a path of the snapshot is in the scratch folder.
pub(super) fn inside(files: &Path, path: &ItemPath) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    files.join(path.strip_prefix("/").unwrap_or(path))
}

/// The checks of the configuration and of the signing key.
pub(super) async fn check(trial: &Trial<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    if trial.snapshot.config_paths.is_empty() {
        return Ok(());
    }
    let files = trial.folder.files();
    let options = discovery(trial, &files);
    let discovered = tokio::task::spawn_blocking(move || discover(&options)).await?;
    let homeserver = match discovered {
        Ok(homeserver) => homeserver,
        Err(error) => {
            let mut found = Found::default();
            let message = format!("{:#}", anyhow::Error::from(error)).replace(&files.display().to_string(), "");
            found.add(
                ProblemKind::Damaged,
                "config",
                format!("Synapse could not read its configuration: {message}"),
            );
            checks.add("configuration", "not readable", found);
            return Ok(());
        }
    };
    named_files(trial.snapshot, &homeserver, &files, checks);
    signing_keys(trial.snapshot, &homeserver, checks);
    Ok(())
}

/// Everything that the configuration names lies below the scratch folder.
pub(super) fn discovery(trial: &Trial<'_>, files: &Path) -> config::Options {
    let below = |path: &PathBuf| files.join(path.strip_prefix("/").unwrap_or(path));
    let mapped = trial
        .options
        .container_path_map
        .iter()
        .map(|(there, here)| (there.clone(), below(here)));
    config::Options {
        config: trial.snapshot.config_paths.iter().map(|path| inside(files, path)).collect(),
        working_directory: trial.options.working_directory.clone().or_else(|| Some("/".into())),
        path_map: mapped.chain([(PathBuf::from("/"), files.to_owned())]).collect(),
        files: Vec::new(),
        home: None,
        allow_sqlite: true,
    }
}

fn named_files(snapshot: &Snapshot, homeserver: &Homeserver, files: &Path, checks: &mut Checks) {
    let scratch = files.display().to_string();
    let known: BTreeSet<&str> = snapshot.problems.iter().map(|problem| problem.item.as_str()).collect();
    let mut found = Found::default();
    let mut told = 0;
    for finding in homeserver.findings.iter().filter(|finding| finding.item != "media") {
        let kind = match finding.kind {
            FindingKind::Missing => ProblemKind::Missing,
            FindingKind::Unreadable => ProblemKind::Unreadable,
            FindingKind::NotAFile => ProblemKind::NotAFile,
            FindingKind::Damaged => ProblemKind::Damaged,
            FindingKind::Ignored | FindingKind::LeftOut => continue,
        };
        let item = finding.item.replace(&scratch[1..], "").replace("config//", "config/");
        if known.contains(item.as_str()) {
            told += 1;
            continue;
        }
        found.add(kind, item, finding.message.replace(&scratch, ""));
    }
    let mut figure = format!(
        "{} of {}, {} named and there",
        counted(homeserver.config_sources.len() as u64, "file"),
        homeserver.server_name,
        counted(homeserver.files.len() as u64, "item")
    );
    if told > 0 {
        figure = format!("{figure}; {told} were missing already when the snapshot was taken");
    }
    if homeserver.server_name != snapshot.server_name {
        let message = format!("its server name is {}, not {}", homeserver.server_name, snapshot.server_name);
        found.add(ProblemKind::Changed, "config", message);
    }
    checks.add("configuration", figure, found);
}

/// The private keys that came back must give the public keys by which other servers know this one.
fn signing_keys(snapshot: &Snapshot, homeserver: &Homeserver, checks: &mut Checks) {
    let name = |item: &crate::format::snapshot::ConfigItem| crate::ops::items::config_name(item);
    let item = snapshot
        .config
        .iter()
        .find(|item| item.role == ConfigRole::SigningKey)
        .map_or_else(|| "config".to_owned(), name);
    let saved: BTreeSet<(&str, &str)> = snapshot
        .signing_keys
        .iter()
        .map(|key| (key.id.as_str(), key.public_key.as_str()))
        .collect();
    let back: BTreeSet<(&str, &str)> = homeserver
        .signing_keys
        .iter()
        .map(|key| (key.key_id.as_str(), key.public_key.as_str()))
        .collect();
    let mut found = Found::default();
    if back.is_empty() {
        let message = "no signing key came back: Synapse would make itself a new one, and lose its identity";
        found.add(ProblemKind::Missing, item.clone(), message);
    } else {
        for (id, public_key) in saved.difference(&back) {
            let message = format!("the signing key {id} does not give the public key {public_key} that the snapshot was taken with");
            found.add(ProblemKind::Changed, item.clone(), message);
        }
        if saved.is_empty() {
            found.add(
                ProblemKind::Changed,
                item,
                "the snapshot does not say which public key this server has",
            );
        }
    }
    let keys: Vec<String> = back.iter().map(|(id, public_key)| format!("{id} {public_key}")).collect();
    checks.add("signing key", if keys.is_empty() { "none".into() } else { keys.join(", ") }, found);
}
