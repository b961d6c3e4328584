//! What the YAML reader complains about, in our words: place, key, what was expected.
//!
//! Values stay out of these messages unless our own parsers put them in: `databases` holds passwords.

use serde_yaml::{Error, Location};

use super::keys::{self, Unknown};
use crate::ops;

/// One line with file, line and column, and what to do about it. `file` is the name to show.
pub(super) fn explain(error: &Error, file: &str) -> ops::Error {
    let error = error.without_snippet();
    let place = match error.location() {
        Some(at) if at != Location::UNKNOWN => format!("{file}:{}:{}", at.line(), at.column()),
        _ => file.to_owned(),
    };
    let see_docs = "docs/settings.md lists all keys and what they take".to_owned();
    let (message, hint) = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            (format!("expected {}, found {}", plain(expected), kind_of(unexpected)), see_docs)
        }
        Error::SerdeInvalidValue { expected, .. } => (format!("expected {}", plain(expected)), see_docs),
        Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing"), see_docs),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => (format!("the key `{key}` stands here twice"), "keep one of them".to_owned()),
            None => ("a key stands here twice".to_owned(), "keep one of them".to_owned()),
        },
        Error::Message { msg, .. } => (msg.clone(), see_docs),
        Error::Unexpected { expected, .. } => (format!("expected {}", plain(expected)), see_docs),
        Error::InvalidScalar { ty, .. } => (format!("expected {}", plain(ty)), see_docs),
        other => (syntax(other), "check indentation, colons and quotes around this place".to_owned()),
    };
    ops::Error::usage(format!("{place}: {message}"), hint)
}

fn unknown_key(field: &str, expected: &[&'static str]) -> (String, String) {
    let section = keys::section_with(expected).unwrap_or_default();
    let path = if section.is_empty() {
        field.to_owned()
    } else {
        format!("{section}.{field}")
    };
    let listed: Vec<String> = keys::keys_of(section).iter().map(|key| format!("`{key}`")).collect();
    let valid = format!("the keys here are {}", listed.join(", "));
    // The suggestion is as long as it must be: `media`, and the whole path where the section is another.
    match keys::unknown(&path) {
        Unknown::Later(feature) => later(&format!("`{path}`"), feature),
        Unknown::Perhaps(key) => (format!("unknown key `{path}`; did you mean `{key}`?"), valid),
        Unknown::No => (format!("unknown key `{path}`"), valid),
    }
}

/// A setting whose feature a later version will have.
pub(super) fn later(name: &str, feature: &str) -> (String, String) {
    (
        format!("{name} is a setting for {feature}, which this version does not have"),
        "take it out: nothing is accepted and then ignored".to_owned(),
    )
}

/// The reader's own sentence, without its place, on one line.
fn syntax(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or("not valid YAML");
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = line.split(" at line ").next().unwrap_or(line);
    format!("not valid YAML: {line}")
}

/// The reader's type names as a person would say them.
fn plain(expected: &str) -> String {
    match expected {
        "a sequence" | "sequence" | "sequence start" => "a list (`[…]`, or lines that begin with `- `)".to_owned(),
        "a map" | "mapping" | "mapping start" => "a section of `key: value` lines".to_owned(),
        "a string" | "string scalar" | "string" => "a text".to_owned(),
        "a boolean" | "boolean" => "true or false".to_owned(),
        other => other
            .strip_prefix("struct ")
            .map_or_else(|| other.to_owned(), |_| "a section of `key: value` lines".to_owned()),
    }
}

/// `string "secret"` as `a text`.
fn kind_of(unexpected: &str) -> &'static str {
    match unexpected.split([' ', '`']).next().unwrap_or_default() {
        "string" | "character" | "bytes" | "byte" => "a text",
        "integer" | "floating" => "a number",
        "boolean" => "true or false",
        "sequence" => "a list",
        "map" => "a section",
        "unit" | "null" | "Option" => "nothing",
        _ => "something else",
    }
}
