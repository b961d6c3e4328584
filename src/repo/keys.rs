//! The layout of the bucket: which key holds what. Nothing else in the program spells a key.

use jiff::Timestamp;

use crate::format::{ObjectId, PackId};

/// What is known of the repository as a whole.
pub const REPOSITORY: &str = "repository.json";
/// Packs.
pub const PACKS: &str = "packs/";
/// Index segments.
pub const INDEX: &str = "index/";
/// Snapshots.
pub const SNAPSHOTS: &str = "snapshots/";
/// Markers of packs that will be swept.
pub const CONDEMNED: &str = "condemned/";
/// Objects of capability probes.
pub const PROBE: &str = "probe/";

/// `packs/<2 hex>/<pack id>.zst`.
pub fn pack(id: PackId) -> String {
    let id = id.to_string();
    format!("{PACKS}{}/{id}.zst", &id[..2])
}

/// The pack that a key under `packs/` or `condemned/` speaks of; `None` for a foreign object.
pub fn pack_of(key: &str) -> Option<PackId> {
    let name = match key.strip_prefix(CONDEMNED) {
        Some(name) => name,
        None => key.strip_prefix(PACKS)?.split_once('/')?.1.strip_suffix(".zst")?,
    };
    name.parse().ok()
}

/// `index/<id>.idx`.
pub fn segment(id: ObjectId) -> String {
    format!("{INDEX}{id}.idx")
}

/// `snapshots/<UTC time>-<id>.json.zst`; names sort by time.
pub fn snapshot(time: Timestamp, id: ObjectId) -> String {
    format!("{SNAPSHOTS}{}-{id}.json.zst", time.strftime("%Y%m%dT%H%M%SZ"))
}

/// The id in a snapshot's key; `None` for a foreign object.
pub fn snapshot_id(key: &str) -> Option<ObjectId> {
    key.strip_prefix(SNAPSHOTS)?.strip_suffix(".json.zst")?.split_once('-')?.1.parse().ok()
}

/// `probe/<id>`.
pub fn probe(id: ObjectId) -> String {
    format!("{PROBE}{id}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn keys_name_what_they_hold_and_back() {
        let id = PackId::from_bytes([0xab; 16]);
        assert_eq!(pack(id), "packs/ab/abababababababababababababababab.zst");
        assert_eq!(pack_of(&pack(id)), Some(id));
        assert_eq!(pack_of(&format!("condemned/{id}")), Some(id));
        let object = ObjectId::from_bytes([1; 16]);
        let time: Timestamp = "2026-11-23T01:02:03.9Z".parse().unwrap();
        assert_eq!(snapshot(time, object), format!("snapshots/20261123T010203Z-{object}.json.zst"));
        assert_eq!(snapshot_id(&snapshot(time, object)), Some(object));
    }

    #[test]
    fn foreign_keys_are_nobodys() {
        for key in ["packs/x", "packs/ab/cd.zst", "packs/ab/abababababababababababababababab.zst.bak", "condemned/", "other"] {
            assert_eq!(pack_of(key), None, "{key}");
        }
        assert_eq!(snapshot_id("snapshots/readme.txt"), None);
    }
}
