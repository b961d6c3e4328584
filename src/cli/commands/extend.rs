//! `extend`: hold longer what the listed snapshots need.
//!
//! A folder has no Object Lock, so that a wrong URL is refused before anything is opened.

use super::Session;
use crate::cli::connect;
use crate::cli::exit::Outcome;
use crate::ops;

pub(super) async fn extend(session: &Session<'_>) -> anyhow::Result<Outcome> {
    let limits = session.given().limits()?;
    connect::check_object_lock(session.url()?, session.settings)?;
    let repository = session.open().await?;
    let report = ops::extend::extend(&repository, limits, &session.run).await?;
    Ok(Outcome::Extended(report))
}
