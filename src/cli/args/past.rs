//! `--at TIME`, for the commands that read: the bucket as it was then.
//!
//! A time has its zone with it (RFC 3339), since after a break-in nobody should have to guess which clock was meant.

use clap::Args;
use jiff::Timestamp;

#[derive(Debug, Clone, Copy, Default, Args)]
pub(in crate::cli) struct Past {
    /// Read the bucket as it was at this time, as in 2026-11-27T03:00:00Z: whatever was deleted, overwritten or added later does not matter.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) at: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    let example = "write date, time and zone, as in 2026-11-27T03:00:00Z or 2026-11-27T04:00+01:00";
    text.parse().map_err(|_| example.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_zone() {
        for (text, wanted) in [
            ("2026-11-27T03:00:00Z", Some("2026-11-27T03:00:00Z")),
            ("2026-11-27T04:00+01:00", Some("2026-11-27T03:00:00Z")),
            ("2026-11-27 03:00:00Z", Some("2026-11-27T03:00:00Z")),
            ("2026-11-27T03:00:00", None),
            ("2026-11-27", None),
            ("yesterday", None),
        ] {
            assert_eq!(time(text).ok().map(|time| time.to_string()).as_deref(), wanted, "{text}");
        }
    }
}
