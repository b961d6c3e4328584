//! The order of discovery: configuration, media, databases, files by table, keys, workers, guesses, what the admin adds.
//!
//! Everything that is wrong with one file is a finding; only what leaves no homeserver to speak of is an error.

use std::path::{Path, PathBuf};

use super::Options;
use super::collect::Collector;
use super::guess;
use super::load::{Loaded, load, read_bounded, read_yaml, yaml_files};
use super::paths::{Paths, normalize};
use super::table::{DATABASES, LIBPQ, Row, TABLE, What, is_no_path, select};
use super::{databases, media};
use crate::synapse::keys::{self, KEY_FILE_BYTES_MAX, SigningKey};
use crate::synapse::media::MediaKind;
use crate::synapse::yaml::{Kind, Mapping, Value, YAML_BYTES_MAX};
use crate::synapse::{DatabaseConfig, Engine, Error, FileKind, FindingKind, Homeserver, MediaStore, OldSigningKey, ProviderKind, Role};

/// Follows the configuration of Synapse to everything it names. Reads the disk, changes nothing.
///
/// # Errors
/// When the configuration cannot be read or Synapse would not start with it, when a relative path lacks its beginning,
/// and for `SQLite` unless `options.allow_sqlite`.
pub fn discover(options: &Options) -> Result<Homeserver, Error> {
    let paths = Paths::new(options)?;
    let mut collector = Collector::new();
    let loaded = load(options, &mut collector)?;
    let media = media::read(&loaded.map, &paths, collector.owners())?;
    exclude_media(&media, &mut collector);
    let databases = databases::read(&loaded.map, &paths, options.allow_sqlite)?;
    named_files(&loaded.map, "", &paths, &mut collector)?;
    let keys = signing_keys(&loaded, &paths, &mut collector)?;
    let other = other_user(&media, &collector);
    let home = home(options, other, &collector);
    home_files(home.as_deref(), &databases, &mut collector)?;
    for path in guess::candidates(&loaded.map, &paths, home.as_deref()) {
        collector.guess(&path, "the configuration")?;
    }
    workers(options, &loaded, &paths, &mut collector)?;
    for path in &options.files {
        collector.tree(&normalize(path), Role::Extra, true, true, "`files`")?;
    }
    extra_workers(&paths, &mut collector)?;
    let doubtful = other.filter(|_| home.is_none()).and_then(|uid| collector.owners().home(uid));
    left_out_home_files(doubtful.as_deref(), &databases, &mut collector);
    let (files, findings) = collector.finish()?;
    Ok(Homeserver {
        old_signing_keys: old_signing_keys(&loaded.map),
        http_ports: http_ports(&loaded.map),
        server_name: loaded.server_name,
        config_sources: loaded.sources,
        files,
        findings,
        media,
        databases,
        signing_keys: keys.keys,
        signing_key_missing: keys.missing,
    })
}

/// Media are saved as media, wherever else their directory may be named. What else lies in it (the whole of `/data` may be
/// the media store) is saved like anything else.
fn exclude_media(media: &MediaStore, collector: &mut Collector) {
    let directories = media.providers.iter().filter_map(|provider| match &provider.kind {
        ProviderKind::FileSystem { directory } => Some(directory),
        _ => None,
    });
    for root in directories.chain([&media.path]) {
        for kind in MediaKind::ALL {
            collector.exclude(&root.join(kind.folder()));
        }
    }
    if media.enable_local_media_storage && !media.path.is_dir() {
        let message = format!(
            "the media store {} is not there: are `working_directory` and `path_map` right?",
            media.path.display()
        );
        collector.finding_about(FindingKind::Missing, "media", message);
    }
}

