//! What `prune` is told.
//!
//! Which storage is paid for longer than it is used follows from how the store is reached.

use jiff::SignedDuration;

use super::{Error, Given};
use crate::cli::args;
use crate::cli::settings::Days;
use crate::ops::prune;

impl Given<'_> {
    /// For `prune`.
    pub(in crate::cli) fn prune(&self, words: &args::Prune) -> Result<prune::Options, Error> {
        let s3 = &self.settings.s3;
        Ok(prune::Options {
            dry_run: words.dry_run,
            keep: self.keep(&words.keep)?,
            yes_really: words.yes_really,
            repack_bytes_max: words.repack_limit.map(|size| size.0),
            storage_min: prune::StorageMin::of(s3.storage_class.as_deref(), s3.provider.as_deref(), s3.endpoint.as_deref()),
            versions: words.versions.map(|Days(days)| SignedDuration::from_hours(24 * i64::from(days))),
            spool_folder: self.scratch_folder(),
            limits: self.limits()?,
        })
    }
}
