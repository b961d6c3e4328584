//! Which `pg_dump`, `pg_restore` and `psql` on this machine to use, by their versions.
//!
//! A `pg_dump` refuses a server of a newer major version than its own, so at least the server's is needed. Among those
//! that would do, the nearest major wins and in it the newest minor: an archive carries the settings of the program that
//! wrote it (`transaction_timeout` since 17), so the server's own major makes a dump that loads where it came from.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::Error;

/// Folders where packages put the programs of one major version, beside PATH: Debian, PGDG on RPM systems, Homebrew.
const FOLDERS: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];
/// How long a program may take to tell its version.
const VERSION_WAIT: Duration = Duration::from_secs(10);

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct ToolOptions {
    /// This and no other `pg_dump`, from the settings.
    pub pg_dump: Option<PathBuf>,
    /// This and no other `pg_restore`.
    pub pg_restore: Option<PathBuf>,
    /// This and no other `psql`.
    pub psql: Option<PathBuf>,
    /// The PATH to search, as the environment has it.
    pub path: String,
    /// Look into the usual folders of packages as well.
    pub usual_folders: bool,
}

/// Version of a program or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 9 for all of 9.x: none of them is supported.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// From `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `… 18beta1`, `… 9.6.24`.
    pub fn of_program(line: &str) -> Option<Self> {
        let words = line.split_whitespace().skip_while(|word| !word.starts_with("(PostgreSQL")).skip(1);
        let number = words
            .into_iter()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        Some(Self {
            major: parts.next()?,
            minor: parts.next().unwrap_or(0),
        })
    }

    /// From the server's `server_version_num`: 150018.
    pub const fn of_server(number: u32) -> Self {
        Self {
            major: number / 10_000,
            minor: number % 10_000,
        }
    }
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Absolute path.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: Version,
}

/// The programs found, each kind with all candidates.
#[derive(Debug, Clone)]
pub struct Tools {
    pg_dump: Vec<Tool>,
    pg_restore: Vec<Tool>,
    psql: Vec<Tool>,
}

impl Tools {
    /// Look for the programs and ask each for its version. Not finding one is an error only when it is wanted.
    pub async fn find(options: &ToolOptions) -> Result<Self, Error> {
        let folders = folders(options);
        let (pg_dump, pg_restore, psql) = futures::future::try_join3(
            candidates("pg_dump", options.pg_dump.as_deref(), &folders),
            candidates("pg_restore", options.pg_restore.as_deref(), &folders),
            candidates("psql", options.psql.as_deref(), &folders),
        )
        .await?;
        Ok(Self { pg_dump, pg_restore, psql })
    }

    /// The `pg_dump` for a server.
    pub fn pg_dump(&self, server: Version) -> Result<&Tool, Error> {
        nearest("pg_dump", &self.pg_dump, Some(server.major))
    }

    /// The `pg_restore` for an archive whose `pg_dump` had this major version.
    pub fn pg_restore(&self, archive: Version) -> Result<&Tool, Error> {
        nearest("pg_restore", &self.pg_restore, Some(archive.major))
    }

    /// The `initdb`, and beside it the server, that an archive of this version can be loaded into.
    pub async fn server(options: &ToolOptions, archive: Version) -> Result<Tool, Error> {
        let found = candidates("initdb", None, &folders(options)).await?;
        nearest("initdb", &found, Some(archive.major)).cloned()
    }

    /// The newest `psql`: it talks to every server.
    pub fn psql(&self) -> Result<&Tool, Error> {
        nearest("psql", &self.psql, None)
    }
}

fn nearest<'a>(tool: &'static str, all: &'a [Tool], needed: Option<u32>) -> Result<&'a Tool, Error> {
    let best = match needed {
        Some(major) => all
            .iter()
            .filter(|one| one.version.major >= major)
            .min_by_key(|one| (one.version.major, std::cmp::Reverse(one.version.minor))),
        None => all.iter().rev().max_by_key(|one| one.version),
    };
    best.ok_or_else(|| Error::Tool {
        tool,
        needed,
        found: all.iter().map(|one| format!("{} ({})", one.path.display(), one.version)).collect(),
    })
}

