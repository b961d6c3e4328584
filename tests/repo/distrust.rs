//! What a run has seen to be damaged stays out of its snapshot, to the last repair before the commit.
//!
//! Index and listings do not show such damage: the pack is there, in its full length, and nobody has marked it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use synapse_backup::format::snapshot::Snapshot;
use synapse_backup::format::{PackId, keys};
use synapse_backup::repo::attempts::{self, Attempt};
use synapse_backup::repo::catalog::{self, Catalog};
use synapse_backup::repo::reader::Reader;
use synapse_backup::repo::writer::{Budget, Writer};
use synapse_backup::repo::{Repository, commit};
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;

use crate::protocol::{condemn, data_packs, over};
use crate::rig::{Bytes, LIMITS, document, init, memory, noise, read};

/// A run whose index is what `load` gives, and which has seen that these packs are damaged.
async fn backup(
    repository: &Repository,
    bytes: &[u8],
    load: impl AsyncFn() -> Result<Catalog, anyhow::Error>,
    mut damaged: BTreeSet<PackId>,
) -> Snapshot {
    let budget = Budget::new(LIMITS.memory_bytes, LIMITS.connections);
    let attempt = async |writer: &Writer, _: &Arc<Catalog>| {
        let time = repository.date().await?;
        let stored = writer.store_stream("main", &mut Bytes::new(bytes), None, &|_| {}).await?;
        // The first attempt has read them, the next one need not.
        let relied = match attempts::finish(writer, &std::mem::take(&mut damaged)).await? {
            Attempt::Done(relied) => relied,
            Attempt::Gone(packs) => return Ok(Attempt::Gone(packs)),
        };
        let committed = commit::commit(repository, &relied, |id, packs| Snapshot {
            id,
            packs: packs.iter().copied().collect(),
            ..document(repository, &stored, time)
        });
        Ok(Attempt::of(committed.await)?)
    };
    attempts::attempts(repository, &budget, load, attempt).await.unwrap()
}

fn damage(memory: &Memory, packs: &BTreeSet<PackId>) {
    for pack in packs {
        let mut body = memory.objects()[&keys::pack(*pack)].to_vec();
        body[100] ^= 1;
        memory.damage(&keys::pack(*pack), body.into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_seen_damaged_takes_nobodys_place() {
    let bytes = noise(1, 1 << 20);
    for relies_on_damaged_first in [true, false] {
        let memory = memory();
        let repository = init(memory.clone()).await;
        // Two machines that did not know of each other have sent the same.
        let knows_nothing = async || Ok(Catalog::default());
        let first = backup(&repository, &bytes, knows_nothing, BTreeSet::new()).await;
        let second = backup(&repository, &bytes, knows_nothing, BTreeSet::new()).await;
        let (bad, good) = (data_packs(&first), data_packs(&second));
        assert!(bad.is_disjoint(&good));
        damage(&memory, &bad);
        let reader = Reader::open(&repository, 64 << 20, 4).await.unwrap();
        let list = &first.databases[0].streams[0].list;
        assert!(reader.read_small(list, u64::MAX).await.unwrap() == bytes);
        assert_eq!(reader.damaged_packs(), bad);

        // The next run relies on the good ones, and before its commit somebody marks those.
        let (at_store, theirs, looks) = (memory.clone(), good.clone(), AtomicUsize::new(0));
        let look_of_the_check = if relies_on_damaged_first { 2 } else { 1 };
        let repository = over(&memory, move |kind, key| {
            let is_look = kind == Kind::List && key == keys::CONDEMNED;
            if is_look && looks.fetch_add(1, Ordering::SeqCst) == look_of_the_check {
                condemn(&at_store, &theirs);
            }
        })
        .await;
        let preferred: Vec<PackId> = if relies_on_damaged_first { &bad } else { &good }.iter().copied().collect();
        let load = async || {
            let mut catalog = catalog::load(&repository, 64 << 20).await?;
            catalog.prefer(&preferred);
            Ok(catalog)
        };
        memory.clock().advance(SignedDuration::from_hours(1));
        let third = backup(&repository, &bytes, load, reader.damaged_packs()).await;
        let relied: BTreeSet<PackId> = third.packs.iter().copied().collect();
        assert!(
            relied.is_disjoint(&bad) && relied.is_disjoint(&good),
            "damaged first: {relies_on_damaged_first}"
        );
        assert!(read(&repository, "latest").await.unwrap() == bytes);
    }
}
