//! From the configuration of Synapse to the list of what must be saved.
//!
//! `load` reads and merges the YAML files, `paths` turns paths of Synapse (or of its container) into paths here, `table`
//! is the list of options that name files, `guess` looks where no list can know, `media` and `databases` read their
//! sections, `collect` looks at each path on disk, and `discover` is the order of all this. `remembered` reads the files as a snapshot
//! has them. Nothing here reads a database or a media file, and the content of a file is read only to follow it (YAML, signing keys).

mod collect;
mod databases;
mod discover;
mod guess;
mod listeners;
mod load;
mod media;
mod owners;
mod paths;
mod remembered;
mod table;

use std::path::PathBuf;

pub use collect::{FILES_MAX, open_file};
pub use discover::discover;
pub use guess::GUESS_BYTES_MAX;
pub use remembered::Remembered;

/// What discovery has to know beside the configuration itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files and directories as Synapse gets them with `-c`, in the same order; absolute, on this host.
    pub config: Vec<PathBuf>,
    /// The directory Synapse is started in, as Synapse sees it; relative paths in its configuration begin there.
    pub working_directory: Option<PathBuf>,
    /// Pairs (path in Synapse's container, path here). The longest matching one counts.
    pub path_map: Vec<(PathBuf, PathBuf)>,
    /// Further files and directories to save, on this host.
    pub files: Vec<PathBuf>,
    /// Our own home directory. It counts as that of the user Synapse runs as, for libpq's own files and for `~/` in modules,
    /// unless root runs this and Synapse's files belong to another user of this host, whose home is in `/etc/passwd`.
    pub home: Option<PathBuf>,
    /// Go on when the homeserver uses `SQLite`; its databases are then named but cannot be saved.
    pub allow_sqlite: bool,
}
