//! The processes of a simulated world: what each of them does from its start to its end, with the product's own code.
//!
//! A new kind of process is a line in [`Role`], an arm in [`run`], and a place in the casts of `worlds`. A process gets a repository whose store is the
//! wire; it may end in any error, since its requests may fail. What it must never do is to tell of a success that is none: that
//! is [`Ended::Committed`] and [`Ended::Restored`], which the scheduler compares with the truth.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::homeserver::{self, Homeserver, MEMORY_BYTES};
use super::rng::Rng;
use super::truth::Truth;
use super::wire::lock;
use crate::format::{ObjectId, PackId, keys};
use crate::ops::copy::{self, Choice};
use crate::ops::prune as verb;
use crate::ops::retention::Keep;
use crate::ops::{Limits, Run, adopt, rekey as sealing};
use crate::progress::Quiet;
use crate::repo::catalog::each_listed;
use crate::repo::reader::{Reader, Wanted};
use crate::repo::sweep::{self, CompactOptions, Condemned, Why};
use crate::repo::{Repository, Result, snapshots};

/// What a process is.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// Backs up a homeserver.
    Backup(Homeserver),
    /// Reads everything of the newest snapshot.
    Restore,
    /// P0 to P8.
    Prune(Prune),
    /// C1 to C4.
    Compact(Which),
    /// Writes segments and snapshots again and moves packs, of data too or of metadata alone.
    Rekey(bool),
    /// Copies all snapshots of the source.
    Copy,
    /// Makes all late snapshots count.
    Adopt,
}

/// Before which request it is worth to stand still, and the how manyth of its kind.
pub(super) type Moment = (&'static str, usize);

impl Role {
    /// The moments at which the protocol makes one thing wait for another.
    pub(super) fn moments(&self) -> &'static [Moment] {
        match self {
            Self::Backup(_) => &[
                ("LIST index/", 1),
                ("HEAD repository.json", 1),
                ("PUT packs/", 1),
                ("PUT index/", 1),
                ("HEAD repository.json", 2),
                ("LIST condemned/", 2),
                ("LIST packs/", 2),
                ("LIST packs/ after", 2),
                ("HEAD repository.json", 3),
                ("PUT snapshots/", 1),
                ("HEAD snapshots/", 1),
            ],
            Self::Restore => &[("LIST condemned/", 1), ("GET packs/", 1), ("GET packs/", 2), ("GET packs/", 3)],
            Self::Prune(_) => &[
                ("HEAD repository.json", 1),
                ("LIST condemned/", 1),
                ("LIST snapshots/", 2),
                ("LIST index/", 1),
                ("LIST packs/", 1),
                ("GET packs/", 1),
                ("PUT packs/", 1),
                ("PUT index/", 1),
                ("PUT condemned/", 1),
                ("DELETE packs/", 1),
                ("DELETE packs/", 2),
                ("DELETE condemned/", 1),
            ],
            Self::Copy => &[
                ("LIST snapshots/", 1),
                ("LIST snapshots/", 2),
                ("LIST index/", 2),
                ("GET packs/", 1),
                ("GET packs/", 2),
                ("PUT packs/", 1),
                ("PUT index/", 1),
                ("HEAD repository.json", 1),
                ("LIST condemned/", 3),
                ("LIST packs/", 3),
                ("HEAD repository.json", 2),
                ("PUT snapshots/", 1),
                ("HEAD snapshots/", 1),
                ("PUT snapshots/", 2),
            ],
            Self::Adopt => &[
                ("LIST snapshots/", 1),
                ("HEAD repository.json", 1),
                ("LIST condemned/", 3),
                ("LIST packs/", 3),
                ("HEAD repository.json", 2),
                ("PUT snapshots/", 1),
                ("HEAD snapshots/", 1),
                ("PUT snapshots/", 2),
            ],
            Self::Rekey(_) => &[
                ("LIST snapshots/", 1),
                ("LIST index/", 2),
                ("PUT index/", 1),
                ("DELETE index/", 1),
                ("HEAD repository.json", 2),
                ("LIST condemned/", 2),
                ("LIST packs/", 2),
                ("HEAD repository.json", 3),
                ("PUT snapshots/", 1),
                ("HEAD snapshots/", 2),
                ("DELETE snapshots/", 1),
                ("PUT snapshots/", 2),
                ("PUT packs/", 1),
                ("PUT condemned/", 1),
            ],
            Self::Compact(_) => &[
                ("LIST index/", 1),
                ("LIST index/", 2),
                ("GET index/", 1),
                ("LIST packs/", 1),
                ("PUT index/", 1),
                ("DELETE index/", 1),
            ],
        }
    }
}

