//! Could every database be dumped tonight, and loaded again here?
//!
//! Each is held for a moment as a dump would hold it, which takes the locks and looks at the rights that a dump needs. What a
//! dump does not need is a warning: a collation that Synapse does not want, a `pg_restore` that could not read what is written.

use serde::Deserialize;

use super::{Options, Report};
use crate::ops::connect::{self, Source};
use crate::synapse::Homeserver;
use crate::synapse::media::MediaTables;
use crate::synapse::postgres::snapshot::Snapshot as Moment;
use crate::synapse::postgres::tools::Version;
use crate::synapse::postgres::{Session, Tools};

/// A doctor does not wait long for locks.
const LOCK_SECONDS: u64 = 10;
/// Beside the dumps: the session that holds the moment, and the one that watches over its locks.
const OWN_SESSIONS: i64 = 2;

/// The `pg_restore` of this major version and of newer ones sets `transaction_timeout`, which older servers do not know.
const TIMEOUT_SINCE: u32 = 17;

/// Each in turn, also after one has failed.
pub(super) async fn check(homeserver: &Homeserver, options: &Options, report: &mut Report) {
    let tools = match connect::tools(&options.tools).await {
        Ok(tools) => tools,
        Err(error) => return report.error("PostgreSQL programs", &error),
    };
    let sources = match connect::sources(homeserver, &options.databases, &options.tools) {
        Ok(sources) => sources,
        Err(error) => return report.error("databases", &error),
    };
    for source in sources {
        let name = format!("database {}", source.name);
        match look(&source, &tools).await {
            Ok(found) => {
                report.ok(&name, &found.message);
                check_collation(&source, &found.place, report);
                check_connections(&name, &found, options.dump_jobs, report);
                check_synapse(&name, &source, &found, report);
                check_restorable(&name, &tools, &found, report);
            }
            Err(error) => report.error(&name, &error),
        }
    }
}

/// What was found out about a database.
struct Found {
    message: String,
    place: Place,
    connections: Connections,
    is_superuser: bool,
    pg_dump: Version,
    server: Version,
    has_media: bool,
}

/// Reachable, dumpable by a `pg_dump` of this machine, and every table readable.
async fn look(source: &Source, tools: &Tools) -> anyhow::Result<Found> {
    let mut moment = Moment::export(&source.info, tools, LOCK_SECONDS).await?;
    let server = moment.session.server().clone();
    let pg_dump = tools.pg_dump(server.version())?;
    let place = moment.session.one("encoding and collation", PLACE).await?;
    let connections = connections(&mut moment.session).await?;
    let tables = moment.tables().len();
    let has_media = MediaTables::find(&mut moment.session).await?.is_some();
    moment.close().await;
    Ok(Found {
        message: format!(
            "PostgreSQL {}, {tables} tables, dumped by {} {}",
            server.version,
            pg_dump.path.display(),
            pg_dump.version
        ),
        place,
        connections,
        is_superuser: server.superuser,
        pg_dump: pg_dump.version,
        server: server.version(),
        has_media,
    })
}

#[derive(Deserialize)]
struct Place {
    encoding: String,
    collation: String,
}

const PLACE: &str = "SELECT pg_catalog.pg_encoding_to_char(encoding) AS encoding, datcollate AS collation \
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

/// Only Synapse's own: it refuses to start on another.
fn check_collation(source: &Source, place: &Place, report: &mut Report) {
    if source.name.starts_with("synapse") && (place.collation != "C" || place.encoding != "UTF8") {
        report.warn(
            &format!("database {}", source.name),
            format!("its encoding is {}, its collation {}", place.encoding, place.collation),
            "Synapse wants UTF8 and C: dump it and load it into a database made with --encoding=UTF8 --locale=C",
        );
    }
}

/// Limits of connections, and who has some; a negative limit is none.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Connections {
    max: i64,
    reserved: i64,
    used: i64,
    role_limit: i64,
    role_used: i64,
    database_limit: i64,
    database_used: i64,
}

