//! What `verify` may say: that all is there only if it has seen all of it.

use std::sync::Arc;

use synapse_backup::ops::verify::{self, ReadData};
use synapse_backup::repo::{Ids, open};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::{Fail, Fault};

use crate::homeserver::Home;
use crate::rig::{LIMITS, backup, fresh_in, memory, run, ticking, tools};

/// Everything, with every byte.
fn whole() -> verify::Options {
    verify::Options {
        snapshot: None,
        read_data: Some(ReadData::Percent(100)),
        repair_index: false,
        tools: Some(tools()),
        limits: LIMITS,
    }
}

/// Verify over a network that breaks at this read, and how many reads were begun.
async fn broken_at(memory: &Arc<Memory>, read: u64) -> (anyhow::Result<verify::Report>, u64) {
    let fail = Arc::new(Fail::new(ticking(memory), read, Fault::BeforeAndEver).only(&[Kind::Get]));
    let ended = match open::open(Arc::clone(&fail) as Arc<dyn Store>, Ids::random()).await {
        Ok(repository) => verify::verify(&repository, &whole(), &run()).await,
        Err(error) => Err(error.into()),
    };
    (ended, fail.begun())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_at_any_read_is_never_called_a_whole_repository() {
    let (home, memory) = (Home::new(), memory());
    backup(&fresh_in(&memory).await, &home).await;
    let (ended, reads) = broken_at(&memory, u64::MAX).await;
    let report = ended.unwrap();
    assert_eq!((report.problems.len(), report.streams_read), (0, 2));
    assert!(reads > 5, "{reads}");
    for read in 1..=reads {
        let (ended, _) = broken_at(&memory, read).await;
        assert!(ended.is_err(), "read {read} of {reads}: {:?}", ended.unwrap());
    }
}