/// What a compaction of its own takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Small segments.
    Small,
    /// Every one without a reason, as if it had to shrink: the protocol allows that, and so should the code.
    All,
}

/// How a prune goes about it.
#[derive(Debug, Clone)]
pub(super) struct Prune {
    /// P0: of listed snapshots, and of all, so many of the newest are kept. `None`: nothing is forgotten.
    pub(super) keep: Option<usize>,
    /// It condemns some packs without reason: the protocol allows anything there, and so should the code.
    pub(super) wild: Option<Rng>,
}

/// How a process ended.
#[derive(Debug)]
#[expect(dead_code, reason = "what a process says in the end is for the log")]
pub(super) enum Ended {
    /// The backup tells that this snapshot counts.
    Committed(ObjectId),
    /// These count here now, and those cannot be read at the source.
    Copied { committed: Vec<ObjectId>, lost: Vec<ObjectId> },
    /// This snapshot was read, or why not.
    Restored(String, std::result::Result<(), String>),
    /// Whatever a prune or compaction did.
    Done(String),
    /// With an error.
    Failed(String),
}

/// From its start to its end.
pub(super) async fn run(role: Role, repository: Repository, source: Repository, truth: Arc<Mutex<Truth>>) -> Ended {
    let ended = async {
        match role {
            Role::Backup(home) => Ok(Ended::Committed(homeserver::backup(&repository, &home).await?)),
            Role::Restore => restore(&repository, &truth).await,
            Role::Prune(how) => prune(&repository, how).await,
            Role::Compact(which) => compact(&repository, which).await,
            Role::Rekey(packs) => rekey(&repository, packs).await,
            Role::Copy => copy(&source, &repository).await,
            Role::Adopt => adopt(&repository).await,
        }
    };
    ended.await.unwrap_or_else(|error| Ended::Failed(format!("{error:#}")))
}

/// R1 to R3. What to read, and in which order, is taken from the truth: lists first, then what they name, hints and all.
async fn restore(repository: &Repository, truth: &Mutex<Truth>) -> anyhow::Result<Ended> {
    let Some(loaded) = snapshots::newest(repository, None).await? else {
        return Ok(Ended::Done("nothing to restore".into()));
    };
    let key = loaded.key.key;
    let needs: Vec<Wanted> = lock(truth).snapshots.get(&key).map_or_else(Vec::new, |known| known.needs.clone());
    let reader = Reader::open(repository, MEMORY_BYTES, 2).await?;
    for window in needs.chunks(3) {
        for blob in reader.fetch(window).await? {
            let Err(error) = blob else { continue };
            // Gone: it was forgotten meanwhile. There: this is damage.
            let still = snapshots::list(repository).await?.iter().any(|one| one.key == key);
            let lost = if still { Err(error.to_string()) } else { Ok(()) };
            return Ok(Ended::Restored(key, lost));
        }
    }
    Ok(Ended::Restored(key, Ok(())))
}

