//! The story of a backup, stage by stage.
//!
//! discover (before) → connect, lock, export → [config items | dump streams | media rows and files] → check (B4) →
//! commit (B5, B6). Nothing is listed before the last request is answered; whatever ends a run before that leaves
//! packs that the next run finds again.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connect::{self, Source};
use super::{Limits, Part, Parts, Run, Tools};
use crate::format::snapshot::{MediaIncluded, Problem, SigningKey, Snapshot, Totals};
use crate::format::{FORMAT_VERSION, ItemPath, ObjectId, PackId};
use crate::repo::Repository;
use crate::repo::attempts::{self, Attempt};
use crate::repo::catalog::{self, Catalog};
use crate::repo::extend;
use crate::repo::reader::Reader;
use crate::repo::writer::{Budget, Writer};
use crate::synapse::{Homeserver, ProviderKind, postgres, version};

mod bases;
mod config;
mod database;
mod ending;
mod files;
mod media;
pub(super) mod offsite;
mod patience;
mod report;
pub(super) mod spool;

use bases::Bases;
use config::StoredConfig;
use database::{Drained, LiveRows, StoredDatabases};
use media::StoredMedia;
use patience::Patience;
pub use report::{DatabaseReport, MediaReport, Report};

/// What a backup is told.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in the settings or on the command line"
)]
pub struct Options {
    /// What to take.
    pub parts: Parts,
    /// Tags of the new snapshot.
    pub tags: Vec<String>,
    /// Read every media file again instead of trusting unchanged rows.
    pub full: bool,
    /// Look at this share of the files that are not opened, in percent; 0 for none. Default a thirtieth of all.
    pub audit_percent: f64,
    /// Items (`media/…`) whose loss is known: counted, no problems.
    pub accepted_losses: HashSet<String>,
    /// Stop reading media after this, commit what there is, and go on in the next run.
    pub media_time: Option<Duration>,
    /// Find out what would be done; send nothing, commit nothing.
    pub dry_run: bool,
    /// Include `local_thumbnails` (default true).
    pub thumbnails: bool,
    /// Include `remote_content` and its thumbnails (default false).
    pub remote: bool,
    /// Include the URL preview cache (default false).
    pub url_cache: bool,
    /// Bounds.
    pub limits: Limits,
    /// PostgreSQL's programs.
    pub tools: Tools,
    /// Further databases from the settings, dumped after Synapse's own: name and libpq conninfo or URL.
    pub databases: Vec<(String, String)>,
    /// Where rows of media wait that do not fit into memory, in an unlinked file.
    pub spool_folder: PathBuf,
    /// This program's version, for the snapshot.
    pub tool_version: String,
}

/// Take a snapshot of a homeserver.
pub async fn backup(repository: &Repository, homeserver: &Homeserver, options: &Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let dry = options.dry_run.then(|| repository.discarding_writes());
    let repository = dry.as_ref().unwrap_or(repository);
    let prepared = run.until_cancelled(prepare(repository, homeserver, options)).await?;
    let budget = Budget::new(options.limits.memory_bytes, options.limits.connections);
    let load = async || run.until_cancelled(load_catalog(repository, &budget, &prepared.bases)).await;
    let report = attempts::attempts(repository, &budget, load, async |writer, catalog| {
        let taking = Taking {
            writer,
            catalog,
            prepared: &prepared,
            homeserver,
            options,
            run,
        };
        Box::pin(taking.attempt()).await
    });
    Ok(*report.await?)
}

/// What is known before anything is sent.
struct Prepared {
    bases: Bases,
    tools: Option<postgres::Tools>,
    sources: Vec<Source>,
    /// Of the Synapse that runs, where it can be asked.
    synapse_version: Option<String>,
    started: Instant,
}

/// The last snapshot, and the programs of PostgreSQL.
async fn prepare(repository: &Repository, homeserver: &Homeserver, options: &Options) -> anyhow::Result<Prepared> {
    let started = Instant::now();
    let needs_database = options.parts.contains(&Part::Database) || options.parts.contains(&Part::Media);
    let tools = if needs_database {
        Some(connect::tools(&options.tools).await?)
    } else {
        None
    };
    let sources = if needs_database {
        connect::sources(homeserver, &options.databases, &options.tools)?
    } else {
        Vec::new()
    };
    let bases = Bases::find(repository, &homeserver.server_name, options);
    let (bases, synapse_version) = tokio::join!(bases, version::running(homeserver));
    let bases = bases.context("find the last snapshot")?;
    Ok(Prepared {
        bases,
        tools,
        sources,
        synapse_version,
        started,
    })
}

