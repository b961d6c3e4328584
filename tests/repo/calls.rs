//! Calls that cannot be meant: refused as usage (exit code 2) before anything is touched.

use jiff::SignedDuration;
use synapse_backup::ops::restore::DatabaseTarget;
use synapse_backup::ops::retention::Keep;
use synapse_backup::ops::{Error, ErrorKind, Tools, drill, prune};

use crate::rig::{Bytes, LIMITS, backup, init, memory, run};

fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| error.kind == ErrorKind::Usage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_versions_where_there_are_none_is_refused_before_anything_is_forgotten() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    for content in [b"first", b"other"] {
        backup(&repository, &mut Bytes::new(content)).await.unwrap();
        memory.clock().advance(SignedDuration::from_hours(1));
    }
    let before = memory.objects();
    for dry_run in [true, false] {
        let options = prune::Options {
            dry_run,
            keep: Keep {
                last: Some(1),
                ..Keep::everything()
            },
            yes_really: true,
            repack_bytes_max: None,
            storage_min: None,
            versions: Some(SignedDuration::from_hours(72)),
            spool_folder: "/var/tmp".into(),
            limits: LIMITS,
        };
        let failed = prune::prune(&repository, &options, &run()).await.unwrap_err();
        assert!(failed.to_string().contains("keeps no old versions"), "{failed:#}");
        assert!(is_usage(&failed));
        assert!(memory.objects() == before, "nothing is touched");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_a_database_that_is_not_there_is_refused_before_anything_is_made() {
    let repository = init(memory()).await;
    backup(&repository, &mut Bytes::new(b"content")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = drill::Options {
        snapshot: "latest".into(),
        databases: drill::Databases::Given(vec![("nosuch".into(), DatabaseTarget::Skip)]),
        media: drill::Media::All,
        folder: folder.path().join("scratch"),
        container_path_map: Vec::new(),
        working_directory: None,
        start_synapse: None,
        late: false,
        no_record: false,
        limits: LIMITS,
        tools: Tools::default(),
        tool_version: "0".into(),
    };
    let failed = drill::drill(&repository, &options, &run()).await.unwrap_err();
    assert!(is_usage(&failed), "{failed:#}");
    assert!(failed.to_string().contains("no database `nosuch`"), "{failed:#}");
    assert!(!options.folder.exists());
}
