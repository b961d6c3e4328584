//! The rows of media as Synapse's own tables give them, with old schemas and with ids that nobody should trust.

use std::collections::HashSet;

use synapse_backup::synapse::media::{MediaChoice, MediaItem, MediaKind, MediaRow, MediaTables};
use synapse_backup::synapse::postgres::snapshot::Snapshot;

use super::*;

const TABLES: &str = r"
CREATE TABLE local_media_repository (media_id text UNIQUE, media_type text, media_length int, created_ts bigint, url_cache text, quarantined_by text, sha256 text);
CREATE TABLE local_media_repository_thumbnails (media_id text, thumbnail_width int, thumbnail_height int, thumbnail_type text, thumbnail_method text, thumbnail_length int);
CREATE TABLE remote_media_cache (media_origin text, media_id text, media_length int, filesystem_id text, sha256 text);
CREATE TABLE remote_media_cache_thumbnails (media_origin text, media_id text, thumbnail_width int, thumbnail_height int, thumbnail_method text, thumbnail_type text, thumbnail_length int, filesystem_id text);
";
const ROWS: &str = r"
INSERT INTO local_media_repository (media_id, media_length, url_cache, quarantined_by, sha256) VALUES
  ('bbccdddddddd', 20, NULL, '@admin:x', repeat('0f', 32)), ('aabbcccc', 10, NULL, NULL, NULL), ('AAbbcccc', 0, NULL, NULL, 'broken'),
  ('notuploaded', NULL, NULL, NULL, NULL), ('2024-01-31_abcdef', 5, 'https://x', NULL, NULL), ('oldcache', 6, 'https://y', NULL, NULL),
  ('../../etc/passwd', 7, NULL, NULL, NULL), (E'tab\there\nline', 8, NULL, NULL, NULL), ('abc', 9, NULL, NULL, NULL);
INSERT INTO local_media_repository_thumbnails VALUES
  ('aabbcccc', 320, 240, 'image/jpeg', 'scale', 3), ('aabbcccc', 32, 32, 'image/png', 'crop', 4), ('2024-01-31_abcdef', 32, 32, 'image/png', 'crop', 5), ('vanished', 1, 1, 'image/png', 'crop', 1);
INSERT INTO remote_media_cache VALUES ('matrix.org:8448', 'x', 11, 'aabbrest', NULL), ('../up', 'x', 11, 'aabbrest', NULL);
INSERT INTO remote_media_cache_thumbnails VALUES ('matrix.org:8448', 'x', 32, 32, 'crop', 'image/png', 12, 'aabbrest');
";

fn media(extra: &str) -> String {
    let name = shared().database("media");
    shared().script(&name, &format!("{TABLES}{ROWS}{extra}"));
    name
}

async fn rows(session: &mut Session, tables: &MediaTables, choice: MediaChoice) -> Vec<MediaItem> {
    let mut items = Vec::new();
    for kind in choice.kinds() {
        let mut rows = tables.rows(session, kind).await.unwrap();
        while let Some(item) = rows.next().await.unwrap() {
            items.push(item);
        }
    }
    items
}

fn files(items: &[MediaItem]) -> Vec<(&str, Option<u64>)> {
    let file = |item: &MediaItem| matches!(item, MediaItem::File(_));
    let rows = items
        .iter()
        .filter(|item| file(item))
        .map(|item| if let MediaItem::File(row) = item { row } else { unreachable!() });
    rows.map(|row: &MediaRow| (row.path.as_str(), row.bytes)).collect()
}

const EVERYTHING: MediaChoice = MediaChoice {
    thumbnails: true,
    remote: true,
    url_cache: true,
};

#[tokio::test]
async fn each_row_is_a_path_with_length_and_hash_sorted_by_bytes() {
    let name = media("");
    let mut snapshot = Snapshot::export(&socket(&name, SUPERUSER), &tools().await, 5).await.unwrap();
    shared().psql(&name, "DELETE FROM local_media_repository");
    let tables = MediaTables::find(&mut snapshot.session).await.unwrap().unwrap();
    let items = rows(&mut snapshot.session, &tables, EVERYTHING).await;
    let expected = [
        ("local_content/AA/bb/cccc", Some(0)),
        ("local_content/aa/bb/cccc", Some(10)),
        ("local_content/bb/cc/dddddddd", Some(20)),
        ("local_thumbnails/aa/bb/cccc/32-32-image-png-crop", Some(4)),
        ("local_thumbnails/aa/bb/cccc/320-240-image-jpeg-scale", Some(3)),
        ("remote_content/matrix.org:8448/aa/bb/rest", Some(11)),
        ("remote_thumbnail/matrix.org:8448/aa/bb/rest/32-32-image-png-crop", Some(12)),
        ("url_cache/2024-01-31/abcdef", Some(5)),
        ("url_cache/ol/dc/ache", Some(6)),
        ("url_cache_thumbnails/2024-01-31/abcdef/32-32-image-png-crop", Some(5)),
    ];
    assert_eq!(files(&items), expected);
    let bad = items.iter().filter(|item| matches!(item, MediaItem::BadId { .. })).count();
    assert_eq!(bad, 4, "{items:?}");
    let hashes: Vec<_> = items
        .iter()
        .filter_map(|item| if let MediaItem::File(row) = item { row.sha256 } else { None })
        .collect();
    assert_eq!(hashes, [[0x0f; 32]]);
    assert_eq!(
        files(&rows(&mut snapshot.session, &tables, MediaChoice::default()).await),
        expected[..5]
    );
    snapshot.close().await;
}

