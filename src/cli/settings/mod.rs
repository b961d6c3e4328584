//! The settings: what the file and the environment say, with every mistake named by its place.
//!
//! The structs mirror the keys of `docs/settings.md`, and every key may be left out: defaults are chosen in
//! `options`, where the settings meet the flags. Nothing here looks at the files that the settings name.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::Spanned;
use zeroize::Zeroize as _;

use super::environment::Environment;
use super::keyring::IdentityFiles;
use crate::format::writer_key::Signer;
use crate::ops;

mod edit;
mod error;
mod keys;
mod metrics;
mod overlay;
mod values;

pub(super) use edit::{Change, edit, replace};
pub(super) use metrics::{COMMAND, Metrics};
pub(super) use values::{
    AbsolutePath, ByteSize, Connections, Count, Days, Jobs, LockWord, RecipientWord, SignerWord, TagWord, TimeSpan, Zone,
};

/// Where settings are looked for unless `-c` or `SYNAPSE_BACKUP_CONFIG` name another file.
pub(super) const DEFAULT_FILE: &str = "/etc/synapse-backup/config.yaml";
/// A settings file is read whole, but not if it is a disk image given by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All settings, as given. Holds passwords (`databases`), hence no `Debug`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) repository: Option<String>,
    #[serde(default, deserialize_with = "section")]
    pub(super) s3: S3,
    #[serde(default, deserialize_with = "section")]
    pub(super) synapse: Synapse,
    #[serde(default, deserialize_with = "section")]
    pub(super) media: Media,
    pub(super) databases: Option<Vec<Database>>,
    pub(super) files: Option<Vec<AbsolutePath>>,
    #[serde(default, deserialize_with = "section")]
    pub(super) keep: Keep,
    #[serde(default, deserialize_with = "section")]
    pub(super) limits: Limits,
    #[serde(default, deserialize_with = "section")]
    pub(super) postgres: Postgres,
    #[serde(default, deserialize_with = "section")]
    pub(super) object_lock: ObjectLock,
    #[serde(default, deserialize_with = "section")]
    pub(super) encryption: Encryption,
    #[serde(default, deserialize_with = "section")]
    pub(super) metrics: Metrics,
    /// What flags and environment say about keys; it goes wherever the settings go.
    #[serde(skip)]
    pub(super) keys: KeyWords,
}

/// To whom a repository is sealed, and whom it is believed from. Only public halves and the name of a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Encryption {
    #[serde(default, deserialize_with = "values::recipients")]
    pub(super) recipients: Option<Vec<RecipientWord>>,
    pub(super) writer_key_file: Option<AbsolutePath>,
    pub(super) signers: Option<Vec<SignerWord>>,
}

/// The flags about keys of this call.
#[derive(Default)]
pub(super) struct KeyWords {
    pub(super) identities: IdentityFiles,
    pub(super) signers: Vec<Signer>,
    pub(super) accept_unsigned: bool,
    /// `init`: a writer key that is missing is made.
    pub(super) make_writer_key: bool,
}

/// How the store is reached. No credentials: they come from the AWS chain.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3 {
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) path_style: Option<bool>,
    pub(super) ca_file: Option<AbsolutePath>,
    pub(super) profile: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) storage_class: Option<String>,
}

/// Where Synapse's own configuration is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Synapse {
    pub(super) config: Option<Vec<AbsolutePath>>,
    pub(super) working_directory: Option<AbsolutePath>,
    pub(super) path_map: Option<std::collections::BTreeMap<AbsolutePath, AbsolutePath>>,
}

impl Synapse {
    /// Pairs of a path as Synapse sees it and where that is here.
    pub(super) fn path_map(&self) -> Vec<(PathBuf, PathBuf)> {
        let pairs = self.path_map.iter().flatten();
        pairs
            .map(|(AbsolutePath(there), AbsolutePath(here))| (there.clone(), here.clone()))
            .collect()
    }
}

