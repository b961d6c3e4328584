//! The databases of a drill: where they go, loading them through `restore`, and their end.
//!
//! Each is loaded by a call of its own, so that one that is damaged does not hide the others. Remote media keep their
//! rows here: what is compared is what was dumped, before any cure.

use std::path::Path;

use anyhow::Context;

use super::checks::{Checks, Found, counted};
use super::{Databases, Options, Trial};
use crate::format::snapshot::{Database, ProblemKind, Snapshot};
use crate::ops::connect::{self, LOCK_SECONDS};
use crate::ops::restore::{self, DatabaseTarget};
use crate::ops::{Error, Part, owners};
use crate::repo;
use crate::synapse::postgres::private::PrivateCluster;
use crate::synapse::postgres::scratch::Scratch;
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::tools::{Tools, Version};
use crate::synapse::postgres::{self, ConnInfo, RunAs, Session, sql};

/// What must be taken down again.
#[derive(Debug, Default)]
pub(super) struct Stage {
    cluster: Option<PrivateCluster>,
    scratch: Vec<Scratch>,
    tools: Option<Tools>,
}

impl Stage {
    /// Drop the scratch databases, stop the cluster.
    pub(super) async fn clean(self) -> anyhow::Result<()> {
        let mut failed = None;
        for scratch in self.scratch {
            let Some(tools) = &self.tools else { break };
            if let Err(error) = scratch.clean(tools).await {
                failed = Some(error);
            }
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// A database that was brought back, whether all of it or not.
#[derive(Debug)]
pub(super) struct Loaded<'a> {
    pub(super) database: &'a Database,
    pub(super) info: ConnInfo,
    pub(super) tools: Tools,
    /// One-time keys that the dump had.
    pub(super) one_time_keys: u64,
    /// `restore` has said that it is whole.
    pub(super) whole: bool,
}

/// Load every database of the snapshot that is not left out.
pub(super) async fn load<'a>(trial: &Trial<'a>, stage: &mut Stage, checks: &mut Checks) -> anyhow::Result<Vec<Loaded<'a>>> {
    let wanted: Vec<&Database> = trial
        .snapshot
        .databases
        .iter()
        .filter(|one| !is_skipped(one, trial.options))
        .collect();
    let mut loaded = Vec::new();
    if wanted.is_empty() {
        return Ok(loaded);
    }
    let tools = connect::tools(&trial.options.tools).await?;
    stage.tools = Some(tools.clone());
    if matches!(trial.options.databases, Databases::Private) {
        private_cluster(trial, stage, &wanted).await.context("start a private PostgreSQL")?;
    }
    for database in wanted {
        let (info, text, options) = place(trial, stage, &tools, database)
            .await
            .with_context(|| format!("make a scratch database for `{}`", database.name))?;
        loaded.push(load_one(trial, database, info, text, &options, &tools, checks).await?);
    }
    Ok(loaded)
}

pub(super) fn is_skipped(database: &Database, options: &Options) -> bool {
    match &options.databases {
        Databases::Private => false,
        Databases::Given(given) => given
            .iter()
            .any(|(name, target)| *name == database.name && *target == DatabaseTarget::Skip),
    }
}

