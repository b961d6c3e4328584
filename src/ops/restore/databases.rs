//! The databases: where each goes, and whether it is empty. How they are loaded is in `load`.
//!
//! Where a database goes is what `--database` says, else the settings, else the restored configuration itself. Every
//! target is looked at before the first one is loaded; a dry run only looks.

use std::collections::BTreeMap;

use anyhow::Context;
use indicatif::BinaryBytes;

use super::access::{self, Lack, Password};
use super::saved::Saved;
use super::{DatabaseTarget, Options, load, wanted_databases};
use crate::format::snapshot::{Database, Snapshot, StreamFormat};
use crate::ops::Error;
use crate::ops::connect::{self, LOCK_SECONDS};
use crate::synapse::Engine;
use crate::synapse::postgres::load::{Content, LoadOptions};
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::{self, ConnInfo, RunAs, Session, Surroundings, Tools, check as compare, target};

/// A database of the snapshot and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) database: Database,
    pub(super) info: ConnInfo,
    pub(super) password: Password,
}

impl Target {
    /// For the plan.
    fn line(&self) -> String {
        let bytes = self.database.streams.iter().map(|stream| stream.list.bytes).sum();
        let from = match &self.password {
            Password::Saved { item, .. } => format!(", with the password that {item} has"),
            Password::Given | Password::None => String::new(),
        };
        format!(
            "load database `{}` ({} of dump) into {}{from}",
            self.database.name,
            BinaryBytes(bytes),
            self.info
        )
    }
}

/// A target that was found empty, with what loading it needs.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) target: Target,
    pub(super) tools: Tools,
    pub(super) options: LoadOptions,
}

/// Is it the snapshot's own configuration that says where one of them goes?
pub(super) fn ask_configuration(snapshot: &Snapshot, options: &Options) -> bool {
    wanted_databases(snapshot, options)
        .iter()
        .any(|database| told(&database.name, options).is_none())
}

/// What `--database` says, else the settings.
fn told<'a>(name: &str, options: &'a Options) -> Option<&'a str> {
    let flags = options.databases.iter().filter_map(|(other, target)| match target {
        DatabaseTarget::ConnInfo(text) => Some((other, text)),
        DatabaseTarget::Skip => None,
    });
    let settings = options.settings_databases.iter().map(|(other, url)| (other, url));
    flags
        .chain(settings)
        .find(|(other, _)| *other == name)
        .map(|(_, text)| text.as_str())
}

/// Where every wanted database goes: as told, else where the restored configuration says it was. `name` is what the
/// snapshot was called by.
pub(super) fn targets(name: &str, snapshot: &Snapshot, saved: Option<&Saved>, options: &Options) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for database in wanted_databases(snapshot, options) {
        let found = match told(&database.name, options) {
            Some(text) => connect::told(text, &options.tools).map(|info| (info, Password::Given)),
            None => as_configured(name, saved, snapshot, database, options),
        };
        let (info, password) = found.with_context(|| format!("where does database `{}` go?", database.name))?;
        targets.push(Target {
            database: database.clone(),
            info,
            password,
        });
    }
    Ok(targets)
}

fn as_configured(
    name: &str,
    saved: Option<&Saved>,
    snapshot: &Snapshot,
    database: &Database,
    options: &Options,
) -> anyhow::Result<(ConnInfo, Password)> {
    let databases = match saved {
        Some(saved) => saved.says.databases(&saved.options).context("the configuration in the snapshot")?,
        None => Vec::new(),
    };
    let found = databases.iter().find(|config| config.name == database.name);
    let Some(Engine::Postgres { args }) = found.map(|config| &config.engine) else {
        let hint = format!("say it with `--database {}=CONNINFO`", database.name);
        return Err(Error::usage(format!("the restored configuration names no database `{}`", database.name), hint).into());
    };
    let info = connection(args, snapshot, options)?;
    let password = match saved.and_then(|saved| saved.database_item.as_ref()) {
        Some(item) if info.has_password() && (args.contains_key("password") || args.contains_key("dsn")) => Password::Saved {
            command: item.command(name),
            item: item.name.clone(),
        },
        _ if info.has_password() || args.contains_key("passfile") => Password::Given,
        _ => Password::None,
    };
    Ok((info, password))
}

/// How Synapse would connect with these arguments.
pub(super) fn connection(args: &BTreeMap<String, String>, snapshot: &Snapshot, options: &Options) -> Result<ConnInfo, postgres::Error> {
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
    ConnInfo::from_arguments(args, &surroundings)
}

/// What was found at the targets.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What is to be loaded; in a dry run nothing.
    pub(super) loads: Vec<Checked>,
    /// `--resume`: what is there already with every row.
    pub(super) kept: Vec<String>,
    /// For the plan.
    pub(super) lines: Vec<String>,
    /// A dry run: what must be done before.
    pub(super) first_steps: Vec<String>,
}

/// What was found at one of them.
enum Found {
    /// It is empty.
    Load(LoadOptions),
    /// It has every row of the dump.
    There,
    /// A dry run: what would be found, and what must be done first.
    Prospect { line: String, steps: Vec<String> },
}

