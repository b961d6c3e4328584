//! `tag`: one call of its verb.
//!
//! It needs a repository and no homeserver.

use super::Session;
use crate::cli::args::{self, Change};
use crate::cli::exit::Outcome;
use crate::ops::tag;

pub(super) async fn tag(words: &args::Tag, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let mut options = tag::Options::default();
    for change in &words.changes {
        match change {
            Change::On(tag) => options.add.insert(tag.clone()),
            Change::Off(tag) => options.remove.insert(tag.clone()),
        };
    }
    tag::check(&options)?;
    let repository = session.open().await?;
    let report = tag::tag(&repository, &words.snapshot, &options, &session.run).await?;
    Ok(Outcome::Tagged(report))
}
