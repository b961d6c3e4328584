//! The words of `keys` and `rekey`: which keys there are, and what is sealed to them.
//!
//! A recipient is a public key, so that it may stand on a command line.

use clap::{Args as ClapArgs, Subcommand};

use crate::cli::settings::RecipientWord;

pub(in crate::cli) const KEYS_HELP: &str = "\
Recipients stand in the settings alone, never in the bucket, where whoever can
write could add himself. `add` and `remove` change the settings file, and hold
from the next backup on. What is in the bucket already stays sealed as it is:
`rekey` seals it anew.

Examples:
  synapse-backup keys list
  synapse-backup keys list --packs --identity /media/safe/identity.txt
  synapse-backup keys add age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  synapse-backup keys remove age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

pub(in crate::cli) const REKEY_HELP: &str = "\
Snapshots, index and lists are sealed anew to the recipients of the settings and
the writer key here; with --packs everything else too, which reads and writes
the whole repository. Old objects go as `prune` lets them go: packs are marked
now, and deleted by a prune that runs a day later or after. Until then, and as
long as old versions of a bucket are kept, a removed key still opens them. What
was cut short goes on when it is run again. Needs the right to delete.

A writer key that is lost: --new-writer-key makes another, which needs an
identity. Pin the old one by --signer, so that its snapshots get the signature
of the new one.

Examples:
  synapse-backup rekey --dry-run
  synapse-backup rekey --packs --identity /media/safe/identity.txt
  synapse-backup rekey --new-writer-key --identity /media/safe/identity.txt --signer 3d40…";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct KeysVerb {
    #[command(subcommand)]
    pub(in crate::cli) action: KeysAction,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysAction {
    /// Which keys are here, what they open, and who signed the snapshots.
    List {
        /// Look at every pack too: a small request for each.
        #[arg(long)]
        packs: bool,
    },
    /// Seal to one more recipient from now on.
    Add {
        /// A public key, age1…
        recipient: RecipientWord,
    },
    /// Seal to one recipient less from now on; what is there still opens with its key until `rekey --packs`.
    Remove {
        /// A public key, age1…
        recipient: RecipientWord,
    },
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Rekey {
    /// Seal packs of databases and media anew, too: reads and writes everything, and needs --identity.
    #[arg(long)]
    pub(in crate::cli) packs: bool,
    /// Make a writer key where there is none, and seal to it.
    #[arg(long)]
    pub(in crate::cli) new_writer_key: bool,
    /// Print what would be done; write and delete nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}
