//! A prune of two million blobs, applied: everything partly dead is moved, the index is compacted, and a grace period later what was
//! marked goes. What counts is the peak of memory as the kernel saw it, against `limits.memory` of 256 MiB.
//!
//! Blobs are some forty bytes, so that it is their number that costs. The repository is a folder; its grace period is some seconds.
//! `cargo bench --bench many_blobs [-- BLOBS]`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may panic, and tells what it measured"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use synapse_backup::format::list::ListEntry;
use synapse_backup::format::repository::RepositoryInfo;
use synapse_backup::format::snapshot::Snapshot;
use synapse_backup::format::{PackKind, keys};
use synapse_backup::repo::commit::{Relied, commit};
use synapse_backup::repo::writer::{Budget, Gatherer, ListWriter, Stored, Writer};
use synapse_backup::repo::{Ids, Repository, open};
use synapse_backup::store::counters::Counters;
use synapse_backup::store::local;

#[expect(dead_code, reason = "the fixture of the tests of the repository, of which this uses a part")]
#[path = "../tests/repo/rig.rs"]
mod rig;
#[expect(dead_code, reason = "as above")]
#[path = "../tests/support/sealing.rs"]
mod sealing;

const BLOBS: u64 = 2_000_000;
/// Runs that wrote them: each leaves a pack and a segment.
const RUNS: u64 = 100;
const MEMORY_BYTES: u64 = 256 << 20;
const GRACE_SECONDS: u64 = 3;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let blobs = numbers.next().unwrap_or(BLOBS);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    runtime.block_on(fill(folder.path(), blobs));
    println!("{blobs} blobs written by {RUNS} runs in {:.0} s", begun.elapsed().as_secs_f64());
    println!(
        "| prune | packs before | marked | moved from | deleted | segments merged | seconds | peak memory |\n|---|---|---|---|---|---|---|---|"
    );
    for name in ["dry run", "first", "a grace period later"] {
        std::thread::sleep(Duration::from_secs(GRACE_SECONDS + 1));
        prune(folder.path(), name);
    }
}

/// In every third run everything lives; of the others seven blobs in ten.
fn lives(run: u64, number: u64) -> bool {
    run.is_multiple_of(3) || number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xff < 179
}

async fn hasty(folder: &Path) -> Repository {
    let store = local::open(folder, true, Arc::new(Counters::default())).await.unwrap();
    let made = rig::init(Arc::clone(&store)).await;
    let info = RepositoryInfo {
        grace_seconds: GRACE_SECONDS,
        window_seconds: GRACE_SECONDS - 1,
        ..made.info().clone()
    };
    // A store never overwrites in a folder.
    std::fs::write(folder.join(keys::REPOSITORY), info.to_json().unwrap()).unwrap();
    open::open(store, Ids::random()).await.unwrap()
}

async fn fill(folder: &Path, blobs: u64) {
    let repository = hasty(folder).await;
    let budget = Budget::new(rig::LIMITS.memory_bytes, rig::LIMITS.connections);
    let session = || Writer::open(&repository, Arc::default(), BTreeSet::new(), &budget);
    let mut live: Vec<ListEntry> = Vec::new();
    let mut relied = BTreeSet::new();
    for run in 0..RUNS {
        let writer = session();
        let mut gatherer = Gatherer::new(&writer, PackKind::Database);
        let mut numbers = run * blobs / RUNS..(run + 1) * blobs / RUNS;
        let mut pushed = numbers.clone();
        loop {
            while let Some(entry) = gatherer.ready() {
                if lives(run, numbers.next().unwrap()) {
                    live.push(entry);
                }
            }
            match pushed.next() {
                Some(number) => gatherer
                    .push_one(rig::noise(number + 1, 32 + (number % 16) as usize))
                    .await
                    .unwrap(),
                None if numbers.is_empty() => break,
                None => gatherer.finish().await.unwrap(),
            }
        }
        relied.extend(writer.finish().await.unwrap().packs);
    }
    let writer = session();
    let mut list = ListWriter::new(&writer);
    for entry in live {
        list.push(entry).await.unwrap();
    }
    let stored = Stored {
        list: list.finish().await.unwrap(),
        read_bytes: 0,
        new_bytes: 0,
    };
    relied.extend(writer.finish().await.unwrap().packs);
    let time = repository.date().await.unwrap();
    let relied = Relied::from(relied);
    let committed = commit(&repository, &relied, |id, packs| Snapshot {
        id,
        packs: packs.iter().copied().collect(),
        ..rig::document(&repository, &stored, time)
    });
    assert!(committed.await.is_ok(), "the snapshot counts");
}

/// One prune by the program itself.
fn prune(folder: &Path, name: &str) {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_synapse-backup"));
    command
        .args(["prune", "--json", "--repository"])
        .arg(format!("file://{}", folder.display()));
    command.args((name == "dry run").then_some("--dry-run"));
    let ran = command
        .env("SYNAPSE_BACKUP_LIMITS_MEMORY", MEMORY_BYTES.to_string())
        .output()
        .unwrap();
    let out = String::from_utf8(ran.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(report["exit_code"], 0, "{report}");
    let peak = report["peak_memory_bytes"].as_u64().unwrap();
    let figure = |path: &str| report.pointer(path).map_or_else(|| "-".to_owned(), ToString::to_string);
    println!(
        "| {name} | {} | {} | {} | {} | {} | {:.0} | {} MiB |",
        figure("/totals/packs"),
        figure("/applied/condemned"),
        figure("/applied/repacked"),
        figure("/applied/deleted"),
        figure("/compacted/merged"),
        begun.elapsed().as_secs_f64(),
        peak >> 20
    );
    assert!(peak <= MEMORY_BYTES, "{peak} bytes of memory");
}
