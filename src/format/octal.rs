//! Permission bits in JSON as people read them: a string of octal digits, `"0640"`.
//!
//! For `#[serde(with = …)]`; [`option`] is the same for a mode that may be absent. The file type is no part of a mode here.

use serde::{Deserialize, Deserializer, Serializer};

const MODE_MAX: u32 = 0o7777;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    if *mode > MODE_MAX {
        return Err(serde::ser::Error::custom("a mode over 7777"));
    }
    serializer.collect_str(&format_args!("{mode:04o}"))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn parse(text: &str) -> Result<u32, &'static str> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    digits
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten()
        .ok_or("a mode is up to four octal digits")
}

/// Use it with `#[serde(default)]`.
pub(super) mod option {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: Serializer>(mode: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        match mode {
            Some(mode) => super::serialize(mode, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
