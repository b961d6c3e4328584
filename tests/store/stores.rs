//! The stores that keep the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use synapse_backup::store::counters::Counters;
use synapse_backup::store::memory::{Clock, Memory};
use synapse_backup::store::s3::{Provider, S3Options};
use synapse_backup::store::wrappers::{Fail, Fault, Latency, Limit, Record};
use synapse_backup::store::{Store, local, s3};
use tempfile::TempDir;

use crate::support::minio;

/// A store, and what must live as long.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    _directory: Option<TempDir>,
}

impl Fixture {
    fn of(store: Arc<dyn Store>) -> Self {
        Self { store, _directory: None }
    }
}

pub fn in_memory() -> Arc<dyn Store> {
    Arc::new(Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH)))
}

async fn directory() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = local::open(&directory.path().join("new/store"), true, Arc::new(Counters::default()))
        .await
        .unwrap();
    Fixture {
        store,
        _directory: Some(directory),
    }
}

/// Settings for a fresh prefix of the shared server.
pub async fn minio_options() -> S3Options {
    static PREFIXES: AtomicU32 = AtomicU32::new(0);
    let minio = minio::shared();
    minio.create_bucket("contract").await;
    let prefix = format!("test {}/matrix+home", PREFIXES.fetch_add(1, Ordering::Relaxed));
    S3Options {
        prefix,
        ..minio.options("contract")
    }
}

async fn minio_with(provider: Provider) -> Fixture {
    let options = S3Options {
        provider: Some(provider),
        ..minio_options().await
    };
    Fixture::of(s3::open(options, Arc::new(Counters::default())).await.unwrap())
}

keeps_the_contract!(in_memory_only, async { super::Fixture::of(super::in_memory()) });
keeps_the_contract!(in_a_directory, super::directory());
keeps_the_contract!(s3_with_crc32c, super::minio_with(super::Provider::Minio));
keeps_the_contract!(s3_with_crc64nvme, super::minio_with(super::Provider::Aws));
keeps_the_contract!(s3_with_md5, super::minio_with(super::Provider::Wasabi));
keeps_the_contract!(recorded, async {
    super::Fixture::of(std::sync::Arc::new(super::Record::new(super::in_memory())))
});
keeps_the_contract!(limited, async {
    super::Fixture::of(std::sync::Arc::new(super::Limit::new(super::in_memory(), 2)))
});
keeps_the_contract!(slow, async {
    let slow = super::Latency::new(super::in_memory(), super::Duration::from_micros(100)).with_bytes_per_second(u32::MAX);
    super::Fixture::of(std::sync::Arc::new(slow))
});
keeps_the_contract!(never_failing, async {
    super::Fixture::of(std::sync::Arc::new(super::Fail::new(
        super::in_memory(),
        u64::MAX,
        super::Fault::Before,
    )))
});
keeps_the_contract!(all_wrapped, async {
    let slow = std::sync::Arc::new(super::Latency::new(super::in_memory(), super::Duration::ZERO));
    let failing = std::sync::Arc::new(super::Fail::new(slow, u64::MAX, super::Fault::AfterAndEver));
    let limited = std::sync::Arc::new(super::Limit::new(failing, 8));
    super::Fixture::of(std::sync::Arc::new(super::Record::new(limited)))
});