/// PATH first, then the packages' folders; relative entries of PATH are left out, the child's folder is another.
fn folders(options: &ToolOptions) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&options.path).filter(|path| path.is_absolute()).collect();
    if options.usual_folders {
        for (parent, below) in FOLDERS {
            let Ok(entries) = std::fs::read_dir(parent) else { continue };
            let versions = entries.filter_map(Result::ok).map(|entry| entry.path());
            let mut versions: Vec<PathBuf> = versions
                .filter(|path| parent != "/usr" || is_pgdg(path))
                .map(|path| path.join(below))
                .collect();
            versions.sort();
            folders.extend(versions);
        }
    }
    folders
}

/// `/usr/pgsql-17`
fn is_pgdg(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("pgsql-"))
}

async fn candidates(tool: &'static str, given: Option<&Path>, folders: &[PathBuf]) -> Result<Vec<Tool>, Error> {
    if let Some(path) = given {
        let version = version_of(path).await.map_err(|source| Error::Spawn {
            program: path.to_owned(),
            source,
        })?;
        return Ok(vec![Tool {
            path: path.to_owned(),
            version,
        }]);
    }
    let mut seen = BTreeSet::new();
    let paths: Vec<PathBuf> = folders
        .iter()
        .map(|folder| folder.join(tool))
        .filter(|path| path.is_file())
        .collect();
    let (wrappers, mut paths): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(|path| is_wrapper(path));
    paths.retain(|path| seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    if paths.is_empty() {
        paths = wrappers;
    }
    let versions = futures::future::join_all(paths.iter().map(|path| version_of(path))).await;
    let found = paths.into_iter().zip(versions);
    Ok(found
        .filter_map(|(path, version)| {
            Some(Tool {
                path,
                version: version.ok()?,
            })
        })
        .collect())
}

/// Debian's `/usr/bin/pg_dump` and its siblings are one script that looks at its own name, and at PGHOST and PGPORT to choose
/// a version, which may be another one than it tells us. It costs more than the program does to begin, too: it is asked only
/// where there is nothing else.
fn is_wrapper(path: &Path) -> bool {
    std::fs::canonicalize(path).is_ok_and(|path| path.ends_with("pg_wrapper"))
}

async fn version_of(path: &Path) -> std::io::Result<Version> {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_WAIT, command.output())
        .await
        .map_err(std::io::Error::other)??;
    let said = String::from_utf8_lossy(&output.stdout);
    Version::of_program(&said).ok_or_else(|| std::io::Error::other(format!("`{} --version` does not tell a version", path.display())))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        for (line, major, minor) in [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15, 18),
            ("psql (PostgreSQL) 18beta1", 18, 1),
            ("pg_restore (PostgreSQL) 9.6.24", 9, 6),
            ("pg_dump (PostgreSQL) 17devel", 17, 0),
        ] {
            let version = Version::of_program(line).unwrap();
            assert_eq!(version.major, major, "{line}");
            assert!(line.contains("beta") || version.minor == minor, "{line}");
        }
        assert_eq!(Version::of_program("GNU coreutils 9.1"), None);
        assert_eq!(Version::of_server(150_018), Version { major: 15, minor: 18 });
    }

    fn tool(major: u32, minor: u32) -> Tool {
        Tool {
            path: format!("/usr/lib/postgresql/{major}.{minor}/bin/pg_dump").into(),
            version: Version { major, minor },
        }
    }

    #[test]
    fn the_nearest_version_that_is_not_older_is_chosen() {
        let all = [tool(13, 9), tool(17, 1), tool(15, 2), tool(15, 4), tool(9, 6)];
        for (server, expected) in [(13, (13, 9)), (14, (15, 4)), (15, (15, 4)), (16, (17, 1))] {
            let chosen = nearest("pg_dump", &all, Some(server)).unwrap().version;
            assert_eq!((chosen.major, chosen.minor), expected, "server {server}");
        }
        assert_eq!(nearest("psql", &all, None).unwrap().version.major, 17);
    }

    #[test]
    fn an_error_names_what_was_found_and_what_is_needed() {
        let error = nearest("pg_dump", &[tool(9, 6)], Some(15)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pg_dump 15 or newer is needed, found only /usr/lib/postgresql/9.6/bin/pg_dump (9.6)"
        );
        assert!(error.hint().unwrap().contains("postgresql-client-15"));
        assert_eq!(
            nearest("psql", &[], None).unwrap_err().to_string(),
            "psql  is needed, none was found"
        );
    }
}
