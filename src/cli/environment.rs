//! The environment, read once and handed down as a value.
//!
//! Floors below `cli` get what they may see as parameters: the folders of `PATH` and libpq's variables.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// All variables whose names are UTF-8. Holds passwords (`PGPASSWORD`), hence no `Debug`.
#[derive(Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Self {
        Self::of(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))))
    }

    /// One made of these.
    pub(super) fn of(variables: impl IntoIterator<Item = (String, OsString)>) -> Self {
        Self {
            variables: variables.into_iter().collect(),
        }
    }

    /// A variable's value; an empty one counts as not set.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The same, as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Variables that begin so, by name, empty ones too.
    pub(super) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        self.variables
            .range(prefix.to_owned()..)
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// The folders in which programs are looked for.
    pub(super) fn program_folders(&self) -> Vec<PathBuf> {
        self.get("PATH")
            .map(|path| std::env::split_paths(path).collect())
            .unwrap_or_default()
    }

    /// What libpq reads: `PG*`, and `HOME` for its password file.
    pub(super) fn of_libpq(&self) -> Vec<(String, String)> {
        let home = self.get("HOME").map(|home| ("HOME", home));
        let variables = self.with_prefix("PG").chain(home);
        variables
            .filter_map(|(name, value)| Some((name.to_owned(), value.to_str()?.to_owned())))
            .collect()
    }

    /// Does the user want colours at all? (`NO_COLOR`, and terminals that have none.)
    pub(super) fn wants_colour(&self) -> bool {
        self.get("NO_COLOR").is_none() && self.get("TERM").is_none_or(|terminal| terminal != "dumb")
    }
}
