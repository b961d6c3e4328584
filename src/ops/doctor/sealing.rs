//! Can what is written be sealed, and opened again by somebody?
//!
//! A repository that is not sealed was made so with a word of its own (`init --unencrypted`), which is told and no more. In a
//! sealed one, what is missing would stop tonight's backup; what is single may be lost.

use super::Report;
use crate::repo::Repository;

pub(super) fn check(repository: &Repository, report: &mut Report) {
    let keyring = repository.keyring();
    if !repository.info().sealed {
        let message = "the repository is not sealed, as `init --unencrypted` said: whoever reads the bucket reads everything";
        return report.ok("sealing", message);
    }
    match (&keyring.writer, &keyring.writer_unread) {
        (Some(_), _) => {}
        (None, Some(why)) => report.fail(
            "writer key",
            format!("it cannot be read: {why}"),
            "run this, and every backup, as the user whose it is; nobody else should be able to read it",
        ),
        (None, None) => report.fail(
            "writer key",
            "it is not there: no backup can read the lists of earlier ones",
            "set `encryption.writer_key_file` to where it is; if it is lost, `rekey --new-writer-key` makes a new one with an identity: docs/keys.md",
        ),
    }
    match keyring.recipients.len() {
        0 => report.fail(
            "recipients",
            "the repository is sealed, and `encryption.recipients` is not set",
            "write the public keys (age1…) of those who may read into the settings: they are never taken from the bucket",
        ),
        1 => report.warn(
            "recipients",
            "there is only one: if its identity is lost, all backups are",
            "add a second one, made by `age-keygen`, whose identity lies in a safe",
        ),
        number => report.ok(
            "recipients",
            format!("{number}: each of them opens everything that is written from now on"),
        ),
    }
}
