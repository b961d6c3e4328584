//! Keys of a sealed repository, as they are spread over the server and the safe.

use synapse_backup::format::seal::Identity;
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::repo::keyring::Keyring;

/// Keys of a server: to one recipient, and with a writer key.
pub(crate) struct Keys {
    pub(crate) identity: Identity,
    pub(crate) writer: WriterKey,
}

impl Keys {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            identity: Identity::generate(),
            writer: WriterKey::new([seed; 32].into()),
        }
    }

    /// What the server has.
    pub(crate) fn of_server(&self) -> Keyring {
        Keyring {
            recipients: vec![self.identity.recipient()],
            writer: Some(self.writer.clone()),
            ..Keyring::default()
        }
    }

    /// What lies in the safe.
    pub(crate) fn of_safe(&self) -> Keyring {
        Keyring {
            identities: vec![self.identity.clone()],
            ..Keyring::default()
        }
    }

    /// Both together.
    pub(crate) fn all(&self) -> Keyring {
        Keyring {
            identities: vec![self.identity.clone()],
            ..self.of_server()
        }
    }
}
