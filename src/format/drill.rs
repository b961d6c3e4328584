//! The record of a drill: that a snapshot was brought back on trial, when, and what each check came to.
//!
//! A small JSON document, never sealed: figures and names of checks only, nothing that stands in the homeserver's data.
//! It says nothing that a later drill could not find out again, so nobody depends on it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DRILL_BYTES_MAX, Error, FORMAT_VERSION, ObjectId, Result, within};

/// What errors call it.
const DRILL: &str = "drill";

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Its id, which is in its key too.
    pub id: ObjectId,
    /// What was brought back.
    pub snapshot: ObjectId,
    /// When it ended, by the store's clock.
    pub time: Timestamp,
    /// The `synapse-backup` that did it.
    pub tool_version: String,
    /// Every check was good.
    pub passed: bool,
    /// How long it took.
    pub seconds: u64,
    /// Which media were brought back: `all`, `sample:PERCENT`, `hash-only`.
    pub media: String,
    /// In the order in which they were made.
    pub checks: Vec<DrillCheck>,
}

/// One check of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// What was looked at.
    pub name: String,
    /// Was it as it should be?
    pub ok: bool,
    /// How much was looked at.
    pub figure: String,
}

/// The object's bytes.
pub fn encode(drill: &Drill) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(drill).map_err(|error| Error::Invalid {
        what: DRILL,
        reason: error.to_string(),
    })?;
    within("bytes of a drill", json.len() as u64, DRILL_BYTES_MAX as u64)?;
    Ok(json)
}

/// Reads the object.
pub fn decode(bytes: &[u8]) -> Result<Drill> {
    within("bytes of a drill", bytes.len() as u64, DRILL_BYTES_MAX as u64)?;
    let drill: Drill = serde_json::from_slice(bytes).map_err(|error| Error::damaged(DRILL, error.to_string()))?;
    if drill.format != FORMAT_VERSION {
        return Err(Error::Version {
            what: DRILL,
            found: drill.format,
            supported: FORMAT_VERSION,
        });
    }
    Ok(drill)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_drill_is_read_back_and_a_damaged_one_is_refused() {
        let drill = Drill {
            format: FORMAT_VERSION,
            id: ObjectId::from_bytes([1; 16]),
            snapshot: ObjectId::from_bytes([2; 16]),
            time: "2026-11-27T03:00:00Z".parse().unwrap(),
            tool_version: "0.1.0".into(),
            passed: true,
            seconds: 61,
            media: "all".into(),
            checks: vec![DrillCheck {
                name: "rows".into(),
                ok: true,
                figure: "12 rows in 3 tables".into(),
            }],
        };
        let bytes = encode(&drill).unwrap();
        assert_eq!(decode(&bytes).unwrap(), drill);
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        let other = String::from_utf8(bytes).unwrap().replace("\"format\":1", "\"format\":9");
        assert!(matches!(decode(other.as_bytes()), Err(Error::Version { found: 9, .. })));
        assert!(decode(&vec![b' '; DRILL_BYTES_MAX + 1]).is_err());
    }
}
