//! Reading snapshots: which there are, which count (G4), and which one a name means (R1).
//!
//! A late snapshot is never `latest` and never given unless it was asked for. One that is damaged is passed over where
//! the newest is looked for, and named where all are listed.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::catalog::each_listed;
use super::{Error, Repository, Result};
use crate::format::snapshot::{self, Snapshot};
use crate::format::writer_key::Signature;
use crate::format::{ObjectId, keys};
use crate::store::{self, ByteRange, Listed};

/// Snapshots that are fetched at once.
const SNAPSHOTS_AT_ONCE: usize = 8;
/// A `time` so much after Last-Modified is not believed.
const TIME_AHEAD_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A snapshot as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    /// Its key.
    pub key: String,
    /// Its id, from the key.
    pub id: ObjectId,
    /// When it landed, by the store's clock.
    pub last_modified: Timestamp,
}

/// A snapshot that was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Where.
    pub key: SnapshotKey,
    /// The document.
    pub snapshot: Snapshot,
    /// Its tags: those of the document, until those that were set later are laid over them.
    pub tags: Vec<String>,
    /// It landed after its `not_after`: it does not count (G4).
    pub late: bool,
    /// Who claims to have signed it, for which repository.
    pub signatures: Vec<Signature>,
}

impl Loaded {
    /// The time by which `latest` and retention go.
    pub fn time(&self) -> Timestamp {
        effective_time(self.snapshot.time, self.key.last_modified)
    }
}

/// The document's time, or Last-Modified where the document claims to be more than an hour younger than its object.
pub fn effective_time(time: Timestamp, last_modified: Timestamp) -> Timestamp {
    if time.duration_since(last_modified) > TIME_AHEAD_MAX {
        last_modified
    } else {
        time
    }
}

/// The keys of all snapshots, in key order (which is the order of their times).
pub async fn list(repository: &Repository) -> Result<Vec<SnapshotKey>> {
    let mut found = Vec::new();
    each_listed(repository, keys::SNAPSHOTS, |Listed { key, last_modified, .. }| {
        if let Some((_, id)) = keys::parse_snapshot(&key) {
            found.push(SnapshotKey { key, id, last_modified });
        }
    })
    .await?;
    Ok(found)
}

/// Read one. `None`: it was forgotten meanwhile.
pub async fn load(repository: &Repository, key: &SnapshotKey) -> Result<Option<Loaded>> {
    Ok(load_object(repository, key).await?.map(|(loaded, _)| loaded))
}

