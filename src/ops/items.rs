//! Items by name: how they are called, and walking those of a snapshot in order.
//!
//! `config/<absolute path without the leading slash>`, `database/<name>/<stream>`, `media/<path inside the store>`.
//! Names are text for people and scripts; what restores works on the documents themselves.

use anyhow::Context;
use bytes::Bytes;
use futures::stream::StreamExt;

use super::{Error, Run};
use crate::format::ItemPath;
use crate::format::list::List;
use crate::format::manifest::{MediaEntry, Shard, ShardRef, decode_shard, decode_shard_ref};
use crate::format::snapshot::{ConfigItem, ConfigKind, Media, Problem, ProblemKind, Snapshot};
use crate::repo;
use crate::repo::reader::{Reader, Wanted};

/// Shards that are fetched together while walking.
const SHARDS_AT_ONCE: usize = 64;

/// `config/etc/matrix-synapse/homeserver.yaml`.
pub(crate) fn config_name(item: &ConfigItem) -> String {
    let path = item.path.to_string();
    format!("config/{}", path.strip_prefix('/').unwrap_or(&path))
}

/// `media/local_content/…`.
pub(crate) fn media_name(path: &ItemPath) -> String {
    format!("media/{path}")
}

/// The state, in the counts of a snapshot's media, of rows whose media were deleted between the dump and the look at
/// their files: the dump has them all the same.
pub(crate) const DELETED: &str = "deleted";

/// A shard and what it holds; or that it is lost.
pub(crate) struct WalkedShard {
    pub(crate) shard: ShardRef,
    pub(crate) entries: Result<Shard, repo::Error>,
    /// As it is stored; nothing where it is lost.
    pub(crate) bytes: Bytes,
}

/// The shards of a snapshot's media whose paths may begin with `prefix`, in order, `each` told of one after the other.
///
/// A shard that is lost is given as its error; a shard list that is lost ends the walk.
pub(crate) async fn walk_media(
    reader: &Reader,
    media: &Media,
    prefix: &[u8],
    run: &Run<'_>,
    mut each: impl AsyncFnMut(WalkedShard) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut windows = std::pin::pin!(reader.windows(&media.shards));
    let mut waiting: Vec<ShardRef> = Vec::new();
    let mut lines = 0;
    while let Some(window) = windows.next().await {
        for (_, blob) in window.context("read the media list")? {
            for line in blob.context("read the media list")?.split_inclusive(|byte| *byte == b'\n') {
                lines += 1;
                waiting.push(decode_shard_ref(line, lines).context("read the media list")?);
            }
        }
        // The last one is held back: only the next one's first path tells how far it reaches.
        while waiting.len() > SHARDS_AT_ONCE {
            stop_if_cancelled(run)?;
            let next = waiting[SHARDS_AT_ONCE].first.clone();
            let shards = waiting.drain(..SHARDS_AT_ONCE).collect();
            walk_shards(reader, shards, Some(&next), prefix, &mut each).await?;
        }
    }
    walk_shards(reader, waiting, None, prefix, &mut each).await
}

async fn walk_shards(
    reader: &Reader,
    shards: Vec<ShardRef>,
    next: Option<&ItemPath>,
    prefix: &[u8],
    each: &mut impl AsyncFnMut(WalkedShard) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ends: Vec<Option<ItemPath>> = shards
        .iter()
        .skip(1)
        .map(|shard| Some(shard.first.clone()))
        .chain([next.cloned()])
        .collect();
    let chosen: Vec<ShardRef> = shards
        .into_iter()
        .zip(ends)
        .filter(|(shard, end)| may_hold(shard, end.as_ref(), prefix))
        .map(|(shard, _)| shard)
        .collect();
    let wanted: Vec<Wanted> = chosen
        .iter()
        .map(|shard| Wanted {
            id: shard.blob,
            length: shard.length,
            hint: Some(shard.pack),
        })
        .collect();
    for (shard, blob) in chosen.into_iter().zip(reader.fetch(&wanted).await?) {
        let bytes = blob.as_ref().map(Bytes::clone).unwrap_or_default();
        let entries = blob.and_then(|bytes| {
            decode_shard(&bytes).map_err(|source| repo::Error::Damaged {
                key: format!("shard {}", shard.blob),
                source,
            })
        });
        each(WalkedShard { shard, entries, bytes }).await?;
    }
    Ok(())
}

/// Can a path that begins with `prefix` lie between a shard's first path and the next one's?
fn may_hold(shard: &ShardRef, end: Option<&ItemPath>, prefix: &[u8]) -> bool {
    let first = shard.first.as_bytes();
    let starts_after = first > prefix && !first.starts_with(prefix);
    let ends_before = end.is_some_and(|end| end.as_bytes() <= prefix);
    !starts_after && !ends_before
}

/// The problem of a shard that is lost, in terms of what is lost with it.
pub(crate) fn lost_shard(shard: &ShardRef, error: &repo::Error) -> Problem {
    Problem {
        kind: ProblemKind::Damaged,
        item: media_name(&shard.first),
        message: format!("the list of {} media files from here on is lost: {error}", shard.count),
    }
}

