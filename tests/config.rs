//! Discovery on whole installations: the Debian layout, a container's, an awkward one, and what a real Synapse generates.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use synapse_backup::synapse::config::{Options, discover};
use synapse_backup::synapse::{Engine, Error, FileKind, Finding, FindingKind, Homeserver, ProviderKind, Role};

/// The seed 00 01 02 … 1f; its public key is known from another implementation of Ed25519 (`PyNaCl`).
const KEY: &str = "ed25519 a_ABCD AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
const PUBLIC: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";

/// A directory with files in it; paths in texts are written as `@/etc/x`.
struct Site {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Site {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let site = Self { _dir: dir, root };
        for (path, text) in files {
            site.write(path, text);
        }
        site
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace('@', self.root.to_str().unwrap())).unwrap();
    }

    fn options(&self, config: &[&str]) -> Options {
        Options {
            config: config.iter().map(|path| self.at(path)).collect(),
            working_directory: Some(self.at("var")),
            ..Options::default()
        }
    }

    /// Role and path of every item, sorted by path; `d` and `l` mark directories and links.
    fn items(&self, homeserver: &Homeserver) -> Vec<String> {
        let show = |file: &synapse_backup::synapse::ConfigFile| {
            let path = file.path.strip_prefix(&self.root).unwrap().display().to_string();
            match &file.kind {
                FileKind::File => format!("{} {path}", file.role.as_str()),
                FileKind::Directory => format!("{} {path}/", file.role.as_str()),
                FileKind::Symlink { target } => format!("{} {path} -> {}", file.role.as_str(), target.display()),
            }
        };
        homeserver.files.iter().map(show).collect()
    }

    fn findings(&self, homeserver: &Homeserver) -> Vec<(FindingKind, String)> {
        let root = format!("config{}/", self.root.display());
        let show = |finding: &Finding| (finding.kind, finding.item.replace(&root, ""));
        homeserver.findings.iter().map(show).collect()
    }
}

fn args(homeserver: &Homeserver, index: usize) -> Vec<(&str, &str)> {
    match &homeserver.databases[index].engine {
        Engine::Postgres { args } => args.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        Engine::Sqlite { .. } => panic!("not PostgreSQL"),
    }
}