/// The index as it is now (B1).
async fn load_catalog(repository: &Repository, budget: &Budget, bases: &Bases) -> anyhow::Result<Catalog> {
    let mut catalog = catalog::load(repository, budget.catalog_bytes).await.context("load the index")?;
    catalog.prefer(&bases.packs());
    Ok(catalog)
}

/// Everything that one attempt stored.
struct Taken {
    config: StoredConfig,
    databases: StoredDatabases,
    media: Option<StoredMedia>,
    /// Packs of earlier runs that were read and are not whole.
    damaged: BTreeSet<PackId>,
    time: Timestamp,
}

/// One attempt: what it writes with, and what it is told.
#[derive(Clone, Copy)]
struct Taking<'a> {
    writer: &'a Writer,
    /// As it was when the attempt began (B1).
    catalog: &'a Arc<Catalog>,
    prepared: &'a Prepared,
    homeserver: &'a Homeserver,
    options: &'a Options,
    run: &'a Run<'a>,
}

impl Taking<'_> {
    async fn attempt(&self) -> anyhow::Result<Attempt<Box<Report>>> {
        let Self { writer, run, .. } = *self;
        let taken = run.until_cancelled(Box::pin(self.take())).await?;
        run.progress.stage("commit", None, None);
        let finish = async { attempts::finish(writer, &taken.damaged).await.context("finish the packs") };
        let relied = match run.until_cancelled(finish).await? {
            Attempt::Done(relied) => relied,
            Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
        };
        if self.options.dry_run {
            return Ok(Attempt::Done(Box::new(report::of(None, &taken, writer, self.homeserver))));
        }
        let newest = self.prepared.bases.newest.as_deref();
        let extend = extend::extend_due(writer.repository(), &relied.packs, newest, self.options.limits.connections);
        let extended = run.until_cancelled(extend).await.context("extend the retention")?;
        let document = |id: ObjectId, packs: &BTreeSet<PackId>| self.document(id, packs, &taken);
        let committed = match ending::commit(writer.repository(), &relied, document, run).await? {
            Attempt::Done(committed) => committed,
            Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
        };
        run.progress.done("commit");
        let mut report = report::of(Some(&committed), &taken, writer, self.homeserver);
        report.object_lock = extended;
        Ok(Attempt::Done(Box::new(report)))
    }

    /// Config items, dump streams and media, side by side.
    async fn take(&self) -> anyhow::Result<Taken> {
        let Self {
            writer,
            catalog,
            prepared,
            homeserver,
            options,
            run,
        } = *self;
        let time = OnceLock::new();
        let (rows_out, rows_in) = oneshot::channel();
        let rows_out = options.parts.contains(&Part::Media).then_some(rows_out);
        let config = async {
            if options.parts.contains(&Part::Config) {
                config::store_config(writer, homeserver, run).await
            } else {
                Ok(StoredConfig::default())
            }
        };
        let databases = async {
            let Some(tools) = &prepared.tools else {
                return Ok(StoredDatabases::default());
            };
            let limits = options.limits;
            let reader = Reader::with_catalog(
                writer.repository(),
                Arc::clone(catalog),
                limits.memory_bytes / 8,
                limits.connections,
            );
            let previous = prepared.bases.databases().filter(|_| catalog.truncated);
            let task = database::Task {
                writer,
                tools,
                options,
                time: &time,
                alongside: previous.map(|snapshot| (&reader, snapshot)),
                run,
            };
            database::store_databases(&task, &prepared.sources, rows_out).await
        };
        let media = async {
            // No rows: media were not asked for, or the database part has failed and says so itself.
            let Ok(rows) = rows_in.await else { return Ok(None) };
            self.take_media(rows).await.map(Some)
        };
        let (config, databases, media) = Box::pin(futures::future::try_join3(config, databases, media)).await?;
        let (media, damaged) = media.unzip();
        let time = match time.get() {
            Some(time) => *time,
            None => writer.repository().date().await?,
        };
        Ok(Taken {
            config,
            databases,
            media,
            damaged: damaged.unwrap_or_default(),
            time,
        })
    }

    async fn take_media(&self, Drained { rows, states }: Drained) -> anyhow::Result<(StoredMedia, BTreeSet<PackId>)> {
        let Self {
            writer,
            catalog,
            prepared,
            homeserver,
            options,
            run,
        } = *self;
        let previous = prepared.bases.media();
        let limits = options.limits;
        let reader = Reader::with_catalog(
            writer.repository(),
            Arc::clone(catalog),
            limits.memory_bytes / 4,
            limits.connections,
        );
        let (Some(source), Some(tools)) = (prepared.sources.iter().find(|source| source.is_main), &prepared.tools) else {
            anyhow::bail!("no database to ask for media");
        };
        let live = LiveRows {
            source,
            tools,
            session: tokio::sync::Mutex::new(None),
        };
        let included = MediaIncluded {
            thumbnails: options.thumbnails,
            remote: options.remote,
            url_cache: options.url_cache,
        };
        run.progress.stage("media", None, Some(rows.count_left()));
        let task = media::Task {
            writer,
            reader: &reader,
            roots: media_roots(homeserver),
            defaults: media_defaults(homeserver, previous),
            previous,
            full: options.full,
            included,
            buckets: offsite::open(homeserver, limits.connections).await,
            accepted_losses: &options.accepted_losses,
            deadline: options.media_time.map(|time| Instant::now() + time),
            audit: catalog.date.and_then(|date| media::AuditShare::new(options.audit_percent, date)),
            live: &live,
            patience: Patience::default(),
            run,
        };
        let stored = media::store_media(&task, rows, states).await?;
        run.progress.done("media");
        Ok((stored, reader.damaged_packs()))
    }

    /// The snapshot document.
    fn document(&self, id: ObjectId, packs: &BTreeSet<PackId>, taken: &Taken) -> Snapshot {
        let Self {
            writer,
            prepared,
            homeserver,
            options,
            ..
        } = *self;
        let signing_keys = homeserver.signing_keys.iter().map(|key| SigningKey {
            id: key.key_id.clone(),
            public_key: key.public_key.clone(),
        });
        let media = taken.media.as_ref().map(|stored| &stored.media);
        let items = taken.config.items.len() as u64 + taken.databases.databases.len() as u64 + media.map_or(0, |media| media.files);
        Snapshot {
            id,
            format: FORMAT_VERSION,
            repository: writer.repository().info().id,
            time: taken.time,
            tool_version: options.tool_version.clone(),
            synapse_version: prepared.synapse_version.clone(),
            server_name: homeserver.server_name.clone(),
            tags: options.tags.clone(),
            signing_keys: signing_keys.collect(),
            databases: taken.databases.databases.clone(),
            media: media.cloned(),
            config: taken.config.items.clone(),
            config_paths: homeserver
                .config_sources
                .iter()
                .map(|path| ItemPath::from(path.as_path()))
                .collect(),
            packs: packs.iter().copied().collect(),
            problems: problems_of_document(taken),
            totals: Totals {
                items,
                read_bytes: read_bytes(taken),
                new_bytes: writer.new_bytes(),
                sent_bytes: writer.sent_bytes(),
            },
            seconds: prepared.started.elapsed().as_secs(),
        }
    }
}

