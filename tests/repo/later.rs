//! A snapshot of a later version beside ours, which requires what this program does not know: named, never taken for damage that
//! can be passed over where somebody asks for the newest, and in nobody's way.

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use synapse_backup::format::{ObjectId, keys};
use synapse_backup::ops::retention::Keep;
use synapse_backup::ops::{inspect, prune};
use synapse_backup::store::Store;

use crate::rig::{Bytes, LIMITS, backup, init, memory, noise, read, run};

/// The same snapshot an hour later, under another id, requiring a feature.
fn of_later(object: &[u8], good: &str, id: ObjectId) -> Vec<u8> {
    let trailer = object.windows(8).position(|window| window == b"SBKSNAPS").unwrap() - 8;
    let mut document: serde_json::Value = serde_json::from_slice(&zstd::stream::decode_all(&object[..trailer]).unwrap()).unwrap();
    assert_eq!(document["id"], good);
    document["id"] = id.to_string().into();
    document["time"] = "2026-11-01T01:00:00Z".into();
    document["features_required"] = serde_json::json!(["tape"]);
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    let frame = compressor.compress(&serde_json::to_vec(&document).unwrap()).unwrap();
    let mut later = [&frame, &object[trailer..object.len() - 32]].concat();
    let digest: [u8; 32] = Sha256::digest(&later).into();
    later.extend_from_slice(&digest);
    later
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_later_version_is_named_and_does_no_harm() {
    let memory = memory();
    let repository = init(memory.clone()).await;
    let bytes = noise(1, 100_000);
    let ours = backup(&repository, &mut Bytes::new(&bytes)).await.unwrap().id.to_string();
    let object = memory
        .objects()
        .into_iter()
        .find(|(key, _)| key.starts_with(keys::SNAPSHOTS))
        .unwrap()
        .1;
    let id = ObjectId::from_bytes([7; 16]);
    memory.clock().advance(SignedDuration::from_hours(1));
    let key = keys::snapshot("2026-11-01T01:00:00Z".parse().unwrap(), id).unwrap();
    memory.put(&key, of_later(&object, &ours, id).into()).await.unwrap();

    for name in ["latest", &id.to_string()] {
        let refused = read(&repository, name).await.unwrap_err();
        assert!(format!("{refused:#}").contains("the feature `tape`"), "{name}: {refused:#}");
        let hint = synapse_backup::ops::hint_of(&refused).unwrap();
        assert!(hint.contains("or a newer one"), "{hint}");
    }
    assert!(read(&repository, &ours).await.unwrap() == bytes);
    let listed = inspect::snapshots(&repository, &run()).await.unwrap();
    assert_eq!((listed.snapshots.len(), listed.problems.len()), (1, 1));
    assert!(listed.problems[0].message.contains("the feature `tape`"), "{:?}", listed.problems);
    // Backups go on, and nothing is deleted.
    backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
    let before = memory.objects();
    let options = prune::Options {
        dry_run: false,
        keep: Keep {
            last: Some(1),
            ..Keep::everything()
        },
        yes_really: true,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: std::env::temp_dir(),
        limits: LIMITS,
    };
    let stopped = prune::prune(&repository, &options, &run()).await.unwrap_err();
    assert!(format!("{stopped:#}").contains("the feature `tape`"), "{stopped:#}");
    assert!(memory.objects() == before);
}
