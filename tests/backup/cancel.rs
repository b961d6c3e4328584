//! Told to stop, at whatever moment: it ends within five seconds, nothing is listed, nobody is left behind.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use synapse_backup::ops::{self, ErrorKind, Run, restore};
use synapse_backup::progress::Quiet;
use synapse_backup::store::Store;
use synapse_backup::store::counters::Kind;
use synapse_backup::store::memory::Memory;
use synapse_backup::store::wrappers::Latency;
use tokio_util::sync::CancellationToken;

use crate::dump::{assert_nobody_runs, large};
use crate::homeserver::{Home, noise};
use crate::hook::{At, Hook};
use crate::rig::{backup, fresh_in, keys_of, memory, options, reopen, restore_to, ticking, verify};
use crate::tree::files;

/// What an interrupted run may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store that is far away, on a thin line.
fn far(memory: &Arc<Memory>) -> Arc<dyn Store> {
    Arc::new(Latency::new(ticking(memory), Duration::from_millis(60)).with_bytes_per_second(4 << 20))
}

/// Back up until `cancel` is cancelled; the error, and that it came in time.
async fn interrupted(store: Arc<dyn Store>, home: &Home, run: &Run<'_>, at: &str) {
    let repository = reopen(store).await;
    let homeserver = home.discover();
    let options = options();
    let backup = ops::backup::backup(&repository, &homeserver, &options, run);
    let cancelled = async {
        run.cancel.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        ended = backup => {
            let error = ended.expect_err(at);
            assert_eq!(error.downcast_ref::<ops::Error>().map(|error| error.kind), Some(ErrorKind::Interrupted), "{at}: {error:#}");
        }
        () = cancelled => panic!("{at}: it did not end in time"),
    }
}

