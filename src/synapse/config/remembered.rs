//! The configuration out of a snapshot: its files as bytes, none of them on disk yet.
//!
//! A restore asks here, before it has written anything, where the databases were; and at its end what an administrator
//! must know to start Synapse on what came back: which file says where the database is, and where Synapse will answer.

use std::path::{Path, PathBuf};

use super::Options;
use super::databases;
use super::listeners;
use super::paths::Paths;
use crate::synapse::keys::{self, SigningKey};
use crate::synapse::yaml::{self, Kind, Mapping, Value};
use crate::synapse::{DatabaseConfig, Engine, Error, Listener};

/// The options that say where the databases are; Synapse takes the first of them that is set.
const DATABASES: [&str; 3] = ["databases", "database", "database_path"];

/// The keywords of libpq that say which database is meant.
const WHERE: [&str; 6] = ["dsn", "service", "host", "hostaddr", "port", "dbname"];

/// What the files say, each alone and all together. It holds passwords; its `Debug` counts entries only.
#[derive(Debug)]
pub struct Remembered {
    /// In Synapse's order; what is no map says nothing.
    files: Vec<(PathBuf, Mapping)>,
    /// Merged as Synapse does.
    map: Mapping,
}

impl Remembered {
    /// Reads and merges these files, in this order.
    pub fn read(files: &[(PathBuf, Vec<u8>)]) -> Result<Self, Error> {
        let (mut read, mut map) = (Vec::new(), Mapping::default());
        for (path, bytes) in files {
            let value = yaml::parse(bytes).map_err(|problem| Error::Yaml {
                path: path.clone(),
                problem,
            })?;
            let file = match value.kind {
                Kind::Map(file) => file,
                _ => Mapping::default(),
            };
            map.update(file.clone());
            read.push((path.clone(), file));
        }
        Ok(Self { files: read, map })
    }

    /// The databases that they name.
    pub fn databases(&self, options: &Options) -> Result<Vec<DatabaseConfig>, Error> {
        databases::read(&self.map, &Paths::new(options)?, true)
    }

    /// The file that says where the databases are: of several that do, the last one counts.
    pub fn database_file(&self) -> Option<&Path> {
        let option = DATABASES
            .into_iter()
            .find(|option| self.map.get(option).is_some_and(Value::is_true))?;
        let says = |(_, file): &&(PathBuf, Mapping)| file.get(option).is_some();
        self.files.iter().rfind(says).map(|(path, _)| path.as_path())
    }

    /// The first file, with the databases that a Synapse would use which was started with it alone, where those are others.
    pub fn first_file_alone(&self, options: &Options) -> Option<(&Path, Vec<DatabaseConfig>)> {
        let (path, file) = self.files.first().filter(|_| self.files.len() > 1)?;
        // Without a name it would not start, and nothing would happen.
        file.get("server_name")?;
        let paths = Paths::new(options).ok()?;
        let alone = databases::read(file, &paths, true).ok()?;
        let together = databases::read(&self.map, &paths, true).ok()?;
        (places(&alone) != places(&together)).then_some((path.as_path(), alone))
    }

    /// Where the main process answers: rather where it gives its keys.
    pub fn listener(&self) -> Option<Listener> {
        listeners::main(&self.map)
    }

    /// The public halves of signing keys that stand in the configuration itself.
    pub fn inline_keys(&self) -> Vec<SigningKey> {
        let inline = self.map.get("signing_key").and_then(Value::as_text);
        inline.and_then(|text| keys::parse(text.as_bytes(), None).ok()).unwrap_or_default()
    }

    /// The directory Synapse was started in, where the path of its media store tells: a relative one begins there.
    pub fn working_directory(&self, media_store: &Path) -> Option<PathBuf> {
        let told = match self.map.get("media_store_path") {
            None => Path::new("media_store"),
            Some(path) => Path::new(path.as_text()?),
        };
        let told: PathBuf = told.strip_prefix(".").unwrap_or(told).into();
        if told.is_absolute() || !media_store.ends_with(&told) {
            return None;
        }
        media_store.ancestors().nth(told.components().count()).map(Path::to_path_buf)
    }
}

/// Which databases these are, whoever connects.
fn places(databases: &[DatabaseConfig]) -> Vec<Engine> {
    let place = |database: &DatabaseConfig| match database.engine.clone() {
        Engine::Postgres { mut args } => {
            args.retain(|key, _| WHERE.contains(&key.as_str()));
            Engine::Postgres { args }
        }
        file @ Engine::Sqlite { .. } => file,
    };
    databases.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn remembered(files: &[(&str, &str)]) -> Remembered {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()))
            .collect();
        Remembered::read(&files).unwrap()
    }

    fn options() -> Options {
        Options {
            working_directory: Some("/var".into()),
            ..Options::default()
        }
    }

    const SQLITE: &str = "server_name: x.org\ndatabase: {name: sqlite3, args: {database: homeserver.db}}\n";
    const POSTGRES: &str = "database: {name: psycopg2, args: {dbname: synapse}}\n";

    #[test]
    fn the_file_that_names_the_database_is_the_last_one_that_does() {
        for (files, file) in [
            (vec![("/a", SQLITE), ("/b", POSTGRES), ("/c", "report_stats: no\n")], Some("/b")),
            (vec![("/a", SQLITE), ("/b", "")], Some("/a")),
            (vec![("/a", "database_path: x.db\n"), ("/b", POSTGRES)], Some("/b")),
            (vec![("/a", POSTGRES), ("/b", "database: null\n")], None),
            (vec![("/a", "report_stats: no\n")], None),
        ] {
            assert_eq!(remembered(&files).database_file(), file.map(Path::new), "{files:?}");
        }
    }

    #[test]
    fn a_first_file_that_names_another_database_is_found_out() {
        let alone = remembered(&[("/a", SQLITE), ("/b", POSTGRES)]);
        let (path, databases) = alone.first_file_alone(&options()).unwrap();
        assert_eq!(path, Path::new("/a"));
        assert!(matches!(&databases[0].engine, Engine::Sqlite { path } if path == Path::new("/var/homeserver.db")));
        for files in [
            // One file is all of them.
            vec![("/a", SQLITE)],
            // The same database.
            vec![("/a", SQLITE), ("/b", "report_stats: no\n")],
            vec![
                (
                    "/a",
                    "server_name: x.org\ndatabase: {name: psycopg2, args: {dbname: synapse, password: old}}\n",
                ),
                ("/b", POSTGRES),
            ],
            // It would not start.
            vec![("/a", "database: {name: sqlite3}\n"), ("/b", POSTGRES)],
            vec![("/a", "server_name: x.org\n"), ("/b", POSTGRES)],
        ] {
            assert!(remembered(&files).first_file_alone(&options()).is_none(), "{files:?}");
        }
    }

    #[test]
    fn a_relative_media_store_tells_where_synapse_was_started() {
        for (text, media, started) in [
            ("", "/srv/synapse/media_store", Some("/srv/synapse")),
            ("media_store_path: media_store", "/srv/synapse/media_store", Some("/srv/synapse")),
            ("media_store_path: ./data/media/", "/srv/data/media", Some("/srv")),
            ("media_store_path: /srv/media", "/srv/media", None),
            ("media_store_path: media", "/srv/elsewhere", None),
            ("media_store_path: 7", "/srv/7", None),
        ] {
            let found = remembered(&[("/a", text)]).working_directory(Path::new(media));
            assert_eq!(found.as_deref(), started.map(Path::new), "{text}");
        }
    }
}
