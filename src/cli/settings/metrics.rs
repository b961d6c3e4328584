//! The section `metrics`: to whom the end of a run is told.
//!
//! The address of a monitor is a secret, since whoever knows it can say that all is well: no message shows any part of it, and
//! it has no `Debug`. It is checked here, where a mistake can still be named with its place.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::values::{AbsolutePath, parsed};

/// What `{command}` in the address stands for is put in by whoever asks.
pub(in crate::cli) const COMMAND: &str = "{command}";

/// Where the end of a run is told.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Metrics {
    pub(in crate::cli) textfile: Option<TextFile>,
    pub(in crate::cli) ping_url: Option<PingUrl>,
}

/// A file that Prometheus' `node_exporter` reads.
#[derive(Debug, Clone)]
pub(in crate::cli) struct TextFile(pub(in crate::cli) PathBuf);

/// The address of a monitor. A secret, hence no `Debug`.
#[derive(Clone)]
pub(in crate::cli) struct PingUrl(pub(in crate::cli) Zeroizing<String>);

impl FromStr for TextFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let AbsolutePath(path) = text.parse()?;
        if path.extension().is_some_and(|extension| extension == "prom") {
            Ok(Self(path))
        } else {
            Err("the name of `metrics.textfile` must end in `.prom`: node_exporter reads no others, and the file is replaced".into())
        }
    }
}

impl FromStr for PingUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = address.and_then(|rest| rest.split(['/', '?', '#']).next());
        let wrong = match host {
            None | Some("") => "must begin with https:// and a host",
            Some(host) if host.contains('@') => "has a user in it, which is not sent: leave that out",
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => "has a space or a letter in it that no address has",
            _ if text.replace(COMMAND, "").contains(['{', '}']) => "has a `{…}` in it that is not `{command}`",
            _ => return Ok(Self(Zeroizing::new(text.to_owned()))),
        };
        // The address itself is not shown.
        Err(format!("`metrics.ping_url` {wrong}"))
    }
}

impl<'de> Deserialize<'de> for TextFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for PingUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_never_shown() {
        for good in [
            "https://hc-ping.com/0f3a-hunter2",
            "http://127.0.0.1:8000/ping/hunter2?create=1",
            "https://hc-ping.com/hunter2/synapse-{command}",
        ] {
            assert!(good.parse::<PingUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "hunter2",
            "ftp://host/hunter2",
            "https://",
            "https:///hunter2",
            "https://user:hunter2@host/",
            "https://host/hunter2 x",
            "https://host/hunter2\n",
            "https://host/{hunter2}",
            "https://host/hunter2/{command",
        ] {
            let message = bad.parse::<PingUrl>().err().unwrap_or_default();
            assert!(message.starts_with("`metrics.ping_url` "), "{bad}: {message}");
            assert!(!message.contains("hunter2"), "{bad}: {message}");
        }
    }

    #[test]
    fn a_text_file_has_the_name_that_its_reader_wants() {
        for (path, good) in [
            ("/var/lib/node_exporter/synapse-backup.prom", true),
            ("synapse-backup.prom", false),
            ("/etc/passwd", false),
            ("/x.prom/", true),
        ] {
            assert_eq!(path.parse::<TextFile>().is_ok(), good, "{path}");
        }
    }
}
