//! The block for homeserver.yaml that tells the world the public half of a lost signing key.
//!
//! As Synapse's configuration manual has it under `old_signing_keys`: key id, unpadded base64, and the time in milliseconds after
//! which nothing was signed with it any more. That is now, since the server may have signed until it was lost.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::text::escaped;
use crate::format::snapshot::Snapshot;

/// YAML; a comment alone where the snapshot knows no key.
pub(crate) fn old_signing_keys(snapshot: &Snapshot, now: Timestamp) -> String {
    if snapshot.signing_keys.is_empty() {
        return "# this snapshot knows no signing key\n".to_owned();
    }
    let mut out = String::from("old_signing_keys:\n");
    for key in &snapshot.signing_keys {
        let _ = writeln!(
            out,
            "  \"{}\":\n    key: \"{}\"\n    expired_ts: {}",
            escaped(&key.id),
            escaped(&key.public_key),
            now.as_millisecond()
        );
    }
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_what_synapse_reads() {
        let document = include_str!("../../../tests/golden/snapshot.json");
        let mut snapshot: Snapshot = serde_json::from_str(document).unwrap();
        let now = "2026-11-27T00:00:00Z".parse().unwrap();
        let block = old_signing_keys(&snapshot, now);
        assert_eq!(
            block,
            "old_signing_keys:\n  \"ed25519:a_test\":\n    key: \"l8Hft5qXKn1vfHrg3p4+W8gELQVo8N13JkluMfmn2sQ\"\n    expired_ts: 1795737600000\n"
        );
        snapshot.signing_keys.clear();
        assert!(old_signing_keys(&snapshot, now).starts_with('#'));
    }
}
