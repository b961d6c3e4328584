//! Drills: a snapshot that is whole passes, with figures and a record; what is wrong is named; nothing remains.

use std::fs;
use std::path::Path;

use synapse_backup::format::keys;
use synapse_backup::ops::backup;
use synapse_backup::ops::drill::{self, Databases, Media, Report};
use synapse_backup::ops::restore::DatabaseTarget;
use synapse_backup::ops::{Part, inspect};
use synapse_backup::repo::{Repository, catalog, snapshots};

use crate::cluster::shared;
use crate::homeserver::Home;
use crate::rig::{LIMITS, conninfo, fresh, run, tools};

/// A drill into the cluster of the tests, in a folder of its own.
pub(crate) fn options(folder: &Path, snapshot: &str, database: &str) -> drill::Options {
    let target = DatabaseTarget::ConnInfo(conninfo(shared(), database));
    drill::Options {
        snapshot: snapshot.into(),
        databases: Databases::Given(vec![("synapse".into(), target)]),
        media: Media::All,
        folder: folder.to_owned(),
        container_path_map: Vec::new(),
        working_directory: Some("/".into()),
        start_synapse: None,
        late: false,
        no_record: false,
        limits: LIMITS,
        tools: tools(),
        tool_version: "0".into(),
    }
}

pub(crate) async fn drilled(repository: &Repository, options: &drill::Options) -> Report {
    drill::drill(repository, options, &run()).await.unwrap()
}

fn figures(report: &Report) -> Vec<(&str, bool, &str)> {
    report
        .checks
        .iter()
        .map(|check| (check.name.as_str(), check.ok, check.figure.as_str()))
        .collect()
}

