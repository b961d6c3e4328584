//! Secrets are planted wherever one can be told, the program is run as people run it, and everything that it leaves is searched:
//! its output, its reports, its errors, the arguments of its children while they run, and every object in the bucket.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use synapse_backup::store::ByteRange;

use crate::buckets::{Bucket, PREFIX, keys};
use crate::homeserver::Home;
use crate::sealing::Keys;
use crate::support::minio;

/// In homeserver.yaml, which is an item of the backup; nowhere but in it.
const OF_SYNAPSE: &str = "planted-of-synapse-8d1f";
/// In the `url` of a further database in our settings.
const OF_SETTINGS: &str = "planted-of-settings-77ab";
/// On the command line of a restore.
const OF_TARGET: &str = "planted-of-target-c0de";
/// In the environment, where libpq would look.
const OF_ENVIRONMENT: &str = "planted-of-environment-4242";

/// What was seen of a run.
struct Seen {
    output: Output,
    /// Program and all arguments of every process that was not ours, zero bytes as spaces.
    others: BTreeSet<String>,
    /// Of our process: its limit of core dumps.
    core: String,
}

/// The process lists of one test show the fixtures of another, which make roles with their passwords.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Stage {
    _alone: tokio::sync::MutexGuard<'static, ()>,
    home: Home,
    bucket: Bucket,
    settings: PathBuf,
    role: String,
    mas: String,
    store_secret: String,
}

impl Stage {
    async fn new() -> Self {
        let alone = ALONE.lock().await;
        let home = Home::new();
        let cluster = home.cluster;
        let synapse = cluster.role("synapse", OF_SYNAPSE);
        let role = cluster.role("mas", OF_SETTINGS);
        let mas = cluster.database("mas");
        for name in [&synapse, &role] {
            cluster.psql("postgres", &format!("ALTER ROLE {name} SUPERUSER"));
        }
        cluster.psql(
            &mas,
            "CREATE TABLE users (id int); INSERT INTO users SELECT generate_series(1, 20000)",
        );
        let yaml = fs::read_to_string(home.at("etc/homeserver.yaml")).unwrap();
        let (head, _) = yaml.split_once("  args:").unwrap();
        let args = format!(
            "  args: {{ user: {synapse}, password: {OF_SYNAPSE}, dbname: \"{}\", host: 127.0.0.1, port: {} }}\n",
            home.database, cluster.port
        );
        home.write("etc/homeserver.yaml", format!("{head}{args}").as_bytes());
        let bucket = Bucket::versioned().await;
        let settings = home.at("settings.yaml");
        let text = format!(
            "repository: s3://{}/{PREFIX}\ns3: {{ endpoint: '{}', region: us-east-1 }}\nsynapse: {{ config: ['{}'] }}\n\
             databases: [ {{ name: mas, url: 'postgres://{role}:{OF_SETTINGS}@127.0.0.1:{}/{mas}' }} ]\nlimits: {{ memory: 96MiB }}\n",
            bucket.name,
            minio::shared().endpoint,
            home.at("etc/homeserver.yaml").display(),
            cluster.port
        );
        fs::write(&settings, text).unwrap();
        let store_secret = format!("secret-of-{}", bucket.user("writer"));
        Self {
            _alone: alone,
            home,
            bucket,
            settings,
            role,
            mas,
            store_secret,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command.env_clear().arg("-c").arg(&self.settings).args(arguments);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.home.cluster.bin.display()));
        command.env("HOME", self.home.at("")).env("AWS_EC2_METADATA_DISABLED", "true");
        command
            .env("AWS_ACCESS_KEY_ID", self.bucket.user("writer"))
            .env("AWS_SECRET_ACCESS_KEY", &self.store_secret);
        command.env("PGPASSWORD", OF_ENVIRONMENT);
        command
    }

    fn run(&self, arguments: &[&str]) -> Seen {
        watch(self.command(arguments))
    }

    /// All that nobody may read anywhere.
    fn secrets(&self) -> [&str; 5] {
        [OF_SYNAPSE, OF_SETTINGS, OF_TARGET, OF_ENVIRONMENT, &self.store_secret]
    }

    fn assert_silent(&self, what: &str, text: &[u8]) {
        for secret in self.secrets() {
            assert!(!holds(text, secret), "{what} shows {secret}: {}", String::from_utf8_lossy(text));
        }
    }
}

