//! `copy`: the one command with two repositories.
//!
//! The other one is reached by the settings of `--to-config`, or else by those of this call.

use super::{Outcome, Session};
use crate::cli::environment::Environment;
use crate::cli::{args, connect, settings};
use crate::ops;

pub(super) async fn copy(words: &args::Copy, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().copy(words)?;
    let theirs = match &words.to_config {
        // Variables of the environment speak of the source.
        Some(file) => Some(settings::load(Some(file), &Environment::default())?),
        None => None,
    };
    let theirs = theirs.as_ref().unwrap_or(session.settings);
    connect::check_object_lock_of_copy(&words.to, theirs)?;
    let source = session.open().await?;
    let destination = connect::open(&words.to, theirs, session.counters).await?;
    super::refuse_without_identity(&source)?;
    super::refuse_unless_sealable(&destination)?;
    let report = ops::copy::copy(&source, &destination, &options, &session.run).await?;
    Ok(Outcome::Copied {
        report,
        dry_run: words.dry_run,
    })
}
