//! Restore never merges, never writes what is damaged, and leaves nothing behind that could be started half.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use synapse_backup::format::snapshot::ProblemKind::{Damaged, Missing};
use synapse_backup::format::{BlobId, keys};
use synapse_backup::ops::restore::{DatabaseTarget, Options};
use synapse_backup::ops::{self, ErrorKind, Part};
use synapse_backup::repo::{Repository, catalog};
use synapse_backup::store::Store;
use synapse_backup::store::memory::{Clock, Memory};

use crate::cluster::quoted;
use crate::homeserver::{Home, KEY, digest, item_of, noise, without_one_time_keys};
use crate::rig::{
    backup, conninfo, copy_of, document, fresh_in, listed, memory, named, reopen, restore, restore_files_to, restore_to, run, ticking,
    verify,
};
use crate::tree::{files, tree};

/// A homeserver, its backup, and where the backup is.
struct Story {
    home: Home,
    memory: Arc<Memory>,
    repository: Repository,
}

impl Story {
    async fn new() -> Self {
        let (home, memory) = (Home::new(), memory());
        let repository = fresh_in(&memory).await;
        assert_eq!(backup(&repository, &home).await.problems, []);
        Self { home, memory, repository }
    }

    /// The repository in a copy of the store, in which the blobs of these bytes have rotted.
    async fn rotten(&self, contents: &[&[u8]]) -> Repository {
        let memory = copy_of(&self.memory).await;
        let repository = reopen(ticking(&memory)).await;
        let index = catalog::load(&repository, 1 << 30).await.unwrap();
        for content in contents {
            let copies = index.copies(&BlobId::of(content));
            assert_eq!(copies.len(), 1, "one blob, one copy");
            let key = keys::pack(copies[0].pack);
            let mut bytes = memory.objects()[&key].to_vec();
            bytes[(copies[0].blob.frame_offset + copies[0].blob.frame_length / 2) as usize] ^= 1;
            memory.damage(&key, Bytes::from(bytes));
        }
        repository
    }

    /// In place: no `--to`, and the database into a new one.
    fn in_place(&self, database: &str) -> Options {
        Options {
            to: None,
            ..restore_to(&self.home.root, self.home.cluster, database)
        }
    }

    fn is_empty(&self, database: &str) -> bool {
        self.home.cluster.psql(
            database,
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
        ) == "0"
    }
}

/// What stands in the way of a restore: a word, how it is put there, and what the error says.
type Obstacle = (&'static str, fn(&Home), &'static str);

