//! The homeserver's databases: how we connect, hold one moment still, dump it, ask it for facts, and load it again.
//!
//! The only way into PostgreSQL are its own programs: `psql` is our connection, `pg_dump` and `pg_restore` move the
//! data, so that libpq reads every connection keyword as it does for Synapse (`docs/adr/0001-psql-is-our-connection.md`).
//! Secrets go to them by environment, never by argv; children have a clean environment and a process group of their own,
//! and are killed and reaped when their owner is dropped. Which rows are media files is next door, in `synapse::media`.

use std::path::PathBuf;

pub mod archive;
pub mod check;
mod child;
pub mod conninfo;
mod contents;
pub mod copy;
pub mod dump;
pub mod facts;
pub mod load;
pub mod nearby;
pub mod outline;
pub mod plan;
mod pooler;
pub mod positions;
pub mod private;
pub mod rows;
pub mod scan;
pub mod scratch;
pub mod session;
pub mod snapshot;
pub mod sql;
pub mod target;
pub mod tools;
pub mod undisturbed;

pub use child::RunAs;
pub use conninfo::{ConnInfo, Surroundings};
pub use session::Session;
pub use tools::Tools;

/// Who holds a lock that we wait for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Blocker {
    /// Server process.
    pub pid: i64,
    /// Its role.
    pub user: Option<String>,
    /// Its `application_name`.
    pub application: Option<String>,
    /// `active`, `idle in transaction`, …
    pub state: Option<String>,
    /// Its statement, cut after 200 characters.
    pub statement: Option<String>,
    /// Age of its transaction in seconds.
    pub seconds: Option<i64>,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server process {}", self.pid)?;
        for (label, value) in [
            ("role", &self.user),
            ("application", &self.application),
            ("", &self.state),
            ("statement:", &self.statement),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                write!(f, ", {label}{}{value}", if label.is_empty() { "" } else { " " })?;
            }
        }
        self.seconds.map_or(Ok(()), |seconds| write!(f, ", open for {seconds} s"))
    }
}

/// What can go wrong between us and PostgreSQL. Texts of the server and its programs are carried, bounded; secrets never are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A connection string or an argument map that libpq would not take.
    #[error("the connection settings are not valid: {reason}")]
    ConnInfo {
        /// What is wrong, without the value where that may be secret.
        reason: String,
    },
    /// A secret keyword for which libpq has no way but argv.
    #[error("the connection keyword `{keyword}` is a secret that cannot be handed to the PostgreSQL programs safely")]
    Unpassable {
        /// The keyword.
        keyword: String,
    },
    /// No role is named and we run as root, which is not whom Synapse is.
    #[error("no database user is named, and we run as root")]
    NoUser,
    /// A program of PostgreSQL is not there, or every one found is too old.
    #[error("{tool} {} is needed, {}", .needed.map_or_else(String::new, |major| format!("{major} or newer")), found_text(.found))]
    Tool {
        /// `pg_dump`, `pg_restore` or `psql`.
        tool: &'static str,
        /// The smallest major version that would do, where it is known.
        needed: Option<u32>,
        /// Each path that was found, with its version.
        found: Vec<String>,
    },
    /// A program could not be started.
    #[error("{} could not be started", .program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server refused us or did not answer.
    #[error("no connection to the database {database}: {message}")]
    Connect {
        /// Where to, without secrets.
        database: String,
        /// libpq's words.
        message: String,
    },
    /// A statement failed; the connection is still there.
    #[error("{what} failed: {message}")]
    Statement {
        /// What was being done.
        what: String,
        /// Five characters, as the server gave them.
        sqlstate: String,
        /// psql's words.
        message: String,
    },
    /// The connection ended in the middle of something.
    #[error("the connection to the database was lost during {what}: {message}")]
    Lost {
        /// What was being done.
        what: String,
        /// psql's words.
        message: String,
    },
    /// The server's answer is not what was asked for.
    #[error("{what} gave an answer that cannot be read: {reason}")]
    Answer {
        /// What was being done.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Between us and the server sits a pooler that gives each transaction another connection.
    #[error("the connection goes through a pooler in transaction mode (such as pgbouncer)")]
    Pooler,
    /// Tables, sequences or schemas that our role may not read.
    #[error("the role {user} may not read {}", list_text(.objects))]
    Privileges {
        /// Our role.
        user: String,
        /// Quoted names.
        objects: Vec<String>,
        /// Statements that would help.
        grants: Vec<String>,
    },
    /// The table locks were not given in time.
    #[error("tables are still locked after {seconds} s: {}", if .blockers.is_empty() { "the blocker is not known".to_owned() } else { .blockers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ") })]
    Locked {
        /// How long we waited.
        seconds: u64,
        /// Who holds them.
        blockers: Vec<Blocker>,
    },
    /// Tables came or went during each try to lock them all.
    #[error("tables are created or removed all the time: {}", list_text(.tables))]
    TablesChange {
        /// Those of the last try.
        tables: Vec<String>,
    },
    /// A dump or load program ended badly.
    #[error("{program} {status}{}", if .message.is_empty() { String::new() } else { format!(": {}", .message) })]
    Child {
        /// `pg_dump` or `pg_restore`.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The end of its standard error.
        message: String,
    },
    /// A pipe to or from a program failed.
    #[error("the pipe with {program} failed")]
    Pipe {
        /// Which program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The database to load into is not empty.
    #[error("the database {database} is not empty: it has {}", list_text(.objects))]
    NotEmpty {
        /// Its name.
        database: String,
        /// Kinds and quoted names, the first few.
        objects: Vec<String>,
    },
    /// A load into this database failed before its end, or is at work.
    #[error("the database {database} is half loaded by a restore{}", .restore.as_deref().map_or_else(String::new, |restore| format!(" {restore}")))]
    Incomplete {
        /// Its name.
        database: String,
        /// Which restore it was.
        restore: Option<String>,
    },
    /// A scratch database that is somebody else's, or that another drill is at work in.
    #[error("the database {database} {reason}")]
    NotScratch {
        /// Its name.
        database: String,
        /// Why a drill leaves it alone.
        reason: &'static str,
    },
    /// What was loaded is not what was dumped.
    #[error("the database {database} is not what was dumped: {}", list_text(.differences))]
    Differs {
        /// Its name.
        database: String,
        /// One sentence each.
        differences: Vec<String>,
    },
    /// The table of contents of an archive is beyond its limit.
    #[error("the dump's table of contents is over the limit of {limit} bytes, or this is not a dump in custom format")]
    Contents {
        /// Bytes read for it.
        limit: usize,
    },
}

/// The first few of many, and how many more.
fn list_text(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        format!("{shown} and {} more", names.len() - SHOWN)
    } else {
        shown
    }
}

