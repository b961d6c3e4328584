//! Whatever is wrong with a media file, the snapshot is committed, the fault has its name, and the next run heals it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use synapse_backup::format::BlobId;
use synapse_backup::format::snapshot::ProblemKind::{self, Changed, Deferred, HashDiffers, Missing, NotAFile, Short, Unreadable};
use synapse_backup::ops::backup::{Options, Report};
use synapse_backup::ops::{self, inspect};
use synapse_backup::repo::{Repository, catalog};
use synapse_backup::store::counters::Kind;

use crate::homeserver::{Home, item_of, noise, path_of, write};
use crate::hook::{At, Hook};
use crate::rig::{
    LIMITS, backup, cat, fresh, fresh_in, memory, named, options, reopen, restore, restore_files_to, run, run_with, shown, ticking,
    try_backup, verify,
};

/// What an honest upload would have.
const BYTES: &[u8] = b"what Alice uploaded";

/// A way for a file to be bad: a word for its media id, how it is made at its path, and what it is called.
type Fault = (&'static str, fn(&Path), Option<ProblemKind>);

const FAULTS: [Fault; 13] = [
    ("missing", |_| {}, Some(Missing)),
    ("dangling_link", |path| symlink("nowhere", path).unwrap(), Some(Missing)),
    ("short", |path| write(path, &BYTES[..5]), Some(Short)),
    ("empty", |path| write(path, b""), Some(Short)),
    ("longer", |path| write(path, b"what Alice uploaded, and more"), Some(Changed)),
    ("other_bytes", |path| write(path, b"what Mallory wrote!"), Some(HashDiffers)),
    ("folder", |path| fs::create_dir(path).unwrap(), Some(NotAFile)),
    ("fifo", fifo, Some(NotAFile)),
    ("socket", |path| drop(UnixListener::bind(path).unwrap()), Some(NotAFile)),
    ("device", |path| symlink("/dev/zero", path).unwrap(), Some(NotAFile)),
    (
        "link_to_itself",
        |path| symlink(path.file_name().unwrap(), path).unwrap(),
        Some(Unreadable),
    ),
    // Opens, is a regular file, and every read of it is an input/output error.
    ("bad_disk", |path| symlink("/proc/self/mem", path).unwrap(), Some(Unreadable)),
    (
        "link_to_a_good_file",
        |path| {
            write(&path.with_extension("real"), BYTES);
            symlink(path.with_extension("real"), path).unwrap();
        },
        None,
    ),
];

fn fifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
}

