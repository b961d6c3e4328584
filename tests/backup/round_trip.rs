//! Backup, verify, restore: what comes back is what was there, and a night in which nothing changed costs next to nothing.

use std::fs;
use std::sync::Arc;

use synapse_backup::ops::inspect;
use synapse_backup::store::Store;
use synapse_backup::store::counters::{Counters, Kind};
use synapse_backup::store::local;
use synapse_backup::store::wrappers::Record;

use crate::homeserver::{Home, KEY, digest, item_of, noise, without_one_time_keys};
use crate::rig::{LIMITS, backup, cat, document, fresh, init, listed, memory, restore, restore_to, run, ticking, verify};
use crate::tree::files;

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_comes_back_as_it_was() {
    let home = Home::new();
    home.upload("BobLargeVideo00000000004", &noise(4, 20 << 20));
    let bucket = tempfile::tempdir().unwrap();
    let store = local::open(bucket.path(), true, Arc::new(Counters::default())).await.unwrap();
    let repository = init(store).await;
    let taken = backup(&repository, &home).await;
    assert_eq!((taken.problems.len(), taken.problem_count), (0, 0), "{:?}", taken.problems);
    assert_eq!((taken.media.files, taken.media.new, taken.media.unchanged), (5, 5, 0));
    assert_eq!(taken.server_name, "example.org");
    assert_eq!(verify(&repository, None).await, []);

    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("restored");
    let report = restore(&repository, "latest", &restore_to(target.path(), home.cluster, &database))
        .await
        .unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.media_files, 5);
    assert_eq!(report.databases, ["synapse"]);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&came_back), files(&home.root));
    let before = digest(home.cluster, &home.database);
    assert!(
        before["public.e2e_one_time_keys_json"].starts_with("50 "),
        "the original keeps its keys"
    );
    assert_eq!(digest(home.cluster, &database), without_one_time_keys(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_time_keys_never_travel() {
    let home = Home::new();
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    let dump = cat(&repository, &taken.snapshot.unwrap(), "database/synapse/main").await.unwrap();
    let holds = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"@alice:example.org"));
    assert!(!holds(b"one-time-secret"), "their table is there, its rows are not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_in_which_nothing_changed_opens_no_media_and_asks_little() {
    let home = Home::new();
    let many: Vec<_> = (0..600).map(|number| (format!("Medium{number:018}"), noise(number, 200))).collect();
    home.upload_all(&many);
    let record = Arc::new(Record::new(ticking(&memory())));
    let repository = init(Arc::clone(&record) as Arc<dyn Store>).await;
    let first = backup(&repository, &home).await;
    assert_eq!(first.media.files, 604);

    // Were a file looked for, it would not be found.
    fs::rename(home.at("var/media/local_content"), home.at("var/elsewhere")).unwrap();
    fs::rename(home.at("var/media/local_thumbnails"), home.at("var/elsewhere too")).unwrap();
    let before = record.calls().len();
    let second = backup(&repository, &home).await;
    let calls = record.calls().split_off(before);
    assert_eq!(second.problems, []);
    assert_eq!((second.media.files, second.media.unchanged, second.media.new), (604, 604, 0));
    assert!(calls.len() <= 30, "{} requests: {calls:#?}", calls.len());
    assert!(second.new_bytes < 100_000, "{} new bytes", second.new_bytes);
    assert!(!calls.iter().any(|call| call.kind == Kind::Part), "{calls:#?}");
    assert_eq!(verify(&repository, None).await, []);

    // The snapshot is as whole as the first one.
    let (one, two) = (
        document(&repository, &first.snapshot.unwrap()).await,
        document(&repository, &second.snapshot.unwrap()).await,
    );
    let (one, two) = (one.media.unwrap(), two.media.unwrap());
    assert_eq!((one.files, one.bytes, one.counts), (two.files, two.bytes, two.counts));
    let bytes = cat(&repository, "latest", &item_of("Medium000000000000000007")).await.unwrap();
    assert!(bytes == noise(7, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_is_read_and_sent() {
    let home = Home::new();
    let repository = fresh().await;
    backup(&repository, &home).await;
    home.upload("BobNewPicture00000000005", &noise(5, 300_000));
    home.sql("DELETE FROM local_media_repository WHERE media_id = 'AliceSecondPicture000002'");
    fs::remove_file(home.media("AliceSecondPicture000002")).unwrap();
    let second = backup(&repository, &home).await;
    assert_eq!(second.problems, []);
    assert_eq!((second.media.files, second.media.new, second.media.unchanged), (4, 1, 3));
    assert!((300_000..700_000).contains(&second.new_bytes), "{}", second.new_bytes);
    let mut names = Vec::new();
    let mut line = |line: inspect::ItemLine| {
        names.push(line.name);
        Ok(())
    };
    inspect::ls(&repository, "latest", "media/local_content/", LIMITS, &run(), &mut line)
        .await
        .unwrap();
    let expected = ["AliceFirstPicture0000001", "BobEmptyFile000000000003", "BobNewPicture00000000005"].map(item_of);
    assert_eq!(names, expected);
    assert_eq!(listed(&repository).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_names_public_keys_and_no_secret() {
    let home = Home::new();
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    let document = document(&repository, &taken.snapshot.unwrap()).await;
    assert_eq!(document.signing_keys[0].id, "ed25519:a_ABCD");
    assert_eq!(document.signing_keys[0].public_key, "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg");
    let json = serde_json::to_string(&document).unwrap();
    assert!(
        !json.contains(KEY.split_whitespace().last().unwrap()),
        "the seed is in its own pack only"
    );
    assert_eq!(document.databases[0].facts.schema_version, Some(94));
    assert_eq!(document.databases[0].excluded_table_data, ["*.e2e_one_time_keys_json"]);
}
