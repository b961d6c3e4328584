//! `adopt`: one call of its verb.
//!
//! It needs a repository and no homeserver.

use super::Session;
use crate::cli::args;
use crate::cli::exit::Outcome;
use crate::ops::adopt;

pub(super) async fn adopt(words: &args::Adopt, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().adopt()?;
    let repository = session.open().await?;
    super::refuse_unless_sealable(&repository)?;
    let report = adopt::adopt(&repository, &words.snapshots, &options, &session.run).await?;
    Ok(Outcome::Adopted(report))
}
