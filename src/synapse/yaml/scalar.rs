//! What a scalar means: `PyYAML`'s implicit resolvers for plain text, and the constructors of the tags.
//!
//! The patterns are those of `yaml/resolver.py` in `PyYAML` 6, which are YAML 1.1 with a few habits of their own (`y` and
//! `n` are texts, `0o17` is a text, a float needs its dot and its exponent a sign). They are small enough to be written out.

use base64::Engine as _;

use super::number::{Date, Integer, Stamp, float_from_yaml};
use super::value::Kind;

/// The tags that `SafeConstructor` knows, the two it resolves but cannot construct, and all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Timestamp,
    Binary,
    Text,
    List,
    Map,
    Set,
    Pairs,
    /// A plain `<<`: good as a key, an error as a value.
    Merge,
    /// A plain `=`: a text as a key, an error as a value.
    Equals,
    Unknown,
}

impl Tag {
    /// From the full name, `tag:yaml.org,2002:int`.
    pub(super) fn named(name: &str) -> Self {
        match name.strip_prefix("tag:yaml.org,2002:") {
            Some("null") => Self::Null,
            Some("bool") => Self::Bool,
            Some("int") => Self::Int,
            Some("float") => Self::Float,
            Some("timestamp") => Self::Timestamp,
            Some("binary") => Self::Binary,
            Some("str") => Self::Text,
            Some("seq") => Self::List,
            Some("map") => Self::Map,
            Some("set") => Self::Set,
            Some("omap" | "pairs") => Self::Pairs,
            Some("merge") => Self::Merge,
            Some("value") => Self::Equals,
            _ => Self::Unknown,
        }
    }

    /// What a plain scalar without a tag is.
    pub(super) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "<<" => Self::Merge,
            "=" => Self::Equals,
            _ if truth(text).is_some() && same_case(text) => Self::Bool,
            _ if is_float(text) => Self::Float,
            _ if is_int(text) => Self::Int,
            _ if Stamp::parse(text, false).is_some() => Self::Timestamp,
            _ => Self::Text,
        }
    }
}

/// Builds a scalar; the error says what is wrong without repeating it.
pub(super) fn construct(tag: Tag, text: &str) -> Result<Kind, &'static str> {
    match tag {
        Tag::Null => Ok(Kind::Null),
        Tag::Bool => truth(text).map(Kind::Bool).ok_or("not a boolean"),
        Tag::Int => Integer::from_yaml(text)
            .map(Kind::Int)
            .ok_or("not a whole number, or one with too many digits"),
        Tag::Float => float_from_yaml(text).map(Kind::Float).ok_or("not a number"),
        Tag::Timestamp => date(text).map(Kind::Date).ok_or("no such date or time"),
        Tag::Binary => binary(text).map(Kind::Binary).ok_or("not base64"),
        Tag::Text => Ok(Kind::Text(text.to_owned())),
        Tag::List | Tag::Pairs => Err("a scalar where its tag promises a list"),
        Tag::Map | Tag::Set => Err("a scalar where its tag promises a map"),
        Tag::Merge => Err("`<<` is only a key; quote it if it is a text"),
        Tag::Equals => Err("a single `=` is not a value; quote it if it is a text"),
        Tag::Unknown => Err("a tag (a word beginning with `!`) that Synapse does not know; quote it if it is a text"),
    }
}

fn date(text: &str) -> Option<Date> {
    Stamp::parse(text, true)?.date(text)
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// `yes`, `Yes` or `YES`, not `yEs`.
fn same_case(text: &str) -> bool {
    let rest = &text[1..];
    rest.bytes().all(|c| c.is_ascii_lowercase()) || text.bytes().all(|c| c.is_ascii_uppercase())
}

/// Base64 as Python's lenient decoder takes it: other characters are skipped, the padding must be right.
fn binary(text: &str) -> Option<Vec<u8>> {
    let clean: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='))
        .collect();
    let lenient = base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    text.is_ascii()
        .then(|| {
            base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, lenient)
                .decode(clean)
                .ok()
        })
        .flatten()
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_digit() || c == b'_')
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// `(:[0-5]?[0-9])+`, given what follows the first colon.
fn is_sixties(text: &str) -> bool {
    text.split(':').all(|part| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    })
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    if text == "0" {
        return true;
    }
    if let Some(bits) = text.strip_prefix("0b") {
        return !bits.is_empty() && bits.bytes().all(|c| matches!(c, b'0' | b'1' | b'_'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|c| c.is_ascii_hexdigit() || c == b'_');
    }
    if let Some(octal) = text.strip_prefix('0') {
        return octal.bytes().all(|c| matches!(c, b'0'..=b'7' | b'_'));
    }
    if !starts_with_digit(text) {
        return false;
    }
    match text.split_once(':') {
        Some((first, rest)) => is_digits(first) && is_sixties(rest),
        None => is_digits(text),
    }
}

fn is_float(text: &str) -> bool {
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, rest)) = body.split_once('.') else { return false };
    if whole.is_empty() {
        // Without a whole part there is no sign and at least one digit.
        let (digits, exponent) = split_exponent(rest);
        return text.starts_with('.') && starts_with_digit(digits) && is_digits(digits) && exponent;
    }
    if !starts_with_digit(whole) {
        return false;
    }
    if let Some((first, sixties)) = whole.split_once(':') {
        return is_digits(first) && is_sixties(sixties) && is_digits(rest);
    }
    let (digits, exponent) = split_exponent(rest);
    is_digits(whole) && is_digits(digits) && exponent
}

/// What stands before `e`, and whether what follows is no exponent at all or a sign and digits.
fn split_exponent(text: &str) -> (&str, bool) {
    let Some((digits, exponent)) = text.split_once(['e', 'E']) else {
        return (text, true);
    };
    let good = exponent
        .strip_prefix(['-', '+'])
        .is_some_and(|power| !power.is_empty() && power.bytes().all(|c| c.is_ascii_digit()));
    (digits, good)
}