/// Every option of the table that is set in `map`; `place` ends the name of the option in messages.
fn named_files(map: &Mapping, place: &str, paths: &Paths<'_>, collector: &mut Collector) -> Result<(), Error> {
    // Synapse does not look at the path when the key itself is given.
    let inline_key = map.get("signing_key").is_some();
    for row in TABLE.iter().filter(|row| !(inline_key && row.role == Role::SigningKey)) {
        for (option, value) in select(map, row.option) {
            named(row, &option, value, place, paths, collector)?;
        }
    }
    for section in DATABASES {
        for row in LIBPQ {
            for (option, value) in select(map, &format!("{section}.{}", row.option)) {
                if !value.as_text().is_some_and(|text| is_no_path(row.option, text)) {
                    named(row, &option, value, place, paths, collector)?;
                }
            }
        }
    }
    Ok(())
}

fn named(row: &Row, option: &str, value: &Value, place: &str, paths: &Paths<'_>, collector: &mut Collector) -> Result<(), Error> {
    if !value.is_true() {
        return Ok(());
    }
    let Some(text) = value.as_text() else {
        let problem = format!("is {}, not a path", value.type_name());
        return Err(Error::Option {
            option: option.to_owned(),
            problem,
        });
    };
    let path = paths.resolve(option, text)?;
    let why = format!("`{option}`{place}");
    match row.what {
        What::File => collector.file(&path, row.role, row.secret, &why).map(|_| ()),
        What::Directory => collector.tree(&path, row.role, row.secret, false, &why),
    }
}

struct Keys {
    keys: Vec<SigningKey>,
    missing: bool,
}

/// The public halves, and the default place of the file: beside the last configuration file.
fn signing_keys(loaded: &Loaded, paths: &Paths<'_>, collector: &mut Collector) -> Result<Keys, Error> {
    if let Some(inline) = loaded.map.get("signing_key") {
        let keys = inline.as_text().and_then(|text| keys::parse(text.as_bytes(), None).ok());
        let keys = keys.ok_or_else(|| Error::Option {
            option: "signing_key".into(),
            problem: "is not `ed25519 <version> <key>`".into(),
        })?;
        return Ok(Keys { keys, missing: false });
    }
    let path = if let Some(path) = loaded.map.get_set("signing_key_path") {
        paths.resolve("signing_key_path", path.as_text().unwrap_or_default())?
    } else {
        let path = default_key(&loaded.config_dir, loaded);
        collector.file(&path, Role::SigningKey, true, "the default of `signing_key_path`")?;
        path
    };
    let bytes = match read_bounded(&path, KEY_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            return Ok(Keys {
                keys: Vec::new(),
                missing: error.kind() == std::io::ErrorKind::NotFound,
            });
        }
    };
    let keys = keys::parse(&bytes, Some(&path)).unwrap_or_else(|error| {
        collector.finding(FindingKind::Damaged, &path, format!("it is the signing key, but {error}"));
        Vec::new()
    });
    Ok(Keys { keys, missing: false })
}

fn default_key(directory: &Path, loaded: &Loaded) -> PathBuf {
    directory.join(format!("{}.signing.key", loaded.server_name))
}

fn old_signing_keys(map: &Mapping) -> Vec<OldSigningKey> {
    let entries = map
        .get("old_signing_keys")
        .and_then(Value::as_map)
        .into_iter()
        .flat_map(Mapping::iter);
    let key = |(id, value): (&Value, &Value)| {
        let value = value.as_map()?;
        let expired_ms = match value.get("expired_ts").map(|value| &value.kind) {
            Some(Kind::Int(number)) => number.as_i64(),
            _ => None,
        };
        Some(OldSigningKey {
            key_id: id.as_text()?.to_owned(),
            public_key: value.get("key")?.as_text()?.to_owned(),
            expired_ms,
        })
    };
    entries.filter_map(key).collect()
}

/// `listeners`, as far as they can be asked something in plain HTTP.
fn http_ports(map: &Mapping) -> Vec<u16> {
    let listeners = map.get("listeners").and_then(Value::as_list).unwrap_or_default();
    let port = |listener: &Value| {
        let listener = listener.as_map()?;
        let is_http = listener.get("type").and_then(Value::as_text) == Some("http");
        let has_tls = listener.get("tls").is_some_and(Value::is_true);
        match listener.get("port").map(|value| &value.kind) {
            Some(Kind::Int(number)) if is_http && !has_tls => number.as_i64().and_then(|port| u16::try_from(port).ok()),
            _ => None,
        }
    };
    listeners.iter().filter_map(port).collect()
}

