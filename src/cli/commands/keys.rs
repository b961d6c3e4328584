//! `keys`: the settings' recipients listed, one more, one less.
//!
//! `add` and `remove` ask no store: what they change stands in the settings file alone. Where that cannot be written, the very
//! lines are told that a person has to write.

use std::fmt::Write as _;

use super::Session;
use crate::cli::args::{self, KeysAction};
use crate::cli::exit::{Outcome, RecipientsChanged};
use crate::cli::settings::{self, Change, RecipientWord};
use crate::cli::{environment::Environment, keyring};
use crate::format::seal::{RECIPIENTS_MAX, Recipient};
use crate::ops::{Error, keys};

/// The variable that stands for the list.
const VARIABLE: &str = "SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS";

pub(super) async fn keys(words: &args::KeysVerb, session: &Session<'_>) -> anyhow::Result<Outcome> {
    match &words.action {
        KeysAction::List { packs } => list(*packs, session).await,
        KeysAction::Add {
            recipient: RecipientWord(new),
        } => change(Change::Add(new.clone()), session),
        KeysAction::Remove {
            recipient: RecipientWord(old),
        } => change(Change::Remove(old.clone()), session),
    }
}

/// Without a repository there are the keys of the settings.
async fn list(packs: bool, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = keys::Options {
        packs,
        limits: session.given().limits()?,
    };
    if session.url().is_err() {
        return Ok(Outcome::Keys(keys::at_hand(&keyring::keyring(session.settings)?)));
    }
    let repository = session.open().await?;
    Ok(Outcome::Keys(keys::list(&repository, options, &session.run).await?))
}

fn change(change: Change, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let given = session.settings.encryption.recipients.iter().flatten();
    let mut recipients: Vec<Recipient> = given.map(|RecipientWord(one)| one.clone()).collect();
    apply(&change, &mut recipients)?;
    let file = settings::file(session.config, session.environment);
    refuse_variable(session.environment, &recipients)?;
    let cannot = |why: &str| Error::usage(format!("`{}` {why}", file.display()), by_hand(&recipients));
    let text = settings::read(&file).map_err(|error| cannot(&format!("cannot be read: {error}")))?;
    let edited = settings::edit(&text, &change).ok_or_else(|| cannot("is laid out in a way that is not changed by a program"))?;
    settings::replace(&file, &edited).map_err(|error| cannot(&format!("cannot be written: {error}")))?;
    Ok(Outcome::RecipientsChanged(RecipientsChanged {
        settings: file.display().to_string(),
        added: matches!(change, Change::Add(_)),
        recipient: match change {
            Change::Add(one) | Change::Remove(one) => one.to_string(),
        },
        recipients: recipients.iter().map(ToString::to_string).collect(),
    }))
}

fn apply(change: &Change, recipients: &mut Vec<Recipient>) -> Result<(), Error> {
    match change {
        Change::Add(new) if recipients.contains(new) => {
            return Err(Error::usage(
                format!("{new} is a recipient already"),
                "`synapse-backup keys list` shows all",
            ));
        }
        // One place is the writer key's.
        Change::Add(_) if recipients.len() + 1 >= RECIPIENTS_MAX => {
            let hint = "remove one that is no longer needed";
            return Err(Error::usage(
                format!("there are {} recipients, as many as fit", recipients.len()),
                hint,
            ));
        }
        Change::Add(new) => recipients.push(new.clone()),
        Change::Remove(old) if !recipients.contains(old) => {
            return Err(Error::usage(
                format!("{old} is not a recipient"),
                "`synapse-backup keys list` shows all",
            ));
        }
        Change::Remove(_) if recipients.len() == 1 => {
            let hint = "add another one first: without any recipient no backup can be sealed";
            return Err(Error::usage("it is the only recipient", hint));
        }
        Change::Remove(old) => recipients.retain(|one| one != old),
    }
    Ok(())
}

/// The environment wins over the file, so that a change there would do nothing.
fn refuse_variable(environment: &Environment, recipients: &[Recipient]) -> Result<(), Error> {
    if environment.get(VARIABLE).is_none() {
        return Ok(());
    }
    let list: Vec<String> = recipients.iter().map(ToString::to_string).collect();
    Err(Error::usage(
        format!("the recipients come from {VARIABLE}, which a program cannot change for its next run"),
        format!("set it where the environment is made, to\n{VARIABLE}={}", list.join(",")),
    ))
}

fn by_hand(recipients: &[Recipient]) -> String {
    let mut lines = String::new();
    for one in recipients {
        let _ = write!(lines, "\n    - {one}");
    }
    format!("write this into the settings, where they come from:\nencryption:\n  recipients:{lines}")
}
