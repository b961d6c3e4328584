//! Reaching the databases: which programs, which connection, as which user. Shared by backup, restore and doctor.
//!
//! Synapse's own databases are reached as Synapse reaches them, further ones by what the settings say. Nothing is opened
//! here.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::Context;

use super::Tools as Options;
use crate::format::snapshot::Database;
use crate::synapse::postgres::tools::{ToolOptions, Version};
use crate::synapse::postgres::{ConnInfo, RunAs, Surroundings, Tools};
use crate::synapse::{Engine, Homeserver, Role};

/// How long a dump waits for locks that others hold, in seconds.
pub(super) const LOCK_SECONDS: u64 = 60;

/// Of the database with Synapse's `main` data store, when it has none of its tables.
pub(super) const NO_SYNAPSE: &str = "it has no table `local_media_repository`: it is not, or no longer, the database of a Synapse";
pub(super) const NO_SYNAPSE_HINT: &str = "is `database` in homeserver.yaml the right one, and its schema in the role's search_path? If it was made anew \
    after an accident, restore into it: `synapse-backup restore latest --only database`";

/// A database of the homeserver, or one from the settings.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// `synapse`, `synapse-<label>` or the settings' name.
    pub(super) name: String,
    pub(super) info: ConnInfo,
    /// Synapse's `main` data store is in it: media rows are read here.
    pub(super) is_main: bool,
}

/// Find `psql`, `pg_dump` and `pg_restore`.
pub(super) async fn tools(options: &Options) -> anyhow::Result<Tools> {
    Ok(Tools::find(&tool_options(options)).await?)
}

/// Where to look for them.
pub(super) fn tool_options(options: &Options) -> ToolOptions {
    let path = options
        .path
        .iter()
        .map(|folder| folder.as_os_str().as_bytes())
        .collect::<Vec<_>>()
        .join(&b':');
    let beside = |name: &str| {
        options
            .pg_dump
            .as_ref()
            .and_then(|pg_dump| Some(pg_dump.parent()?.join(name)))
            .filter(|path| path.exists())
    };
    ToolOptions {
        pg_dump: options.pg_dump.clone(),
        pg_restore: beside("pg_restore"),
        psql: beside("psql"),
        path: String::from_utf8_lossy(&path).into_owned(),
        usual_folders: true,
    }
}

/// The databases in the order in which they are dumped: Synapse's own, then those of the settings.
pub(super) fn sources(homeserver: &Homeserver, further: &[(String, String)], options: &Options) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let surroundings = surroundings(options, synapse_user(homeserver));
    for database in &homeserver.databases {
        let Engine::Postgres { args } = &database.engine else { continue };
        let info = ConnInfo::from_arguments(args, &surroundings).with_context(|| format!("the settings of database {}", database.name))?;
        let is_main = database.name == "synapse";
        sources.push(Source {
            name: database.name.clone(),
            info,
            is_main,
        });
    }
    for (name, url) in further {
        sources.push(Source {
            name: name.clone(),
            info: told(url, options).with_context(|| format!("database {name}"))?,
            is_main: false,
        });
    }
    Ok(sources)
}

/// The version of the `pg_dump` that wrote the streams, as the snapshot remembers it.
pub(super) fn archive_version(database: &Database) -> Version {
    Version::of_program(&format!("pg_dump (PostgreSQL) {}", database.pg_dump_version)).unwrap_or(Version { major: 0, minor: 0 })
}

/// A connection that the user has spelled out.
pub(super) fn told(text: &str, options: &Options) -> anyhow::Result<ConnInfo> {
    Ok(ConnInfo::parse(text, &surroundings(options, None))?)
}

fn surroundings(options: &Options, run_as: Option<RunAs>) -> Surroundings {
    let variables = options.environment.iter().cloned().collect();
    Surroundings {
        variables,
        working_directory: None,
        root: rustix::process::geteuid().is_root(),
        run_as,
    }
}

/// The user that Synapse runs as: whose the media store is, or else the signing key. A socket lets nobody else in.
fn synapse_user(homeserver: &Homeserver) -> Option<RunAs> {
    let key = homeserver
        .files
        .iter()
        .find(|file| file.role == Role::SigningKey)
        .map(|file| &file.owner);
    let owner = homeserver.media.owner.as_ref().filter(|owner| owner.uid != 0).or(key)?;
    (owner.uid != 0).then_some(RunAs {
        uid: owner.uid,
        gid: owner.gid,
        home: None::<PathBuf>,
    })
}
