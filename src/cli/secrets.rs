//! Secrets that stand where something else was expected: what was typed there is never said again.
//!
//! A secret key pasted for a file name, a URL with a password given for a snapshot: messages name the place, and leave out the
//! word. They end up in logs, in reports and at a monitor.

use std::ffi::OsString;

/// What stands for a word that is not shown.
pub(super) const HIDDEN: &str = "…";

/// A secret key of age, or a text with one in it.
pub(super) fn has_key(text: &str) -> bool {
    text.to_ascii_uppercase().contains("AGE-SECRET-KEY-")
}

/// A word that nobody may read: a key, a URL with credentials, a connection string with a password.
fn is_secret(word: &str) -> bool {
    let has_credentials = || word.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    has_key(word) || has_credentials() || word.contains("password=")
}

/// A message without those of the arguments that are secret. A flag and its value may be one word.
pub(super) fn without(message: &str, arguments: &[OsString]) -> String {
    let mut secrets: Vec<&str> = arguments
        .iter()
        .filter_map(|word| word.to_str())
        .flat_map(word_and_values)
        .collect();
    secrets.retain(|word| is_secret(word));
    // The longest first: a part of it would leave the rest.
    secrets.sort_by_key(|word| std::cmp::Reverse(word.len()));
    secrets.iter().fold(message.to_owned(), |told, secret| told.replace(secret, HIDDEN))
}

/// `--flag=name=value` whole, `name=value` and `value`.
fn word_and_values(word: &str) -> impl Iterator<Item = &str> {
    let values = word.match_indices('=').map(|(at, _)| &word[at + 1..]);
    std::iter::once(word).chain(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_left_out_where_it_is_secret() {
        for (argument, message, wanted) in [
            ("age1ql3z", "invalid value 'age1ql3z'", "invalid value 'age1ql3z'"),
            ("AGE-SECRET-KEY-1X", "invalid value 'AGE-SECRET-KEY-1X'", "invalid value '…'"),
            (
                "--signer=AGE-SECRET-KEY-1X",
                "invalid value 'AGE-SECRET-KEY-1X'",
                "invalid value '…'",
            ),
            (
                "age-secret-key-1x",
                "unexpected argument 'age-secret-key-1x' found",
                "unexpected argument '…' found",
            ),
            (
                "synapse=postgres://u:hunter2@h/d?a=b",
                "unexpected argument 'synapse=postgres://u:hunter2@h/d?a=b' found",
                "unexpected argument '…' found",
            ),
            (
                "synapse=host=h password=hunter2",
                "unexpected argument 'synapse=host=h password=hunter2' found",
                "unexpected argument '…' found",
            ),
            (
                "s3://bucket/x",
                "unexpected argument 's3://bucket/x' found",
                "unexpected argument 's3://bucket/x' found",
            ),
        ] {
            assert_eq!(without(message, &[argument.into()]), wanted, "{argument}");
        }
    }
}
