//! `--keep-…`: which snapshots stay, for the commands that forget by policy.
//!
//! A flag wins over its key of the settings and leaves the others alone, as everywhere; so nobody who asks for three more
//! loses the twelve months that the settings keep. Tags add up, since they only protect.

use clap::Args;

use super::tag_word;
use crate::cli::settings::{Count, TimeSpan, Zone};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which snapshots stay (each wins over its key in `keep` of the settings)")]
pub(in crate::cli) struct Keep {
    /// The newest N.
    #[arg(long = "keep-last", value_name = "N")]
    pub(in crate::cli) last: Option<Count>,
    /// One of each of the newest N days that have any.
    #[arg(long = "keep-daily", value_name = "N")]
    pub(in crate::cli) daily: Option<Count>,
    /// One of each of the newest N weeks.
    #[arg(long = "keep-weekly", value_name = "N")]
    pub(in crate::cli) weekly: Option<Count>,
    /// One of each of the newest N months.
    #[arg(long = "keep-monthly", value_name = "N")]
    pub(in crate::cli) monthly: Option<Count>,
    /// One of each of the newest N years.
    #[arg(long = "keep-yearly", value_name = "N")]
    pub(in crate::cli) yearly: Option<Count>,
    /// All that are at most so much older than the newest, as in 30d.
    #[arg(long = "keep-within", value_name = "TIME")]
    pub(in crate::cli) within: Option<TimeSpan>,
    /// Where days begin and end, as in Europe/Berlin.
    #[arg(long = "keep-time-zone", value_name = "ZONE")]
    pub(in crate::cli) time_zone: Option<Zone>,
    /// All that have this tag; may be given several times, and adds to `keep.tags`.
    #[arg(long = "keep-tag", value_name = "TAG", value_parser = tag_word)]
    pub(in crate::cli) tags: Vec<String>,
}