const OBSTACLES: [Obstacle; 7] = [
    ("a medium", |home| home.write("var/media/local_content/x", b"1"), "the media store"),
    (
        "a folder in the media store",
        |home| fs::create_dir_all(home.at("var/media/lost+found")).unwrap(),
        "the media store",
    ),
    ("a file as media store", |home| home.write("var/media", b"1"), "the media store"),
    (
        "another homeserver.yaml",
        |home| home.write("etc/homeserver.yaml", b"server_name: other\n"),
        "there already",
    ),
    (
        "the same homeserver.yaml",
        |home| {
            fs::copy(home.at("old/etc/homeserver.yaml"), home.at("etc/homeserver.yaml")).unwrap();
        },
        "there already",
    ),
    (
        "another signing key",
        |home| home.write("etc/signing.key", b"ed25519 b x\n"),
        "there already",
    ),
    ("another file", |home| home.write("etc/log.yaml", b"version: 2\n"), "there already"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_would_merge_is_refused_before_anything_is_written() {
    let story = Story::new().await;
    let home = &story.home;
    fs::create_dir(home.at("old")).unwrap();
    fs::rename(home.at("etc"), home.at("old/etc")).unwrap();
    fs::rename(home.at("var"), home.at("old/var")).unwrap();
    let database = home.cluster.database("restored");
    for (name, put, words) in OBSTACLES {
        fs::create_dir(home.at("etc")).unwrap();
        put(home);
        let before = tree(&home.root);
        let error = restore(&story.repository, "latest", &story.in_place(&database))
            .await
            .expect_err(name);
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(tree(&home.root), before, "{name}");
        assert!(story.is_empty(&database), "{name}");
        fs::remove_dir_all(home.at("etc")).unwrap();
        if home.at("var").exists() {
            fs::remove_dir_all(home.at("var")).unwrap();
        }
    }
    // A database with a single table.
    home.cluster.psql(&database, "CREATE TABLE mine (id int)");
    let before = tree(&home.root);
    let error = restore(&story.repository, "latest", &story.in_place(&database)).await.unwrap_err();
    assert!(error.contains("is not empty: it has table"), "{error}");
    assert_eq!(tree(&home.root), before);
    home.cluster.psql(&database, "DROP TABLE mine");

    // A shared file that is there as it was is left alone, and empty folders are no obstacle.
    fs::create_dir_all(home.at("etc")).unwrap();
    fs::create_dir_all(home.at("var/media")).unwrap();
    fs::copy(home.at("old/etc/log.yaml"), home.at("etc/log.yaml")).unwrap();
    let inode = fs::metadata(home.at("etc/log.yaml")).unwrap().ino();
    let report = restore(&story.repository, "latest", &story.in_place(&database)).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(fs::metadata(home.at("etc/log.yaml")).unwrap().ino(), inode);
    assert_eq!(files(&home.at("etc")), files(&home.at("old/etc")));
    assert_eq!(files(&home.at("var")), files(&home.at("old/var")));
    assert_eq!(
        digest(home.cluster, &database),
        without_one_time_keys(digest(home.cluster, &home.database))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_needs_an_empty_folder_and_a_word_about_every_database() {
    let story = Story::new().await;
    let folder = tempfile::tempdir().unwrap();
    let database = story.home.cluster.database("restored");
    let to = |path: &str| restore_to(&folder.path().join(path), story.home.cluster, &database);
    fs::write(folder.path().join("file"), b"").unwrap();
    fs::create_dir_all(folder.path().join("full/x")).unwrap();
    let nothing_said = Options {
        databases: Vec::new(),
        ..to("new")
    };
    let wrong_name = Options {
        databases: vec![
            ("synapse".into(), DatabaseTarget::Skip),
            ("synapse-main".into(), DatabaseTarget::Skip),
        ],
        ..to("new")
    };
    let cases = [
        (to("file"), ErrorKind::Failed, "is not empty"),
        (to("full"), ErrorKind::Failed, "is not empty"),
        (nothing_said, ErrorKind::Usage, "--to without --database synapse=CONNINFO"),
        (wrong_name, ErrorKind::Usage, "no database `synapse-main`"),
    ];
    let before = tree(folder.path());
    for (options, kind, words) in cases {
        let error = ops::restore::restore(&story.repository, "latest", &options, &run())
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
        assert_eq!(error.downcast_ref::<ops::Error>().unwrap().kind, kind);
        assert_eq!(tree(folder.path()), before, "{words}");
        assert!(story.is_empty(&database));
    }
    let plan = restore(
        &story.repository,
        "latest",
        &Options {
            dry_run: true,
            ..to("new")
        },
    )
    .await
    .unwrap()
    .plan;
    assert!(plan.iter().any(|line| line.contains("4 media files")), "{plan:#?}");
    assert_eq!(tree(folder.path()), before, "a dry run writes nothing");
    assert!(story.is_empty(&database));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_the_database_goes_where_the_configuration_says() {
    let story = Story::new().await;
    let home = &story.home;
    let before = digest(home.cluster, &home.database);
    fs::rename(home.at("etc"), home.at("old")).unwrap();
    let options = Options {
        databases: Vec::new(),
        parts: [Part::Config, Part::Database].into(),
        create_database: true,
        ..story.in_place("")
    };
    let error = restore(&story.repository, "latest", &options).await.unwrap_err();
    assert!(error.contains("is not empty"), "production is still there: {error}");
    home.cluster.psql("postgres", &format!("DROP DATABASE {}", quoted(&home.database)));
    let report = restore(&story.repository, "latest", &options).await.unwrap();
    assert_eq!((report.problems.len(), report.media_files), (0, 0));
    assert_eq!(digest(home.cluster, &home.database), without_one_time_keys(before));
    assert_eq!(files(&home.at("etc")), files(&home.at("old")));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_media_and_files_are_named_and_the_rest_is_written() {
    let story = Story::new().await;
    let repository = story.rotten(&[&noise(1, 40_000), b"version: 1\n"]).await;
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repository, "latest", &restore_files_to(target.path())).await.unwrap();
    let log = format!("config{}", story.home.at("etc/log.yaml").display());
    assert_eq!(
        named(&report.problems),
        [(Damaged, log), (Damaged, item_of("AliceFirstPicture0000001"))]
    );
    let mut expected = files(&story.home.root);
    expected.retain(|path, _| !path.ends_with("log.yaml") && !path.ends_with("Al/ic/eFirstPicture0000001"));
    assert_eq!(files(&target.path().join(story.home.root.strip_prefix("/").unwrap())), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_signing_key_ends_the_restore_before_anything_is_written() {
    let story = Story::new().await;
    let repository = story.rotten(&[KEY.as_bytes()]).await;
    let target = tempfile::tempdir().unwrap();
    let database = story.home.cluster.database("restored");
    let error = restore(&repository, "latest", &restore_to(target.path(), story.home.cluster, &database))
        .await
        .unwrap_err();
    assert!(error.contains("the signing key") && error.contains("is damaged"), "{error}");
    assert_eq!(tree(target.path()).len(), 0);
    assert!(story.is_empty(&database));
    // What needs no key can be had.
    let media = Options {
        parts: [Part::Media].into(),
        ..restore_files_to(target.path())
    };
    assert_eq!(restore(&repository, "latest", &media).await.unwrap().media_files, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_dump_ends_the_restore_without_homeserver_yaml_and_key() {
    let story = Story::new().await;
    let taken = listed(&story.repository).await.remove(0);
    let document = crate::rig::document(&story.repository, &taken).await;
    let streams = &document.databases[0].streams;
    let first_blobs = streams.iter().filter_map(|stream| stream.list.entries.first());
    for blob in first_blobs {
        let memory = copy_of(&story.memory).await;
        let repository = reopen(ticking(&memory)).await;
        let index = catalog::load(&repository, 1 << 30).await.unwrap();
        let location = index.copies(&blob.id)[0];
        let key = keys::pack(location.pack);
        let mut bytes = memory.objects()[&key].to_vec();
        bytes[(location.blob.frame_offset + location.blob.frame_length / 2) as usize] ^= 1;
        memory.damage(&key, Bytes::from(bytes));
        let target = tempfile::tempdir().unwrap();
        let database = story.home.cluster.database("restored");
        let error = restore(&repository, "latest", &restore_to(target.path(), story.home.cluster, &database))
            .await
            .unwrap_err();
        assert!(
            error.contains("database `synapse` could not be loaded") && error.contains(&blob.id.to_string()),
            "{error}"
        );
        let written = tree(target.path());
        assert!(
            !written
                .keys()
                .any(|path| path.ends_with("homeserver.yaml") || path.ends_with("signing.key")),
            "{written:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn homeserver_yaml_and_key_are_written_last() {
    let story = Story::new().await;
    let target = tempfile::tempdir().unwrap();
    restore(&story.repository, "latest", &restore_files_to(target.path()))
        .await
        .unwrap();
    let below = target.path().join(story.home.root.strip_prefix("/").unwrap());
    let placed = |path: &std::path::Path| {
        let metadata = fs::metadata(below.join(path)).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let (yaml, key) = (placed("etc/homeserver.yaml".as_ref()), placed("etc/signing.key".as_ref()));
    assert!(
        key < yaml,
        "Synapse cannot start without homeserver.yaml, and makes a new identity without the key"
    );
    let others = files(&below)
        .into_keys()
        .filter(|path| !path.ends_with("homeserver.yaml") && !path.ends_with("signing.key"));
    for path in others {
        assert!(placed(&path) < key, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_prefixes_and_mapped_paths_are_brought_back_alone() {
    let story = Story::new().await;
    let root = story.home.root.strip_prefix("/").unwrap().to_owned();
    let count = |parts: Vec<Part>, map: &[(&str, &str)], prefix: Option<&str>| {
        let map = map.iter().map(|(old, new)| (story.home.at(old), new.into())).collect();
        let options = Options {
            parts: parts.into_iter().collect(),
            path_map: map,
            prefix: prefix.map(str::to_owned),
            ..restore_files_to(std::path::Path::new("/"))
        };
        let repository = &story.repository;
        async move {
            let target = tempfile::tempdir().unwrap();
            let options = Options {
                to: Some(target.path().join("new")),
                ..options
            };
            let report = restore(repository, "latest", &options).await.unwrap();
            assert_eq!(report.problems, []);
            if !target.path().join("new").exists() {
                return Vec::new();
            }
            let written = files(&target.path().join("new"));
            written.into_keys().map(|path| path.display().to_string()).collect::<Vec<String>>()
        }
    };
    let at = |path: &str| root.join(path).display().to_string();
    let config = ["etc/homeserver.yaml", "etc/log.yaml", "etc/signing.key"].map(at);
    assert_eq!(count(vec![Part::Config], &[], None).await, config);
    assert_eq!(count(vec![Part::Database], &[], None).await, [] as [String; 0]);
    assert_eq!(count(vec![Part::Media], &[], None).await.len(), 4);
    for (prefix, expected) in [
        ("local_content/Al/", 2),
        ("media/local_content/Al/", 2),
        ("mxc://example.org/AliceSecondPicture000002", 1),
    ] {
        assert_eq!(count(vec![Part::Media], &[], Some(prefix)).await.len(), expected, "{prefix}");
    }
    let target = tempfile::tempdir().unwrap();
    let foreign = Options {
        parts: [Part::Media].into(),
        prefix: Some("mxc://elsewhere.org/AliceSecondPicture000002".into()),
        ..restore_files_to(&target.path().join("new"))
    };
    let error = restore(&story.repository, "latest", &foreign).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("elsewhere.org/… is not a medium of example.org"),
        "{error:#}"
    );
    let mapped = count(
        vec![Part::Config, Part::Media],
        &[("etc", "/srv/conf"), ("var/media", "/mnt/m")],
        None,
    )
    .await;
    let outside = mapped
        .iter()
        .filter(|path| !path.starts_with("srv/conf/") && !path.starts_with("mnt/m/local_"))
        .count();
    assert_eq!((mapped.len(), outside), (7, 0), "{mapped:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_short_is_resumed() {
    let story = Story::new().await;
    let target = tempfile::tempdir().unwrap();
    let whole = restore_files_to(target.path());
    restore(&story.repository, "latest", &whole).await.unwrap();
    let below = target.path().join(story.home.root.strip_prefix("/").unwrap());
    fs::remove_file(below.join("etc/homeserver.yaml")).unwrap();
    fs::remove_dir_all(below.join("var/media/local_content/Al")).unwrap();
    let error = restore(&story.repository, "latest", &whole).await.unwrap_err();
    assert!(error.contains("is not empty"), "{error}");
    let report = restore(&story.repository, "latest", &Options { resume: true, ..whole })
        .await
        .unwrap();
    assert_eq!((report.media_files, report.media_kept, report.problems.len()), (2, 2, 0));
    assert_eq!(files(&below), files(&story.home.root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_restore_leaves_whole_databases_alone_and_sweeps_what_was_begun() {
    let story = Story::new().await;
    let cluster = story.home.cluster;
    let target = tempfile::tempdir().unwrap();
    let database = cluster.database("restored");
    let whole = Options {
        databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(conninfo(cluster, &database)))],
        ..restore_files_to(target.path())
    };
    restore(&story.repository, "latest", &whole).await.unwrap();
    let below = target.path().join(story.home.root.strip_prefix("/").unwrap());
    let lost = below.join("var/media").join(crate::homeserver::path_of("AliceFirstPicture0000001"));
    fs::remove_file(&lost).unwrap();
    fs::remove_file(below.join("etc/homeserver.yaml")).unwrap();
    fs::write(lost.with_file_name(".synapse-backup-aB3dE6"), b"half").unwrap();
    fs::write(below.join("etc/.synapse-backup-zZ9yX8"), b"half a key").unwrap();
    let resumed = Options { resume: true, ..whole };
    let dry = Options {
        dry_run: true,
        ..resumed.clone()
    };
    let plan = restore(&story.repository, "latest", &dry).await.unwrap().plan;
    assert!(
        plan.contains(&"leave database `synapse` as it is: it is there, with every row".to_owned()),
        "{plan:#?}"
    );
    let before = digest(cluster, &database);
    let report = restore(&story.repository, "latest", &resumed).await.unwrap();
    assert_eq!(
        (report.databases.len(), report.databases_kept.as_slice()),
        (0, &["synapse".to_owned()][..])
    );
    assert_eq!((report.media_files, report.problems.len()), (1, 0));
    assert_eq!(files(&below), files(&story.home.root));
    assert_eq!(digest(cluster, &database), before);
    // Somebody has used it since: it is not what the restore would go on with.
    for (used, back, words) in [
        (
            "INSERT INTO users (name) VALUES ('@new:example.org')",
            "DELETE FROM users WHERE name = '@new:example.org'",
            "public.users has",
        ),
        (
            "SELECT nextval('events_stream_seq')",
            "",
            "the sequence public.events_stream_seq is at",
        ),
    ] {
        cluster.psql(&database, used);
        fs::remove_file(below.join("etc/homeserver.yaml")).unwrap();
        let error = restore(&story.repository, "latest", &resumed).await.unwrap_err();
        assert!(error.contains(words) && error.contains("is not empty"), "{error}");
        assert!(!below.join("etc/homeserver.yaml").exists());
        fs::copy(story.home.root.join("etc/homeserver.yaml"), below.join("etc/homeserver.yaml")).unwrap();
        if !back.is_empty() {
            cluster.psql(&database, back);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_other_bytes_is_not_overwritten_by_a_resumed_restore() {
    let story = Story::new().await;
    let target = tempfile::tempdir().unwrap();
    let below = target.path().join(story.home.root.strip_prefix("/").unwrap());
    let other = below.join("var/media").join(crate::homeserver::path_of("AliceFirstPicture0000001"));
    crate::homeserver::write(&other, b"somebody else's");
    let options = Options {
        resume: true,
        ..restore_files_to(target.path())
    };
    let report = restore(&story.repository, "latest", &options).await.unwrap();
    let names: Vec<String> = report.problems.iter().map(|problem| problem.item.clone()).collect();
    assert_eq!(names, [item_of("AliceFirstPicture0000001")]);
    assert_eq!(fs::read(other).unwrap(), b"somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_saved_is_not_written_and_no_new_problem() {
    let home = Home::new();
    home.row("NeverThere00000000000001", b"x");
    let repository = crate::rig::fresh().await;
    assert_eq!(
        named(&backup(&repository, &home).await.problems),
        [(Missing, item_of("NeverThere00000000000001"))]
    );
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repository, "latest", &restore_files_to(target.path())).await.unwrap();
    assert_eq!((report.problems.len(), report.media_files), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_does_not_count_unless_it_is_asked_for() {
    let story = Story::new().await;
    // A bucket that was mirrored a day later: every object landed after its `not_after`.
    let mirror = Arc::new(Memory::new(Clock::starting_at("2026-11-02T00:00:00Z".parse().unwrap())));
    for (key, bytes) in story.memory.objects() {
        mirror.put(&key, bytes).await.unwrap();
    }
    let repository = reopen(ticking(&mirror)).await;
    assert_eq!(listed(&repository).await, [] as [String; 0]);
    let id = listed(&story.repository).await.remove(0);
    let target = tempfile::tempdir().unwrap();
    for name in ["latest", "latest:example.org", &id] {
        let strict = restore_files_to(&target.path().join("strict"));
        let error = restore(&repository, name, &strict).await.unwrap_err();
        assert!(error.contains("no snapshot"), "{name}: {error}");
        let late = Options {
            late: true,
            ..restore_files_to(&target.path().join(name))
        };
        assert_eq!(restore(&repository, name, &late).await.unwrap().media_files, 4, "{name}");
    }
    assert!(!target.path().join("strict").exists());
    // Nor does the next backup inherit from it; what is in the index it finds.
    let next = backup(&repository, &story.home).await;
    assert_eq!((next.media.new, next.media.unchanged), (4, 0));
    assert!(next.new_bytes < 400_000, "{}", next.new_bytes);
    assert_eq!(listed(&repository).await, [next.snapshot.unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_a_server_is_found_among_those_of_others() {
    let (alice, bob) = (Home::new(), Home::new());
    bob.write_config("bob.example.net", "");
    bob.upload("OnlyBobHasThis0000000001", b"bob");
    let repository = crate::rig::fresh().await;
    let mut newest = Vec::new();
    for home in [&alice, &bob, &alice, &bob] {
        newest.push(backup(&repository, home).await);
    }
    assert_eq!(
        (newest[2].media.unchanged, newest[3].media.unchanged),
        (4, 5),
        "each inherits from its own"
    );
    let target = tempfile::tempdir().unwrap();
    for (name, taken) in [("latest", 3), ("latest:bob.example.net", 3), ("latest:example.org", 2)] {
        let options = Options {
            dry_run: true,
            ..restore_files_to(&target.path().join("new"))
        };
        let report = restore(&repository, name, &options).await.unwrap();
        assert_eq!(Some(report.snapshot), newest[taken].snapshot, "{name}");
    }
    let unknown = restore(&repository, "latest:carol.example.com", &restore_files_to(target.path()))
        .await
        .unwrap_err();
    assert!(unknown.contains("no snapshot"), "{unknown}");
    assert_eq!(verify(&repository, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_role_restores_into_its_own_database() {
    let story = Story::new().await;
    let cluster = story.home.cluster;
    let role = cluster.role("synapse_user", "it's a \\secret");
    let database = cluster.database("restored");
    cluster.psql(
        "postgres",
        &format!("ALTER DATABASE {} OWNER TO {}", quoted(&database), quoted(&role)),
    );
    let target = tempfile::tempdir().unwrap();
    let info = format!(
        "host=127.0.0.1 port={} user={role} password='it\\'s a \\\\secret' dbname={database}",
        cluster.port
    );
    let options = Options {
        databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(info))],
        ..restore_files_to(target.path())
    };
    let report = restore(&story.repository, "latest", &options).await.unwrap();
    assert_eq!(report.problems, []);
    assert!(!report.plan.iter().any(|line| line.contains("secret")), "{:#?}", report.plan);
    assert_eq!(
        cluster.psql(&database, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"),
        role
    );
    assert_eq!(
        digest(cluster, &database),
        without_one_time_keys(digest(cluster, &story.home.database))
    );
    assert!(conninfo(cluster, &database).contains(&database));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_remote_media_go_with_the_media_or_when_it_is_asked_for() {
    let home = Home::new();
    home.sql(
        "INSERT INTO remote_media_cache (media_origin, media_id, filesystem_id, media_length) VALUES ('matrix.org', 'x', 'aabbcc', 3)",
    );
    let repository = fresh_in(&memory()).await;
    backup(&repository, &home).await;
    let only = [Part::Database];
    let cases: [(Option<&[Part]>, bool, bool, u64); 5] = [
        (None, false, false, 1),
        (None, false, true, 0),
        (Some(&only), false, false, 0),
        (Some(&only), true, false, 1),
        (Some(&only), false, true, 0),
    ];
    for (parts, forget_remote_media, keep_remote_media_rows, forgotten) in cases {
        let target = tempfile::tempdir().unwrap();
        let database = home.cluster.database("remote rows");
        let to = restore_to(target.path(), home.cluster, &database);
        let options = Options {
            parts: parts.map_or_else(|| to.parts.clone(), |parts| parts.iter().copied().collect()),
            forget_remote_media,
            keep_remote_media_rows,
            ..to.clone()
        };
        let planned = restore(
            &repository,
            "latest",
            &Options {
                dry_run: true,
                ..options.clone()
            },
        )
        .await
        .unwrap();
        let says = planned.plan.iter().any(|line| line.contains("rows of other servers' media"));
        let report = restore(&repository, "latest", &options).await.unwrap();
        let case = format!("{parts:?} {forget_remote_media} {keep_remote_media_rows}: {:?}", planned.plan);
        assert_eq!((report.remote_media_forgotten, says), (forgotten, forgotten == 1), "{case}");
        let rows = home.cluster.psql(&database, "SELECT count(*) FROM remote_media_cache");
        assert_eq!(rows, (1 - forgotten).to_string(), "{case}");
        let told = report.next_steps.iter().any(|step| step.contains("purge_media_cache"));
        assert_eq!(told, forgotten == 0, "{case}");
        if parts == Some(&only) && !forget_remote_media && !keep_remote_media_rows {
            // Whoever brings back the rest afterwards loads nothing, and the rows go all the same.
            let rest = Options {
                resume: true,
                parts: to.parts.clone(),
                ..options
            };
            let planned = Options {
                dry_run: true,
                ..rest.clone()
            };
            let planned = restore(&repository, "latest", &planned).await.unwrap();
            let says = planned.plan.iter().any(|line| line.contains("rows of other servers' media"));
            assert!(says, "{case}, then the rest: {:?}", planned.plan);
            let report = restore(&repository, "latest", &rest).await.unwrap();
            assert_eq!((report.databases, report.remote_media_forgotten), (Vec::new(), 1), "{case}");
            assert_eq!(
                home.cluster.psql(&database, "SELECT count(*) FROM remote_media_cache"),
                "0",
                "{case}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_never_leaves_its_folder_over_a_link() {
    let story = Story::new().await;
    let (target, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let below = story.home.root.strip_prefix("/").unwrap();
    let options = Options {
        parts: [Part::Media].into_iter().collect(),
        resume: true,
        ..restore_files_to(target.path())
    };
    let var = target.path().join(below).join("var");
    fs::create_dir_all(var.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(outside.path(), &var).unwrap();
    let refused = restore(&story.repository, "latest", &options).await.unwrap_err();
    assert!(refused.contains("leads out of"), "{refused}");
    assert_eq!(files(outside.path()).len(), 0);
    fs::remove_file(&var).unwrap();
    // Nor over one below the media store, which only the files that go there meet.
    fs::create_dir_all(var.join("media")).unwrap();
    let link = var.join("media/local_content");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    let report = restore(&story.repository, "latest", &options).await.unwrap();
    assert!(!report.problems.is_empty());
    for problem in &report.problems {
        assert!(problem.message.contains("leads out of the folder of --to"), "{problem:?}");
    }
    assert_eq!(files(outside.path()).len(), 0);
    fs::remove_file(&link).unwrap();
    assert_eq!(restore(&story.repository, "latest", &options).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_store_behind_a_link_of_the_snapshot_comes_back_behind_it() {
    let mut home = Home::new();
    // As a system administrator moves it to a larger disk.
    fs::create_dir_all(home.at("mnt")).unwrap();
    fs::rename(home.at("var/media"), home.at("mnt/media")).unwrap();
    std::os::unix::fs::symlink("../mnt/media", home.at("var/media")).unwrap();
    home.files = vec![home.at("var")];
    let repository = fresh_in(&memory()).await;
    let taken = backup(&repository, &home).await;
    assert_eq!(taken.problems, []);
    let target = tempfile::tempdir().unwrap();
    let database = home.cluster.database("linked");
    let report = restore(&repository, "latest", &restore_to(target.path(), home.cluster, &database))
        .await
        .unwrap();
    assert_eq!(report.problems, []);
    let copy = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(fs::read_link(copy.join("var/media")).unwrap(), std::path::Path::new("../mnt/media"));
    assert_eq!(files(&copy.join("mnt/media")), files(&home.at("mnt/media")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_folder_behind_a_link_comes_back_as_a_folder() {
    let mut home = Home::new();
    fs::create_dir_all(home.at("mnt")).unwrap();
    fs::rename(home.at("var/media/local_content"), home.at("mnt/local")).unwrap();
    std::os::unix::fs::symlink("../../mnt/local", home.at("var/media/local_content")).unwrap();
    std::os::unix::fs::symlink("../../mnt/remote", home.at("var/media/remote_content")).unwrap();
    home.files = vec![home.at("var")];
    let repository = fresh_in(&memory()).await;
    assert_eq!(backup(&repository, &home).await.problems, []);
    let target = tempfile::tempdir().unwrap();
    let options = restore_files_to(target.path());
    for resume in [false, true] {
        let options = Options { resume, ..options.clone() };
        assert_eq!(restore(&repository, "latest", &options).await.unwrap().problems, [], "{resume}");
    }
    let copy = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(files(&copy.join("var/media/local_content")), files(&home.at("mnt/local")));
    assert!(fs::symlink_metadata(copy.join("var/media/remote_content")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_few_connections_can_load_a_large_table() {
    let home = Home::new();
    let cluster = home.cluster;
    // Large enough for a stream of its own, whose table the planner learns of beside the rows of others.
    home.sql("CREATE TABLE large AS SELECT n AS id, repeat(md5(n::text), 30) AS text FROM generate_series(1, 45000) AS n");
    home.sql("ALTER TABLE large ADD PRIMARY KEY (id)");
    let repository = fresh_in(&memory()).await;
    let taken = backup(&repository, &home).await;
    let streams = document(&repository, &taken.snapshot.unwrap()).await.databases.remove(0).streams;
    assert!(streams.iter().any(|stream| stream.name == "table.public.large"), "{streams:?}");
    // One asks between the steps, as many as there are jobs load, build or analyze, and one that pg_restore has closed may still
    // count: 4.
    for (limit, tries) in [(4, 3)] {
        let role = cluster.role("few", "right");
        cluster.psql("postgres", &format!("ALTER ROLE \"{role}\" CONNECTION LIMIT {limit}"));
        for number in 0..tries {
            let database = cluster.database("few connections");
            cluster.psql("postgres", &format!("ALTER DATABASE \"{database}\" OWNER TO \"{role}\""));
            let info = format!(
                "host=127.0.0.1 port={} user={role} password=right dbname='{database}'",
                cluster.port
            );
            let target = tempfile::tempdir().unwrap();
            let options = Options {
                databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(info))],
                parts: [Part::Database].into_iter().collect(),
                ..restore_files_to(target.path())
            };
            let report = restore(&repository, "latest", &options).await;
            let report = report.unwrap_or_else(|error| panic!("{limit} connections, try {number}: {error}"));
            assert_eq!(report.databases, ["synapse"], "{limit} connections, try {number}");
            let analyzed = "SELECT count(*) FROM pg_stats WHERE tablename = 'large' AND attname = 'id'";
            assert_eq!(cluster.psql(&database, analyzed), "1", "{limit} connections, try {number}");
            let parameters = "SELECT count(reloptions) FROM pg_class WHERE relname = 'large'";
            assert_eq!(cluster.psql(&database, parameters), "0", "autovacuum is let in again");
        }
    }
}
