//! Keys from the command line: listed, changed in the settings, sealed to anew, lost and replaced, asked for on a terminal.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use synapse_backup::format::seal::{Identity, Recipient};
use synapse_backup::format::writer_key::WriterKey;
use synapse_backup::repo::keyring::Keyring;
use synapse_backup::store::{Store, local};

use crate::rig::{Bytes, backup, noise, open_with};

/// A machine with settings, and a repository in a folder.
struct Machine {
    folder: tempfile::TempDir,
    safe: Identity,
    desk: Identity,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            safe: Identity::generate(),
            desk: Identity::generate(),
        };
        let settings = format!(
            "# of this machine\nrepository: {}\nencryption:\n  recipients:\n    - {}  # in the safe\n    - {}  # on the desk\n  writer_key_file: {}\n",
            machine.url(),
            machine.safe.recipient(),
            machine.desk.recipient(),
            machine.at("writer.key").display()
        );
        machine.write("settings.yaml", &settings);
        for (file, identity) in [("safe.txt", &machine.safe), ("desk.txt", &machine.desk)] {
            machine.write(file, &format!("# made for a test\n{}\n", *identity.to_text()));
        }
        machine
    }

    fn at(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn url(&self) -> String {
        format!("file://{}", self.at("bucket").display())
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.at(file), text).unwrap();
    }

    fn settings(&self) -> String {
        fs::read_to_string(self.at("settings.yaml")).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_with("settings.yaml", arguments)
    }

    fn command_with(&self, settings: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command.env_clear().current_dir(self.folder.path());
        command.args(["-c", settings]).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str], code: i32) -> Output {
        let output = self.command(arguments).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {shown}");
        output
    }

    /// The report of `--json`.
    fn report(&self, arguments: &[&str], code: i32) -> Value {
        let arguments = [&["--json"], arguments].concat();
        let output = self.run(&arguments, code);
        let last = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(last.lines().last().unwrap()).unwrap()
    }

    async fn store(&self) -> Arc<dyn Store> {
        local::open(&self.at("bucket"), false, Arc::default()).await.unwrap()
    }

    /// As the nightly backup does it: with what is on the machine, to those of the settings.
    async fn backup(&self, recipients: &[Recipient], content: &[u8]) -> String {
        let writer = WriterKey::from_text(&fs::read_to_string(self.at("writer.key")).unwrap()).unwrap();
        let keyring = Keyring {
            recipients: recipients.to_vec(),
            writer: Some(writer),
            ..Keyring::default()
        };
        let repository = open_with(self.store().await, keyring).await;
        backup(&repository, &mut Bytes::new(content)).await.unwrap().id.to_string()
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(mut command: Command) -> Option<i32> {
    command.output().unwrap().status.code()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_is_removed_and_a_lost_writer_key_is_replaced() {
    let machine = Machine::new();
    let (safe, desk) = (machine.safe.recipient(), machine.desk.recipient());
    machine.run(&["init"], 0);
    let content = noise(1, 300_000);
    machine.backup(&[safe.clone(), desk.clone()], &content).await;

    // Without keys nothing is told, and that is its own exit code.
    assert!(err(&machine.run(&["cat", "latest", "database/synapse/main"], 12)).contains("--identity FILE"));
    let read = machine.run(&["cat", "latest", "database/synapse/main", "--identity", "desk.txt"], 0);
    assert!(read.stdout == content);
    let elsewhere = machine.command_with("/dev/null", &["--repository", &machine.url(), "snapshots"]);
    assert_eq!(status(elsewhere), Some(12));

    // The settings change by one line.
    let before = machine.settings();
    let told = err(&machine.run(&["keys", "remove", &desk.to_string()], 0));
    assert!(told.contains("until `rekey --packs --identity FILE`"), "{told}");
    assert_eq!(machine.settings(), before.replace(&format!("    - {desk}  # on the desk\n"), ""));
    let told = err(&machine.run(&["keys", "remove", &safe.to_string()], 2));
    assert!(told.contains("the only recipient"), "{told}");

    let listed = machine.report(&["keys", "list", "--packs", "--identity", "desk.txt"], 0);
    assert_eq!(listed["recipients"], serde_json::json!([safe.to_string()]));
    assert_eq!(listed["sealed"][0]["opened_by"][desk.to_string()], 1, "{listed}");
    assert_eq!(listed["signed"][0]["known"], true);
    let shown = String::from_utf8(machine.run(&["keys", "list", "--packs", "--identity", "desk.txt"], 0).stdout).unwrap();
    assert!(shown.contains("opens some: `rekey --packs` ends that"), "{shown}");

    // Content needs an identity, and then it is done.
    machine.run(&["rekey", "--packs"], 12);
    // An identity that opens nothing here seals nothing anew, and says so.
    machine.write("stranger.txt", &Identity::generate().to_text());
    let report = machine.report(&["rekey", "--packs", "--identity", "stranger.txt"], 3);
    let said = report["problems"][0]["message"].as_str().unwrap();
    assert!(said.contains("whoever had those keys still opens them"), "{report}");
    let listed = machine.report(&["keys", "list", "--packs", "--identity", "desk.txt"], 0);
    let packs = listed["sealed"]
        .as_array()
        .unwrap()
        .iter()
        .find(|kind| kind["kind"] == "packs")
        .unwrap();
    assert_eq!(packs["opened_by"][desk.to_string()], 1, "{listed}");
    let report = machine.report(&["rekey", "--packs", "--identity", "safe.txt"], 0);
    assert_eq!(
        (&report["snapshots"]["resealed"], &report["problems"]),
        (&1.into(), &serde_json::json!([]))
    );
    assert!(report["applied"]["repacked"].as_u64().unwrap() > 0);
    machine.run(
        &[
            "cat",
            "latest",
            "database/synapse/main",
            "--identity",
            "desk.txt",
            "--accept-unsigned",
        ],
        0,
    );
    let listed = machine.report(&["keys", "list", "--identity", "desk.txt"], 0);
    assert_eq!(listed["sealed"][0]["opened_by"][desk.to_string()], Value::Null, "{listed}");

    // The writer key is gone; it is never made where one is.
    machine.run(&["rekey", "--new-writer-key", "--identity", "safe.txt"], 2);
    let old = listed["signer"].as_str().unwrap().to_owned();
    fs::remove_file(machine.at("writer.key")).unwrap();
    machine.run(&["snapshots"], 12);
    machine.run(&["rekey", "--new-writer-key"], 12);
    assert!(!machine.at("writer.key").exists());
    let report = machine.report(&["rekey", "--new-writer-key", "--identity", "safe.txt", "--signer", &old], 0);
    let new = report["signer"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert_eq!(report["snapshots"]["signed"], 1);
    assert_eq!(machine.report(&["snapshots"], 0)["snapshots"].as_array().unwrap().len(), 1);
    let again = machine.backup(std::slice::from_ref(&safe), &content).await;
    let shown = machine.report(&["show", &again], 0);
    assert_eq!((&shown["signer"], &shown["doubt"]), (&new.into(), &Value::Null));
    let read = machine.run(&["cat", "latest", "database/synapse/main", "--identity", "safe.txt"], 0);
    assert!(read.stdout == content);
    machine.run(&["verify"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn signers_that_are_several_and_not_pinned_are_told() {
    let machine = Machine::new();
    machine.run(&["init"], 0);
    let recipients = [machine.safe.recipient()];
    let first = machine.backup(&recipients, b"first").await;
    let keys = machine.report(&["keys", "list"], 0);
    fs::rename(machine.at("writer.key"), machine.at("old.key")).unwrap();
    machine.run(&["rekey", "--new-writer-key", "--identity", "safe.txt"], 0);
    machine.backup(&recipients, b"second").await;
    let old = keys["signer"].as_str().unwrap();
    let restorer = |more: &[&str], code| {
        let url = machine.url();
        let arguments = [&["--repository", &url, "--identity", "safe.txt"], more].concat();
        let output = machine.command_with("/dev/null", &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", err(&output));
        err(&output)
    };
    let told = restorer(&["snapshots"], 0);
    assert!(
        told.contains("signed by 2 signers, and none is pinned") && told.contains(old),
        "{told}"
    );
    // A drill says it before it begins; what was stored here is no database that it could bring back.
    let scratch = tempfile::tempdir().unwrap();
    let drill = ["drill", "--no-record", "--to", scratch.path().to_str().unwrap()];
    let told = restorer(&drill, 1);
    assert!(told.contains("none is pinned"), "{told}");
    // The old ones by the old signer, the new ones by the new: both are named.
    let new = machine.report(&["keys", "list"], 0)["signer"].as_str().unwrap().to_owned();
    assert_eq!(restorer(&["snapshots", "--signer", old, "--signer", &new], 0), "");
    let to = text(&machine.at("to"));
    let refused = restorer(&["restore", &first, "--only", "config", "--to", &to, "--signer", &new], 1);
    assert!(refused.contains("not one of the known signers"), "{refused}");
    restorer(
        &[
            "restore", &first, "--only", "config", "--to", &to, "--signer", &new, "--signer", old,
        ],
        0,
    );
}

#[test]
fn settings_that_cannot_be_changed_are_written_out() {
    let machine = Machine::new();
    let (safe, new) = (machine.safe.recipient().to_string(), Identity::generate().recipient().to_string());
    let mut by_environment = machine.command(&["keys", "add", &new]);
    by_environment.env("SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS", &safe);
    let output = by_environment.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let line = format!("SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS={safe},{new}");
    assert!(err(&output).contains(&line), "{}", err(&output));

    // Nor is a layout that only a person can have meant.
    machine.write(
        "settings.yaml",
        &format!("encryption: {{ recipients: [\"age1\\\n  {}\"] }}\n", &safe[4..]),
    );
    let told = err(&machine.run(&["keys", "add", &new], 2));
    let lines = format!("encryption:\n  recipients:\n    - {safe}\n    - {new}\n");
    assert!(told.replace("\n      ", "\n").contains(&lines), "{told}");
}

/// What a person sees and types, on a terminal of his own.
struct Terminal {
    master: fs::File,
    slave: PathBuf,
    seen: String,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        Self {
            master: master.into(),
            slave: slave.into(),
            seen: String::new(),
        }
    }

    /// The command in a session whose terminal this is.
    fn run(&mut self, command: &Command, answers: &[(&str, &str)]) -> Option<i32> {
        let open = || fs::OpenOptions::new().read(true).write(true).open(&self.slave).unwrap();
        let mut session = Command::new("setsid");
        session
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        session
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(command.get_current_dir().unwrap());
        let mut child = session.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        drop(session);
        for (question, answer) in answers {
            self.read_until(question);
            self.master.write_all(answer.as_bytes()).unwrap();
        }
        let code = child.wait().unwrap().code();
        // Nobody holds the other end any more: what is left, and then an error.
        let mut rest = Vec::new();
        let _ = self.master.read_to_end(&mut rest);
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        code
    }

    fn read_until(&mut self, word: &str) {
        let mut buffer = [0; 1024];
        let from = self.seen.len();
        while !self.seen[from..].contains(word) {
            let count = self.master.read(&mut buffer).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_is_asked_for_on_the_terminal_and_not_shown() {
    let machine = Machine::new();
    machine.run(&["init"], 0);
    machine.backup(&[machine.safe.recipient()], b"content").await;
    let mut locked = age::scrypt::Recipient::new("correct horse".to_owned().into());
    locked.set_work_factor(4);
    let sealed = age::encrypt(&locked, machine.safe.to_text().as_bytes()).unwrap();
    fs::write(machine.at("locked.age"), sealed).unwrap();
    let arguments = ["--identity", "locked.age", "cat", "latest", "database/synapse/main"];

    // Nobody there to ask.
    let told = err(&machine.run(&arguments, 2));
    assert!(
        told.contains("no terminal to ask") && told.contains("SYNAPSE_BACKUP_IDENTITY_PASSPHRASE_FILE"),
        "{told}"
    );

    let mut terminal = Terminal::new();
    let typed = [
        ("passphrase of locked.age: ", "wrong\r"),
        ("passphrase of locked.age: ", "correct hoX\x7frse\r"),
    ];
    let code = terminal.run(&machine.command(&arguments), &typed);
    assert_eq!(code, Some(0), "{}", terminal.seen);
    assert!(terminal.seen.contains("content"), "{}", terminal.seen);
    assert!(
        !terminal.seen.contains("horse") && !terminal.seen.contains("wrong"),
        "{}",
        terminal.seen
    );

    let mut terminal = Terminal::new();
    let code = terminal.run(&machine.command(&arguments), &[("passphrase of locked.age: ", "\x03")]);
    assert_eq!(code, Some(130), "{}", terminal.seen);

    // The variable names files as the flag does.
    machine.write("words", "correct horse\n");
    let mut command = machine.command(&["cat", "latest", "database/synapse/main"]);
    command.env("SYNAPSE_BACKUP_IDENTITY", "locked.age");
    command.env("SYNAPSE_BACKUP_IDENTITY_PASSPHRASE_FILE", "words");
    assert_eq!(command.output().unwrap().stdout, b"content");
}

#[test]
fn init_without_recipients_asks_for_a_yes() {
    let machine = Machine::new();
    machine.write("settings.yaml", &format!("repository: {}\n", machine.url()));
    machine.run(&["init"], 2);
    let question = [("(yes/no) ", "no\r")];
    assert_eq!(Terminal::new().run(&machine.command(&["init"]), &question), Some(2));
    assert!(!machine.at("bucket").exists());
    let question = [("(yes/no) ", "yes\r")];
    let mut terminal = Terminal::new();
    assert_eq!(terminal.run(&machine.command(&["init"]), &question), Some(0), "{}", terminal.seen);
    assert!(machine.at("bucket/repository.json").exists());
}

#[test]
fn a_backup_into_a_sealed_repository_without_recipients_is_a_wrong_call() {
    let machine = Machine::new();
    machine.run(&["init"], 0);
    machine.write("signing.key", "ed25519 a_ABCD AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n");
    let (key, media) = (text(&machine.at("signing.key")), text(&machine.at("media")));
    fs::create_dir(machine.at("media")).unwrap();
    let homeserver = format!(
        "server_name: example.org\nsigning_key_path: {key}\nmedia_store_path: {media}\nlisteners: []\n\
         database: {{ name: psycopg2, args: {{ user: synapse, dbname: synapse, host: 127.0.0.1, port: 1 }} }}\n"
    );
    machine.write("homeserver.yaml", &homeserver);
    let settings = format!(
        "repository: {}\nsynapse: {{ config: [{}] }}\n",
        machine.url(),
        text(&machine.at("homeserver.yaml"))
    );
    machine.write("settings.yaml", &settings);
    let told = err(&machine.run(&["backup"], 2));
    assert!(
        told.contains("the repository is sealed, and `encryption.recipients` is not set"),
        "{told}"
    );
    assert!(told.contains("whoever can write into the bucket could add himself"), "{told}");
}
