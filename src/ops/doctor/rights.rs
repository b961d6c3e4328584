//! Which rights the credentials have, found out with small objects of our own under `probe/`.
//!
//! Nothing else is touched. What cannot be deleted stays there, a few bytes; prune removes it in time. A right that the store
//! does not grant is an answer and no failure: the best credentials for a backup are those that may not delete.

use std::fmt;

use anyhow::Context;
use bytes::Bytes;
use jiff::Timestamp;

use crate::format::keys;
use crate::repo::Repository;
use crate::store::{ByteRange, Error, Store};

/// Whether something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// It was done.
    Yes,
    /// The store knows us, and says no.
    No,
    /// The store cannot do it, or it failed for another reason.
    Unknown,
}

impl May {
    pub(super) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Yes,
            Err(Error::Denied { .. }) => Self::No,
            Err(_) => Self::Unknown,
        }
    }
}

/// What the credentials allow beside writing, reading and listing, which every backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    /// Write under a key that has an object.
    pub(super) overwrite: May,
    /// Delete an object by its name (in a bucket with versions: hide it).
    pub(super) delete: May,
    /// See old versions: what `--at` needs.
    pub(super) list_versions: May,
    /// Delete a version for good.
    pub(super) delete_versions: May,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights = [
            ("overwrite", self.overwrite),
            ("delete", self.delete),
            ("list versions", self.list_versions),
            ("delete versions", self.delete_versions),
        ];
        let named = |wanted: May| {
            let named: Vec<&str> = rights.iter().filter(|(_, may)| *may == wanted).map(|(name, _)| *name).collect();
            named.join(", ")
        };
        let granted = named(May::Yes);
        let comma = if granted.is_empty() { "" } else { ", " };
        write!(f, "list, get, put{comma}{granted}")?;
        let refused = named(May::No);
        if refused.is_empty() {
            Ok(())
        } else {
            write!(f, "; not: {refused}")
        }
    }
}

/// Write, read back, list; then try whatever a backup should not need. Gives the store's time, too.
pub(super) async fn probe(repository: &Repository) -> anyhow::Result<(Rights, Timestamp)> {
    let store = &**repository.store();
    let id = repository.ids().object();
    let key = keys::probe(id);
    let body = Bytes::from(format!("synapse-backup doctor {id}"));
    let date = store.put(&key, body.clone()).await.context("write")?.date;
    let got = store.get(&key, ByteRange::All).await.context("read back")?;
    anyhow::ensure!(got.bytes == body, "what was read back is not what was written");
    let page = store.list_page(&key, None).await.context("list")?;
    anyhow::ensure!(
        page.objects.iter().any(|object| object.key == key),
        "what was written does not appear in the listing"
    );
    Ok((rights(store, &key).await, date))
}

async fn rights(store: &dyn Store, key: &str) -> Rights {
    let overwrite = May::of(&store.put(key, Bytes::from_static(b"overwritten by synapse-backup doctor")).await);
    let mut rights = Rights {
        overwrite,
        delete: May::Unknown,
        list_versions: May::Unknown,
        delete_versions: May::Unknown,
    };
    if let Some(versions) = store.versions() {
        let listed = versions.list_versions(key, None).await;
        rights.list_versions = May::of(&listed);
        // A name that no version has is refused as any other is: what may not be seen can still be tried.
        let mut ids = listed.map_or_else(|_| Vec::new(), |page| page.versions);
        ids.retain(|version| version.key == key && version.bytes.is_some());
        // The older one: in a bucket without versions there is but one, and `null` is its name.
        let older = ids.get(1).map_or(NO_VERSION, |version| version.id.as_str());
        rights.delete_versions = May::of(&versions.delete_version(key, older).await);
    }
    rights.delete = May::of(&store.delete(key).await);
    rights
}

/// What the first of all versions is called where none were kept. It is refused, or nobody's.
const NO_VERSION: &str = "null";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_told_by_what_is_granted_and_what_is_not() {
        let writer = Rights {
            overwrite: May::Yes,
            delete: May::No,
            list_versions: May::No,
            delete_versions: May::No,
        };
        assert_eq!(
            writer.to_string(),
            "list, get, put, overwrite; not: delete, list versions, delete versions"
        );
        let folder = Rights {
            delete: May::Yes,
            list_versions: May::Unknown,
            delete_versions: May::Unknown,
            ..writer
        };
        assert_eq!(folder.to_string(), "list, get, put, overwrite, delete");
    }
}
