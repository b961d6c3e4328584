//! A sealed repository: who can read what, what lies in the bucket, and what somebody who can write into it achieves.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use synapse_backup::format::{PackKind, keys, seal, snapshot, writer_key::WriterKey};
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::repo::reader::read_table;
use synapse_backup::repo::{Error, Ids, Repository, catalog, commit, open, snapshots};
use synapse_backup::store::counters::{Counters, Kind};
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::Record;
use synapse_backup::store::{ByteRange, Store, local};

use crate::rig::{Bytes, Keys, backup, init, init_sealed, memory, noise, open_with, read, restore_options, run, verify};

/// As `verify` without `--read-data` gives it.
async fn structure(repository: &Repository) -> Vec<String> {
    let options = synapse_backup::ops::verify::Options {
        snapshot: None,
        read_data: None,
        repair_index: false,
        limits: crate::rig::LIMITS,
        tools: None,
    };
    let report = synapse_backup::ops::verify::verify(repository, &options, &run()).await.unwrap();
    report.problems.into_iter().map(|problem| problem.message).collect()
}

/// The error of a restore of `latest`, in one line.
async fn refused(repository: &Repository) -> String {
    let ended = synapse_backup::ops::restore::restore(repository, "latest", &restore_options(), &run()).await;
    format!("{:#}", ended.err().unwrap_or_else(|| anyhow::anyhow!("it was not refused")))
}

fn snapshot_key(memory: &Memory) -> String {
    memory.objects().into_keys().find(|key| key.starts_with("snapshots/")).unwrap()
}

