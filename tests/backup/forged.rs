//! A snapshot that somebody else wrote: whatever it says, nothing is written outside of the target.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use jiff::SignedDuration;
use synapse_backup::format::manifest::{Shard, ShardRef, decode_shard, decode_shard_ref, encode_shard, encode_shard_ref};
use synapse_backup::format::snapshot::{ConfigItem, ConfigKind, ConfigRole, ProblemKind, Snapshot, encode};
use synapse_backup::format::{BlobId, ItemPath, PackKind};
use synapse_backup::ops::restore::Options;
use synapse_backup::repo::reader::{Reader, Wanted};
use synapse_backup::repo::writer::{Budget, Gatherer, ListWriter, Writer};
use synapse_backup::repo::{Repository, catalog};

use crate::homeserver::Home;
use crate::rig::{LIMITS, backup, document, fresh, key_of, restore, restore_files_to};
use crate::tree::{Thing, tree};

/// A repository, the document of a true snapshot in it, and a folder that must stay empty.
pub(crate) struct Forger {
    pub(crate) home: Home,
    pub(crate) repository: Repository,
    pub(crate) document: Snapshot,
    outside: tempfile::TempDir,
}

impl Forger {
    async fn new() -> Self {
        Self::of(Home::new(), fresh().await).await
    }

    /// Of this homeserver, in this repository.
    pub(crate) async fn of(home: Home, repository: Repository) -> Self {
        let id = backup(&repository, &home).await.snapshot.unwrap();
        Self {
            document: document(&repository, &id).await,
            home,
            repository,
            outside: tempfile::tempdir().unwrap(),
        }
    }

    /// Put a changed document beside the true one; gives its id.
    pub(crate) async fn put(&self, change: impl FnOnce(&mut Snapshot)) -> String {
        let mut document = self.document.clone();
        document.id = self.repository.ids().object();
        change(&mut document);
        let not_after = self.repository.date().await.unwrap() + SignedDuration::from_hours(1);
        let body = encode(&document, not_after).unwrap();
        self.repository.store().put(&key_of(&document), body.into()).await.unwrap();
        document.id.to_string()
    }

    /// A true file with another path and role.
    fn file(&self, path: &[u8], role: ConfigRole) -> ConfigItem {
        let log = self
            .document
            .config
            .iter()
            .find(|item| item.path.to_string().ends_with("log.yaml"))
            .unwrap();
        ConfigItem {
            path: ItemPath::from_bytes(path),
            role,
            ..log.clone()
        }
    }

    fn link(&self, path: &str, target: &Path) -> ConfigItem {
        ConfigItem {
            kind: ConfigKind::Symlink,
            bytes: 0,
            sha256: None,
            list: synapse_backup::format::list::List::default(),
            target: Some(ItemPath::from(target)),
            ..self.file(path.as_bytes(), ConfigRole::Other)
        }
    }

    fn folder(&self, path: &str) -> ConfigItem {
        ConfigItem {
            kind: ConfigKind::Directory,
            target: None,
            ..self.link(path, Path::new("/"))
        }
    }

