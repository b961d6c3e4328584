//! The errors of a store, one variant for each thing a caller can do about them.

use std::error::Error as StdError;

/// A line that says what to do.
pub type Hint = String;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no object under this key.
    #[error("no object `{key}`")]
    NotFound {
        /// The key.
        key: String,
    },
    /// There is no such bucket (or directory).
    #[error("no bucket at {url}")]
    NoBucket {
        /// The store's address.
        url: String,
    },
    /// The credentials are missing, wrong or expired.
    #[error("{url} refuses the credentials: {message}")]
    Unauthenticated {
        /// The store's address.
        url: String,
        /// The store's own words.
        message: String,
    },
    /// The credentials are good, but not for this.
    #[error("{url} does not allow {action} of `{key}`")]
    Denied {
        /// The store's address.
        url: String,
        /// `PUT`, `GET`, `LIST` …
        action: &'static str,
        /// The key.
        key: String,
    },
    /// Nobody answers, or the name is not known, or the certificate is not trusted.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// The store's address.
        url: String,
        /// What the network said.
        #[source]
        source: Source,
    },
    /// The TLS handshake failed: the certificate is not trusted or not for this name.
    #[error("the certificate of {url} is not trusted")]
    Tls {
        /// The store's address.
        url: String,
        /// What the TLS library said.
        #[source]
        source: Source,
    },
    /// A write may or may not have happened: go on under a fresh key (rule G1).
    #[error("no answer whether {action} of `{key}` happened")]
    Unknown {
        /// `PUT`, `COPY`.
        action: &'static str,
        /// The key.
        key: String,
        /// What broke.
        #[source]
        source: Source,
    },
    /// Anything else, after the tries that made sense.
    #[error("{action} of `{key}` failed")]
    Failed {
        /// `PUT`, `GET` …
        action: &'static str,
        /// The key.
        key: String,
        /// The cause.
        #[source]
        source: Source,
    },
    /// A repository URL or store setting that cannot be meant.
    #[error("{message}")]
    BadUrl {
        /// What is wrong.
        message: String,
    },
}

impl Error {
    /// What the user can do about it, where something is known.
    pub fn hint(&self) -> Option<Hint> {
        None
    }
}
