//! From settings to things that live: the store, the repository in it, the homeserver.
//!
//! The only place where `cli` names the constructors of the floors below.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;

use super::environment::Environment;
use super::keyring;
use super::options::connections;
use super::settings::{AbsolutePath, Days, LockWord, Settings};
use crate::ops::Error;
use crate::repo::{self, Ids, Repository};
use crate::store::counters::Counters;
use crate::store::s3::{self, S3Options};
use crate::store::url::RepositoryUrl;
use crate::store::versions::ObjectLock;
use crate::store::wrappers::{At, Limit};
use crate::store::{Store, local};
use crate::synapse::Homeserver;
use crate::synapse::config::{self, discover};

/// The URL that was given, by flag or settings.
pub(super) fn repository_url<'a>(flag: Option<&'a str>, settings: &'a Settings) -> Result<&'a str, Error> {
    flag.or(settings.repository.as_deref()).ok_or_else(|| {
        Error::usage(
            "it is not known where the repository is",
            "give --repository s3://BUCKET/PREFIX, or set `repository` in the settings file (/etc/synapse-backup/config.yaml, or -c FILE)",
        )
    })
}

/// The bucket or folder. Only `init` makes a folder that is missing; a bucket is never made.
async fn store(url: &str, create: bool, settings: &Settings, counters: &Arc<Counters>) -> anyhow::Result<Arc<dyn Store>> {
    let counters = Arc::clone(counters);
    let store = match url.parse()? {
        RepositoryUrl::File(path) => local::open(&path, create, counters).await?,
        RepositoryUrl::S3 { bucket, prefix } => s3::open(s3_options(bucket, prefix, settings)?, counters).await?,
    };
    Ok(Arc::new(Limit::new(store, connections(settings))))
}

fn s3_options(bucket: String, prefix: String, settings: &Settings) -> anyhow::Result<S3Options> {
    let s3 = &settings.s3;
    let provider = s3.provider.as_deref().map(str::parse).transpose();
    Ok(S3Options {
        bucket,
        prefix,
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        profile: s3.profile.clone(),
        path_style: s3.path_style,
        ca_file: s3.ca_file.clone().map(|AbsolutePath(path)| path),
        storage_class: s3.storage_class.clone(),
        provider: provider.context("setting `s3.provider`")?,
        object_lock: object_lock(settings)?,
        ..S3Options::default()
    })
}

/// Both keys or neither.
fn object_lock(settings: &Settings) -> Result<Option<ObjectLock>, Error> {
    match (settings.object_lock.mode, settings.object_lock.days) {
        (Some(LockWord(mode)), Some(Days(days))) => Ok(Some(ObjectLock { mode, days })),
        (None, None) => Ok(None),
        _ => Err(Error::usage(
            "`object_lock` needs both `mode` and `days`",
            "write for example `object_lock: { mode: governance, days: 30 }`",
        )),
    }
}

/// What is written is to be held: a folder cannot do that, and must not seem to.
pub(super) fn check_object_lock(url: &str, settings: &Settings) -> Result<(), Error> {
    refuse_lock_of_folder(url, settings, "take `object_lock` out of the settings, or back up into a bucket")
}

/// The same of where copies go. The settings may be those of the bucket that they come from.
pub(super) fn check_object_lock_of_copy(url: &str, settings: &Settings) -> Result<(), Error> {
    refuse_lock_of_folder(
        url,
        settings,
        "name settings without `object_lock` for the folder: --to-config FILE",
    )
}

fn refuse_lock_of_folder(url: &str, settings: &Settings, hint: &str) -> Result<(), Error> {
    let lock = object_lock(settings)?;
    if lock.is_some() && matches!(url.parse(), Ok(RepositoryUrl::File(_))) {
        return Err(Error::usage(
            format!("`object_lock` is set, and {url} is a folder, which has none"),
            hint,
        ));
    }
    Ok(())
}

