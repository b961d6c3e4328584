//! From words to options: flags over settings over defaults, checked, and ready for the verbs.
//!
//! Every default that a user can meet stands here. Nothing is opened; what cannot be meant is refused with exit code 2.

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;

use super::args::{self, Only};
use super::commands::losses;
use super::environment::Environment;
use super::settings::{AbsolutePath, Settings};
use super::system;
use crate::ops::restore::{DatabaseTarget, Uploaded};
use crate::ops::{Error, Limits, Part, Parts, Tools, adopt, all_parts, backup, copy, doctor, drill, restore, stats, verify};

mod keep;
mod prune;
mod rekey;

/// Memory of a run unless `limits.memory` says otherwise, and the least that the pipeline can work in.
const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
const MEMORY_BYTES_MIN: u64 = 96 << 20;
/// A copy reads beside it: it was measured at 111 MiB with this, and at 118 with the least of all.
const MEMORY_BYTES_COPY_MIN: u64 = 128 << 20;
/// Requests at once unless `limits.connections` says otherwise.
const CONNECTIONS_DEFAULT: usize = 8;
/// Dumps and loads at once, on a machine with so many cores or more, unless `limits.dump_jobs` or `limits.load_jobs` say otherwise.
const JOBS_DEFAULT_MAX: usize = 4;

/// Flags, settings and environment of this call.
pub(super) struct Given<'a> {
    pub(super) settings: &'a Settings,
    pub(super) environment: &'a Environment,
}

