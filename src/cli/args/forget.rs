//! The words of `forget`.
//!
//! Names are settled by the verb, all of them before anything is deleted.

use clap::Args as ClapArgs;

pub(in crate::cli) const HELP: &str = "\
Only the snapshots go, at once; `prune` gives back the room that nothing else
needs. A snapshot that landed late is named by its id.

Examples:
  synapse-backup forget 3f9a
  synapse-backup forget 3f9a c01d --dry-run";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Forget {
    /// Id prefixes, `latest` or `latest:SERVER_NAME`.
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub(in crate::cli) snapshots: Vec<String>,
    /// Also the last good snapshot of a homeserver.
    #[arg(long)]
    pub(in crate::cli) yes_really: bool,
    /// Print what would be forgotten; delete nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}