/// Make a repository.
pub(super) async fn create(url: &str, settings: &Settings, counters: &Arc<Counters>) -> anyhow::Result<Repository> {
    check_object_lock(url, settings)?;
    // A URL that is none is told before a key is made for it.
    url.parse::<RepositoryUrl>()?;
    let mut keyring = keyring::keyring(settings)?;
    if !keyring.recipients.is_empty() {
        keyring.writer = Some(keyring::make_writer_key(settings)?);
    }
    let store = store(url, true, settings, counters).await?;
    repo::open::init_with(store, Ids::random(), keyring)
        .await
        .with_context(|| format!("create a repository at {url}"))
}

/// Open one.
pub(super) async fn open(url: &str, settings: &Settings, counters: &Arc<Counters>) -> anyhow::Result<Repository> {
    let keyring = keyring::keyring(settings)?;
    let store = store(url, false, settings, counters).await?;
    repo::open::open_with(store, Ids::random(), keyring)
        .await
        .with_context(|| format!("open the repository at {url}"))
}

/// Can a new writer key be made: is there none, and does an identity open what is there?
pub(super) async fn check_new_writer_key(repository: &Repository, settings: &Settings) -> anyhow::Result<()> {
    let keyring = repository.keyring();
    let file = keyring::writer_key_file(settings);
    if file.exists() {
        let hint = "`rekey` without --new-writer-key seals to it; if it was stolen, move it out of the way first";
        return Err(Error::usage(format!("there is a writer key already: `{}`", file.display()), hint).into());
    }
    if !repository.info().sealed {
        return Ok(());
    }
    if keyring.recipients.is_empty() {
        let hint = "set them in the settings: they are not in the bucket";
        return Err(Error::usage("`encryption.recipients` is not set", hint).into());
    }
    if keyring.identities.is_empty() {
        let what = "what the lost writer key opened".into();
        let needs = repo::keyring::Needs::Identity;
        return Err(repo::Error::NoKey { what, needs }.into());
    }
    // Nothing that opens at all: that is an error of its own.
    repo::snapshots::load_all(repository).await?;
    Ok(())
}

/// Make the key that [`check_new_writer_key`] allowed, and open the repository with it.
pub(super) async fn open_with_new_writer_key(url: &str, settings: &Settings, counters: &Arc<Counters>) -> anyhow::Result<Repository> {
    keyring::make_writer_key(settings)?;
    open(url, settings, counters).await
}

/// Open one as it was at a time: read only.
pub(super) async fn open_at(url: &str, time: Timestamp, settings: &Settings, counters: &Arc<Counters>) -> anyhow::Result<Repository> {
    let keyring = keyring::keyring(settings)?;
    let store = store(url, false, settings, counters).await?;
    let past = At::new(store, time).ok_or_else(|| {
        Error::usage(
            format!("`--at`: {url} keeps no old versions"),
            "only a bucket with versioning can be read as it was; leave out `--at`",
        )
    })?;
    repo::open::open_with(Arc::new(past), Ids::random(), keyring)
        .await
        .with_context(|| format!("open the repository at {url} as it was at {time}"))
}

/// Read what Synapse reads. It reads files, so it runs where it may block.
pub(super) async fn homeserver(settings: &Settings, environment: &Environment) -> anyhow::Result<Homeserver> {
    let synapse = &settings.synapse;
    let options = config::Options {
        config: paths(synapse.config.as_deref()),
        working_directory: synapse.working_directory.clone().map(|AbsolutePath(path)| path),
        path_map: synapse.path_map(),
        files: paths(settings.files.as_deref()),
        home: environment.path("HOME"),
        allow_sqlite: false,
    };
    Ok(tokio::task::spawn_blocking(move || discover(&options)).await??)
}

fn paths(given: Option<&[AbsolutePath]>) -> Vec<PathBuf> {
    given.unwrap_or_default().iter().map(|AbsolutePath(path)| path.clone()).collect()
}
