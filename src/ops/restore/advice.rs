//! What to do after a restore, with this server's values: only what must be done now.
//!
//! Pure: a list of sentences from the snapshot, its configuration and the options; what is to be typed stands on lines
//! of its own. Where a step has its reason in how Synapse starts or federates, it stands in the sentence.

use std::path::{Path, PathBuf};

use super::access::DEFAULT_PORT;
use super::databases::Target;
use super::identity::RestoredKey;
use super::load::{forgets_remote_media, will_forget};
use super::saved::{Saved, shell_word};
use super::{Options, plan, wants};
use crate::format::ItemPath;
use crate::format::snapshot::{ConfigItem, ConfigRole, Snapshot};
use crate::ops::Part;
use crate::synapse::postgres::{ConnInfo, nearby};
use crate::synapse::{Engine, ListenerPlace};

/// What was brought back.
pub(super) struct Ending<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) options: &'a Options,
    pub(super) saved: Option<&'a Saved>,
    pub(super) targets: &'a [Target],
    pub(super) keys: &'a [RestoredKey],
    /// What Synapse is started with, here.
    pub(super) config: &'a [PathBuf],
}

/// The steps, in order; none after media alone.
pub(super) fn next_steps(ending: &Ending<'_>) -> Vec<String> {
    let Ending { snapshot, options, .. } = ending;
    let mut steps = Vec::new();
    if wants(options, Part::Config) {
        steps.extend(identity(ending));
        if options.to.is_some() {
            steps.push("this is a copy under another folder: change the paths and the database in its homeserver.yaml before it starts, and never run it beside the original".into());
        } else {
            steps.extend(moved(ending));
            steps.push("make sure that the old server stays off: two at the same time ruin both".into());
        }
        steps.push(start(ending));
        steps.push(ask(ending));
    }
    if !ending.targets.is_empty() && forgets_remote_media(snapshot) && !will_forget(snapshot, options) {
        steps.push(
            "remote media are not in this snapshot, and Synapse answers 404 for them until their rows are gone: \
             POST /_synapse/admin/v1/purge_media_cache?before_ts=<now in ms> as an admin"
                .into(),
        );
    }
    if ending.targets.iter().any(|target| !target.database.name.starts_with("synapse")) {
        steps.push(
            "start the services of the other databases after Synapse; for MAS run `mas-cli config sync` and `mas-cli doctor` first".into(),
        );
    }
    steps
}

/// Nothing where the keys were found in their places.
fn identity(ending: &Ending<'_>) -> Option<String> {
    let is_saved_key = |item: &ConfigItem| item.role == ConfigRole::SigningKey && item.sha256.is_some();
    let is_saved = ending.snapshot.config.iter().any(is_saved_key) || ending.keys.iter().any(|key| key.in_place);
    if !is_saved {
        return Some("this snapshot has no signing key: put it in place before Synapse starts, or it makes itself a new one".into());
    }
    let lost: Vec<String> = ending
        .keys
        .iter()
        .filter(|key| !key.in_place)
        .map(|key| format!("{} {}", key.id, key.public_key))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "put the signing key in place before Synapse starts, or it makes itself a new one: its public key must be {}",
            lost.join(" and ")
        )
    })
}

/// The configuration that was restored names another place than the one that was loaded.
fn moved(ending: &Ending<'_>) -> Option<String> {
    let target = main_target(ending)?;
    let configured = configured(ending)?;
    let place = |info: &ConnInfo| {
        // This machine has several names, and the port need not be said.
        let host = info.host().filter(|host| !nearby::is_here(Some(host))).map(str::to_owned);
        (host, info.port().unwrap_or(DEFAULT_PORT), info.database().map(str::to_owned))
    };
    if place(&target.info) == place(&configured) {
        return None;
    }
    let file = ending.saved?.says.database_file()?;
    Some(format!(
        "change `database` in {}: it names {configured}, and the data are in {}",
        shown(file, ending.options),
        target.info
    ))
}

fn main_target<'a>(ending: &Ending<'a>) -> Option<&'a Target> {
    ending.targets.iter().find(|target| target.database.name == "synapse")
}