/// The user that Synapse's files belong to, where root runs this and Synapse is somebody else.
fn other_user(media: &MediaStore, collector: &Collector) -> Option<u32> {
    let is_of_another = |uid: &u32| *uid != 0 && rustix::process::geteuid().is_root();
    let key = || {
        collector
            .items()
            .find(|file| file.role == Role::SigningKey)
            .map(|file| file.owner.uid)
    };
    let of_media = media.owner.as_ref().map(|owner| owner.uid).filter(is_of_another);
    of_media.or_else(key).filter(is_of_another)
}

/// The home directory of Synapse's user: ours, or that of another user of this host. Whoever has the number of a container's
/// user here is a stranger.
fn home(options: &Options, other: Option<u32>, collector: &Collector) -> Option<PathBuf> {
    match other {
        Some(uid) if options.path_map.is_empty() => collector.owners().home(uid),
        Some(_) => None,
        None => options.home.clone(),
    }
}

/// What libpq reads by itself from the home directory of its user, and whether it is secret.
const HOME_FILES: [(&str, bool); 6] = [
    (".pgpass", true),
    (".pg_service.conf", true),
    (".postgresql/postgresql.key", true),
    (".postgresql/postgresql.crt", false),
    (".postgresql/root.crt", false),
    (".postgresql/root.crl", false),
];

fn uses_postgres(databases: &[DatabaseConfig]) -> bool {
    databases.iter().any(|database| matches!(database.engine, Engine::Postgres { .. }))
}

fn home_files(home: Option<&Path>, databases: &[DatabaseConfig], collector: &mut Collector) -> Result<(), Error> {
    let Some(home) = home.map(normalize).filter(|_| uses_postgres(databases)) else {
        return Ok(());
    };
    HOME_FILES
        .iter()
        .try_for_each(|(name, secret)| collector.optional(&home.join(name), Role::Database, *secret, "libpq"))
}

/// The same in a home that may be a stranger's: not saved unless `files` names it, but told.
fn left_out_home_files(home: Option<&Path>, databases: &[DatabaseConfig], collector: &mut Collector) {
    let Some(home) = home.map(normalize).filter(|_| uses_postgres(databases)) else {
        return;
    };
    for (name, _) in HOME_FILES {
        let path = home.join(name);
        if path.is_file() && !collector.items().any(|item| item.path == path) {
            let message = "it is not saved: its user owns Synapse's files, but as `path_map` is set, that may be a user of a container";
            collector.finding(FindingKind::LeftOut, &path, message);
        }
    }
}

/// The files of workers in `workers/` beside the configuration, as in Synapse's documentation of systemd and Docker.
fn workers(options: &Options, loaded: &Loaded, paths: &Paths<'_>, collector: &mut Collector) -> Result<(), Error> {
    let mut directories: Vec<PathBuf> = options
        .config
        .iter()
        .filter_map(|path| Some(normalize(path).parent()?.join("workers")))
        .collect();
    directories.sort();
    directories.dedup();
    for directory in directories
        .iter()
        .filter(|directory| directory.is_dir() && !options.config.contains(directory))
    {
        let files = match yaml_files(directory) {
            Ok(files) => files,
            Err(error) => {
                collector.finding(FindingKind::Unreadable, directory, format!("it cannot be listed: {error}"));
                continue;
            }
        };
        for path in files.iter().filter(|path| !loaded.sources.contains(path)) {
            match read_yaml(path) {
                Ok(value) if !is_worker(&value) => {}
                Ok(value) => {
                    collector.file(path, Role::Worker, true, "its place in `workers`")?;
                    worker(path, &value, paths, collector)?;
                }
                Err(Error::Yaml { problem, .. }) => {
                    collector.file(path, Role::Worker, true, "its place in `workers`")?;
                    collector.finding(FindingKind::Damaged, path, format!("what it names is not followed: {problem}"));
                }
                Err(error) => collector.finding(FindingKind::Unreadable, path, error.to_string()),
            }
        }
        // A worker of a server without `signing_key_path` looks for the key beside its own file.
        if loaded.map.get_set("signing_key_path").is_none() {
            collector.optional(&default_key(directory, loaded), Role::SigningKey, true, "a worker")?;
        }
    }
    Ok(())
}