async fn put(memory: &Memory, key: &str, body: Vec<u8>) {
    memory.put(key, body.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_by_no_more_chunks_than_hold_it() {
    let folder = tempfile::tempdir().unwrap();
    let counters = Arc::new(Counters::default());
    let store = local::open(folder.path(), true, Arc::clone(&counters)).await.unwrap();
    let keys = Keys::new(1);
    let repository = init_sealed(Arc::clone(&store), &keys).await;
    let snapshot = backup(&repository, &mut Bytes::new(&noise(1, 3 << 20))).await.unwrap();
    let pack = snapshot.databases[0].streams[0].list.entries[0].pack;
    let safe = open_with(store, keys.of_safe()).await;
    let before = counters.totals().received_bytes;
    read_table(&safe, pack).await.unwrap();
    let read = counters.totals().received_bytes - before;
    // The 256 KiB that are asked for lie in at most six chunks.
    assert!(read <= seal::HEADER_BYTES_MAX + 6 * seal::SEALED_CHUNK_BYTES, "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_size_come_back_out_of_a_sealed_repository() {
    let (memory, keys) = (memory(), Keys::new(1));
    let repository = init_sealed(memory.clone(), &keys).await;
    for (seed, length) in [(1, 0), (2, 1), (3, 65_536), (4, 3 << 20), (5, 20 << 20)] {
        let bytes = noise(seed, length);
        let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
        let id = snapshot.id.to_string();
        let safe = open_with(memory.clone(), keys.of_safe()).await;
        assert!(read(&safe, &id).await.unwrap() == bytes, "{length} bytes");
    }
    assert_eq!(verify(&repository).await.problems, []);
    let names: Vec<String> = memory.objects().into_keys().filter(|key| key != keys::REPOSITORY).collect();
    let sealed = |name: &String| std::path::Path::new(name).extension().is_some_and(|ending| ending == "age");
    assert!(names.iter().all(sealed), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_a_sealed_repository_holds_what_was_put_in() {
    let (memory, keys) = (memory(), Keys::new(1));
    let repository = init_sealed(memory.clone(), &keys).await;
    let secret = b"syt_YWxpY2U_hunter2_registration_shared_secret";
    let mut bytes = noise(1, 200_000);
    bytes.splice(1000..1000, secret.repeat(40));
    let snapshot = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let words: [&[u8]; 4] = [secret, b"hunter2", b"example.org", b"SBKSNAPS"];
    let mut words = words.map(<[u8]>::to_vec).to_vec();
    // Nor the hash of anything, by which who guesses a content could confirm it.
    let content = snapshot.databases[0].streams[0].list.entries[0].pack;
    let all = open_with(memory.clone(), keys.all()).await;
    for blob in read_table(&all, content).await.unwrap().entries {
        words.extend([blob.id.as_bytes().to_vec(), blob.id.to_string().into_bytes()]);
    }
    assert!(words.len() > 4);
    for (key, object) in memory.objects() {
        let shown = [key.as_bytes(), &object].concat();
        for word in &words {
            let is_there = shown.windows(word.len()).any(|window| window == *word);
            assert!(!is_there, "{key} holds {}", String::from_utf8_lossy(word));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_sealed_pack_are_uniform_and_its_length_is_that_of_the_object() {
    let record = Arc::new(Record::new(memory()));
    let repository = init_sealed(record.clone() as Arc<dyn Store>, &Keys::new(1)).await;
    backup(&repository, &mut Bytes::new(&noise(1, 20 << 20))).await.unwrap();
    let known = catalog::load(&repository, 64 << 20).await.unwrap();
    assert!(!known.packs().is_empty());
    for pack in known.packs() {
        let head = record.head(&keys::sealed(&keys::pack(pack.id))).await.unwrap();
        assert_eq!((pack.bytes, pack.usable()), (head.bytes, true));
    }
    assert!(record.calls().iter().filter(|call| call.kind == Kind::Part).count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_blob_of_a_sealed_pack_costs_the_chunks_that_cover_it() {
    let record = Arc::new(Record::new(memory()));
    let repository = init_sealed(record.clone() as Arc<dyn Store>, &Keys::new(1)).await;
    backup(&repository, &mut Bytes::new(&noise(1, 16 << 20))).await.unwrap();
    let known = catalog::load(&repository, 64 << 20).await.unwrap();
    let pack = known.packs().iter().find(|pack| pack.kind == PackKind::Database).unwrap();
    assert!(pack.bytes > 12 << 20);
    let key = keys::pack(pack.id);
    let plain = repository.store().get(&key, ByteRange::All).await.unwrap().bytes;
    for (offset, length) in [
        (0, 100),
        (65_535, 2),
        (10_000_000, 70_000),
        (plain.len() as u64 - 10, 10),
        (plain.len() as u64 - 5, 50),
    ] {
        let range = ByteRange::From { offset, length };
        let got = repository.store().get(&key, range).await.unwrap();
        let (from, to) = range.within(plain.len() as u64);
        let wanted = plain.slice(usize::try_from(from).unwrap()..usize::try_from(to).unwrap());
        assert_eq!((got.bytes, got.object_bytes), (wanted, plain.len() as u64), "{offset} {length}");
    }
    for length in [1, 65_536, 65_552, 200_000, 1 << 40] {
        let got = repository.store().get(&key, ByteRange::Last(length)).await.unwrap();
        assert_eq!(
            got.bytes,
            plain.slice(plain.len().saturating_sub(usize::try_from(length).unwrap())..)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_reads_names_and_lists_and_no_content() {
    let (memory, keys) = (memory(), Keys::new(1));
    let first = init_sealed(memory.clone(), &keys).await;
    let bytes = noise(1, 300_000);
    backup(&first, &mut Bytes::new(&bytes)).await.unwrap();
    let server = open_with(memory.clone(), keys.of_server()).await;
    assert_eq!(structure(&server).await, Vec::<String>::new());
    let error = read(&server, "latest").await.unwrap_err();
    assert!(
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::NoKey { .. }))),
        "{error:#}"
    );
    // It deduplicates all the same.
    let before: BTreeSet<String> = memory.objects().into_keys().filter(|key| key.starts_with("packs/")).collect();
    backup(&server, &mut Bytes::new(&bytes)).await.unwrap();
    let after: BTreeSet<String> = memory.objects().into_keys().filter(|key| key.starts_with("packs/")).collect();
    assert!(after.len() <= before.len() + 1, "{after:?}");
    // Without any key, or with another one, nothing opens.
    for keyring in [Keyring::default(), Keys::new(2).of_safe()] {
        let stranger = open_with(memory.clone(), keyring).await;
        assert!(matches!(snapshots::load_all(&stranger).await, Err(Error::NoKey { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_lost_its_seal_is_refused_by_who_has_keys() {
    let (memory, keys) = (memory(), Keys::new(1));
    let repository = init_sealed(memory.clone(), &keys).await;
    let mut info = repository.info().clone();
    (info.sealed, info.features_required) = (false, Vec::new());
    memory.damage(keys::REPOSITORY, info.to_json().unwrap().into());
    for keyring in [keys.of_server(), keys.of_safe()] {
        let opened = open::open_with(memory.clone(), Ids::random(), keyring).await;
        assert!(matches!(opened, Err(Error::Sealing { .. })), "{opened:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_is_copied_sealed() {
    let (memory, keys) = (memory(), Keys::new(1));
    let repository = init_sealed(memory.clone(), &keys).await;
    let bytes = noise(1, 300_000);
    let first = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    for id in &first.packs {
        put(&memory, &keys::condemned(*id), Vec::new()).await;
    }
    let relied: BTreeSet<_> = first.packs.iter().copied().collect();
    let checked = commit::check(&repository, &relied.clone().into()).await.unwrap();
    assert!(checked.packs.is_disjoint(&relied), "{checked:?}");
    for id in &first.packs {
        memory.delete(&keys::sealed(&keys::pack(*id))).await.unwrap();
    }
    assert!(read(&repository, "latest").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_are_forged_changed_or_replayed_are_refused_and_found() {
    let keys = Keys::new(1);
    let here = memory();
    let repository = init_sealed(here.clone(), &keys).await;
    backup(&repository, &mut Bytes::new(&noise(1, 100_000))).await.unwrap();
    let there = memory();
    let other = init_sealed(there.clone(), &keys).await;
    backup(&other, &mut Bytes::new(&noise(2, 100_000))).await.unwrap();
    let key = snapshot_key(&here);
    let good = here.objects()[&key].clone();
    let recipients = keys.all().recipients_of_metadata();
    let seal = |plain: &[u8]| synapse_backup::format::seal::seal(&recipients, plain).unwrap();
    let plain = synapse_backup::format::seal::open(&good, std::slice::from_ref(&keys.identity)).unwrap();
    let (document, signed) = snapshot::decode(&plain).unwrap();
    let mut changed = document.clone();
    changed.server_name = "evil.example".into();
    let unsigned = snapshot::encode(&changed, signed.not_after).unwrap();
    let foreign = snapshot::encode_signed(&changed, signed.not_after, &WriterKey::new([9; 32].into())).unwrap();
    // The old signature over a new document: the trailer of the one behind the frame of the other.
    let frame = |object: &[u8]| object.windows(8).position(|window| window == b"SBKSNAPS").unwrap() - 8;
    let mut grafted = [&unsigned[..frame(&unsigned)], &plain[frame(&plain)..plain.len() - 32]].concat();
    let digest: [u8; 32] = *synapse_backup::format::BlobId::of(&grafted).as_bytes();
    grafted.extend_from_slice(&digest);
    let replayed =
        synapse_backup::format::seal::open(&there.objects()[&snapshot_key(&there)], std::slice::from_ref(&keys.identity)).unwrap();

    let server_only = Keyring {
        signers: vec![keys.writer.signer()],
        ..keys.of_safe()
    };
    for (forgery, what, unpinned_too) in [
        (unsigned, "not signed", true),
        (foreign, "not one of the known signers", false),
        (grafted, "changed or forged", true),
        (replayed, "another repository", true),
    ] {
        // In the place of the true one, each under the name that its document asks for.
        here.delete(&key).await.unwrap();
        let (document, _) = snapshot::decode(&forgery).unwrap();
        let name = keys::sealed(&keys::snapshot(document.time, document.id).unwrap());
        put(&here, &name, seal(&forgery)).await;
        for (keyring, is_noticed) in [(keys.all(), true), (server_only.clone(), true), (keys.of_safe(), unpinned_too)] {
            let reader = open_with(here.clone(), keyring).await;
            let told = refused(&reader).await;
            assert_eq!(told.contains(what), is_noticed, "{what}: {told}");
            let found = structure(&reader).await;
            assert_eq!(found.iter().any(|message| message.contains(what)), is_noticed, "{what}: {found:?}");
        }
        let told = Keyring {
            unsigned: true,
            ..keys.all()
        };
        assert!(
            !refused(&open_with(here.clone(), told).await).await.contains("not authentic"),
            "{what}"
        );
        // A backup does not build on it.
        let [newest] = snapshots::newest_that(&repository, None, [&|_| true]).await.unwrap();
        assert!(newest.is_none(), "{what}");
        here.delete(&name).await.unwrap();
    }
    put(&here, &key, good.to_vec()).await;
    assert_eq!(structure(&repository).await, Vec::<String>::new());
    assert!(!refused(&repository).await.contains("authentic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_unsealed_is_not_read_but_named() {
    let (sealed, keys, plain) = (memory(), Keys::new(1), memory());
    let repository = init_sealed(sealed.clone(), &keys).await;
    backup(&repository, &mut Bytes::new(&noise(1, 100_000))).await.unwrap();
    backup(&init(plain.clone()).await, &mut Bytes::new(&noise(2, 100_000)))
        .await
        .unwrap();
    for (key, object) in plain.objects().into_iter().filter(|(key, _)| key != keys::REPOSITORY) {
        sealed.put(&key, object).await.unwrap();
    }
    assert_eq!(snapshots::list(&repository).await.unwrap().len(), 1);
    assert!(read(&repository, "latest").await.unwrap() == noise(1, 100_000));
    let found = verify(&repository).await.problems;
    assert!(found.iter().any(|problem| problem.item.ends_with("(not sealed)")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_its_signature_and_gets_one_of_its_new_home() {
    let (theirs, ours) = (Keys::new(1), Keys::new(2));
    let from = init_sealed(memory(), &theirs).await;
    backup(&from, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    let store = memory();
    let to = init_sealed(store.clone(), &ours).await;
    let listed = snapshots::list(&from).await.unwrap();
    let object = from.store().get(&listed[0].key, ByteRange::All).await.unwrap().bytes;
    commit::commit_again(&to, &commit::Relied::default(), &object).await.unwrap();
    let copy = snapshots::find(&to, "latest", false).await.unwrap();
    assert_eq!(to.doubt(&copy), None);
    assert_eq!(to.signer_of(&copy), Some(ours.writer.signer()));
    let signers: Vec<_> = copy
        .signatures
        .iter()
        .map(|made| (made.repository, made.signer, made.is_good))
        .collect();
    assert_eq!(
        signers,
        [
            (from.info().id, theirs.writer.signer(), true),
            (to.info().id, ours.writer.signer(), true)
        ]
    );
}

/// `age -d -i identity.txt pack | zstd -dc` opens any pack, by the programs that everybody has.
#[tokio::test(flavor = "multi_thread")]
async fn any_pack_opens_by_hand_with_age_and_zstd() {
    for program in ["age", "zstd"] {
        let there = Command::new(program).arg("--version").output();
        assert!(there.is_ok(), "{program} is missing: `scripts/setup` gets it");
    }
    let (memory, keys) = (memory(), Keys::new(1));
    let repository = init_sealed(memory.clone(), &keys).await;
    let bytes = noise(1, 300_000);
    backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (identity, object) = (folder.path().join("identity.txt"), folder.path().join("object.age"));
    std::fs::write(&identity, keys.identity.to_text().as_bytes()).unwrap();
    let mut printed = Vec::new();
    for (key, sealed) in memory.objects() {
        if !key.starts_with(keys::PACKS) {
            continue;
        }
        std::fs::write(&object, &sealed).unwrap();
        let pipe = "age -d -i \"$0\" \"$1\" | zstd -dc";
        let output = Command::new("sh").args(["-c", pipe]).args([&identity, &object]).output().unwrap();
        assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
        printed.push(output.stdout);
    }
    assert!(printed.contains(&bytes), "no pack printed the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_unsigned_snapshots_are_normal_until_a_signer_is_pinned() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    let found = snapshots::find(&repository, "latest", false).await.unwrap();
    assert_eq!(repository.doubt(&found), None);
    let pinned = Keyring {
        signers: vec![Keys::new(1).writer.signer()],
        ..Keyring::default()
    };
    let reader = open_with(memory, pinned).await;
    assert_eq!(reader.doubt(&found).as_deref(), Some("it is not signed"));
}
