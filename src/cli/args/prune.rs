//! The words of `prune`.
//!
//! What they mean for the verb is decided in `options`.

use clap::Args as ClapArgs;

use super::Keep;
use crate::cli::settings::{ByteSize, Days};

pub(in crate::cli) const HELP: &str = "\
Snapshots that no rule of `keep` wants are forgotten; without any rule, none is.
Backups, restores and other prunes may run at the same time. What no snapshot
needs is marked now; a prune that runs a day later or after deletes it. So run
it every night, behind the backup.

Examples:
  synapse-backup prune --dry-run
  synapse-backup prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12
  synapse-backup prune
  synapse-backup prune --repack-limit 2GiB
  synapse-backup prune --versions 30";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Prune {
    #[command(flatten)]
    pub(in crate::cli) keep: Keep,
    /// Forget although there are signs that the rules would let go of what is good.
    #[arg(long)]
    pub(in crate::cli) yes_really: bool,
    /// Move at most so many bytes out of packs that are partly dead, as in 2GiB; the rest waits for the next time.
    #[arg(long, value_name = "BYTES")]
    pub(in crate::cli) repack_limit: Option<ByteSize>,
    /// Delete for good what a bucket with versions has kept for so many days after it was deleted; what is locked stays.
    #[arg(long, value_name = "DAYS")]
    pub(in crate::cli) versions: Option<Days>,
    /// Print what would be done; delete and write nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}
