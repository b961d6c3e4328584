//! The homeserver: what a Synapse installation consists of, found by reading what Synapse itself reads.
//!
//! `config` follows the configuration to every file, database and media store it names and gives one [`Homeserver`];
//! `yaml` reads Synapse's dialect of YAML; `keys` derives public signing keys; `postgres` dumps and loads the databases;
//! `media` lists the media that must exist; `version` asks which Synapse runs. Nothing here writes to the homeserver except `postgres::load`.
//!
//! This floor has never heard of S3, packs or snapshots. Facts about Synapse are those of release 1.163 and name the
//! module of Synapse that shows them.

pub mod config;
mod http;
pub mod keys;
pub mod media;
mod nouns;
pub mod postgres;
pub mod trial;
pub mod version;
pub mod yaml;

use std::io;
use std::path::PathBuf;

pub use nouns::{
    ConfigFile, DatabaseConfig, Engine, FileKind, Finding, FindingKind, Homeserver, Listener, ListenerPlace, MediaStore, OldSigningKey,
    Owner, Provider, ProviderKind, Role, S3Provider, Secret,
};

/// Why the configuration of a homeserver cannot be followed at all. What is wrong with one file is a [`Finding`] instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings name no configuration, or only directories without any `*.yaml`.
    #[error("no configuration file of Synapse is named")]
    NoConfig,
    /// A configuration file that cannot be read.
    #[error("the Synapse configuration {} cannot be read", path.display())]
    ConfigUnreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration file that is no YAML that Synapse would take.
    #[error("{}:{problem}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        problem: yaml::YamlError,
    },
    /// `server_name` is missing, as when `conf.d` was forgotten.
    #[error("the Synapse configuration has no `server_name`")]
    NoServerName,
    /// An option whose value Synapse would refuse.
    #[error("the Synapse option `{option}` {problem}")]
    Option {
        /// Dotted, as in `database.args`.
        option: String,
        /// What is wrong with it, as the rest of a sentence.
        problem: String,
    },
    /// A path of ours that is not absolute.
    #[error("`{}` in our own settings is not an absolute path", path.display())]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// A relative path in Synapse's configuration, and nobody said relative to what.
    #[error("the Synapse option `{option}` is the relative path `{}`", path.display())]
    Relative {
        /// The option.
        option: String,
        /// The path.
        path: PathBuf,
    },
    /// Neither `database` nor `databases`.
    #[error("the Synapse configuration has no database")]
    NoDatabase,
    /// Synapse runs on `SQLite`, which is not supported.
    #[error("this homeserver keeps its data in SQLite ({}), which is not supported", path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// More files than any configuration has: a directory was named that should not have been.
    #[error("more than {limit} configuration files, most of them below {}", path.display())]
    TooManyFiles {
        /// The directory that was being read.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoConfig => "set `synapse.config` to what Synapse gets with `-c`, in the same order".into(),
            Self::ConfigUnreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run this as root or as the user of Synapse".into()
            }
            Self::ConfigUnreadable { .. } => "`synapse.config` lists files or directories on this host, as Synapse gets them with `-c`".into(),
            Self::Yaml { .. } => "Synapse reads YAML 1.1; `python -m synapse.config -c FILE` shows what it says itself".into(),
            Self::NoServerName => "on Debian it stands in /etc/matrix-synapse/conf.d; add that directory to `synapse.config`".into(),
            Self::Option { .. } => "Synapse would not start with this; mend the configuration".into(),
            Self::NotAbsolute { .. } => "write the whole path, beginning with `/`".into(),
            Self::Relative { .. } => {
                "Synapse takes it relative to the directory it is started in: set `synapse.working_directory` (Debian: /var/lib/matrix-synapse)".into()
            }
            Self::NoDatabase => "is a file missing in `synapse.config`? Synapse needs `database` or `databases`".into(),
            Self::Sqlite { .. } => "move it to PostgreSQL with `synapse_port_db` (Synapse documentation, \"Using Postgres\"), then back it up".into(),
            Self::TooManyFiles { .. } => "name smaller directories in `files`, or back that data up with another tool".into(),
        })
    }
}
