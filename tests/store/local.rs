//! What only a directory can get wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::{ByteRange, Error, Store, UploadId, local};

async fn open(path: &Path) -> Arc<dyn Store> {
    local::open(path, true, Arc::new(Counters::default())).await.unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    names
}

#[tokio::test]
async fn a_missing_directory_is_made_only_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let failure = local::open(&path, false, Arc::default()).await.unwrap_err();
    assert!(matches!(failure, Error::NoBucket { .. }), "{failure:?}");
    assert_eq!(failure.to_string(), format!("no directory at file://{}", path.display()));
    assert!(failure.hint().unwrap().contains("path"));
    open(&path).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    fs::write(directory.path().join("file"), "").unwrap();
    let failure = local::open(&directory.path().join("file"), true, Arc::default()).await.unwrap_err();
    assert!(matches!(failure, Error::BadUrl { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_directory_that_vanishes_is_not_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await;
    store.put("a", Bytes::new()).await.unwrap();
    fs::remove_dir_all(&path).unwrap();
    let failures = [
        store.put("b/c", Bytes::new()).await.err(),
        store.get("a", ByteRange::All).await.err(),
        store.list_page("", None).await.err(),
        store.delete("a").await.err(),
    ];
    for failure in failures {
        assert!(matches!(failure, Some(Error::NoBucket { .. })), "{failure:?}");
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn keys_cannot_lead_outside() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("outside"), "secret").unwrap();
    let store = open(&directory.path().join("store")).await;
    for key in [
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "a//b",
        "",
        ".",
        "a/./b",
        "a/",
        ".unfinished/x",
    ] {
        let failures = [
            store.put(key, Bytes::from_static(b"x")).await.err(),
            store.get(key, ByteRange::All).await.err(),
            store.head(key).await.err(),
            store.delete(key).await.err(),
            store.copy(key, "b").await.err(),
            store.copy("b", key).await.err(),
            store.create_upload(key).await.err(),
        ];
        for (at, failure) in failures.into_iter().enumerate() {
            assert!(matches!(failure, Some(Error::Failed { .. })), "{key} {at}: {failure:?}");
        }
    }
    assert_eq!(fs::read(directory.path().join("outside")).unwrap(), b"secret");
}

#[tokio::test]
async fn an_object_is_never_replaced_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.put("a", Bytes::from_static(b"first")).await.unwrap();
    store.put("a", Bytes::from_static(b"other")).await.unwrap_err();
    store.put("b", Bytes::from_static(b"other")).await.unwrap();
    store.copy("b", "a").await.unwrap_err();
    assert_eq!(store.get("a", ByteRange::All).await.unwrap().bytes, "first");
    assert_eq!(files(&directory.path().join(".unfinished")), [""; 0]);
}

#[tokio::test]
async fn leftovers_and_foreign_files_are_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.put("packs/a", Bytes::from_static(b"x")).await.unwrap();
    // A run that was killed in the middle of an upload.
    fs::write(directory.path().join(".unfinished/0123"), "half").unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
    let foreign: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    fs::write(directory.path().join(foreign), "x").unwrap();
    let keys: Vec<String> = store
        .list_page("", None)
        .await
        .unwrap()
        .objects
        .into_iter()
        .map(|listed| listed.key)
        .collect();
    assert_eq!(keys, ["packs/a"]);
}

#[tokio::test]
async fn what_a_killed_run_left_is_listed_and_given_up_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.put("a", Bytes::new()).await.unwrap();
    let scratch = directory.path().join(".unfinished");
    fs::write(scratch.join("0123456789abcdef0123456789abcdef"), "half").unwrap();
    fs::write(scratch.join("notes.txt"), "theirs").unwrap();
    fs::create_dir(scratch.join("0123")).unwrap();
    fs::write(directory.path().join("abc"), "theirs").unwrap();
    let open = store.uploads().unwrap().list_uploads("packs/").await.unwrap();
    let keys: Vec<&str> = open.iter().map(|upload| upload.key.as_str()).collect();
    assert_eq!(keys, [".unfinished/0123456789abcdef0123456789abcdef"]);
    store.abort_upload(&open[0].key, &open[0].id).await.unwrap();
    for id in ["notes.txt", "../abc", "", "."] {
        store.abort_upload(".unfinished/x", &UploadId(id.to_owned())).await.unwrap();
    }
    assert_eq!(files(&scratch), ["0123", "notes.txt"]);
    assert!(directory.path().join("abc").exists());
}

#[tokio::test]
async fn uploads_leave_no_files_behind() {
    let directory = tempfile::tempdir().unwrap();
    let scratch = directory.path().join(".unfinished");
    let store = open(directory.path()).await;
    let upload = store.create_upload("a").await.unwrap();
    // Before the length of a part is known it waits in a file of its own.
    store.put_part("a", &upload, 2, Bytes::from_static(b"22")).await.unwrap();
    assert_eq!(files(&scratch).len(), 2);
    store.abort_upload("a", &upload).await.unwrap();
    assert_eq!(files(&scratch), [""; 0]);
    let upload = store.create_upload("a").await.unwrap();
    let two = store.put_part("a", &upload, 2, Bytes::from_static(b"22")).await.unwrap();
    let one = store.put_part("a", &upload, 1, Bytes::from_static(b"111")).await.unwrap();
    let failure = store
        .complete_upload("a", &upload, vec![one.clone(), two.clone()], 6)
        .await
        .unwrap_err();
    assert!(matches!(failure, Error::Failed { .. }));
    store.complete_upload("a", &upload, vec![one, two], 5).await.unwrap();
    assert_eq!(files(&scratch), [""; 0]);
    assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"11122");
    store.abort_upload("a", &UploadId("unknown".to_owned())).await.unwrap();
}

#[tokio::test]
async fn requests_and_bytes_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let counters = Arc::new(Counters::default());
    let store = local::open(directory.path(), true, Arc::clone(&counters)).await.unwrap();
    store.put("a", Bytes::from_static(b"12345")).await.unwrap();
    store.get("a", ByteRange::Last(2)).await.unwrap();
    store.list_page("", None).await.unwrap();
    let totals = counters.totals();
    assert_eq!(
        (
            totals.requests.put,
            totals.requests.get,
            totals.requests.list,
            totals.requests.sum()
        ),
        (1, 1, 1, 3)
    );
    assert_eq!((totals.sent_bytes, totals.received_bytes), (5, 2));
}
