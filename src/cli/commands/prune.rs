//! `prune`: take away what no snapshot needs.
//!
//! With `--dry-run` the plan is printed and nothing is touched.

use super::Session;
use crate::cli::exit::Outcome;
use crate::cli::{args, connect};
use crate::ops;

pub(super) async fn prune(words: &args::Prune, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().prune(words)?;
    connect::check_object_lock(session.url()?, session.settings)?;
    let repository = session.open().await?;
    super::refuse_unless_sealable(&repository)?;
    let report = ops::prune::prune(&repository, &options, &session.run).await?;
    Ok(Outcome::Pruned(Box::new(report)))
}
