//! The global flags about keys, and what `init` and `keys` take.
//!
//! Keys are named by file, never given: what stands on a command line is seen by everybody on the machine.

use std::path::PathBuf;

use clap::Args;

use crate::format::writer_key::Signer;

#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Keys {
    /// A file with an age identity, which opens a sealed repository; may be given several times.
    #[arg(long = "identity", global = true, value_name = "FILE", help_heading = "Global options")]
    pub(in crate::cli) identities: Vec<PathBuf>,
    /// Believe snapshots that this signer has signed (as `show` prints it); may be given several times.
    #[arg(long = "signer", global = true, value_name = "SIGNER", help_heading = "Global options")]
    pub(in crate::cli) signers: Vec<Signer>,
    /// Believe snapshots although nobody known has signed them.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(in crate::cli) accept_unsigned: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Init {
    /// Make a repository that whoever reads the bucket can read, passwords and signing keys included.
    #[arg(long)]
    pub(in crate::cli) unencrypted: bool,
}