/// Which media are taken.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media {
    pub(super) thumbnails: Option<bool>,
    pub(super) remote: Option<bool>,
    pub(super) url_cache: Option<bool>,
    pub(super) accepted_losses: Option<AbsolutePath>,
}

/// A database besides Synapse's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) name: Spanned<String>,
    pub(super) url: String,
}

/// The URL may hold a password.
impl Drop for Database {
    fn drop(&mut self) {
        self.url.zeroize();
    }
}

/// Which snapshots stay when `prune` forgets.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keep {
    pub(super) last: Option<Count>,
    pub(super) daily: Option<Count>,
    pub(super) weekly: Option<Count>,
    pub(super) monthly: Option<Count>,
    pub(super) yearly: Option<Count>,
    pub(super) within: Option<TimeSpan>,
    pub(super) time_zone: Option<Zone>,
    pub(super) tags: Option<Vec<TagWord>>,
}

/// Bounds of a run.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) memory: Option<ByteSize>,
    pub(super) connections: Option<Connections>,
    pub(super) dump_jobs: Option<Jobs>,
    pub(super) load_jobs: Option<Jobs>,
    pub(super) media_time: Option<TimeSpan>,
}

/// The database's own programs.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    pub(super) pg_dump: Option<AbsolutePath>,
}

/// How long what is written cannot be deleted.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectLock {
    pub(super) mode: Option<LockWord>,
    pub(super) days: Option<Days>,
}

/// A section whose keys are all commented out (`s3:` and nothing) says nothing.
fn section<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Read the file and lay the environment over it. `chosen` is `-c`; a file that nobody named may be missing.
pub(super) fn load(chosen: Option<&Path>, environment: &Environment) -> Result<Settings, ops::Error> {
    let named = named(chosen, environment);
    let file = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let mut settings = match read(&file) {
        Ok(text) => parse(&text, &file.display().to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Settings::default(),
        Err(error) => {
            return Err(ops::Error::usage(
                format!("settings file `{}`: {error}", file.display()),
                "name another with -c, or write one: docs/settings.md has an example",
            ));
        }
    };
    overlay::apply(&mut settings, environment)?;
    Ok(settings)
}

fn named(chosen: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    chosen.map(Path::to_owned).or_else(|| environment.path("SYNAPSE_BACKUP_CONFIG"))
}

/// The file that [`load`] reads.
pub(super) fn file(chosen: Option<&Path>, environment: &Environment) -> PathBuf {
    named(chosen, environment).unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
}

/// Its text.
pub(super) fn read(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("larger than 1 MiB: this is no settings file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to())
            .filter(|byte| **byte == b'\n')
            .count();
        std::io::Error::other(format!("line {line} is not UTF-8"))
    })
}

/// `place` is the file's name in messages.
fn parse(text: &str, place: &str) -> Result<Settings, ops::Error> {
    // The parser calls a document without any content an error; for us it says nothing.
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---")
    {
        return Ok(Settings::default());
    }
    let options = serde_yaml::options! { with_snippet: false };
    let settings: Settings = serde_yaml::from_str_with_options(text, options).map_err(|error| error::explain(&error, place))?;
    check_databases(&settings, place)?;
    Ok(settings)
}

/// Names become parts of item names and of `--database NAME=…`.
fn check_databases(settings: &Settings, place: &str) -> Result<(), ops::Error> {
    let mut seen = std::collections::BTreeSet::new();
    for database in settings.databases.iter().flatten() {
        let name = database.name.value.as_str();
        let wrong = if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) || name.starts_with('.') {
            "a database name is made of letters, digits, `-`, `_` and `.`"
        } else if name == "synapse" || name.starts_with("synapse-") {
            "names that begin with `synapse` are Synapse's own databases, which are always taken"
        } else if !seen.insert(name) {
            "two databases have this name"
        } else {
            continue;
        };
        let at = &database.name.referenced;
        let name: String = name.chars().take(80).collect();
        return Err(ops::Error::usage(
            format!(
                "{place}:{}:{}: `databases`: the name `{name}` cannot be used",
                at.line(),
                at.column()
            ),
            wrong,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
