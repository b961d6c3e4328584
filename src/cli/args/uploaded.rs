//! `--uploaded-by`, `--uploaded-after`, `--uploaded-before`: which media `restore --only media` brings back.
//!
//! A date stands for its first moment in UTC, which is what Synapse's own times are in.

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Uploaded {
    /// With `--only media`: only what this user uploaded, and its thumbnails.
    #[arg(long = "uploaded-by", value_name = "USER", value_parser = user)]
    pub(in crate::cli) by: Option<String>,
    /// With `--only media`: only what was uploaded at this time or later (RFC 3339, or a date: its first moment in UTC).
    #[arg(long = "uploaded-after", value_name = "TIME", value_parser = time)]
    pub(in crate::cli) after: Option<Timestamp>,
    /// With `--only media`: only what was uploaded before this time.
    #[arg(long = "uploaded-before", value_name = "TIME", value_parser = time)]
    pub(in crate::cli) before: Option<Timestamp>,
}

fn user(text: &str) -> Result<String, &'static str> {
    let is_user = text.strip_prefix('@').is_some_and(|rest| rest.contains(':'));
    if is_user {
        Ok(text.to_owned())
    } else {
        Err("a user looks like @alice:example.org")
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let example = "write a date, or date, time and zone, as in 2026-11-27 or 2026-11-27T03:00:00Z";
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    // A time without a zone would parse as a date too, and lose its hours.
    let date = (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten();
    let day = date.and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    day.map(|day| day.timestamp()).ok_or_else(|| example.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_first_moment_and_a_time_has_its_zone() {
        for (text, wanted) in [
            ("2026-11-27", Some("2026-11-27T00:00:00Z")),
            ("2026-11-27T04:00+01:00", Some("2026-11-27T03:00:00Z")),
            ("2026-11-27T03:00:00", None),
            ("2026-13-01", None),
            ("last week", None),
        ] {
            assert_eq!(time(text).ok().map(|time| time.to_string()).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn a_user_is_a_whole_name() {
        for (text, good) in [
            ("@a:b", true),
            ("@alice:example.org:8448", true),
            ("alice", false),
            ("@alice", false),
            ("a:b", false),
        ] {
            assert_eq!(user(text).is_ok(), good, "{text}");
        }
    }
}
