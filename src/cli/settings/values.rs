//! Kinds of values in the settings, each with one parser that serves the file and the environment.
//!
//! Sizes carry their unit: `256MiB` (1,024) and `256MB` (1,000) differ, and `256M` is refused because it could be
//! either. Paths are absolute: a timer unit and a shell have different working directories.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};

use crate::cli::secrets;
use crate::format::seal::{RECIPIENTS_MAX, Recipient};
use crate::format::writer_key::Signer;
use crate::store::versions::LockMode;

/// Bytes: a plain number, or one with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct ByteSize(pub(in crate::cli) u64);

/// A path that begins at the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct AbsolutePath(pub(in crate::cli) PathBuf);

/// Requests at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Connections(pub(in crate::cli) usize);

/// A length of time: a whole number and a unit, as in `6h` or `90min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct TimeSpan(pub(in crate::cli) Duration);

/// Dumps or loads at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Jobs(pub(in crate::cli) usize);

/// `governance` or `compliance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct LockWord(pub(in crate::cli) LockMode);

/// Whole days, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Days(pub(in crate::cli) u32);

/// How many snapshots; zero is a number too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Count(pub(in crate::cli) u32);

/// A time zone by its IANA name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Zone(pub(in crate::cli) TimeZone);

/// A tag of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct TagWord(pub(in crate::cli) String);

/// Tags stand in tables, in lists with commas, and in the names of nothing.
const TAG_BYTES_MAX: usize = 100;
/// A public age key, `age1…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct RecipientWord(pub(in crate::cli) Recipient);

/// The public half of a writer's signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct SignerWord(pub(in crate::cli) Signer);

/// Nobody means a retention of more than a hundred years, and in compliance mode nobody could take it back.
const DAYS_MAX: u32 = 36_500;

/// More connections than this only make a store slower; every one holds a socket and a buffer.
const CONNECTIONS_MAX: usize = 256;

/// Each job is a connection to the server, and a process of its own there and here.
const JOBS_MAX: usize = 32;

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let unit = unit.trim_start();
        let example = "write a whole number and a unit, as in 256MiB or 256MB";
        if digits.is_empty() || unit.starts_with('.') || unit.starts_with('_') {
            return Err(format!("`{}` is not a size: {example}", shown(text)));
        }
        let factor = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None if ["K", "M", "G", "T"].iter().any(|letter| letter.eq_ignore_ascii_case(unit)) => {
                let letter = unit.to_ascii_uppercase();
                return Err(format!(
                    "`{text}` can be read in two ways: write {digits}{letter}iB or {digits}{letter}B"
                ));
            }
            None => return Err(format!("`{}` is not a unit of size: {example}", shown(unit))),
        };
        let number: Option<u64> = digits.parse().ok();
        let bytes = number.and_then(|number| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| format!("`{}` is too large", shown(text)))
    }
}

impl FromStr for AbsolutePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') && !text.contains('\0') {
            Ok(Self(PathBuf::from(text)))
        } else {
            Err(format!("`{}` is not an absolute path: it must begin with `/`", shown(text)))
        }
    }
}

impl FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse() {
            Ok(number @ 1..=JOBS_MAX) => Ok(Self(number)),
            _ => Err(format!("`{}` is not a number from 1 to {JOBS_MAX}", shown(text))),
        }
    }
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse() {
            Ok(number @ 1..=CONNECTIONS_MAX) => Ok(Self(number)),
            _ => Err(format!("`{}` is not a number from 1 to {CONNECTIONS_MAX}", shown(text))),
        }
    }
}

impl FromStr for LockWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "governance" => Ok(Self(LockMode::Governance)),
            "compliance" => Ok(Self(LockMode::Compliance)),
            _ => Err(format!("`{}` is neither governance nor compliance", shown(text))),
        }
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().parse().map(Self);
        number.map_err(|_| format!("`{}` is not a number from 0 to {}", shown(text), u32::MAX))
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zone = TimeZone::get(text.trim()).map(Self);
        zone.map_err(|_| format!("`{}` is not a time zone: write its name, as in Europe/Berlin or UTC", shown(text)))
    }
}