/// Sessions of others are seen, but not always what they are: background workers have slots of their own.
const CONNECTIONS: &str = "SELECT pg_catalog.current_setting('max_connections')::int8 AS max, \
    pg_catalog.current_setting('superuser_reserved_connections')::int8 \
        + coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int8 AS reserved, \
    pg_catalog.count(*) AS used, \
    (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user) AS role_limit, \
    pg_catalog.count(*) FILTER (WHERE usename = current_user) AS role_used, \
    (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS database_limit, \
    pg_catalog.count(*) FILTER (WHERE datname = pg_catalog.current_database()) AS database_used \
    FROM pg_catalog.pg_stat_activity \
    WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";

async fn connections(session: &mut Session) -> anyhow::Result<Connections> {
    Ok(session.one("the connections", CONNECTIONS).await?)
}

impl Connections {
    /// How many there could be if nobody else had one, and how many are free now.
    fn most_and_free(self, is_superuser: bool) -> (i64, i64) {
        if is_superuser {
            return (self.max, self.max - self.used);
        }
        let limits = [
            (self.max - self.reserved, self.used),
            (self.role_limit, self.role_used),
            (self.database_limit, self.database_used),
        ];
        let limits = limits.into_iter().filter(|(limit, _)| *limit >= 0);
        limits.fold((i64::MAX, i64::MAX), |(most, free), (limit, used)| {
            (most.min(limit), free.min(limit - used))
        })
    }
}

/// A dump that finds no connection free is one that failed.
fn check_connections(name: &str, found: &Found, dump_jobs: usize, report: &mut Report) {
    let needed = i64::try_from(dump_jobs).unwrap_or(i64::MAX).saturating_add(OWN_SESSIONS);
    let (most, free) = found.connections.most_and_free(found.is_superuser);
    let cure = "lower `limits.dump_jobs`, or raise the limit: `max_connections`, ALTER ROLE or ALTER DATABASE … CONNECTION LIMIT";
    if most < needed {
        report.fail(
            name,
            format!("its dump takes {needed} connections, and this role may have {most}"),
            cure,
        );
    } else if free < needed {
        report.warn(
            name,
            format!("its dump takes {needed} connections, and {} are free", free.max(0)),
            cure,
        );
    } else {
        report.ok(name, format!("its dump takes {needed} connections, {free} are free"));
    }
}

/// A backup of a database that lost everything would be a success, and the newest snapshot an empty one: it is refused.
fn check_synapse(name: &str, source: &Source, found: &Found, report: &mut Report) {
    if source.is_main && !found.has_media {
        report.fail(name, connect::NO_SYNAPSE, connect::NO_SYNAPSE_HINT);
    }
}

/// A backup does not need it, but whoever restores or drills here does.
fn check_restorable(name: &str, tools: &Tools, found: &Found, report: &mut Report) {
    match tools.pg_restore(found.pg_dump) {
        Ok(pg_restore) if pg_restore.version.major >= TIMEOUT_SINCE && found.server.major < TIMEOUT_SINCE => report.warn(
            name,
            format!(
                "loaded by {} {}, which cannot load into a server as old as this one",
                pg_restore.path.display(),
                pg_restore.version
            ),
            format!(
                "install postgresql-client-{}: what it dumps, it also loads here",
                found.server.major
            ),
        ),
        Ok(pg_restore) => report.ok(name, format!("loaded by {} {}", pg_restore.path.display(), pg_restore.version)),
        Err(error) => report.warn(
            name,
            format!("what is dumped cannot be loaded here: {error}"),
            "install the pg_restore that belongs to this pg_dump: `restore`, `drill` and `verify --read-data` need it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts_and_none_is_none() {
        let roomy = Connections {
            max: 100,
            reserved: 3,
            used: 10,
            role_limit: -1,
            role_used: 5,
            database_limit: -1,
            database_used: 7,
        };
        let by_role = Connections { role_limit: 6, ..roomy };
        let by_database = Connections {
            database_limit: 9,
            ..roomy
        };
        for (limits, is_superuser, most, free) in [
            (roomy, false, 97, 87),
            (roomy, true, 100, 90),
            (by_role, false, 6, 1),
            (by_role, true, 100, 90),
            (by_database, false, 9, 2),
        ] {
            assert_eq!(limits.most_and_free(is_superuser), (most, free), "{limits:?}");
        }
    }
}
