//! The words of `tag`: `+x` puts a tag on, `-y` takes one off.
//!
//! A tag that begins with `--` could not be told from a flag, so that none can be changed here.

use clap::Args as ClapArgs;

use crate::cli::settings::TagWord;

pub(in crate::cli) const HELP: &str = "\
Other flags stand before the changes, as in `tag --json latest +x`.

Examples:
  synapse-backup tag latest +before-upgrade
  synapse-backup tag 3f9a +forever -nightly";

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Tag {
    /// Id prefix, `latest` or `latest:SERVER_NAME`.
    pub(in crate::cli) snapshot: String,
    /// `+TAG` puts it on, `-TAG` takes it off; several may be given.
    #[arg(required = true, value_name = "+TAG|-TAG", allow_hyphen_values = true, value_parser = change)]
    pub(in crate::cli) changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Change {
    /// `+x`
    On(String),
    /// `-x`
    Off(String),
}

fn change(text: &str) -> Result<Change, String> {
    let tag = |text: &str| text.parse().map(|TagWord(tag)| tag);
    match text.split_at_checked(1) {
        Some(("+", name)) => tag(name).map(Change::On),
        Some(("-", name)) if name.starts_with('-') => Err("flags stand before the changes".into()),
        Some(("-", name)) => tag(name).map(Change::Off),
        _ => Err("write +TAG to put a tag on, or -TAG to take it off".into()),
    }
}
