//! The words of `copy`.
//!
//! Where to, and which snapshots: named, from some time on, or all. What of them is there already is found out by the
//! verb.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

pub(super) const HELP: &str = "\
Only what the other repository lacks is sent, each blob hashed on the way. A
snapshot arrives as it was, or not at all; a copy that was cut short goes on
when it is run again. Nothing is deleted on either side.

The other repository is reached with the same settings, or with those of
--to-config (its `s3:` section with another endpoint, and another `s3.profile`
of ~/.aws/credentials where the credentials are others). The environment's
SYNAPSE_BACKUP_ variables do not apply to that file.

Examples:
  synapse-backup copy --to file:///mnt/disk/matrix
  synapse-backup copy --to s3://second/matrix --to-config /etc/synapse-backup/second.yaml --all
  synapse-backup copy --to s3://second/matrix --since 2026-11-01";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Copy {
    #[arg(long, value_name = "URL", help = "The other repository: s3://BUCKET/PREFIX or file:///FOLDER")]
    pub(in crate::cli) to: String,
    /// Settings by which it is reached.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) to_config: Option<PathBuf>,
    /// Id prefixes, `latest` or `latest:SERVER_NAME`; `latest` when nothing is chosen.
    pub(in crate::cli) snapshots: Vec<String>,
    /// All snapshots from this time on (a date in UTC, or as in 2026-11-01T03:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "snapshots")]
    pub(in crate::cli) since: Option<Timestamp>,
    /// All snapshots that are not there yet: keeps two repositories in step.
    #[arg(long, conflicts_with_all = ["snapshots", "since"])]
    pub(in crate::cli) all: bool,
    /// List what would be copied; send nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// A day, which begins at midnight UTC, or a moment.
fn time(text: &str) -> Result<Timestamp, String> {
    let day = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Date>().and_then(day))
        .map_err(|_| "give a date as in 2026-11-01, or a time as in 2026-11-01T03:00:00Z".into())
}