    fn assert_outside_is_empty(&self, why: &str) {
        assert_eq!(tree(self.outside.path()).len(), 0, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_out_of_the_target_are_named_and_not_written() {
    let forger = Forger::new().await;
    let target = tempfile::tempdir().unwrap();
    let long = [b"/etc/".as_slice(), &[b'x'; 300]].concat();
    let cases: [&[u8]; 9] = [
        b"/etc/../../../escaped",
        b"/..",
        b"/etc/..",
        b"relative/path",
        b"",
        b"/",
        b"/etc/nul\0byte",
        b"../escaped",
        &long,
    ];
    for (number, path) in cases.iter().enumerate() {
        let name = path.escape_ascii().to_string();
        for role in [ConfigRole::Other, ConfigRole::Homeserver] {
            let id = forger.put(|document| document.config = vec![forger.file(path, role)]).await;
            let to = target.path().join(format!("{number} {role:?}"));
            let report = restore(&forger.repository, &id, &restore_files_to(&to)).await.unwrap();
            assert_eq!(report.problems.len(), 1, "{name}: {:#?}", report.problems);
            assert_eq!(report.config_items, 0, "{name}");
        }
        // Without its key the server would make itself a new identity.
        let items = vec![
            forger.file(path, ConfigRole::SigningKey),
            forger.file(b"/etc/homeserver.yaml", ConfigRole::Homeserver),
        ];
        let id = forger.put(|document| document.config = items).await;
        let to = target.path().join(format!("{number} key"));
        let error = restore(&forger.repository, &id, &restore_files_to(&to)).await.expect_err(&name);
        assert!(error.contains("signing key"), "{name}: {error}");
        let written = if to.exists() { tree(&to) } else { BTreeMap::new() };
        assert!(!written.keys().any(|path| path.ends_with("homeserver.yaml")), "{name}");
    }
    let strays = tree(target.path())
        .into_iter()
        .filter(|(path, thing)| matches!(thing, Thing::File { .. }) && !path.ends_with("media") && path.ends_with("escaped"));
    assert_eq!(strays.count(), 0);
    assert!(!Path::new("/escaped").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_through_a_link_of_the_snapshot() {
    let forger = Forger::new().await;
    let outside = forger.outside.path();
    let link = |path: &str| forger.link(path, outside);
    let up = forger.link("/etc/matrix", Path::new("../../../../../../../../../../../../../../../../.."));
    let cases: Vec<(&str, Vec<ConfigItem>)> = vec![
        (
            "a file below a link",
            vec![link("/etc/matrix"), forger.file(b"/etc/matrix/x", ConfigRole::Other)],
        ),
        (
            "homeserver.yaml below a link",
            vec![
                link("/etc/matrix"),
                forger.file(b"/etc/matrix/homeserver.yaml", ConfigRole::Homeserver),
            ],
        ),
        (
            "the key below a link",
            vec![
                link("/etc/matrix"),
                forger.file(b"/etc/matrix/a/b/signing.key", ConfigRole::SigningKey),
            ],
        ),
        ("a folder below a link", vec![link("/etc/matrix"), forger.folder("/etc/matrix/x/y")]),
        ("a link below a link", vec![link("/etc/matrix"), link("/etc/matrix/x")]),
        (
            "a link and a folder in one place",
            vec![
                link("/etc/matrix"),
                forger.folder("/etc/matrix"),
                forger.file(b"/etc/matrix/x", ConfigRole::Homeserver),
            ],
        ),
        (
            "a link in the place of homeserver.yaml",
            vec![
                forger.link("/etc/h.yaml", &outside.join("h.yaml")),
                forger.file(b"/etc/h.yaml", ConfigRole::Homeserver),
            ],
        ),
        (
            "up and out",
            vec![
                up,
                forger.file(format!("/etc/matrix{}/x", outside.display()).as_bytes(), ConfigRole::Homeserver),
            ],
        ),
    ];
    for (name, items) in cases {
        let id = forger.put(|document| document.config = items).await;
        let to = tempfile::tempdir().unwrap();
        let ended = restore(&forger.repository, &id, &restore_files_to(to.path())).await;
        forger.assert_outside_is_empty(name);
        if let Ok(report) = ended {
            assert!(!report.problems.is_empty(), "{name}: it is told");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_paths_do_not_lead_through_links_either() {
    let forger = Forger::new().await;
    let items = vec![
        forger.link("/etc/one", forger.outside.path()),
        forger.file(b"/etc/two/homeserver.yaml", ConfigRole::Homeserver),
    ];
    let id = forger.put(|document| document.config = items).await;
    let to = tempfile::tempdir().unwrap();
    let options = Options {
        path_map: vec![("/etc/two".into(), "/etc/one".into())],
        ..restore_files_to(to.path())
    };
    let _ = restore(&forger.repository, &id, &options).await;
    forger.assert_outside_is_empty("mapped onto a link");
}

/// Write a media manifest of one shard with these entries, made from the true one's.
pub(crate) async fn forge_media(forger: &Forger, change: impl FnOnce(&mut Shard)) -> String {
    let repository = &forger.repository;
    let media = forger.document.media.clone().unwrap();
    let reader = Reader::open(repository, LIMITS.memory_bytes, 2).await.unwrap();
    let line = reader.read_small(&media.shards, 1 << 20).await.unwrap();
    let shard_ref: ShardRef = decode_shard_ref(&line, 1).unwrap();
    let wanted = Wanted {
        id: shard_ref.blob,
        length: shard_ref.length,
        hint: None,
    };
    let blob = reader.fetch(&[wanted]).await.unwrap().remove(0).unwrap();
    let mut shard = decode_shard(&blob).unwrap();
    change(&mut shard);
    shard.entries.sort_by(|a, b| a.path.cmp(&b.path));
    let blob = encode_shard(&shard).unwrap();

    let index = catalog::load(repository, 1 << 20).await.unwrap();
    let budget = Budget::new(LIMITS.memory_bytes, 2);
    let writer = Writer::open(repository, index.into(), std::collections::BTreeSet::new(), &budget);
    let mut shards = Gatherer::new(&writer, PackKind::Metadata);
    shards.push_one(blob.clone()).await.unwrap();
    shards.finish().await.unwrap();
    let placed = shards.ready().unwrap();
    let mut line = Vec::new();
    let forged = ShardRef {
        first: shard.entries[0].path.clone(),
        blob: BlobId::of(&blob),
        length: blob.len().try_into().unwrap(),
        pack: placed.pack,
        count: shard.entries.len() as u64,
        ..shard_ref
    };
    encode_shard_ref(&forged, &mut line).unwrap();
    let mut pieces = Gatherer::new(&writer, PackKind::Metadata);
    pieces.push_one(line).await.unwrap();
    pieces.finish().await.unwrap();
    let mut list = ListWriter::new(&writer);
    list.push(pieces.ready().unwrap()).await.unwrap();
    let list = list.finish().await.unwrap();
    let packs = writer.finish().await.unwrap().packs;
    forger
        .put(|document| {
            document.packs.extend(packs);
            document.media.as_mut().unwrap().shards = list;
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn media_paths_that_lead_out_of_the_store_are_named_and_not_written() {
    let forger = Forger::new().await;
    let absolute = forger.outside.path().join("x").display().to_string().into_bytes();
    let paths: [&[u8]; 7] = [
        b"../escaped",
        b"local_content/../../../../escaped",
        &absolute,
        b"./../escaped",
        b"nul\0byte",
        b"",
        b"local_content/./x/..",
    ];
    let id = forge_media(&forger, |shard| {
        let entry = shard.entries.iter().find(|entry| entry.bytes == 40_000).unwrap().clone();
        for path in paths {
            let path = ItemPath::from_bytes(path);
            shard
                .entries
                .push(synapse_backup::format::manifest::MediaEntry { path, ..entry.clone() });
        }
    })
    .await;
    let to = tempfile::tempdir().unwrap();
    let report = restore(&forger.repository, &id, &restore_files_to(&to.path().join("to")))
        .await
        .unwrap();
    assert_eq!(report.problems.len(), paths.len(), "{:#?}", report.problems);
    assert!(
        report
            .problems
            .iter()
            .all(|problem| matches!(problem.kind, ProblemKind::Damaged | ProblemKind::Unreadable))
    );
    assert_eq!(report.media_files, 4);
    let strays = tree(to.path()).into_keys().filter(|path| path.ends_with("escaped")).count();
    assert_eq!(strays, 0);
    forger.assert_outside_is_empty("media");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_store_that_leads_out_of_the_target_is_refused() {
    let forger = Forger::new().await;
    for root in ["/var/../../../out", "relative", "", "/var/media\0"] {
        let id = forger
            .put(|document| document.media.as_mut().unwrap().root = ItemPath::from(root))
            .await;
        let to = tempfile::tempdir().unwrap();
        let error = restore(&forger.repository, &id, &restore_files_to(to.path())).await.unwrap_err();
        assert!(error.contains("media store"), "{root}: {error}");
        assert_eq!(tree(to.path()).len(), 0, "{root}");
    }
    // The store inside of a link that would be made later, and a link in the place of the store.
    let media = forger.document.media.as_ref().unwrap().root.to_string();
    for place in [media.clone(), Path::new(&media).parent().unwrap().display().to_string()] {
        let items = vec![forger.link(&place, forger.outside.path())];
        let id = forger.put(|document| document.config = items).await;
        let to = tempfile::tempdir().unwrap();
        let _ = restore(&forger.repository, &id, &restore_files_to(to.path())).await;
        forger.assert_outside_is_empty(&place);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_stands_on_this_host_is_the_hosts_business() {
    // In place, `/etc/matrix-synapse` may well be a link of this host's; what is refused is the snapshot's own doing.
    let home = Home::new();
    let repository = fresh().await;
    backup(&repository, &home).await;
    fs::rename(home.at("etc"), home.at("old")).unwrap();
    fs::create_dir(home.at("elsewhere")).unwrap();
    symlink("elsewhere", home.at("etc")).unwrap();
    let options = Options {
        to: None,
        parts: [synapse_backup::ops::Part::Config].into(),
        ..restore_files_to(Path::new("/"))
    };
    let report = restore(&repository, "latest", &options).await.unwrap();
    assert_eq!(report.problems, []);
    assert!(home.at("elsewhere/homeserver.yaml").is_file());
}