fn is_worker(value: &Value) -> bool {
    value.as_map().is_some_and(|map| map.get_set("worker_app").is_some())
}

/// A worker's file is merged after all others, so it may hold any option. A bad one must not stop the backup: it may be
/// left over from a worker that is gone.
fn worker(path: &Path, value: &Value, paths: &Paths<'_>, collector: &mut Collector) -> Result<(), Error> {
    let Some(map) = value.as_map() else { return Ok(()) };
    match named_files(map, &format!(" in {}", path.display()), paths, collector) {
        Err(error @ (Error::Option { .. } | Error::Relative { .. })) => {
            collector.finding(FindingKind::Damaged, path, format!("not all that it names is followed: {error}"));
            Ok(())
        }
        other => other,
    }
}

/// Among the files that the admin adds there may be those of workers, under any path.
fn extra_workers(paths: &Paths<'_>, collector: &mut Collector) -> Result<(), Error> {
    let is_candidate = |path: &Path, bytes: u64| path.extension().is_some_and(|end| end == "yaml") && bytes <= YAML_BYTES_MAX as u64;
    let candidates: Vec<PathBuf> = collector
        .items()
        .filter(|item| item.role == Role::Extra && item.kind == FileKind::File && is_candidate(&item.path, item.bytes))
        .map(|item| item.path.clone())
        .collect();
    for path in candidates {
        if let Ok(value) = read_yaml(&path)
            && is_worker(&value)
        {
            collector.file(&path, Role::Worker, true, "`files`")?;
            worker(&path, &value, paths, collector)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    #[test]
    fn a_home_that_may_be_a_strangers_is_not_read_but_what_libpq_reads_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        fs::create_dir(home.join(".postgresql")).unwrap();
        fs::write(home.join(".pgpass"), "x").unwrap();
        fs::write(home.join(".postgresql/root.crt"), "x").unwrap();
        let databases = [DatabaseConfig {
            name: "synapse".into(),
            label: "master".into(),
            data_stores: Vec::new(),
            engine: Engine::Postgres { args: BTreeMap::new() },
        }];
        let mut collector = Collector::new();
        collector.tree(&home.join(".pgpass"), Role::Extra, true, true, "`files`").unwrap();
        left_out_home_files(Some(&home), &databases, &mut collector);
        left_out_home_files(Some(&home), &[], &mut collector);
        left_out_home_files(None, &databases, &mut collector);
        let (files, findings) = collector.finish().unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(findings.len(), 1, "what `files` names is saved: {findings:?}");
        assert_eq!(findings[0].kind, FindingKind::LeftOut);
        assert!(findings[0].item.ends_with("/.postgresql/root.crt") && !findings[0].kind.is_problem());
    }

    #[test]
    fn another_users_home_counts_unless_it_may_be_a_containers() {
        let collector = Collector::new();
        // Every host has one user for certain.
        let root = collector.owners().home(0);
        assert!(root.is_some());
        let ours = Options {
            home: Some("/home/us".into()),
            ..Options::default()
        };
        let mapped = Options {
            path_map: vec![("/data".into(), "/srv".into())],
            ..ours.clone()
        };
        for (options, other, expected) in [
            (&ours, None, ours.home.clone()),
            (&ours, Some(0), root),
            (&mapped, None, ours.home.clone()),
            (&mapped, Some(0), None),
        ] {
            assert_eq!(home(options, other, &collector), expected, "{other:?} {:?}", options.path_map);
        }
    }
}
