//! `rekey`: seal anew what is there; where the writer key is lost, with a new one.
//!
//! A new key is made only when everything else is known to fit, and never in the place of one that exists.

use super::Session;
use crate::cli::exit::Outcome;
use crate::cli::{args, connect};
use crate::ops;

pub(super) async fn rekey(words: &args::Rekey, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().rekey(words)?;
    connect::check_object_lock(session.url()?, session.settings)?;
    let repository = session.open().await?;
    let repository = if words.new_writer_key {
        connect::check_new_writer_key(&repository, session.settings).await?;
        if words.dry_run || !repository.info().sealed {
            repository
        } else {
            connect::open_with_new_writer_key(session.url()?, session.settings, session.counters).await?
        }
    } else {
        super::refuse_unless_sealable(&repository)?;
        repository
    };
    let report = ops::rekey::rekey(&repository, &options, &session.run).await?;
    Ok(Outcome::Rekeyed(Box::new(report)))
}
