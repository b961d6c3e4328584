//! Faults of all kinds planted at once: each is named in the report of the next backup or of `verify`, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use synapse_backup::format::BlobId;
use synapse_backup::format::snapshot::ProblemKind::{self, Changed, Damaged, HashDiffers, Missing, NotAFile, Short, Unreadable};
use synapse_backup::ops::backup;
use synapse_backup::store::Store;

use crate::homeserver::{Home, item_of, noise, path_of, write};
use crate::rig::{document, fresh_in, keys_of, memory, named, options, run, shown, verify};

const LENGTH: usize = 2_000;

/// How a file that was good once is spoiled; `None`: the file of a new row.
type Spoil = fn(&Path);

fn gone(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn instead(path: &Path, make: impl FnOnce(&Path)) {
    gone(path);
    make(path);
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

/// Each once on a file that the repository does not have yet, and once on one that it has (the audit finds it).
const SPOILT: [(&str, Spoil, ProblemKind, Option<ProblemKind>); 14] = [
    ("Removed", gone, Missing, Some(Missing)),
    (
        "CutInHalf",
        |path| write(path, &fs::read(path).unwrap()[..LENGTH / 2]),
        Short,
        Some(Short),
    ),
    ("Emptied", |path| write(path, b""), Short, Some(Short)),
    ("Longer", |path| write(path, &noise(99, LENGTH + 1)), Changed, Some(Changed)),
    // Same length: only who reads the bytes can tell.
    ("OtherBytes", |path| write(path, &noise(98, LENGTH)), HashDiffers, None),
    (
        "OneBit",
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[LENGTH / 2] ^= 1;
            write(path, &bytes);
        },
        HashDiffers,
        None,
    ),
    (
        "Folder",
        |path| instead(path, |path| fs::create_dir(path).unwrap()),
        NotAFile,
        Some(NotAFile),
    ),
    ("Fifo", |path| instead(path, fifo), NotAFile, Some(NotAFile)),
    (
        "Socket",
        |path| instead(path, |path| drop(UnixListener::bind(path).unwrap())),
        NotAFile,
        Some(NotAFile),
    ),
    (
        "Device",
        |path| instead(path, |path| symlink("/dev/zero", path).unwrap()),
        NotAFile,
        Some(NotAFile),
    ),
    (
        "DanglingLink",
        |path| instead(path, |path| symlink("nowhere", path).unwrap()),
        Missing,
        Some(Missing),
    ),
    (
        "LinkInACircle",
        |path| instead(path, |path| symlink(path, path).unwrap()),
        Unreadable,
        Some(Unreadable),
    ),
    // Every read is an input/output error.
    (
        "BadDisk",
        |path| instead(path, |path| symlink("/proc/self/mem", path).unwrap()),
        Unreadable,
        Some(Short),
    ),
    // A regular file that nobody may read, not even root.
    (
        "NotAllowed",
        |path| instead(path, |path| symlink("/proc/sys/vm/compact_memory", path).unwrap()),
        Unreadable,
        Some(Short),
    ),
];

fn id(word: &str, what: &str) -> String {
    format!("{word}{what:0>width$}", width = 24 - word.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_planted_fault_is_named_and_nothing_else_is() {
    let home = Home::bare(crate::cluster::shared());
    let memory = memory();
    let repository = fresh_in(&memory).await;
    let mut seed = 1_000;
    let mut upload = |id: &str| {
        seed += 1;
        home.upload(id, &noise(seed, LENGTH));
    };
    for (word, ..) in SPOILT {
        upload(&id(word, "old"));
    }
    let first = backup::backup(&repository, &home.discover(), &options(), &run()).await.unwrap();
    assert_eq!((first.media.files, first.problem_count), (SPOILT.len() as u64, 0));

    let mut expected: BTreeSet<(ProblemKind, String)> = BTreeSet::new();
    for (word, spoil, new, old) in SPOILT {
        upload(&id(word, "new"));
        spoil(&home.media(&id(word, "new")));
        spoil(&home.media(&id(word, "old")));
        expected.insert((new, item_of(&id(word, "new"))));
        expected.extend(old.map(|kind| (kind, item_of(&id(word, "old")))));
    }
    // Two files in each other's place.
    let (one, other) = (id("Swapped", "one"), id("Swapped", "other"));
    upload(&one);
    upload(&other);
    fs::rename(home.media(&one), home.at("aside")).unwrap();
    fs::rename(home.media(&other), home.media(&one)).unwrap();
    fs::rename(home.at("aside"), home.media(&other)).unwrap();
    expected.extend([(HashDiffers, item_of(&one)), (HashDiffers, item_of(&other))]);
    // A file and a link in a circle where a folder should be.
    for (word, plant) in [
        ("Qf", (|path: &Path| write(path, b"x")) as Spoil),
        ("Qc", |path| symlink(path, path).unwrap()),
    ] {
        let below = id(word, "below");
        let folder = home.at(&format!("var/media/local_content/{word}"));
        plant(&folder);
        home.row(&below, b"x");
        expected.insert((if word == "Qf" { Missing } else { Unreadable }, item_of(&below)));
    }
    // Rows that never had a file, ids that make no path, a row that lies about its length and one about its hash.
    home.row(&id("NoFile", "ever"), b"x");
    expected.insert((Missing, item_of(&id("NoFile", "ever"))));
    for bad in ["../../etc/passwd", "..", "....secret", "new\nline0000"] {
        home.row(bad, b"x");
        let shown: String = path_of(&format!("{bad:\0<4}")).replace('\0', "");
        expected.insert((Missing, format!("media/{shown}")));
    }
    upload(&id("WrongLength", "row"));
    home.sql("UPDATE local_media_repository SET media_length = media_length + 1 WHERE media_id LIKE 'WrongLength%'");
    expected.insert((Short, item_of(&id("WrongLength", "row"))));
    upload(&id("WrongHash", "row"));
    home.sql(&format!(
        "UPDATE local_media_repository SET sha256 = '{}' WHERE media_id LIKE 'WrongHash%'",
        BlobId::of(b"other")
    ));
    expected.insert((HashDiffers, item_of(&id("WrongHash", "row"))));

    assert!(expected.len() >= 25, "{}", expected.len());
    let audit = backup::Options {
        audit_percent: 100.0,
        ..options()
    };
    let taken = backup::backup(&repository, &home.discover(), &audit, &run()).await.unwrap();
    let expected: Vec<_> = expected.into_iter().collect();
    assert_eq!(named(&taken.problems), expected);
    assert_eq!(shown(&repository, "latest").await, expected, "the snapshot names them too");
    let media = &taken.media;
    let count = |kind| expected.iter().filter(|(one, _)| *one == kind).count() as u64;
    assert_eq!(
        (media.short, media.changed, media.hash_differs, media.unreadable, media.not_a_file),
        (count(Short), count(Changed), count(HashDiffers), count(Unreadable), count(NotAFile)),
        "the report counts each state"
    );
    assert_eq!(verify(&repository, None).await, [], "what is saved is whole");

    // And in the bucket: a byte of a media pack, a whole one.
    let packs = document(&repository, &first.snapshot.unwrap()).await.packs;
    let media_pack = keys_of(&memory, "packs/")
        .into_iter()
        .filter(|key| packs.iter().any(|pack| key.contains(&pack.to_string())));
    let largest = media_pack.max_by_key(|key| memory.objects()[key].len()).unwrap();
    let body = memory.objects()[&largest].clone();
    let mut flipped = body.to_vec();
    flipped[body.len() / 3] ^= 1;
    for (what, damaged) in [("a flipped bit", Some(flipped)), ("a lost pack", None)] {
        memory.delete(&largest).await.unwrap();
        if let Some(bytes) = damaged {
            memory.put(&largest, bytes.into()).await.unwrap();
        }
        let found = verify(&repository, None).await;
        let pack = largest.rsplit('/').next().unwrap().split('.').next().unwrap().to_owned();
        assert!(
            found.iter().any(|problem| matches!(problem.kind, Damaged | Missing) && format!("{} {}", problem.item, problem.message).contains(&pack)),
            "{what}: {found:#?}"
        );
    }
}