/// What a name means in a snapshot.
pub(crate) enum Found<'a> {
    /// A stream or config item.
    List(&'a List),
    /// A media file and its blobs.
    Media(Box<MediaEntry>, Vec<Wanted>),
}

/// The blobs of an entry, with the packs that its shard names as hints.
pub(crate) fn wanted(shard: &Shard, entry: &MediaEntry) -> Vec<Wanted> {
    let hint = |ordinal: u32| shard.packs.get(ordinal as usize).copied();
    entry
        .blobs
        .iter()
        .map(|blob| Wanted {
            id: blob.id,
            length: blob.length,
            hint: hint(blob.pack),
        })
        .collect()
}

/// The item with this name; `mxc://server/media_id` is the original of that medium.
pub(crate) async fn find<'a>(reader: &Reader, snapshot: &'a Snapshot, name: &str, run: &Run<'_>) -> anyhow::Result<Found<'a>> {
    let name = match name.strip_prefix("mxc://") {
        Some(mxc) => mxc_name(snapshot, mxc)?,
        None => name.to_owned(),
    };
    if let Some(item) = snapshot.config.iter().find(|item| config_name(item) == name) {
        return config_bytes(item).map(Found::List);
    }
    for database in &snapshot.databases {
        for stream in &database.streams {
            if format!("database/{}/{}", database.name, stream.name) == name {
                return Ok(Found::List(&stream.list));
            }
        }
    }
    if let (Some(path), Some(media)) = (name.strip_prefix("media/"), &snapshot.media)
        && let Some((entry, wanted)) = find_media(reader, media, path, run).await?
    {
        return Ok(Found::Media(Box::new(entry), wanted));
    }
    let hint = "`synapse-backup ls SNAPSHOT [PREFIX]` lists the items";
    Err(Error::failed(format!("no item `{}` in snapshot {}", name.escape_debug(), snapshot.id), hint).into())
}

/// A link, a folder, and a file that could not be read have no bytes; an empty file has none either, and is fine.
fn config_bytes(item: &ConfigItem) -> anyhow::Result<&List> {
    let shown = |path: &ItemPath| path.to_string().escape_debug().to_string();
    let (message, hint) = match (item.kind, &item.target) {
        (ConfigKind::File, _) if item.sha256.is_some() => return Ok(&item.list),
        (ConfigKind::File, _) => (
            format!("{} was not saved", shown(&item.path)),
            "`show --problems` says why; an older snapshot may have it",
        ),
        (ConfigKind::Symlink, Some(target)) => (
            format!("{} is a link to {}", shown(&item.path), shown(target)),
            "ask for what it leads to; `ls` lists the items that have bytes",
        ),
        _ => (format!("{} is no file", shown(&item.path)), "`ls` lists the items that have bytes"),
    };
    Err(Error::failed(message, hint).into())
}

async fn find_media(reader: &Reader, media: &Media, path: &str, run: &Run<'_>) -> anyhow::Result<Option<(MediaEntry, Vec<Wanted>)>> {
    let mut found = None;
    walk_media(reader, media, path.as_bytes(), run, async |walked| {
        let shard = walked.entries?;
        if let Some(entry) = shard.entries.iter().find(|entry| entry.path.as_bytes() == path.as_bytes()) {
            found = Some((entry.clone(), wanted(&shard, entry)));
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// A path in the media store: as it is, as the name of an item, or as the address of a medium of this homeserver.
pub(crate) fn media_path(snapshot: &Snapshot, text: &str) -> anyhow::Result<String> {
    let name = match text.strip_prefix("mxc://") {
        Some(mxc) => mxc_name(snapshot, mxc)?,
        None => text.to_owned(),
    };
    Ok(name.strip_prefix("media/").unwrap_or(&name).to_owned())
}

/// `media/local_content/aa/bb/rest` of a local media id (Synapse's `filepath.py`).
fn mxc_name(snapshot: &Snapshot, mxc: &str) -> anyhow::Result<String> {
    let (server, id) = mxc.split_once('/').unwrap_or((mxc, ""));
    if server != snapshot.server_name {
        let hint = "media of other servers are kept under names of Synapse's own: look under `media/remote_content/` with `ls`";
        return Err(Error::failed(format!("mxc://{server}/… is not a medium of {}", snapshot.server_name), hint).into());
    }
    if id.len() < 5 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        return Err(Error::failed(
            format!("`{}` is not a media id", id.escape_debug()),
            "it looks like mxc://server/AbCdEf…",
        )
        .into());
    }
    Ok(format!("media/local_content/{}/{}/{}", &id[..2], &id[2..4], &id[4..]))
}

/// The point at which a long walk notices Ctrl-C.
pub(crate) fn stop_if_cancelled(run: &Run<'_>) -> anyhow::Result<()> {
    if run.cancel.is_cancelled() {
        Err(Error::interrupted().into())
    } else {
        Ok(())
    }
}
