//! `doctor`: what to look at beyond what every night needs.
//!
//! The walk over the media store takes as long as the store is large, hence only when it is asked for.

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct Doctor {
    /// Walk the whole media store: count files without a row, and find rows without a file.
    #[arg(long)]
    pub(in crate::cli) media: bool,
}