/// A cluster of at least the version of the dumps, with the roles that they name.
async fn private_cluster(trial: &Trial<'_>, stage: &mut Stage, wanted: &[&Database]) -> anyhow::Result<()> {
    let version = |database: &&Database| Version::of_program(&format!("x (PostgreSQL) {}", database.pg_dump_version));
    let newest = wanted.iter().filter_map(version).max().unwrap_or(Version { major: 13, minor: 0 });
    let server = Tools::server(&connect::tool_options(&trial.options.tools), newest).await?;
    let account = account(trial.snapshot)?;
    trial.run.progress.stage("private PostgreSQL", None, None);
    // On the stage before it is up, so that it is stopped in order whenever the drill is interrupted.
    let begun = PrivateCluster::begin(&trial.folder.cluster(), &server, account.as_ref()).await?;
    let cluster = stage.cluster.insert(begun);
    cluster.up().await?;
    trial.run.progress.done("private PostgreSQL");
    let tools = connect::tools(&trial.options.tools).await?;
    let mut session = Session::open(&cluster.info("postgres")?, &tools, Purpose::Write, LOCK_SECONDS).await?;
    let mut roles: Vec<&String> = wanted
        .iter()
        .flat_map(|database| {
            database
                .facts
                .owners
                .iter()
                .chain(&database.facts.grantees)
                .chain([&database.owner])
        })
        .filter(|role| !role.starts_with("pg_") && *role != "postgres" && !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    for role in roles {
        let statement = format!("CREATE ROLE {} LOGIN", sql::name(role));
        session.execute("making a role of the dump", &statement).await?;
    }
    session.close().await;
    Ok(())
}

/// Whom the cluster runs as when we are root, which PostgreSQL refuses: Synapse's own user, who knows all of this anyway,
/// else `postgres`, else `nobody`.
fn account(snapshot: &Snapshot) -> anyhow::Result<Option<RunAs>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owners = owners::Owners::default();
    let synapse = snapshot
        .media
        .as_ref()
        .and_then(|media| Some((media.owner.as_deref()?, media.group.as_deref()?)));
    let candidates = synapse
        .into_iter()
        .chain([("postgres", "postgres"), ("nobody", "nogroup"), ("nobody", "nobody")]);
    let known = |(user, group): (&str, &str)| Some((owners.user(user)?, owners.group(group)?));
    match candidates.filter_map(known).find(|(uid, _)| *uid != 0) {
        Some((uid, gid)) => Ok(Some(RunAs { uid, gid, home: None })),
        None => Err(Error::failed(
            "PostgreSQL refuses to run as root, and none of the users of Synapse, `postgres` and `nobody` exists here",
            "run the drill as another user, or drill on another server with --database",
        )
        .into()),
    }
}

/// Where a database goes, as a connection, as text for `restore`, and with what environment.
async fn place(
    trial: &Trial<'_>,
    stage: &mut Stage,
    tools: &Tools,
    database: &Database,
) -> anyhow::Result<(ConnInfo, String, crate::ops::Tools)> {
    if let Some(cluster) = &stage.cluster {
        let info = cluster.info(&database.name)?;
        let text = info.to_argument();
        // Nothing of our own environment may lead elsewhere.
        let clean = crate::ops::Tools {
            environment: Vec::new(),
            ..trial.options.tools.clone()
        };
        return Ok((info, text, clean));
    }
    let Databases::Given(given) = &trial.options.databases else {
        anyhow::bail!("no cluster")
    };
    let Some((_, DatabaseTarget::ConnInfo(text))) = given.iter().find(|(name, _)| *name == database.name) else {
        let name = &database.name;
        let hint = format!("say where it goes with `--database {name}=CONNINFO`, or leave it out with `--database {name}=skip`");
        return Err(Error::usage(format!("no scratch database is named for `{name}`"), hint).into());
    };
    let info = connect::told(text, &trial.options.tools)?;
    let scratch = Scratch::take(&info, tools).await?;
    stage.scratch.push(scratch);
    Ok((info, text.clone(), trial.options.tools.clone()))
}

async fn load_one<'a>(
    trial: &Trial<'a>,
    database: &'a Database,
    info: ConnInfo,
    text: String,
    tools_options: &crate::ops::Tools,
    tools: &Tools,
    checks: &mut Checks,
) -> anyhow::Result<Loaded<'a>> {
    let target = |other: &Database| {
        let target = if other.name == database.name {
            DatabaseTarget::ConnInfo(text.clone())
        } else {
            DatabaseTarget::Skip
        };
        (other.name.clone(), target)
    };
    let options = restore::Options {
        databases: trial.snapshot.databases.iter().map(target).collect(),
        create_database: matches!(trial.options.databases, Databases::Private),
        parts: [Part::Database].into(),
        tools: tools_options.clone(),
        ..restore_options(trial, &trial.folder.files())
    };
    let ended = restore::restore(trial.repository, &trial.snapshot.id.to_string(), &options, trial.run).await;
    let bytes: u64 = database.streams.iter().map(|stream| stream.list.bytes).sum();
    let figure = format!(
        "{} of dump in {}",
        counted(bytes, "byte"),
        counted(database.streams.len() as u64, "stream")
    );
    let mut found = Found::default();
    let mut loaded = Loaded {
        database,
        info,
        tools: tools.clone(),
        one_time_keys: 0,
        whole: true,
    };
    match ended {
        Ok(report) => loaded.one_time_keys = report.one_time_keys,
        // A server whose disk is full may die of it, and only its own log says why.
        Err(error) if !wants_room(&error) && speaks_of_room(&last_words(trial)) => return Err(no_room(&error, &trial.options.folder)),
        Err(error) if is_about_the_snapshot(&error) && !trial.run.cancel.is_cancelled() => {
            loaded.whole = false;
            // What differs is told by the checks that look for it.
            if !differs(&error) {
                found.add(ProblemKind::Damaged, format!("database/{}", database.name), chain(&error));
            }
        }
        Err(error) => return Err(error),
    }
    checks.add(format!("{}: load", database.name), figure, found);
    Ok(loaded)
}

