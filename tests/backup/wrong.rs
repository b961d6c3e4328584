//! Planted faults: each is found by `verify` or by `drill`, with a sentence that names it.
//!
//! What is wrong in the bytes of the store is `verify`'s; what is wrong although every hash agrees (a forged or mistaken snapshot) is the
//! drill's. The forged snapshots are written through the repository's own writer, so nothing but the fault is wrong with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::format::list::{List, ListEntry};
use synapse_backup::format::snapshot::{Snapshot, Stream};
use synapse_backup::format::{PackId, PackKind};
use synapse_backup::ops::drill::{self, Media};
use synapse_backup::ops::verify::{self, ReadData};
use synapse_backup::repo::writer::{Budget, Gatherer, ListWriter, Writer};
use synapse_backup::repo::{Repository, catalog};
use synapse_backup::store::Store;
use synapse_backup::store::memory::Memory;

use crate::cluster::shared;
use crate::drill::{drilled, options};
use crate::forged::{Forger, forge_media};
use crate::homeserver::{Home, item_of, noise};
use crate::rig::{LIMITS, backup, copy_of, document, fresh, init, memory, reopen, run, ticking, tools};

/// `item: message` of every finding.
fn sentences(problems: &[synapse_backup::format::snapshot::Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| format!("{}: {}", problem.item, problem.message))
        .collect()
}

fn assert_named(case: &str, found: &[String], wanted: &[&str]) {
    for part in wanted {
        assert!(
            found.iter().any(|sentence| sentence.contains(part)),
            "{case}: `{part}` is not in {found:#?}"
        );
    }
}

async fn verified(repository: &Repository, read_data: Option<ReadData>, repair_index: bool) -> verify::Report {
    let options = verify::Options {
        snapshot: None,
        read_data,
        repair_index,
        tools: Some(tools()),
        limits: LIMITS,
    };
    verify::verify(repository, &options, &run()).await.unwrap()
}

/// The key of the pack of this kind with the most bytes.
async fn largest(repository: &Repository, kind: PackKind) -> String {
    let index = catalog::load(repository, 1 << 20).await.unwrap();
    let packs = index.packs().iter().filter(|pack| pack.kind == kind);
    synapse_backup::format::keys::pack(packs.max_by_key(|pack| pack.bytes).unwrap().id)
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// Case, key, damage, how much is read, and what must be named.
type Case<'a> = (&'a str, &'a str, Damage, Option<ReadData>, Vec<&'a str>);

/// Plant one of them after the other, each in a store of its own.
async fn assert_verify_names(memory: &Memory, cases: Vec<Case<'_>>) {
    for (case, key, damage, read_data, wanted) in cases {
        let copy = copy_of(memory).await;
        let bytes = copy.objects()[key].clone();
        match damage {
            Damage::Delete => drop(copy.delete(key).await.unwrap()),
            Damage::Cut(cut) => copy.damage(key, bytes.slice(..bytes.len() - cut)),
            Damage::Flip(at) => copy.damage(key, flipped(&bytes, at)),
            Damage::Swap(other) => copy.damage(key, copy.objects()[&other].clone()),
        }
        let found = verified(&reopen(copy).await, read_data, false).await;
        assert_named(case, &sentences(&found.problems), &wanted);
    }
}

