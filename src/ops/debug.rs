//! `Debug` of the options that hold secrets: what they are told, without connection strings and passwords (invariant 9).
//!
//! Each takes its struct apart field by field, so that a new field cannot be forgotten here. A database is shown by its
//! name, a variable of libpq's by its name.

use std::fmt::{Debug, Formatter, Result};

use super::restore::DatabaseTarget;
use super::{Tools, backup, doctor, drill, restore, verify};

/// The names of pairs whose other half may be a secret.
fn names<T>(pairs: &[(String, T)]) -> Vec<&str> {
    pairs.iter().map(|(name, _)| name.as_str()).collect()
}

impl Debug for Tools {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            path,
            pg_dump,
            environment,
        } = self;
        f.debug_struct("Tools")
            .field("path", path)
            .field("pg_dump", pg_dump)
            .field("environment", &names(environment))
            .finish()
    }
}

impl Debug for backup::Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            parts,
            tags,
            full,
            audit_percent,
            accepted_losses,
            media_time,
            dry_run,
            thumbnails,
            remote,
            url_cache,
            limits,
            tools,
            databases,
            spool_folder,
            tool_version,
        } = self;
        f.debug_struct("Options")
            .field("parts", parts)
            .field("tags", tags)
            .field("full", full)
            .field("audit_percent", audit_percent)
            .field("accepted_losses", accepted_losses)
            .field("media_time", media_time)
            .field("dry_run", dry_run)
            .field("thumbnails", thumbnails)
            .field("remote", remote)
            .field("url_cache", url_cache)
            .field("limits", limits)
            .field("tools", tools)
            .field("databases", &names(databases))
            .field("spool_folder", spool_folder)
            .field("tool_version", tool_version)
            .finish()
    }
}

impl Debug for DatabaseTarget {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::ConnInfo(_) => "ConnInfo",
            Self::Skip => "Skip",
        })
    }
}

impl Debug for restore::Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            to,
            databases,
            create_database,
            parts,
            prefix,
            media_share,
            uploaded,
            forget_remote_media,
            keep_remote_media_rows,
            resume,
            path_map,
            container_path_map,
            working_directory,
            settings_databases,
            owner,
            dry_run,
            late,
            limits,
            tools,
        } = self;
        f.debug_struct("Options")
            .field("to", to)
            .field("databases", databases)
            .field("create_database", create_database)
            .field("parts", parts)
            .field("prefix", prefix)
            .field("media_share", media_share)
            .field("uploaded", uploaded)
            .field("forget_remote_media", forget_remote_media)
            .field("keep_remote_media_rows", keep_remote_media_rows)
            .field("resume", resume)
            .field("path_map", path_map)
            .field("container_path_map", container_path_map)
            .field("working_directory", working_directory)
            .field("settings_databases", &names(settings_databases))
            .field("owner", owner)
            .field("dry_run", dry_run)
            .field("late", late)
            .field("limits", limits)
            .field("tools", tools)
            .finish()
    }
}

impl Debug for verify::Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            snapshot,
            read_data,
            repair_index,
            tools,
            limits,
        } = self;
        f.debug_struct("Options")
            .field("snapshot", snapshot)
            .field("read_data", read_data)
            .field("repair_index", repair_index)
            .field("tools", tools)
            .field("limits", limits)
            .finish()
    }
}

impl Debug for drill::Databases {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Private => f.write_str("Private"),
            Self::Given(given) => f.debug_list().entries(given).finish(),
        }
    }
}

impl Debug for drill::Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            snapshot,
            databases,
            media,
            folder,
            container_path_map,
            working_directory,
            start_synapse,
            late,
            no_record,
            limits,
            tools,
            tool_version,
        } = self;
        f.debug_struct("Options")
            .field("snapshot", snapshot)
            .field("databases", databases)
            .field("media", media)
            .field("folder", folder)
            .field("container_path_map", container_path_map)
            .field("working_directory", working_directory)
            .field("start_synapse", start_synapse)
            .field("late", late)
            .field("no_record", no_record)
            .field("limits", limits)
            .field("tools", tools)
            .field("tool_version", tool_version)
            .finish()
    }
}

impl Debug for doctor::Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            tools,
            now,
            databases,
            dump_jobs,
            textfile,
        } = self;
        f.debug_struct("Options")
            .field("tools", tools)
            .field("now", now)
            .field("databases", &names(databases))
            .field("dump_jobs", dump_jobs)
            .field("textfile", textfile)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::ops::{Limits, all_parts};

    const SECRET: &str = "hunter2";

    fn tools() -> Tools {
        Tools {
            environment: vec![("PGPASSWORD".into(), SECRET.into())],
            ..Tools::default()
        }
    }

    fn databases() -> Vec<(String, String)> {
        vec![("mas".into(), format!("postgres://mas:{SECRET}@db/mas"))]
    }

    #[test]
    fn options_show_names_and_no_secrets() {
        let limits = Limits {
            memory_bytes: 256 << 20,
            connections: 8,
            dump_jobs: 2,
            load_jobs: 2,
        };
        let backup = backup::Options {
            parts: all_parts(),
            tags: Vec::new(),
            full: false,
            audit_percent: 0.0,
            accepted_losses: std::collections::HashSet::new(),
            media_time: None,
            dry_run: false,
            thumbnails: true,
            remote: false,
            url_cache: false,
            limits,
            tools: tools(),
            databases: databases(),
            spool_folder: PathBuf::from("/var/tmp"),
            tool_version: "0".into(),
        };
        let restore = restore::Options {
            to: None,
            databases: vec![("mas".into(), DatabaseTarget::ConnInfo(format!("password={SECRET}")))],
            create_database: false,
            parts: all_parts(),
            path_map: Vec::new(),
            container_path_map: Vec::new(),
            working_directory: None,
            settings_databases: databases(),
            owner: None,
            forget_remote_media: false,
            keep_remote_media_rows: false,
            resume: false,
            prefix: None,
            media_share: None,
            uploaded: None,
            dry_run: false,
            late: false,
            limits,
            tools: tools(),
        };
        let doctor = doctor::Options {
            tools: tools(),
            now: jiff::Timestamp::UNIX_EPOCH,
            databases: databases(),
            dump_jobs: 2,
            textfile: None,
        };
        for shown in [format!("{backup:?}"), format!("{restore:?}"), format!("{doctor:?}")] {
            assert!(!shown.contains(SECRET), "{shown}");
            assert!(shown.contains("mas") && shown.contains("PGPASSWORD"), "{shown}");
        }
    }
}
