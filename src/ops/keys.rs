//! `keys list`: which keys this call has, and what is known of those that the repository is sealed to.
//!
//! Recipients come from the settings and stand nowhere in the bucket. An age header tells how many there are, not who; whether
//! a key opens an object is found out by trying it. So what is counted here shows whether `rekey` is due, as far as can be seen.

use std::collections::BTreeMap;

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::{Limits, Run};
use crate::format::keys;
use crate::format::snapshot::{Problem, ProblemKind};
use crate::repo::catalog::each_listed;
use crate::repo::keyring::Keyring;
use crate::repo::{self, Repository, snapshots};

/// What it is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Look at the header of every pack too: a request for each.
    pub packs: bool,
    /// Bounds.
    pub limits: Limits,
}

/// All keys by their public halves, and what is sealed to how many.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// To whom everything is sealed from now on: the settings.
    pub recipients: Vec<String>,
    /// The writer key's public half.
    pub writer: Option<String>,
    /// Who signs snapshots from now on.
    pub signer: Option<String>,
    /// Whose signatures count besides.
    pub signers: Vec<String>,
    /// The public halves of the identities of this call.
    pub identities: Vec<String>,
    /// Objects of the repository, by kind.
    pub sealed: Vec<Sealed>,
    /// Who has signed the snapshots.
    pub signed: Vec<Signed>,
    /// Objects whose header cannot be read, and snapshots that do not open (exit code 3).
    pub problems: Vec<Problem>,
}

/// The objects of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// `snapshots`, `index` or `packs`.
    pub kind: &'static str,
    /// How many there are.
    pub objects: u64,
    /// How many are sealed to so many recipients.
    pub by_recipients: BTreeMap<usize, u64>,
    /// How many each key at hand opens, by its public half.
    pub opened_by: BTreeMap<String, u64>,
    /// How many no key at hand opens.
    pub unopened: u64,
}

/// Snapshots of one signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// Who; `None`: nobody, for this repository.
    pub signer: Option<String>,
    /// How many.
    pub snapshots: u64,
    /// It is the writer key here, or one of the signers that were pinned.
    pub known: bool,
}

/// The keys at hand alone.
pub fn at_hand(keyring: &Keyring) -> Report {
    Report {
        recipients: keyring.recipients.iter().map(ToString::to_string).collect(),
        writer: keyring.writer.as_ref().map(|writer| writer.recipient().to_string()),
        signer: keyring.writer.as_ref().map(|writer| writer.signer().to_string()),
        signers: keyring.signers.iter().map(ToString::to_string).collect(),
        identities: keyring.identities.iter().map(|identity| identity.recipient().to_string()).collect(),
        ..Report::default()
    }
}

/// The same, and what they open.
pub async fn list(repository: &Repository, options: Options, run: &Run<'_>) -> anyhow::Result<Report> {
    let mut report = at_hand(repository.keyring());
    if !repository.info().sealed {
        return Ok(report);
    }
    let prefixes = [("snapshots", keys::SNAPSHOTS), ("index", keys::INDEX), ("packs", keys::PACKS)];
    for (kind, prefix) in prefixes.into_iter().filter(|(kind, _)| *kind != "packs" || options.packs) {
        let looking = look(repository, kind, prefix, options.limits.connections, &mut report.problems);
        let sealed = run.until_cancelled(looking).await;
        report.sealed.push(sealed.with_context(|| format!("look at `{prefix}`"))?);
    }
    let opens = report.sealed.iter().any(|sealed| sealed.unopened < sealed.objects);
    if opens {
        run.until_cancelled(signed(repository, &mut report))
            .await
            .context("load the snapshots")?;
    }
    Ok(report)
}

/// The headers of all objects below a prefix.
async fn look(
    repository: &Repository,
    kind: &'static str,
    prefix: &str,
    at_once: usize,
    problems: &mut Vec<Problem>,
) -> repo::Result<Sealed> {
    let mut found = Vec::new();
    let is_ours = |key: &str| keys::parse_pack(key).is_some() || keys::parse_segment(key).is_some() || keys::parse_snapshot(key).is_some();
    each_listed(repository, prefix, |object| {
        if is_ours(&object.key) {
            found.push(object.key);
        }
    })
    .await?;
    let openers = repository.keyring().openers();
    let mut sealed = Sealed { kind, ..Sealed::default() };
    let mut headers = stream::iter(found)
        .map(|key| async move {
            match repository.seal_of(&key).await {
                Err(error @ repo::Error::Damaged { .. }) => Ok(Err((key, error))),
                // It was deleted meanwhile.
                Err(repo::Error::Store(crate::store::Error::NotFound { .. })) => Ok(Ok(None)),
                ended => ended.map(Ok),
            }
        })
        .buffer_unordered(at_once.max(1));
    while let Some(header) = headers.try_next().await? {
        match header {
            Ok(None) => {}
            Ok(Some(header)) => {
                sealed.objects += 1;
                *sealed.by_recipients.entry(header.recipients).or_default() += 1;
                sealed.unopened += u64::from(header.opened_by.is_empty());
                for at in header.opened_by {
                    *sealed.opened_by.entry(openers[at].recipient().to_string()).or_default() += 1;
                }
            }
            Err((item, error)) => problems.push(Problem {
                kind: ProblemKind::Damaged,
                item,
                message: format!("{:#}", anyhow::Error::from(error)),
            }),
        }
    }
    Ok(sealed)
}

/// Who has signed what counts.
async fn signed(repository: &Repository, report: &mut Report) -> repo::Result<()> {
    let (loaded, damaged) = snapshots::load_all(repository).await?;
    let mut signers: BTreeMap<_, u64> = BTreeMap::new();
    for one in snapshots::unique(repository, loaded) {
        *signers.entry(repository.signer_of(&one)).or_default() += 1;
    }
    report.signed = signers
        .into_iter()
        .map(|(signer, snapshots)| Signed {
            signer: signer.map(|signer| signer.to_string()),
            snapshots,
            known: signer.is_some_and(|signer| repository.keyring().knows(signer)),
        })
        .collect();
    report.problems.extend(damaged.into_iter().map(|(key, error)| Problem {
        kind: ProblemKind::Unreadable,
        item: key.key,
        message: format!("{:#}", anyhow::Error::from(error)),
    }));
    Ok(())
}