impl FromStr for TagWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a tag has at least one character".into());
        }
        if text.len() > TAG_BYTES_MAX {
            return Err(format!("a tag has at most {TAG_BYTES_MAX} bytes"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
            return Err("a tag has no spaces, commas or control characters".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse() {
            Ok(number @ 1..=DAYS_MAX) => Ok(Self(number)),
            _ => Err(format!("`{}` is not a number of days from 1 to {DAYS_MAX}", shown(text))),
        }
    }
}

const SECONDS: [(&str, u64); 11] = [
    ("s", 1),
    ("min", 60),
    ("m", 60),
    ("h", 3_600),
    ("d", 86_400),
    ("seconds", 1),
    ("minutes", 60),
    ("hours", 3_600),
    ("days", 86_400),
    ("w", 604_800),
    ("weeks", 604_800),
];

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is not a length of time: write a whole number and a unit, as in 90min or 6h",
                shown(text)
            )
        };
        let text = text.trim();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let (_, factor) = SECONDS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let seconds = number.checked_mul(*factor).filter(|seconds| *seconds > 0).ok_or_else(wrong)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// Yes or no, as YAML's readers take it.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(format!("`{}` is neither true nor false", shown(text))),
    }
}

/// Only so much of what was typed stands in a message, and no secret key.
fn shown(text: &str) -> String {
    if secrets::has_key(text) {
        return secrets::HIDDEN.to_owned();
    }
    text.chars().take(80).collect()
}

pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for AbsolutePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Jobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for LockWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for TagWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Connections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl FromStr for RecipientWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if secrets::has_key(text) {
            return Err("this is a secret key, and it does not belong on this machine: write its public half, age1…".into());
        }
        text.parse().map(Self).map_err(str::to_owned)
    }
}

impl FromStr for SignerWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(str::to_owned)
    }
}

impl<'de> Deserialize<'de> for RecipientWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

/// Recipients that all fit into one header beside the writer key, each once: a second of the same kind would be no second one.
pub(super) fn distinct(recipients: Vec<RecipientWord>) -> Result<Vec<RecipientWord>, String> {
    if recipients.len() >= RECIPIENTS_MAX {
        return Err(format!(
            "these are {} recipients; at most {} fit",
            recipients.len(),
            RECIPIENTS_MAX - 1
        ));
    }
    let twice = recipients.iter().enumerate().find(|(at, one)| recipients[..*at].contains(one));
    match twice {
        Some((_, RecipientWord(recipient))) => Err(format!("{recipient} stands here twice")),
        None => Ok(recipients),
    }
}

/// The list in the file.
pub(super) fn recipients<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<RecipientWord>>, D::Error> {
    let given = Option::<Vec<RecipientWord>>::deserialize(deserializer)?;
    given.map(distinct).transpose().map_err(serde::de::Error::custom)
}

impl<'de> Deserialize<'de> for SignerWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        for (text, seconds) in [
            ("6h", Some(21_600)),
            ("90 min", Some(5_400)),
            ("30s", Some(30)),
            ("1d", Some(86_400)),
            ("30 days", Some(2_592_000)),
            ("2w", Some(1_209_600)),
            ("6", None),
            ("0h", None),
            ("h", None),
            ("1.5h", None),
        ] {
            assert_eq!(text.parse::<TimeSpan>().ok().map(|time| time.0.as_secs()), seconds, "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit_that_means_one_thing() {
        for (text, wanted) in [
            ("268435456", Ok(268_435_456)),
            ("256MiB", Ok(268_435_456)),
            ("256 mib", Ok(268_435_456)),
            ("64 MB", Ok(64_000_000)),
            ("1TiB", Ok(1 << 40)),
            ("0", Ok(0)),
            ("256M", Err("`256M` can be read in two ways: write 256MiB or 256MB")),
            (
                "1.5GiB",
                Err("`1.5GiB` is not a size: write a whole number and a unit, as in 256MiB or 256MB"),
            ),
            (
                "lots",
                Err("`lots` is not a size: write a whole number and a unit, as in 256MiB or 256MB"),
            ),
            (
                "-1",
                Err("`-1` is not a size: write a whole number and a unit, as in 256MiB or 256MB"),
            ),
            (
                "3 pages",
                Err("`pages` is not a unit of size: write a whole number and a unit, as in 256MiB or 256MB"),
            ),
            ("99999999999999999999", Err("`99999999999999999999` is too large")),
            ("99999999TiB", Err("`99999999TiB` is too large")),
        ] {
            let got = text.parse().map(|ByteSize(bytes)| bytes);
            assert_eq!(got, wanted.map_err(str::to_owned), "{text}");
        }
    }
}
