//! Is the homeserver's identity back? The signing keys that were written are read again, where Synapse will read them.
//!
//! Their public halves stand in the snapshot, and other servers believe no others. Only public halves leave this file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Serialize;
use zeroize::Zeroizing;

use super::saved::Saved;
use super::{Options, plan};
use crate::format::snapshot::{ConfigRole, Snapshot};
use crate::synapse::keys::{self, KEY_FILE_BYTES_MAX};

/// A signing key of the snapshot, after the restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredKey {
    /// `ed25519:a_ABCD`.
    pub id: String,
    /// Unpadded base64.
    pub public_key: String,
    /// The file that has its private half, here; none where the configuration itself has it.
    pub path: Option<String>,
    /// It was read again, and its public half is this one.
    pub in_place: bool,
}

/// Look for each key of the snapshot where it was put.
pub(super) fn check(snapshot: &Snapshot, saved: Option<&Saved>, options: &Options) -> Vec<RestoredKey> {
    let files = snapshot
        .config
        .iter()
        .filter(|item| item.role == ConfigRole::SigningKey && item.sha256.is_some())
        .filter_map(|item| plan::target(&item.path, options).ok());
    let mut found: Vec<(Option<String>, keys::SigningKey)> = Vec::new();
    for path in files {
        let keys = read(&path).unwrap_or_default();
        found.extend(keys.into_iter().map(|key| (Some(path.display().to_string()), key)));
    }
    let inline = saved.map(|saved| saved.says.inline_keys()).unwrap_or_default();
    found.extend(inline.into_iter().map(|key| (None, key)));
    let restored = |key: &crate::format::snapshot::SigningKey| {
        let place = found
            .iter()
            .find(|(_, other)| (&other.key_id, &other.public_key) == (&key.id, &key.public_key));
        RestoredKey {
            id: key.id.clone(),
            public_key: key.public_key.clone(),
            path: place.and_then(|(path, _)| path.clone()),
            in_place: place.is_some(),
        }
    };
    snapshot.signing_keys.iter().map(restored).collect()
}

fn read(path: &Path) -> Option<Vec<keys::SigningKey>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).ok()?.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    keys::parse(&bytes, None).ok()
}
