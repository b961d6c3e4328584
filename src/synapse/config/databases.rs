//! The database sections: `database`, the experimental `databases`, and the legacy `database_path`.
//!
//! As `DatabaseConfig` in `synapse/config/database.py`; the keywords as psycopg2's `make_dsn` hands them to libpq.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::paths::Paths;
use super::table::{LIBPQ, is_no_path};
use crate::synapse::yaml::{Mapping, Value};
use crate::synapse::{DatabaseConfig, Engine, Error};

/// The store whose tables name media and keys; its database is called `synapse`.
const MAIN: &str = "main";
/// Not for libpq: psycopg2's own.
const PSYCOPG2_ONLY: &[&str] = &["async", "async_", "connection_factory", "cursor_factory"];

/// All databases, the one with `main` first: events must not point to state groups that a later dump lacks.
pub(super) fn read(map: &Mapping, paths: &Paths<'_>, allow_sqlite: bool) -> Result<Vec<DatabaseConfig>, Error> {
    let set = |name: &str| map.get(name).filter(|value| value.is_true());
    let mut databases = match (set("databases"), set("database"), set("database_path")) {
        (Some(_), Some(_), _) => return Err(wrong("databases", "cannot stand beside `database`")),
        (Some(_), None, Some(_)) => return Err(wrong("databases", "cannot stand beside `database_path`")),
        (Some(several), None, None) => {
            let several = several.as_map().ok_or_else(|| wrong("databases", "is not a map"))?;
            several
                .iter()
                .map(|(label, value)| labelled(label, value, paths))
                .collect::<Result<Vec<_>, _>>()?
        }
        (None, Some(one), _) => vec![one_database("database", "master", one, paths)?],
        (None, None, Some(path)) => {
            let path = path.as_text().ok_or_else(|| wrong("database_path", "is not a text"))?;
            vec![DatabaseConfig {
                engine: Engine::Sqlite {
                    path: sqlite_path("database_path", path, paths)?,
                },
                ..defaults("master")
            }]
        }
        (None, None, None) => return Err(Error::NoDatabase),
    };
    if let Some(Engine::Sqlite { path }) = databases
        .iter()
        .map(|database| &database.engine)
        .find(|engine| matches!(engine, Engine::Sqlite { .. }))
        && !allow_sqlite
    {
        return Err(Error::Sqlite { path: path.clone() });
    }
    databases.sort_by_key(|database| !database.data_stores.iter().any(|store| store == MAIN));
    if let Some(first) = databases.first_mut() {
        "synapse".clone_into(&mut first.name);
    }
    Ok(databases)
}

fn labelled(label: &Value, value: &Value, paths: &Paths<'_>) -> Result<DatabaseConfig, Error> {
    let label = label
        .python_str()
        .ok_or_else(|| wrong("databases", "has a label that is no text"))?;
    one_database(&format!("databases.{label}"), &label, value, paths)
}

fn defaults(label: &str) -> DatabaseConfig {
    DatabaseConfig {
        name: format!("synapse-{label}"),
        label: label.to_owned(),
        engine: Engine::Postgres { args: BTreeMap::new() },
        data_stores: vec![MAIN.into(), "state".into()],
    }
}

fn one_database(option: &str, label: &str, value: &Value, paths: &Paths<'_>) -> Result<DatabaseConfig, Error> {
    let map = value.as_map().ok_or_else(|| wrong(option, "is not a map"))?;
    let none = Mapping::default();
    let args = match map.get_set("args") {
        None => &none,
        Some(args) => args.as_map().ok_or_else(|| wrong(&format!("{option}.args"), "is not a map"))?,
    };
    // Without a name it is SQLite, even if `args` look like PostgreSQL's.
    let engine = match map.get("name").map(|name| name.as_text().unwrap_or_default()) {
        Some("psycopg2") => Engine::Postgres {
            args: libpq(&format!("{option}.args"), args, paths)?,
        },
        None | Some("sqlite3") => {
            let path = args.get("database").and_then(Value::as_text).unwrap_or(":memory:");
            Engine::Sqlite {
                path: sqlite_path(option, path, paths)?,
            }
        }
        Some(_) => return Err(wrong(&format!("{option}.name"), "is neither `psycopg2` nor `sqlite3`")),
    };
    let data_stores = match map.get_set("data_stores") {
        None => defaults(label).data_stores,
        Some(stores) => {
            let stores = stores
                .as_list()
                .ok_or_else(|| wrong(&format!("{option}.data_stores"), "is not a list"))?;
            stores.iter().filter_map(Value::python_str).collect()
        }
    };
    Ok(DatabaseConfig {
        engine,
        data_stores,
        ..defaults(label)
    })
}

fn libpq(option: &str, args: &Mapping, paths: &Paths<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut keywords = BTreeMap::new();
    for (key, value) in args.iter() {
        let key = key.as_text().ok_or_else(|| wrong(option, "has a key that is no text"))?;
        // `cp_*` are for the pool of connections; null is dropped by psycopg2.
        if key.starts_with("cp_") || PSYCOPG2_ONLY.contains(&key) || value.is_null() {
            continue;
        }
        let option = format!("{option}.{key}");
        let text = value
            .python_str()
            .ok_or_else(|| wrong(&option, &format!("is {}", value.type_name())))?;
        let text = here(&option, key, text, paths)?;
        let key = if key == "database" { "dbname" } else { key };
        if keywords.insert(key.to_owned(), text).is_some() {
            return Err(wrong(&option, "stands beside `dbname`, which means the same"));
        }
    }
    Ok(keywords)
}

/// Paths among the keywords become paths here: files, and directories of sockets in `host`.
fn here(option: &str, key: &str, text: String, paths: &Paths<'_>) -> Result<String, Error> {
    if key == "host" {
        let map = |host: &str| {
            if host.starts_with('/') {
                shown(&paths.resolve(option, host)?)
            } else {
                Ok(host.to_owned())
            }
        };
        return text.split(',').map(map).collect::<Result<Vec<_>, _>>().map(|hosts| hosts.join(","));
    }
    let is_path = LIBPQ.iter().any(|row| row.option == key) && !text.is_empty() && !is_no_path(key, &text);
    if is_path { shown(&paths.resolve(option, &text)?) } else { Ok(text) }
}

fn shown(path: &std::path::Path) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| wrong("path_map", "leads to a path that is not UTF-8"))
}

fn sqlite_path(option: &str, text: &str, paths: &Paths<'_>) -> Result<PathBuf, Error> {
    // For the message it does not matter where exactly a relative path begins.
    match paths.resolve(option, text) {
        _ if text == ":memory:" => Ok(text.into()),
        Err(Error::Relative { path, .. }) => Ok(path),
        other => other,
    }
}

fn wrong(option: &str, problem: &str) -> Error {
    Error::Option {
        option: option.to_owned(),
        problem: problem.to_owned(),
    }
}
