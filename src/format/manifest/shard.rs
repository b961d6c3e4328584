//! The JSON Lines of a shard: a head line with the packs, then one line a media file.
//!
//! A file of one blob is written compactly: its `sha256` is the blob's id and `pack` its pack. Every value is checked against
//! the others when read, so that what comes out can be restored or not at all.

use serde::{Deserialize, Serialize};

use super::super::{BLOB_BYTES_MAX, BlobId, Error, ItemPath, PATH_BYTES_MAX, PackId, Result, octal, within};
use super::{EntryProblem, MediaBlob, MediaEntry, RowState, SHARD_ENTRIES_MAX, Shard};

/// What errors call it.
const SHARD: &str = "media shard";
const SHARD_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    entries: usize,
    packs: Vec<PackId>,
}

/// An entry's line as it is written.
#[derive(Serialize)]
struct LineOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<BlobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pack: Option<u32>,
    #[serde(skip_serializing_if = "<[MediaBlob]>::is_empty")]
    blobs: &'a [MediaBlob],
    #[serde(with = "octal::option", skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<&'a RowState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a EntryProblem>,
}

/// An entry's line as it is read.
#[derive(Deserialize)]
struct LineIn {
    path: Option<String>,
    path_base64: Option<String>,
    bytes: u64,
    sha256: Option<BlobId>,
    pack: Option<u32>,
    #[serde(default)]
    blobs: Vec<MediaBlob>,
    #[serde(default, with = "octal::option")]
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    owner: Option<String>,
    group: Option<String>,
    #[serde(default)]
    row: RowState,
    problem: Option<EntryProblem>,
}

/// The shard's blob. Entries must ascend by path; a shard that [`super::ShardCutter`] cut fits into a blob.
pub fn encode_shard(shard: &Shard) -> Result<Vec<u8>> {
    let invalid = |at: usize, why: &str| Error::Invalid {
        what: SHARD,
        reason: format!("line {}: {why}", at + 2),
    };
    within("entries of a media shard", shard.entries.len() as u64, SHARD_ENTRIES_MAX as u64)?;
    let mut out = Vec::with_capacity(64 * shard.packs.len() + 256 * shard.entries.len());
    let head = Head {
        version: SHARD_VERSION,
        entries: shard.entries.len(),
        packs: shard.packs.clone(),
    };
    put_line(&head, &mut out)?;
    for (at, entry) in shard.entries.iter().enumerate() {
        if let Some(why) = wrong_content(entry, shard.packs.len()) {
            return Err(invalid(at, why));
        }
        if at > 0 && shard.entries[at - 1].path >= entry.path {
            return Err(invalid(at, "paths do not ascend"));
        }
        put_line(&line_of(entry), &mut out)?;
        within("bytes of a media shard", out.len() as u64, BLOB_BYTES_MAX as u64)?;
    }
    Ok(out)
}

fn put_line<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(|error| Error::Invalid {
        what: SHARD,
        reason: error.to_string(),
    })?;
    out.push(b'\n');
    Ok(())
}

fn line_of(entry: &MediaEntry) -> LineOut<'_> {
    let (path, path_base64) = entry.path.fields();
    let compact = match entry.blobs.as_slice() {
        [blob] if Some(blob.id) == entry.sha256 => Some(blob.pack),
        _ => None,
    };
    LineOut {
        path,
        path_base64,
        bytes: entry.bytes,
        sha256: entry.sha256,
        pack: compact,
        blobs: if compact.is_some() { &[] } else { &entry.blobs },
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        owner: entry.owner.as_deref(),
        group: entry.group.as_deref(),
        row: (entry.row != RowState::default()).then_some(&entry.row),
        problem: entry.problem.as_ref(),
    }
}

/// The shard that this blob is; errors say which line is wrong.
pub fn decode_shard(data: &[u8]) -> Result<Shard> {
    within("bytes of a media shard", data.len() as u64, BLOB_BYTES_MAX as u64)?;
    let wrong = |number: usize, why: &str| Error::damaged(SHARD, format!("line {number}: {why}"));
    let mut lines = data.split_inclusive(|byte| *byte == b'\n').enumerate();
    let mut next_line = move || {
        let (at, line) = lines.next()?;
        let whole = line.strip_suffix(b"\n").ok_or_else(|| wrong(at + 1, "its end"));
        Some(whole.map(|line| (at + 1, line)))
    };
    let (_, head) = next_line().ok_or_else(|| wrong(1, "missing"))??;
    let head: Head = serde_json::from_slice(head).map_err(|error| wrong(1, &error.to_string()))?;
    if head.version != SHARD_VERSION {
        return Err(Error::Version {
            what: SHARD,
            found: head.version,
            supported: SHARD_VERSION,
        });
    }
    within("entries of a media shard", head.entries as u64, SHARD_ENTRIES_MAX as u64)?;
    let mut entries: Vec<MediaEntry> = Vec::with_capacity(head.entries);
    for _ in 0..head.entries {
        let (number, line) = next_line().ok_or_else(|| wrong(entries.len() + 2, "missing"))??;
        let line: LineIn = serde_json::from_slice(line).map_err(|error| wrong(number, &error.to_string()))?;
        let entry = entry_of(line, head.packs.len()).map_err(|why| wrong(number, why))?;
        if entries.last().is_some_and(|last| last.path >= entry.path) {
            return Err(wrong(number, "paths do not ascend"));
        }
        entries.push(entry);
    }
    if next_line().is_some() {
        return Err(wrong(head.entries + 2, "more lines than entries"));
    }
    Ok(Shard {
        packs: head.packs,
        entries,
    })
}

fn entry_of(line: LineIn, packs: usize) -> std::result::Result<MediaEntry, &'static str> {
    let mut blobs = line.blobs;
    if let Some(pack) = line.pack {
        let (Some(id), true) = (line.sha256, blobs.is_empty()) else {
            return Err("pack without sha256, or beside blobs");
        };
        let length = u32::try_from(line.bytes).map_err(|_| "bytes of a file of one blob")?;
        blobs.push(MediaBlob { id, length, pack });
    }
    let entry = MediaEntry {
        path: ItemPath::from_fields(line.path, line.path_base64)?,
        bytes: line.bytes,
        sha256: line.sha256,
        blobs,
        mode: line.mode,
        uid: line.uid,
        gid: line.gid,
        owner: line.owner,
        group: line.group,
        row: line.row,
        problem: line.problem,
    };
    wrong_content(&entry, packs).map_or(Ok(entry), Err)
}

/// What cannot be about the content of an entry.
fn wrong_content(entry: &MediaEntry, packs: usize) -> Option<&'static str> {
    let lengths = entry.blobs.iter().map(|blob| u64::from(blob.length));
    if entry.path.as_bytes().len() > PATH_BYTES_MAX {
        Some("the path is too long")
    } else if entry
        .blobs
        .iter()
        .any(|blob| blob.length == 0 || blob.length as usize > BLOB_BYTES_MAX)
    {
        Some("length of a blob")
    } else if entry.blobs.iter().any(|blob| blob.pack as usize >= packs) {
        Some("pack ordinal")
    } else if lengths.sum::<u64>() != entry.bytes {
        Some("bytes is not the sum of the blobs")
    } else if entry.sha256.is_none() && entry.bytes > 0 {
        Some("content without sha256")
    } else if matches!(entry.blobs.as_slice(), [blob] if Some(blob.id) != entry.sha256) {
        Some("sha256 is not that of the only blob")
    } else {
        None
    }
}