async fn assert_nothing_is_left(memory: &Arc<Memory>, home: &Home, at: &str) {
    assert_eq!(keys_of(memory, "snapshots/"), [] as [String; 0], "{at}");
    assert_eq!(memory.open_uploads(), 0, "{at}");
    assert_nobody_runs(&home.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_told_to_stop_ends_in_time_at_any_moment() {
    let home = large();
    home.upload("LargeVideo00000000000001", &noise(1, 20 << 20));
    for milliseconds in [0, 30, 100, 200, 350, 500, 700, 1000, 1400, 1900] {
        let memory = memory();
        fresh_in(&memory).await;
        let cancel = CancellationToken::new();
        let run = Run {
            progress: &Quiet,
            cancel: cancel.clone(),
        };
        let at = format!("after {milliseconds} ms");
        let timer = async {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            cancel.cancel();
        };
        tokio::join!(interrupted(far(&memory), &home, &run, &at), timer);
        assert_nothing_is_left(&memory, &home, &at).await;
    }
    // What was sent by runs that were told to stop is no obstacle.
    let memory = memory();
    let repository = fresh_in(&memory).await;
    assert_eq!(backup(&repository, &home).await.problems, []);
    assert_eq!(verify(&repository, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_told_to_stop_before_any_call_leaves_nothing() {
    let home = Home::new();
    home.upload("LargeVideo00000000000001", &noise(1, 12 << 20));
    for call in 1.. {
        let memory = memory();
        fresh_in(&memory).await;
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let calls = std::sync::atomic::AtomicU64::new(0);
        // The call hangs, as on a network that is gone: only the cancellation ends the wait.
        let hook = Hook::new(ticking(&memory), move |kind, _| {
            let hangs = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == call && kind != Kind::Abort;
            hangs.then(|| {
                token.cancel();
                std::future::pending().boxed()
            })
        });
        let run = Run {
            progress: &Quiet,
            cancel: cancel.clone(),
        };
        let store: Arc<dyn Store> = Arc::new(hook);
        let (homeserver, options) = (home.discover(), options());
        // Opening is the first call, and not of the verb.
        let Ok(repository) = tokio::time::timeout(Duration::from_secs(1), reopen(Arc::clone(&store))).await else {
            continue;
        };
        let began = Instant::now();
        let ended = ops::backup::backup(&repository, &homeserver, &options, &run).await;
        if !cancel.is_cancelled() {
            assert!(ended.is_ok() && call > 15, "all {call} calls were tried");
            return;
        }
        assert!(began.elapsed() < PATIENCE + Duration::from_secs(3), "call {call}");
        let kind = ended
            .expect_err("it cannot end well")
            .downcast_ref::<ops::Error>()
            .map(|error| error.kind);
        assert_eq!(kind, Some(ErrorKind::Interrupted), "call {call}");
        assert_nothing_is_left(&memory, &home, &format!("call {call}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_commit_gives_a_whole_snapshot_or_none() {
    let home = Home::new();
    for kind in [Kind::Put, Kind::Head] {
        for (name, wait) in [("short", 50), ("long", 30_000)] {
            let memory = memory();
            fresh_in(&memory).await;
            let cancel = CancellationToken::new();
            let token = cancel.clone();
            let hook = Hook::once(
                ticking(&memory),
                move |call, key| call == kind && key.starts_with("snapshots/"),
                move || {
                    token.cancel();
                    tokio::time::sleep(Duration::from_millis(wait)).boxed()
                },
            );
            let repository = reopen(Arc::new(hook)).await;
            let run = Run {
                progress: &Quiet,
                cancel: cancel.clone(),
            };
            let began = Instant::now();
            let ended = ops::backup::backup(&repository, &home.discover(), &options(), &run).await;
            assert!(
                cancel.is_cancelled() && began.elapsed() < PATIENCE + Duration::from_secs(3),
                "{name} {kind:?}"
            );
            let listed = keys_of(&memory, "snapshots/").len();
            match ended {
                Ok(_) => assert_eq!(listed, 1, "{name} {kind:?}: what ended well is there"),
                Err(error) => {
                    assert_eq!(listed, 0, "{name} {kind:?}: told as interrupted, and listed: {error:#}");
                    let kind = error.downcast_ref::<ops::Error>().map(|error| error.kind);
                    assert_eq!(kind, Some(ErrorKind::Interrupted));
                }
            }
            assert_eq!(verify(&reopen(ticking(&memory)).await, None).await, [], "{name} {kind:?}");
            assert_nobody_runs(&home.database).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_told_to_stop_leaves_neither_homeserver_yaml_nor_key() {
    let home = large();
    home.upload("LargeVideo00000000000001", &noise(1, 20 << 20));
    let memory = memory();
    backup(&fresh_in(&memory).await, &home).await;
    for (stage, bytes) in [("database synapse", 0), ("database synapse", 20 << 20), ("media", 0), ("media", 1)] {
        let database = home.cluster.database("restored");
        let target = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let told = Arc::new(OnceLock::new());
        let clock = Arc::clone(&told);
        let at = At::new(stage, bytes, move || {
            clock.set(Instant::now()).unwrap();
            token.cancel();
        });
        let run = Run {
            progress: &at,
            cancel: cancel.clone(),
        };
        let repository = reopen(far(&memory)).await;
        let options = restore_to(target.path(), home.cluster, &database);
        let error = restore::restore(&repository, "latest", &options, &run).await.expect_err(stage);
        let told = told.get().expect("it came to that stage");
        assert!(told.elapsed() < PATIENCE, "{stage} {bytes}: {:?}", told.elapsed());
        assert_eq!(
            error.downcast_ref::<ops::Error>().map(|error| error.kind),
            Some(ErrorKind::Interrupted),
            "{stage}: {error:#}"
        );
        let written = files(target.path());
        assert!(
            !written
                .keys()
                .any(|path| path.ends_with("homeserver.yaml") || path.ends_with("signing.key")),
            "{written:#?}"
        );
        assert_nobody_runs(&database).await;
    }
}
