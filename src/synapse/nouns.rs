//! The nouns of the homeserver: what discovery finds, as plain values.
//!
//! Paths are paths on this host (after `path_map`), of any bytes. Passwords and keys have no `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::keys::SigningKey;

/// Everything that one configuration of Synapse names.
#[derive(Debug, Clone)]
pub struct Homeserver {
    /// `server_name`, as in `@user:server_name`.
    pub server_name: String,
    /// The YAML files that Synapse merges, in its order, on this host. The first is usually `homeserver.yaml`.
    pub config_sources: Vec<PathBuf>,
    /// What to save, sorted by path, each path once.
    pub files: Vec<ConfigFile>,
    /// What is named but cannot be saved, and what is odd.
    pub findings: Vec<Finding>,
    /// Where media are.
    pub media: MediaStore,
    /// The databases in the order in which they must be dumped: the one with `main` first.
    pub databases: Vec<DatabaseConfig>,
    /// Ports on which the main process speaks HTTP without TLS, in their order.
    pub http_ports: Vec<u16>,
    /// The public halves of the keys that Synapse signs with; the first one signs.
    pub signing_keys: Vec<SigningKey>,
    /// The file of the signing key is not there. Synapse would make a new one when it starts, and lose its identity.
    pub signing_key_missing: bool,
    /// `old_signing_keys`, for information; they stand in the configuration itself.
    pub old_signing_keys: Vec<OldSigningKey>,
}

/// A file, link or directory to save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    /// File, link or directory.
    pub kind: FileKind,
    /// Why it is here.
    pub role: Role,
    /// Permission bits (the low twelve).
    pub mode: u32,
    /// Owner and group, by number and name.
    pub owner: Owner,
    /// Size when it was found; 0 for links and directories.
    pub bytes: u64,
    /// It holds or may hold a password or a private key.
    pub secret: bool,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A symbolic link. What it leads to is saved as well, if it was named through the link.
    Symlink {
        /// Its text, as it is.
        target: PathBuf,
    },
    /// A directory of a saved tree.
    Directory,
}

/// Who owns a file: numbers always, names where this host knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the user.
    pub user: Option<String>,
    /// Name of the group.
    pub group: Option<String>,
}

/// Why a file is saved. Restore writes [`Role::Config`] and [`Role::SigningKey`] last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A YAML file that Synapse is started with.
    Config,
    /// The signing key.
    SigningKey,
    /// The YAML file of a worker.
    Worker,
    /// A file with a secret that an option names by `…_path`.
    Secret,
    /// The registration of an application service.
    AppService,
    /// A logging configuration; the logs themselves are not saved.
    LogConfig,
    /// Part of a directory of templates.
    Template,
    /// A certificate or its key.
    Certificate,
    /// A password file or certificate for the connection to the database.
    Database,
    /// Another file that an option names.
    Named,
    /// From `files:` in our own settings.
    Extra,
    /// A guess: a path in the free configuration of a module, or a file that lies beside the configuration.
    Guess,
}

impl Role {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::SigningKey => "signing_key",
            Self::Worker => "worker",
            Self::Secret => "secret",
            Self::AppService => "app_service",
            Self::LogConfig => "log_config",
            Self::Template => "template",
            Self::Certificate => "certificate",
            Self::Database => "database",
            Self::Named => "named",
            Self::Extra => "extra",
            Self::Guess => "guess",
        }
    }
}

/// Something about one item that the admin should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing is wrong.
    pub kind: FindingKind,
    /// `config/<absolute path without the leading slash>`, or `media`.
    pub item: String,
    /// One line, with the option that names it.
    pub message: String,
}

/// What is wrong with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// Named, but not there.
    Missing,
    /// There, but it cannot be opened or listed.
    Unreadable,
    /// A FIFO, socket or device, a file where a directory should be or the other way round.
    NotAFile,
    /// Saved as it is, but not what Synapse expects.
    Damaged,
    /// Saved as it is, and Synapse passes over it, too. Not a problem.
    Ignored,
    /// Not saved, since it may belong to somebody else. Not a problem, but `doctor` asks.
    LeftOut,
}

impl FindingKind {
    /// Whether a backup with this finding has a problem.
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::Ignored | Self::LeftOut)
    }
}

