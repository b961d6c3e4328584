//! The repository: values on one side, objects in a store on the other.
//!
//! It has never heard of Matrix. Rule names (G1, B4, R2 …) in the code are those of `docs/protocol.md`; each stands
//! where the rule is kept. Objects are immutable and keys are never used twice, so that backups, restores and
//! pruning may overlap, stall and die anywhere without a lock.

use std::fmt;
use std::sync::Arc;

use crate::format;
use crate::format::repository::RepositoryInfo;
use crate::format::{BlobId, ObjectId, PackId};
use crate::repo::keyring::Needs;
use crate::store::{self, Store};

mod again;
mod aside;
pub mod attempts;
pub mod catalog;
pub mod commit;
pub mod drills;
pub mod extend;
pub mod keyring;
mod repair;

pub mod old_versions;
pub mod open;
pub mod reader;
mod sealed;
pub mod snapshots;
pub mod sweep;
pub mod tags;
pub mod transfer;
pub mod walk;
pub mod writer;

#[cfg(test)]
pub(crate) mod bugs;

/// Where fresh ids come from: 128 random bits each. A parameter, so that a simulation can be repeated.
#[derive(Clone)]
pub struct Ids(Arc<dyn Fn() -> [u8; 16] + Send + Sync>);

impl Ids {
    /// Ids from this function.
    pub fn new(make: impl Fn() -> [u8; 16] + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// A fresh id for a segment, snapshot, run or repository.
    pub fn object(&self) -> ObjectId {
        ObjectId::from_bytes((self.0)())
    }

    /// A fresh id for a pack.
    pub fn pack(&self) -> PackId {
        PackId::from_bytes((self.0)())
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

/// An opened repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    info: Arc<RepositoryInfo>,
    ids: Ids,
    keyring: Arc<keyring::Keyring>,
    /// The store, where it seals.
    sealed: Option<Arc<sealed::Sealed>>,
}

impl Repository {
    /// One that is not sealed, as if it had been opened.
    #[cfg(test)]
    pub(crate) fn plain(store: Arc<dyn Store>, info: RepositoryInfo, ids: Ids) -> Self {
        let (info, keyring) = (Arc::new(info), Arc::default());
        let sealed = None;
        Self {
            store,
            info,
            ids,
            keyring,
            sealed,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// What `repository.json` says.
    pub fn info(&self) -> &RepositoryInfo {
        &self.info
    }

    /// The objects, by the names of `format::keys` and as they were before sealing.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The same repository, read as it is, whose writes vanish: for a dry run.
    #[must_use]
    pub fn discarding_writes(&self) -> Self {
        let store: Arc<dyn Store> = Arc::new(store::wrappers::Discard::new(Arc::clone(&self.store)));
        Self { store, ..self.clone() }
    }

    /// Fresh ids.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }
}

/// Packs that are named in a message.
const PACKS_SHOWN: usize = 3;

/// Why something in the repository could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is a bucket, but no `repository.json`: exit code 10.
    #[error("no repository at {url}")]
    NoRepository {
        /// Where it was looked for.
        url: String,
    },
    /// `init` where a repository is already.
    #[error("there is already a repository at {url}")]
    AlreadyThere {
        /// Where.
        url: String,
    },
    /// No snapshot has this name.
    #[error("no snapshot `{name}` in {url}")]
    NoSnapshot {
        /// As it was asked for.
        name: String,
        /// Where.
        url: String,
        /// What to do about it.
        hint: String,
    },
    /// Several snapshots begin with this.
    #[error("`{name}` names {count} snapshots")]
    Ambiguous {
        /// As it was asked for.
        name: String,
        /// How many.
        count: usize,
    },
    /// A blob that nothing holds any more, or holds only in damaged packs.
    #[error("blob {id} is lost: {reason}")]
    Lost {
        /// Which.
        id: BlobId,
        /// In which packs it was looked for, and what was wrong there.
        reason: String,
    },
    /// An object whose bytes are not what they should be.
    #[error("`{key}` is damaged")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        #[source]
        source: format::Error,
    },
    /// A value that the format cannot hold.
    #[error("cannot be encoded")]
    Encode {
        /// Which limit.
        #[source]
        source: format::Error,
    },
    /// The check before the commit (B4) failed again and again: somebody deletes packs under us.
    #[error("packs that this snapshot relies on keep vanishing: {packs}")]
    PacksVanish {
        /// The first of them.
        packs: String,
    },
    /// The source of a stream failed.
    #[error("reading {what}")]
    Source {
        /// Which stream.
        what: String,
        /// What the reader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository is sealed, and no key at hand opens this: exit code 12.
    #[error("no {needs} here opens {what}")]
    NoKey {
        /// The object, in backquotes, or what it is for.
        what: String,
        /// What would open it.
        needs: Needs,
    },
    /// Sealing is asked for, and the repository is not sealed (any more), or the other way round: exit code 2.
    #[error("{message}")]
    Sealing {
        /// What does not fit.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A snapshot that nobody known has written as it is.
    #[error("snapshot {snapshot} is not authentic: {reason}")]
    NotAuthentic {
        /// Its id.
        snapshot: String,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(store::Error),
    /// A scratch file for sorting could not be written or read.
    #[error("scratch file in `{folder}`")]
    Spool {
        /// Where.
        folder: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A task of ours ended before its work did.
    #[error("a worker ended early: {0}")]
    Worker(String),
    /// The failure that ended a session of writing, as everyone is told who still wanted something of it.
    #[error(transparent)]
    Session(Arc<Error>),
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRepository { .. } => Some("`synapse-backup init` makes one; or look at `repository` in the settings".into()),
            Self::AlreadyThere { .. } => Some("back up into it, or choose another bucket or prefix".into()),
            Self::NoSnapshot { hint, .. } => Some(hint.clone()),
            Self::Ambiguous { .. } => Some("give more digits; `synapse-backup snapshots` lists them".into()),
            Self::Lost { .. } | Self::Damaged { .. } => Some("`synapse-backup verify` tells what is lost with it".into()),
            Self::PacksVanish { .. } => {
                Some("something other than this program deletes objects: look at the bucket's lifecycle rules".into())
            }
            Self::NoKey { needs, .. } => Some(needs.hint().into()),
            Self::Sealing { hint, .. } => Some((*hint).into()),
            Self::NotAuthentic { .. } => Some(
                "somebody else may have written it: `verify` tells which snapshots are good; `--signer` names a signer you know, `--accept-unsigned` takes it all the same"
                    .into(),
            ),
            Self::Store(error) => error.hint(),
            Self::Session(error) => error.hint(),
            Self::Spool { .. } => Some("about 160 bytes of room are needed there for each blob of the repository".into()),
            Self::Encode { .. } | Self::Source { .. } | Self::Worker(_) => None,
        }
    }

    /// Which key is missing, if that is what is wrong.
    pub fn needs(&self) -> Option<Needs> {
        match self {
            Self::NoKey { needs, .. } => Some(*needs),
            Self::Session(error) => error.needs(),
            _ => None,
        }
    }

    /// It is whole, and needs a later version of this program.
    pub(crate) fn is_of_a_later_version(&self) -> bool {
        let Self::Damaged { source, .. } = self else { return false };
        matches!(source, format::Error::Version { .. } | format::Error::Feature { .. })
    }

    /// Packs that were relied on vanished, again and again; the first of them are named.
    pub(crate) fn vanished<'a>(packs: impl IntoIterator<Item = &'a PackId>) -> Self {
        let shown: Vec<String> = packs.into_iter().take(PACKS_SHOWN).map(ToString::to_string).collect();
        Self::PacksVanish { packs: shown.join(", ") }
    }

    pub(crate) fn damaged(key: &str, source: format::Error) -> Self {
        Self::Damaged {
            key: key.to_owned(),
            source,
        }
    }
}

impl From<store::Error> for Error {
    /// What the sealed store could not open is told apart from what the bucket did.
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Failed { action, key, source } => match source.downcast::<format::Error>() {
                Ok(source) if *source == format::Error::NoKey => Self::NoKey {
                    what: format!("`{key}`"),
                    needs: Needs::to_open(&key),
                },
                Ok(source) => Self::Damaged { key, source: *source },
                Err(source) => Self::Store(store::Error::Failed { action, key, source }),
            },
            // Nothing of ours is so long: it is somebody else's, or damaged.
            store::Error::TooLong { key, bytes, limit } => Self::Damaged {
                key,
                source: format::Error::OverLimit {
                    what: "bytes of the object",
                    value: bytes,
                    limit,
                },
            },
            error => Self::Store(error),
        }
    }
}

/// What repository calls give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
