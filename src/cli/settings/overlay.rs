//! The environment over the file: `SYNAPSE_BACKUP_` and a key's path in capitals, joined by `_`.
//!
//! A variable that names no key is refused as an unknown key is: a container whose settings have a typing mistake
//! must not back up to somewhere else. An empty variable counts as not set.

use std::str::FromStr;

use super::Settings;
use super::error::later;
use super::keys::{self, Unknown};
use super::values::{boolean, distinct};
use crate::cli::environment::Environment;
use crate::ops;

const PREFIX: &str = "SYNAPSE_BACKUP_";
/// Variables that are no settings: the file's own name, files with keys, and one of the scripts beside this program.
const NO_KEYS: [&str; 4] = ["CONFIG", "CACHE", "IDENTITY", "IDENTITY_PASSPHRASE_FILE"];
const TEST_PREFIX: &str = "TEST_";

/// Lay the variables over what the file said.
pub(super) fn apply(settings: &mut Settings, environment: &Environment) -> Result<(), ops::Error> {
    for (variable, value) in environment.with_prefix(PREFIX) {
        let name = &variable[PREFIX.len()..];
        if NO_KEYS.contains(&name) || name.starts_with(TEST_PREFIX) || value.is_empty() {
            continue;
        }
        let value = value
            .to_str()
            .ok_or_else(|| ops::Error::usage(format!("{variable}: not UTF-8"), "settings are text: write this one in UTF-8"))?;
        let path = known(variable, name)?;
        set(settings, path, value).map_err(|message| {
            ops::Error::usage(
                format!("{variable}: {message}"),
                format!("it stands for `{path}`: docs/settings.md says what that takes"),
            )
        })?;
    }
    Ok(())
}

/// The key that a variable stands for.
fn known(variable: &str, name: &str) -> Result<&'static str, ops::Error> {
    if let Some(path) = keys::SINGLE.into_iter().find(|path| keys::variable_of(path) == name) {
        return Ok(path);
    }
    if let Some(path) = keys::FILE_ONLY.into_iter().find(|path| keys::variable_of(path) == name) {
        return Err(ops::Error::usage(
            format!("{variable}: `{path}` cannot be set by the environment"),
            "it has structure: put it into the settings file",
        ));
    }
    Err(match keys::unknown_variable(name) {
        Unknown::Later(feature) => {
            let (message, hint) = later(variable, feature);
            ops::Error::usage(message, hint)
        }
        Unknown::Perhaps(path) => ops::Error::usage(
            format!("unknown variable {variable}; did you mean {PREFIX}{}?", keys::variable_of(path)),
            "variables that begin with SYNAPSE_BACKUP_ are settings: docs/settings.md lists them",
        ),
        Unknown::No => ops::Error::usage(
            format!("unknown variable {variable}"),
            "variables that begin with SYNAPSE_BACKUP_ are settings: docs/settings.md lists them",
        ),
    })
}

fn set(settings: &mut Settings, path: &str, value: &str) -> Result<(), String> {
    match path {
        "repository" => settings.repository = Some(value.to_owned()),
        "s3.endpoint" => settings.s3.endpoint = Some(value.to_owned()),
        "s3.region" => settings.s3.region = Some(value.to_owned()),
        "s3.path_style" => settings.s3.path_style = Some(boolean(value)?),
        "s3.ca_file" => settings.s3.ca_file = Some(value.parse()?),
        "s3.profile" => settings.s3.profile = Some(value.to_owned()),
        "s3.provider" => settings.s3.provider = Some(value.to_owned()),
        "s3.storage_class" => settings.s3.storage_class = Some(value.to_owned()),
        "synapse.config" => settings.synapse.config = Some(list(value)?),
        "synapse.working_directory" => settings.synapse.working_directory = Some(value.parse()?),
        "media.thumbnails" => settings.media.thumbnails = Some(boolean(value)?),
        "media.remote" => settings.media.remote = Some(boolean(value)?),
        "media.url_cache" => settings.media.url_cache = Some(boolean(value)?),
        "media.accepted_losses" => settings.media.accepted_losses = Some(value.parse()?),
        "limits.dump_jobs" => settings.limits.dump_jobs = Some(value.parse()?),
        "limits.load_jobs" => settings.limits.load_jobs = Some(value.parse()?),
        "limits.media_time" => settings.limits.media_time = Some(value.parse()?),
        "files" => settings.files = Some(list(value)?),
        "keep.last" => settings.keep.last = Some(value.parse()?),
        "keep.daily" => settings.keep.daily = Some(value.parse()?),
        "keep.weekly" => settings.keep.weekly = Some(value.parse()?),
        "keep.monthly" => settings.keep.monthly = Some(value.parse()?),
        "keep.yearly" => settings.keep.yearly = Some(value.parse()?),
        "keep.within" => settings.keep.within = Some(value.parse()?),
        "keep.time_zone" => settings.keep.time_zone = Some(value.parse()?),
        "keep.tags" => settings.keep.tags = Some(list(value)?),
        "limits.memory" => settings.limits.memory = Some(value.parse()?),
        "limits.connections" => settings.limits.connections = Some(value.parse()?),
        "encryption.recipients" => settings.encryption.recipients = Some(distinct(list(value)?)?),
        "encryption.writer_key_file" => settings.encryption.writer_key_file = Some(value.parse()?),
        "encryption.signers" => settings.encryption.signers = Some(list(value)?),
        "object_lock.mode" => settings.object_lock.mode = Some(value.parse()?),
        "object_lock.days" => settings.object_lock.days = Some(value.parse()?),
        "metrics.textfile" => settings.metrics.textfile = Some(value.parse()?),
        "metrics.ping_url" => settings.metrics.ping_url = Some(value.parse()?),
        "postgres.pg_dump" => settings.postgres.pg_dump = Some(value.parse()?),
        // A test holds that every key of the table has its line above.
        other => return Err(format!("`{other}` has no variable")),
    }
    Ok(())
}

fn list<T: FromStr>(value: &str) -> Result<Vec<T>, T::Err> {
    value
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(T::from_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_key_can_be_set_by_the_environment() {
        for path in keys::SINGLE {
            // One of these is good for each kind of key.
            let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
            let signer = "07".repeat(32);
            let tried = [
                "/a,/b",
                "/a.prom",
                "https://example.org/x",
                "true",
                "64MiB",
                "7",
                "6h",
                "governance",
                "Europe/Berlin",
                recipient,
                &signer,
            ]
            .map(|value| set(&mut Settings::default(), path, value));
            assert!(tried.iter().any(Result::is_ok), "{path}: {tried:?}");
        }
    }
}
