//! A change of tags: a small JSON object beside a snapshot, and the tags that come out of several of them.
//!
//! Snapshots are immutable, so `tag` writes what it wants changed. The tags of a snapshot are those of its document with all
//! changes laid over them in the order of their times; of two of the same time the id decides. A writer gives a time that
//! is later than all it has read, so its change comes after those; changes of different tags come out the same in any order.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, FORMAT_VERSION, ObjectId, Result, within};

/// What errors call it.
const TAGS: &str = "change of tags";
/// A change is small.
pub const CHANGE_BYTES_MAX: usize = 64 << 10;
/// Tags in one change.
const TAGS_MAX: usize = 256;
/// Bytes of one tag.
const TAG_BYTES_MAX: usize = 100;

/// The content of `tags/<snapshot>-<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagChange {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The store's Date when it was made, and later than every change that its writer had read.
    pub time: Timestamp,
    /// These are put on.
    #[serde(default)]
    pub add: BTreeSet<String>,
    /// These are taken off.
    #[serde(default)]
    pub remove: BTreeSet<String>,
}

impl TagChange {
    /// A change.
    pub fn new(time: Timestamp, add: BTreeSet<String>, remove: BTreeSet<String>) -> Self {
        Self {
            format: FORMAT_VERSION,
            time,
            add,
            remove,
        }
    }

    /// The object's bytes: one line of JSON.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut json = serde_json::to_vec(self).map_err(|error| Error::Invalid {
            what: TAGS,
            reason: error.to_string(),
        })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the object.
    pub fn from_json(data: &[u8]) -> Result<Self> {
        within("bytes of a change of tags", data.len() as u64, CHANGE_BYTES_MAX as u64)?;
        let change: Self = serde_json::from_slice(data).map_err(|error| Error::damaged(TAGS, error.to_string()))?;
        change.check()?;
        Ok(change)
    }

    fn check(&self) -> Result<()> {
        if self.format != FORMAT_VERSION {
            return Err(Error::Version {
                what: TAGS,
                found: self.format,
                supported: FORMAT_VERSION,
            });
        }
        within("tags in a change", (self.add.len() + self.remove.len()) as u64, TAGS_MAX as u64)?;
        for tag in self.add.iter().chain(&self.remove) {
            within("bytes of a tag", tag.len() as u64, TAG_BYTES_MAX as u64)?;
        }
        Ok(())
    }
}

/// The tags of a snapshot: those it was taken with, and every change with its time, the one that is believed, and its object's id.
pub fn fold(taken_with: &[String], mut changes: Vec<(Timestamp, ObjectId, TagChange)>) -> Vec<String> {
    changes.sort_by_key(|(time, id, _)| (*time, *id));
    let mut tags: BTreeSet<String> = taken_with.iter().cloned().collect();
    for (_, _, change) in changes {
        tags.retain(|tag| !change.remove.contains(tag));
        tags.extend(change.add);
    }
    tags.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn words(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// `+x -y` at this second, with this id.
    fn change(second: i64, id: u8, text: &str) -> (Timestamp, ObjectId, TagChange) {
        let time = Timestamp::from_second(second).unwrap();
        let with = |sign: char| {
            words(text)
                .iter()
                .filter_map(|word| word.strip_prefix(sign))
                .map(str::to_owned)
                .collect()
        };
        (time, ObjectId::from_bytes([id; 16]), TagChange::new(time, with('+'), with('-')))
    }

    #[test]
    fn changes_are_laid_over_each_other_by_time() {
        for (taken_with, changes, wanted) in [
            ("a b", vec![], "a b"),
            ("a", vec![change(1, 1, "+b -a")], "b"),
            ("", vec![change(1, 1, "+a"), change(2, 2, "-a")], ""),
            ("", vec![change(2, 1, "+a"), change(1, 2, "-a")], "a"),
            ("", vec![change(1, 2, "-a"), change(1, 1, "+a")], ""),
            ("a", vec![change(1, 1, "-nobody")], "a"),
            ("", vec![change(1, 1, "+a -a")], "a"),
        ] {
            let taken_with: Vec<String> = words(taken_with).into_iter().collect();
            let mut turned = changes.clone();
            turned.reverse();
            assert_eq!(fold(&taken_with, changes.clone()).join(" "), wanted, "{changes:?}");
            assert_eq!(fold(&taken_with, turned).join(" "), wanted, "{changes:?}");
        }
    }

    #[test]
    fn a_change_is_read_back_and_a_wrong_one_refused() {
        let (_, _, change) = change(1_700_000_000, 1, "+a -b");
        let json = change.to_json().unwrap();
        assert_eq!(
            String::from_utf8(json.clone()).unwrap(),
            "{\"format\":1,\"time\":\"2023-11-14T22:13:20Z\",\"add\":[\"a\"],\"remove\":[\"b\"]}\n"
        );
        assert_eq!(TagChange::from_json(&json).unwrap(), change);
        let long = format!(r#"{{"format":1,"time":"2023-11-14T22:13:20Z","add":["{}"]}}"#, "x".repeat(101));
        for wrong in ["", "{}", r#"{"format":2,"time":"2023-11-14T22:13:20Z"}"#, long.as_str()] {
            assert!(TagChange::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
