//! Settings files and variables, good and bad, and what they get.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsString;

use super::*;

fn refused(text: &str) -> (String, String) {
    match parse(text, "f.yaml") {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => {
            assert_eq!(error.kind, ops::ErrorKind::Usage);
            (error.message, error.hint.unwrap_or_default())
        }
    }
}

fn overlaid(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let mut settings = parse(text, "f.yaml").map_err(|error| error.message)?;
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
    overlay::apply(&mut settings, &Environment::of(variables)).map_err(|error| error.message)?;
    Ok(settings)
}

const WHOLE: &str = "\
repository: s3://offsite/matrix
s3: { endpoint: http://127.0.0.1:9000, region: us-east-1, path_style: yes, ca_file: /ca.pem, profile: p, provider: minio, storage_class: STANDARD_IA }
synapse:
  config: [/etc/matrix-synapse/homeserver.yaml, /etc/matrix-synapse/conf.d]
  working_directory: /var/lib/matrix-synapse
  path_map: { /data: /srv/synapse }
media: { thumbnails: true, remote: off, url_cache: false }
databases: [ { name: mas, url: 'postgres://mas:secret@/mas' } ]
files: [ /etc/mas ]
limits: { memory: 256MiB, connections: 8 }
postgres: { pg_dump: /usr/lib/postgresql/15/bin/pg_dump }
object_lock: { mode: governance, days: 30 }
metrics: { textfile: /var/lib/node_exporter/synapse-backup.prom, ping_url: 'https://hc-ping.com/x' }
keep: { last: 3, daily: 7, weekly: 5, monthly: 12, yearly: 0, within: 30d, time_zone: Europe/Berlin, tags: [forever] }
";

#[test]
fn every_key_is_read() {
    let settings = parse(WHOLE, "f.yaml").unwrap();
    assert_eq!(settings.repository.as_deref(), Some("s3://offsite/matrix"));
    assert_eq!(settings.s3.path_style, Some(true));
    assert_eq!(settings.synapse.config.unwrap().len(), 2);
    assert_eq!(settings.synapse.path_map.unwrap().len(), 1);
    assert_eq!(settings.media.remote, Some(false));
    assert_eq!(settings.databases.unwrap()[0].url, "postgres://mas:secret@/mas");
    assert_eq!(settings.limits.memory, Some(ByteSize(256 << 20)));
    assert_eq!(settings.limits.connections, Some(Connections(8)));
}

#[test]
fn a_file_that_says_nothing_is_fine() {
    for text in ["", "\n", "# nothing yet\n", "---\n", "s3:\nmedia:\nlimits:\n  memory:\n"] {
        let settings = parse(text, "f.yaml").unwrap();
        assert!(settings.repository.is_none() && settings.limits.memory.is_none(), "{text:?}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, wanted) in [
        (
            "repository: s3://a/b\nmedai:\n  remote: true\n",
            "f.yaml:2:1: unknown key `medai`; did you mean `media`?",
        ),
        (
            "s3:\n  endpont: x\n",
            "f.yaml:2:3: unknown key `s3.endpont`; did you mean `s3.endpoint`?",
        ),
        ("endpoint: x\n", "f.yaml:1:1: unknown key `endpoint`; did you mean `s3.endpoint`?"),
        ("telephone: x\n", "f.yaml:1:1: unknown key `telephone`"),
        (
            "databases:\n  - nmae: x\n    url: y\n",
            "f.yaml:2:5: unknown key `databases.nmae`; did you mean `databases.name`?",
        ),
        (
            "metrics: { ping_url: x }\n",
            "f.yaml:1:22: `metrics.ping_url` must begin with https:// and a host",
        ),
        (
            "metrics:\n  textfile: /var/lib/x.txt\n",
            "f.yaml:2:13: the name of `metrics.textfile` must end in `.prom`: node_exporter reads no others, and the file is replaced",
        ),
        (
            "keep:\n  time_zone: Mars/Olympus\n",
            "f.yaml:2:14: `Mars/Olympus` is not a time zone: write its name, as in Europe/Berlin or UTC",
        ),
        ("keep: { last: some }\n", "f.yaml:1:15: `some` is not a number from 0 to 4294967295"),
        (
            "keep: { tags: [a b] }\n",
            "f.yaml:1:16: a tag has no spaces, commas or control characters",
        ),
        (
            "limits:\n  upload_rate: 3\n",
            "f.yaml:2:3: `limits.upload_rate` is a setting for a limit of the upload rate, which this version does not have",
        ),
        (
            "limits:\n  memory: 256M\n",
            "f.yaml:2:11: `256M` can be read in two ways: write 256MiB or 256MB",
        ),
        (
            "limits:\n  connections: many\n",
            "f.yaml:2:16: `many` is not a number from 1 to 256",
        ),
        (
            "object_lock:\n  mode: strict\n",
            "f.yaml:2:9: `strict` is neither governance nor compliance",
        ),
        (
            "object_lock:\n  days: 0\n",
            "f.yaml:2:9: `0` is not a number of days from 1 to 36500",
        ),
        ("media:\n  remote: maybe\n", "f.yaml:2:11: expected true or false"),
        ("media: all\n", "f.yaml:1:8: expected a section of `key: value` lines"),
        (
            "synapse:\n  config: /etc/homeserver.yaml\n",
            "f.yaml:2:11: expected a list (`[…]`, or lines that begin with `- `)",
        ),
        (
            "synapse:\n  config: [homeserver.yaml]\n",
            "f.yaml:2:12: `homeserver.yaml` is not an absolute path: it must begin with `/`",
        ),
        ("repository: [a]\n", "f.yaml:1:13: expected a text"),
        ("databases:\n  - name: x\n", "f.yaml:2:5: the key `url` is missing"),
        (
            "databases: postgres://u:secret@h/d\n",
            "f.yaml:1:12: expected a list (`[…]`, or lines that begin with `- `)",
        ),
        (
            "repository: a\nrepository: b\n",
            "f.yaml:2:1: the key `repository` stands here twice",
        ),
        (
            "databases:\n  - { name: synapse, url: x }\n",
            "f.yaml:2:13: `databases`: the name `synapse` cannot be used",
        ),
        (
            "databases:\n  - { name: a/b, url: x }\n",
            "f.yaml:2:13: `databases`: the name `a/b` cannot be used",
        ),
        (
            "databases:\n  - { name: a, url: x }\n  - { name: a, url: y }\n",
            "f.yaml:3:13: `databases`: the name `a` cannot be used",
        ),
    ] {
        let (message, hint) = refused(text);
        assert_eq!(message, wanted, "{text}");
        assert!(!hint.is_empty(), "{text}");
    }
}

#[test]
fn broken_yaml_is_named_with_its_place() {
    for text in [
        "s3: {\n",
        "a: b: c\n",
        "\tx: 1\n",
        "s3:\n  - x\n y: 1\n",
        "media: [}\n",
        "- a\n- b\n",
        "just words\n",
    ] {
        let (message, _) = refused(text);
        assert!(message.starts_with("f.yaml:"), "{text:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{text:?}: {message}");
    }
}

#[test]
fn recipients_are_different_and_fit_into_a_header() {
    let recipient = || crate::format::seal::Identity::generate().recipient().to_string();
    let many: Vec<String> = (0..24).map(|_| recipient()).collect();
    let first = many[0].clone();
    for (list, wanted) in [
        (&many[..23], None),
        (&many[..], Some("these are 24 recipients; at most 23 fit".to_owned())),
        (
            &[first.clone(), many[1].clone(), first.clone()][..],
            Some(format!("{first} stands here twice")),
        ),
    ] {
        let text = format!("encryption:\n  recipients: [{}]\n", list.join(", "));
        let of_file = parse(&text, "f.yaml").map(|_| ()).map_err(|error| error.message);
        let of_environment = overlaid("", &[("SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS", &list.join(","))]).map(|_| ());
        for (got, place) in [(of_file, "f.yaml:2:"), (of_environment, "SYNAPSE_BACKUP_ENCRYPTION_RECIPIENTS: ")] {
            match &wanted {
                None => assert_eq!(got, Ok(())),
                Some(wanted) => {
                    let message = got.unwrap_err();
                    assert!(message.starts_with(place) && message.ends_with(wanted), "{message}");
                }
            }
        }
    }
}

#[test]
fn messages_never_show_a_database_url() {
    for text in [
        "metrics: { ping_url: 'hunter2' }\n",
        "metrics: { ping_url: ['https://h/hunter2'] }\n",
        "metrics: 'https://h/hunter2'\n",
        "databases: postgres://u:hunter2@h/d\n",
        "databases: [postgres://u:hunter2@h/d]\n",
        "databases: { url: 'postgres://u:hunter2@h/d' }\n",
        "databases: [{ name: a, url: ['postgres://u:hunter2@h/d'] }]\n",
        "databases: [{ name: a, url: { 'postgres://u:hunter2@h/d': 1 } }]\n",
    ] {
        let (message, hint) = refused(text);
        assert!(!message.contains("hunter2") && !hint.contains("hunter2"), "{message} {hint}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let settings = overlaid(
        WHOLE,
        &[
            ("SYNAPSE_BACKUP_REPOSITORY", "file:///r"),
            ("SYNAPSE_BACKUP_S3_PATH_STYLE", "false"),
            ("SYNAPSE_BACKUP_SYNAPSE_CONFIG", "/a.yaml, /b.yaml,"),
            ("SYNAPSE_BACKUP_LIMITS_MEMORY", "128MiB"),
            ("SYNAPSE_BACKUP_S3_REGION", ""),
            ("SYNAPSE_BACKUP_CONFIG", "/elsewhere"),
            ("SYNAPSE_BACKUP_CACHE", "/cache"),
            ("SYNAPSE_BACKUP_TEST_ANYTHING", "1"),
            ("SYNAPSE_BACKUPS", "not ours"),
        ],
    )
    .unwrap();
    assert_eq!(settings.repository.as_deref(), Some("file:///r"));
    assert_eq!(settings.s3.path_style, Some(false));
    assert_eq!(settings.synapse.config.unwrap().len(), 2);
    assert_eq!(settings.limits.memory, Some(ByteSize(128 << 20)));
    assert_eq!(settings.s3.region.as_deref(), Some("us-east-1"));
}

#[test]
fn variables_that_cannot_be_meant_are_refused() {
    for (variable, value, wanted) in [
        (
            "SYNAPSE_BACKUP_S3_ENDPONT",
            "x",
            "unknown variable SYNAPSE_BACKUP_S3_ENDPONT; did you mean SYNAPSE_BACKUP_S3_ENDPOINT?",
        ),
        (
            "SYNAPSE_BACKUP_NOTHING_LIKE_IT",
            "x",
            "unknown variable SYNAPSE_BACKUP_NOTHING_LIKE_IT",
        ),
        (
            "SYNAPSE_BACKUP_DATABASES",
            "x",
            "SYNAPSE_BACKUP_DATABASES: `databases` cannot be set by the environment",
        ),
        (
            "SYNAPSE_BACKUP_SYNAPSE_PATH_MAP",
            "x",
            "SYNAPSE_BACKUP_SYNAPSE_PATH_MAP: `synapse.path_map` cannot be set by the environment",
        ),
        (
            "SYNAPSE_BACKUP_METRICS_PING_URL",
            "x",
            "SYNAPSE_BACKUP_METRICS_PING_URL: `metrics.ping_url` must begin with https:// and a host",
        ),
        (
            "SYNAPSE_BACKUP_S3_PATH_STYLE",
            "maybe",
            "SYNAPSE_BACKUP_S3_PATH_STYLE: `maybe` is neither true nor false",
        ),
        (
            "SYNAPSE_BACKUP_FILES",
            "a",
            "SYNAPSE_BACKUP_FILES: `a` is not an absolute path: it must begin with `/`",
        ),
    ] {
        assert_eq!(overlaid("", &[(variable, value)]).err().as_deref(), Some(wanted), "{variable}");
    }
}

#[test]
fn a_named_file_must_exist_but_the_default_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no.yaml");
    let error = load(Some(&missing), &Environment::default()).err().unwrap();
    assert!(error.message.starts_with("settings file `"), "{}", error.message);
    let large = folder.path().join("large.yaml");
    std::fs::write(&large, vec![b'#'; 2 << 20]).unwrap();
    assert!(
        load(Some(&large), &Environment::default())
            .err()
            .unwrap()
            .message
            .contains("larger than 1 MiB")
    );
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, b"a: 1\n\xff\n").unwrap();
    assert!(
        load(Some(&binary), &Environment::default())
            .err()
            .unwrap()
            .message
            .contains("line 2 is not UTF-8")
    );
}
