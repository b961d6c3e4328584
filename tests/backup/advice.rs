//! What a restore says to whoever has never seen this homeserver: what is missing before it, and what is to be done after it.

use std::fs;

use synapse_backup::ops::restore::Options;
use synapse_backup::ops::{self, Part, backup};
use synapse_backup::repo::Repository;
use synapse_backup::synapse::config::{self, discover};

use crate::cluster::quoted;
use crate::homeserver::{Home, KEY};
use crate::rig::{cat, fresh, options, restore, restore_files_to, restore_to, run};
use crate::tree::{files, tree};

const PASSWORD: &str = "it's a \\secret";
/// Of the key that [`KEY`] is.
const PUBLIC: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";

/// A homeserver whose first file names an `SQLite` database and another port, as Synapse makes it; `conf.d` says what counts.
struct Story {
    home: Home,
    role: String,
    repository: Repository,
}

impl Story {
    async fn new() -> Self {
        let home = Home::new();
        let cluster = home.cluster;
        let role = cluster.role("synapse_user", PASSWORD);
        cluster.psql("postgres", &format!("ALTER ROLE {} SUPERUSER", quoted(&role)));
        let root = home.root.display();
        home.write(
            "etc/homeserver.yaml",
            format!(
                "server_name: example.org\nsigning_key_path: {root}/etc/signing.key\nmedia_store_path: media\n\
                 database: {{name: sqlite3, args: {{database: {root}/var/homeserver.db}}}}\n\
                 listeners: [{{port: 8008, type: http, resources: [{{names: [client]}}]}}]\n"
            )
            .as_bytes(),
        );
        home.write(
            "etc/conf.d/database.yaml",
            format!(
                "database:\n  name: psycopg2\n  args: {{user: {role}, password: {}, dbname: {}, host: 127.0.0.1, port: {}, connect_timeout: 60}}\n",
                serde_json::Value::from(PASSWORD),
                home.database,
                cluster.port
            )
            .as_bytes(),
        );
        home.write(
            "etc/conf.d/listeners.yaml",
            b"listeners: [{port: 8118, type: http, bind_addresses: ['127.0.0.1'], resources: [{names: [client, keys]}]}]\n",
        );
        let repository = fresh().await;
        save(&repository, &home, &["etc/homeserver.yaml", "etc/conf.d"]).await;
        Self { home, role, repository }
    }

    /// The old machine is gone: no file, no database, no role.
    fn lose(&self) {
        fs::rename(self.home.at("etc"), self.home.at("old-etc")).unwrap();
        fs::rename(self.home.at("var"), self.home.at("old-var")).unwrap();
        self.admin(&format!("DROP DATABASE {}", quoted(&self.home.database)));
        self.admin(&format!("DROP ROLE {}", quoted(&self.role)));
    }

    fn admin(&self, sql: &str) {
        self.home.cluster.psql("postgres", sql);
    }

    fn make_role(&self) {
        let password = PASSWORD.replace('\'', "''");
        self.admin(&format!("CREATE ROLE {} LOGIN PASSWORD '{password}'", quoted(&self.role)));
    }

    /// As the README has it.
    fn in_place(&self) -> Options {
        Options {
            to: None,
            databases: Vec::new(),
            create_database: true,
            ..restore_to(&self.home.root, self.home.cluster, "")
        }
    }

    fn dry(&self) -> Options {
        Options {
            dry_run: true,
            ..self.in_place()
        }
    }

    /// A program of PostgreSQL as its superuser.
    fn superuser(&self, program: &str) -> String {
        let cluster = self.home.cluster;
        format!(
            "runuser -u postgres -- {program} -h {} -p {}",
            cluster.socket.display(),
            cluster.port
        )
    }

    /// The error of a restore, and its hint.
    async fn refused(&self, options: &Options) -> (String, String) {
        let error = ops::restore::restore(&self.repository, "latest", options, &run())
            .await
            .unwrap_err();
        (format!("{error:#}"), ops::hint_of(&error).unwrap_or_default())
    }
}

