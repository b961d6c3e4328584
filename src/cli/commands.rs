//! One function for each command: open what it needs, call its verb once, hand over what came of it.
//!
//! What can be refused without asking anybody (flags, settings) is refused first; then the repository is opened, so
//! that a wrong URL is told before a homeserver is looked at for minutes. Nothing is printed here but data as it comes.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap_complete::Shell;

use super::args::{self, Command, Past};
use super::connect;
use super::environment::Environment;
use super::exit::{Outcome, SealedTo};
use super::keyring;
use super::options::Given;
use super::settings::Settings;
use super::system;
use super::terminal;
use super::ui::{Screen, item_line, old_signing_keys, skeleton};
use crate::ops::{self, Run};
use crate::repo::Repository;
use crate::store::counters::Counters;

mod adopt;
mod copy;
mod drill;
mod extend;
mod forget;
mod keys;
pub(super) mod losses;
mod prune;
mod rekey;
mod stats;
mod tag;

/// What every command works with.
pub(super) struct Session<'a> {
    /// `--repository`.
    pub(super) repository: Option<&'a str>,
    /// `-c`.
    pub(super) config: Option<&'a Path>,
    pub(super) settings: &'a Settings,
    pub(super) environment: &'a Environment,
    pub(super) screen: &'a Screen,
    pub(super) counters: &'a Arc<Counters>,
    pub(super) run: Run<'a>,
}

/// The one match.
pub(super) async fn dispatch(command: &Command, session: &Session<'_>) -> anyhow::Result<Outcome> {
    match command {
        Command::Init(words) => init(words, session).await,
        Command::Backup(words) => backup(words, session).await,
        Command::Snapshots(past) => snapshots(*past, session).await,
        Command::Show(words) => show(words, session).await,
        Command::Ls(words) => ls(words, session).await,
        Command::Cat(words) => cat(words, session).await,
        Command::Restore(words) => restore(words, session).await,
        Command::Verify(words) => verify(words, session).await,
        Command::Prune(words) => prune::prune(words, session).await,
        Command::Drill(words) => drill::drill(words, session).await,
        Command::Copy(words) => copy::copy(words, session).await,
        Command::Forget(words) => forget::forget(words, session).await,
        Command::Tag(words) => tag::tag(words, session).await,
        Command::Stats => stats::stats(session).await,
        Command::Adopt(words) => adopt::adopt(words, session).await,
        Command::Keys(words) => keys::keys(words, session).await,
        Command::Rekey(words) => rekey::rekey(words, session).await,
        Command::Doctor(words) => doctor(words, session).await,
        Command::Extend => extend::extend(session).await,
        Command::Completions(words) => completions(words.shell, session.screen),
        Command::Man => man(session.screen),
    }
}

impl Session<'_> {
    fn given(&self) -> Given<'_> {
        Given {
            settings: self.settings,
            environment: self.environment,
        }
    }

    fn url(&self) -> Result<&str, ops::Error> {
        connect::repository_url(self.repository, self.settings)
    }

    async fn open(&self) -> anyhow::Result<Repository> {
        connect::open(self.url()?, self.settings, self.counters).await
    }

    /// As it is, or as it was.
    async fn open_past(&self, past: Past) -> anyhow::Result<Repository> {
        match past.at {
            None => self.open().await,
            Some(time) => connect::open_at(self.url()?, time, self.settings, self.counters).await,
        }
    }
}

async fn init(words: &args::Init, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let is_sealed = session.settings.encryption.recipients.as_ref().is_some_and(|list| !list.is_empty());
    match (is_sealed, words.unencrypted) {
        (true, true) => {
            return Err(ops::Error::usage("--unencrypted, and `encryption.recipients` are set", "leave one of them out").into());
        }
        (false, false) if !session.screen.for_program() && said_yes()? => {}
        (false, false) => {
            return Err(ops::Error::usage(
                "it is not said whether the repository is sealed",
                "passwords, signing keys and private messages go into it: set `encryption.recipients` (docs/settings.md), or say --unencrypted",
            )
            .into());
        }
        _ => {}
    }
    let repository = connect::create(session.url()?, session.settings, session.counters).await?;
    let keyring = repository.keyring();
    let sealed = keyring.writer.as_ref().filter(|_| repository.info().sealed).map(|writer| SealedTo {
        recipients: keyring.recipients.len() as u64,
        writer_key_file: keyring::writer_key_file(session.settings),
        signer: writer.signer().to_string(),
    });
    Ok(Outcome::Created {
        url: repository.url().to_owned(),
        sealed,
    })
}

/// Asks whoever sits there whether all shall lie open; nobody there is no yes.
fn said_yes() -> Result<bool, ops::Error> {
    let question = "`encryption.recipients` is not set. Whoever reads the bucket could then read passwords, signing keys and\r\n\
                    private messages. Make a repository that is not sealed? (yes/no) ";
    let answer = terminal::ask(question)?;
    Ok(answer.is_some_and(|answer| answer.trim().eq_ignore_ascii_case("yes")))
}

async fn backup(words: &args::Backup, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().backup(words)?;
    connect::check_object_lock(session.url()?, session.settings)?;
    let homeserver = connect::homeserver(session.settings, session.environment).await?;
    let repository = session.open().await?;
    refuse_unless_sealable(&repository)?;
    let report = ops::backup::backup(&repository, &homeserver, &options, &session.run).await?;
    Ok(Outcome::BackedUp(report))
}

