//! The repository: values on one side, objects in a store on the other.
//!
//! It has never heard of Matrix. Rule names (G1, B4, R2 …) in the code are those of `docs/protocol.md`.

use std::sync::Arc;

use crate::store::Store;

/// An opened repository.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
}

/// Why something in the repository could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no bucket or no `repository.json`: exit code 10.
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
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        None
    }
}

/// Make a new repository (`init`).
pub async fn init(store: Arc<dyn Store>) -> Result<Repository, Error> {
    Err(Error::AlreadyThere {
        url: store.url().to_owned(),
    })
}

/// Open an existing one.
pub async fn open(store: Arc<dyn Store>) -> Result<Repository, Error> {
    Err(Error::NoRepository {
        url: store.url().to_owned(),
    })
}

impl Repository {
    /// Where it is.
    pub fn url(&self) -> &str {
        self.store.url()
    }
}