/// Where Synapse keeps media.
#[derive(Debug, Clone)]
pub struct MediaStore {
    /// `media_store_path` on this host.
    pub path: PathBuf,
    /// Who owns it, if it exists.
    pub owner: Option<Owner>,
    /// Its permission bits, if it exists.
    pub mode: Option<u32>,
    /// Further places where a media file may be, in the order in which Synapse asks them.
    pub providers: Vec<Provider>,
    /// `enable_local_media_storage` (Synapse 1.146): when false, nothing is stored under `path` at all.
    pub enable_local_media_storage: bool,
    /// `enable_media_repo` of the main process; when false, a worker serves the same store.
    pub enable_media_repo: bool,
    /// `max_upload_size` in bytes.
    pub max_upload_bytes: u64,
}

/// One entry of `media_storage_providers`.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Which and where.
    pub kind: ProviderKind,
    /// Local media are stored there.
    pub store_local: bool,
    /// Remote media are stored there.
    pub store_remote: bool,
    /// An upload waits for it. If not, it may lack files.
    pub store_synchronous: bool,
}

/// The providers that exist.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    /// `file_system`, or the legacy `backup_media_store_path`.
    FileSystem {
        /// Laid out like the media store.
        directory: PathBuf,
    },
    /// `s3_storage_provider.S3StorageProviderBackend`.
    S3(S3Provider),
    /// Any other module.
    Other {
        /// Its Python name.
        module: String,
    },
}

/// The configuration of synapse-s3-storage-provider. An object's key is `prefix` and the path in the media store.
#[derive(Debug, Clone, Default)]
pub struct S3Provider {
    /// `bucket`.
    pub bucket: String,
    /// `prefix`, empty by default.
    pub prefix: String,
    /// `region_name`.
    pub region: Option<String>,
    /// `endpoint_url`.
    pub endpoint: Option<String>,
    /// `access_key_id`; the usual AWS chain if absent.
    pub access_key_id: Option<String>,
    /// `secret_access_key`.
    pub secret_access_key: Option<Secret>,
    /// `session_token`.
    pub session_token: Option<Secret>,
    /// `sse_customer_key`: without it the objects cannot be read.
    pub sse_customer_key: Option<Secret>,
    /// `sse_customer_algo`, `AES256` when there is a key.
    pub sse_customer_algorithm: Option<String>,
}

/// A text that must not be shown, nor stay in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// One database of Synapse.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `synapse` for the one that holds `main`, `synapse-<label>` for the others.
    pub name: String,
    /// Synapse's own label: `master`, or the key in `databases:`.
    pub label: String,
    /// Which database it is.
    pub engine: Engine,
    /// `main`, `state` or both.
    pub data_stores: Vec<String>,
}

/// What Synapse's database runs on.
#[derive(Clone, PartialEq, Eq)]
pub enum Engine {
    /// Through psycopg2.
    Postgres {
        /// libpq's keywords as psycopg2 gives them to libpq: `database` is `dbname`, `cp_*` and null are gone, values are
        /// Python's `str()`, paths are paths on this host. `dsn`, if present, is a whole conninfo that the others override.
        args: BTreeMap<String, String>,
    },
    /// A file.
    Sqlite {
        /// The file, or `:memory:`.
        path: PathBuf,
    },
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres { args } => f.debug_tuple("Postgres").field(&args.keys().collect::<Vec<_>>()).finish(),
            Self::Sqlite { path } => f.debug_tuple("Sqlite").field(path).finish(),
        }
    }
}

/// An entry of `old_signing_keys`; public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldSigningKey {
    /// `ed25519:a_ABCD`.
    pub key_id: String,
    /// The public key in unpadded base64.
    pub public_key: String,
    /// `expired_ts`, milliseconds since 1970.
    pub expired_ms: Option<i64>,
}

/// Where Synapse answers HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its address.
    pub place: ListenerPlace,
    /// It speaks TLS itself.
    pub tls: bool,
    /// `/_matrix/key/v2/server` is answered there.
    pub has_keys: bool,
}

/// An address that can be asked from this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerPlace {
    /// TCP.
    Port {
        /// As it stands in a URL.
        host: String,
        /// Its number.
        port: u16,
    },
    /// A unix socket.
    Socket(PathBuf),
}