fn databases_that_begin_so(prefix: &str) -> String {
    shared().psql(
        "postgres",
        &format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{prefix}%'"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_snapshot_passes_with_figures_in_a_private_cluster_and_nothing_remains() {
    let (home, repository) = (Home::new(), fresh().await);
    let id = crate::rig::backup(&repository, &home).await.snapshot.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let options = drill::Options {
        databases: Databases::Private,
        ..options(folder.path(), "latest", "")
    };
    let report = drilled(&repository, &options).await;
    assert_eq!(report.problems, []);
    assert!(report.passed && report.recorded, "{report:#?}");
    let key = "ed25519:a_ABCD A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
    for wanted in [
        ("synapse: one-time keys", true, "0 keys in 2 tables"),
        ("synapse: schema", true, "version 94, compatible with 84"),
        ("synapse: streams", true, "1 position"),
        ("synapse: sequences", true, "1 sequence as dumped, 1 column not ahead of theirs"),
        ("signing key", true, key),
        ("media", true, "4 rows, 4 files and 43700 bytes read back and hashed"),
    ] {
        assert!(figures(&report).contains(&wanted), "{wanted:?}: {:#?}", report.checks);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing remains");
    let listed = inspect::snapshots(&repository, &run()).await.unwrap();
    let record = listed.snapshots[0].drilled.clone().unwrap();
    assert!(record.passed && listed.snapshots[0].id == id);
    let shown = inspect::show(&repository, "latest", false, LIMITS, &run()).await.unwrap();
    assert_eq!(shown.drilled.unwrap().time, record.time);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_homeserver_does_not_pass_for_a_whole_one() {
    let home = Home::new();
    let repository = fresh().await;
    let folder = tempfile::tempdir().unwrap();
    for (parts, wanted) in [
        ([Part::Config].as_slice(), "it has no database and no media: "),
        (&[Part::Config, Part::Database], "it has no media: "),
    ] {
        let partial = backup::Options {
            parts: parts.iter().copied().collect(),
            ..crate::rig::options()
        };
        let taken = backup::backup(&repository, &home.discover(), &partial, &run()).await.unwrap();
        let mut options = options(folder.path(), &taken.snapshot.unwrap(), "partial");
        if !parts.contains(&Part::Database) {
            options.databases = Databases::Given(Vec::new());
        }
        let report = drilled(&repository, &options).await;
        assert!(!report.passed, "{parts:?}");
        // There is no whole one that `latest` could mean.
        options.snapshot = "latest".into();
        assert_eq!(drilled(&repository, &options).await.snapshot, report.snapshot);
        let said: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert!(said.len() == 1 && said[0].starts_with(wanted), "{parts:?}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_that_is_drilled_is_the_newest_whole_one() {
    let home = Home::new();
    let repository = fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let whole = backup::backup(&repository, &home.discover(), &crate::rig::options(), &run())
        .await
        .unwrap();
    let whole = whole.snapshot.unwrap();
    let document = snapshots::find(&repository, &whole, false).await.unwrap().snapshot;
    let mut stored = 0;
    for prefix in [keys::PACKS, keys::INDEX] {
        let listed = catalog::each_listed(&repository, prefix, |object| stored += object.bytes).await;
        listed.unwrap();
    }
    assert_eq!(document.totals.sent_bytes, stored, "the first snapshot has sent all that is there");
    let partial = backup::Options {
        parts: [Part::Config].into(),
        ..crate::rig::options()
    };
    let partial = backup::backup(&repository, &home.discover(), &partial, &run())
        .await
        .unwrap()
        .snapshot
        .unwrap();
    assert_eq!(
        snapshots::find(&repository, "latest", false).await.unwrap().snapshot.id.to_string(),
        partial
    );
    for name in ["latest".to_owned(), format!("latest:{}", document.server_name)] {
        let report = drilled(&repository, &options(folder.path(), &name, "newest_whole")).await;
        assert_eq!(
            (report.passed, report.snapshot),
            (true, whole.clone()),
            "{name}: {:?}",
            report.problems
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn less_of_the_media_can_be_read_back() {
    let (home, repository) = (Home::new(), fresh().await);
    home.upload("AliceLargePicture0000004", &crate::homeserver::noise(9, 9 << 20));
    crate::rig::backup(&repository, &home).await;
    let folder = tempfile::tempdir().unwrap();
    for (media, figure) in [
        (Media::HashOnly, "5 rows, 5 files and 9480884 bytes read back and hashed"),
        (Media::Sample(100.0), "5 rows, 5 files and 9480884 bytes read back and hashed"),
        (Media::Sample(0.000_001), "5 rows, 0 files and 0 bytes read back and hashed"),
    ] {
        let options = drill::Options {
            media,
            ..options(folder.path(), "latest", "drill_media")
        };
        let report = drilled(&repository, &options).await;
        assert_eq!(report.problems, [], "{media}");
        assert!(figures(&report).contains(&("media", true, figure)), "{media}: {:#?}", report.checks);
    }
    assert_eq!(databases_that_begin_so("drill_media"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_database_is_made_and_dropped_or_lent_and_emptied_and_never_somebody_elses() {
    let (home, repository) = (Home::new(), fresh().await);
    crate::rig::backup(&repository, &home).await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = shared();
    let report = drilled(&repository, &options(folder.path(), "latest", "drill_made")).await;
    assert!(report.passed, "{report:#?}");
    assert_eq!(databases_that_begin_so("drill_made"), "0", "made and dropped");

    let lent = cluster.database("drill_lent");
    for _ in 0..2 {
        let report = drilled(&repository, &options(folder.path(), "latest", &lent)).await;
        assert!(report.passed, "{report:#?}");
        let tables =
            "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|information)'";
        assert_eq!(cluster.psql(&lent, tables), "0", "emptied");
    }
    // A run that was killed has left it full, with its comment.
    cluster.psql(&lent, "CREATE TABLE left_over (x int)");
    let comment = "COMMENT ON DATABASE % IS 'synapse-backup drill: lent to it, and emptied after it'";
    cluster.psql("postgres", &comment.replace('%', &lent));
    assert!(drilled(&repository, &options(folder.path(), "latest", &lent)).await.passed);
    // And one that it had made, under any name.
    let made = cluster.database("drill_left_over");
    cluster.psql(
        "postgres",
        &comment
            .replace('%', &made)
            .replace("lent to it, and emptied after it", "made for it, and dropped after it"),
    );
    assert!(drilled(&repository, &options(folder.path(), "latest", "drill_made")).await.passed);
    assert_eq!(databases_that_begin_so("drill_left_over"), "0");

    // The homeserver's own.
    let before = home.sql("SELECT count(*) FROM events");
    for database in [home.database.as_str(), lent.as_str()] {
        if database == lent {
            cluster.psql(&lent, "CREATE TABLE of_a_person (x int)");
        }
        let error = drill::drill(&repository, &options(folder.path(), "latest", database), &run())
            .await
            .unwrap_err();
        let told = format!("{error:#}");
        // A session that is still ending makes it busy, which is as good a reason.
        assert!(told.contains("not empty") || told.contains("in use"), "{told}");
    }
    assert_eq!(home.sql("SELECT count(*) FROM events"), before);
    assert_eq!(cluster.psql(&lent, "SELECT count(*) FROM of_a_person"), "0");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_that_are_gone_or_made_anew_are_no_more_a_fault_than_for_a_backup() {
    let (home, repository) = (Home::new(), fresh().await);
    home.sql(
        "INSERT INTO local_media_repository (media_id, media_type, media_length, created_ts, url_cache) VALUES \
         ('2026-11-01_GoneFromTheCache', 'image/png', 500, 1, 'https://a'), ('2026-11-01_MadeAnew', 'image/png', 500, 1, 'https://b')",
    );
    home.write("var/media/url_cache/2026-11-01/MadeAnew", &crate::homeserver::noise(9, 700));
    let with_previews = backup::Options {
        url_cache: true,
        ..crate::rig::options()
    };
    let taken = backup::backup(&repository, &home.discover(), &with_previews, &run()).await.unwrap();
    assert_eq!(taken.problems, []);
    let folder = tempfile::tempdir().unwrap();
    let report = drilled(&repository, &options(folder.path(), "latest", "drill_previews")).await;
    assert_eq!(report.problems, []);
    let figure = "6 rows, 5 files and 44400 bytes read back and hashed; 1 thumbnails or previews that Synapse makes again";
    assert!(figures(&report).contains(&("media", true, figure)), "{:#?}", report.checks);

    // Without its rows nothing is known of all that.
    let skipped = drill::Options {
        databases: Databases::Given(vec![("synapse".into(), DatabaseTarget::Skip)]),
        ..options(folder.path(), "latest", "")
    };
    let report = drilled(&repository, &skipped).await;
    let items: Vec<&str> = report.problems.iter().map(|problem| problem.item.as_str()).collect();
    assert_eq!((report.passed, items), (false, vec!["database/synapse"]));
}