#[tokio::test]
async fn a_schema_from_before_the_hashes_and_another_search_path_are_read() {
    let name = shared().database("old");
    let old = format!(
        "CREATE SCHEMA \"Syn apse\"; CREATE SCHEMA spare; SET search_path = spare; {TABLES} SET search_path = \"Syn apse\"; {TABLES} {ROWS}"
    );
    shared().script(&name, &old);
    shared().psql(&name, "ALTER TABLE \"Syn apse\".local_media_repository DROP COLUMN sha256; ALTER TABLE \"Syn apse\".remote_media_cache DROP COLUMN sha256");
    let mut unknown = session(&name).await;
    assert_eq!(
        MediaTables::find(&mut unknown).await.unwrap(),
        None,
        "two schemas have it and none is on the path"
    );
    unknown.close().await;
    shared().psql(&name, &format!("ALTER DATABASE {name} SET search_path = \"Syn apse\", public"));
    let mut session = session(&name).await;
    let tables = MediaTables::find(&mut session).await.unwrap().unwrap();
    let items = rows(&mut session, &tables, EVERYTHING).await;
    assert_eq!(files(&items).len(), 10);
    session.close().await;
}

#[tokio::test]
async fn rows_deleted_meanwhile_are_told_from_rows_still_there() {
    let name = media("");
    let mut snapshot = Snapshot::export(&socket(&name, SUPERUSER), &tools().await, 5).await.unwrap();
    let tables = MediaTables::find(&mut snapshot.session).await.unwrap().unwrap();
    let items = rows(&mut snapshot.session, &tables, EVERYTHING).await;
    snapshot.close().await;
    shared().psql(
        &name,
        "DELETE FROM local_media_repository WHERE media_id IN ('aabbcccc', 'oldcache'); DELETE FROM remote_media_cache",
    );
    let mut live = session(&name).await;
    let mut there = HashSet::new();
    for kind in MediaKind::ALL {
        let paths: Vec<String> = files(&items)
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .filter(|path| path.starts_with(&format!("{}/", kind.folder())))
            .collect();
        there.extend(tables.still_there(&mut live, kind, &paths).await.unwrap());
    }
    let mut there: Vec<_> = there.into_iter().collect();
    there.sort();
    let expected = [
        "local_content/AA/bb/cccc",
        "local_content/bb/cc/dddddddd",
        "remote_thumbnail/matrix.org:8448/aa/bb/rest/32-32-image-png-crop",
        "url_cache/2024-01-31/abcdef",
        "url_cache_thumbnails/2024-01-31/abcdef/32-32-image-png-crop",
    ];
    assert_eq!(there, expected);
    assert!(
        tables
            .still_there(&mut live, MediaKind::Local, &["local_content/../x".to_owned()])
            .await
            .unwrap()
            .is_empty()
    );
    live.close().await;
}

#[tokio::test]
async fn a_database_without_media_has_no_tables_of_media() {
    assert_eq!(
        MediaTables::find(&mut session(&shared().database("none")).await).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_hundred_thousand_rows_stream_in_order() {
    let name =
        media("INSERT INTO local_media_repository (media_id, media_length) SELECT md5(i::text), i FROM generate_series(1, 100000) AS i");
    let mut session = session(&name).await;
    let tables = MediaTables::find(&mut session).await.unwrap().unwrap();
    let mut rows = tables.rows(&mut session, MediaKind::Local).await.unwrap();
    let (mut last, mut count) = (String::new(), 0);
    while let Some(item) = rows.next().await.unwrap() {
        if let MediaItem::File(row) = item {
            assert!(row.path > last);
            (last, count) = (row.path, count + 1);
        }
    }
    assert_eq!(count, 100_003);
    session.close().await;
}
