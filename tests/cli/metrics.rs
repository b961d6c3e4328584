//! What others are told of a run: a text file for Prometheus, a ping for a monitor. Every way in which a run ends is told.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::canned::{Asked, Canned, http};

/// In the address of the monitor; it must come out nowhere.
const SECRET: &str = "hunter2";

/// A folder with a repository in it and settings that name the text file.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let init = place.run(&["init", "--unencrypted"], &[]);
        assert!(init.status.success(), "{init:?}");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("file://{}", self.path("repository").display())
    }

    fn command(&self, words: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command
            .env_clear()
            .env("SYNAPSE_BACKUP_REPOSITORY", self.url())
            .env("SYNAPSE_BACKUP_METRICS_TEXTFILE", self.path("x.prom"))
            .envs(variables.iter().copied())
            .args(words);
        command
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let output = self.command(words, variables).output().unwrap();
        let text = [output.stdout.clone(), output.stderr.clone()].concat();
        assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{output:?}");
        output
    }

    /// The value of a figure of a command.
    fn figure(&self, name: &str, command: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path("x.prom")).unwrap();
        let head = format!("synapse_backup_{name}{{command=\"{command}\",");
        let mut lines = text.lines().filter(|line| line.starts_with(&head));
        let line = lines.next()?;
        assert_eq!(lines.next(), None, "{text}");
        Some(line.rsplit(' ').next().unwrap().to_owned())
    }
}

fn lines_of(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(|asked| asked.line.clone()).collect()
}

