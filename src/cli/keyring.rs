//! From settings, flags and files to keys: recipients, the writer key, identities.
//!
//! Nothing that is read here is ever shown: messages name the file, not what stands in it.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use age::secrecy::SecretString;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::exit;
use super::secrets;
use super::settings::{AbsolutePath, Settings};
use super::terminal;
use crate::format::seal::Identity;
use crate::format::writer_key::WriterKey;
use crate::ops::Error;
use crate::repo;
use crate::repo::keyring::{Keyring, Needs};

/// Where the writer key is unless `encryption.writer_key_file` says otherwise.
const WRITER_KEY_FILE: &str = "/var/lib/synapse-backup/writer.key";
/// A file of keys is small.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// 2^22 rounds take seconds; more is no passphrase of a person.
const WORK_FACTOR_MAX: u8 = 22;
/// More identity files, by comma, beside `--identity`.
pub(super) const IDENTITY_VARIABLE: &str = "SYNAPSE_BACKUP_IDENTITY";
/// The file with the passphrase of identity files that have one.
pub(super) const PASSPHRASE_VARIABLE: &str = "SYNAPSE_BACKUP_IDENTITY_PASSPHRASE_FILE";

/// How often a person may try a passphrase.
const TRIES: usize = 3;

/// The files that flags and environment name, for whoever opens a repository later.
#[derive(Debug, Default)]
pub(super) struct IdentityFiles {
    files: Vec<PathBuf>,
    passphrase: Option<PathBuf>,
    /// Read once, so that a passphrase is asked for once.
    found: OnceLock<Vec<Identity>>,
}

impl IdentityFiles {
    /// Those of the flags, then those of the environment.
    pub(super) fn new(flags: &[PathBuf], environment: &Environment) -> Self {
        let named = environment
            .get(IDENTITY_VARIABLE)
            .and_then(|list| list.to_str())
            .unwrap_or_default();
        let named = named.split(',').map(str::trim).filter(|file| !file.is_empty()).map(PathBuf::from);
        Self {
            files: flags.iter().cloned().chain(named).collect(),
            passphrase: environment.path(PASSPHRASE_VARIABLE),
            found: OnceLock::new(),
        }
    }

    fn read(&self) -> Result<Vec<Identity>, Error> {
        if let Some(found) = self.found.get() {
            return Ok(found.clone());
        }
        let mut found = Vec::new();
        for file in &self.files {
            found.extend(read_identities(file, self.passphrase.as_deref())?);
        }
        Ok(self.found.get_or_init(|| found).clone())
    }
}

/// Everything that settings and flags give.
pub(super) fn keyring(settings: &Settings) -> Result<Keyring, Error> {
    let encryption = &settings.encryption;
    let recipients = encryption.recipients.iter().flatten().map(|word| word.0.clone()).collect();
    let pinned = encryption.signers.iter().flatten().map(|word| word.0);
    let writer_key = read_writer_key(
        &writer_key_file(settings),
        encryption.writer_key_file.is_some() && !settings.keys.make_writer_key,
    )?;
    let (writer, writer_unread) = match writer_key {
        Found::Key(key) => (Some(*key), None),
        Found::Nothing => (None, None),
        Found::Unread(why) => (None, Some(why)),
    };
    Ok(Keyring {
        recipients,
        writer,
        writer_unread,
        identities: settings.keys.identities.read()?,
        signers: settings.keys.signers.iter().copied().chain(pinned).collect(),
        unsigned: settings.keys.accept_unsigned,
    })
}

/// Where it is, or would be.
pub(super) fn writer_key_file(settings: &Settings) -> PathBuf {
    let set = settings.encryption.writer_key_file.as_ref();
    set.map_or_else(|| PathBuf::from(WRITER_KEY_FILE), |AbsolutePath(path)| path.clone())
}

/// What is in the place of the writer key.
#[derive(Debug)]
enum Found {
    Key(Box<WriterKey>),
    Nothing,
    /// The file, and why.
    Unread(String),
}

