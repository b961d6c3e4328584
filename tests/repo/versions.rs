//! Old versions that a store does not delete: what it holds is told apart from what failed, and a store in trouble is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use synapse_backup::format::snapshot::ProblemKind;
use synapse_backup::format::{PackId, keys};
use synapse_backup::ops;
use synapse_backup::store::versions::{ObjectLock, Retention, Version, VersionMark, VersionPage, Versions};
use synapse_backup::store::{ByteRange, Call, Error, Got, Stamp};

use crate::hook::Hook;
use crate::rig::{init, memory, run};

/// Two pages of so many deleted packs each.
const PACKS_ON_A_PAGE: u8 = 5;

/// What the store does with the deletion of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Delete,
    Hold,
    Fail,
}

/// Deleted packs. Their deletions are answered in turn; the last answer is that to all others.
#[derive(Debug)]
struct Old {
    answers: &'static [Does],
    asked: AtomicUsize,
}

fn now<T: Send + 'static>(answer: T) -> Call<'static, T> {
    Box::pin(async { Ok(answer) })
}

impl Versions for Old {
    fn object_lock(&self) -> Option<ObjectLock> {
        None
    }

    fn list_versions<'a>(&'a self, _: &'a str, after: Option<&'a VersionMark>) -> Call<'a, VersionPage> {
        let first = if after.is_some() { PACKS_ON_A_PAGE } else { 0 };
        let mut versions = Vec::new();
        for number in first..first + PACKS_ON_A_PAGE {
            let key = keys::pack(PackId::from_bytes([number; 16]));
            versions.extend([None, Some(10)].map(|bytes| Version {
                key: key.clone(),
                id: format!("{number} {bytes:?}"),
                is_latest: bytes.is_none(),
                last_modified: Timestamp::UNIX_EPOCH,
                bytes,
            }));
        }
        let next = after.is_none().then(|| VersionMark {
            key: String::new(),
            version: None,
        });
        let date = Timestamp::UNIX_EPOCH;
        now(VersionPage { versions, next, date })
    }

    fn get_version<'a>(&'a self, key: &'a str, _: &'a str, _: ByteRange) -> Call<'a, Got> {
        Box::pin(async { Err(Error::NotFound { key: key.to_owned() }) })
    }

    fn delete_version<'a>(&'a self, key: &'a str, _: &'a str) -> Call<'a, Stamp> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let (url, action, key) = ("s3://bucket".to_owned(), "DELETE", key.to_owned());
        let answer = match self.answers[turn] {
            Does::Delete => Ok(Stamp {
                date: Timestamp::UNIX_EPOCH,
            }),
            Does::Hold => Err(Error::Denied { url, action, key }),
            Does::Fail => {
                let source = "HTTP 503".into();
                Err(Error::Failed { action, key, source })
            }
        };
        Box::pin(async { answer })
    }

    fn retention<'a>(&'a self, _: &'a str) -> Call<'a, Option<Retention>> {
        now(None)
    }

    fn extend<'a>(&'a self, _: &'a str, _: Retention) -> Call<'a, Stamp> {
        now(Stamp {
            date: Timestamp::UNIX_EPOCH,
        })
    }
}

/// Deletions that were asked for, and what a prune tells.
async fn prune(answers: &'static [Does]) -> (usize, ops::prune::Report) {
    let asked = AtomicUsize::new(0);
    let old = Arc::new(Old { answers, asked });
    let store = Hook::new(memory(), |_, _| {}).with_versions(Arc::<Old>::clone(&old));
    let repository = init(Arc::new(store)).await;
    let options = ops::prune::Options {
        versions: Some(SignedDuration::ZERO),
        limits: ops::Limits {
            connections: 1,
            ..crate::rig::LIMITS
        },
        ..crate::sweep::prune_options()
    };
    let report = ops::prune::prune(&repository, &options, &run()).await.unwrap();
    (old.asked.load(Ordering::SeqCst), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_holds_is_no_failure_and_what_failed_is_not_held() {
    use Does::{Delete, Fail, Hold};
    // Deletions asked for; versions gone, held and failed.
    let cases: [(&[Does], usize, [u64; 3]); 4] = [
        (&[Delete], 20, [20, 0, 0]),
        // The marker of an object that stays is not touched.
        (&[Hold], 10, [0, 10, 0]),
        (&[Fail, Hold, Fail, Fail, Hold, Fail, Fail, Delete], 13, [6, 2, 5]),
        (&[Hold, Delete, Fail, Fail, Delete], 17, [14, 1, 2]),
    ];
    for (answers, asked, [gone, held, failed]) in cases {
        let (deletions, report) = prune(answers).await;
        let cleared = report.versions.unwrap();
        assert_eq!(
            (deletions, cleared.versions, cleared.held, cleared.failed, cleared.given_up),
            (asked, gone, held, failed, false),
            "{answers:?}"
        );
        let problems: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(problems.len(), usize::from(failed > 0), "{problems:?}");
        assert!(problems.iter().all(|message| message.contains("HTTP 503")), "{problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_again_and_again_is_not_asked_for_the_rest() {
    use Does::{Delete, Fail};
    let (deletions, report) = prune(&[Delete, Fail]).await;
    let cleared = report.versions.unwrap();
    assert_eq!((deletions, cleared.versions, cleared.held, cleared.failed), (4, 1, 0, 3));
    assert!(cleared.given_up);
    let [problem] = report.problems.as_slice() else {
        panic!("{:?}", report.problems)
    };
    let first = keys::pack(PackId::from_bytes([1; 16]));
    assert_eq!((problem.kind, &problem.item), (ProblemKind::Deferred, &first));
    assert!(problem.message.contains("not asked for"), "{}", problem.message);
}
