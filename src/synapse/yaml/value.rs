//! Values as Python has them after `yaml.safe_load`: types, equality of keys, truth and `str()`.
//!
//! Each value knows where it stands. `Debug` shows kind and place only, since any text may be a password.

use std::collections::HashMap;
use std::fmt;

use super::number::{Date, Integer, python_float};
use super::{Position, YamlError};

/// One value and its place in the file.
#[derive(Clone, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub at: Position,
}

/// The types that `SafeLoader` makes. `!!set` becomes a map to null; `!!omap` and `!!pairs` become lists of pairs.
#[derive(Clone, PartialEq)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `yes`, `no`, `on`, `off`, `true`, `false` in three spellings each; not `y` and `n`.
    Bool(bool),
    /// Of any size, as in Python.
    Int(Integer),
    /// With a dot: `1e3` is a text.
    Float(f64),
    /// Everything else that is plain, and everything quoted.
    Text(String),
    /// A date, or date and time.
    Date(Date),
    /// `!!binary`.
    Binary(Vec<u8>),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping.
    Map(Mapping),
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Mapping> {
        match &self.kind {
            Kind::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        match &self.kind {
            Kind::List(list) => Some(list),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// Python's `bool(value)`: zero and everything empty is false. Synapse asks `if path:` almost everywhere.
    pub fn is_true(&self) -> bool {
        match &self.kind {
            Kind::Null => false,
            Kind::Bool(value) => *value,
            Kind::Int(value) => !value.is_zero(),
            Kind::Float(value) => *value != 0.0,
            Kind::Text(value) => !value.is_empty(),
            Kind::Date(_) => true,
            Kind::Binary(value) => !value.is_empty(),
            Kind::List(value) => !value.is_empty(),
            Kind::Map(value) => !value.is_empty(),
        }
    }

    /// Python's `str(value)` for scalars; `None` for lists, maps and binaries, for which it makes no sense.
    pub fn python_str(&self) -> Option<String> {
        Some(match &self.kind {
            Kind::Null => "None".into(),
            Kind::Bool(true) => "True".into(),
            Kind::Bool(false) => "False".into(),
            Kind::Int(value) => value.to_string(),
            Kind::Float(value) => python_float(*value),
            Kind::Text(value) => value.clone(),
            Kind::Date(value) => value.to_string(),
            Kind::Binary(_) | Kind::List(_) | Kind::Map(_) => return None,
        })
    }

    /// A word for messages: `a text`, `a list`.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::Date(_) => "a date",
            Kind::Binary(_) => "binary data",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// What Python compares when this is a key; `None` when it cannot be hashed.
    fn key(&self) -> Option<Key> {
        Some(match &self.kind {
            Kind::Null => Key::Null,
            Kind::Bool(value) => Key::Number(u8::from(*value).to_string()),
            Kind::Int(value) => Key::Number(value.to_string()),
            Kind::Float(value) if value.fract() == 0.0 => Key::Number(format!("{:.0}", value + 0.0)),
            Kind::Float(value) => Key::Float(value.to_bits()),
            Kind::Text(value) => Key::Text(value.clone()),
            Kind::Date(value) => Key::Date(value.to_string()),
            Kind::Binary(value) => Key::Binary(value.clone()),
            Kind::List(_) | Kind::Map(_) => return None,
        })
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.type_name(), self.at)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Null,
    Number(String),
    Float(u64),
    Text(String),
    Date(String),
    Binary(Vec<u8>),
}

/// A Python dictionary: in order of first insertion, the last value of a key counts, `1`, `1.0` and `true` are one key.
#[derive(Clone, Default)]
pub struct Mapping {
    entries: Vec<(Value, Value)>,
    places: HashMap<Key, usize>,
}

impl Mapping {
    /// The value of the text key `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.places.get(&Key::Text(name.to_owned())).map(|&place| &self.entries[place].1)
    }

    /// The value of `name` unless it is null: what Synapse's `config.get(name)` followed by a test for `None` sees.
    pub fn get_set(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// Keys and values in Python's order.
    pub fn iter(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Python's `self[key] = value`.
    ///
    /// # Errors
    /// For a list or map as key ("unhashable").
    pub fn insert(&mut self, key: Value, value: Value) -> Result<(), YamlError> {
        let Some(hash) = key.key() else {
            return Err(YamlError::new(key.at, "a list or a map cannot be a key"));
        };
        if let Some(&place) = self.places.get(&hash) {
            self.entries[place].1 = value;
        } else {
            self.places.insert(hash, self.entries.len());
            self.entries.push((key, value));
        }
        Ok(())
    }

    /// Python's `self.update(other)`: whole top-level values are replaced.
    pub fn update(&mut self, other: Mapping) {
        for (key, value) in other.entries {
            // Every key of `other` was hashable when it went in.
            let _ = self.insert(key, value);
        }
    }
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of {} entries", self.entries.len())
    }
}
