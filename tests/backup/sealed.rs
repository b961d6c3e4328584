//! A homeserver in a sealed repository: backed up without any secret, drilled and verified with an identity, and by nobody else.

use std::fs;
use std::sync::Arc;

use synapse_backup::format::seal::{Identity, Recipient};
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::ops::drill::{self, Databases};
use synapse_backup::ops::verify;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::Store;

use crate::drill::{drilled, options};
use crate::homeserver::Home;
use crate::rig::{LIMITS, backup, memory, run, tools};

/// Two recipients, as it should be, and the key that stays on the server.
pub(crate) struct Keys {
    identities: [Identity; 2],
    writer: WriterKey,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            identities: [Identity::generate(), Identity::generate()],
            writer: WriterKey::new([7; 32].into()),
        }
    }

    pub(crate) async fn init(&self, store: Arc<dyn Store>) -> Repository {
        open::init_with(store, Ids::random(), self.of_server()).await.unwrap()
    }

    /// What the server has: nothing that opens content.
    pub(crate) fn of_server(&self) -> Keyring {
        Keyring {
            writer: Some(self.writer.clone()),
            ..self.without_writer()
        }
    }

    pub(crate) fn without_writer(&self) -> Keyring {
        Keyring {
            recipients: self.recipients().collect(),
            ..Keyring::default()
        }
    }

    pub(crate) fn with_recipients(&self, number: usize) -> Keyring {
        Keyring {
            recipients: self.recipients().take(number).collect(),
            ..self.of_server()
        }
    }

    fn recipients(&self) -> impl Iterator<Item = Recipient> {
        self.identities.iter().map(Identity::recipient)
    }

    /// What the machine has that drills: one identity, and whose signature it believes.
    fn of_driller(&self, identity: usize) -> Keyring {
        Keyring {
            identities: vec![self.identities[identity].clone()],
            signers: vec![self.writer.signer()],
            ..Keyring::default()
        }
    }
}

async fn open_with(store: Arc<dyn Store>, keyring: Keyring) -> Repository {
    open::open_with(store, Ids::random(), keyring).await.unwrap()
}

async fn verified(repository: &Repository) -> anyhow::Result<verify::Report> {
    let options = verify::Options {
        snapshot: None,
        read_data: Some(verify::ReadData::Percent(100)),
        repair_index: false,
        tools: Some(tools()),
        limits: LIMITS,
    };
    verify::verify(repository, &options, &run()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn either_identity_drills_and_verifies_what_the_server_could_not_read() {
    let (home, memory, keys) = (Home::new(), memory(), Keys::new());
    backup(&keys.init(memory.clone()).await, &home).await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    for identity in [0, 1] {
        let repository = open_with(memory.clone(), keys.of_driller(identity)).await;
        let databases = match identity {
            0 => Databases::Private,
            _ => options(folder.path(), "latest", "drill_sealed").databases,
        };
        let options = drill::Options {
            databases,
            ..options(folder.path(), "latest", "")
        };
        let report = drilled(&repository, &options).await;
        assert_eq!(report.problems, []);
        assert!(report.passed && report.recorded, "{report:#?}");
        let report = verified(&repository).await.unwrap();
        assert_eq!(report.problems, []);
        assert!(report.blobs_read > 0 && report.streams_read > 0, "{report:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing remains");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_drills_it_and_nothing_remains_of_the_attempt() {
    let (home, memory, keys) = (Home::new(), memory(), Keys::new());
    backup(&keys.init(memory.clone()).await, &home).await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = Keyring {
        identities: vec![Identity::generate()],
        ..Keyring::default()
    };
    for (who, keyring) in [
        ("the server", keys.of_server()),
        ("a stranger", stranger),
        ("nobody", Keyring::default()),
    ] {
        let repository = open_with(memory.clone(), keyring).await;
        let ended = drill::drill(&repository, &options(folder.path(), "latest", "drill_refused"), &run()).await;
        match ended {
            Ok(report) => assert!(!report.passed && !report.problems.is_empty(), "{who}: {report:#?}"),
            Err(error) => assert!(format!("{error:#}").contains("key"), "{who}: {error:#}"),
        }
        let is_good = verified(&repository).await.is_ok_and(|report| report.problems.is_empty());
        assert!(!is_good, "{who}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
