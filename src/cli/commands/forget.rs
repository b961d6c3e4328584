//! `forget`: one call of its verb.
//!
//! It needs a repository and no homeserver.

use super::Session;
use crate::cli::args;
use crate::cli::exit::Outcome;
use crate::ops::forget;

pub(super) async fn forget(words: &args::Forget, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = forget::Options {
        dry_run: words.dry_run,
        yes_really: words.yes_really,
    };
    let repository = session.open().await?;
    let report = forget::forget(&repository, &words.snapshots, options, &session.run).await?;
    Ok(Outcome::Forgot(report))
}
