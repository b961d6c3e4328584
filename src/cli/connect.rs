//! From settings to things that live: the store, the repository in it, the homeserver.
//!
//! The only place where `cli` names the constructors of the floors below.

use std::sync::Arc;

use anyhow::Context as _;

use super::settings::Settings;
use crate::ops::Error;
use crate::repo::{self, Repository};
use crate::store::Store;
use crate::synapse::Homeserver;

/// What went to the store and came back, counted by the store itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {}

impl Traffic {
    /// `requests`, `sent_bytes`, `received_bytes`, as the report has them.
    #[expect(clippy::unused_self, reason = "the counters come with the store")]
    pub(super) fn totals(&self) -> serde_json::Value {
        serde_json::json!({
            "requests": {
                "put": 0, "create": 0, "part": 0, "complete": 0, "abort": 0,
                "copy": 0, "get": 0, "list": 0, "head": 0, "delete": 0
            },
            "sent_bytes": 0,
            "received_bytes": 0
        })
    }
}

/// The URL that was given, by flag or settings.
pub(super) fn repository_url<'a>(flag: Option<&'a str>, settings: &'a Settings) -> Result<&'a str, Error> {
    flag.or(settings.repository.as_deref()).ok_or_else(|| {
        Error::usage(
            "it is not known where the repository is",
            "give --repository s3://BUCKET/PREFIX, or set `repository` in the settings file (/etc/synapse-backup/config.yaml, or -c FILE)",
        )
    })
}

async fn store(_url: &str, _create: bool, _settings: &Settings, _traffic: &Traffic) -> anyhow::Result<Arc<dyn Store>> {
    anyhow::bail!("being built")
}

/// Make a repository.
pub(super) async fn create(url: &str, settings: &Settings, traffic: &Traffic) -> anyhow::Result<Repository> {
    let store = store(url, true, settings, traffic).await?;
    repo::init(store).await.with_context(|| format!("create a repository at {url}"))
}

/// Open one.
pub(super) async fn open(url: &str, settings: &Settings, traffic: &Traffic) -> anyhow::Result<Repository> {
    let store = store(url, false, settings, traffic).await?;
    repo::open(store).await.with_context(|| format!("open the repository at {url}"))
}

/// Read what Synapse reads.
pub(super) async fn homeserver(_settings: &Settings) -> anyhow::Result<Homeserver> {
    anyhow::bail!("being built")
}
