//! What to do after a restore, with this server's values.
//!
//! Pure: a list of sentences from the snapshot and the options. Where a step has its reason in how Synapse starts or
//! federates, it stands in the sentence.

use super::Options;
use super::load::forgets_remote_media;
use crate::format::snapshot::{ConfigItem, ConfigRole, Snapshot};

/// The steps, in order.
pub(super) fn next_steps(snapshot: &Snapshot, options: &Options) -> Vec<String> {
    let server = &snapshot.server_name;
    let mut steps = Vec::new();
    let is_saved_key = |item: &ConfigItem| item.role == ConfigRole::SigningKey && item.sha256.is_some();
    if snapshot.config.iter().any(is_saved_key) {
        let keys: Vec<String> = snapshot
            .signing_keys
            .iter()
            .map(|key| format!("{} {}", key.id, key.public_key))
            .collect();
        steps.push(format!(
            "check that the signing key is in place: its public key must be {}",
            keys.join(" and ")
        ));
    } else {
        steps.push("this snapshot has no signing key: put it in place before Synapse starts, or it makes itself a new one".into());
    }
    if options.to.is_some() {
        steps.push("this is a copy under another folder: change the paths and the database in its homeserver.yaml before it starts, and never run it beside the original".into());
    } else {
        steps.push("never run the old and the restored server at the same time".into());
    }
    if let Some(version) = &snapshot.synapse_version {
        steps.push(format!(
            "start Synapse {version} or newer, the main process alone first, then the workers"
        ));
    } else {
        let schema = snapshot.databases.iter().find_map(|database| database.facts.schema_version);
        let schema = schema.map_or_else(String::new, |version| format!(" (the database has schema version {version})"));
        steps.push(format!(
            "start Synapse in the version that was running, or a newer one{schema}: the main process alone first, then the workers"
        ));
    }
    steps.push(format!(
        "ask it: /health, /_matrix/key/v2/server (expect the key above), and log in as a user of {server}"
    ));
    if forgets_remote_media(snapshot) && options.keep_remote_media_rows {
        steps.push(
            "remote media are not in this snapshot, and Synapse answers 404 for them until their rows are gone: \
             POST /_synapse/admin/v1/purge_media_cache?before_ts=<now in ms> as an admin"
                .into(),
        );
    }
    if snapshot.databases.iter().any(|database| !database.name.starts_with("synapse")) {
        steps.push(
            "start the services of the other databases after Synapse; for MAS run `mas-cli config sync` and `mas-cli doctor` first".into(),
        );
    }
    steps.push("clients upload new one-time keys by themselves; messages after the backup come back over federation only in part".into());
    steps
}
