//! Where a database is and how to get in: from Synapse's arguments (psycopg2), a libpq URL or a `key=value` string.
//!
//! What comes out are two things for the PostgreSQL programs: a connection string that may stand in argv, and an
//! environment that holds the password. The environment is made from nothing: only libpq's own variables of the process
//! we stand in for get into it. Secrets have no `Debug`. Parsing of the two texts is in `conninfo::parse`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use zeroize::Zeroize as _;

use super::Error;
use super::child::RunAs;

mod parse;
#[cfg(test)]
mod tests;

/// Every keyword that libpq takes (PostgreSQL 13 to 18) and that may stand in argv.
const KEYWORDS: [&str; 46] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];
/// Secrets for which libpq has no variable: they are refused, since argv can be read by everybody.
const UNPASSABLE: [&str; 4] = ["sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"];
/// What a session of ours sets itself: an encoding would change the dump, a walsender takes no statements.
const LEFT_OUT: [&str; 5] = [
    "application_name",
    "client_encoding",
    "fallback_application_name",
    "replication",
    "sslkeylogfile",
];
/// Variables of libpq that are handed on, beside `PGSSL*`; PGCLIENTENCODING and PGTZ are not, they would change the dump.
const VARIABLES: [&str; 22] = [
    "PGCHANNELBINDING",
    "PGCONNECT_TIMEOUT",
    "PGDATABASE",
    "PGGSSDELEGATION",
    "PGGSSENCMODE",
    "PGGSSLIB",
    "PGHOST",
    "PGHOSTADDR",
    "PGKRBSRVNAME",
    "PGLOADBALANCEHOSTS",
    "PGMAXPROTOCOLVERSION",
    "PGMINPROTOCOLVERSION",
    "PGOPTIONS",
    "PGPASSFILE",
    "PGPASSWORD",
    "PGPORT",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGTARGETSESSIONATTRS",
];
/// Seconds, when nobody said.
const CONNECT_TIMEOUT: &str = "10";
/// A host that vanished is noticed after two minutes, not after the system's two hours.
const KEEPALIVES: [(&str, &str); 3] = [("keepalives_idle", "60"), ("keepalives_interval", "10"), ("keepalives_count", "6")];

/// The process whose connection ours stands in for.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Its environment: for Synapse that of its unit or container, for the command line that of the shell.
    pub variables: BTreeMap<String, String>,
    /// Its working directory: relative paths in keywords count from here. `/` when absent.
    pub working_directory: Option<PathBuf>,
    /// Are we root? Then the children run as `run_as`, where that is given.
    pub root: bool,
    /// The user it runs as.
    pub run_as: Option<RunAs>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("working_directory", &self.working_directory)
            .field("run_as", &self.run_as)
            .finish_non_exhaustive()
    }
}

/// How to reach one database. Its `Debug` and `Display` tell where, never a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnInfo {
    keywords: BTreeMap<String, String>,
    password: Option<String>,
    variables: BTreeMap<String, String>,
    working_directory: PathBuf,
    run_as: Option<RunAs>,
}

impl ConnInfo {
    /// From `database.args` of homeserver.yaml, without the `cp_*` keys and with every value as text, absent ones left
    /// out. As psycopg2 does it (`make_dsn`): `database` is `dbname`, `dsn` is read first and the others override it.
    pub fn from_arguments(arguments: &BTreeMap<String, String>, surroundings: &Surroundings) -> Result<Self, Error> {
        if arguments.contains_key("database") && arguments.contains_key("dbname") {
            return Err(Error::ConnInfo {
                reason: "`database` and `dbname` are the same keyword, both are given".into(),
            });
        }
        let mut keywords = match arguments.get("dsn") {
            Some(dsn) => parse::any(dsn)?,
            None => BTreeMap::new(),
        };
        for (key, value) in arguments.iter().filter(|(key, _)| *key != "dsn") {
            let key = if key == "database" { "dbname" } else { key };
            keywords.insert(key.to_owned(), value.clone());
        }
        Self::new(keywords, surroundings)
    }

    /// From a libpq URL or a `key=value` string, as on the command line.
    pub fn parse(text: &str, surroundings: &Surroundings) -> Result<Self, Error> {
        Self::new(parse::any(text)?, surroundings)
    }

    fn new(mut keywords: BTreeMap<String, String>, surroundings: &Surroundings) -> Result<Self, Error> {
        let password = keywords.remove("password").filter(|password| !password.is_empty());
        for (key, value) in &keywords {
            check(key, value)?;
        }
        if password.as_deref().is_some_and(|password| password.contains('\0')) {
            return Err(Error::ConnInfo {
                reason: "the value of `password` holds a zero byte".into(),
            });
        }
        keywords.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
        let mut variables = surroundings.variables.clone();
        variables.retain(|name, value| is_libpq_variable(name) && !value.contains('\0'));
        if let Some(password) = &password {
            variables.insert("PGPASSWORD".into(), password.clone());
        }
        let run_as = surroundings.run_as.clone().filter(|_| surroundings.root);
        let given = |key: &str, variable: &str| keywords.get(key).or(variables.get(variable)).is_some_and(|value| !value.is_empty());
        if surroundings.root && run_as.is_none() && !given("user", "PGUSER") && !given("service", "PGSERVICE") {
            return Err(Error::NoUser);
        }
        if !given("connect_timeout", "PGCONNECT_TIMEOUT") {
            keywords.insert("connect_timeout".into(), CONNECT_TIMEOUT.into());
        }
        for (key, value) in KEEPALIVES {
            keywords.entry(key.into()).or_insert_with(|| value.into());
        }
        let working_directory = surroundings.working_directory.clone().unwrap_or_else(|| PathBuf::from("/"));
        Ok(Self {
            keywords,
            password,
            variables,
            working_directory,
            run_as,
        })
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.keywords.insert("dbname".into(), name.into());
        other
    }

