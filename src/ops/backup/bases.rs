//! Which earlier snapshots a backup goes on from: the newest, and behind it the newest that have what it lacks.
//!
//! A snapshot of the configuration alone (`--only`) between two nights must not make the next night open every file:
//! media are inherited from the newest snapshot that has media, and a stream's blobs are looked up in the lists of the newest
//! that has databases. Only what this run takes is looked for; usually all are one and cost one request.

use std::sync::Arc;

use super::Options;
use crate::format::PackId;
use crate::format::snapshot::{Media, Snapshot};
use crate::ops::Part;
use crate::repo::snapshots::{self, Loaded, Wish};
use crate::repo::{self, Repository};

/// Earlier snapshots of the homeserver.
#[derive(Debug)]
pub(super) struct Bases {
    /// The last one.
    pub(super) newest: Option<Arc<Loaded>>,
    with_media: Option<Arc<Loaded>>,
    with_databases: Option<Arc<Loaded>>,
}

impl Bases {
    /// In one walk back from the newest.
    pub(super) async fn find(repository: &Repository, server_name: &str, options: &Options) -> repo::Result<Self> {
        let takes = |part| options.parts.contains(&part);
        let media = |snapshot: &Snapshot| !takes(Part::Media) || snapshot.media.is_some();
        let databases = |snapshot: &Snapshot| !takes(Part::Database) || !snapshot.databases.is_empty();
        let wishes: [Wish<'_>; 3] = [&|_| true, &media, &databases];
        let [newest, with_media, with_databases] = snapshots::newest_that(repository, Some(server_name), wishes).await?;
        Ok(Self {
            newest,
            with_media,
            with_databases,
        })
    }

    /// To inherit shards from.
    pub(super) fn media(&self) -> Option<&Media> {
        self.with_media.as_ref().and_then(|loaded| loaded.snapshot.media.as_ref())
    }

    /// Whose lists of dump streams are read alongside.
    pub(super) fn databases(&self) -> Option<&Snapshot> {
        self.with_databases.as_ref().map(|loaded| &loaded.snapshot)
    }

    /// What they rely on.
    pub(super) fn packs(&self) -> Vec<PackId> {
        let all = [&self.newest, &self.with_media, &self.with_databases];
        let mut packs: Vec<PackId> = all
            .into_iter()
            .flatten()
            .flat_map(|one| one.snapshot.packs.iter().copied())
            .collect();
        packs.sort_unstable();
        packs.dedup();
        packs
    }
}