#[test]
fn the_debian_layout_is_found_whole() {
    let site = Site::new(&[
        (
            "etc/homeserver.yaml",
            "pid_file: /var/run/matrix-synapse.pid\nlog_config: @/etc/log.yaml\nmedia_store_path: @/var/media\nsigning_key_path: @/etc/homeserver.signing.key\n\
             database:\n  name: psycopg2\n  args:\n    user: synapse_user\n    password: 0123\n    database: synapse\n    host: localhost\n    cp_min: 5\n    cp_max: 10\n",
        ),
        ("etc/conf.d/server_name.yaml", "server_name: example.org\n"),
        ("etc/conf.d/report_stats.yaml", "report_stats: no\n"),
        ("etc/conf.d/zz.yaml", "# nothing here yet\n"),
        ("etc/conf.d/old.yaml.bak", "server_name: old.example.org\n"),
        ("etc/conf.d/sub/never.yaml", "server_name: never.example.org\n"),
        ("etc/conf.d/synapse.log", "a line\n"),
        ("etc/conf.d/synapse.log.2026-11-28.gz", "lines\n"),
        ("etc/conf.d/chat.logistics.org.key", "a key that some module reads\n"),
        ("opt/tls.key", "a key behind a link\n"),
        ("etc/log.yaml", "version: 1\nhandlers: {file: {filename: /var/log/x.log}}\n"),
        ("etc/homeserver.signing.key", KEY),
        (
            "etc/workers/generic.yaml",
            "worker_app: synapse.app.generic_worker\nworker_log_config: @/etc/workers/log.config\n",
        ),
        ("etc/workers/log.config", "version: 1\n"),
        ("etc/workers/notes.yaml", "a: 1\n"),
        ("var/media/local_content/aa/bb/cc", "x"),
    ]);
    fs::set_permissions(site.at("etc/homeserver.signing.key"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("../../opt/tls.key", site.at("etc/conf.d/tls.key")).unwrap();
    let homeserver = discover(&site.options(&["etc/homeserver.yaml", "etc/conf.d"])).unwrap();
    assert_eq!(homeserver.server_name, "example.org");
    let sources = [
        "etc/homeserver.yaml",
        "etc/conf.d/report_stats.yaml",
        "etc/conf.d/server_name.yaml",
        "etc/conf.d/zz.yaml",
    ];
    assert_eq!(homeserver.config_sources, sources.map(|path| site.at(path)));
    let items = [
        "guess etc/conf.d/chat.logistics.org.key",
        "guess etc/conf.d/old.yaml.bak",
        "config etc/conf.d/report_stats.yaml",
        "config etc/conf.d/server_name.yaml",
        "guess etc/conf.d/tls.key -> ../../opt/tls.key",
        "config etc/conf.d/zz.yaml",
        "signing_key etc/homeserver.signing.key",
        "config etc/homeserver.yaml",
        "log_config etc/log.yaml",
        "worker etc/workers/generic.yaml",
        "log_config etc/workers/log.config",
        "guess opt/tls.key",
    ];
    assert_eq!(site.items(&homeserver), items);
    assert_eq!(
        site.findings(&homeserver),
        [(FindingKind::Ignored, "etc/conf.d/zz.yaml".to_owned())]
    );
    assert!(!FindingKind::Ignored.is_problem());
    let key = homeserver.files.iter().find(|file| file.role == Role::SigningKey).unwrap();
    assert_eq!((key.mode, key.secret, key.bytes), (0o640, true, KEY.len() as u64));
    assert_eq!(homeserver.signing_keys[0].key_id, "ed25519:a_ABCD");
    assert_eq!(homeserver.signing_keys[0].public_key, PUBLIC);
    assert_eq!(
        args(&homeserver, 0),
        [
            ("dbname", "synapse"),
            ("host", "localhost"),
            ("password", "83"),
            ("user", "synapse_user")
        ]
    );
    assert_eq!(homeserver.media.path, site.at("var/media"));
    assert_eq!(
        (homeserver.media.max_upload_bytes, homeserver.media.enable_media_repo),
        (50 << 20, true)
    );
}

#[test]
fn a_containers_paths_are_found_through_the_map() {
    let site = Site::new(&[
        (
            "srv/homeserver.yaml",
            "server_name: \"matrix.example.org:8448\"\nlog_config: /data/matrix.log.config\nmedia_store_path: media_store\n\
             app_service_config_files: [/bridges/irc/registration.yaml, as/two.yaml]\n\
             database: {name: psycopg2, args: {host: /run/pg, port: 5432, dbname: synapse, sslrootcert: /data/ca.pem, passfile: pass, connect_timeout: 1.5, keepalives: yes, sslmode: ~}}\n\
             media_storage_providers:\n- {module: file_system, store_local: yes, config: {directory: /mnt/second}}\n\
             - module: s3_storage_provider.S3StorageProviderBackend\n  store_synchronous: on\n  config: {bucket: 123, secret_access_key: hunter2, prefix: p/}\n\
             - {module: my.Own, config: {x: 1}}\nenable_local_media_storage: off\nmax_upload_size: 1G\n\
             listeners: [{port: 8448, type: http, tls: true}, {port: 9000, type: metrics}, {path: /run/s.sock, type: http}, {port: 8008, type: http, tls: no}]\n",
        ),
        ("srv/matrix.log.config", "version: 1\n"),
        ("srv/matrix.example.org:8448.signing.key", KEY),
        ("srv/as/two.yaml", "as_token: x\n"),
        ("srv/ca.pem", "pem"),
        ("srv/pass", "*:*:*:*:x"),
        ("irc/registration.yaml", "as_token: y\n"),
    ]);
    let options = Options {
        working_directory: Some("/data".into()),
        path_map: vec![
            ("/data".into(), site.at("srv")),
            ("/bridges/irc".into(), site.at("irc")),
            ("/run/pg".into(), "/host/pg".into()),
        ],
        ..site.options(&["srv/homeserver.yaml"])
    };
    let homeserver = discover(&options).unwrap();
    let items = [
        "app_service irc/registration.yaml",
        "app_service srv/as/two.yaml",
        "database srv/ca.pem",
        "config srv/homeserver.yaml",
        "signing_key srv/matrix.example.org:8448.signing.key",
        "log_config srv/matrix.log.config",
        "database srv/pass",
    ];
    assert_eq!(site.items(&homeserver), items);
    assert_eq!(homeserver.findings, []);
    assert_eq!(homeserver.http_ports, [8008], "no TLS, no socket, no other protocol");
    let (ca, pass) = (site.at("srv/ca.pem"), site.at("srv/pass"));
    let expected = [
        ("connect_timeout", "1.5"),
        ("dbname", "synapse"),
        ("host", "/host/pg"),
        ("keepalives", "True"),
        ("passfile", pass.to_str().unwrap()),
        ("port", "5432"),
        ("sslrootcert", ca.to_str().unwrap()),
    ];
    assert_eq!(args(&homeserver, 0), expected);
    let media = &homeserver.media;
    assert_eq!(
        (media.path.clone(), media.enable_local_media_storage, media.max_upload_bytes),
        (site.at("srv/media_store"), false, 1 << 30)
    );
    assert!(matches!(&media.providers[0].kind, ProviderKind::FileSystem { directory } if directory == Path::new("/mnt/second")));
    assert!(media.providers[0].store_local && !media.providers[0].store_remote && media.providers[1].store_synchronous);
    assert!(matches!(&media.providers[1].kind, ProviderKind::S3(s3) if s3.bucket == "123" && s3.prefix == "p/"));
    assert!(matches!(&media.providers[2].kind, ProviderKind::Other { module } if module == "my.Own"));
    assert!(!format!("{homeserver:?}").contains("hunter2"));
}

fn awkward() -> Site {
    let site = Site::new(&[
        (
            "etc/homeserver.yaml",
            "server_name: example.org\nsigning_key_path: @/etc/gone.signing.key\nmedia_store_path: @/var/media\n\
             defaults: &tls {sslmode: require, connect_timeout: 10}\n\
             database: &db\n  name: psycopg2\n  args: {<<: *tls, user: yes, password: 1:30, database: '0123', connect_timeout: 0x10, sslrootcert: system}\n\
             app_service_config_files:\n- app_service_1.yaml\n- ./bridges/two.yaml\n- \"with\\nnewline 'and' \\\"quotes\\\" é.yaml\"\n- missing.yaml\n\
             oidc_providers:\n- {idp_id: a, client_secret_path: @/etc/oidc.secret}\n- {idp_id: b, client_secret_jwt_key: {key_file: oidc.pem}, user_mapping_provider: {config: {extra: @/etc/mapping.json}}}\n\
             templates: {custom_template_directory: @/etc/templates}\nuser_consent: {template_dir: @/etc/not-a-directory, version: 1}\n\
             modules:\n- module: my.Module\n  config: {list: [{rules: @/etc/rules.txt}], gone: @/etc/nothing, tool: /usr/bin/env, big: @/etc/big.bin, media: @/var/media/local_content/x, near: ./near.txt}\n\
             future: {brand_new_secret_path: @/etc/new.secret}\ntls_private_key_path: @/etc/fifo.pem\ntls_certificate_path: @/etc/link.pem\n\
             old_signing_keys: {'ed25519:old': {key: abc, expired_ts: 1767225600000}}\n",
        ),
        ("etc/oidc.secret", "s"),
        ("etc/mapping.json", "{}"),
        ("etc/rules.txt", "r"),
        ("etc/new.secret", "n"),
        ("etc/not-a-directory", ""),
        ("etc/certs/real.pem", "pem"),
        ("etc/templates/base.html", "b"),
        ("etc/templates/de/consent.html", "c"),
        ("etc/shared.css", "css"),
        ("etc/far/away.txt", "x"),
        ("var/app_service_1.yaml", "id: 1\n"),
        ("var/bridges/two.yaml", "id: 2\n"),
        ("var/with\nnewline 'and' \"quotes\" é.yaml", "id: 3\n"),
        ("var/oidc.pem", "k"),
        ("var/near.txt", "near"),
        ("var/media/local_content/x", "media"),
        ("extra/mas/config.yaml", "a: !Ref x\n"),
        (
            "extra/w.yaml",
            "worker_app: synapse.app.generic_worker\nworker_log_config: worker.log.config\nworker_replication_secret_path: @/etc/repl\n",
        ),
        ("var/worker.log.config", "version: 1\n"),
    ]);
    fs::File::create(site.at("etc/big.bin")).unwrap().set_len((16 << 20) + 1).unwrap();
    symlink("certs/current.pem", site.at("etc/link.pem")).unwrap();
    symlink("real.pem", site.at("etc/certs/current.pem")).unwrap();
    symlink("de", site.at("etc/templates/en")).unwrap();
    symlink("../shared.css", site.at("etc/templates/style.css")).unwrap();
    symlink("..", site.at("etc/templates/loop")).unwrap();
    symlink("nowhere", site.at("etc/templates/dangling")).unwrap();
    for fifo in ["etc/fifo.pem", "etc/templates/pipe"] {
        rustix::fs::mknodat(rustix::fs::CWD, site.at(fifo), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }
    let odd = site.at("extra").join(std::ffi::OsStr::from_bytes(b"not\xffutf8"));
    fs::write(odd, "x").unwrap();
    site
}

#[test]
fn an_awkward_installation_is_saved_or_named() {
    let site = awkward();
    let options = Options {
        files: vec![site.at("extra"), site.at("extra-gone")],
        ..site.options(&["etc/homeserver.yaml"])
    };
    let homeserver = discover(&options).unwrap();
    let items = [
        "certificate etc/certs/current.pem -> real.pem",
        "certificate etc/certs/real.pem",
        "config etc/homeserver.yaml",
        "certificate etc/link.pem -> certs/current.pem",
        "guess etc/mapping.json",
        "guess etc/new.secret",
        "secret etc/oidc.secret",
        "guess etc/rules.txt",
        "template etc/shared.css",
        "template etc/templates/",
        "template etc/templates/base.html",
        "template etc/templates/dangling -> nowhere",
        "template etc/templates/de/",
        "template etc/templates/de/consent.html",
        "template etc/templates/en -> de",
        "template etc/templates/loop -> ..",
        "template etc/templates/style.css -> ../shared.css",
        "extra extra/",
        "extra extra/mas/",
        "extra extra/mas/config.yaml",
        "extra extra/not\u{fffd}utf8",
        "worker extra/w.yaml",
        "app_service var/app_service_1.yaml",
        "app_service var/bridges/two.yaml",
        "guess var/near.txt",
        "secret var/oidc.pem",
        "app_service var/with\nnewline 'and' \"quotes\" é.yaml",
        "log_config var/worker.log.config",
    ];
    assert_eq!(site.items(&homeserver), items);
    let mut findings = site.findings(&homeserver);
    findings.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (FindingKind::NotAFile, "etc/fifo.pem"),
        (FindingKind::Missing, "etc/gone.signing.key"),
        (FindingKind::NotAFile, "etc/not-a-directory"),
        (FindingKind::Missing, "etc/repl"),
        (FindingKind::NotAFile, "etc/templates/loop"),
        (FindingKind::NotAFile, "etc/templates/pipe"),
        (FindingKind::Missing, "extra-gone"),
        (FindingKind::Missing, "var/missing.yaml"),
    ];
    assert_eq!(findings, expected.map(|(kind, item)| (kind, item.to_owned())));
    assert!(homeserver.signing_key_missing && homeserver.signing_keys.is_empty());
    assert_eq!(homeserver.old_signing_keys[0].expired_ms, Some(1_767_225_600_000));
    let expected = [
        ("connect_timeout", "16"),
        ("dbname", "0123"),
        ("password", "90"),
        ("sslmode", "require"),
        ("sslrootcert", "system"),
        ("user", "True"),
    ];
    assert_eq!(args(&homeserver, 0), expected);
}

#[test]
fn no_item_lies_below_a_saved_link() {
    let site = Site::new(&[
        (
            "volume/..2026/homeserver.yaml",
            "server_name: example.org\nsigning_key_path: @/volume/..data/key\ndatabase: {name: psycopg2}\nmedia_store_path: @/m\n",
        ),
        ("volume/..2026/key", KEY),
        ("m/x", ""),
        ("real.d/a.yaml", "report_stats: no\n"),
    ]);
    symlink("..2026", site.at("volume/..data")).unwrap();
    symlink("..data/homeserver.yaml", site.at("volume/homeserver.yaml")).unwrap();
    symlink(site.at("real.d"), site.at("conf.d")).unwrap();
    let homeserver = discover(&site.options(&["volume/homeserver.yaml", "conf.d"])).unwrap();
    let items = site.items(&homeserver);
    let real = site.at("real.d");
    let expected = [
        format!("config conf.d -> {}", real.display()),
        "config real.d/a.yaml".into(),
        "config volume/..2026/homeserver.yaml".into(),
        "signing_key volume/..2026/key".into(),
        "config volume/..data -> ..2026".into(),
        "config volume/homeserver.yaml -> ..data/homeserver.yaml".into(),
    ];
    assert_eq!(items, expected);
    assert_eq!(homeserver.findings, []);
}

#[test]
fn what_is_no_media_is_saved_from_within_the_media_store() {
    let site = Site::new(&[
        (
            "etc/homeserver.yaml",
            "server_name: example.org\nsigning_key_path: @/data/key\nmedia_store_path: @/data\n\
             templates: {custom_template_directory: @/data/templates}\ndatabase: {name: psycopg2, args: {database: synapse}}\n",
        ),
        ("data/key", KEY),
        ("data/templates/base.html", "b"),
        ("data/bridges/registration.yaml", "id: 1\n"),
        ("data/local_content/aa/bb/cc", "media"),
        ("data/url_cache/2026-01-01/a", "media"),
    ]);
    let mut options = site.options(&["etc/homeserver.yaml"]);
    options.files = vec![site.at("data")];
    let items = site.items(&discover(&options).unwrap()).join("\n");
    for wanted in ["data/templates/base.html", "data/bridges/registration.yaml"] {
        assert!(items.contains(wanted), "{wanted} is not in\n{items}");
    }
    for unwanted in ["local_content", "url_cache"] {
        assert!(!items.contains(unwanted), "{unwanted} is in\n{items}");
    }
}

#[test]
fn a_link_in_the_place_of_a_media_folder_is_no_item() {
    let site = Site::new(&[
        (
            "etc/homeserver.yaml",
            "server_name: example.org\nsigning_key_path: @/etc/key\nmedia_store_path: @/var/media\n\
             database: {name: psycopg2, args: {database: synapse}}\n",
        ),
        ("etc/key", KEY),
        ("var/notes", "n"),
        ("large/media/beside", "b"),
        ("disk/local/aa/bb/cc", "media"),
        ("disk/beside", "b"),
    ]);
    symlink("../large/media", site.at("var/media")).unwrap();
    symlink(site.at("disk/local"), site.at("large/media/local_content")).unwrap();
    symlink("nowhere", site.at("large/media/remote_content")).unwrap();
    symlink("nowhere", site.at("large/media/other")).unwrap();
    let mut options = site.options(&["etc/homeserver.yaml"]);
    let expected = [
        "config etc/homeserver.yaml",
        "signing_key etc/key",
        "extra large/",
        "extra large/media/",
        "extra large/media/beside",
        "extra large/media/other -> nowhere",
        "extra var/",
        "extra var/media -> ../large/media",
        "extra var/notes",
    ];
    for more in [None, Some("large/media/local_content"), Some("var/media/local_content")] {
        options.files = [Some("large"), Some("var"), more]
            .into_iter()
            .flatten()
            .map(|path| site.at(path))
            .collect();
        let homeserver = discover(&options).unwrap();
        assert_eq!(site.items(&homeserver), expected, "{more:?}");
        assert_eq!(site.findings(&homeserver), [], "{more:?}");
    }
    // The same where the configuration lies in the media store.
    let site = Site::new(&[
        (
            "data/homeserver.yaml",
            "server_name: example.org\nsigning_key_path: @/data/key\nmedia_store_path: @/data\ndatabase: {name: psycopg2}\n",
        ),
        ("data/key", KEY),
        ("disk/aa/bb/cc", "media"),
    ]);
    symlink("../disk", site.at("data/local_content")).unwrap();
    let homeserver = discover(&site.options(&["data"])).unwrap();
    assert_eq!(site.items(&homeserver), ["config data/homeserver.yaml", "signing_key data/key"]);
    assert_eq!(site.findings(&homeserver), []);
}

#[test]
fn several_databases_come_with_main_first() {
    let yaml = "server_name: a\nmedia_store_path: /nowhere\ndatabases:\n  st: {name: psycopg2, data_stores: [state], args: {dbname: s}}\n  first: {name: psycopg2, data_stores: [main], args: {dbname: m, sslkey: @/k.pem}}\n";
    let site = Site::new(&[("h.yaml", yaml), ("k.pem", "")]);
    let homeserver = discover(&site.options(&["h.yaml"])).unwrap();
    let names: Vec<_> = homeserver
        .databases
        .iter()
        .map(|database| (database.name.as_str(), database.label.as_str()))
        .collect();
    assert_eq!(names, [("synapse", "first"), ("synapse-st", "st")]);
    assert!(site.items(&homeserver).contains(&"database k.pem".to_owned()));
}

#[test]
fn what_synapse_would_refuse_is_one_clear_line() {
    let good = "server_name: a\nmedia_store_path: /nowhere\n";
    let cases = [
        ("", "the Synapse configuration has no `server_name`"),
        ("a: 1\n", "the Synapse configuration has no `server_name`"),
        (
            "server_name: 12\n",
            "the Synapse option `server_name` is not a host name with an optional port",
        ),
        (
            "server_name: ../../x\n",
            "the Synapse option `server_name` is not a host name with an optional port",
        ),
        ("server_name: a\t\n", "/h.yaml:1:15: a tab where only spaces are allowed"),
        (
            "$database: {name: sqlite3, args: {database: /data/homeserver.db}}\n",
            "this homeserver keeps its data in SQLite (/data/homeserver.db), which is not supported",
        ),
        (
            "$database_path: x.db\n",
            "this homeserver keeps its data in SQLite (@/var/x.db), which is not supported",
        ),
        (
            "$database: {args: {dbname: x}}\n",
            "this homeserver keeps its data in SQLite (:memory:), which is not supported",
        ),
        ("$", "the Synapse configuration has no database"),
        (
            "$database: {name: mysql}\n",
            "the Synapse option `database.name` is neither `psycopg2` nor `sqlite3`",
        ),
        (
            "$database: {name: psycopg2}\ndatabases: {a: {}}\n",
            "the Synapse option `databases` cannot stand beside `database`",
        ),
        (
            "$database: {name: psycopg2, args: {database: a, dbname: b}}\n",
            "the Synapse option `database.args.dbname` stands beside `dbname`, which means the same",
        ),
        (
            "$database: {name: psycopg2, args: {host: [a]}}\n",
            "the Synapse option `database.args.host` is a list",
        ),
        (
            "$database: {name: psycopg2}\nlog_config: 12\n",
            "the Synapse option `log_config` is a whole number, not a path",
        ),
        (
            "$database: {name: psycopg2}\nmax_upload_size: 50MB\n",
            "the Synapse option `max_upload_size` is not a size such as `50M`",
        ),
        (
            "$database: {name: psycopg2}\nsigning_key: hunter2 x\n",
            "the Synapse option `signing_key` is not `ed25519 <version> <key>`",
        ),
    ];
    for (yaml, message) in cases {
        let site = Site::new(&[("h.yaml", &yaml.replace('$', good))]);
        let error = discover(&site.options(&["h.yaml"])).unwrap_err();
        let message = message.replace('@', site.root.to_str().unwrap());
        assert!(error.to_string().ends_with(&message), "{yaml:?}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_configuration_that_is_not_there_or_not_a_file_is_an_error_at_once() {
    let site = Site::new(&[("dir/x.yml", "server_name: a\n")]);
    rustix::fs::mknodat(rustix::fs::CWD, site.at("pipe.yaml"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for config in ["gone.yaml", "pipe.yaml"] {
        assert!(
            matches!(discover(&site.options(&[config])), Err(Error::ConfigUnreadable { .. })),
            "{config}"
        );
    }
    assert!(matches!(discover(&site.options(&["dir"])), Err(Error::NoConfig)));
    assert!(matches!(discover(&site.options(&[])), Err(Error::NoConfig)));
    let options = Options {
        config: vec!["homeserver.yaml".into()],
        ..Options::default()
    };
    assert!(matches!(discover(&options), Err(Error::NotAbsolute { .. })));
}

#[test]
fn a_damaged_signing_key_is_saved_and_named_without_its_content() {
    let site = Site::new(&[
        ("h.yaml", "server_name: a\nmedia_store_path: /\ndatabase: {name: psycopg2}\n"),
        ("a.signing.key", "ed25519 a_1 hunter2\n"),
    ]);
    let homeserver = discover(&site.options(&["h.yaml"])).unwrap();
    assert!(!homeserver.signing_key_missing);
    assert_eq!(homeserver.findings[0].kind, FindingKind::Damaged);
    assert_eq!(
        homeserver.findings[0].message,
        "it is the signing key, but the key in line 1 is not 32 bytes in base64"
    );
    assert!(site.items(&homeserver).contains(&"signing_key a.signing.key".to_owned()));
}

/// Synapse starts a media worker with `-c homeserver.yaml -c media.yaml`, and the second may say where media are.
#[test]
fn media_are_where_the_file_of_a_media_worker_says_when_it_is_listed() {
    let site = Site::new(&[
        (
            "etc/homeserver.yaml",
            "server_name: example.org\nreport_stats: no\nenable_media_repo: false\nmedia_store_path: @/var/of-main\nsigning_key_path: @/etc/key\n\
             database: { name: psycopg2, args: { user: x, dbname: x, host: localhost } }\n",
        ),
        (
            "etc/workers/media.yaml",
            "worker_app: synapse.app.media_repository\nworker_name: media1\nenable_media_repo: true\nmedia_store_path: @/var/of-worker\n\
             media_storage_providers: [{ module: file_system, store_local: true, config: { directory: @/var/elsewhere } }]\n",
        ),
        ("etc/key", KEY),
        ("var/of-main/x", "x"),
        ("var/of-worker/x", "x"),
        ("var/elsewhere/x", "x"),
    ]);
    let alone = discover(&site.options(&["etc/homeserver.yaml"])).unwrap();
    assert_eq!(alone.media.path, site.at("var/of-main"));
    let listed = discover(&site.options(&["etc/homeserver.yaml", "etc/workers/media.yaml"])).unwrap();
    assert_eq!(listed.media.path, site.at("var/of-worker"));
    assert!(listed.media.enable_media_repo);
    assert_eq!(listed.media.providers.len(), 1);
    assert!(
        site.items(&listed).contains(&"config etc/workers/media.yaml".to_owned()),
        "{:?}",
        site.items(&listed)
    );
}
