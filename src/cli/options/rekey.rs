//! What `rekey` is told.
//!
//! Its scratch files are those of `prune`: both sort what lives.

use super::{Error, Given};
use crate::cli::args;
use crate::ops::rekey;

impl Given<'_> {
    /// For `rekey`.
    pub(in crate::cli) fn rekey(&self, words: &args::Rekey) -> Result<rekey::Options, Error> {
        Ok(rekey::Options {
            packs: words.packs,
            dry_run: words.dry_run,
            spool_folder: self.scratch_folder(),
            limits: self.limits()?,
        })
    }
}