/// Synapse's own database, as its configuration has it.
fn configured(ending: &Ending<'_>) -> Option<ConnInfo> {
    let saved = ending.saved?;
    let databases = saved.says.databases(&saved.options).ok()?;
    match &databases.first()?.engine {
        Engine::Postgres { args } => super::databases::connection(args, ending.snapshot, ending.options).ok(),
        Engine::Sqlite { .. } => None,
    }
}

fn start(ending: &Ending<'_>) -> String {
    let which = if let Some(version) = &ending.snapshot.synapse_version {
        format!("start Synapse {version} or newer")
    } else {
        let schema = ending.snapshot.databases.iter().find_map(|database| database.facts.schema_version);
        let schema = schema.map_or_else(String::new, |version| format!(" (the database has schema version {version})"));
        format!("start Synapse in the version that was running, or a newer one{schema}")
    };
    let order = "the main process alone first, then the workers";
    if ending.config.is_empty() {
        return format!("{which}, {order}");
    }
    let files: Vec<String> = ending
        .config
        .iter()
        .map(|path| format!(" -c {}", shell_word(&path.display().to_string())))
        .collect();
    let all = if files.len() > 1 {
        "with all these files in this order"
    } else {
        "with this file"
    };
    let mut step = format!("{which}, {all}; {order}:\npython -m synapse.app.homeserver{}", files.concat());
    if let Some(database) = configured(ending) {
        step = format!("{step}\nIts database is then {database}{}.", listens(ending));
    }
    if let Some(warning) = first_file_alone(ending) {
        step = format!("{step}\n{warning}");
    }
    step
}

fn listens(ending: &Ending<'_>) -> String {
    match ending.saved.and_then(|saved| saved.says.listener()).map(|listener| listener.place) {
        Some(ListenerPlace::Port { host, port }) => format!(", and it listens on {host}:{port}"),
        Some(ListenerPlace::Socket(path)) => format!(", and it listens on {}", path.display()),
        None => String::new(),
    }
}

/// Whoever forgets the other files gets an empty server.
fn first_file_alone(ending: &Ending<'_>) -> Option<String> {
    let saved = ending.saved?;
    let (file, databases) = saved.says.first_file_alone(&saved.options)?;
    let database = match &databases.first()?.engine {
        Engine::Sqlite { path } => format!("the SQLite file {}", path.display()),
        Engine::Postgres { args } => super::databases::connection(args, ending.snapshot, ending.options)
            .ok()?
            .to_string(),
    };
    let file = shown(file, ending.options);
    Some(format!(
        "Never with {file} alone: that names another database, {database}, and would start an empty server."
    ))
}

fn ask(ending: &Ending<'_>) -> String {
    let server = &ending.snapshot.server_name;
    let Some(listener) = ending.saved.and_then(|saved| saved.says.listener()) else {
        return format!("ask it: /health, /_matrix/key/v2/server (expect the key above), and log in as a user of {server}");
    };
    let curl = match (&listener.place, listener.tls) {
        (ListenerPlace::Port { host, port }, false) => format!("curl http://{host}:{port}"),
        (ListenerPlace::Port { host, port }, true) => format!("curl --insecure https://{host}:{port}"),
        (ListenerPlace::Socket(path), _) => format!("curl --unix-socket {} http://localhost", shell_word(&path.display().to_string())),
    };
    let ids: Vec<&str> = ending.keys.iter().map(|key| key.public_key.as_str()).collect();
    if listener.has_keys && !ids.is_empty() {
        format!(
            "ask it: it answers OK, and shows the key {}; then log in as a user of {server}\n{curl}/health\n{curl}/_matrix/key/v2/server",
            ids.join(" and ")
        )
    } else {
        format!("ask it: it answers OK; then log in as a user of {server}\n{curl}/health")
    }
}

/// Where a file of the old server is now.
fn shown(path: &Path, options: &Options) -> String {
    plan::target(&ItemPath::from(path), options).map_or_else(|_| path.display().to_string(), |path| path.display().to_string())
}
