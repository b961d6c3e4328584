//! Somebody has taken the server: its files, its settings, its writer key and its credentials of the bucket. What was sealed before stays
//! closed to all keys that he has, and stays where it is. And somebody who has the credentials alone, and forges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use synapse_backup::format::keys as names;
use synapse_backup::format::seal;
use synapse_backup::format::snapshot::{self, Snapshot};
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::format::{BlobId, Error, ObjectId};
use synapse_backup::store::{ByteRange, Store};

use crate::buckets::{Bucket, PREFIX, init_with, is_denied, keys, reopen_with};
use crate::homeserver::{Home, item_of};
use crate::past::moment;
use crate::rig::{backup, document, verify};
use crate::sealing::Keys;
use crate::support::minio;

/// In a medium that was there once, and is only in the backup now.
const SECRET: &[u8] = b"what Alice wrote to Bob before the break-in";

/// A server with a sealed repository in a bucket that keeps versions, and what lies on its disk.
struct Server {
    home: Home,
    bucket: Bucket,
    keys: Keys,
    /// Two snapshots: with the medium that is gone, and after it went.
    nights: [Snapshot; 2],
    settings: PathBuf,
    /// Not on the server: in the safe.
    identity: PathBuf,
}

impl Server {
    async fn new() -> Self {
        let (home, bucket, keys) = (Home::new(), Bucket::versioned().await, Keys::new(1));
        let repository = init_with(bucket.store_as("writer").await, keys.of_server()).await;
        let old = "BobOldLetter000000000001";
        home.upload(old, &SECRET.repeat(100));
        let first = backup(&repository, &home).await.snapshot.unwrap();
        fs::remove_file(home.media(old)).unwrap();
        home.sql(&format!("DELETE FROM local_media_repository WHERE media_id = '{old}'"));
        let second = backup(&repository, &home).await.snapshot.unwrap();
        let nights = [document(&repository, &first).await, document(&repository, &second).await];
        let (settings, identity, writer) = (home.at("settings.yaml"), home.at("identity.txt"), home.at("writer.key"));
        fs::write(&identity, keys.identity.to_text().as_bytes()).unwrap();
        fs::write(&writer, keys.writer.to_text().as_bytes()).unwrap();
        let text = format!(
            "repository: s3://{}/{PREFIX}\ns3: {{ endpoint: '{}', region: us-east-1 }}\nsynapse: {{ config: ['{}'] }}\n\
             encryption: {{ recipients: [ {} ], writer_key_file: '{}' }}\nlimits: {{ memory: 96MiB }}\n",
            bucket.name,
            minio::shared().endpoint,
            home.at("etc/homeserver.yaml").display(),
            keys.identity.recipient(),
            writer.display(),
        );
        fs::write(&settings, text).unwrap();
        Self {
            home,
            bucket,
            keys,
            nights,
            settings,
            identity,
        }
    }

    /// The program as the thief calls it, or with the identity.
    fn call(&self, identity: Option<&Path>, arguments: &[&str]) -> Output {
        self.call_as("writer", identity, arguments)
    }

