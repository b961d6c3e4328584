//! Bytes that come back are hashed before they are believed: whatever is flipped, nothing wrong is ever given out.

use std::sync::Arc;

use synapse_backup::repo::Repository;
use synapse_backup::store::Store;
use synapse_backup::store::memory::Memory;

use crate::rig::{Bytes, Keys, backup, init, init_sealed, memory, noise, read, verify};

/// Every object but `repository.json`, damaged at some places, cut short, or taken away.
#[tokio::test(flavor = "multi_thread")]
async fn no_damage_anywhere_gives_a_wrong_byte() {
    let store = memory();
    let repository = init(Arc::clone(&store) as Arc<dyn Store>).await;
    try_all_damages(&store, &repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_anywhere_in_a_sealed_repository_gives_a_wrong_byte() {
    let store = memory();
    let repository = init_sealed(Arc::clone(&store) as Arc<dyn Store>, &Keys::new(1)).await;
    try_all_damages(&store, &repository).await;
}

async fn try_all_damages(memory: &Memory, repository: &Repository) {
    let bytes = noise(1, 300_000);
    backup(repository, &mut Bytes::new(&bytes)).await.unwrap();
    let whole = memory.objects();
    let (mut refused, mut read_all_the_same) = (0, 0);
    for (key, object) in whole.iter().filter(|(key, _)| key.as_str() != "repository.json") {
        let step = (object.len() / 40).max(1);
        let flips = (0..object.len()).step_by(step).chain([object.len() - 1]).map(|place| {
            let mut damaged = object.to_vec();
            damaged[place] ^= 0x10;
            (format!("{key}: byte {place} flipped"), damaged)
        });
        let cuts = [0, 1, object.len() / 2, object.len() - 1].map(|length| (format!("{key}: cut to {length}"), object[..length].to_vec()));
        for (damage, damaged) in flips.chain(cuts) {
            memory.damage(key, damaged.into());
            match read(repository, "latest").await {
                Ok(got) => {
                    assert!(got == bytes, "{damage}: wrong bytes");
                    read_all_the_same += 1;
                }
                Err(_) => refused += 1,
            }
            let found = verify(repository).await.problems;
            assert!(!found.is_empty(), "{damage}: verify found nothing");
        }
        memory.damage(key, object.clone());
    }
    assert_eq!(verify(repository).await.problems, []);
    // Both happen: a pack's frame is lost, a pack's table or a segment is not needed where the other is whole.
    assert!(
        refused > 10 && read_all_the_same > 10,
        "{refused} refused, {read_all_the_same} read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_says_of_a_lost_pack_is_what_it_costs() {
    let memory = memory();
    let repository = init(Arc::clone(&memory) as Arc<dyn Store>).await;
    let snapshot = backup(&repository, &mut Bytes::new(&noise(1, 300_000))).await.unwrap();
    let packs: Vec<String> = memory.objects().into_keys().filter(|key| key.starts_with("packs/")).collect();
    for pack in packs {
        memory.delete(&pack).await.unwrap();
    }
    let problems = verify(&repository).await.problems;
    let id = &snapshot.id.to_string()[..8];
    let item = problems.iter().find(|problem| problem.item == "database/synapse/main").unwrap();
    assert!(
        item.message.contains("blobs are lost") && item.message.contains(id),
        "{}",
        item.message
    );
}
