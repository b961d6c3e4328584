//! The names of objects in the bucket, relative to the repository's prefix, and reading them back from a listing.
//!
//! A name that this file does not read is not ours: whoever lists reports it and leaves it alone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Error, ObjectId, PackId, Result};

/// Format, features, chunk sizes.
pub const REPOSITORY: &str = "repository.json";
/// All packs begin so.
pub const PACKS: &str = "packs/";
/// All index segments begin so.
pub const INDEX: &str = "index/";
/// All snapshots begin so.
pub const SNAPSHOTS: &str = "snapshots/";
/// Every snapshot ends so.
const SNAPSHOT_ENDING: &str = ".json.zst";
/// All markers of condemned packs begin so.
pub const CONDEMNED: &str = "condemned/";
/// All records of drills begin so.
pub const DRILLS: &str = "drills/";

/// All changes of tags begin so.
pub const TAGS: &str = "tags/";

/// All objects by which a store is tried out begin so.
pub const PROBES: &str = "probe/";

/// What packs, segments and snapshots of a sealed repository end in, after the names that this file makes.
const SEALED_ENDING: &str = ".age";

/// Is the object under this key sealed in a sealed repository?
pub fn is_sealed_kind(key: &str) -> bool {
    [PACKS, INDEX, SNAPSHOTS].iter().any(|prefix| key.starts_with(prefix))
}

/// The key in a sealed repository.
pub fn sealed(key: &str) -> String {
    format!("{key}{SEALED_ENDING}")
}

/// The name behind a key of a sealed repository.
pub fn unsealed(key: &str) -> Option<&str> {
    key.strip_suffix(SEALED_ENDING)
}

/// `packs/0f/0f….zst`
pub fn pack(id: PackId) -> String {
    format!("{PACKS}{:02x}/{id}.zst", id.as_bytes()[0])
}

/// The pack under this key.
pub fn parse_pack(key: &str) -> Option<PackId> {
    let id = key.strip_prefix(PACKS)?.get(3..)?.strip_suffix(".zst")?.parse().ok()?;
    (pack(id) == key).then_some(id)
}

/// `index/0f….idx`
pub fn segment(id: ObjectId) -> String {
    format!("{INDEX}{id}.idx")
}

/// The segment under this key.
pub fn parse_segment(key: &str) -> Option<ObjectId> {
    key.strip_prefix(INDEX)?.strip_suffix(".idx")?.parse().ok()
}

/// `snapshots/20260723T101112Z-0f….json.zst`: UTC, whole seconds, so that names sort by time.
pub fn snapshot(time: Timestamp, id: ObjectId) -> Result<String> {
    let time = time.to_zoned(TimeZone::UTC);
    if !(0..=9_999).contains(&time.year()) {
        return Err(Error::Invalid {
            what: "time of a snapshot",
            reason: format!("the year {}", time.year()),
        });
    }
    Ok(format!("{SNAPSHOTS}{}-{id}{SNAPSHOT_ENDING}", time.strftime("%Y%m%dT%H%M%SZ")))
}

/// `snapshots/20260723T101112Z-0f…-a0….json.zst`: a snapshot that was written before, in this repository or another one
/// (`adopt`, `copy`). It keeps its time and its id; the second id is the object's own, so that no key is used twice (G1).
pub fn snapshot_again(time: Timestamp, id: ObjectId, object: ObjectId) -> Result<String> {
    let key = snapshot(time, id)?;
    let stem = key.strip_suffix(SNAPSHOT_ENDING).unwrap_or(&key);
    Ok(format!("{stem}-{object}{SNAPSHOT_ENDING}"))
}

/// Time and id of the snapshot under this key.
pub fn parse_snapshot(key: &str) -> Option<(Timestamp, ObjectId)> {
    let (text, ids) = key.strip_prefix(SNAPSHOTS)?.strip_suffix(SNAPSHOT_ENDING)?.split_once('-')?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text)
        .ok()?
        .to_zoned(TimeZone::UTC)
        .ok()?
        .timestamp();
    let (id, again) = if let Some((id, object)) = ids.split_once('-') {
        let id = id.parse().ok()?;
        (id, snapshot_again(time, id, object.parse().ok()?).ok()?)
    } else {
        let id = ids.parse().ok()?;
        (id, snapshot(time, id).ok()?)
    };
    (again == key).then_some((time, id))
}

/// `condemned/0f…`: the marker of a pack.
pub fn condemned(id: PackId) -> String {
    format!("{CONDEMNED}{id}")
}

/// The pack that this marker condemns.
pub fn parse_condemned(key: &str) -> Option<PackId> {
    key.strip_prefix(CONDEMNED)?.parse().ok()
}

/// `drills/0f…-a0…`: that this snapshot was drilled, and the id of the drill.
pub fn drill(snapshot: ObjectId, id: ObjectId) -> String {
    format!("{DRILLS}{snapshot}-{id}")
}