/// The same, with the object as it is, for who writes it again.
pub async fn load_object(repository: &Repository, key: &SnapshotKey) -> Result<Option<(Loaded, Bytes)>> {
    let got = match repository
        .store
        .get(&key.key, ByteRange::AtMost(snapshot::OBJECT_BYTES_MAX as u64))
        .await
    {
        Ok(got) => got,
        Err(store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (snapshot, signed) = snapshot::decode_named(&key.key, &got.bytes).map_err(|source| Error::damaged(&key.key, source))?;
    let late = got.last_modified > signed.not_after;
    let key = SnapshotKey {
        last_modified: got.last_modified,
        ..key.clone()
    };
    let loaded = Loaded {
        key,
        tags: snapshot.tags.clone(),
        snapshot,
        late,
        signatures: signed.signatures,
    };
    Ok(Some((loaded, got.bytes)))
}

/// Read all; those that cannot be read stand beside, with what is wrong.
pub async fn load_all(repository: &Repository) -> Result<(Vec<Loaded>, Vec<(SnapshotKey, Error)>)> {
    let found = list(repository).await?;
    let mut loads = stream::iter(found)
        .map(|key| async move {
            match load(repository, &key).await {
                Ok(loaded) => Ok(loaded.map(Ok)),
                Err(error @ (Error::Damaged { .. } | Error::NoKey { .. })) => Ok(Some(Err((key, error)))),
                Err(error) => Err(error),
            }
        })
        .buffered(SNAPSHOTS_AT_ONCE);
    let (mut loaded, mut damaged) = (Vec::new(), Vec::new());
    while let Some(one) = loads.try_next().await? {
        match one {
            Some(Ok(snapshot)) => loaded.push(snapshot),
            Some(Err(error)) => damaged.push(error),
            None => {}
        }
    }
    // One that was sealed to others is foreign; where nothing opens at all, the key is missing.
    if loaded.is_empty()
        && let Some(at) = damaged.iter().position(|(_, error)| matches!(error, Error::NoKey { .. }))
    {
        return Err(damaged.swap_remove(at).1);
    }
    loaded.sort_by_key(|one| (one.time(), one.key.last_modified));
    Ok((loaded, damaged))
}

/// One for each snapshot: `adopt`, `copy` and `rekey` write a snapshot again under a new key. Of those that count one that is
/// authentic is taken, and of these the first.
///
/// For who shows or chooses. Who deletes a snapshot deletes every object of it, and needs all of [`load_all`].
pub fn unique(repository: &Repository, loaded: Vec<Loaded>) -> Vec<Loaded> {
    let rank = |one: &Loaded| {
        (
            one.late,
            repository.doubt(one).is_some(),
            one.key.last_modified,
            one.key.key.clone(),
        )
    };
    let mut best: HashMap<ObjectId, usize> = HashMap::new();
    for (at, one) in loaded.iter().enumerate() {
        let kept = best.entry(one.snapshot.id).or_insert(at);
        if *kept != at && rank(one) < rank(&loaded[*kept]) {
            *kept = at;
        }
    }
    let kept: HashSet<usize> = best.into_values().collect();
    let numbered = loaded.into_iter().enumerate();
    numbered.filter(|(at, _)| kept.contains(at)).map(|(_, one)| one).collect()
}

/// The newest snapshot that counts, of this homeserver when one is named. Damaged ones are passed over.
pub async fn newest(repository: &Repository, server_name: Option<&str>) -> Result<Option<Loaded>> {
    let [newest] = walk_back(repository, Found::new(server_name, [&|_| true])).await?;
    Ok(newest.map(Arc::unwrap_or_clone))
}

/// What a snapshot that is looked for must have.
pub type Wish<'a> = &'a (dyn Fn(&Snapshot) -> bool + Sync);

/// For each wish the newest snapshot that counts, is authentic and fulfils it: what a backup may build on.
pub async fn newest_that<const N: usize>(
    repository: &Repository,
    server_name: Option<&str>,
    wishes: [Wish<'_>; N],
) -> Result<[Option<Arc<Loaded>>; N]> {
    let found = Found {
        believing: Some(repository),
        ..Found::new(server_name, wishes)
    };
    walk_back(repository, found).await
}

/// Walks from the newest key back and stops as soon as no older key can hold a newer time, so one GET is usual.
async fn walk_back<const N: usize>(repository: &Repository, mut found: Found<'_, N>) -> Result<[Option<Arc<Loaded>>; N]> {
    let mut keys = list(repository).await?;
    // A key tells whole seconds: within one of them what landed last comes first.
    let newest_first = |one: &SnapshotKey| {
        (
            keys::parse_snapshot(&one.key).map(|(time, _)| time),
            one.last_modified,
            one.key.clone(),
        )
    };
    keys.sort_by_cached_key(|one| Reverse(newest_first(one)));
    for key in &keys {
        match load(repository, key).await {
            Ok(Some(loaded)) if found.concerns(&loaded) => {
                if loaded.time() != loaded.snapshot.time {
                    return newest_of_all(repository, found.anew()).await;
                }
                found.look_at(loaded);
                if found.is_complete() {
                    break;
                }
            }
            // A backup builds on what it can read. Who asks for `latest` must not get an older one without a word.
            Err(error) if error.is_of_a_later_version() && found.believing.is_none() => return Err(error),
            Ok(_) | Err(Error::Damaged { .. } | Error::NoKey { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.best)
}

/// As [`walk_back`], by reading all: for repositories in which a snapshot's time cannot be believed.
async fn newest_of_all<const N: usize>(repository: &Repository, mut found: Found<'_, N>) -> Result<[Option<Arc<Loaded>>; N]> {
    let (loaded, _) = load_all(repository).await?;
    for one in loaded.into_iter().rev() {
        if found.concerns(&one) {
            found.look_at(one);
        }
    }
    Ok(found.best)
}

/// Wishes, and what fulfils them so far.
struct Found<'a, const N: usize> {
    server_name: Option<&'a str>,
    wishes: [Wish<'a>; N],
    best: [Option<Arc<Loaded>>; N],
    /// Pass over what this repository's keys do not believe.
    believing: Option<&'a Repository>,
}

impl<'a, const N: usize> Found<'a, N> {
    fn new(server_name: Option<&'a str>, wishes: [Wish<'a>; N]) -> Self {
        let best = std::array::from_fn(|_| None);
        Self {
            server_name,
            wishes,
            best,
            believing: None,
        }
    }

    /// The same wishes, and nothing found yet.
    fn anew(&self) -> Self {
        Self {
            believing: self.believing,
            ..Self::new(self.server_name, self.wishes)
        }
    }

    fn concerns(&self, loaded: &Loaded) -> bool {
        let is_believed = self.believing.is_none_or(|repository| repository.doubt(loaded).is_none());
        !loaded.late && is_believed && self.server_name.is_none_or(|name| name == loaded.snapshot.server_name)
    }

    /// Newer ones have been looked at before.
    fn look_at(&mut self, loaded: Loaded) {
        let loaded = Arc::new(loaded);
        for (best, wish) in self.best.iter_mut().zip(self.wishes) {
            if best.is_none() && wish(&loaded.snapshot) {
                *best = Some(Arc::clone(&loaded));
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.best.iter().all(Option::is_some)
    }
}

/// The snapshot that `name` means: an id prefix, `latest` or `latest:server_name`. `late` ones only when asked for.
pub async fn find(repository: &Repository, name: &str, late: bool) -> Result<Loaded> {
    if name == "latest" || name.starts_with("latest:") {
        return find_latest(repository, name, late).await;
    }
    let hex = !name.is_empty() && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let found = if hex { list(repository).await? } else { Vec::new() };
    let mut named = found.iter().filter(|key| key.id.to_string().starts_with(name));
    let no_snapshot = |hint: &str| Error::NoSnapshot {
        name: name.to_owned(),
        url: repository.url().to_owned(),
        hint: hint.to_owned(),
    };
    let Some(first) = named.next() else {
        return Err(no_snapshot("`synapse-backup snapshots` lists them; `latest` is the newest"));
    };
    let objects: Vec<&SnapshotKey> = [first].into_iter().chain(named).collect();
    let ids: HashSet<ObjectId> = objects.iter().map(|key| key.id).collect();
    if ids.len() > 1 {
        return Err(Error::Ambiguous {
            name: name.to_owned(),
            count: ids.len(),
        });
    }
    let mut written = Vec::new();
    for key in objects {
        written.extend(load(repository, key).await?);
    }
    let loaded = unique(repository, written)
        .pop()
        .ok_or_else(|| no_snapshot("it was forgotten a moment ago"))?;
    if loaded.late && !late {
        return Err(no_snapshot(
            "it landed late and does not count; `synapse-backup adopt` makes it count, `--late` reads it as it is",
        ));
    }
    Ok(loaded)
}

async fn find_latest(repository: &Repository, name: &str, late: bool) -> Result<Loaded> {
    let server_name = name.strip_prefix("latest:");
    if let Some(loaded) = newest(repository, server_name).await? {
        // It may stand there once more, with a signature of a signer who is known.
        return match repository.doubt(&loaded) {
            Some(_) => Box::pin(find(repository, &loaded.snapshot.id.to_string(), late)).await,
            None => Ok(loaded),
        };
    }
    let (loaded, damaged) = load_all(repository).await?;
    let mut candidates = loaded.into_iter().rev();
    let newest = candidates.find(|one| server_name.is_none_or(|name| name == one.snapshot.server_name));
    let hint = match newest {
        Some(found) if late => return Ok(found),
        Some(found) => format!(
            "all snapshots are late, as after a mirroring; the newest is {}: `synapse-backup adopt --all` makes them count, `--late` reads one as it is",
            found.snapshot.id
        ),
        None if !damaged.is_empty() => "there are snapshots, but they are damaged; `synapse-backup verify` names them".to_owned(),
        None => "`synapse-backup backup` takes one; `synapse-backup snapshots` lists them".to_owned(),
    };
    Err(Error::NoSnapshot {
        name: name.to_owned(),
        url: repository.url().to_owned(),
        hint,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_time_ahead_of_its_object_is_not_believed() {
        let landed: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (time, effective) in [
            ("2025-12-31T20:00:00Z", "2025-12-31T20:00:00Z"),
            ("2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z"),
            ("2026-01-01T01:00:01Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(
                effective_time(time.parse().unwrap(), landed),
                effective.parse::<Timestamp>().unwrap()
            );
        }
    }
}
