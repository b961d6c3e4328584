//! Several signers, and none of them pinned: whoever reads must be told, since one of them may be a stranger.
//!
//! With a pinned signer, or the writer key itself, strangers are refused and there is nothing to warn of.

use std::collections::BTreeSet;

use crate::format::writer_key::Signer;
use crate::repo::snapshots::Loaded;
use crate::repo::{self, Repository, snapshots};

/// The signers of the snapshots that count, where there are several and none is pinned.
pub(super) fn unpinned<'a>(repository: &Repository, loaded: impl IntoIterator<Item = &'a Loaded>) -> BTreeSet<Signer> {
    if repository.keyring().pins() {
        return BTreeSet::new();
    }
    let listed = loaded.into_iter().filter(|one| !one.late);
    let mut signers: BTreeSet<Signer> = listed.filter_map(|one| repository.signer_of(one)).collect();
    if signers.len() < 2 {
        signers.clear();
    }
    signers
}

/// Say so, if it is so.
pub(super) fn warn<'a>(repository: &Repository, loaded: impl IntoIterator<Item = &'a Loaded>) {
    let signers: Vec<String> = unpinned(repository, loaded).iter().map(ToString::to_string).collect();
    if !signers.is_empty() {
        tracing::warn!(
            "the snapshots are signed by {} signers, and none is pinned: name yours by --signer or `encryption.signers` ({})",
            signers.len(),
            signers.join(", ")
        );
    }
}

/// The same for who has read one snapshot only.
pub(super) async fn warn_of_others(repository: &Repository) -> repo::Result<()> {
    if repository.info().sealed && !repository.keyring().pins() {
        warn(repository, &snapshots::load_all(repository).await?.0);
    }
    Ok(())
}