    /// The same, with settings of the server's for each session (`-c name=value` in libpq's `options`), after those that
    /// are there: of two, the last one counts.
    #[must_use]
    pub fn with_settings(&self, settings: &[(&str, String)]) -> Self {
        let mut other = self.clone();
        let given = other.keywords.get("options").or_else(|| other.variables.get("PGOPTIONS"));
        let mut words: Vec<String> = given.into_iter().cloned().collect();
        let escape = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
        words.extend(settings.iter().map(|(name, value)| format!("-c {name}={}", escape(value))));
        other.keywords.insert("options".into(), words.join(" "));
        other
    }

    /// The database's name, where the keywords or PGDATABASE tell it (a service file may, too).
    pub fn database(&self) -> Option<&str> {
        self.keywords
            .get("dbname")
            .or_else(|| self.variables.get("PGDATABASE"))
            .map(String::as_str)
    }

    /// The role's name, where the keywords or PGUSER tell it.
    pub fn user(&self) -> Option<&str> {
        self.keywords
            .get("user")
            .or_else(|| self.variables.get("PGUSER"))
            .map(String::as_str)
    }

    /// The host or the folder of the socket, where the keywords or PGHOST tell it; of several the first.
    pub fn host(&self) -> Option<&str> {
        let told = ["host", "hostaddr"].iter().find_map(|key| self.keywords.get(*key));
        let told = told.or_else(|| self.variables.get("PGHOST"))?;
        told.split(',').next().filter(|host| !host.is_empty())
    }

    /// The port, where the keywords or PGPORT tell it; of several the first.
    pub fn port(&self) -> Option<u16> {
        let told = self.keywords.get("port").or_else(|| self.variables.get("PGPORT"))?;
        told.split(',').next()?.trim().parse().ok()
    }

    /// Does it bring a password along?
    pub fn has_password(&self) -> bool {
        self.variables.contains_key("PGPASSWORD")
    }

    /// What libpq must find in the environment of whoever uses [`ConnInfo::to_argument`]: the password is in it.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.variables.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// A connection string that may stand in argv.
    pub fn to_argument(&self) -> String {
        let ours = std::iter::once(("application_name", "synapse-backup"));
        let theirs = self.keywords.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        theirs
            .chain(ours)
            .map(|(key, value)| format!("{key}={}", quote(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A command with the clean environment, folder and user; arguments are still to come.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.variables);
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C")
            .env("LC_ALL", "C")
            .env("LC_MESSAGES", "C");
        command.current_dir(&self.working_directory);
        if let Some(run_as) = &self.run_as {
            command.uid(run_as.uid).gid(run_as.gid);
            // Ours is not theirs. Without one, libpq asks for that of the user id.
            match &run_as.home {
                Some(home) => command.env("HOME", home),
                None => command.env_remove("HOME"),
            };
        }
        command
    }
}

/// The password is overwritten; what was handed to a child's environment is the child's.
impl Drop for ConnInfo {
    fn drop(&mut self) {
        self.password.zeroize();
        if let Some(password) = self.variables.get_mut("PGPASSWORD") {
            password.zeroize();
        }
    }
}

impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = ["service", "dbname", "user", "host", "hostaddr", "port"];
        let words = shown
            .iter()
            .filter_map(|key| self.keywords.get(*key).map(|value| format!("{key}={}", quote(value))));
        write!(f, "({})", words.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnInfo{self}")
    }
}

fn check(key: &str, value: &str) -> Result<(), Error> {
    if UNPASSABLE.contains(&key) {
        return Err(Error::Unpassable { keyword: key.to_owned() });
    }
    if !KEYWORDS.contains(&key) {
        let nearest = KEYWORDS
            .iter()
            .copied()
            .chain(["password"])
            .max_by(|a, b| strsim::jaro(a, key).total_cmp(&strsim::jaro(b, key)));
        let nearest = nearest
            .filter(|near| strsim::jaro(near, key) > 0.7)
            .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
        return Err(Error::ConnInfo {
            reason: format!("`{key}` is not a connection keyword of libpq{nearest}"),
        });
    }
    if value.contains('\0') {
        return Err(Error::ConnInfo {
            reason: format!("the value of `{key}` holds a zero byte"),
        });
    }
    Ok(())
}

fn is_libpq_variable(name: &str) -> bool {
    VARIABLES.contains(&name) || name == "PGUSER" || name.starts_with("PGSSL") || name.starts_with("KRB5") || name == "HOME"
}

/// libpq quoting: single quotes around anything but a plain word, `\` before quotes and backslashes.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:,-+@%".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
