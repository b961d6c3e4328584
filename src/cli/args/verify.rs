//! The words of `verify`.
//!
//! What they mean for the verb is decided in `options`.

use clap::Args as ClapArgs;

use super::Past;

pub(in crate::cli) const HELP: &str = "\
Without flags the structure is checked: what every snapshot names is in the
index and in the bucket. Any finding is exit code 1.

Examples:
  synapse-backup verify
  synapse-backup verify latest --read-data
  synapse-backup verify --read-data=10";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Verify {
    /// Id prefix, `latest` or `latest:SERVER_NAME`; all snapshots when left out.
    pub(in crate::cli) snapshot: Option<String>,
    /// Open and hash what is stored: all of it, or this share of the packs (1 to 100).
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(in crate::cli) read_data: Option<u8>,
    #[command(flatten)]
    pub(in crate::cli) past: Past,
}
