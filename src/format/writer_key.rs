//! The writer key: what stays on the server. It opens metadata, which deduplication must read, and signs snapshots.
//!
//! One file holds both halves: an age identity, so that `age -d -i` opens metadata by hand, and the seed of an Ed25519 key on a line
//! that age takes for a comment. Who restores can pin the public half of the latter, the signer.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::seal::{Identity, Recipient};
use super::{Error, ObjectId, Result};

/// How the line of the seed begins.
const SEED_LINE: &str = "# signing key: ";
/// What is signed begins so, so that a signature over anything else is none.
const CONTEXT: &[u8] = b"synapse-backup snapshot 1\n";
const WHAT: &str = "writer key";

/// Both secret halves. Their memory is wiped when they are dropped.
#[derive(Clone)]
pub struct WriterKey {
    identity: Identity,
    seed: Zeroizing<[u8; 32]>,
}

impl WriterKey {
    /// A fresh one; `seed` is random.
    pub fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self {
            identity: Identity::generate(),
            seed,
        }
    }

    /// Opens metadata.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// To whom metadata is sealed.
    pub fn recipient(&self) -> Recipient {
        self.identity.recipient()
    }

    /// The public half that signatures are checked with.
    pub fn signer(&self) -> Signer {
        Signer(self.signing().verifying_key().to_bytes())
    }

    /// The file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(hex::encode(*self.seed));
        Zeroizing::new(format!(
            "# synapse-backup writer key: opens names and lists of a repository, never content, and signs its snapshots\n\
             # public key: {}\n# signer: {}\n{SEED_LINE}{}\n{}\n",
            self.recipient(),
            self.signer(),
            *seed,
            *self.identity.to_text(),
        ))
    }

    /// Reads the file. No message holds any of it.
    pub fn from_text(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::Invalid {
            what: WHAT,
            reason: reason.into(),
        };
        let mut seed = None;
        let mut identity = None;
        for line in text.lines().map(str::trim) {
            if let Some(hex) = line.strip_prefix(SEED_LINE) {
                let mut bytes = Zeroizing::new([0; 32]);
                hex::decode_to_slice(hex, &mut *bytes).map_err(|_| invalid("its signing key is not 64 hex digits"))?;
                seed = Some(bytes);
            } else if !line.is_empty() && !line.starts_with('#') {
                identity = Some(line.parse().map_err(invalid)?);
            }
        }
        Ok(Self {
            identity: identity.ok_or_else(|| invalid("it has no line AGE-SECRET-KEY-1…"))?,
            seed: seed.ok_or_else(|| invalid("it has no signing key"))?,
        })
    }

    /// Signs a document for a repository.
    pub(super) fn sign(&self, repository: ObjectId, document: &[u8]) -> Signature {
        Signature {
            repository,
            signer: self.signer(),
            bytes: self.signing().sign(&message(repository, document)).to_bytes(),
            is_good: true,
        }
    }

    fn signing(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed)
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey of {}", self.signer())
    }
}

/// Who signs: the public half of a writer key, 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signer([u8; 32]);

impl Signer {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the key's bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Is this a signature of this signer over this document, in this repository?
    pub(super) fn has_signed(&self, repository: ObjectId, document: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(&message(repository, document), &Ed25519::from_bytes(signature)))
            .is_ok()
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Signer {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| "a signer is 64 hex digits, as `show` prints it")?;
        Ok(Self(bytes))
    }
}

/// A signature in a snapshot's trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The repository it was made for.
    pub repository: ObjectId,
    /// Who claims to have made it.
    pub signer: Signer,
    pub(super) bytes: [u8; 64],
    /// It is this signer's, over this very document.
    pub is_good: bool,
}

fn message(repository: ObjectId, document: &[u8]) -> Vec<u8> {
    let digest: [u8; 32] = Sha256::digest(document).into();
    [CONTEXT, repository.as_bytes().as_slice(), &digest].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_file_is_read_back_and_age_would_read_it_too() {
        let key = WriterKey::new(Zeroizing::new([7; 32]));
        let text = key.to_text();
        let again = WriterKey::from_text(&text).unwrap();
        assert_eq!((again.recipient(), again.signer()), (key.recipient(), key.signer()));
        let identities: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(identities.len(), 1);
        assert!(identities[0].starts_with("AGE-SECRET-KEY-1"));
        assert!(!format!("{key:?}").contains(&hex::encode([7; 32])));
    }

    #[test]
    fn a_signature_is_for_one_document_in_one_repository_by_one_signer() {
        let key = WriterKey::new(Zeroizing::new([7; 32]));
        let other = WriterKey::new(Zeroizing::new([8; 32]));
        let (here, there) = (ObjectId::from_bytes([1; 16]), ObjectId::from_bytes([2; 16]));
        let made = key.sign(here, b"document");
        assert!(made.signer.has_signed(here, b"document", &made.bytes));
        for (signer, repository, document) in [
            (key.signer(), there, &b"document"[..]),
            (key.signer(), here, &b"documenT"[..]),
            (other.signer(), here, &b"document"[..]),
        ] {
            assert!(!signer.has_signed(repository, document, &made.bytes));
        }
    }
}