impl Given<'_> {
    /// `backup` and `doctor` look at the homeserver, which only settings can name.
    pub(super) fn need_synapse(&self) -> Result<(), Error> {
        if self.settings.synapse.config.as_ref().is_some_and(|files| !files.is_empty()) {
            return Ok(());
        }
        Err(Error::usage(
            "`synapse.config` is not set: it is not known which homeserver is meant",
            "list the files and folders that Synapse is started with (its -c options) in the settings file, as in\n\
             synapse: { config: [/etc/matrix-synapse/homeserver.yaml, /etc/matrix-synapse/conf.d] }",
        ))
    }

    /// For `backup`.
    pub(super) fn backup(&self, words: &args::Backup) -> Result<backup::Options, Error> {
        self.need_synapse()?;
        let media = &self.settings.media;
        Ok(backup::Options {
            parts: parts(&words.only),
            tags: distinct(&words.tags),
            full: words.full,
            audit_percent: words.audit.unwrap_or(AUDIT_PERCENT_DEFAULT),
            accepted_losses: media
                .accepted_losses
                .as_ref()
                .map(|AbsolutePath(path)| accepted_losses(path))
                .transpose()?
                .unwrap_or_default(),
            media_time: self.settings.limits.media_time.map(|time| time.0),
            dry_run: words.dry_run,
            thumbnails: media.thumbnails.unwrap_or(true),
            remote: media.remote.unwrap_or(false),
            url_cache: media.url_cache.unwrap_or(false),
            limits: self.limits()?,
            tools: self.tools(),
            databases: self.databases(),
            spool_folder: self.scratch_folder(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// For `restore`.
    pub(super) fn restore(&self, words: &args::Restore) -> Result<restore::Options, Error> {
        let databases = database_targets(&words.databases)?;
        refuse_idle_databases(words, &databases)?;
        Ok(restore::Options {
            to: words.to.as_deref().map(absolute).transpose()?,
            databases,
            create_database: words.create_database,
            parts: parts(&words.only),
            prefix: media_prefix(words)?,
            media_share: None,
            uploaded: uploaded(words)?,
            forget_remote_media: words.forget_remote_media,
            keep_remote_media_rows: words.keep_remote_media_rows,
            resume: words.resume,
            path_map: words.path_map.iter().map(|text| mapping(text)).collect::<Result<_, _>>()?,
            container_path_map: self.settings.synapse.path_map(),
            working_directory: self.settings.synapse.working_directory.clone().map(|AbsolutePath(path)| path),
            settings_databases: self.databases(),
            owner: words.owner.as_deref().map(system::owner).transpose()?,
            dry_run: words.dry_run,
            late: words.late,
            limits: self.limits()?,
            tools: self.tools(),
        })
    }

    /// For `adopt`.
    pub(super) fn adopt(&self) -> Result<adopt::Options, Error> {
        Ok(adopt::Options {
            limits: self.limits()?,
            spool_folder: self.scratch_folder(),
        })
    }

    /// For `stats`.
    pub(super) fn stats(&self) -> Result<stats::Options, Error> {
        Ok(stats::Options {
            limits: self.limits()?,
            spool_folder: self.scratch_folder(),
        })
    }

    /// For `verify`.
    pub(super) fn verify(&self, words: &args::Verify) -> Result<verify::Options, Error> {
        Ok(verify::Options {
            snapshot: words.snapshot.clone(),
            read_data: words.read_data,
            repair_index: words.repair_index,
            tools: Some(self.tools()),
            limits: self.limits()?,
        })
    }

    /// For `drill`.
    pub(super) fn drill(&self, words: &args::Drill) -> Result<drill::Options, Error> {
        let databases = if words.databases.is_empty() || words.private_postgres {
            drill::Databases::Private
        } else {
            drill::Databases::Given(database_targets(&words.databases)?)
        };
        Ok(drill::Options {
            snapshot: words.snapshot.clone(),
            databases,
            media: words.media,
            folder: words.to.as_deref().map_or_else(|| Ok(self.scratch_folder()), absolute)?,
            container_path_map: self.settings.synapse.path_map(),
            working_directory: self.settings.synapse.working_directory.clone().map(|AbsolutePath(path)| path),
            start_synapse: words.start_synapse.clone(),
            late: words.late,
            no_record: words.no_record,
            limits: self.limits()?,
            tools: self.tools(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Not /tmp, which may be memory.
    fn scratch_folder(&self) -> PathBuf {
        self.environment.path("TMPDIR").unwrap_or_else(|| PathBuf::from("/var/tmp"))
    }

    /// For `copy`.
    pub(super) fn copy(&self, words: &args::Copy) -> Result<copy::Options, Error> {
        let choice = match words.since {
            Some(since) => copy::Choice::Since(since),
            None if words.all => copy::Choice::All,
            None if words.snapshots.is_empty() => copy::Choice::Named(vec!["latest".into()]),
            None => copy::Choice::Named(words.snapshots.clone()),
        };
        let limits = self.limits()?;
        if limits.memory_bytes < MEMORY_BYTES_COPY_MIN {
            return Err(Error::usage(
                format!(
                    "`limits.memory` is {}, below the 128 MiB that a copy takes",
                    BinaryBytes(limits.memory_bytes)
                ),
                "what is read of one repository is compressed and sent to the other at the same time; the default is 256MiB",
            ));
        }
        Ok(copy::Options {
            choice,
            dry_run: words.dry_run,
            limits,
        })
    }

    /// For `doctor --media`.
    pub(super) fn media_walk(&self) -> Result<doctor::WalkOptions, Error> {
        Ok(doctor::WalkOptions {
            tools: self.tools(),
            now: system::now(),
            memory_bytes: self.limits()?.memory_bytes,
            spool_folder: self.scratch_folder(),
        })
    }

    /// For `doctor`.
    pub(super) fn doctor(&self) -> Result<doctor::Options, Error> {
        self.need_synapse()?;
        Ok(doctor::Options {
            tools: self.tools(),
            now: system::now(),
            databases: self.databases(),
            dump_jobs: self.limits()?.dump_jobs,
            textfile: self.settings.metrics.textfile.clone().map(|file| file.0),
        })
    }

    /// Bounds of a run.
    pub(super) fn limits(&self) -> Result<Limits, Error> {
        let limits = &self.settings.limits;
        let memory_bytes = limits.memory.map_or(MEMORY_BYTES_DEFAULT, |size| size.0);
        if memory_bytes < MEMORY_BYTES_MIN {
            return Err(Error::usage(
                format!("`limits.memory` is {}, below the least of 96 MiB", BinaryBytes(memory_bytes)),
                "a pack is compressed, filled and sent at the same time, and that needs room; the default is 256MiB",
            ));
        }
        Ok(Limits {
            memory_bytes,
            connections: connections(self.settings),
            dump_jobs: limits.dump_jobs.map_or_else(default_jobs, |number| number.0),
            load_jobs: limits.load_jobs.map_or_else(default_jobs, |number| number.0),
        })
    }

    fn tools(&self) -> Tools {
        Tools {
            path: self.environment.program_folders(),
            pg_dump: self.settings.postgres.pg_dump.as_ref().map(|AbsolutePath(path)| path.clone()),
            environment: self.environment.of_libpq(),
        }
    }

    fn databases(&self) -> Vec<(String, String)> {
        let databases = self.settings.databases.iter().flatten();
        databases
            .map(|database| (database.name.value.clone(), database.url.clone()))
            .collect()
    }
}

/// Requests to the store at once.
pub(super) fn connections(settings: &Settings) -> usize {
    settings.limits.connections.map_or(CONNECTIONS_DEFAULT, |number| number.0)
}

fn default_jobs() -> usize {
    system::cores().min(JOBS_DEFAULT_MAX)
}

fn parts(only: &[Only]) -> Parts {
    if only.is_empty() {
        return all_parts();
    }
    let part = |only: &Only| match only {
        Only::Config => Part::Config,
        Only::Database => Part::Database,
        Only::Media => Part::Media,
    };
    only.iter().map(part).collect()
}

fn distinct(tags: &[String]) -> Vec<String> {
    let tags: std::collections::BTreeSet<&String> = tags.iter().collect();
    tags.into_iter().cloned().collect()
}

/// A path on the command line may be relative to where the user stands.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    if path.as_os_str().is_empty() {
        return Err(Error::usage("`--to` is empty", "name the folder that gets the files"));
    }
    std::path::absolute(path).map_err(|error| {
        Error::usage(
            format!("`--to {}`: {error}", path.display()),
            "give an absolute path: the current folder is gone or cannot be read",
        )
    })
}

/// All of `--database`, each name once: of two, one would be passed over.
fn database_targets(words: &[String]) -> Result<Vec<(String, DatabaseTarget)>, Error> {
    let mut targets: Vec<(String, DatabaseTarget)> = Vec::new();
    for text in words {
        let (name, target) = database_target(text)?;
        if targets.iter().any(|(other, _)| *other == name) {
            return Err(Error::usage(
                format!("`--database {name}=…` is given twice"),
                "say once where it goes",
            ));
        }
        targets.push((name, target));
    }
    Ok(targets)
}

/// `--only` parts without a database, and a word about where databases go.
fn refuse_idle_databases(words: &args::Restore, databases: &[(String, DatabaseTarget)]) -> Result<(), Error> {
    let goes_somewhere = databases.iter().any(|(_, target)| *target != DatabaseTarget::Skip);
    if parts(&words.only).contains(&Part::Database) || !(goes_somewhere || words.create_database) {
        return Ok(());
    }
    Err(Error::usage(
        "--database or --create-database, and `--only` parts that have no database",
        "leave them out, or add `database` to `--only`",
    ))
}

/// `NAME=CONNINFO` or `NAME=skip`. What stands after the name may be a password: it is never shown.
fn database_target(text: &str) -> Result<(String, DatabaseTarget), Error> {
    let hint = "write NAME=CONNINFO, as in --database synapse=postgresql:///synapse_restored, or NAME=skip";
    let Some((name, target)) = text.split_once('=').filter(|(name, _)| is_database_name(name)) else {
        return Err(Error::usage("`--database` without the name of a database", hint));
    };
    let target = match target {
        "" => return Err(Error::usage(format!("`--database {name}=` says nothing about where it goes"), hint)),
        "skip" => DatabaseTarget::Skip,
        conninfo => DatabaseTarget::ConnInfo(conninfo.to_owned()),
    };
    Ok((name.to_owned(), target))
}

/// `host=db` and `postgres://…?x=y` have an equals sign too, but no name before it.
fn is_database_name(name: &str) -> bool {
    let libpq_keywords = [
        "host", "hostaddr", "port", "dbname", "user", "password", "service", "sslmode", "passfile",
    ];
    !name.is_empty() && !libpq_keywords.contains(&name) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// `OLD=NEW`, both absolute.
fn mapping(text: &str) -> Result<(PathBuf, PathBuf), Error> {
    let refused = |why: String| {
        Error::usage(
            format!("`--path-map`: {why}"),
            "write OLD=NEW with two absolute paths, as in /data=/srv/synapse",
        )
    };
    let (old, new) = text.split_once('=').ok_or_else(|| refused(format!("`{text}` has no `=`")))?;
    let path = |text: &str| text.parse::<AbsolutePath>().map(|AbsolutePath(path)| path).map_err(refused);
    Ok((path(old)?, path(new)?))
}

/// `--prefix`, which is a path in the media store, an item name or an mxc address; it goes with `--only media`.
fn media_prefix(words: &args::Restore) -> Result<Option<String>, Error> {
    let Some(prefix) = &words.prefix else { return Ok(None) };
    if parts(&words.only) != [Part::Media].into() {
        return Err(Error::usage(
            "--prefix without `--only media`",
            "it chooses among media: add `--only media`",
        ));
    }
    Ok(Some(prefix.clone()))
}

/// `--uploaded-…`, which go with `--only media`.
fn uploaded(words: &args::Restore) -> Result<Option<Uploaded>, Error> {
    let args::Uploaded { by, after, before } = words.uploaded.clone();
    let uploaded = Uploaded { by, after, before };
    if uploaded == Uploaded::default() {
        return Ok(None);
    }
    if parts(&words.only) != [Part::Media].into() {
        return Err(Error::usage(
            "--uploaded-by, --uploaded-after and --uploaded-before without `--only media`",
            "they choose among media: add `--only media`",
        ));
    }
    Ok(Some(uploaded))
}

/// Every file that is not opened is looked at within a month.
const AUDIT_PERCENT_DEFAULT: f64 = 100.0 / 30.0;

/// The items whose loss is accepted: one a line, as `show --problems` names them; empty lines and `#` are passed over.
fn accepted_losses(path: &std::path::Path) -> Result<std::collections::HashSet<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = "write one item a line, as `show SNAPSHOT --problems` names them, or take `media.accepted_losses` out";
        Error::usage(format!("`media.accepted_losses`: {}: {error}", path.display()), hint)
    })?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(losses::item_of_line).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::cli::settings::ByteSize;

    #[test]
    fn a_database_target_needs_a_name() {
        for (text, wanted) in [
            (
                "synapse=postgresql:///x?a=b",
                Some(("synapse", DatabaseTarget::ConnInfo("postgresql:///x?a=b".into()))),
            ),
            ("mas=skip", Some(("mas", DatabaseTarget::Skip))),
            ("synapse=", None),
            ("synapse", None),
            ("=x", None),
            ("host=db dbname=x", None),
            ("postgres://u:p@h/d?sslmode=require", None),
        ] {
            let got = database_target(text);
            assert_eq!(
                got.as_ref().ok(),
                wanted.map(|(name, target)| (name.to_owned(), target)).as_ref(),
                "{text}"
            );
            assert!(got.is_ok() || !got.unwrap_err().message.contains("u:p@"), "{text}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_docs() {
        let given = Given {
            settings: &Settings::default(),
            environment: &Environment::default(),
        };
        let limits = given.limits().unwrap();
        assert_eq!((limits.memory_bytes, limits.connections), (256 << 20, 8));
        assert!((1..=4).contains(&limits.dump_jobs) && limits.dump_jobs == limits.load_jobs);
    }

    #[test]
    fn too_little_memory_is_refused() {
        for (size, good) in [((96 << 20) - 1, false), (96 << 20, true)] {
            let mut settings = Settings::default();
            settings.limits.memory = Some(ByteSize(size));
            let given = Given {
                settings: &settings,
                environment: &Environment::default(),
            };
            assert_eq!(given.limits().is_ok(), good, "{size}");
        }
    }

    #[test]
    fn a_path_map_has_two_absolute_paths() {
        for (text, good) in [("/a=/b", true), ("/a", false), ("a=/b", false), ("/a=b", false), ("/a=", false)] {
            assert_eq!(mapping(text).is_ok(), good, "{text}");
        }
    }
}
