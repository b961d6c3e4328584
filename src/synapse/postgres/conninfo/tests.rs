//! What psycopg2 and libpq make of arguments, words and URLs, and what must not get into argv.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn plain() -> Surroundings {
    Surroundings::default()
}

fn parsed(text: &str) -> BTreeMap<String, String> {
    parse::any(text).unwrap()
}

#[test]
fn words_and_urls_are_read_as_libpq_reads_them() {
    for (text, expected) in [
        (
            "host=h port = 5433 dbname='my db'",
            vec![("host", "h"), ("port", "5433"), ("dbname", "my db")],
        ),
        (r"password='it\'s \\ ü' user=a\ b", vec![("password", r"it's \ ü"), ("user", "a b")]),
        ("password='' user=x", vec![("password", ""), ("user", "x")]),
        ("password=a=b#c", vec![("password", "a=b#c")]),
        ("synapse", vec![("dbname", "synapse")]),
        ("postgres://", vec![]),
        (
            "postgresql:///mydb?host=/run/pg&port=5433",
            vec![("dbname", "mydb"), ("host", "/run/pg"), ("port", "5433")],
        ),
        (
            "postgres://u%40x:p%3A%2F%25+@h1:1,[2001:db8::1]:2/d%20b?sslmode=require&options=-c%20a%3Db",
            vec![
                ("user", "u@x"),
                ("password", "p:/%+"),
                ("host", "h1,2001:db8::1"),
                ("port", "1,2"),
                ("dbname", "d b"),
                ("sslmode", "require"),
                ("options", "-c a=b"),
            ],
        ),
        ("postgres://h?ssl=true", vec![("host", "h"), ("sslmode", "require")]),
        ("postgres://%2Fvar%2Frun/db", vec![("host", "/var/run"), ("dbname", "db")]),
        (
            "postgres://u:p?a=b#c@h?port=1",
            vec![("user", "u"), ("password", "p?a=b#c"), ("host", "h"), ("port", "1")],
        ),
        ("postgres://h/d@b", vec![("host", "h"), ("dbname", "d@b")]),
    ] {
        assert_eq!(parsed(text), map(&expected), "{text}");
    }
}

