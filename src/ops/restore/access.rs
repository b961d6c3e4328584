//! Getting into a database's server: with whose password, what may be missing there, and the commands that make it.
//!
//! On a new machine neither role nor database are there. Role, host, port and the item that has the password are known
//! here, so whoever restores gets lines that he can paste. The superuser mostly gets in over the socket alone.

use std::path::Path;

use super::Options;
use super::databases::Target;
use super::saved::shell_word;
use crate::ops::Error;
use crate::synapse::postgres::{self, ConnInfo, nearby};

/// Where the password of the connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Password {
    /// From an item of the snapshot.
    Saved {
        /// Its name.
        item: String,
        /// What prints it.
        command: String,
    },
    /// With the connection itself: `--database`, the settings, or the environment.
    Given,
    /// From nowhere: the old server let Synapse in without one.
    None,
}

impl Password {
    /// As the rest of a sentence.
    fn words(&self) -> String {
        match self {
            Self::Saved { item, .. } => format!(", with the password that {item} has"),
            Self::Given => ", with the password that was given for this connection".into(),
            Self::None => String::new(),
        }
    }
}

/// What keeps us out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// The role is missing, has another password, or may not log in.
    Role,
    /// The role may log in; the database is missing, and the role may not make it.
    Database,
}

/// Another role may not make databases.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What an error says is missing, if it is that.
pub(super) fn lack(error: &postgres::Error) -> Option<Lack> {
    match error {
        postgres::Error::Connect { message, .. } => {
            let says = |words: &str| message.contains(words);
            if says("database \"") && says("does not exist") {
                return Some(Lack::Database);
            }
            let words = [
                "does not exist",
                "password authentication failed",
                "no password supplied",
                "not permitted to log in",
            ];
            words.into_iter().any(says).then_some(Lack::Role)
        }
        postgres::Error::Statement { sqlstate, .. } if sqlstate == INSUFFICIENT_PRIVILEGE => Some(Lack::Database),
        _ => None,
    }
}

/// What to do about it, for the plan; each with its commands on lines of their own.
pub(super) fn steps(lack: Lack, target: &Target, options: &Options) -> Vec<String> {
    let Some((role, _)) = names(target) else { return Vec::new() };
    let mut steps = Vec::new();
    if let (Lack::Role, Password::Saved { command, .. }) = (lack, &target.password) {
        steps.push(format!("read the password of the role {role}, as it was saved:\n{command}"));
    }
    let what = match lack {
        Lack::Role => format!("make the role {role}{}", target.password.words()),
        Lack::Database => "make the database".into(),
    };
    let mut step = format!(
        "{what}; as root on the machine of PostgreSQL:\n{}",
        commands(lack, target, options).join("\n")
    );
    if lack == Lack::Role && target.password != Password::None {
        let name = if shell_word(role) == role {
            role.to_owned()
        } else {
            postgres::sql::name(role)
        };
        let change = format!(
            "{} -c {}",
            as_superuser(&target.info, "psql"),
            shell_word(&format!("\\password {name}"))
        );
        step = format!("{step}\nIf the role is there already, and only its password is another:\n{change}");
    }
    steps.push(step);
    steps
}

/// An error of a connection, with the commands that make what is missing.
pub(super) fn with_commands(error: postgres::Error, target: &Target, options: &Options) -> anyhow::Error {
    let Some(lack) = lack(&error).filter(|_| names(target).is_some()) else {
        return error.into();
    };
    let mut lines = vec![format!(
        "as root on the machine of PostgreSQL, make what is missing{}:",
        if lack == Lack::Role {
            target.password.words()
        } else {
            String::new()
        }
    )];
    if let (Lack::Role, Password::Saved { command, .. }) = (lack, &target.password) {
        lines.push(command.clone());
    }
    lines.extend(commands(lack, target, options));
    Error::failed(error.to_string(), lines.join("\n")).into()
}

/// Role and database, where they are known.
fn names(target: &Target) -> Option<(&str, &str)> {
    Some((target.info.user()?, target.info.database()?))
}

fn commands(lack: Lack, target: &Target, options: &Options) -> Vec<String> {
    let Some((role, database)) = names(target) else { return Vec::new() };
    let (role, database) = (shell_word(role), shell_word(database));
    let mut commands = Vec::new();
    if lack == Lack::Role {
        let create = if options.create_database { " --createdb" } else { "" };
        let prompt = if target.password == Password::None { "" } else { " --pwprompt" };
        commands.push(format!("{}{create}{prompt} {role}", as_superuser(&target.info, "createuser")));
    }
    if lack == Lack::Database || !options.create_database {
        commands.push(format!(
            "{} --encoding=UTF8 --locale=C --template=template0 --owner={role} {database}",
            as_superuser(&target.info, "createdb")
        ));
    }
    commands
}

/// A program of PostgreSQL as its superuser: over the socket where the server is on this machine.
fn as_superuser(info: &ConnInfo, program: &str) -> String {
    let port = info.port();
    let port_word = port.map_or_else(String::new, |port| format!(" -p {port}"));
    let socket = match info.host() {
        Some(host) if host.starts_with('/') => Some(host.to_owned()),
        None | Some("localhost" | "127.0.0.1" | "::1") => {
            let folder = nearby::socket_folder(port.unwrap_or(DEFAULT_PORT));
            folder.and_then(|folder| folder.to_str().map(str::to_owned))
        }
        Some(_) => None,
    };
    match (socket, info.host()) {
        (Some(folder), _) if Path::new(&folder) == Path::new(USUAL_FOLDER) => format!("runuser -u postgres -- {program}{port_word}"),
        (Some(folder), _) => format!("runuser -u postgres -- {program} -h {}{port_word}", shell_word(&folder)),
        (None, None) => format!("runuser -u postgres -- {program}{port_word}"),
        (None, Some(host)) => format!("{program} -h {}{port_word} -U postgres", shell_word(host)),
    }
}

pub(super) const DEFAULT_PORT: u16 = 5432;
/// Where the programs of Debian and Red Hat look by themselves.
const USUAL_FOLDER: &str = "/var/run/postgresql";
