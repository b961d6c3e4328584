//! `repository.json`: what every reader and writer must know before anything else.
//!
//! It is written once, by `init`, and never changed. It is the one plain-text object, so that a person can read it too.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chunk::ChunkSizes;
use super::{Error, FORMAT_VERSION, ObjectId, REPOSITORY_BYTES_MAX, Result, within};

/// What errors call it.
const REPOSITORY: &str = "repository.json";
/// The grace period of the protocol: 24 hours.
pub const GRACE_SECONDS: u64 = 86_400;
/// The window of the protocol: 12 hours.
pub const WINDOW_SECONDS: u64 = 43_200;
/// Features that a repository may require of this program.
const FEATURES_KNOWN: [&str; 1] = [SEALED];
/// Packs, segments and snapshots are sealed with age.
const SEALED: &str = "sealed";

/// The content of `repository.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryInfo {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Its id.
    pub id: ObjectId,
    /// When `init` wrote it, by the store's clock.
    pub created: Timestamp,
    /// Are packs, segments and snapshots sealed with age?
    pub sealed: bool,
    /// What a program must know to read it at all.
    #[serde(default)]
    pub features_required: Vec<String>,
    /// Where dump streams are cut.
    pub chunk_sizes: ChunkSizes,
    /// How long a condemned pack stays (rule P7).
    pub grace_seconds: u64,
    /// How long after its check a snapshot may land (rule B5). Shorter than the grace period.
    pub window_seconds: u64,
}

/// What decides whether the rest may be read.
#[derive(Deserialize)]
struct Gate {
    format: u32,
    #[serde(default)]
    features_required: Vec<String>,
}

impl RepositoryInfo {
    /// A new, unsealed repository with the default sizes and times.
    pub fn new(id: ObjectId, created: Timestamp) -> Self {
        Self {
            format: FORMAT_VERSION,
            id,
            created,
            sealed: false,
            features_required: Vec::new(),
            chunk_sizes: ChunkSizes::default(),
            grace_seconds: GRACE_SECONDS,
            window_seconds: WINDOW_SECONDS,
        }
    }

    /// The same, sealed: a program that does not know sealing refuses it.
    #[must_use]
    pub fn sealed(self) -> Self {
        Self {
            sealed: true,
            features_required: vec![SEALED.to_owned()],
            ..self
        }
    }

    /// The object's bytes: indented JSON and a newline.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| Error::Invalid {
            what: REPOSITORY,
            reason: error.to_string(),
        })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the object. Another format version and a required feature that is not known here refuse before the rest is read.
    pub fn from_json(data: &[u8]) -> Result<Self> {
        within("bytes of repository.json", data.len() as u64, REPOSITORY_BYTES_MAX as u64)?;
        let broken = |error: serde_json::Error| Error::damaged(REPOSITORY, error.to_string());
        let gate: Gate = serde_json::from_slice(data).map_err(broken)?;
        if gate.format != FORMAT_VERSION {
            return Err(Error::Version {
                what: REPOSITORY,
                found: gate.format,
                supported: FORMAT_VERSION,
            });
        }
        if let Some(feature) = gate
            .features_required
            .into_iter()
            .find(|feature| !FEATURES_KNOWN.contains(&feature.as_str()))
        {
            return Err(Error::Feature { feature });
        }
        let info: Self = serde_json::from_slice(data).map_err(broken)?;
        info.check()?;
        Ok(info)
    }

    fn check(&self) -> Result<()> {
        if self.format != FORMAT_VERSION {
            return Err(Error::Version {
                what: REPOSITORY,
                found: self.format,
                supported: FORMAT_VERSION,
            });
        }
        if self.sealed != self.features_required.iter().any(|feature| feature == SEALED) {
            return Err(Error::damaged(REPOSITORY, "sealed: it must stand in features_required too"));
        }
        if self.window_seconds == 0 || self.window_seconds >= self.grace_seconds {
            return Err(Error::damaged(
                REPOSITORY,
                "window_seconds: it must lie between 0 and grace_seconds",
            ));
        }
        self.chunk_sizes
            .validate()
            .map_err(|error| Error::damaged(REPOSITORY, error.to_string()))
    }
}