fn found_text(found: &[String]) -> String {
    if found.is_empty() {
        "none was found".to_owned()
    } else {
        format!("found only {}", found.join(", "))
    }
}

impl Error {
    /// Is there no connection left for us? One may be soon.
    pub fn is_crowded(&self) -> bool {
        matches!(self, Self::Connect { message, .. } if CROWDED.iter().any(|words| message.contains(words)))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ConnInfo { .. } => Some("use `key=value` words or a URL as libpq takes them: postgres://user@host:5432/name".into()),
            Self::Unpassable { keyword } => Some(format!(
                "put `{keyword}` into a connection service file (pg_service.conf) and name it by `service`"
            )),
            Self::NoUser => Some("name the role with `user=`, or run as the user that Synapse runs as".into()),
            Self::Tool {
                tool: "initdb",
                needed: Some(major),
                ..
            } => Some(format!(
                "install the server's programs (package postgresql-{major} or newer), or drill on another server with --database"
            )),
            Self::Tool { needed: Some(major), .. } => Some(format!(
                "install the package postgresql-client-{major} (or newer, from apt.postgresql.org), or name the program in `postgres.pg_dump`"
            )),
            Self::Tool { needed: None, .. } => {
                Some("install the package postgresql-client, or name the program in `postgres.pg_dump`".into())
            }
            Self::Spawn { .. } => Some("is the program executable for the user that Synapse runs as?".into()),
            Self::Connect { message, .. } => connect_hint(message),
            Self::Lost { message, .. } => Some(lost_hint(message).into()),
            Self::Statement { sqlstate, message, .. } => statement_hint(sqlstate, message).map(Into::into),
            Self::Pooler => {
                Some("connect to PostgreSQL itself (its own port or socket): dumps need one server session from begin to end".into())
            }
            Self::Privileges { grants, .. } => Some(format!("run as a superuser or the owner: {}", grants.join(" "))),
            Self::Locked { .. } => {
                Some("end that transaction, or run again when it is over (schema upgrades of Synapse hold such locks)".into())
            }
            Self::TablesChange { .. } => Some("run again when the upgrade or the job that does this is over".into()),
            Self::Child { program, status, message } => child_hint(program, status, message).map(Into::into),
            Self::NotEmpty { database, .. } => Some(format!(
                "a restore never merges. If an earlier restore has loaded it: --resume leaves a whole database as it is.\n\
                 Else name an empty database, or drop {database} and let --create-database make it"
            )),
            Self::Incomplete { database, .. } => Some(format!(
                "unless a restore is at work, drop it (DROP DATABASE {}) and restore again with --create-database",
                sql::name(database)
            )),
            Self::NotScratch { .. } => Some("name one that does not exist (the drill makes it and drops it), or an empty one".into()),
            Self::Differs { .. } => Some("drop it and restore again; if it happens twice, please report it".into()),
            Self::Answer { .. } | Self::Pipe { .. } | Self::Contents { .. } => None,
        }
    }
}

