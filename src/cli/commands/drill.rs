//! `drill`: one call of its verb.
//!
//! It needs a repository and PostgreSQL's programs, and no homeserver.

use super::Session;
use crate::cli::args;
use crate::cli::exit::Outcome;
use crate::ops;

pub(super) async fn drill(words: &args::Drill, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().drill(words)?;
    let repository = session.open().await?;
    super::refuse_without_identity(&repository)?;
    let report = ops::drill::drill(&repository, &options, &session.run).await?;
    Ok(Outcome::Drilled(report))
}