/// The writer key, if it is there. One that was named and cannot be read is an error; one that is missing, or is another user's in the
/// usual place, only tells itself where it is needed.
fn read_writer_key(file: &Path, named: bool) -> Result<Found, Error> {
    writer_key_of(read(file), file, named)
}

fn writer_key_of(text: std::io::Result<Zeroizing<Vec<u8>>>, file: &Path, named: bool) -> Result<Found, Error> {
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !named => {
            return Ok(Found::Unread(format!("{}: {error}", file.display())));
        }
        Err(error) => {
            return Err(Error::usage(
                format!("`encryption.writer_key_file`: {}: {error}", file.display()),
                "`init` makes it, readable for its owner only: run as that user",
            ));
        }
    };
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let key = WriterKey::from_text(text).map_err(|error| {
        Error::usage(
            format!("`encryption.writer_key_file`: {}: {error}", file.display()),
            "it must be the file that `init` or `rekey --new-writer-key` made",
        )
    })?;
    Ok(Found::Key(Box::new(key)))
}

/// The error of a call that no key here could help, with the writer key, if that could and were readable.
pub(super) fn explained(error: anyhow::Error, settings: &Settings) -> anyhow::Error {
    explained_by(error, || read_writer_key(&writer_key_file(settings), false))
}

fn explained_by(error: anyhow::Error, look: impl FnOnce() -> Result<Found, Error>) -> anyhow::Error {
    let needs = error.chain().find_map(|link| link.downcast_ref::<repo::Error>()?.needs());
    if exit::of_error(&error) != exit::NO_KEY || needs == Some(Needs::Identity) {
        return error;
    }
    match look() {
        Ok(Found::Unread(why)) => error.context(format!("there is a writer key that cannot be read: {why}")),
        _ => error,
    }
}

/// A new writer key, unless there is one already; its file is readable for its owner only.
pub(super) fn make_writer_key(settings: &Settings) -> Result<WriterKey, Error> {
    let file = writer_key_file(settings);
    if let Found::Key(key) = read_writer_key(&file, true)? {
        return Ok(*key);
    }
    let cannot = |error: std::io::Error| {
        Error::usage(
            format!("the writer key `{}` cannot be written: {error}", file.display()),
            "make its folder, or set `encryption.writer_key_file` to a place that this user can write",
        )
    };
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| cannot(std::io::Error::other(error.to_string())))?;
    let key = WriterKey::new(seed);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(cannot)?;
    }
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .map_err(cannot)?;
    made.write_all(key.to_text().as_bytes())
        .and_then(|()| made.sync_all())
        .map_err(cannot)?;
    Ok(key)
}