    fn call_as(&self, role: &str, identity: Option<&Path>, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command.env_clear().arg("-c").arg(&self.settings).args(arguments);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.home.cluster.bin.display()));
        command.env("HOME", self.home.at("")).env("AWS_EC2_METADATA_DISABLED", "true");
        let user = self.bucket.user(role);
        command
            .env("AWS_SECRET_ACCESS_KEY", format!("secret-of-{user}"))
            .env("AWS_ACCESS_KEY_ID", user);
        if let Some(identity) = identity {
            command.arg("--identity").arg(identity);
        }
        command.output().unwrap()
    }

    /// Restore one into a new folder: the exit code, and what was said.
    fn restore(&self, identity: Option<&Path>, id: &str, to: &Path) -> (Option<i32>, String) {
        let to = to.display().to_string();
        let output = self.call(identity, &["restore", id, "--to", &to, "--database", "synapse=skip"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A snapshot as the forger writes it, sealed so that everybody reads it who must.
    fn sealed(&self, object: &[u8]) -> Bytes {
        seal::seal(&self.keys.all().recipients_of_metadata(), object).unwrap().into()
    }
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn key_of(one: &Snapshot) -> String {
    names::sealed(&names::snapshot(one.time, one.id).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_server_reads_nothing_old_and_takes_nothing_away() {
    let server = Server::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("there");
    let id = server.nights[0].id.to_string();
    let item = item_of("BobOldLetter000000000001");
    let (to_text, scratch_text) = (to.display().to_string(), scratch.path().display().to_string());
    // With the program: names, and no content.
    let listed = server.call(None, &["ls", &id, "media/"]);
    assert!(
        holds(&listed.stdout, item.as_bytes()),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let attempts: [&[&str]; 5] = [
        &["cat", &id, &item],
        &["restore", &id, "--to", &to_text, "--database", "synapse=skip"],
        &["restore", &id, "--to", &to_text, "--only", "config", "--accept-unsigned"],
        &["verify", "--read-data"],
        &["drill", &id, "--to", &scratch_text],
    ];
    for attempt in attempts {
        let output = server.call(None, attempt);
        assert_eq!(
            output.status.code(),
            Some(12),
            "{attempt:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!holds(&output.stdout, SECRET), "{attempt:?}");
    }
    assert!(!to.exists());
    // By hand: every version of every object, with every key that is on the server.
    let writer = server.bucket.store_as("writer").await;
    let keys_of_server = [server.keys.writer.identity().clone()];
    let (mut closed, mut opened) = (0, 0);
    for key in keys(&*writer).await {
        let bytes = writer.get(&key, ByteRange::All).await.unwrap().bytes;
        assert!(!holds(&bytes, SECRET), "{key}");
        match seal::open(&bytes, &keys_of_server) {
            Ok(plain) if key.contains(".zst") => {
                let raw = zstd::stream::decode_all(&plain[..]).unwrap();
                assert!(!holds(&raw, SECRET), "{key}");
                opened += 1;
            }
            Ok(_) => opened += 1,
            Err(Error::NoKey) => closed += 1,
            Err(error) => assert_eq!(key, names::REPOSITORY, "{error}"),
        }
    }
    assert!(closed >= 2 && opened >= 4, "{closed} {opened}");
    // And nothing goes away.
    let before = server.bucket.versions().await;
    for version in &before {
        assert!(is_denied(&writer.delete(&version.key).await), "{}", version.key);
        let gone = writer.versions().unwrap().delete_version(&version.key, &version.id).await;
        assert!(is_denied(&gone), "{}", version.key);
    }
    assert_eq!(server.bucket.versions().await, before);
    // He overwrites it all. Who has the identity, and may read versions, has it all back.
    let before = moment(&*writer).await;
    for key in keys(&*writer).await {
        writer.put(&key, Bytes::from_static(b"mine")).await.unwrap();
    }
    assert_eq!(server.restore(Some(&server.identity), &id, &to).0, Some(1));
    let at = ["--at", &before.to_string(), "--database", "synapse=skip"].map(str::to_owned);
    let words: Vec<&str> = ["restore", &id, "--to", &to_text]
        .into_iter()
        .chain(at.iter().map(String::as_str))
        .collect();
    let restored = server.call_as("reader", Some(&server.identity), &words);
    assert_eq!(restored.status.code(), Some(0), "{}", String::from_utf8_lossy(&restored.stderr));
    let came_back = to.join(server.home.media("BobOldLetter000000000001").strip_prefix("/").unwrap());
    assert_eq!(fs::read(came_back).unwrap(), SECRET.repeat(100));
}

/// The signature of a true snapshot behind another document.
fn grafted(document: &Snapshot, signed: &[u8]) -> Vec<u8> {
    let trailer = |object: &[u8]| object.windows(8).position(|window| window == b"SBKSNAPS").unwrap() - 8;
    let (_, kept) = snapshot::decode(signed).unwrap();
    let unsigned = snapshot::encode(document, kept.not_after).unwrap();
    let mut object = [&unsigned[..trailer(&unsigned)], &signed[trailer(signed)..signed.len() - 32]].concat();
    let digest = *BlobId::of(&object).as_bytes();
    object.extend_from_slice(&digest);
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_into_the_bucket_is_refused_by_restore_and_found_by_verify() {
    let server = Server::new().await;
    let store: Arc<dyn Store> = server.bucket.store_as("writer").await;
    let [old, new] = &server.nights;
    let opened = |bytes: &Bytes| seal::open(bytes, std::slice::from_ref(&server.keys.identity)).unwrap();
    let old_object = store.get(&key_of(old), ByteRange::All).await.unwrap().bytes;
    let new_object = store.get(&key_of(new), ByteRange::All).await.unwrap().bytes;
    let (_, signed) = snapshot::decode(&opened(&new_object)).unwrap();
    // A repository of the same server, with the same keys, elsewhere.
    let elsewhere = Bucket::versioned().await;
    let other = init_with(elsewhere.store().await, server.keys.of_server()).await;
    let foreign_id = backup(&other, &server.home).await.snapshot.unwrap();
    let foreign = document(&other, &foreign_id).await;
    let replayed = elsewhere.store().await.get(&key_of(&foreign), ByteRange::All).await.unwrap().bytes;

    let like_new = |id: u8| Snapshot {
        id: ObjectId::from_bytes([id; 16]),
        time: new.time + SignedDuration::from_mins(i64::from(id)),
        ..new.clone()
    };
    let (unsigned, alien, never) = (like_new(1), like_new(2), like_new(3));
    // The media of the second night are those of the first.
    let mut swapped = new.clone();
    swapped.media.clone_from(&old.media);
    let stranger = WriterKey::new([9; 32].into());
    let forgeries: Vec<(&str, String, Bytes, &str)> = vec![
        (
            "unsigned",
            key_of(&unsigned),
            server.sealed(&snapshot::encode(&unsigned, signed.not_after).unwrap()),
            "it is not signed",
        ),
        (
            "signed by a stranger",
            key_of(&alien),
            server.sealed(&snapshot::encode_signed(&alien, signed.not_after, &stranger).unwrap()),
            "not one of the known signers",
        ),
        ("replayed from another repository", key_of(&foreign), replayed, "another repository"),
        ("an old one in the place of a new one", key_of(new), old_object.clone(), "its name"),
        ("an old one under a new name", key_of(&never), old_object.clone(), "its name"),
        ("cut short", key_of(new), new_object.slice(..new_object.len() - 20), "damaged"),
        (
            "with another media list",
            key_of(new),
            server.sealed(&grafted(&swapped, &opened(&new_object))),
            "changed or forged",
        ),
    ];
    for (what, key, body, why) in forgeries {
        store.put(&key, body).await.unwrap();
        let (_, id) = names::parse_snapshot(names::unsealed(&key).unwrap()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let (code, told) = server.restore(Some(&server.identity), &id.to_string(), &scratch.path().join("there"));
        assert_eq!(code, Some(1), "{what}: {told}");
        assert!(told.contains(why), "{what}: {told}");
        assert!(!scratch.path().join("there").exists(), "{what}");
        let to = scratch.path().display().to_string();
        let drilled = server.call(Some(&server.identity), &["drill", &id.to_string(), "--to", &to, "--no-record"]);
        let told = String::from_utf8_lossy(&drilled.stderr);
        assert_eq!(drilled.status.code(), Some(1), "{what}: {told}");
        assert!(told.contains(why), "{what}: {told}");
        let verified = server.call(Some(&server.identity), &["verify"]);
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&verified.stdout),
            String::from_utf8_lossy(&verified.stderr)
        );
        assert_eq!(verified.status.code(), Some(1), "{what}: {shown}");
        assert!(shown.contains(why) && shown.contains(&id.to_string()), "{what}: {shown}");
        // As it was: the owner takes the forgery away, or puts back what it stands upon.
        let owner = server.bucket.store().await;
        if key == key_of(new) {
            owner.put(&key, new_object.clone()).await.unwrap();
        } else {
            owner.delete(&key).await.unwrap();
        }
    }
    let verified = server.call(Some(&server.identity), &["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stderr));
    let safe = reopen_with(store, server.keys.of_safe()).await;
    assert_eq!(verify(&safe, None).await, []);
}