/// What PostgreSQL says where it, the database or the role has no connection left.
const CROWDED: [&str; 3] = ["too many connections", "too many clients", "remaining connection slots"];

fn connect_hint(message: &str) -> Option<String> {
    let table: [(&[&str], &str); 10] = [
        (
            &["no password supplied", "password authentication failed"],
            "check user and password (args.password, passfile, PGPASSFILE), and that the role is there",
        ),
        (
            &["Peer authentication failed"],
            "the socket takes only the operating system user of that name: run as it, or connect over TCP with a password",
        ),
        (
            &["does not exist"],
            "check the names of database and role; for a restore, --create-database makes the database",
        ),
        (
            &["unsupported startup parameter", "pgbouncer"],
            "this looks like pgbouncer: connect to PostgreSQL itself",
        ),
        (
            &CROWDED,
            "wait for others to end, or raise the limit: `max_connections`, ALTER ROLE or ALTER DATABASE … CONNECTION LIMIT",
        ),
        (
            &["starting up", "shutting down", "in recovery mode"],
            "the server is about to start or to stop: run again when it is up",
        ),
        (
            &["no pg_hba.conf entry"],
            "pg_hba.conf of the server needs a line for this host, role and database",
        ),
        (
            &["certificate", "SSL"],
            "check sslmode, sslrootcert, sslcert and sslkey: relative paths count from Synapse's working directory",
        ),
        (
            &["could not look up local user"],
            "this user id has no account here: name the role with `user=`",
        ),
        (
            &[
                "Connection refused",
                "No such file or directory",
                "timeout expired",
                "could not translate host name",
            ],
            "is the server up, and are host (or socket folder) and port those of this machine, not of a container?",
        ),
    ];
    table
        .iter()
        .find(|(needles, _)| needles.iter().any(|needle| message.contains(needle)))
        .map(|(_, hint)| (*hint).to_owned())
}

fn lost_hint(message: &str) -> &'static str {
    if message.contains("conflict with recovery") {
        "a replica cancels long reads: raise max_standby_streaming_delay there, or dump from the primary"
    } else if message.contains("administrator command") {
        "somebody ended our session (pg_terminate_backend) or the server was stopped: run again"
    } else {
        "see the log of the server for the reason, and run again"
    }
}

fn statement_hint(sqlstate: &str, message: &str) -> Option<&'static str> {
    match sqlstate {
        "42501" => Some("the role lacks a privilege: use the role that Synapse uses, or the owner of the database"),
        "40001" | "" if message.contains("recovery") => {
            Some("a replica cancels long reads: raise max_standby_streaming_delay there, or dump from the primary")
        }
        "57014" => Some("somebody cancelled our statement (pg_cancel_backend), or a timeout of the server's did"),
        "25006" => Some("the server takes no writes: is it a replica?"),
        _ => None,
    }
}

fn child_hint(program: &str, status: &str, message: &str) -> Option<&'static str> {
    if message.contains("conflict with recovery") {
        Some("a replica cancels long reads: raise max_standby_streaming_delay there, or dump from the primary")
    } else if message.contains("LOCK TABLE") {
        Some("another transaction holds a lock on one of the tables: run again when it is over")
    } else if message.contains("administrator command") || message.contains("server closed the connection") {
        Some("the server or somebody ended the session: see the log of the server, and run again")
    } else if message.contains("unsupported startup parameter") {
        Some("this looks like pgbouncer: connect to PostgreSQL itself")
    } else if message.contains("transaction_timeout") {
        Some(
            "pg_restore 17 and newer cannot load into an older server: load into 17 or newer, and for the next backups install the postgresql-client of the server's own version",
        )
    } else if message.contains("invalid snapshot identifier") {
        Some("the session that held the snapshot is gone: see the log of the server, and run again")
    } else if status.contains("signal 9") {
        Some("it was killed: look for the out-of-memory killer in the log of the system")
    } else if program == "pg_restore" && message.contains("permission denied") {
        Some("the role must own the database it loads into")
    } else {
        None
    }
}
