//! Sealing, and calls that cannot go on: content without an identity is exit code 12, at once, with a hint and nothing begun; a key is
//! made only for a repository that can be meant.

use std::process::Command;

/// Nobody has its identity.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

#[test]
fn content_without_an_identity_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let path = |name: &str| folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command
            .env_clear()
            .env("SYNAPSE_BACKUP_REPOSITORY", format!("file://{}", path("repository").display()))
            .env("SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS", RECIPIENT)
            .env("SYNAPSE_BACKUP_ENCRYPTION_WRITER_KEY_FILE", path("writer.key"))
            .env("TMPDIR", path("scratch"))
            .env("SYNAPSE_BACKUP_METRICS_TEXTFILE", path("x.prom"))
            .args(words);
        command.output().unwrap()
    };
    let init = run(&["init"]);
    assert!(init.status.success(), "{init:?}");
    for words in [
        &["drill"][..],
        &["drill", "latest", "--no-record"],
        &["verify", "--read-data"],
        &["verify", "--read-data=1/30"],
        &["restore", "latest"],
        &["cat", "latest", "config/etc/signing.key"],
    ] {
        let output = run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(12), "{words:?}: {stderr}");
        let told = "error: no identity here opens the content\n\n\
                    hint: an identity of one of its recipients opens it, and the writer key does not: `--identity FILE`\n";
        assert_eq!(stderr, told, "{words:?}");
    }
    assert!(!folder.path().join("scratch").exists(), "nothing was begun");
    let told = std::fs::read_to_string(folder.path().join("x.prom")).unwrap();
    for command in ["drill", "verify"] {
        let line = |line: &str| line.starts_with(&format!("synapse_backup_exit_code{{command=\"{command}\",")) && line.ends_with(" 12");
        assert!(told.lines().any(line), "{told}");
    }
    // Whether everything is there needs no content: the writer key is enough.
    let output = run(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_server_without_its_writer_key_is_told_that_it_is_this_key() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let path = |name: &str| folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command
            .env_clear()
            .env("SYNAPSE_BACKUP_REPOSITORY", format!("file://{}", path("repository").display()))
            .env("SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS", RECIPIENT)
            .env("SYNAPSE_BACKUP_ENCRYPTION_WRITER_KEY_FILE", path("writer.key"))
            .args(words);
        command.output().unwrap()
    };
    assert!(run(&["init"]).status.success());
    std::fs::remove_file(folder.path().join("writer.key")).unwrap();
    for (words, told) in [
        (
            &["prune"][..],
            "error: no writer key here opens the lists of earlier backups\n\nhint: whoever writes needs the writer key",
        ),
        (
            &["rekey", "--new-writer-key"],
            "error: no identity here opens what the lost writer key opened\n\nhint: ",
        ),
    ] {
        let output = run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(12), "{words:?}: {stderr}");
        assert!(stderr.starts_with(told), "{words:?}: {stderr}");
    }
}

#[test]
fn no_key_is_made_for_a_url_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("keys/writer.key");
    let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
    command
        .env_clear()
        .env("SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS", RECIPIENT)
        .env("SYNAPSE_BACKUP_ENCRYPTION_WRITER_KEY_FILE", &key)
        .args(["--repository", "nonsense", "init"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!key.parent().unwrap().exists());
}
