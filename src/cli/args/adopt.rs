//! The words of `adopt`.
//!
//! All late snapshots are taken only when that is said, since a late one may be late for a good reason.

use clap::Args as ClapArgs;

pub(in crate::cli) const HELP: &str = "\
Every snapshot of a bucket that was mirrored, or of a folder that was copied,
is late: it landed long after it was taken. `adopt` checks that what it needs is
there, and makes it count.

Examples:
  synapse-backup adopt --all
  synapse-backup adopt 3f9a";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Adopt {
    /// Id prefixes of late snapshots.
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "SNAPSHOT")]
    pub(in crate::cli) snapshots: Vec<String>,
    /// All that are late.
    #[arg(long)]
    pub(in crate::cli) all: bool,
}