fn told(place: &Place, words: &[&str], variables: &[(&str, &str)], monitor: &Canned) -> (Output, Vec<Asked>) {
    let before = monitor.asked().len();
    let url = format!("{}/{SECRET}/{{command}}?create=1", monitor.endpoint());
    let variables = [variables, &[("SYNAPSE_BACKUP_METRICS_PING_URL", &url)]].concat();
    let output = tokio::task::block_in_place(|| place.run(words, &variables));
    (output, monitor.asked().split_off(before))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_run_is_told() {
    let place = Place::new();
    let monitor = Canned::start(|_| http(200, &[], "OK")).await;
    let nowhere = format!("file://{}", place.path("nowhere").display());
    for (words, variables, code) in [
        (&["verify"][..], &[][..], 0),
        (&["prune"][..], &[][..], 0),
        (&["backup"][..], &[][..], 2),
        (&["drill"][..], &[][..], 1),
        (&["copy", "--to", &nowhere][..], &[][..], 10),
        (&["verify"][..], &[("SYNAPSE_BACKUP_REPOSITORY", nowhere.as_str())][..], 10),
    ] {
        let (output, asked) = told(&place, words, variables, &monitor);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        let end = if code == 0 { "" } else { "/fail" };
        assert_eq!(
            lines_of(&asked),
            [
                format!("post /{SECRET}/{}/start?create=1 http/1.1", words[0]),
                format!("post /{SECRET}/{}{end}?create=1 http/1.1", words[0]),
            ],
            "{words:?}: {output:?}"
        );
        let body = String::from_utf8(asked[1].body.clone()).unwrap();
        assert!(body.starts_with(&format!("{}: exit code {code}, ", words[0])), "{body}");
    }
    for (name, command, value) in [
        ("exit_code", "prune", Some("0")),
        ("success", "prune", Some("1")),
        ("exit_code", "backup", Some("2")),
        ("success", "backup", Some("0")),
        ("last_success_time_seconds", "backup", None),
        ("drill_success", "drill", Some("0")),
        ("problems", "prune", Some("0")),
    ] {
        assert_eq!(place.figure(name, command).as_deref(), value, "{name} {command}");
    }
    assert!(place.figure("last_run_time_seconds", "drill").is_some());
    // Two repositories, one file: both stand in it.
    let text = std::fs::read_to_string(place.path("x.prom")).unwrap();
    for (url, code) in [(place.url(), 0), (nowhere, 10)] {
        let line = format!("synapse_backup_exit_code{{command=\"verify\",repository=\"{url}\"}} {code}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_run_is_not_told() {
    let place = Place::new();
    let monitor = Canned::start(|_| http(200, &[], "OK")).await;
    for words in [&["snapshots"][..], &["prune", "--dry-run"], &["stats"]] {
        let (output, asked) = told(&place, words, &[], &monitor);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(asked.is_empty(), "{words:?}: {asked:?}");
    }
    assert!(!place.path("x.prom").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_down_is_a_warning_and_tried_again() {
    let place = Place::new();
    let ends = AtomicU32::new(0);
    // It hears of the begin, and is busy when the end is told for the first time.
    let busy = Canned::start(move |asked| {
        let is_end = !asked.line.contains("/start");
        if is_end && ends.fetch_add(1, Ordering::Relaxed) == 0 {
            http(503, &[], "busy")
        } else {
            http(200, &[], "OK")
        }
    });
    let (output, asked) = told(&place, &["verify"], &[], &busy.await);
    assert_eq!((output.status.code(), asked.len()), (Some(0), 3), "{asked:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("monitor"), "{output:?}");

    let unknown = Canned::start(|_| http(404, &[], "no such check")).await;
    let (output, asked) = told(&place, &["--json", "verify"], &[], &unknown);
    assert_eq!((output.status.code(), asked.len()), (Some(0), 2), "{asked:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("was not told: it answered 404"), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.lines().last().unwrap().starts_with("{\"type\":\"report\""), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_not_there_is_a_warning_without_its_address() {
    let place = Place::new();
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{port}/{SECRET}");
    let output = tokio::task::block_in_place(|| place.run(&["verify"], &[("SYNAPSE_BACKUP_METRICS_PING_URL", &url)]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("was not told: it cannot be reached: "), "{stderr}");
    assert!(!stderr.contains(&port.to_string()), "{stderr}");
}

#[test]
fn what_another_try_cannot_mend_is_not_tried_again() {
    let place = Place::new();
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split(' '))
        .args("-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem".split(' '))
        .current_dir(place.folder.path())
        .output()
        .expect("openssl is needed to make a certificate for this test");
    assert!(made.status.success(), "{made:?}");
    // It ends after two connections: a third try would find nobody, and say so.
    let mut server = Command::new("openssl")
        .args("s_server -cert cert.pem -key key.pem -accept 127.0.0.1:0 -naccept 2".split(' '))
        .current_dir(place.folder.path())
        // Open: it ends with its input.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let accepts = said
        .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned))
        .unwrap();
    let drain = std::thread::spawn(move || said.for_each(drop));
    let url = format!("https://{accepts}/{SECRET}");
    let output = place.run(&["verify"], &[("SYNAPSE_BACKUP_METRICS_PING_URL", &url)]);
    server.kill().unwrap();
    server.wait().unwrap();
    drain.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr
            .matches("was not told: it cannot be reached: invalid peer certificate")
            .count(),
        2,
        "{stderr}"
    );
}

#[test]
fn a_text_file_that_cannot_be_written_is_a_warning() {
    let place = Place::new();
    let missing = place.path("missing/x.prom");
    let output = place.run(&["verify"], &[("SYNAPSE_BACKUP_METRICS_TEXTFILE", missing.to_str().unwrap())]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("could not be written: No such file or directory"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_interrupted_is_told_too() {
    let place = Place::new();
    let monitor = Canned::start(|_| http(200, &[], "OK")).await;
    // A store that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let ping_url = format!("{}/{SECRET}", monitor.endpoint());
    let variables = [
        ("SYNAPSE_BACKUP_REPOSITORY", "s3://bucket/prefix"),
        ("SYNAPSE_BACKUP_S3_ENDPOINT", endpoint.as_str()),
        ("SYNAPSE_BACKUP_METRICS_PING_URL", ping_url.as_str()),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ];
    let mut child = place.command(&["prune"], &variables).stderr(Stdio::null()).spawn().unwrap();
    // As soon as it talks to the store, it is told to stop.
    let connection = tokio::task::block_in_place(|| silent.accept()).unwrap();
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let status = tokio::task::block_in_place(|| child.wait()).unwrap();
    drop(connection);
    assert_eq!(status.code(), Some(130));
    let last = lines_of(&monitor.asked()).pop();
    assert_eq!(last, Some(format!("post /{SECRET}/fail http/1.1")));
    assert_eq!(place.figure("exit_code", "prune").as_deref(), Some("130"));
}

/// Nothing but the file is ever in the folder that `node_exporter` reads.
#[test]
fn the_file_stands_alone() {
    let place = Place::new();
    let folder = place.path("textfiles");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("synapse-backup.prom");
    for _ in 0..2 {
        let output = place.run(&["verify"], &[("SYNAPSE_BACKUP_METRICS_TEXTFILE", file.to_str().unwrap())]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(names_in(&folder), ["synapse-backup.prom"]);
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