/// Where a media file may be on this host: the media store, then providers that are folders, as Synapse asks them.
pub(super) fn media_roots(homeserver: &Homeserver) -> Vec<PathBuf> {
    let folder = |provider: &crate::synapse::Provider| match &provider.kind {
        ProviderKind::FileSystem { directory } => Some(directory.clone()),
        ProviderKind::S3(_) | ProviderKind::Other { .. } => None,
    };
    [homeserver.media.path.clone()]
        .into_iter()
        .chain(homeserver.media.providers.iter().filter_map(folder))
        .collect()
}

/// The last snapshot's defaults, since inherited shards were written with them; else those of the store's folder.
fn media_defaults(homeserver: &Homeserver, previous: Option<&crate::format::snapshot::Media>) -> media::Defaults {
    if let Some(media) = previous
        && let (Some(mode), Some(uid), Some(gid)) = (media.mode, media.uid, media.gid)
    {
        return media::Defaults {
            mode,
            uid,
            gid,
            owner: media.owner.clone(),
            group: media.group.clone(),
        };
    }
    let owner = homeserver.media.owner.clone();
    media::Defaults {
        mode: 0o644,
        uid: owner.as_ref().map_or(0, |owner| owner.uid),
        gid: owner.as_ref().map_or(0, |owner| owner.gid),
        owner: owner.as_ref().and_then(|owner| owner.user.clone()),
        group: owner.and_then(|owner| owner.group),
    }
}

/// What no shard of the media names.
fn problems_of_document(taken: &Taken) -> Vec<Problem> {
    let media = taken.media.iter().flat_map(|stored| stored.counts.for_document());
    taken.config.problems.iter().cloned().chain(media).collect()
}

fn read_bytes(taken: &Taken) -> u64 {
    let databases: u64 = taken.databases.reports.iter().map(|report| report.read_bytes).sum();
    taken.config.read_bytes + databases + taken.media.as_ref().map_or(0, |media| media.counts.read_bytes)
}
