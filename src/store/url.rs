//! Repository URLs: `s3://bucket/prefix` and `file:///absolute/path`, and clear words for everything else.
//!
//! Endpoint, region and credentials are settings, not part of the URL. What is written here is what is printed back.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::Error;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RepositoryUrl {
    /// A prefix of a bucket.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Without slashes at either end; empty is the whole bucket.
        prefix: String,
    },
    /// A directory of this machine.
    File(PathBuf),
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl FromStr for RepositoryUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(bad(text, "it begins or ends with a space, or has a control character in it"));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(text, rest);
        }
        if let Some(rest) = text.strip_prefix("file://") {
            return file(text, rest);
        }
        Err(bad(text, &advice(text)))
    }
}

fn s3(text: &str, rest: &str) -> Result<RepositoryUrl, Error> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(bad(text, "the bucket is missing: s3://BUCKET/PREFIX"));
    }
    if bucket.contains('@') {
        return Err(bad(
            text,
            "credentials do not belong into the URL: they come from the environment or a profile",
        ));
    }
    if let Some(odd) = bucket.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._".contains(*c))) {
        let advice = match odd {
            ':' => "a host and port do not belong into the URL: write s3://BUCKET/PREFIX and put the endpoint into s3.endpoint",
            _ => "a bucket's name has only letters, digits, `-` and `.`",
        };
        return Err(bad(text, advice));
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.split('/').any(|part| part == "." || part == "..") || (!prefix.is_empty() && prefix.split('/').any(str::is_empty)) {
        return Err(bad(text, "a prefix has no empty parts, no `.` and no `..`"));
    }
    if prefix.contains(['?', '#', '*', '\\']) {
        return Err(bad(text, "a prefix has no `?`, `#`, `*` and no backslash"));
    }
    Ok(RepositoryUrl::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    })
}

fn file(text: &str, rest: &str) -> Result<RepositoryUrl, Error> {
    let path = Path::new(rest);
    if !path.is_absolute() {
        return Err(bad(text, "the path must be absolute, with three slashes: file:///PATH"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(bad(text, "the path must not have `..` in it"));
    }
    if path.parent().is_none() {
        return Err(bad(text, "the root directory cannot be a repository"));
    }
    Ok(RepositoryUrl::File(path.components().collect()))
}

/// What was probably meant.
fn advice(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if text.is_empty() {
        "it is empty: write s3://BUCKET/PREFIX or file:///PATH".to_owned()
    } else if lower.starts_with("http://") || lower.starts_with("https://") {
        "write s3://BUCKET/PREFIX, and put the address of the server into s3.endpoint".to_owned()
    } else if lower.starts_with("s3:") {
        meant("s3://", text[3..].trim_start_matches('/'))
    } else if lower.starts_with("file:") {
        meant("file:///", text[5..].trim_start_matches('/'))
    } else if text.starts_with('/') {
        meant("file://", text)
    } else {
        "write s3://BUCKET/PREFIX or file:///PATH".to_owned()
    }
}

fn meant(scheme: &str, rest: &str) -> String {
    format!("did you mean {}?", without_secrets(&format!("{scheme}{rest}")).escape_debug())
}

fn bad(text: &str, why: &str) -> Error {
    Error::BadUrl {
        message: format!("`{}` is not a repository URL: {why}", without_secrets(text).escape_debug()),
    }
}

/// What stands before an `@` may be a password, and messages end up in logs.
pub(super) fn without_secrets(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, after)) => format!("{}…@{after}", &before[..before.find("://").map_or(0, |at| at + 3)]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_are_read_and_printed_back() {
        let cases = [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my.bucket-1/matrix/home", "s3://my.bucket-1/matrix/home"),
            ("s3://bucket/matrix/", "s3://bucket/matrix"),
            ("file:///srv/backup", "file:///srv/backup"),
            ("file:///srv/backup/", "file:///srv/backup"),
            ("file:///srv//ba ckup/ü", "file:///srv/ba ckup/ü"),
        ];
        for (given, printed) in cases {
            let read: Result<RepositoryUrl, _> = given.parse();
            assert_eq!(read.map(|url| url.to_string()).ok().as_deref(), Some(printed), "{given}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        let cases = [
            ("", "s3://BUCKET/PREFIX or file:///PATH"),
            ("bucket/prefix", "write s3://BUCKET/PREFIX or file:///PATH"),
            ("s3:bucket", "did you mean s3://bucket?"),
            ("s3:/bucket/x", "did you mean s3://bucket/x?"),
            ("S3://bucket", "did you mean s3://bucket?"),
            ("s3://", "the bucket is missing"),
            ("s3:///prefix", "the bucket is missing"),
            ("s3://buck et/x", "a bucket's name"),
            (
                "s3://key:secret@bucket",
                "`s3://…@bucket` is not a repository URL: credentials do not belong",
            ),
            ("https://key:secret@host/bucket", "`https://…@host/bucket`"),
            ("s3://key@bucket", "credentials do not belong"),
            (
                "s3:/key:secret@bucket/x",
                "`…@bucket/x` is not a repository URL: did you mean s3://…@bucket/x?",
            ),
            (
                "s3:key:secret@bucket/x",
                "`…@bucket/x` is not a repository URL: did you mean s3://…@bucket/x?",
            ),
            (
                "S3://key:secret@bucket",
                "`S3://…@bucket` is not a repository URL: did you mean s3://…@bucket?",
            ),
            ("file:user:secret@x", "`…@x` is not a repository URL: did you mean file://…@x?"),
            ("s3://localhost:9000/bucket", "s3.endpoint"),
            ("s3://bucket//x", "no empty parts"),
            ("s3://bucket/a/../b", "no `..`"),
            ("s3://bucket/a?x=1", "no `?`"),
            ("s3://bucket/a\nb", "control character"),
            (" s3://bucket", "space"),
            ("http://localhost:9000/bucket", "s3.endpoint"),
            ("HTTPS://s3.amazonaws.com/bucket", "s3.endpoint"),
            ("file://srv/backup", "three slashes"),
            ("file:srv/backup", "did you mean file:///srv/backup?"),
            ("file:///", "root directory"),
            ("file:///srv/../etc", "`..`"),
            ("/srv/backup", "did you mean file:///srv/backup?"),
            ("azure://x", "write s3://BUCKET/PREFIX or file:///PATH"),
        ];
        for (given, wanted) in cases {
            let read: Result<RepositoryUrl, _> = given.parse();
            let message = read.map_or_else(|error| error.to_string(), |url| format!("accepted as {url:?}"));
            assert!(message.contains(wanted), "{given}: {message}");
            assert!(!message.contains('\n'), "{given}: one line");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
