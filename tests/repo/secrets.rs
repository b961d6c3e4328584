//! A password that is planted wherever one can be told comes out of no error and no report (invariant 9).

use jiff::Timestamp;
use synapse_backup::ops::restore::DatabaseTarget;
use synapse_backup::ops::{Part, Tools, backup, doctor, restore};
use synapse_backup::synapse::{Homeserver, MediaStore};

use crate::rig::{self, Bytes, init, memory, noise, run};

const SECRET: &str = "hunter2";

/// Wrong in every way, and right but for a server that is not there.
const CONNECTIONS: [&str; 8] = [
    "postgres://synapse:hunter2@127.0.0.1:1/synapse",
    "host=127.0.0.1 port=1 user=synapse dbname=synapse password=hunter2",
    "host=127.0.0.1 password='hunter2",
    "host=127.0.0.1 password=one hunter2=two",
    "postgres://synapse:hunter2@127.0.0.1:port/synapse",
    "postgres://synapse:a?b=hunter2@127.0.0.1:1/synapse",
    "postgresql://synapse:%zzhunter2@127.0.0.1/synapse",
    "user=synapse sslpassword=hunter2",
];

fn tools() -> Tools {
    Tools {
        environment: vec![("PGPASSWORD".into(), SECRET.into()), ("PGUSER".into(), "synapse".into())],
        ..Tools::default()
    }
}

fn homeserver() -> Homeserver {
    Homeserver {
        server_name: "example.org".into(),
        config_sources: Vec::new(),
        files: Vec::new(),
        findings: Vec::new(),
        media: MediaStore {
            path: "/nonexistent".into(),
            owner: None,
            mode: None,
            providers: Vec::new(),
            enable_local_media_storage: true,
            enable_media_repo: true,
            max_upload_bytes: 0,
        },
        databases: Vec::new(),
        http_ports: Vec::new(),
        signing_keys: Vec::new(),
        signing_key_missing: false,
        old_signing_keys: Vec::new(),
    }
}

/// Everything that a log, a terminal or a report could show of an error.
fn shown(error: &anyhow::Error) -> String {
    let links: Vec<String> = error.chain().map(|cause| format!("{cause:?}")).collect();
    format!(
        "{error:#}\n{error:?}\n{}\n{:?}",
        links.join("\n"),
        synapse_backup::ops::hint_of(error)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_repeats_a_connection_string() {
    let repository = init(memory()).await;
    rig::backup(&repository, &mut Bytes::new(&noise(1, 1000))).await.unwrap();
    for text in CONNECTIONS {
        let restore = restore::Options {
            databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(text.into()))],
            parts: [Part::Database].into(),
            tools: tools(),
            ..rig::restore_options()
        };
        let error = restore::restore(&repository, "latest", &restore, &run()).await.unwrap_err();
        assert!(!shown(&error).contains(SECRET), "restore, {text}: {}", shown(&error));
        let backup = backup::Options {
            parts: [Part::Database].into(),
            tools: tools(),
            databases: vec![("mas".into(), text.into())],
            ..rig::backup_options()
        };
        let error = backup::backup(&repository, &homeserver(), &backup, &run()).await.unwrap_err();
        assert!(!shown(&error).contains(SECRET), "backup, {text}: {}", shown(&error));
        let doctor = doctor::Options {
            tools: tools(),
            now: Timestamp::UNIX_EPOCH,
            databases: vec![("mas".into(), text.into())],
            dump_jobs: 2,
            textfile: None,
        };
        let report = doctor::doctor(Ok(repository.clone()), Ok(homeserver()), &doctor, &run())
            .await
            .unwrap();
        let report = serde_json::to_string(&report).unwrap();
        assert!(report.contains("failure") && !report.contains(SECRET), "doctor, {text}: {report}");
    }
}