/// A backup of a Synapse that is started with these.
async fn save(repository: &Repository, home: &Home, config: &[&str]) {
    let options = config::Options {
        config: config.iter().map(|path| home.at(path)).collect(),
        working_directory: Some(home.at("var")),
        ..config::Options::default()
    };
    let taken = backup::backup(repository, &discover(&options).unwrap(), &self::options(), &run()).await;
    assert_eq!(taken.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_the_database_lacks_and_how_it_is_made() {
    let story = Story::new().await;
    story.lose();
    let (home, role) = (&story.home, &story.role);
    let before = tree(&home.root);
    let told = async || {
        let report = restore(&story.repository, "latest", &story.dry()).await.unwrap();
        (report.plan.join("\n"), report.first_steps.join("\n"))
    };
    let item = format!("config{}", home.at("etc/conf.d/database.yaml").display());
    let (plan, first) = told().await;
    assert!(plan.contains(&format!("with the password that {item} has")), "{plan}");
    assert!(
        plan.contains(&format!("the role {role} is missing, or has another password")),
        "{plan}"
    );
    assert!(
        first.contains(&format!("synapse-backup cat latest {item} | grep -A 9 '^database'\n")),
        "{first}"
    );
    let made = format!("{} --createdb --pwprompt {role}\n", story.superuser("createuser"));
    assert!(first.contains(&made), "{first}");
    assert!(!plan.contains("secret") && !first.contains("secret"));
    let printed = String::from_utf8(cat(&story.repository, "latest", &item).await.unwrap()).unwrap();
    assert!(
        printed.contains("\ndatabase:") || printed.starts_with("database:"),
        "what grep looks for"
    );
    assert!(printed.contains("secret"));

    story.make_role();
    let (plan, first) = told().await;
    assert!(plan.contains("may log in, but not make the database"), "{plan}");
    assert!(
        first.contains(&format!("{} --encoding=UTF8", story.superuser("createdb"))),
        "{first}"
    );

    story.admin(&format!("ALTER ROLE {} CREATEDB", quoted(role)));
    let (plan, first) = told().await;
    assert!(plan.contains("may log in, and make the database"), "{plan}");
    assert_eq!(first, "");

    story.admin(&format!("CREATE DATABASE {} TEMPLATE template0", quoted(&home.database)));
    let (plan, first) = told().await;
    assert!(plan.contains("the database is there and empty"), "{plan}");
    assert_eq!(first, "");
    assert_eq!(tree(&home.root), before, "a dry run writes nothing");

    home.cluster.psql(&home.database, "CREATE TABLE mine (id int)");
    let (error, _) = story.refused(&story.dry()).await;
    assert!(error.contains("is not empty: it has table"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_ends_with_how_this_very_synapse_is_started_and_asked() {
    let story = Story::new().await;
    story.lose();
    story.make_role();
    story.admin(&format!("ALTER ROLE {} CREATEDB", quoted(&story.role)));
    let report = restore(&story.repository, "latest", &story.in_place()).await.unwrap();
    assert_eq!(report.problems, []);
    let key: Vec<_> = report
        .signing_keys
        .iter()
        .map(|key| (key.public_key.as_str(), key.path.as_deref(), key.in_place))
        .collect();
    let key_path = story.home.at("etc/signing.key").display().to_string();
    assert_eq!(key, [(PUBLIC, Some(key_path.as_str()), true)]);
    assert_eq!(report.working_directory, Some(story.home.at("var").display().to_string()));
    let at = |path: &str| story.home.at(path).display().to_string();
    assert_eq!(report.synapse_config, [at("etc/homeserver.yaml"), at("etc/conf.d")]);
    let steps = report.next_steps.join("\n");
    for words in [
        format!("homeserver -c {} -c {}\n", at("etc/homeserver.yaml"), at("etc/conf.d")),
        format!(
            "(dbname={} user={} host=127.0.0.1 port={}), and it listens on 127.0.0.1:8118.",
            story.home.database, story.role, story.home.cluster.port
        ),
        format!(
            "Never with {} alone: that names another database, the SQLite file {}",
            at("etc/homeserver.yaml"),
            at("var/homeserver.db")
        ),
        format!("shows the key {PUBLIC}"),
        "\ncurl http://127.0.0.1:8118/_matrix/key/v2/server".into(),
    ] {
        assert!(steps.contains(&words), "{words}\n{steps}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_restore_is_told_that_the_first_may_be_whole() {
    let story = Story::new().await;
    story.lose();
    story.make_role();
    story.admin(&format!("ALTER ROLE {} CREATEDB", quoted(&story.role)));
    restore(&story.repository, "latest", &story.in_place()).await.unwrap();
    let whole = files(&story.home.root);
    let (error, hint) = story.refused(&story.in_place()).await;
    assert!(error.contains("the media store") && hint.contains("--resume"), "{error}: {hint}");
    let only_database = Options {
        parts: [Part::Database].into(),
        ..story.in_place()
    };
    let (error, hint) = story.refused(&only_database).await;
    assert!(error.contains("is not empty") && hint.contains("--resume"), "{error}: {hint}");

    let resumed = Options {
        resume: true,
        ..story.in_place()
    };
    let dry = Options {
        dry_run: true,
        ..resumed.clone()
    };
    let plan = restore(&story.repository, "latest", &dry).await.unwrap().plan;
    assert_eq!(plan.len(), 3, "{plan:#?}");
    assert!(plan.iter().all(|line| line.starts_with("leave ")), "{plan:#?}");
    let again = restore(&story.repository, "latest", &resumed).await.unwrap();
    assert_eq!(
        (again.databases_kept.as_slice(), again.databases.len()),
        (&["synapse".to_owned()][..], 0)
    );
    assert_eq!((again.media_kept, again.media_files, again.config_items), (4, 0, 0));
    assert!(again.signing_keys[0].in_place);

    // What is missing is told, and comes back.
    fs::remove_file(story.home.media("AliceFirstPicture0000001")).unwrap();
    fs::remove_file(story.home.at("etc/signing.key")).unwrap();
    let plan = restore(&story.repository, "latest", &dry).await.unwrap().plan.join("\n");
    assert!(plan.contains("; 3 of them (") && plan.contains("are there already"), "{plan}");
    assert!(
        plan.contains(&format!("\nwrite {}", story.home.at("etc/signing.key").display())),
        "{plan}"
    );
    restore(&story.repository, "latest", &resumed).await.unwrap();
    assert_eq!(files(&story.home.root), whole);
    assert_eq!(fs::read(story.home.at("etc/signing.key")).unwrap(), KEY.as_bytes());

    // Synapse has run on it since: it is left alone, and nobody is told to throw it away.
    story.home.row("UploadedSince00000000001", b"x");
    let (error, hint) = story.refused(&resumed).await;
    assert!(error.contains("local_media_repository has"), "{error}");
    assert!(hint.contains("--resume --only config,media"), "{hint}");
    let rest = Options {
        parts: [Part::Config, Part::Media].into(),
        ..resumed
    };
    assert_eq!(restore(&story.repository, "latest", &rest).await.unwrap().media_kept, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_let_in_gets_the_commands_that_change_it() {
    let story = Story::new().await;
    story.lose();
    let without_create = Options {
        create_database: false,
        ..story.in_place()
    };
    let told = |password: &str| Options {
        databases: vec![(
            "synapse".into(),
            ops::restore::DatabaseTarget::ConnInfo(format!(
                "host=127.0.0.1 port={} connect_timeout=60 dbname={} user={}{password}",
                story.home.cluster.port, story.home.database, story.role
            )),
        )],
        ..without_create.clone()
    };
    for (options, words) in [
        (without_create.clone(), "password authentication failed"),
        (told(" password=wrong"), "password authentication failed"),
        (told(""), "no password supplied"),
    ] {
        let (error, hint) = story.refused(&options).await;
        assert!(error.contains(words), "{error}");
        for program in ["createuser", "createdb"] {
            assert!(hint.contains(&story.superuser(program)), "{words}: {hint}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_folder_are_named_alone_where_the_folder_would_say_something_else() {
    let story = Story::new().await;
    let target = tempfile::tempdir().unwrap();
    for (number, (config, expected)) in [
        (vec!["etc/homeserver.yaml", "etc/conf.d"], vec!["etc/homeserver.yaml", "etc/conf.d"]),
        // In another order than that of the folder.
        (
            vec!["etc/homeserver.yaml", "etc/conf.d/listeners.yaml", "etc/conf.d/database.yaml"],
            vec!["etc/homeserver.yaml", "etc/conf.d/listeners.yaml", "etc/conf.d/database.yaml"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        save(&story.repository, &story.home, &config).await;
        let to = target.path().join(number.to_string());
        let files = Options {
            parts: [Part::Config].into(),
            ..restore_files_to(&to)
        };
        let report = restore(&story.repository, "latest", &files).await.unwrap();
        let root = to.join(story.home.root.strip_prefix("/").unwrap());
        let expected: Vec<String> = expected.iter().map(|path| root.join(path).display().to_string()).collect();
        assert_eq!(report.synapse_config, expected);
        assert!(report.signing_keys[0].in_place);
    }
    let media = Options {
        parts: [Part::Media].into(),
        ..restore_files_to(&target.path().join("media"))
    };
    let steps = restore(&story.repository, "latest", &media).await.unwrap().next_steps;
    assert_eq!(steps, [] as [String; 0], "there is nothing to start");
}
