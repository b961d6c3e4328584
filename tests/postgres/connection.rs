//! Every way in that Synapse has, and every way out: errors come at once and say what to do, secrets show nowhere.

use synapse_backup::synapse::postgres::{Error, RunAs};

use super::*;

/// All of `/proc/*/cmdline`, as `ps` shows it.
fn command_lines() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect()
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

#[tokio::test]
async fn odd_passwords_open_the_door_and_show_in_no_command_line() {
    let cluster = shared();
    let tools = tools().await;
    for password in [
        "with space",
        "it's \"q\"",
        r"back\slash\\",
        "pässwörd 日本",
        "#hash=equals",
        "%41 $HOME `id` ;",
        " lead and trail ",
    ] {
        let user = cluster.role("odd", password);
        let info = tcp("postgres", &user, password);
        let session = Session::open(&info, &tools, Purpose::Read, 5).await.unwrap();
        assert_eq!(session.server().user, user);
        let shown = command_lines();
        assert!(shown.contains(&user) && !shown.contains(password), "{password}");
        session.close().await;
        let url = format!(
            "postgres://{user}:{}@127.0.0.1:{}/postgres",
            percent_encoded(password),
            cluster.port
        );
        let info = ConnInfo::parse(&url, &Surroundings::default()).unwrap();
        Session::open(&info, &tools, Purpose::Read, 5).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn names_of_databases_and_roles_may_need_quoting() {
    let cluster = shared();
    let database = cluster.database("it's a=\"data base\" \\ ü");
    let user = cluster.role("Ro le's \"=\\", "secret");
    let session = Session::open(&tcp(&database, &user, "secret"), &tools().await, Purpose::Read, 5)
        .await
        .unwrap();
    assert_eq!(
        (session.server().database.as_str(), session.server().user.as_str()),
        (database.as_str(), user.as_str())
    );
    session.close().await;
}

#[tokio::test]
async fn a_passfile_works_as_in_synapse() {
    let cluster = shared();
    let user = cluster.role("passfile", r"a:b\c");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pass file");
    std::fs::write(&file, format!("127.0.0.1:{}:*:{user}:a\\:b\\\\c\n", cluster.port)).unwrap();
    std::os::unix::fs::chown(&file, None, None).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let port = cluster.port.to_string();
    let pairs = [
        ("dbname", "postgres"),
        ("user", &user),
        ("host", "127.0.0.1"),
        ("port", &port),
        ("passfile", "pass file"),
    ];
    let surroundings = Surroundings {
        working_directory: Some(folder.path().to_owned()),
        ..Surroundings::default()
    };
    let info = ConnInfo::from_arguments(&arguments(&pairs), &surroundings).unwrap();
    Session::open(&info, &tools().await, Purpose::Read, 5).await.unwrap().close().await;
}

#[tokio::test]
async fn variables_of_the_unit_fill_what_the_arguments_leave_out() {
    let cluster = shared();
    let user = cluster.role("unit", "from the unit");
    let port = cluster.port.to_string();
    let variables = arguments(&[
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", &user),
        ("PGPASSWORD", "from the unit"),
        ("PGDATABASE", "postgres"),
    ]);
    let info = ConnInfo::from_arguments(
        &BTreeMap::new(),
        &Surroundings {
            variables,
            ..Surroundings::default()
        },
    )
    .unwrap();
    let session = Session::open(&info, &tools().await, Purpose::Read, 5).await.unwrap();
    assert_eq!(session.server().user, user);
    session.close().await;
}

#[tokio::test]
async fn several_hosts_are_tried_in_turn() {
    let cluster = shared();
    let ports = format!("1,{}", cluster.port);
    let user = cluster.role("multi", "secret");
    let pairs = [
        ("dbname", "postgres"),
        ("user", &*user),
        ("password", "secret"),
        ("host", "127.0.0.1,127.0.0.1"),
        ("port", &ports),
        ("target_session_attrs", "read-write"),
    ];
    Session::open(&connect(&pairs), &tools().await, Purpose::Read, 5)
        .await
        .unwrap()
        .close()
        .await;
}

#[tokio::test]
async fn root_becomes_the_user_of_synapse_for_peer_authentication() {
    let cluster = shared();
    let owner = &cluster.owner;
    cluster.psql(
        "postgres",
        &format!(
            "DO $$ BEGIN CREATE ROLE {} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$",
            cluster::quoted(&owner.name)
        ),
    );
    let run_as = Some(RunAs {
        uid: owner.uid,
        gid: owner.gid,
        home: None,
    });
    let surroundings = Surroundings {
        root: cluster::is_root(),
        run_as,
        ..Surroundings::default()
    };
    let port = cluster.port.to_string();
    let pairs = [("dbname", "peer_only"), ("host", cluster.socket.to_str().unwrap()), ("port", &port)];
    let info = ConnInfo::from_arguments(&arguments(&pairs), &surroundings).unwrap();
    let session = Session::open(&info, &tools().await, Purpose::Read, 5).await.unwrap();
    assert_eq!(session.server().user, owner.name);
    session.close().await;
}

#[tokio::test]
async fn the_password_file_is_that_of_the_user_of_synapse() {
    let cluster = shared();
    let user = cluster.role("at_home", "from the file");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, format!("127.0.0.1:{}:*:{user}:from the file\n", cluster.port)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    if cluster::is_root() {
        for path in [home.path(), &file] {
            std::os::unix::fs::chown(path, Some(cluster.owner.uid), Some(cluster.owner.gid)).unwrap();
        }
    }
    let open = |ours: &std::path::Path, theirs: Option<&std::path::Path>| {
        let surroundings = Surroundings {
            variables: arguments(&[("HOME", ours.to_str().unwrap())]),
            working_directory: None,
            root: true,
            run_as: Some(RunAs {
                uid: cluster.owner.uid,
                gid: cluster.owner.gid,
                home: theirs.map(Into::into),
            }),
        };
        let port = cluster.port.to_string();
        let pairs = [("dbname", "postgres"), ("user", &*user), ("host", "127.0.0.1"), ("port", &port)];
        let info = ConnInfo::from_arguments(&arguments(&pairs), &surroundings).unwrap();
        async move { Session::open(&info, &tools().await, Purpose::Read, 5).await }
    };
    let elsewhere = std::path::Path::new("/nonexistent");
    open(elsewhere, Some(home.path())).await.unwrap().close().await;
    let error = open(home.path(), None).await.unwrap_err();
    assert!(error.to_string().contains("no password supplied"), "{error}");
}

#[tokio::test]
async fn each_refusal_has_its_hint_and_comes_at_once() {
    let cluster = shared();
    let user = cluster.role("refused", "right");
    let crowded = cluster.role("crowded", "right");
    cluster.psql("postgres", &format!("ALTER ROLE {crowded} CONNECTION LIMIT 0"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let folder = tempfile::tempdir().unwrap();
    for (info, message, hint) in [
        (
            tcp("postgres", &user, "wrong"),
            "password authentication failed",
            "check user and password",
        ),
        (tcp("no such", &user, "right"), "does not exist", "--create-database"),
        (tcp("postgres", &crowded, "right"), "too many connections", "CONNECTION LIMIT"),
        (
            connect(&[("user", "x"), ("host", "127.0.0.1"), ("port", &closed)]),
            "Connection refused",
            "is the server up",
        ),
        (
            connect(&[("user", "x"), ("host", folder.path().to_str().unwrap())]),
            "No such file",
            "is the server up",
        ),
        (
            connect(&[("user", &user), ("host", "127.0.0.1"), ("port", &cluster.port.to_string())]),
            "no password supplied",
            "check user",
        ),
        (
            connect(&[
                ("user", &user),
                ("host", cluster.socket.to_str().unwrap()),
                ("port", &cluster.port.to_string()),
                ("dbname", "peer_only"),
            ]),
            "Peer",
            "over TCP",
        ),
        (
            connect(&[
                ("user", &user),
                ("host", "127.0.0.1"),
                ("port", &cluster.port.to_string()),
                ("sslmode", "require"),
            ]),
            "SSL",
            "sslmode",
        ),
    ] {
        let error = tokio::time::timeout(PATIENCE, Session::open(&info, &tools().await, Purpose::Read, 5))
            .await
            .unwrap()
            .unwrap_err();
        assert!(
            matches!(error, Error::Connect { .. }) && error.to_string().contains(message),
            "{error}"
        );
        assert!(error.hint().unwrap().contains(hint), "{error}: {:?}", error.hint());
        assert!(!error.to_string().contains("wrong") && !error.to_string().contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let info = connect(&[("user", "x"), ("host", "127.0.0.1"), ("port", &port), ("connect_timeout", "2")]);
    let error = tokio::time::timeout(PATIENCE, Session::open(&info, &tools().await, Purpose::Read, 5))
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("timeout expired"), "{error}");
}

#[tokio::test]
async fn a_failed_statement_is_an_error_and_the_session_lives_on() {
    let mut session = session("postgres").await;
    let error = session.execute("the test", "SELECT 1/0").await.unwrap_err();
    assert!(
        matches!(&error, Error::Statement { sqlstate, message, .. } if sqlstate == "22012" && message.contains("division by zero")),
        "{error:?}"
    );
    let rows = session
        .query_json("the test", r"SELECT E'\\.7 false\n\\.1' AS a, ':x :''x'' \echo y' AS b, 1.50 AS c")
        .await
        .unwrap();
    assert_eq!(
        rows,
        [serde_json::json!({ "a": "\\.7 false\n\\.1", "b": ":x :'x' \\echo y", "c": 1.50 })]
    );
    session.close().await;
}

#[tokio::test]
async fn copy_streams_any_text_with_its_escapes() {
    let mut session = session("postgres").await;
    let mut copy = session
        .copy_out("the test", r"SELECT i, E'\\.\t\n\\' || i, NULL FROM generate_series(1, 20000) AS i")
        .await
        .unwrap();
    for i in 1..=20_000 {
        assert_eq!(
            copy.next_row().await.unwrap().unwrap(),
            [Some(i.to_string()), Some(format!("\\.\t\n\\{i}")), None]
        );
    }
    assert_eq!(copy.next_row().await.unwrap(), None);
    let mut broken = session
        .copy_out("the test", "SELECT 10 / (5000 - i) FROM generate_series(1, 9000) AS i")
        .await
        .unwrap();
    let error = loop {
        match broken.next_row().await {
            Ok(row) => assert!(row.is_some(), "a COPY that failed must not end well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Statement { .. }), "{error}");
    session.close().await;
}

#[tokio::test]
async fn an_answer_left_half_read_closes_the_session_to_further_statements() {
    let mut session = session("postgres").await;
    drop(session.copy_out("the test", "SELECT generate_series(1, 10)").await.unwrap());
    let error = session.query_json("the next", "SELECT 1 AS one").await.unwrap_err();
    assert!(error.to_string().contains("not read to its end"), "{error}");
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_lost_and_not_waited_for() {
    let mut session = session("postgres").await;
    let pid = session.server().pid;
    let ended = session.execute("the sleep", "SELECT pg_catalog.pg_sleep(100)");
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        shared().psql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
    };
    let (error, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(ended, end) }).await.unwrap();
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::Lost { .. }) && error.to_string().contains("administrator command"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("pg_terminate_backend"));
}

#[tokio::test]
async fn a_dropped_session_leaves_no_process_behind() {
    let session = session("postgres").await;
    let process = format!("/proc/{}", session.process_id().unwrap());
    assert!(std::fs::exists(&process).unwrap());
    drop(session);
    tokio::time::timeout(PATIENCE, async {
        while std::fs::exists(&process).unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}
