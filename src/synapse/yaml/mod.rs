//! Synapse's configuration language: YAML 1.1 as `PyYAML` 6's `SafeLoader` understands it.
//!
//! Synapse reads its configuration with `yaml.safe_load` (`synapse/config/_base.py`, `read_config_files`), and a reader
//! of YAML 1.2 sees other values in the same text: `password: 0123` is the number 83 for Synapse, `no` is false, `1:30`
//! is 90, a key given twice counts by its last value, `<<` merges. Here a parser of events (`granit-parser`) gives the
//! shape, and the meaning is ours: `source` looks at the text, `tree` keeps nodes and anchors, `scalar` and `number`
//! resolve scalars, `construct` builds values. `tests/fixtures/yaml_cases.json` holds what `PyYAML` itself says.
//!
//! Messages name the line and the column, never the text found there: it may be a password.
//! What a Synapse configuration is lies in `synapse::config`; nothing of it is known here.

mod construct;
mod number;
mod scalar;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use number::{Date, Integer, python_float};
pub use value::{Kind, Mapping, Value};

/// Bytes of one YAML file. The largest real configuration is far below one MiB.
pub const YAML_BYTES_MAX: usize = 16 << 20;
/// Nodes of one document once aliases and merges are followed; long texts count as several.
pub const NODES_MAX: usize = 1_000_000;
/// Nesting of lists and maps. `PyYAML` itself gives up at about 300.
pub const DEPTH_MAX: usize = 256;

/// Where a value stands in its file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A text that Synapse's reader would refuse, too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct YamlError {
    /// Where.
    pub at: Position,
    /// What, without any of the text.
    pub message: String,
}

impl YamlError {
    fn new(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// The one document in `bytes`; an empty file is null.
///
/// # Errors
/// Everything that `yaml.safe_load` refuses (unknown tags, several documents, tabs as separation, impossible dates), and
/// what goes over [`YAML_BYTES_MAX`], [`NODES_MAX`] or [`DEPTH_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Value, YamlError> {
    let text = source::read(bytes)?;
    let tree = tree::compose(text)?;
    construct::construct(&tree)
}
