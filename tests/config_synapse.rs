//! Discovery against Synapse itself: the configuration that it generates, and what its own code reads from an awkward one.
//!
//! Needs the Synapse that `scripts/test` puts into the cache folder; without it these tests fail and say so.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use synapse_backup::synapse::config::{Options, discover};
use synapse_backup::synapse::{Engine, Error, FindingKind, Role};

/// The Python of the virtual environment with Synapse.
#[expect(clippy::disallowed_methods, reason = "the cache folder of the scripts is named by the environment")]
fn python() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("SYNAPSE_BACKUP_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("synapse-backup")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/synapse-backup")));
    let python = cache.unwrap().join("synapse/bin/python");
    assert!(
        python.exists(),
        "{} is not there: run scripts/test, which gets Synapse",
        python.display()
    );
    python
}

fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(python()).current_dir(directory).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_synapse_generates_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let arguments = "-m synapse.app.homeserver --generate-config --report-stats=no -H example.org -c homeserver.yaml --config-directory";
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.push(root.to_str().unwrap());
    run(&root, &arguments);
    let options = Options {
        config: vec![root.join("homeserver.yaml")],
        working_directory: Some(root.clone()),
        ..Options::default()
    };
    assert!(matches!(discover(&options), Err(Error::Sqlite { path }) if path == root.join("homeserver.db")));
    let homeserver = discover(&Options {
        allow_sqlite: true,
        ..options
    })
    .unwrap();
    let found: Vec<_> = homeserver.files.iter().map(|file| (file.role, file.path.clone())).collect();
    let expected = [
        (Role::LogConfig, root.join("example.org.log.config")),
        (Role::SigningKey, root.join("example.org.signing.key")),
        (Role::Config, root.join("homeserver.yaml")),
    ];
    assert_eq!(found, expected);
    assert!(
        homeserver
            .findings
            .iter()
            .all(|finding| finding.kind == FindingKind::Missing && finding.item == "media"),
        "{:?}",
        homeserver.findings
    );
    assert_eq!(homeserver.media.path, root.join("media_store"));
    assert_eq!(homeserver.http_ports, [8008]);
    let script = "from signedjson.key import *; k = read_signing_keys(open('example.org.signing.key'))[0]; \
                  print(k.alg + ':' + k.version, encode_verify_key_base64(get_verify_key(k)))";
    let key = &homeserver.signing_keys[0];
    assert_eq!(run(&root, &["-c", script]).trim(), format!("{} {}", key.key_id, key.public_key));
}

#[test]
fn synapses_own_code_reads_the_same_values() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "h.yaml",
        "server_name: first.example.org\nreport_stats: no\ndatabase: {name: psycopg2, args: {user: lost}}\nmax_upload_size: 1M\n",
    );
    let args = "user: 0123\n    password: 12:34:56\n    database: 1_000\n    keepalives: off\n    connect_timeout: 1.50\n    application_name: 2024-01-01\n    \
                sslmode: ~\n    options: 0xFFFFFFFFFFFFFFFFFF\n    port: 5432\n    port: 5433\n    host: &h localhost\n    hostaddr: !!str 127\n    sslpassword: 1e3\n    \
                passfile:\n    cp_min: 5\n";
    write("d/b.yaml", &format!("database:\n  name: psycopg2\n  args:\n    {args}"));
    write("d/a.yaml", "server_name: second.example.org:8448\n");
    write("d/c.yml", "server_name: never.example.org\n");
    write("d/Z.yaml", "max_upload_size: 10K\nmedia_store_path: /m\n");
    write("d/é.yaml", "# nothing\n");
    write("d/sub.yaml/x.yaml", "server_name: never.example.org\n");
    let options = Options {
        config: vec![root.join("h.yaml"), root.join("d")],
        working_directory: Some(root.clone()),
        ..Options::default()
    };
    let homeserver = discover(&options).unwrap();
    let script = "import json, sys; from synapse.config._base import Config, find_config_files, read_config_files; from psycopg2.extensions import parse_dsn, make_dsn\n\
                  import contextlib, io\n\
                  with contextlib.redirect_stdout(io.StringIO()): files = find_config_files(sys.argv[1:]); c = read_config_files(files)\n\
                  args = {k: v for k, v in c['database']['args'].items() if not k.startswith('cp_')}\n\
                  print(json.dumps([files, c['server_name'], Config.parse_size(c['max_upload_size']), parse_dsn(make_dsn(**args))]))";
    let (h, d) = (root.join("h.yaml"), root.join("d"));
    let said: serde_json::Value = serde_json::from_str(&run(&root, &["-c", script, h.to_str().unwrap(), d.to_str().unwrap()])).unwrap();
    let Engine::Postgres { args } = &homeserver.databases[0].engine else {
        panic!("not PostgreSQL")
    };
    let ours = serde_json::json!([
        homeserver.config_sources,
        homeserver.server_name,
        homeserver.media.max_upload_bytes,
        args
    ]);
    assert_eq!(ours, said);
    assert_eq!(args["password"], "45296");
}
