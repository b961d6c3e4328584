//! The errors of a store, one variant for each thing a caller can do about them, and the hint that goes with each.
//!
//! `Display` says what failed, never why below it: that is the source. A hint is one line that says what to do. Where
//! the store's own answer decides what to do (a wrong region, a skewed clock), the source is a [`Cause`] that carries
//! the hint.

use std::error::Error as StdError;
use std::fmt;

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
    /// The object has more bytes than whoever reads it takes; none was read.
    #[error("object `{key}` has {bytes} bytes, and what it should be has at most {limit}")]
    TooLong {
        /// The key.
        key: String,
        /// Its length.
        bytes: u64,
        /// What it may have.
        limit: u64,
    },
    /// There is no such bucket (or directory).
    #[error("no {} at {url}", place(url))]
    NoBucket {
        /// The store's address.
        url: String,
    },
    /// The credentials are missing, wrong or expired.
    #[error("no valid credentials for {url}: {message}")]
    Unauthenticated {
        /// The store's address.
        url: String,
        /// The store's own words.
        message: String,
        /// What to do about it.
        hint: Hint,
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
    /// Nobody answers, or the name is not known.
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
        /// What is wrong, and what to write instead.
        message: String,
    },
}

fn place(url: &str) -> &'static str {
    if url.starts_with("file:") { "directory" } else { "bucket" }
}

impl Error {
    /// In one line with what is below it, for where it is one problem among others.
    pub fn with_cause(&self) -> String {
        let cause = self.source().map(|source| format!(": {source}"));
        format!("{self}{}", cause.unwrap_or_default())
    }

    /// The store's answer about this one request, and the same each time: of others it says nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if Cause::find(source.as_ref()).is_some_and(|cause| cause.is_refusal))
    }

    /// What the user can do about it, where something is known.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NotFound { .. } | Self::TooLong { .. } | Self::BadUrl { .. } => None,
            Self::NoBucket { url } if url.starts_with("file:") => {
                Some("check the path; a file system that should be mounted there may not be".to_owned())
            }
            Self::NoBucket { .. } => {
                Some("create the bucket first, or correct the bucket's name in the repository URL, s3.endpoint and s3.region".to_owned())
            }
            Self::Unauthenticated { hint, .. } => Some(hint.clone()),
            Self::Denied { url, .. } if url.starts_with("file:") => {
                Some("check owner and mode of the directory: this user must be able to do it".to_owned())
            }
            Self::Denied { action, .. } => Some(format!("the key is known but lacks a right: {}", right(action))),
            Self::Unreachable { source, .. } | Self::Tls { source, .. } | Self::Unknown { source, .. } | Self::Failed { source, .. } => {
                Cause::find(source.as_ref()).and_then(|cause| cause.hint.clone())
            }
        }
    }
}

/// The right that a policy must give for an action, in the words of S3's policies.
fn right(action: &str) -> &'static str {
    match action {
        "GET" | "HEAD" => "allow s3:GetObject on the objects (and s3:ListBucket on the bucket)",
        "LIST" => "allow s3:ListBucket on the bucket",
        "DELETE" => "allow s3:DeleteObject on the objects",
        "ABORT" => "allow s3:AbortMultipartUpload on the objects",
        "COPY" => "allow s3:GetObject and s3:PutObject on the objects (and s3:PutObjectRetention, where `object_lock` is set)",
        _ => "allow s3:PutObject on the objects (and s3:PutObjectRetention, where `object_lock` is set)",
    }
}

/// A cause in our own words, with what to do about it and, below it, what a library said.
#[derive(Debug)]
pub(super) struct Cause {
    message: String,
    hint: Option<Hint>,
    source: Option<Source>,
    is_refusal: bool,
}

impl Cause {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            source: None,
            is_refusal: false,
        }
    }

    /// Asked again, the store would say the same.
    pub(super) fn refusal(mut self, is_refusal: bool) -> Self {
        self.is_refusal = is_refusal;
        self
    }

    pub(super) fn hint(mut self, hint: Option<impl Into<Hint>>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }

    pub(super) fn source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn own_hint(&self) -> Option<Hint> {
        self.hint.clone()
    }

    fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(cause) = error.downcast_ref() {
                return Some(cause);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
