//! The databases: where each goes, and whether it is empty. How they are loaded is in `load`.
//!
//! Where a database goes is what `--database` says, else the settings, else the restored configuration itself. Every
//! target is looked at before the first one is loaded. A restore that goes on leaves alone what was loaded whole.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

use super::config::CONFIG_BYTES_MAX;
use super::{DatabaseTarget, Options, load, wanted_databases};
use crate::format::snapshot::{ConfigItem, ConfigKind, Database, Snapshot, StreamFormat};
use crate::ops::Error;
use crate::ops::connect::{self, LOCK_SECONDS};
use crate::repo::reader::Reader;
use crate::synapse::config;
use crate::synapse::postgres::load::{Content, LoadOptions};
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::{self, ConnInfo, RunAs, Session, Surroundings, Tools, check, target};
use crate::synapse::{DatabaseConfig, Engine};

/// Links that are followed to a configuration file.
const LINKS_MAX: usize = 16;

/// A database of the snapshot and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) database: Database,
    pub(super) info: ConnInfo,
}

impl Target {
    /// For the plan.
    pub(super) fn line(&self) -> String {
        let bytes: u64 = self.database.streams.iter().map(|stream| stream.list.bytes).sum();
        format!("load database `{}` ({bytes} bytes of dump) into {}", self.database.name, self.info)
    }

    /// The same of one that is there already.
    pub(super) fn line_kept(&self) -> String {
        format!("leave database `{}` as it is: it is there, with every row", self.database.name)
    }
}

/// A target that was found empty, with what loading it needs.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) target: Target,
    pub(super) tools: Tools,
    pub(super) options: LoadOptions,
}

/// Where every wanted database goes: as told, else where the restored configuration or the settings say it was.
pub(super) async fn targets(reader: &Reader, snapshot: &Snapshot, options: &Options) -> anyhow::Result<Vec<Target>> {
    let mut remembered: Option<Vec<DatabaseConfig>> = None;
    let mut targets = Vec::new();
    for database in wanted_databases(snapshot, options) {
        let told = options
            .databases
            .iter()
            .find(|(name, _)| *name == database.name)
            .map(|(_, target)| target);
        let in_settings = options
            .settings_databases
            .iter()
            .find(|(name, _)| *name == database.name)
            .map(|(_, url)| url);
        let info = match (told, in_settings) {
            (Some(DatabaseTarget::Skip), _) => continue,
            (Some(DatabaseTarget::ConnInfo(text)), _) => connect::told(text, &options.tools),
            (None, Some(url)) => connect::told(url, &options.tools),
            (None, None) => {
                if remembered.is_none() {
                    remembered = Some(configured(reader, snapshot, options).await?);
                }
                as_configured(remembered.as_deref().unwrap_or_default(), snapshot, database, options)
            }
        };
        let info = info.with_context(|| format!("where does database `{}` go?", database.name))?;
        targets.push(Target {
            database: database.clone(),
            info,
        });
    }
    Ok(targets)
}

/// The databases that the snapshot's own configuration names, whether that is restored or not.
async fn configured(reader: &Reader, snapshot: &Snapshot, options: &Options) -> anyhow::Result<Vec<DatabaseConfig>> {
    let mut files = Vec::new();
    for path in &snapshot.config_paths {
        if let Some(item) = config_item(snapshot, Path::new(OsStr::from_bytes(path.as_bytes()))) {
            let bytes = reader
                .read_small(&item.list, CONFIG_BYTES_MAX)
                .await
                .with_context(|| format!("read {path}"))?;
            files.push((PathBuf::from(OsStr::from_bytes(path.as_bytes())), bytes));
        }
    }
    if files.is_empty() {
        let hint = "say it with `--database synapse=CONNINFO`, or restore the configuration too";
        return Err(Error::usage("it is not known where the database was", hint).into());
    }
    let options = config::Options {
        working_directory: options.working_directory.clone().or_else(|| Some("/".into())),
        path_map: options.container_path_map.clone(),
        ..config::Options::default()
    };
    config::databases_of(&files, &options).context("the configuration in the snapshot")
}

/// The file that a path means in the snapshot: links that were saved are followed, as Synapse followed them.
fn config_item<'a>(snapshot: &'a Snapshot, path: &Path) -> Option<&'a ConfigItem> {
    let of = |item: &'a ConfigItem| Path::new(OsStr::from_bytes(item.path.as_bytes()));
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Some(item) = snapshot.config.iter().find(|item| of(item) == path && item.sha256.is_some()) {
            return Some(item);
        }
        let link = snapshot
            .config
            .iter()
            .find(|item| item.kind == ConfigKind::Symlink && path.starts_with(of(item)))?;
        let target = Path::new(OsStr::from_bytes(link.target.as_ref()?.as_bytes()));
        let rest = path.strip_prefix(of(link)).ok()?.to_owned();
        let joined = of(link).parent()?.join(target);
        path = if rest.as_os_str().is_empty() {
            normal(&joined)
        } else {
            normal(&joined.join(rest))
        };
    }
    None
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

