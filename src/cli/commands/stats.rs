//! `stats`: one call of its verb.
//!
//! It needs a repository and no homeserver.

use super::Session;
use crate::cli::exit::Outcome;
use crate::ops::stats;

pub(super) async fn stats(session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().stats()?;
    let repository = session.open().await?;
    let report = stats::stats(&repository, &options, &session.run).await?;
    Ok(Outcome::Counted(Box::new(report)))
}