/// The verb's own stages, between which the plan may go wild.
async fn prune(repository: &Repository, how: Prune) -> anyhow::Result<Ended> {
    // P0: the newest of the listed ones, and the newest of all, are kept.
    let (loaded, _) = snapshots::load_all(repository).await?;
    let keep = how.keep.unwrap_or(usize::MAX);
    let listed = loaded.iter().rev().filter(|one| !one.late).take(keep);
    let kept: BTreeSet<&String> = listed.chain(loaded.iter().rev().take(keep)).map(|one| &one.key.key).collect();
    let goes = loaded.iter().map(|one| &one.key.key).filter(|key| !kept.contains(key));
    let forgotten: BTreeSet<String> = goes.cloned().collect();
    let known = loaded.iter().map(|one| (one.key.key.clone(), one.clone())).collect();
    let options = verb::Options {
        dry_run: false,
        keep: Keep::everything(),
        yes_really: false,
        repack_bytes_max: None,
        storage_min: None,
        versions: None,
        spool_folder: PathBuf::new(),
        limits: LIMITS,
    };
    let run = nobody_looks();
    let (survey, mut plan) = verb::look(repository, &options, forgotten.clone(), known, &run).await?;
    if let Some(mut rng) = how.wild {
        let mut marked: Vec<PackId> = plan.condemn.iter().map(|pack| pack.id).collect();
        marked.extend(plan.repack.iter().map(|pack| pack.id));
        for pack in survey.packs.iter().filter(|pack| pack.usable() && !marked.contains(&pack.id)) {
            if rng.chance(500) {
                plan.condemn.push(Condemned {
                    id: pack.id,
                    bytes: 0,
                    why: Why::MostlyDead,
                    landed: None,
                });
            }
        }
    }
    let applied = verb::carry_out(repository, &forgotten, &plan, &survey, &options, &run).await?;
    let compacted = verb::compact(repository, survey, &options, &run).await?;
    Ok(Ended::Done(format!(
        "{} packs condemned, {} repacked, {} deleted, {} segments into {}",
        applied.condemned, applied.repacked, applied.deleted, compacted.merged, compacted.written
    )))
}

/// The verb, but that nothing here is sealed: the order of its requests is what matters.
async fn rekey(repository: &Repository, packs: bool) -> anyhow::Result<Ended> {
    let options = sealing::Options {
        packs,
        dry_run: false,
        spool_folder: PathBuf::new(),
        limits: LIMITS,
    };
    let report = sealing::anew(repository, &options, &nobody_looks()).await?;
    Ok(Ended::Done(format!(
        "{} snapshots and {} segments written again",
        report.snapshots.resealed, report.segments
    )))
}

async fn compact(repository: &Repository, which: Which) -> anyhow::Result<Ended> {
    let mut shrink = BTreeSet::new();
    if which == Which::All {
        each_listed(repository, keys::INDEX, |object| shrink.extend([object.key])).await?;
    }
    let options = CompactOptions {
        memory_bytes: MEMORY_BYTES,
        spool_folder: PathBuf::new(),
        segments_min: 2,
        shrink,
    };
    let compacted = sweep::compact(repository, &options).await?;
    Ok(Ended::Done(format!("{} segments into {}", compacted.merged, compacted.written)))
}

/// Bounds of the verbs.
const LIMITS: Limits = Limits {
    memory_bytes: MEMORY_BYTES,
    connections: 2,
    dump_jobs: 1,
    load_jobs: 1,
};

fn nobody_looks() -> Run<'static> {
    Run {
        progress: &Quiet,
        cancel: CancellationToken::new(),
    }
}

/// The verb itself.
async fn copy(source: &Repository, destination: &Repository) -> anyhow::Result<Ended> {
    let options = copy::Options {
        choice: Choice::All,
        dry_run: false,
        // With less, no line of an index is kept at hand.
        limits: Limits {
            memory_bytes: 128 << 20,
            ..LIMITS
        },
    };
    let report = copy::copy(source, destination, &options, &nobody_looks()).await?;
    let id = |text: &str| text.trim_start_matches("snapshot ").parse::<ObjectId>();
    let committed = report.copied.iter().map(|line| id(&line.id)).collect::<Result<_, _>>()?;
    let lost = report.problems.iter().map(|problem| id(&problem.item)).collect::<Result<_, _>>()?;
    Ok(Ended::Copied { committed, lost })
}

/// The verb itself.
async fn adopt(repository: &Repository) -> anyhow::Result<Ended> {
    let options = adopt::Options {
        limits: LIMITS,
        spool_folder: PathBuf::new(),
    };
    let report = adopt::adopt(repository, &[], &options, &nobody_looks()).await?;
    let committed = report.adopted.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let lost = Vec::new();
    Ok(Ended::Copied { committed, lost })
}
