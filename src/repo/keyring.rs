//! The keys of a call: to whom objects are sealed, what opens them, and whose signature counts.
//!
//! Recipients come from the settings and never from the bucket, where a thief could add himself. Data packs are sealed to the
//! recipients alone; what deduplication must read (segments, lists, shards, snapshots) to the writer key as well.

use std::fmt;

use super::snapshots::Loaded;
use super::{Error, Repository};
use crate::format::seal::{Header, Identity, Recipient};
use crate::format::writer_key::{Signer, WriterKey};
use crate::format::{PackKind, keys};

/// All keys at hand. Empty for a repository that is not sealed.
#[derive(Clone, Default)]
pub struct Keyring {
    /// Who can open everything.
    pub recipients: Vec<Recipient>,
    /// What stays on the server.
    pub writer: Option<WriterKey>,
    /// The file of the writer key and why it cannot be read, where it seems to be there.
    pub writer_unread: Option<String>,
    /// What opens data.
    pub identities: Vec<Identity>,
    /// Whose signatures count; beside them the writer key's own.
    pub signers: Vec<Signer>,
    /// Take snapshots that nobody known has signed.
    pub unsigned: bool,
}

/// What opens something of a sealed repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Content: an identity, and nothing else.
    Identity,
    /// Names and lists, to be read.
    AnyKey,
    /// The same, to go on from them: a server has no identity to read them with.
    WriterKey,
}

impl Needs {
    /// An object of this key.
    pub(crate) fn to_open(key: &str) -> Self {
        if key.starts_with(keys::PACKS) {
            Self::Identity
        } else {
            Self::AnyKey
        }
    }

    /// What the user can do about it.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Identity => "an identity of one of its recipients opens it, and the writer key does not: `--identity FILE`",
            Self::AnyKey => {
                "names and lists open with the writer key (`encryption.writer_key_file`) or with an identity: `--identity FILE`"
            }
            Self::WriterKey => {
                "whoever writes needs the writer key that `init` made (`encryption.writer_key_file`); where it is lost, `rekey --new-writer-key` with an identity makes another"
            }
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::AnyKey => "key",
            Self::WriterKey => "writer key",
        })
    }
}

impl Keyring {
    /// Nothing here was given: a repository that is sealed cannot be read, one that is not can.
    pub fn is_empty(&self) -> bool {
        self.recipients.is_empty() && self.identities.is_empty()
    }

    /// Whom packs of this kind are sealed to.
    pub fn recipients_of(&self, kind: PackKind) -> Vec<Recipient> {
        match kind {
            PackKind::Database | PackKind::Media => self.recipients.clone(),
            PackKind::Metadata => self.recipients_of_metadata(),
        }
    }

    /// Whom segments, metadata packs and snapshots are sealed to.
    pub fn recipients_of_metadata(&self) -> Vec<Recipient> {
        let writer = self.writer.as_ref().map(WriterKey::recipient);
        self.recipients.iter().cloned().chain(writer).collect()
    }

    /// Everything that may open something.
    pub fn openers(&self) -> Vec<Identity> {
        let writer = self.writer.as_ref().map(|writer| writer.identity().clone());
        self.identities.iter().cloned().chain(writer).collect()
    }

    /// Objects can be sealed as they must be.
    pub fn can_write(&self) -> bool {
        !self.recipients.is_empty() && self.writer.is_some()
    }

    /// Is this signer one of those that were pinned, or the writer key here?
    pub fn knows(&self, signer: Signer) -> bool {
        self.signers.contains(&signer) || self.writer.as_ref().is_some_and(|writer| writer.signer() == signer)
    }

    /// Some signers are known, so that others are not believed.
    pub fn pins(&self) -> bool {
        !self.signers.is_empty() || self.writer.is_some()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Keyring({} recipients, {} identities)",
            self.recipients.len(),
            self.identities.len()
        )
    }
}

impl Repository {
    /// The keys at hand.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// To how many an object is sealed, and which of [`Keyring::openers`] open it; `None` in a repository that is not sealed.
    pub async fn seal_of(&self, key: &str) -> Result<Option<Header>, Error> {
        match &self.sealed {
            Some(sealed) => Ok(Some(sealed.header(key).await?)),
            None => Ok(None),
        }
    }

    /// Who has signed this snapshot for this repository: a signer who counts, else any whose signature is good.
    pub fn signer_of(&self, loaded: &Loaded) -> Option<Signer> {
        let good = || {
            let here = loaded
                .signatures
                .iter()
                .filter(|made| made.repository == self.info.id && made.is_good);
            here.map(|made| made.signer)
        };
        good().find(|signer| self.keyring.knows(*signer)).or_else(|| good().next())
    }

    /// Why this snapshot is not to be believed; `None`: it is authentic, as far as the keys at hand can tell.
    ///
    /// In a repository that is not sealed nothing need be signed, unless signers are pinned; a signature that is there must be good.
    pub fn doubt(&self, loaded: &Loaded) -> Option<String> {
        if self.keyring.unsigned {
            return None;
        }
        let pins = self.keyring.pins();
        match self.signer_of(loaded) {
            Some(signer) if pins && !self.keyring.knows(signer) => {
                Some(format!("it is signed by {signer}, which is not one of the known signers"))
            }
            Some(_) => None,
            None if loaded.signatures.iter().any(|made| made.repository == self.info.id) => {
                Some("its signature is not of this document: it was changed or forged".into())
            }
            None if loaded.signatures.is_empty() && !pins && !self.info.sealed => None,
            None if loaded.signatures.is_empty() => Some("it is not signed".into()),
            None if !pins && !self.info.sealed => None,
            None => Some("it was signed for another repository".into()),
        }
    }

    /// Refuse a snapshot that is not to be believed.
    pub fn trust(&self, loaded: &Loaded) -> Result<(), Error> {
        self.doubt(loaded).map_or(Ok(()), |reason| {
            Err(Error::NotAuthentic {
                snapshot: loaded.snapshot.id.to_string(),
                reason,
            })
        })
    }
}