fn holds(text: &[u8], secret: &str) -> bool {
    text.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Run to the end, and look at all processes all the while.
fn watch(mut command: Command) -> Seen {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let (out, err) = (read(Box::new(out)), read(Box::new(err)));
    let (mut others, mut core) = (BTreeSet::new(), String::new());
    let status = loop {
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<u32>().is_ok_and(|other| other != id)
                && let Ok(line) = fs::read(entry.path().join("cmdline"))
            {
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                // A child that has not yet become its program shows our own arguments, which are the user's.
                if !line.starts_with(env!("CARGO_BIN_EXE_synapse-backup")) {
                    others.insert(line);
                }
            }
        }
        if let Ok(limits) = fs::read_to_string(format!("/proc/{id}/limits")) {
            let line = limits.lines().find(|line| line.starts_with("Max core file size"));
            line.unwrap_or_default().clone_into(&mut core);
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Seen {
        output: Output {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
        },
        others,
        core,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_output_argument_or_object() {
    let stage = Stage::new().await;
    let target = tempfile::tempdir().unwrap();
    let to = target.path().join("copy");
    let (restored, restored_mas) = (stage.home.cluster.database("restored"), stage.home.cluster.database("restored"));
    let role = stage.home.cluster.role("into", OF_TARGET);
    stage.home.cluster.psql("postgres", &format!("ALTER ROLE {role} SUPERUSER"));
    let into = |database: &str| format!("postgres://{role}:{OF_TARGET}@127.0.0.1:{}/{database}", stage.home.cluster.port);
    let (synapse, mas) = (format!("synapse={}", into(&restored)), format!("mas={}", into(&restored_mas)));
    let to_text = to.display().to_string();
    let runs: [(&[&str], i32); 10] = [
        (&["init", "--unencrypted"], 0),
        (&["-v", "doctor"], 0),
        (&["-v", "backup"], 0),
        (&["--json", "backup"], 0),
        (&["--json", "doctor"], 0),
        (&["snapshots"], 0),
        (&["--json", "show", "latest", "--problems"], 0),
        (&["-v", "ls", "latest"], 0),
        (&["-v", "verify", "--read-data"], 0),
        (
            &[
                "-v",
                "restore",
                "latest",
                "--to",
                &to_text,
                "--database",
                &synapse,
                "--database",
                &mas,
            ],
            0,
        ),
    ];
    let mut programs = BTreeSet::new();
    for (arguments, code) in runs {
        let seen = stage.run(arguments);
        let shown = String::from_utf8_lossy(&seen.output.stderr).into_owned();
        assert_eq!(
            seen.output.status.code(),
            Some(code),
            "{arguments:?}: {shown}{}",
            String::from_utf8_lossy(&seen.output.stdout)
        );
        stage.assert_silent("standard output", &seen.output.stdout);
        stage.assert_silent("standard error", &seen.output.stderr);
        for line in &seen.others {
            stage.assert_silent("another process's argument list", line.as_bytes());
        }
        let program = |line: &String| line.split(' ').next().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
        programs.extend(seen.others.iter().filter_map(program));
        let fields: Vec<&str> = seen.core.split_whitespace().collect();
        assert_eq!(fields.get(4..6), Some(&["0", "0"][..]), "{arguments:?}: {}", seen.core);
    }
    for program in ["pg_dump", "pg_restore", "psql"] {
        assert!(programs.contains(program), "{program} was not caught running: {programs:?}");
    }

    let store = stage.bucket.store().await;
    let (mut packs_with_configuration, all) = (0, keys(&*store).await);
    assert!(all.len() > 5, "{all:?}");
    for key in all {
        let mut bytes = store.get(&key, ByteRange::All).await.unwrap().bytes.to_vec();
        if key.contains(".zst") {
            bytes.extend(zstd::stream::decode_all(&bytes[..]).unwrap());
        }
        for secret in stage.secrets().into_iter().filter(|secret| *secret != OF_SYNAPSE) {
            assert!(!holds(&bytes, secret), "{key} holds {secret}");
        }
        let has_configuration = holds(&bytes, OF_SYNAPSE);
        assert!(!has_configuration || key.starts_with("packs/"), "{key}");
        packs_with_configuration += u32::from(has_configuration);
    }
    assert!(packs_with_configuration > 0, "homeserver.yaml is saved as it is");
    assert!(
        fs::read_to_string(to.join(stage.home.at("etc/homeserver.yaml").strip_prefix("/").unwrap()))
            .unwrap()
            .contains(OF_SYNAPSE)
    );
}

/// In a sealed repository no object shows anything, and neither the writer key nor an identity is ever told.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_sealed_repository_is_in_any_output_argument_or_object() {
    let stage = Stage::new().await;
    let keys = Keys::new(1);
    let (identity, strange) = (stage.home.at("identity.txt"), stage.home.at("strange.txt"));
    fs::write(&identity, keys.identity.to_text().as_bytes()).unwrap();
    fs::write(&strange, format!("AGE-SECRET-KEY-1{OF_TARGET}\n")).unwrap();
    let more = format!(
        "encryption: {{ recipients: [ {} ], writer_key_file: '{}' }}\n",
        keys.identity.recipient(),
        stage.home.at("writer.key").display()
    );
    fs::write(&stage.settings, fs::read_to_string(&stage.settings).unwrap() + &more).unwrap();
    let to = tempfile::tempdir().unwrap();
    let to_text = to.path().join("copy").display().to_string();
    let (safe, wrong) = (
        format!("--identity={}", identity.display()),
        format!("--identity={}", strange.display()),
    );
    let restore = [
        "restore",
        "latest",
        "--to",
        &to_text,
        "--database=synapse=skip",
        "--database=mas=skip",
    ];
    let runs: [(&[&str], &str, i32); 11] = [
        (&["init"], "", 0),
        // One recipient is a warning.
        (&["doctor"], "", 3),
        (&["backup"], "", 0),
        (&["backup"], &safe, 0),
        (&["show", "latest"], &safe, 0),
        (&["verify", "--read-data"], &safe, 0),
        (&["verify", "--read-data"], "", 12),
        (&["verify", "--read-data"], &wrong, 2),
        (&["cat", "latest", "config/nothing"], &safe, 1),
        (&restore, "", 12),
        (&restore, &safe, 0),
    ];
    for (arguments, key, code) in runs {
        for talk in ["-v", "--json"] {
            // What is done once is done once.
            if talk == "--json" && (code == 0 && matches!(arguments[0], "init" | "restore") || arguments[0] == "cat") {
                continue;
            }
            let words: Vec<&str> = [talk]
                .into_iter()
                .chain(arguments.iter().copied())
                .chain((!key.is_empty()).then_some(key))
                .collect();
            let seen = stage.run(&words);
            let shown = String::from_utf8_lossy(&seen.output.stderr).into_owned();
            assert_eq!(seen.output.status.code(), Some(code), "{words:?}: {shown}");
            let writer = fs::read_to_string(stage.home.at("writer.key")).unwrap();
            let seed = writer.lines().find_map(|line| line.strip_prefix("# signing key: ")).unwrap();
            let identities = [&*keys.identity.to_text(), writer.lines().last().unwrap(), seed].map(str::to_owned);
            assert!(identities.iter().all(|secret| secret.len() > 60));
            let others = seen.others.iter().map(String::as_bytes);
            for text in [&seen.output.stdout[..], &seen.output.stderr[..]].into_iter().chain(others) {
                stage.assert_silent("what was told", text);
                for secret in &identities {
                    assert!(!holds(text, secret), "{words:?} shows a key: {}", String::from_utf8_lossy(text));
                }
            }
        }
    }
    let store = stage.bucket.store().await;
    for key in crate::buckets::keys(&*store).await {
        let bytes = store.get(&key, ByteRange::All).await.unwrap().bytes;
        stage.assert_silent(&key, &bytes);
        // Nor what the files and databases are called.
        for word in [
            "AGE-SECRET-KEY",
            "homeserver.yaml",
            "signing.key",
            "local_content",
            &stage.home.database,
            &stage.mas,
        ] {
            assert!(!holds(&bytes, word) && !key.contains(word), "{key} shows {word}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_tells_a_secret() {
    let stage = Stage::new().await;
    assert_eq!(stage.run(&["init", "--unencrypted"]).output.status.code(), Some(0));
    let whole = fs::read_to_string(&stage.settings).unwrap();
    let port = format!(":{}/", stage.home.cluster.port);
    let broken = [
        // Nobody listens; no such database; no such role; a URL that is none; YAML that is none.
        whole.replace(&port, ":1/"),
        whole.replace(&stage.mas, "no_such_database"),
        whole.replace(&stage.role, "nobody_of_this_name"),
        whole.replace(&port, ":port/"),
        whole.replace("' } ]", "' ] }"),
        whole.replace("url:", "uri:"),
    ];
    for settings in broken {
        assert_ne!(settings, whole);
        fs::write(&stage.settings, &settings).unwrap();
        for arguments in [&["-v", "backup", "--only", "database"][..], &["--json", "doctor"]] {
            let output = stage.command(arguments).output().unwrap();
            assert_ne!(output.status.code(), Some(0), "{settings}");
            stage.assert_silent("standard output", &output.stdout);
            stage.assert_silent("standard error", &output.stderr);
        }
    }
    fs::write(&stage.settings, &whole).unwrap();
    let mut command = stage.command(&["-v", "--json", "snapshots"]);
    command
        .env("AWS_SECRET_ACCESS_KEY", OF_TARGET)
        .env("AWS_SESSION_TOKEN", OF_ENVIRONMENT);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    stage.assert_silent("standard output", &output.stdout);
    stage.assert_silent("standard error", &output.stderr);
}
