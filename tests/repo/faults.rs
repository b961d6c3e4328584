//! A failure at every call: every listed snapshot is complete, at every instant, whatever call the run died in.

use std::sync::Arc;

use synapse_backup::repo::{Ids, open};
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::wrappers::{Fail, Fault};

use crate::rig::{Bytes, backup, init, memory, noise, read, verify};

/// Run a backup that fails at call `n`, for every n, and look at what is left through the bare store.
async fn at_every_call(fault: Fault) {
    // The second has a pack that goes up in parts.
    let (first, second) = (noise(1, 1 << 20), noise(2, 9 << 20));
    for call in 1.. {
        let memory = memory();
        let whole = init(memory.clone()).await;
        backup(&whole, &mut Bytes::new(&first)).await.unwrap();
        let fail = Arc::new(Fail::new(memory.clone(), call, fault));
        let ended = match open::open(Arc::clone(&fail) as Arc<dyn Store>, Ids::random()).await {
            Ok(repository) => backup(&repository, &mut Bytes::new(&second)).await,
            Err(error) => Err(error.to_string()),
        };
        let report = verify(&whole).await;
        assert_eq!(report.problems, [], "{fault:?} at call {call}");
        if let Ok(snapshot) = &ended {
            assert!(
                read(&whole, &snapshot.id.to_string()).await.unwrap() == second,
                "{fault:?} at call {call}"
            );
        }
        // Whatever happened, the next run succeeds, and what the last one finished is found again.
        let next = backup(&whole, &mut Bytes::new(&second)).await.unwrap();
        assert!(
            read(&whole, &next.id.to_string()).await.unwrap() == second,
            "{fault:?} at call {call}"
        );
        if fail.begun() < call {
            assert!(ended.is_ok(), "without a fault it succeeds");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_arrives_costs_nothing_that_is_listed() {
    at_every_call(Fault::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_costs_nothing_that_is_listed() {
    at_every_call(Fault::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_gone_for_good_costs_nothing_that_is_listed() {
    at_every_call(Fault::BeforeAndEver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_loses_every_answer_for_a_while_ends_no_run() {
    // As it does before a store that restarts. The first PUT of a backup is its pack, the second its segment, the third its snapshot.
    let runs = [1, 2, 3].map(async |first| {
        let memory = memory();
        let whole = init(memory.clone()).await;
        let proxy = Fail::new(memory, first, Fault::After).only(&[Kind::Put]).calls(5);
        let repository = open::open(Arc::new(proxy), Ids::random()).await.unwrap();
        let bytes = noise(first, 300_000);
        backup(&repository, &mut Bytes::new(&bytes)).await.unwrap();
        assert!(read(&whole, "latest").await.unwrap() == bytes, "from PUT {first} on");
        assert_eq!(verify(&whole).await.problems, [], "from PUT {first} on");
    });
    futures::future::join_all(runs).await;
}