/// The snapshot and the drill that this record is about.
pub fn parse_drill(key: &str) -> Option<(ObjectId, ObjectId)> {
    let (snapshot, id) = key.strip_prefix(DRILLS)?.split_once('-')?;
    Some((snapshot.parse().ok()?, id.parse().ok()?))
}

/// `tags/0f…-`: all changes of the tags of a snapshot begin so.
pub fn tags_of(snapshot: ObjectId) -> String {
    format!("{TAGS}{snapshot}-")
}

/// `tags/0f…-a0…`: a change of the tags of a snapshot, and its own id.
pub fn tags(snapshot: ObjectId, id: ObjectId) -> String {
    format!("{TAGS}{snapshot}-{id}")
}

/// The snapshot whose tags are changed by the object under this key, and the object's own id.
pub fn parse_tags(key: &str) -> Option<(ObjectId, ObjectId)> {
    let (snapshot, id) = key.strip_prefix(TAGS)?.split_once('-')?;
    Some((snapshot.parse().ok()?, id.parse().ok()?))
}

/// `probe/0f…`: an object by which a store is tried out.
pub fn probe(id: ObjectId) -> String {
    format!("{PROBES}{id}")
}

/// The id of the probe under this key.
pub fn parse_probe(key: &str) -> Option<ObjectId> {
    key.strip_prefix(PROBES)?.parse().ok()
}

/// Did this program name it? Whatever else lies under the prefix belongs to somebody else.
pub fn is_ours(key: &str) -> bool {
    key == REPOSITORY
        || parse_pack(key).is_some()
        || parse_segment(key).is_some()
        || parse_snapshot(key).is_some()
        || parse_condemned(key).is_some()
        || parse_tags(key).is_some()
        || parse_drill(key).is_some()
        || parse_probe(key).is_some()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn every_key_is_read_back() {
        let (pack_id, id) = (PackId::from_bytes([0x0f; 16]), ObjectId::from_bytes([0xa0; 16]));
        let time: Timestamp = "2026-07-23T10:11:12Z".parse().unwrap();
        assert_eq!(pack(pack_id), "packs/0f/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f.zst");
        assert_eq!(parse_pack(&pack(pack_id)), Some(pack_id));
        assert_eq!(parse_segment(&segment(id)), Some(id));
        assert_eq!(parse_condemned(&condemned(pack_id)), Some(pack_id));
        let other = ObjectId::from_bytes([0xb1; 16]);
        assert_eq!(tags(id, other), format!("tags/{}-{}", "a0".repeat(16), "b1".repeat(16)));
        assert!(tags(id, other).starts_with(&tags_of(id)));
        assert_eq!(parse_tags(&tags(id, other)), Some((id, other)));
        assert_eq!(parse_drill(&drill(id, other)), Some((id, other)));
        let key = snapshot(time, id).unwrap();
        assert_eq!(key, "snapshots/20260723T101112Z-a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0.json.zst");
        assert_eq!(parse_snapshot(&key), Some((time, id)));
        let again = snapshot_again(time, id, ObjectId::from_bytes([0xb1; 16])).unwrap();
        assert_eq!(again, format!("snapshots/20260723T101112Z-{id}-{}.json.zst", "b1".repeat(16)));
        assert_eq!(parse_snapshot(&again), Some((time, id)));
        assert_eq!(parse_probe(&probe(id)), Some(id));
        let all = [
            pack(pack_id),
            segment(id),
            key,
            again,
            condemned(pack_id),
            drill(id, other),
            tags(id, other),
            probe(id),
        ];
        assert!(all.iter().all(|key| is_ours(key)) && is_ours(REPOSITORY), "{all:?}");
    }

    #[test]
    fn a_key_that_is_not_ours_is_not_read() {
        let hex = "0f".repeat(16);
        for key in [
            format!("packs/0e/{hex}.zst"),
            format!("packs/0f/{hex}.zst.age"),
            "packs/".into(),
            "packs/é0/x.zst".into(),
        ] {
            assert_eq!(parse_pack(&key), None, "{key}");
        }
        for key in [
            format!("snapshots/2026-{hex}.json.zst"),
            format!("snapshots/20260723T101172Z-{hex}.json.zst"),
            format!("snapshots/20260723T101112Z-{hex}-.json.zst"),
            format!("snapshots/20260723T101112Z-{hex}-{hex}-{hex}.json.zst"),
            "snapshots/".into(),
        ] {
            assert_eq!(parse_snapshot(&key), None, "{key}");
        }
        assert_eq!(parse_segment(&format!("index/{}.idx", hex.to_uppercase())), None);
        assert_eq!(parse_condemned("condemned/x"), None);
        assert_eq!(parse_drill(&format!("drills/{hex}")), None);
        assert_eq!(parse_tags(&format!("tags/{hex}")), None);
        for key in ["matrix/repository.json", "notes.txt", "probe/notes", "tags/", "index/readme", ""] {
            assert!(!is_ours(key), "{key}");
        }
    }
}
