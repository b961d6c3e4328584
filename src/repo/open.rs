//! Making and opening a repository: `repository.json`, its version and feature gate, and where ids come from.
//!
//! This is the one object with a fixed name, written once; everything else has a fresh random key (G1).

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::keyring::Keyring;
use super::sealed::Sealed;
use super::{Error, Ids, Repository, Result, again};
use crate::format::repository::RepositoryInfo;
use crate::format::{REPOSITORY_BYTES_MAX, keys};
use crate::store::{self, ByteRange, Store};

/// Make a new repository that is not sealed: fails with [`Error::AlreadyThere`] where one is.
pub async fn init(store: Arc<dyn Store>, ids: Ids) -> Result<Repository> {
    init_with(store, ids, Keyring::default()).await
}

/// The same, sealed to the recipients of the keyring where it has any.
pub async fn init_with(store: Arc<dyn Store>, ids: Ids, keyring: Keyring) -> Result<Repository> {
    match store.head(keys::REPOSITORY).await {
        Ok(_) => {
            return Err(Error::AlreadyThere {
                url: store.url().to_owned(),
            });
        }
        Err(store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let created = store.list_page(keys::SNAPSHOTS, None).await?.date;
    let plain = RepositoryInfo::new(ids.object(), created);
    let info = if keyring.recipients.is_empty() { plain } else { plain.sealed() };
    let body = Bytes::from(info.to_json().map_err(|source| Error::Encode { source })?);
    put_repository(&*store, body).await?;
    // The store is read back: two `init` at once may both have written, and the last one is what counts.
    open_with(store, ids, keyring).await
}

/// The only key that is not random: an unknown outcome is settled by writing the same bytes again.
async fn put_repository(store: &dyn Store, body: Bytes) -> Result<()> {
    again::put(store, || keys::REPOSITORY.to_owned(), &body).await?;
    Ok(())
}

/// Open an existing repository without any key: [`Error::NoRepository`] when there is none, a format error when it is too new.
pub async fn open(store: Arc<dyn Store>, ids: Ids) -> Result<Repository> {
    open_with(store, ids, Keyring::default()).await
}

/// The same with keys. Whoever has keys for sealing is not led to a repository that is not sealed: who can write into the
/// bucket could have replaced `repository.json`, and the next backup would lie there for all to read.
pub async fn open_with(store: Arc<dyn Store>, ids: Ids, keyring: Keyring) -> Result<Repository> {
    let got = match store.get(keys::REPOSITORY, ByteRange::AtMost(REPOSITORY_BYTES_MAX as u64)).await {
        Ok(got) => got,
        Err(store::Error::NotFound { .. }) => {
            return Err(Error::NoRepository {
                url: store.url().to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let info = RepositoryInfo::from_json(&got.bytes).map_err(|source| Error::damaged(keys::REPOSITORY, source))?;
    if !info.sealed && !keyring.is_empty() {
        return Err(Error::Sealing {
            message: format!("there are keys for sealing, and the repository at {} is not sealed", store.url()),
            hint: "if it was sealed once, somebody has replaced its repository.json; else take `encryption.recipients` and `--identity` away, or `init` another one",
        });
    }
    // A writer key of another repository neither signs here nor asks for signatures.
    let writer = keyring.writer.filter(|_| info.sealed);
    let keyring = Keyring { writer, ..keyring };
    let sealed = info.sealed.then(|| Arc::new(Sealed::new(Arc::clone(&store), &keyring)));
    let store: Arc<dyn Store> = sealed.clone().map_or(store, |sealed| sealed as _);
    Ok(Repository {
        store,
        info: Arc::new(info),
        ids,
        keyring: Arc::new(keyring),
        sealed,
    })
}

impl Ids {
    /// Ids from the operating system's randomness.
    ///
    /// # Panics
    /// An id, when the operating system gives no random bytes: without them nothing may be written.
    pub fn random() -> Self {
        Self::new(|| {
            let mut bytes = [0; 16];
            // Without randomness nothing here is safe: an id that repeats would overwrite a pack.
            #[expect(
                clippy::expect_used,
                reason = "the operating system always has randomness; without it nothing may be written"
            )]
            getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
            bytes
        })
    }
}

impl Repository {
    /// The store's clock now (a request).
    pub async fn date(&self) -> Result<Timestamp> {
        Ok(self.store.head(keys::REPOSITORY).await?.date)
    }
}