/// What is written into a sealed repository must be sealed, to somebody.
fn refuse_unless_sealable(repository: &Repository) -> anyhow::Result<()> {
    let keyring = repository.keyring();
    if !repository.info().sealed {
        return Ok(());
    }
    if keyring.recipients.is_empty() {
        return Err(ops::Error::usage(
            "the repository is sealed, and `encryption.recipients` is not set",
            "recipients come from the settings only: whoever can write into the bucket could add himself there",
        )
        .into());
    }
    if keyring.writer.is_none() {
        let error = crate::repo::Error::NoKey {
            what: "the lists of earlier backups".into(),
            needs: crate::repo::keyring::Needs::WriterKey,
        };
        return Err(error.into());
    }
    Ok(())
}

/// Content of a sealed repository is only for who has an identity; said before anything is written.
fn refuse_without_identity(repository: &Repository) -> anyhow::Result<()> {
    if repository.info().sealed && repository.keyring().identities.is_empty() {
        let error = crate::repo::Error::NoKey {
            what: "the content".into(),
            needs: crate::repo::keyring::Needs::Identity,
        };
        return Err(error.into());
    }
    Ok(())
}

async fn snapshots(past: Past, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let repository = session.open_past(past).await?;
    let report = ops::inspect::snapshots(&repository, &session.run).await?;
    Ok(Outcome::Snapshots(report))
}

async fn show(words: &args::Show, session: &Session<'_>) -> anyhow::Result<Outcome> {
    if words.losses {
        return losses::losses(words, session).await;
    }
    let repository = session.open_past(words.past).await?;
    let report = ops::inspect::show(
        &repository,
        &words.snapshot,
        words.problems,
        session.given().limits()?,
        &session.run,
    )
    .await?;
    if words.old_signing_keys && !session.screen.for_program() {
        let block = old_signing_keys(&report.snapshot, system::now());
        session.screen.data(&block)?;
        return Ok(Outcome::Printed);
    }
    Ok(Outcome::Shown(Box::new(report)))
}

async fn ls(words: &args::Ls, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let repository = session.open_past(words.past).await?;
    let screen = session.screen;
    let mut line = |item: ops::inspect::ItemLine| {
        let text = if screen.for_program() {
            let item = serde_json::json!({ "type": "item", "name": item.name, "bytes": item.bytes, "sha256": item.sha256 });
            format!("{item}\n")
        } else {
            item_line(&item)
        };
        screen.data(&text)
    };
    ops::inspect::ls(
        &repository,
        &words.snapshot,
        &words.prefix,
        session.given().limits()?,
        &session.run,
        &mut line,
    )
    .await?;
    Ok(Outcome::Printed)
}

async fn cat(words: &args::Cat, session: &Session<'_>) -> anyhow::Result<Outcome> {
    use tokio::io::AsyncWriteExt as _;

    let repository = session.open_past(words.past).await?;
    refuse_without_identity(&repository)?;
    let mut out = session.screen.bytes_out().context("open standard output")?;
    ops::inspect::cat(
        &repository,
        &words.snapshot,
        &words.item,
        session.given().limits()?,
        &session.run,
        &mut out,
    )
    .await?;
    out.flush().await.context("write to standard output")?;
    Ok(Outcome::Printed)
}

async fn restore(words: &args::Restore, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().restore(words)?;
    let repository = session.open_past(words.past).await?;
    if !words.dry_run {
        refuse_without_identity(&repository)?;
    }
    let mut report = ops::restore::restore(&repository, &words.snapshot, &options, &session.run).await?;
    if words.to.is_none() && session.settings.synapse.config.is_none() && !report.synapse_config.is_empty() {
        // Lost with the old machine, and no snapshot has it.
        let step = skeleton(session.url()?, repository.info().sealed, session.settings, &report);
        report.next_steps.push(step);
    }
    Ok(Outcome::Restored {
        report,
        dry_run: words.dry_run,
    })
}

async fn verify(words: &args::Verify, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().verify(words)?;
    let repository = session.open_past(words.past).await?;
    if words.read_data.is_some() {
        refuse_without_identity(&repository)?;
    }
    let report = ops::verify::verify(&repository, &options, &session.run).await?;
    Ok(Outcome::Verified(report))
}

async fn doctor(words: &args::Doctor, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let options = session.given().doctor()?;
    session.url()?;
    let homeserver = connect::homeserver(session.settings, session.environment).await;
    let repository = session.open().await;
    let walked = match &homeserver {
        Ok(homeserver) if words.media => {
            let options = session.given().media_walk()?;
            Some(ops::doctor::walk_media(homeserver, &options, &session.run).await)
        }
        _ => None,
    };
    let mut report = ops::doctor::doctor(repository, homeserver, &options, &session.run).await?;
    if let Some(walked) = walked {
        report.add_walk(walked);
    }
    Ok(Outcome::Examined(report))
}

fn completions(shell: Shell, screen: &Screen) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::grammar(), "synapse-backup", &mut script);
    screen.data(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Printed)
}

fn man(screen: &Screen) -> anyhow::Result<Outcome> {
    let mut page = Vec::new();
    clap_mangen::Man::new(args::grammar()).render(&mut page)?;
    screen.data(&String::from_utf8_lossy(&page))?;
    Ok(Outcome::Printed)
}
