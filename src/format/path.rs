//! The path of an item, as the operating system or the database gave it: bytes, nearly always UTF-8.
//!
//! In JSON a path that is UTF-8 stands as `path`, any other as `path_base64` (RFC 4648, padded). Where a path is a value of its
//! own it is an object with one of these keys; media entries and config items hold the key themselves. What a path *means*, and whether it may be written to, is decided above this floor.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::PATH_BYTES_MAX;

/// A path of at most [`PATH_BYTES_MAX`] bytes. Ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PathFields", into = "PathFields")]
pub struct ItemPath(Vec<u8>);

impl ItemPath {
    /// The path with these bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its text, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The two JSON fields of this path, of which one is there.
    pub(super) fn fields(&self) -> (Option<&str>, Option<String>) {
        match self.to_str() {
            Some(text) => (Some(text), None),
            None => (None, Some(STANDARD.encode(&self.0))),
        }
    }

    /// The path of these two JSON fields.
    pub(super) fn from_fields(path: Option<String>, path_base64: Option<String>) -> Result<Self, &'static str> {
        let bytes = match (path, path_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|_| "path_base64 is not base64")?,
            (Some(_), Some(_)) => return Err("both path and path_base64"),
            (None, None) => return Err("neither path nor path_base64"),
        };
        if bytes.len() > PATH_BYTES_MAX {
            return Err("the path is too long");
        }
        Ok(Self(bytes))
    }
}

impl From<&str> for ItemPath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for ItemPath {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&Path> for ItemPath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl AsRef<[u8]> for ItemPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ItemPath {
    /// For eyes: what is not UTF-8 is shown as U+FFFD.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A path as a JSON object of its own.
#[derive(Serialize, Deserialize)]
struct PathFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl From<ItemPath> for PathFields {
    fn from(path: ItemPath) -> Self {
        match String::from_utf8(path.0) {
            Ok(text) => Self {
                path: Some(text),
                path_base64: None,
            },
            Err(error) => Self {
                path: None,
                path_base64: Some(STANDARD.encode(error.as_bytes())),
            },
        }
    }
}

impl TryFrom<PathFields> for ItemPath {
    type Error = &'static str;

    fn try_from(fields: PathFields) -> Result<Self, Self::Error> {
        Self::from_fields(fields.path, fields.path_base64)
    }
}
