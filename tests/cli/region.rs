//! Without a region in the settings, a store that is not Amazon's is reached at once: no metadata service is asked for one.

use std::process::Command;

use crate::canned::{Canned, http};

#[tokio::test(flavor = "multi_thread")]
async fn no_metadata_service_is_asked_for_a_region() {
    let machine = Canned::start(|_| http(404, &[], "")).await;
    let store = Canned::start(|_| http(404, &[("Content-Type", "application/xml")], "<Error><Code>NoSuchKey</Code></Error>")).await;
    let output = tokio::task::block_in_place(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
        command
            .env_clear()
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.endpoint())
            .env("SYNAPSE_BACKUP_S3_ENDPOINT", store.endpoint())
            .args(["--repository", "s3://offsite/matrix", "snapshots"]);
        command.output().unwrap()
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{stderr}");
    assert!(!stderr.contains("WARN"), "{stderr}");
    assert!(!store.asked().is_empty() && machine.asked().is_empty(), "{:?}", machine.asked());
}