fn as_configured(databases: &[DatabaseConfig], snapshot: &Snapshot, database: &Database, options: &Options) -> anyhow::Result<ConnInfo> {
    let found = databases.iter().find(|config| config.name == database.name);
    let Some(Engine::Postgres { args }) = found.map(|config| &config.engine) else {
        let hint = format!("say it with `--database {}=CONNINFO`", database.name);
        return Err(Error::usage(format!("the restored configuration names no database `{}`", database.name), hint).into());
    };
    // Whom Synapse runs as: its media are that user's.
    let uid = snapshot
        .media
        .as_ref()
        .and_then(|media| Some((media.uid?, media.gid?)))
        .filter(|(uid, _)| *uid != 0);
    let surroundings = Surroundings {
        variables: options.tools.environment.iter().cloned().collect(),
        // It may be among what is to be restored.
        working_directory: options.working_directory.clone().filter(|folder| folder.is_dir()),
        root: rustix::process::geteuid().is_root(),
        run_as: uid.map(|(uid, gid)| RunAs { uid, gid, home: None }),
    };
    Ok(ConnInfo::from_arguments(args, &surroundings)?)
}

/// Every target is reachable and empty (made, if asked for), and this machine can load it. Nothing is loaded yet.
///
/// Those that an earlier call has loaded whole (`--resume`) are not among the answer.
pub(super) async fn check(targets: &[Target], snapshot: &Snapshot, options: &Options) -> anyhow::Result<Vec<Checked>> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let tools = connect::tools(&options.tools).await?;
    let mut checked = Vec::new();
    for target in targets {
        let load = check_one(target, &tools, snapshot, options)
            .await
            .with_context(|| format!("restore database `{}`", target.database.name))?;
        checked.extend(load.map(|load| Checked {
            target: target.clone(),
            tools: tools.clone(),
            options: load,
        }));
    }
    Ok(checked)
}

/// `None`: it is there already, whole.
async fn check_one(target: &Target, tools: &Tools, snapshot: &Snapshot, options: &Options) -> anyhow::Result<Option<LoadOptions>> {
    let database = &target.database;
    if let Some(stream) = database.streams.iter().find(|stream| stream.format != StreamFormat::Custom) {
        return Err(Error::failed(
            format!("stream `{}` has a format that this version does not know", stream.name),
            "use a newer version",
        )
        .into());
    }
    tools.pg_restore(connect::archive_version(database))?;
    if options.create_database && !options.dry_run {
        let made = target::create_database(&target.info, tools, Some(&database.owner)).await;
        made.map_err(|error| with_commands(error, target))?;
    }
    if options.create_database && options.dry_run {
        return Ok(Some(LoadOptions::default()));
    }
    let session = Session::open(&target.info, tools, Purpose::Write, LOCK_SECONDS).await;
    let mut session = session.map_err(|error| with_commands(error, target))?;
    match target::refuse_unless_empty(&mut session).await {
        Err(error @ postgres::Error::NotEmpty { .. }) if options.resume => {
            return match differences(&mut session, database, snapshot).await?.first() {
                None => Ok(None),
                Some(first) => Err(anyhow::Error::from(error).context(format!("it is not what the restore would go on with: {first}"))),
            };
        }
        other => other?,
    }
    let ownership = target::ownership(&mut session, &database.facts.owners, &database.facts.grantees).await?;
    let load = LoadOptions {
        keep_owners: ownership.keep_owners,
        keep_privileges: ownership.keep_privileges,
        role: None,
        superuser: session.server().superuser,
        content: Content::Everything,
    };
    if !ownership.lacking.is_empty() {
        tracing::warn!(
            "database {}: everything in it will belong to {}, without the privileges of others: these roles are missing here, or not ours: {}",
            database.name,
            session.server().user,
            ownership.lacking.join(", ")
        );
    }
    session.close().await;
    Ok(Some(load))
}

/// In what a database that was loaded from this snapshot, and that nobody has used since, is another one. Sequences tell
/// most: hardly anything happens in a homeserver without one.
async fn differences(session: &mut Session, database: &Database, snapshot: &Snapshot) -> anyhow::Result<Vec<String>> {
    let mut expected = load::expected(database);
    if load::forgets_remote_media(snapshot) {
        expected.rows.retain(|table, _| !target::is_of_remote_media(table));
    }
    let mut found = check::row_differences(session, &expected.rows).await?;
    found.extend(check::sequences_elsewhere(session, &expected.sequences).await?);
    let (_, keys) = target::one_time_keys(session).await?;
    if keys > 0 {
        found.push(format!("it has {keys} one-time keys, which clients have uploaded since"));
    }
    Ok(found)
}

/// On a new machine neither role nor database are there: the error gets the commands that make both.
fn with_commands(error: postgres::Error, target: &Target) -> anyhow::Error {
    let is_missing = match &error {
        postgres::Error::Connect { message, .. } => ["does not exist", "password authentication failed", "not permitted to log in"]
            .iter()
            .any(|words| message.contains(words)),
        postgres::Error::Statement { sqlstate, .. } => sqlstate == INSUFFICIENT_PRIVILEGE,
        _ => false,
    };
    let (Some(role), Some(database), true) = (target.info.user(), target.info.database(), is_missing) else {
        return error.into();
    };
    let (role, database) = (shell_word(role), shell_word(database));
    let hint = format!(
        "on the database's machine, as `postgres`, make what is missing, with the password that homeserver.yaml has:\n\
         createuser --pwprompt {role}\n\
         createdb --encoding=UTF8 --locale=C --template=template0 --owner={role} {database}"
    );
    Error::failed(error.to_string(), hint).into()
}

/// Another role may not make databases.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// As a shell takes it for one word.
fn shell_word(name: &str) -> String {
    if name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter)) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}