/// Everything into the scratch folder, with nothing cured and nothing left out.
pub(super) fn restore_options(trial: &Trial<'_>, to: &Path) -> restore::Options {
    restore::Options {
        to: Some(to.to_owned()),
        databases: Vec::new(),
        create_database: false,
        parts: crate::ops::Parts::new(),
        prefix: None,
        uploaded: None,
        media_share: None,
        forget_remote_media: false,
        keep_remote_media_rows: true,
        resume: true,
        path_map: Vec::new(),
        container_path_map: trial.options.container_path_map.clone(),
        working_directory: trial.options.working_directory.clone(),
        settings_databases: Vec::new(),
        owner: None,
        dry_run: false,
        late: trial.options.late,
        limits: trial.options.limits,
        tools: trial.options.tools.clone(),
    }
}

/// Is this what the drill is for, or can the store, the server or a program not be reached at all?
pub(super) fn is_about_the_snapshot(error: &anyhow::Error) -> bool {
    let outside = |cause: &(dyn std::error::Error + 'static)| {
        let store = matches!(cause.downcast_ref(), Some(repo::Error::Store(_)));
        let server = matches!(
            cause.downcast_ref(),
            Some(
                postgres::Error::Tool { .. }
                    | postgres::Error::Spawn { .. }
                    | postgres::Error::Connect { .. }
                    | postgres::Error::Lost { .. }
                    | postgres::Error::NotEmpty { .. }
            )
        );
        store || server || cause.is::<crate::store::Error>()
    };
    !error.chain().any(outside) && !wants_room(error)
}

/// A disk that takes nothing more, ours or the server's.
fn wants_room(error: &anyhow::Error) -> bool {
    let full = |cause: &(dyn std::error::Error + 'static)| {
        let of_server = match cause.downcast_ref() {
            Some(postgres::Error::Statement { sqlstate, message, .. }) => sqlstate == DISK_FULL || speaks_of_room(message),
            Some(postgres::Error::Child { message, .. }) => speaks_of_room(message),
            _ => false,
        };
        of_server || cause.downcast_ref().is_some_and(restore::is_full)
    };
    error.chain().any(full)
}

/// What to do about it; of a drill that had no room nothing is recorded.
pub(super) fn with_room(error: anyhow::Error, folder: &Path) -> anyhow::Error {
    if wants_room(&error) { no_room(&error, folder) } else { error }
}

/// The cause is told in its words alone: what it hints at is a real restore's.
pub(super) fn no_room(cause: &anyhow::Error, folder: &Path) -> anyhow::Error {
    let hint = format!(
        "databases and media need room: in {} (--to chooses another folder), and on the server that --database names; `--media=sample:5` or `--media=hash-only` needs less",
        folder.display()
    );
    anyhow::anyhow!("{cause:#}").context(Error::failed("no room is left for the drill", hint))
}

/// The end of the log of our own cluster, if there is one.
fn last_words(trial: &Trial<'_>) -> String {
    let log = std::fs::read(trial.folder.cluster().join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES)..]).into_owned()
}

/// So much of the end of a log says why a server has died.
const LOG_BYTES: usize = 16 << 10;

/// The words of a program whose disk is full; a private server's are those of the C locale.
pub(super) fn speaks_of_room(words: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "Read-only file system"]
        .iter()
        .any(|said| words.contains(said))
}

/// PostgreSQL's `disk_full`.
const DISK_FULL: &str = "53100";

fn differs(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(postgres::Error::Differs { .. })))
}

/// The causes in one line, without what `restore` says of its own end.
pub(super) fn chain(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
