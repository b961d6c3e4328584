//! Bringing back what one user uploaded, or what was uploaded on some days: the rows of the dump know, the manifest does not.

use std::collections::BTreeSet;
use std::path::Path;

use synapse_backup::ops::backup;
use synapse_backup::ops::restore::{self, Uploaded};
use synapse_backup::ops::{Limits, Part};
use synapse_backup::repo::Repository;

use crate::homeserver::{Home, noise, path_of};
use crate::rig::{self, fresh, options, restore_files_to, run};

const ALICE: [&str; 2] = ["AliceEarly00000000000001", "AliceLate000000000000002"];
const BOB: [&str; 2] = ["BobEarly0000000000000003", "BobLate00000000000000004"];

/// Two users, each with one file of May and one of June; a preview of a link that Alice looked at; a row of nobody.
fn home() -> Home {
    let home = Home::bare(crate::cluster::shared());
    for (seed, (id, user, day)) in [
        (ALICE[0], "@alice:example.org", "2026-05-01"),
        (ALICE[1], "@alice:example.org", "2026-06-01"),
        (BOB[0], "@bob:example.org", "2026-05-01"),
        (BOB[1], "@bob:example.org", "2026-06-01"),
        ("NobodyKnows0000000000005", "", ""),
    ]
    .into_iter()
    .enumerate()
    {
        home.upload(id, &noise(seed as u64, 3_000));
        let created = if day.is_empty() {
            "NULL".into()
        } else {
            format!("extract(epoch FROM timestamptz '{day} 12:00Z') * 1000")
        };
        home.sql(&format!(
            "UPDATE local_media_repository SET user_id = nullif('{user}', ''), created_ts = {created} WHERE media_id = '{id}'"
        ));
    }
    home.thumbnail(ALICE[0], &noise(9, 500));
    home.sql("INSERT INTO local_media_repository (media_id, media_length, user_id, created_ts, url_cache) VALUES ('2026-05-01_Preview', 5, '@alice:example.org', 1777636800000, 'https://x')");
    home
}

fn uploaded(by: Option<&str>, after: Option<&str>, before: Option<&str>) -> Uploaded {
    Uploaded {
        by: by.map(str::to_owned),
        after: after.map(|time| time.parse().unwrap()),
        before: before.map(|time| time.parse().unwrap()),
    }
}

fn part_of(to: &Path, uploaded: Uploaded) -> restore::Options {
    restore::Options {
        parts: [Part::Media].into(),
        databases: Vec::new(),
        uploaded: Some(uploaded),
        ..restore_files_to(to)
    }
}

/// Paths in the media store of what is there now.
fn brought_back(home: &Home, to: &Path) -> BTreeSet<String> {
    let store = to.join(home.at("var/media").strip_prefix("/").unwrap());
    let mut found = BTreeSet::new();
    let mut folders = vec![store.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(&store).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_uploaded_comes_back_alone() {
    let home = home();
    let repository = fresh().await;
    rig::backup(&repository, &home).await;
    let thumbnail = home
        .thumbnail_path(ALICE[0])
        .strip_prefix(home.at("var/media"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let june = Some("2026-06-01T00:00:00Z");
    let cases: [(Uploaded, &[&str]); 5] = [
        (uploaded(Some("@alice:example.org"), None, None), &ALICE),
        (uploaded(Some("@bob:example.org"), june, None), &BOB[1..]),
        (uploaded(None, june, None), &[ALICE[1], BOB[1]]),
        (uploaded(None, None, june), &[ALICE[0], BOB[0]]),
        (
            uploaded(None, Some("2026-05-01T12:00:00Z"), Some("2026-05-01T12:00:00.001Z")),
            &[ALICE[0], BOB[0]],
        ),
    ];
    for (choice, ids) in cases {
        let to = tempfile::tempdir().unwrap();
        let report = rig::restore(&repository, "latest", &part_of(to.path(), choice.clone()))
            .await
            .unwrap();
        let mut expected: BTreeSet<String> = ids.iter().map(|id| path_of(id)).collect();
        if ids.contains(&ALICE[0]) {
            expected.insert(thumbnail.clone());
        }
        assert_eq!(brought_back(&home, to.path()), expected, "{choice:?}");
        assert_eq!(
            (report.media_files, report.problems.len()),
            (expected.len() as u64, 0),
            "{choice:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_cannot_be_met_is_told() {
    async fn refused(repository: &Repository, choice: Uploaded) -> String {
        let to = tempfile::tempdir().unwrap();
        rig::restore(repository, "latest", &part_of(to.path(), choice)).await.unwrap_err()
    }
    let home = home();
    // One of Alice's files was lost before the backup.
    std::fs::remove_file(home.media(ALICE[1])).unwrap();
    let repository = fresh().await;
    rig::backup(&repository, &home).await;
    let nobody = refused(&repository, uploaded(Some("@nobody:example.org"), None, None)).await;
    assert!(nobody.contains("no media of this snapshot"), "{nobody}");
    let to = tempfile::tempdir().unwrap();
    let alice = part_of(to.path(), uploaded(Some("@alice:example.org"), None, None));
    let report = rig::restore(&repository, "latest", &alice).await.unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].item.ends_with(&path_of(ALICE[1])) && report.problems[0].message.contains("was not saved"));
    // Without the rows nobody can tell.
    let media_alone = backup::Options {
        parts: [Part::Media].into(),
        ..options()
    };
    backup::backup(&repository, &home.discover(), &media_alone, &run()).await.unwrap();
    let blind = refused(&repository, uploaded(Some("@alice:example.org"), None, None)).await;
    assert!(blind.contains("no rows of local_media_repository"), "{blind}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_in_whichever_stream_they_are() {
    let home = home();
    // The table is big enough for a stream of its own, and there is another one of that name in a schema before it.
    home.sql("INSERT INTO local_media_repository (media_id, media_length, user_id, upload_name) SELECT 'NotThere' || i, NULL, '@carol:example.org', repeat(md5(i::text), 40) FROM generate_series(1, 8000) AS i");
    home.sql("CREATE SCHEMA aaa; CREATE TABLE aaa.local_media_repository (media_id text, user_id text); INSERT INTO aaa.local_media_repository VALUES ('x', '@alice:example.org')");
    home.sql("ANALYZE");
    for dump_jobs in [1, 4] {
        let repository = fresh().await;
        let limits = Limits {
            dump_jobs,
            memory_bytes: 256 << 20,
            ..rig::LIMITS
        };
        let taken = backup::backup(&repository, &home.discover(), &backup::Options { limits, ..options() }, &run())
            .await
            .unwrap();
        let streams = taken.databases[0].streams;
        let to = tempfile::tempdir().unwrap();
        let report = rig::restore(
            &repository,
            "latest",
            &part_of(to.path(), uploaded(Some("@bob:example.org"), None, None)),
        )
        .await;
        assert_eq!(report.unwrap().media_files, 2, "{dump_jobs} jobs, {streams} streams");
    }
}