#[test]
fn a_broken_text_is_an_error_that_does_not_repeat_the_secret() {
    for text in [
        "password='hunter2",
        "host=x hunter2",
        "hunter2 x=y z",
        "postgres://u:hunter2%zz@h",
        "mysql://u:hunter2@h",
        "=hunter2",
        "postgres://[::1/hunter2",
        "host=h password=correct hunter2=x",
    ] {
        let error = parse::any(text).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn arguments_are_merged_as_psycopg2_does() {
    let arguments = map(&[("dsn", "postgres://u:old@h/db1"), ("database", "db2"), ("password", "new")]);
    let info = ConnInfo::from_arguments(&arguments, &plain()).unwrap();
    assert_eq!(
        (info.database(), info.user(), info.password.as_deref()),
        (Some("db2"), Some("u"), Some("new"))
    );
    let both = ConnInfo::from_arguments(&map(&[("database", "a"), ("dbname", "a")]), &plain()).unwrap_err();
    assert!(both.to_string().contains("both are given"));
    let unknown = ConnInfo::from_arguments(&map(&[("pasword", "hunter2")]), &plain()).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the connection settings are not valid: `pasword` is not a connection keyword of libpq, did you mean `password`?"
    );
}

#[test]
fn the_password_is_in_the_environment_and_nowhere_else() {
    for password in ["a b", "it's", r"back\slash", "pässwörd", "a=b", "#hash", "\"", "%25", "$HOME `id`"] {
        let info = ConnInfo::from_arguments(&map(&[("user", "u"), ("password", password), ("host", "h")]), &plain()).unwrap();
        assert!(
            !info.to_argument().contains(password) && !format!("{info:?} {info}").contains(password),
            "{password}"
        );
        let command = info.command(Path::new("psql"));
        let set: Vec<_> = command.as_std().get_envs().filter(|(name, _)| *name == "PGPASSWORD").collect();
        assert_eq!(set[0].1.unwrap(), password);
    }
}

#[test]
fn secrets_without_a_variable_are_refused_with_a_hint() {
    for keyword in UNPASSABLE {
        let error = ConnInfo::from_arguments(&map(&[("user", "u"), (keyword, "hunter2")]), &plain()).unwrap_err();
        assert!(error.to_string().contains(keyword) && error.hint().unwrap().contains("pg_service.conf"));
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn only_variables_of_libpq_reach_the_children() {
    let variables = map(&[
        ("PGHOST", "h"),
        ("LD_PRELOAD", "x"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("PGSSLROOTCERT", "/ca"),
    ]);
    let info = ConnInfo::parse("user=u", &Surroundings { variables, ..plain() }).unwrap();
    let command = info.command(Path::new("psql"));
    let names: Vec<_> = command
        .as_std()
        .get_envs()
        .filter(|(_, value)| value.is_some())
        .map(|(name, _)| name.to_str().unwrap())
        .collect();
    assert_eq!(names, ["LANG", "LC_ALL", "LC_MESSAGES", "PATH", "PGHOST", "PGSSLROOTCERT"]);
}

#[test]
fn values_survive_quoting() {
    for value in ["plain", "", "with space", r"it's \ here", "a=b", "/var/run/postgresql", "ü"] {
        let text = format!("dbname={}", quote(value));
        assert_eq!(parsed(&text)["dbname"], value, "{text}");
    }
    let info = ConnInfo::parse(
        "dbname='my db' user=u connect_timeout=3 application_name=theirs client_encoding=LATIN1",
        &plain(),
    )
    .unwrap();
    assert_eq!(
        info.to_argument(),
        "connect_timeout=3 dbname='my db' keepalives_count=6 keepalives_idle=60 keepalives_interval=10 user=u application_name=synapse-backup"
    );
}

#[test]
fn root_is_never_the_silent_user() {
    let run_as = Some(RunAs {
        uid: 991,
        gid: 992,
        home: Some("/home/synapse".into()),
    });
    let root = |run_as, pairs: &[(&str, &str)]| Surroundings {
        root: true,
        run_as,
        variables: map(pairs),
        ..plain()
    };
    assert!(matches!(ConnInfo::parse("dbname=synapse", &root(None, &[])), Err(Error::NoUser)));
    assert!(matches!(
        ConnInfo::parse("dbname=synapse host=h", &root(None, &[])),
        Err(Error::NoUser)
    ));
    assert!(ConnInfo::parse("dbname=synapse", &root(None, &[("PGUSER", "u")])).is_ok());
    assert!(ConnInfo::parse("service=synapse", &root(None, &[])).is_ok());
    assert_eq!(
        ConnInfo::parse("dbname=synapse", &root(run_as.clone(), &[])).unwrap().run_as,
        run_as
    );
    let not_root = Surroundings { run_as, ..plain() };
    assert_eq!(ConnInfo::parse("dbname=synapse", &not_root).unwrap().run_as, None);
}

#[test]
fn settings_come_after_those_that_are_there() {
    let mut surroundings = Surroundings::default();
    surroundings.variables.insert("PGOPTIONS".into(), "-c work_mem=1MB".into());
    let settings = [("synchronous_commit", "off".to_owned()), ("a.b", "c d".to_owned())];
    for (text, expected) in [
        ("dbname=x", r"options='-c work_mem=1MB -c synchronous_commit=off -c a.b=c\\ d'"),
        (
            "dbname=x options='-c jit=off'",
            r"options='-c jit=off -c synchronous_commit=off -c a.b=c\\ d'",
        ),
    ] {
        let info = ConnInfo::parse(text, &surroundings).unwrap().with_settings(&settings);
        assert!(info.to_argument().contains(expected), "{}", info.to_argument());
    }
}