fn read(file: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The identities in a file as `age-keygen` writes it, also one that a passphrase protects.
fn read_identities(file: &Path, passphrase: Option<&Path>) -> Result<Vec<Identity>, Error> {
    if secrets::has_key(&file.to_string_lossy()) {
        let hint =
            "what stands on a command line or in the environment is seen by others: write the key into a file that only you can read";
        return Err(Error::usage(
            format!("--identity (or {IDENTITY_VARIABLE}) takes the name of a file, not the key itself"),
            hint,
        ));
    }
    let refused = |message: String, hint: &str| Error::usage(format!("--identity {}: {message}", file.display()), hint);
    let bytes = read(file).map_err(|error| refused(error.to_string(), "name the file that `age-keygen` wrote"))?;
    let bytes = if is_sealed(&bytes) {
        unlock(file, &bytes, passphrase)?
    } else {
        bytes
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let identities: Result<Vec<Identity>, _> = lines.map(str::parse).collect();
    identities.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
        refused(
            "it holds no age identity".into(),
            "an identity is a line AGE-SECRET-KEY-1…; `age-keygen -o FILE` makes one",
        )
    })
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/") || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

/// With the passphrase of the file that was named, or else with what a person types.
fn unlock(file: &Path, bytes: &[u8], passphrase: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let refused = |message: String, hint: &str| Error::usage(format!("--identity {}: {message}", file.display()), hint);
    let hint = "is it the passphrase of this very file?";
    if let Some(passphrase) = passphrase {
        // Not by its name: somebody may have written the passphrase itself.
        let unread = |error: std::io::Error| {
            refused(
                format!("{PASSPHRASE_VARIABLE}: {error}"),
                "it takes the name of a file, whose first line is the passphrase",
            )
        };
        let line = read(passphrase).map_err(unread)?;
        let text = std::str::from_utf8(&line).unwrap_or_default();
        return unlock_with(bytes, text.lines().next().unwrap_or_default()).map_err(|message| refused(message, hint));
    }
    let mut wrong = None;
    for _ in 0..TRIES {
        let Some(words) = terminal::ask_secret(&format!("passphrase of {}: ", file.display()))? else {
            return Err(refused(
                "a passphrase protects it, and there is no terminal to ask for it".into(),
                "write the passphrase into a file that only you can read, and name it in SYNAPSE_BACKUP_IDENTITY_PASSPHRASE_FILE",
            ));
        };
        match unlock_with(bytes, &words) {
            Ok(plain) => return Ok(plain),
            Err(message) => wrong = Some(message),
        }
    }
    Err(refused(wrong.unwrap_or_default(), hint))
}

fn unlock_with(bytes: &[u8], words: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut identity = age::scrypt::Identity::new(SecretString::from(words.to_owned()));
    identity.set_max_work_factor(WORK_FACTOR_MAX);
    let armored = age::armor::ArmoredReader::new(bytes);
    let decryptor = age::Decryptor::new_buffered(armored).map_err(|error| error.to_string())?;
    let opened = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity));
    let mut plain = Zeroizing::new(Vec::new());
    let mut reader = opened.map_err(|error| error.to_string())?;
    reader.read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// Root reads everything, so that the refusal is told to it.
    #[test]
    fn a_writer_key_that_another_user_has_is_not_taken_for_none() {
        let file = Path::new("/k");
        let found = |kind: ErrorKind, named| writer_key_of(Err(kind.into()), file, named);
        assert!(matches!(found(ErrorKind::NotFound, true), Ok(Found::Nothing)));
        assert!(matches!(found(ErrorKind::PermissionDenied, false), Ok(Found::Unread(why)) if why == "/k: permission denied"));
        let refused = found(ErrorKind::PermissionDenied, true).unwrap_err().message;
        assert_eq!(refused, "`encryption.writer_key_file`: /k: permission denied");
    }

    #[test]
    fn a_writer_key_that_cannot_be_read_is_told_where_it_would_have_helped() {
        for (needs, told) in [
            (Needs::Identity, "no identity here opens x"),
            (Needs::AnyKey, "there is a writer key that cannot be read: /k"),
            (Needs::WriterKey, "there is a writer key that cannot be read: /k"),
        ] {
            let what = "x".to_owned();
            let error = anyhow::Error::from(repo::Error::NoKey { what, needs });
            let explained = explained_by(error, || Ok(Found::Unread("/k".into())));
            assert_eq!(explained.to_string(), told);
            assert_eq!(exit::of_error(&explained), exit::NO_KEY);
        }
    }

    #[test]
    fn a_key_or_passphrase_in_the_place_of_a_file_is_not_shown() {
        let told = |error: Error| format!("{} {}", error.message, error.hint.unwrap_or_default());
        let key = read_identities(Path::new("AGE-SECRET-KEY-1HUNTER2"), None).map(|_| ());
        assert!(!told(key.unwrap_err()).contains("HUNTER2"));
        let passphrase = unlock(Path::new("locked.age"), b"", Some(Path::new("hunter2"))).map(|_| ());
        let told = told(passphrase.unwrap_err());
        assert!(!told.contains("hunter2") && told.contains(PASSPHRASE_VARIABLE), "{told}");
    }
}
