//! What a damaged repository is told as, by the program itself: a list that is lost is no list of losses, and a finding stays one
//! when nobody reads it to its end.
//!
//! A repository of `tests/golden/` is copied and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn command(repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
    let url = format!("file://{}", repository.display());
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .args(["--repository", &url])
        .args(arguments);
    command
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Its data go into a pipe whose other end is closed already.
fn unread(repository: &Path, arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command(repository, arguments)
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

#[test]
fn a_finding_stays_one_when_the_reader_of_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("format-1"), folder.path());
    let snapshot = fs::read_dir(folder.path().join("snapshots"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(unread(folder.path(), &["snapshots"]).status.code(), Some(0));
    fs::write(&snapshot, b"not a snapshot").unwrap();
    for arguments in [&["snapshots"][..], &["--json", "snapshots"]] {
        let read = command(folder.path(), arguments).output().unwrap();
        assert_eq!(read.status.code(), Some(1), "{arguments:?}: {}", err(&read));
        let unread = unread(folder.path(), arguments);
        assert_eq!(unread.status.code(), Some(1), "{arguments:?}: {}", err(&unread));
        assert_eq!(err(&unread), err(&read), "{arguments:?}");
    }
    // What only prints has done what it could.
    assert_eq!(unread(folder.path(), &["man"]).status.code(), Some(0));
}

#[test]
fn losses_are_not_told_from_a_list_that_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("format-1"), folder.path());
    let losses = |snapshot: &str| command(folder.path(), &["show", snapshot, "--losses"]).output().unwrap();
    let listed = command(folder.path(), &["--json", "snapshots"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let id = report["snapshots"][0]["id"].as_str().unwrap();
    let whole = losses(id);
    assert_eq!(whole.status.code(), Some(0), "{}", err(&whole));
    assert_eq!(String::from_utf8(whole.stdout).unwrap(), "media/local_content/zz/aa/lost\n");
    let mut failed = 0;
    for pack in files(&folder.path().join("packs")) {
        let bytes = fs::read(&pack).unwrap();
        fs::remove_file(&pack).unwrap();
        let output = losses(id);
        let told = String::from_utf8(output.stdout.clone()).unwrap();
        // A pack of media or of the database is not needed for this.
        let is_whole = output.status.code() == Some(0) && told == "media/local_content/zz/aa/lost\n";
        let has_failed = output.status.code() == Some(1) && !told.contains("empty") && err(&output).contains("media");
        assert!(is_whole || has_failed, "{}: {told}{}", pack.display(), err(&output));
        failed += u32::from(has_failed);
        fs::write(&pack, bytes).unwrap();
    }
    assert!(failed > 0, "no pack had a shard");
}

#[test]
fn keys_that_are_elsewhere_are_not_taken_for_none() {
    for (name, told) in [
        ("format-1", "no keys: nothing is sealed\n"),
        ("format-1-sealed", "no keys at hand\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(&golden(name), folder.path());
        let listed = command(folder.path(), &["keys", "list"]).output().unwrap();
        assert_eq!(listed.status.code(), Some(0), "{}", err(&listed));
        let out = String::from_utf8(listed.stdout).unwrap();
        assert!(out.starts_with(told), "{name}: {out}");
    }
}

#[test]
fn who_adopts_into_a_sealed_repository_must_say_to_whom_it_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("format-1-sealed"), folder.path());
    let before = files(folder.path());
    let identity = golden("format-1-sealed.identity.txt");
    let refused = command(folder.path(), &["adopt", "--all", "--identity", identity.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(err(&refused).contains("`encryption.recipients` is not set"), "{}", err(&refused));
    assert_eq!(files(folder.path()), before, "nothing was written");
}