/// Every target is reachable and empty (made, if asked for), and this machine can load it. Nothing is loaded yet; a dry
/// run reads only, and tells who would not be let in.
pub(super) async fn check(targets: &[Target], snapshot: &Snapshot, options: &Options) -> anyhow::Result<Looked> {
    let mut looked = Looked::default();
    if targets.is_empty() {
        return Ok(looked);
    }
    let tools = connect::tools(&options.tools).await?;
    for target in targets {
        let name = &target.database.name;
        let found = check_one(target, snapshot, &tools, options).await;
        match found.with_context(|| format!("restore database `{name}`"))? {
            Found::There => {
                looked
                    .lines
                    .push(format!("leave database `{name}` as it is: it is there, with every row"));
                looked.kept.push(name.clone());
            }
            Found::Load(load) => {
                looked.lines.push(target.line());
                looked.loads.push(Checked {
                    target: target.clone(),
                    tools: tools.clone(),
                    options: load,
                });
            }
            Found::Prospect { line, steps } => {
                looked.lines.push(target.line());
                looked.lines.push(format!("database `{name}`: {line}"));
                for step in steps {
                    // Two databases of one role need it once.
                    if !looked.first_steps.contains(&step) {
                        looked.first_steps.push(step);
                    }
                }
            }
        }
    }
    Ok(looked)
}

async fn check_one(target: &Target, snapshot: &Snapshot, tools: &Tools, options: &Options) -> anyhow::Result<Found> {
    let database = &target.database;
    if let Some(stream) = database.streams.iter().find(|stream| stream.format != StreamFormat::Custom) {
        return Err(Error::failed(
            format!("stream `{}` has a format that this version does not know", stream.name),
            "use a newer version",
        )
        .into());
    }
    tools.pg_restore(connect::archive_version(database))?;
    if options.create_database && options.dry_run {
        match target::prospect(&target.info, tools).await {
            Ok(prospect) if prospect.is_there => {}
            Ok(prospect) => return Ok(to_be_made(target, prospect.may_create, options)),
            Err(error @ postgres::Error::Connect { .. }) => return Ok(closed(&error, target, options)),
            Err(error) => return Err(error.into()),
        }
    } else if options.create_database {
        let made = target::create_database(&target.info, tools, Some(&database.owner)).await;
        made.map_err(|error| access::with_commands(error, target, options))?;
    }
    let purpose = if options.dry_run { Purpose::Read } else { Purpose::Write };
    let session = Session::open(&target.info, tools, purpose, LOCK_SECONDS).await;
    let mut session = session.map_err(|error| access::with_commands(error, target, options))?;
    match target::refuse_unless_empty(&mut session).await {
        Err(error @ postgres::Error::NotEmpty { .. }) if options.resume => {
            refuse_unless_whole(&mut session, target, snapshot, error).await?;
            session.close().await;
            return Ok(Found::There);
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
    if options.dry_run {
        return Ok(Found::Prospect {
            line: format!("{} may log in, and the database is there and empty", role(target)),
            steps: Vec::new(),
        });
    }
    Ok(Found::Load(load))
}

/// A dry run: the server lets us in, and the database is still to be made.
fn to_be_made(target: &Target, may_create: bool, options: &Options) -> Found {
    if may_create {
        Found::Prospect {
            line: format!("{} may log in, and make the database", role(target)),
            steps: Vec::new(),
        }
    } else {
        Found::Prospect {
            line: format!("{} may log in, but not make the database", role(target)),
            steps: access::steps(Lack::Database, target, options),
        }
    }
}

/// A dry run: nobody is let in.
fn closed(error: &postgres::Error, target: &Target, options: &Options) -> Found {
    let says = |words: &str| matches!(error, postgres::Error::Connect { message, .. } if message.contains(words));
    let reason = match access::lack(error) {
        Some(Lack::Role) if says("does not exist") => format!("{} is missing", role(target)),
        Some(Lack::Role) if says("password authentication failed") => format!("{} is missing, or has another password", role(target)),
        _ => error.to_string(),
    };
    let steps = match access::lack(error) {
        Some(lack) => access::steps(lack, target, options),
        None => vec![format!(
            "let {} be reached{}",
            target.info,
            error.hint().map_or_else(String::new, |hint| format!(": {hint}"))
        )],
    };
    Found::Prospect { line: reason, steps }
}

fn role(target: &Target) -> String {
    target
        .info
        .user()
        .map_or_else(|| "the role".to_owned(), |user| format!("the role {user}"))
}

/// `--resume`: a database that an earlier run has loaded to its end is left alone, another one is refused.
async fn refuse_unless_whole(
    session: &mut Session,
    target: &Target,
    snapshot: &Snapshot,
    not_empty: postgres::Error,
) -> anyhow::Result<()> {
    let found = differences(session, &target.database, snapshot).await?;
    let Some(first) = found.first() else { return Ok(()) };
    let hint = "if Synapse has run on it since, that restore had ended: bring back what is missing of the files with `--resume --only config,media`.\n\
                Else name an empty database, or drop this one and let --create-database make it";
    let not_empty = Error::failed(not_empty.to_string(), hint);
    Err(anyhow::Error::from(not_empty).context(format!("it is not what the restore would go on with: {first}")))
}

/// In what a database that was loaded from this snapshot, and that nobody has used since, is another one. Sequences tell
/// most: hardly anything happens in a homeserver without one.
async fn differences(session: &mut Session, database: &Database, snapshot: &Snapshot) -> anyhow::Result<Vec<String>> {
    let mut expected = load::expected(database);
    if load::forgets_remote_media(snapshot) {
        expected.rows.retain(|table, _| !target::is_of_remote_media(table));
    }
    let mut found = compare::row_differences(session, &expected.rows).await?;
    found.extend(compare::sequences_elsewhere(session, &expected.sequences).await?);
    let (_, keys) = target::one_time_keys(session).await?;
    if keys > 0 {
        found.push(format!("it has {keys} one-time keys, which clients have uploaded since"));
    }
    if expected.rows.is_empty() {
        found.push("the snapshot does not tell how many rows there were".into());
    }
    Ok(found)
}
