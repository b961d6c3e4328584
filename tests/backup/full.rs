//! A disk that is full says nothing of the snapshot, and nothing of the other files.
//!
//! The disks are file systems in memory of a few MiB. To mount one takes root, or `sudo` without a question: who has neither
//! leaves these tests out by name, and is told so.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use synapse_backup::ops::drill::{self, Databases};
use synapse_backup::ops::restore::{DatabaseTarget, Options};
use synapse_backup::ops::{self, hint_of};

use crate::drill::options;
use crate::homeserver::{Home, noise};
use crate::rig::{backup, fresh_in, keys_of, memory, restore, restore_to, run};
use crate::tree::{files, tree};

const HOW: &str =
    "run as root (in a container with CAP_SYS_ADMIN), or let `sudo -n mount` work; or leave these tests out with `-- --skip full::`";

/// A mounted disk; gone with this value.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(mib: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={mib}m,mode=0777");
        let mounted = privileged(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path(folder.path())]);
        assert!(mounted, "no tmpfs can be mounted: {HOW}");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn grow(&self, mib: u32) {
        assert!(privileged(&["mount", "-o", &format!("remount,size={mib}m"), path(self.path())]));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        privileged(&["umount", "--lazy", path(self.0.path())]);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// As root, or by `sudo` without a question.
fn privileged(words: &[&str]) -> bool {
    let done = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    done(words[0], &words[1..]) || done("sudo", &[&["-n"], words].concat())
}

/// Some three MiB of media.
fn many_media(home: &Home) {
    let media = (0..15).map(|number| (format!("ManyMedia{number:015}"), noise(number, 200_000)));
    home.upload_all(&media.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_restore_that_goes_on_when_there_is_room() {
    let disk = Disk::new(1);
    let (home, memory) = (Home::new(), memory());
    many_media(&home);
    let repository = fresh_in(&memory).await;
    backup(&repository, &home).await;
    let database = home.cluster.database("restored");
    let to = disk.path().join("copy");
    let options = restore_to(&to, home.cluster, &database);
    let error = ops::restore::restore(&repository, "latest", &options, &run()).await.unwrap_err();
    assert!(format!("{error:#}").contains("No space left on device"), "{error:#}");
    let hint = error.downcast_ref::<ops::Error>().and_then(|error| error.hint.clone()).unwrap();
    assert!(hint.contains("with the same words and `--resume`"), "{hint}");
    let written = tree(&to);
    let ends = |end: &str| written.keys().any(|path| path.ends_with(end));
    assert!(!ends("homeserver.yaml") && !ends("signing.key"), "{written:#?}");

    disk.grow(16);
    let on = Options {
        resume: true,
        databases: vec![("synapse".into(), DatabaseTarget::Skip)],
        ..options
    };
    let report = restore(&repository, "latest", &on).await.unwrap();
    assert_eq!(report.problems, []);
    assert!(report.media_kept > 0 && report.media_files > 0, "{report:?}");
    assert_eq!(files(&to.join(home.root.strip_prefix("/").unwrap())), files(&home.root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_without_room_says_nothing_of_the_snapshot() {
    let disk = Disk::new(1);
    let (home, memory) = (Home::new(), memory());
    many_media(&home);
    // More than a cluster's disk has room for, in the second part.
    home.sql("CREATE TABLE filler AS SELECT n, md5(n::text) AS text FROM generate_series(1, 400000) AS n");
    let repository = fresh_in(&memory).await;
    backup(&repository, &home).await;
    for (case, databases) in [
        ("media", options(disk.path(), "latest", "drill_full").databases),
        ("a private cluster", Databases::Private),
    ] {
        let options = drill::Options {
            databases,
            ..options(disk.path(), "latest", "")
        };
        let error = drill::drill(&repository, &options, &run()).await.unwrap_err();
        let told = error.downcast_ref::<ops::Error>().unwrap();
        assert_eq!(told.message, "no room is left for the drill", "{case}: {error:#}");
        assert!(told.hint.as_ref().unwrap().contains("--to"), "{case}");
        assert_eq!(hint_of(&error), None, "{case}: no hint of a real restore's");
        assert_eq!(keys_of(&memory, "drills/"), [] as [String; 0], "{case}");
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "{case}: nothing remains");
        disk.grow(56);
    }
}
