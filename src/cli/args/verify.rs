//! The words of `verify`.
//!
//! What they mean for the verb is decided in `options`.

use clap::Args as ClapArgs;

use super::Past;
use crate::ops::verify::ReadData;

pub(in crate::cli) const HELP: &str = "\
Without flags the structure is checked: what every snapshot names is in the
index and in the bucket. Any finding is exit code 1.

--read-data=1/30, run every day, reads all packs within thirty days. When all
is read, the dumps of the snapshot (or of the newest) go through pg_restore as
well, where it is installed.

Examples:
  synapse-backup verify
  synapse-backup verify latest --read-data
  synapse-backup verify --read-data=1/30
  synapse-backup verify --repair-index";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Verify {
    /// Id prefix, `latest` or `latest:SERVER_NAME`; all snapshots when left out.
    pub(in crate::cli) snapshot: Option<String>,
    /// Open and hash what is stored: all of it, a share of the packs in percent (1 to 100), or one of N parts, another one every day.
    #[arg(long, value_name = "PERCENT|1/N", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = share)]
    pub(in crate::cli) read_data: Option<ReadData>,
    /// Write new index segments for what none names, from the packs' own tables; delete nothing.
    #[arg(long, conflicts_with = "at")]
    pub(in crate::cli) repair_index: bool,
    #[command(flatten)]
    pub(in crate::cli) past: Past,
}

/// `10`, `10%` or `1/30`.
fn share(text: &str) -> Result<ReadData, String> {
    let wrong = || Err("write a percentage from 1 to 100, or one of N parts as in 1/30".to_owned());
    if let Some(parts) = text.strip_prefix("1/") {
        return match parts.parse() {
            Ok(parts @ 1..=10_000) => Ok(ReadData::OneOf(parts)),
            _ => wrong(),
        };
    }
    match text.trim_end_matches('%').parse() {
        Ok(percent @ 1..=100) => Ok(ReadData::Percent(percent)),
        _ => wrong(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_part() {
        for (text, wanted) in [
            ("100", Some(ReadData::Percent(100))),
            ("5%", Some(ReadData::Percent(5))),
            ("1/30", Some(ReadData::OneOf(30))),
            ("1/1", Some(ReadData::OneOf(1))),
            ("0", None),
            ("101", None),
            ("2/30", None),
            ("1/0", None),
            ("1/x", None),
        ] {
            assert_eq!(share(text).ok(), wanted, "{text}");
        }
    }
}
