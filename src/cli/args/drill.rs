//! The words of `drill`.
//!
//! What they mean for the verb is decided in `options`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::ops::drill::Media;

pub(in crate::cli) const HELP: &str = "\
The newest snapshot is brought back beside everything that lives: its databases
into a throw-away PostgreSQL (or the scratch databases that --database names),
its files into a scratch folder. Then they are compared with what was true when
the snapshot was taken. Nothing of it remains, and the result is recorded in
the repository. Any finding is exit code 1.

The throw-away PostgreSQL listens on a unix socket only. Run by root, it runs
as the user of Synapse, or as `postgres` or `nobody`.

A database that --database names is made and dropped, or must be empty and is
emptied again.

Examples:
  synapse-backup drill
  synapse-backup drill --media=sample:5
  synapse-backup drill latest --database synapse=postgresql:///drill
  synapse-backup drill --to /srv/scratch --json
  synapse-backup drill --start-synapse '/opt/venvs/matrix-synapse/bin/python -m synapse.app.homeserver'";

#[derive(ClapArgs)]
pub(in crate::cli) struct Drill {
    /// Id prefix, `latest` or `latest:SERVER_NAME`.
    #[arg(default_value = "latest", hide_default_value = true)]
    pub(in crate::cli) snapshot: String,
    /// Use a throw-away PostgreSQL, made for this drill [default].
    #[arg(long, conflicts_with = "databases")]
    pub(in crate::cli) private_postgres: bool,
    /// Use this scratch database for the database NAME (or NAME=skip); may be given several times.
    #[arg(long = "database", value_name = "NAME=CONNINFO")]
    pub(in crate::cli) databases: Vec<String>,
    /// Which media are brought back: all, sample:PERCENT (the others are compared by the lists), or hash-only (all are read, none is written).
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = media)]
    pub(in crate::cli) media: Media,
    /// Make the scratch folder here [default: TMPDIR or /var/tmp].
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: Option<PathBuf>,
    /// Start a Synapse on what came back with this command (`-c FILE` is added), kept from everything outside, and ask it.
    #[arg(long, value_name = "COMMAND")]
    pub(in crate::cli) start_synapse: Option<String>,
    /// Take a snapshot that landed late, too.
    #[arg(long)]
    pub(in crate::cli) late: bool,
    /// Write no record of the drill into the repository.
    #[arg(long)]
    pub(in crate::cli) no_record: bool,
}

fn media(text: &str) -> Result<Media, String> {
    let wrong = || Err("write all, sample:PERCENT (more than 0, at most 100) or hash-only".to_owned());
    match text {
        "all" => Ok(Media::All),
        "hash-only" => Ok(Media::HashOnly),
        _ => match text
            .strip_prefix("sample:")
            .map(|percent| percent.trim_end_matches('%').parse::<f64>())
        {
            Some(Ok(percent)) if percent > 0.0 && percent <= 100.0 => Ok(Media::Sample(percent)),
            _ => wrong(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_media_is_a_percentage() {
        for (text, wanted) in [
            ("all", Some(Media::All)),
            ("hash-only", Some(Media::HashOnly)),
            ("sample:5", Some(Media::Sample(5.0))),
            ("sample:0.5%", Some(Media::Sample(0.5))),
            ("sample:0", None),
            ("sample:101", None),
            ("sample:NaN", None),
            ("sample", None),
            ("none", None),
        ] {
            assert_eq!(media(text).ok(), wanted, "{text}");
        }
    }
}