fn id_of(word: &str) -> String {
    format!("{:A<24}", word.replace('_', ""))
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

async fn names_of_media(repository: &Repository) -> Vec<String> {
    let mut names = Vec::new();
    let mut line = |line: inspect::ItemLine| {
        names.push(line.name);
        Ok(())
    };
    inspect::ls(repository, "latest", "media/", LIMITS, &run(), &mut line)
        .await
        .unwrap();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_file_is_named_and_heals() {
    let home = Home::new();
    let expected = |faults: &[Fault]| {
        let mut expected: Vec<_> = faults
            .iter()
            .filter_map(|(word, _, kind)| Some(((*kind)?, item_of(&id_of(word)))))
            .collect();
        expected.sort();
        expected
    };
    for (word, plant, _) in FAULTS {
        let path = home.media(&id_of(word));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        plant(&path);
        home.row(&id_of(word), BYTES);
    }
    let repository = fresh().await;
    // What is not healed is named again.
    for night in 1..=2 {
        let taken = backup(&repository, &home).await;
        assert_eq!(named(&taken.problems), expected(&FAULTS), "night {night}");
        assert_eq!(taken.problem_count, 12);
        assert_eq!(taken.media.missing, 2);
        assert_eq!(
            shown(&repository, &taken.snapshot.unwrap()).await,
            expected(&FAULTS),
            "night {night}"
        );
        assert_eq!(verify(&repository, None).await, [], "what is saved is whole");
    }
    // Bytes that are there are saved, whatever is wrong with them.
    let saved = cat(&repository, "latest", &item_of(&id_of("other_bytes"))).await.unwrap();
    assert_eq!(saved, b"what Mallory wrote!");
    let lost = cat(&repository, "latest", &item_of(&id_of("missing"))).await.unwrap_err();
    assert!(format!("{lost:#}").contains("was not saved"), "{lost:#}");

    for (word, _, _) in FAULTS {
        remove(&home.media(&id_of(word)));
        write(&home.media(&id_of(word)), BYTES);
    }
    let healed = backup(&repository, &home).await;
    assert_eq!(named(&healed.problems), []);
    assert_eq!(shown(&repository, &healed.snapshot.unwrap()).await, []);
    for (word, _, _) in FAULTS {
        assert_eq!(cat(&repository, "latest", &item_of(&id_of(word))).await.unwrap(), BYTES, "{word}");
    }
    let quiet = backup(&repository, &home).await;
    assert_eq!((quiet.media.new, quiet.media.unchanged), (0, quiet.media.files));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_while_it_is_read_is_named() {
    let home = Home::new();
    let id = "GrowingVideo000000000001";
    home.upload(id, &noise(9, 24 << 20));
    let stop = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = OpenOptions::new().append(true).open(home.media(id)).unwrap();
            while !stop.load(Ordering::SeqCst) {
                file.write_all(b"more").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let repository = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(fresh()));
        let taken = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(backup(&repository, &home)));
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        taken
    });
    assert_eq!(named(&taken.problems), [(Changed, item_of(id))]);
    assert!(taken.problems[0].message.contains("while it was read"), "{:?}", taken.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_deleted_meanwhile_is_no_problem() {
    let home = Home::new();
    home.row("DeletedMeanwhile00000001", BYTES);
    home.row("MissingForEver0000000001", BYTES);
    let (cluster, database) = (home.cluster, home.database.clone());
    // The stage begins when the moment is exported.
    let delete = At::new("database synapse", 0, move || {
        cluster.psql(
            &database,
            "DELETE FROM local_media_repository WHERE media_id = 'DeletedMeanwhile00000001'",
        );
    });
    let repository = fresh().await;
    let taken = try_backup(&repository, &home, &run_with(&delete)).await.unwrap();
    assert!(delete.was_done());
    let dump = cat(&repository, "latest", "database/synapse/main").await.unwrap();
    assert!(
        dump.windows(24).any(|window| window == b"DeletedMeanwhile00000001"),
        "the dump is older than the deletion"
    );
    assert_eq!(named(&taken.problems), [(Missing, item_of("MissingForEver0000000001"))]);
    let next = backup(&repository, &home).await;
    assert_eq!(named(&next.problems), [(Missing, item_of("MissingForEver0000000001"))]);
    assert_eq!(verify(&repository, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_after_the_moment_is_in_the_next_snapshot() {
    let home = Home::new();
    let (cluster, database, path) = (home.cluster, home.database.clone(), home.media("UploadedMeanwhile0000001"));
    let upload = At::new("database synapse", 0, move || {
        write(&path, BYTES);
        cluster.psql(
            &database,
            "INSERT INTO local_media_repository (media_id, media_length) VALUES ('UploadedMeanwhile0000001', 19)",
        );
    });
    let repository = fresh().await;
    let taken = try_backup(&repository, &home, &run_with(&upload)).await.unwrap();
    assert!(upload.was_done());
    assert_eq!((taken.problems.len(), taken.media.files), (0, 4), "media are those of the dump");
    let next = backup(&repository, &home).await;
    assert_eq!((next.problems.len(), next.media.files, next.media.new), (0, 5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_is_open_while_media_are_sent() {
    let home = Home::new();
    home.upload("LargeVideo00000000000001", &noise(7, 20 << 20));
    let (cluster, database) = (home.cluster, home.database.clone());
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND xact_start IS NOT NULL");
    let memory = memory();
    fresh_in(&memory).await;
    // Only media are large enough for parts. They wait until nobody has a transaction open: whoever kept one until media are sent
    // would keep it for ever.
    let wait = move || {
        let open = open.clone();
        let wait = async move {
            while cluster.psql("postgres", &open) != "0" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        wait.boxed()
    };
    let hook = Hook::once(ticking(&memory), |kind, _| kind == Kind::Part, wait);
    let repository = reopen(Arc::new(hook)).await;
    let patience = Duration::from_mins(2);
    let taken = tokio::time::timeout(patience, backup(&repository, &home)).await;
    assert_eq!(taken.expect("a transaction stays open while media wait").problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_not_finished_is_no_item() {
    let home = Home::new();
    home.row_saying("NotUploadedYet0000000001", None, None);
    home.row_saying("HalfUploaded000000000001", None, None);
    write(&home.media("HalfUploaded000000000001"), b"half of it");
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    assert_eq!((taken.problems.len(), taken.media.files), (0, 4));
    // It is finished later.
    write(&home.media("NotUploadedYet0000000001"), BYTES);
    home.sql("UPDATE local_media_repository SET media_length = 19 WHERE media_id = 'NotUploadedYet0000000001'");
    let next = backup(&repository, &home).await;
    assert_eq!((next.problems.len(), next.media.files, next.media.new), (0, 5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_quarantined_or_without_hash_is_saved() {
    let home = Home::new();
    home.upload("Quarantined0000000000001", BYTES);
    home.sql("UPDATE local_media_repository SET quarantined_by = '@admin:example.org', sha256 = NULL WHERE media_id LIKE 'Quarantined%'");
    let repository = fresh().await;
    assert_eq!(backup(&repository, &home).await.problems, []);
    assert_eq!(
        cat(&repository, "latest", &item_of("Quarantined0000000000001")).await.unwrap(),
        BYTES
    );
    // A hash that the database learns later is compared with the bytes.
    let wrong = BlobId::of(b"something else");
    home.sql(&format!(
        "UPDATE local_media_repository SET sha256 = '{wrong}' WHERE media_id LIKE 'Quarantined%'"
    ));
    let next = backup(&repository, &home).await;
    assert_eq!(named(&next.problems), [(HashDiffers, item_of("Quarantined0000000000001"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thumbnail_that_is_missing_is_only_counted() {
    let home = Home::new();
    home.thumbnail_row("AliceSecondPicture000002", 100);
    home.thumbnail_row("BobEmptyFile000000000003", 100);
    // Synapse may make one anew, of another length.
    write(&home.thumbnail_path("AliceFirstPicture0000001"), b"made anew");
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    assert_eq!(
        (taken.problems.len(), taken.media.thumbnails_missing, taken.media.missing),
        (0, 2, 0)
    );
    assert_eq!(names_of_media(&repository).await.len(), 4);
    // An ordinary night looks at none of them, and counts them all the same.
    let next = backup(&repository, &home).await;
    assert_eq!((next.media.unchanged, next.media.thumbnails_missing), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_folder_has_is_read_there() {
    let home = Home::new();
    home.upload("MovedAway000000000000001", BYTES);
    let provider = home.at("mnt/provider");
    fs::create_dir_all(provider.join("local_content/Mo/ve")).unwrap();
    fs::rename(
        home.media("MovedAway000000000000001"),
        provider.join(path_of("MovedAway000000000000001")),
    )
    .unwrap();
    // In the store lies something that is no file: the provider is asked all the same.
    fs::create_dir(home.media("MovedAway000000000000001")).unwrap();
    home.write_config(
        "example.org",
        &format!(
            "media_storage_providers: [{{ module: file_system, store_local: true, config: {{ directory: {} }} }}]\n",
            provider.display()
        ),
    );
    let repository = fresh().await;
    assert_eq!(backup(&repository, &home).await.problems, []);
    assert_eq!(
        cat(&repository, "latest", &item_of("MovedAway000000000000001")).await.unwrap(),
        BYTES
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_stores_nothing_itself_is_saved_from_its_provider() {
    let (home, repository) = (Home::new(), fresh().await);
    fs::rename(home.at("var/media"), home.at("elsewhere")).unwrap();
    let provider = format!(
        "enable_local_media_storage: false\nmedia_storage_providers: [{{ module: file_system, config: {{ directory: {} }} }}]\n",
        home.at("elsewhere").display()
    );
    home.write_config("example.org", &provider);
    fs::remove_dir(home.at("var/media")).unwrap();
    let report = backup(&repository, &home).await;
    assert_eq!(report.problems, []);
    assert_eq!((report.media.files, report.media.missing), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_media_id_opens_nothing_and_is_named() {
    static SENTINEL: OnceLock<Vec<u8>> = OnceLock::new();
    let sentinel = SENTINEL.get_or_init(|| noise(77, 5_000));
    let home = Home::new();
    // `....secret` would be `local_content/../../secret`.
    write(&home.at("var/secret"), sentinel);
    write(&home.at("var/media/secret"), sentinel);
    let long = "L".repeat(300);
    let ids = [
        "....secret",
        "../../etc/passwd",
        "..",
        "",
        "abcd",
        "new\nline0000",
        "ctrl\u{1}000000",
        "ünïcode00",
        long.as_str(),
    ];
    for id in ids {
        home.row(id, sentinel);
    }
    home.sql("INSERT INTO local_media_repository_thumbnails VALUES ('AliceFirstPicture0000001', 1, 1, 'image/svg+xml; x', 'x', 1)");
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    assert_eq!(taken.problem_count, ids.len() as u64, "{:#?}", taken.problems);
    assert!(
        taken
            .problems
            .iter()
            .all(|problem| problem.kind == Missing && problem.item.starts_with("media/local_content/"))
    );
    assert!(
        taken
            .problems
            .iter()
            .any(|problem| problem.item == "media/local_content/../../secret")
    );
    assert_eq!(
        (taken.media.files, taken.media.missing, taken.media.thumbnails_missing),
        (4, ids.len() as u64, 1)
    );
    assert_eq!(shown(&repository, "latest").await, named(&taken.problems));
    let line = &inspect::snapshots(&repository, &run()).await.unwrap().snapshots[0];
    assert_eq!(line.problems, ids.len() as u64);
    let index = catalog::load(&repository, 1 << 20).await.unwrap();
    assert!(
        index.copies(&BlobId::of(sentinel)).is_empty(),
        "nothing outside of the store was read"
    );

    // The same on the next night, when everything else is inherited; and nothing when the rows are gone.
    let next = backup(&repository, &home).await;
    assert_eq!((next.problem_count, next.media.new), (ids.len() as u64, 0));
    home.sql("DELETE FROM local_media_repository WHERE media_type = 'image/png' AND length(media_id) <> 24");
    assert_eq!(backup(&repository, &home).await.problem_count, 0);

    let target = tempfile::tempdir().unwrap();
    assert_eq!(
        restore(&repository, "latest", &restore_files_to(target.path()))
            .await
            .unwrap()
            .problems,
        []
    );
}

/// A backup of these options that must end well.
async fn backup_as(repository: &Repository, home: &Home, change: impl FnOnce(&mut Options)) -> Report {
    let mut options = options();
    change(&mut options);
    ops::backup::backup(repository, &home.discover(), &options, &run()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_names_what_the_homeserver_has_lost_since() {
    let home = Home::new();
    let repository = fresh().await;
    backup(&repository, &home).await;
    fs::remove_file(home.media("AliceFirstPicture0000001")).unwrap();
    write(&home.media("AliceSecondPicture000002"), b"cut");
    fs::remove_file(home.media("BobEmptyFile000000000003")).unwrap();
    fs::create_dir(home.media("BobEmptyFile000000000003")).unwrap();
    fs::remove_file(home.thumbnail_path("AliceFirstPicture0000001")).unwrap();
    let mut expected = vec![
        (Missing, item_of("AliceFirstPicture0000001")),
        (Short, item_of("AliceSecondPicture000002")),
        (NotAFile, item_of("BobEmptyFile000000000003")),
    ];
    expected.sort();
    for night in 1..=2 {
        let taken = backup_as(&repository, &home, |options| options.audit_percent = 100.0).await;
        assert_eq!(named(&taken.problems), expected, "night {night}");
        assert_eq!((taken.media.audited, taken.media.unchanged, taken.media.files), (4, 4, 4));
        let snapshot = taken.snapshot.unwrap();
        assert_eq!(shown(&repository, &snapshot).await, expected, "the snapshot names them too");
        let lines = inspect::snapshots(&repository, &run()).await.unwrap().snapshots;
        assert_eq!(lines.iter().find(|line| line.id == snapshot).unwrap().problems, 3);
    }
    assert_eq!(verify(&repository, None).await, []);
    let kept = cat(&repository, "latest", &item_of("AliceFirstPicture0000001")).await.unwrap();
    assert!(kept == noise(1, 40_000), "the backup still has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_loss_is_counted_and_is_a_problem_again_when_it_is_accepted_no_more() {
    let home = Home::new();
    home.row("LostYearsAgo000000000001", BYTES);
    write(&home.media("CutYearsAgo0000000000001"), b"cut");
    home.row("CutYearsAgo0000000000001", BYTES);
    let lost = [
        (Short, item_of("CutYearsAgo0000000000001")),
        (Missing, item_of("LostYearsAgo000000000001")),
    ];
    let mut lost = lost.to_vec();
    lost.sort();
    let accept = |options: &mut Options| {
        options.accepted_losses = [item_of("LostYearsAgo000000000001"), item_of("CutYearsAgo0000000000001")].into();
    };
    let repository = fresh().await;
    for night in 1..=3 {
        let taken = backup_as(&repository, &home, accept).await;
        assert_eq!(named(&taken.problems), [], "night {night}");
        assert_eq!((taken.media.accepted, taken.media.files), (2, 5), "night {night}");
        let line = inspect::snapshots(&repository, &run()).await.unwrap().snapshots.pop().unwrap();
        assert_eq!((line.problems, line.media_files), (0, 5), "night {night}");
        assert_eq!(shown(&repository, "latest").await, lost, "what is accepted can be looked up");
    }
    let taken = backup(&repository, &home).await;
    assert_eq!(named(&taken.problems), lost, "nothing is lost in silence");
    // One that comes back is saved, accepted or not.
    write(&home.media("LostYearsAgo000000000001"), BYTES);
    let taken = backup_as(&repository, &home, accept).await;
    assert_eq!((taken.media.accepted, taken.media.files), (1, 6));
    assert_eq!(
        cat(&repository, "latest", &item_of("LostYearsAgo000000000001")).await.unwrap(),
        BYTES
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn media_without_time_are_deferred_and_the_next_run_goes_on() {
    let home = Home::new();
    let repository = fresh().await;
    let taken = backup_as(&repository, &home, |options| options.media_time = Some(Duration::ZERO)).await;
    assert_eq!((taken.media.deferred, taken.media.files, taken.problem_count), (4, 0, 4));
    assert!(taken.problems.iter().all(|problem| problem.kind == Deferred));
    assert_eq!(shown(&repository, "latest").await.len(), 4);
    let next = backup(&repository, &home).await;
    assert_eq!((next.media.new, next.problem_count), (4, 0));
    assert_eq!(verify(&repository, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_store_that_is_gone_is_a_problem_of_each_file_and_of_none_that_is_known() {
    let home = Home::new();
    let repository = fresh().await;
    backup(&repository, &home).await;
    fs::rename(home.at("var/media"), home.at("var/away")).unwrap();
    home.row("NewAndMissing00000000001", BYTES);
    let taken = backup(&repository, &home).await;
    let expected = [(Missing, "media".to_owned()), (Missing, item_of("NewAndMissing00000000001"))];
    assert_eq!(named(&taken.problems), expected);
    assert_eq!(taken.media.unchanged, 4);
    // Read again, all are missing, and said so: nothing is lost in silence.
    let full = synapse_backup::ops::backup::Options {
        full: true,
        ..crate::rig::options()
    };
    let report = synapse_backup::ops::backup::backup(&repository, &home.discover(), &full, &run())
        .await
        .unwrap();
    assert_eq!(
        (report.media.missing, report.media.thumbnails_missing, report.media.files),
        (4, 1, 0)
    );
    assert_eq!(verify(&repository, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_with_the_same_bytes_are_sent_once() {
    let home = Home::bare(crate::cluster::shared());
    let bytes = noise(5, 100_000);
    let many: Vec<_> = (0..1000).map(|number| (format!("Same{number:020}"), bytes.clone())).collect();
    home.upload_all(&many);
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    assert_eq!((taken.media.files, taken.problem_count), (1000, 0));
    assert!(taken.new_bytes < 2_000_000, "{}", taken.new_bytes);
    assert_eq!(verify(&repository, None).await, []);
}