/// What is done to the bytes of one object.
enum Damage {
    Delete,
    /// The last bytes are gone.
    Cut(usize),
    /// One bit, so many bytes from the begin.
    Flip(usize),
    /// The bytes of another object in its place.
    Swap(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_store_is_found_by_verify() {
    let (home, memory) = (Home::new(), memory());
    home.upload("CarolOfMany00000000000004", &noise(4, 200_000));
    let repository = init(ticking(&memory)).await;
    backup(&repository, &home).await;
    let database = largest(&repository, PackKind::Database).await;
    let media = largest(&repository, PackKind::Media).await;
    let lists = largest(&repository, PackKind::Metadata).await;
    let segment = crate::rig::keys_of(&memory, "index/").pop().unwrap();
    let snapshot = crate::rig::keys_of(&memory, "snapshots/").pop().unwrap();
    let carol = item_of("CarolOfMany00000000000004");
    let rows = " and 8 more tables (snapshot ";
    let all = Some(ReadData::Percent(100));
    let cases: Vec<Case<'_>> = vec![
        (
            "a segment deleted",
            &segment,
            Damage::Delete,
            None,
            vec!["no index segment names it; its"],
        ),
        (
            "a segment cut",
            &segment,
            Damage::Cut(40),
            None,
            vec!["index/", "`verify --repair-index` names it again"],
        ),
        ("a bit of a segment", &segment, Damage::Flip(60), None, vec!["index/", "is damaged"]),
        (
            "a pack of a dump deleted",
            &database,
            Damage::Delete,
            None,
            vec!["packs/", "it is gone", "database/synapse/main: ", rows],
        ),
        (
            "a pack of a dump cut",
            &database,
            Damage::Cut(100),
            None,
            vec!["bytes instead of", "database/synapse/main: ", rows],
        ),
        (
            "a pack of media deleted",
            &media,
            Damage::Delete,
            None,
            vec!["it is gone", &carol, "signing.key: 1 of its 1 blobs are lost"],
        ),
        (
            "a bit of a dump",
            &database,
            Damage::Flip(2_000),
            all,
            vec!["of its blobs are damaged", "database/synapse/"],
        ),
        (
            "a bit of a medium",
            &media,
            Damage::Flip(210_000),
            all,
            vec!["packs/", "of its blobs are damaged"],
        ),
        (
            "a bit of a list",
            &lists,
            Damage::Flip(20),
            all,
            vec!["of its blobs are damaged", "list"],
        ),
        (
            "a pack in the place of another",
            &media,
            Damage::Swap(database.clone()),
            all,
            vec!["packs/", &carol],
        ),
        (
            "a bit of the snapshot",
            &snapshot,
            Damage::Flip(100),
            None,
            vec!["snapshots/", "this snapshot is lost"],
        ),
        (
            "the snapshot cut",
            &snapshot,
            Damage::Cut(10),
            None,
            vec!["snapshots/", "this snapshot is lost"],
        ),
    ];
    let whole = verified(&repository, all, false).await;
    assert_eq!(whole.problems, []);
    assert_eq!(whole.streams_read, 2, "the definitions and the rows, through pg_restore");
    assert_verify_names(&memory, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_made_again_from_the_tables_of_the_packs() {
    let (home, memory) = (Home::new(), memory());
    let repository = init(ticking(&memory)).await;
    backup(&repository, &home).await;
    home.upload("CarolOfMany00000000000004", &noise(4, 20_000));
    backup(&repository, &home).await;
    let segments = crate::rig::keys_of(&memory, "index/");
    assert!(segments.len() >= 2, "{segments:?}");
    for (case, damaged) in [("one is gone", 1), ("all are gone", segments.len())] {
        let copy = copy_of(&memory).await;
        for key in &segments[..damaged] {
            copy.delete(key).await.unwrap();
        }
        let before: BTreeSet<String> = copy.objects().into_keys().collect();
        let repository = reopen(Arc::clone(&copy) as Arc<dyn Store>).await;
        assert!(!verified(&repository, None, false).await.problems.is_empty(), "{case}");
        let report = verified(&repository, None, true).await;
        assert_eq!(report.problems, [], "{case}");
        let repaired = report.repaired.unwrap();
        assert!(
            repaired.packs > 0 && repaired.blobs > 0 && repaired.segments == 1,
            "{case}: {repaired:?}"
        );
        let after: BTreeSet<String> = copy.objects().into_keys().collect();
        let new: Vec<&String> = after.difference(&before).collect();
        assert!(
            before.is_subset(&after) && new.len() == 1 && new[0].starts_with("index/"),
            "{case}: {new:?}"
        );
        let again = verified(&repository, Some(ReadData::Percent(100)), true).await;
        assert_eq!((again.problems.len(), again.repaired.unwrap().packs), (0, 0), "{case}");
        // What is there need not be sent again.
        let next = backup(&repository, &home).await;
        assert_eq!(next.media.new, 0, "{case}");
    }
    let copy = copy_of(&memory).await;
    copy.damage(&segments[0], Bytes::from_static(b"not a segment"));
    let found = verified(&reopen(copy).await, None, true).await;
    assert_named(
        "damaged",
        &sentences(&found.problems),
        &["nothing is lost with it", "can be deleted"],
    );
    assert_eq!(found.problems.len(), 1);
}

/// A stream with these bytes, written as a backup writes it.
async fn forge_stream(repository: &Repository, bytes: Vec<u8>) -> (List, BTreeSet<PackId>) {
    let index = catalog::load(repository, 1 << 20).await.unwrap();
    let budget = Budget::new(LIMITS.memory_bytes, 2);
    let writer = Writer::open(repository, index.into(), BTreeSet::new(), &budget);
    let mut pieces = Gatherer::new(&writer, PackKind::Database);
    let mut list = ListWriter::new(&writer);
    let mut entries: Vec<ListEntry> = Vec::new();
    for piece in bytes.chunks(1 << 18) {
        pieces.push_one(piece.to_vec()).await.unwrap();
    }
    pieces.finish().await.unwrap();
    while let Some(entry) = pieces.ready() {
        entries.push(entry);
    }
    for entry in entries {
        list.push(entry).await.unwrap();
    }
    let list = list.finish().await.unwrap();
    (list, writer.finish().await.unwrap().packs.into_iter().collect())
}

/// What `pg_dump` makes of the whole database, one-time keys and all.
fn whole_dump(home: &Home) -> Vec<u8> {
    let dump = shared()
        .client("pg_dump", &home.database)
        .args(["--format=custom", "--compress=0"])
        .output()
        .unwrap();
    assert!(dump.status.success());
    dump.stdout
}

async fn drill_of(forger: &Forger, id: &str, media: Media, database: &str) -> drill::Report {
    let folder = tempfile::tempdir().unwrap();
    let options = drill::Options {
        media,
        no_record: true,
        ..options(folder.path(), id, database)
    };
    drilled(&forger.repository, &options).await
}

async fn assert_drill_names(case: &str, forger: &Forger, id: &str, database: &str, wanted: &[&str]) {
    let report = drill_of(forger, id, Media::HashOnly, database).await;
    assert!(!report.passed, "{case}: it passed");
    assert_named(case, &sentences(&report.problems), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_what_was_dumped_is_found_by_a_drill() {
    type Change = fn(&mut Snapshot, &Snapshot);
    let then_facts: Change = |now, then| now.databases[0].facts = then.databases[0].facts.clone();
    let then_media: Change = |now, then| now.media = then.media.clone();
    let as_it_is: Change = |_, _| {};
    let cases: [(&str, &str, Change, &[&str]); 8] = [
        (
            "a table emptied in the stream",
            "DELETE FROM users",
            then_facts,
            &["database/synapse: public.users has 0 rows, not 2"],
        ),
        (
            "a table that is not in the stream",
            "DROP TABLE e2e_device_keys_json",
            then_facts,
            &["the table public.e2e_device_keys_json is missing"],
        ),
        (
            "a row too many",
            "INSERT INTO users VALUES ('@eve:example.org', 'x')",
            then_facts,
            &["public.users has 3 rows, not 2"],
        ),
        (
            "a row changed",
            "UPDATE stream_positions SET stream_id = 18",
            then_facts,
            &["the stream receipts master is at 18, not at 17"],
        ),
        (
            "a sequence behind the dump's",
            "SELECT setval('events_stream_seq', 2100)",
            then_facts,
            &["the sequence public.events_stream_seq is at 2100, behind 2345"],
        ),
        (
            "a sequence behind its table",
            "SELECT setval('events_stream_seq', 5)",
            as_it_is,
            &["the sequence public.events_stream_seq is at 5, but events.stream_ordering has reached 2000"],
        ),
        (
            "the schema version lowered",
            "UPDATE schema_version SET version = 90",
            then_facts,
            &["the schema version is 90, not 94"],
        ),
        (
            "a media row added",
            "INSERT INTO local_media_repository (media_id, media_length) VALUES ('EveHasNoFile000000000009', 5)",
            then_media,
            &["media/local_content/Ev/eH/asNoFile000000000009: the database has a row for it, the snapshot has no file"],
        ),
    ];
    for (number, (case, sql, change, wanted)) in cases.into_iter().enumerate() {
        let forger = Forger::of(Home::new(), fresh().await).await;
        let then = forger.document.clone();
        forger.home.sql(sql);
        let id = backup(&forger.repository, &forger.home).await.snapshot.unwrap();
        let now = document(&forger.repository, &id).await;
        let id = forger
            .put(|document| {
                let id = document.id;
                *document = now;
                document.id = id;
                document.packs.extend(then.packs.iter().copied());
                change(document, &then);
            })
            .await;
        assert_drill_names(case, &forger, &id, &format!("planted_{number}"), wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_should_not_have_been_taken_so_is_found() {
    let forger = Forger::of(Home::new(), fresh().await).await;
    let dump = whole_dump(&forger.home);
    let forge = async |bytes: Vec<u8>| {
        let (list, packs) = forge_stream(&forger.repository, bytes).await;
        forger
            .put(|document| {
                let stream = document.databases[0].streams[0].clone();
                document.packs.extend(packs);
                document.databases[0].streams = vec![Stream {
                    name: "dump".into(),
                    list,
                    tables: Vec::new(),
                    ..stream
                }];
            })
            .await
    };
    let id = forge(dump.clone()).await;
    let keys = "the dump has 51 one-time keys: a key that was handed out could be handed out again";
    assert_drill_names("one-time keys", &forger, &id, "planted_keys", &[keys]).await;

    // Cut before it was hashed: every hash agrees.
    let id = forge(dump[..dump.len() - 3_000].to_vec()).await;
    let options = verify::Options {
        snapshot: Some(id.clone()),
        read_data: Some(ReadData::Percent(100)),
        repair_index: false,
        tools: Some(tools()),
        limits: LIMITS,
    };
    let found = verify::verify(&forger.repository, &options, &run()).await.unwrap();
    assert_named(
        "a dump cut short",
        &sentences(&found.problems),
        &["database/synapse/dump: pg_restore does not read it"],
    );
    assert_drill_names(
        "a dump cut short",
        &forger,
        &id,
        "planted_cut",
        &["database/synapse: ", "load the stream dump", "pg_restore"],
    )
    .await;

    let id = forger.put(|document| drop(document.databases[0].streams.pop())).await;
    assert_drill_names(
        "a stream left out",
        &forger,
        &id,
        "planted_stream",
        &["public.users has 0 rows, not 2"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_this_servers_are_found_by_a_drill() {
    let home = Home::new();
    home.upload("DanOfTheSameSize0000004", &noise(44, 40_000));
    let forger = Forger::of(home, fresh().await).await;
    let then = forger.document.clone();
    let without = async |end: &str| {
        forger
            .put(|document| document.config.retain(|item| !item.path.to_string().ends_with(end)))
            .await
    };
    let alice = item_of("AliceFirstPicture0000001");
    let swapped = forge_media(&forger, |shard| {
        let of = |id: &str| {
            shard
                .entries
                .iter()
                .position(|entry| item_of(id).ends_with(&entry.path.to_string()))
                .unwrap()
        };
        let (one, other) = (of("AliceFirstPicture0000001"), of("DanOfTheSameSize0000004"));
        let dan = shard.entries[other].clone();
        shard.entries[one].sha256 = dan.sha256;
        shard.entries[one].blobs = dan.blobs;
    })
    .await;
    let left_out = forge_media(&forger, |shard| {
        shard
            .entries
            .retain(|entry| !item_of("AliceFirstPicture0000001").ends_with(&entry.path.to_string()));
    })
    .await;
    let no_log = without("log.yaml").await;
    let no_key = without("signing.key").await;
    let no_yaml = without("homeserver.yaml").await;
    let other_name = forger.put(|document| document.server_name = "elsewhere.org".into()).await;
    forger
        .home
        .write("etc/signing.key", b"ed25519 a_ABCD HwAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0\n");
    let id = backup(&forger.repository, &forger.home).await.snapshot.unwrap();
    let now = document(&forger.repository, &id).await;
    let other_key = forger
        .put(|document| {
            let id = document.id;
            *document = now;
            document.id = id;
            document.signing_keys.clone_from(&then.signing_keys);
        })
        .await;
    let cases: [(&str, String, &[&str]); 7] = [
        ("a medium swapped", swapped, &[&alice, "its row says SHA-256"]),
        (
            "a medium left out",
            left_out,
            &[&alice, "the database has a row for it, the snapshot has no file"],
        ),
        (
            "a config file missing",
            no_log,
            &["etc/log.yaml: named by `log_config`; it is not there"],
        ),
        ("the signing key missing", no_key, &["no signing key came back"]),
        ("homeserver.yaml missing", no_yaml, &["Synapse could not read its configuration"]),
        (
            "a snapshot of another server",
            other_name,
            &["its server name is example.org, not elsewhere.org"],
        ),
        (
            "a key from another server",
            other_key,
            &["signing.key: the signing key ed25519:a_ABCD does not give the public key A6EHv"],
        ),
    ];
    for (number, (case, id, wanted)) in cases.into_iter().enumerate() {
        assert_drill_names(case, &forger, &id, &format!("planted_file_{number}"), wanted).await;
    }
}
