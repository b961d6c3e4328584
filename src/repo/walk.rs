//! Every blob that snapshots need, each told of once or a little more often: dump streams, config items, shards and their
//! files, and the list blobs on the way to them.
//!
//! Snapshots share most of their lists, and a list blob that was seen is not read again; so a walk over many snapshots costs little
//! more than one over the newest. What was seen is forgotten when it grows too large, which costs reads, never a blob.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::reader::{Reader, Wanted};
use super::{Error, Result};
use crate::format::list::{List, decode_list};
use crate::format::manifest::{decode_shard, decode_shard_ref};
use crate::format::snapshot::Snapshot;
use crate::format::{self, BlobId};

/// List blobs that are read together at most: so many, and so many raw bytes.
const BLOBS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 4 << 20;
/// Bytes that one remembered list blob takes, with the set's slack.
const SEEN_BYTES: u64 = 80;

/// Several need it: everything below has been told of for each of the first two.
const SEVERAL: u32 = u32::MAX;

/// What a blob is to the snapshot that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    /// Content, or a list whose entries are of depth n - 1 for n above 0.
    List(u8),
    /// The same of a shard list, whose content names shards.
    Shards(u8),
    /// Its files' blobs are named in it.
    Shard,
}

/// A blob on the way.
#[derive(Debug, Clone, Copy)]
struct Node {
    role: Role,
    wanted: Wanted,
}

/// Somebody to tell of each blob.
pub trait Sink: Send {
    /// This blob is needed; so many bytes it has.
    fn blob(&mut self, id: &BlobId, raw_length: u32) -> Result<()>;
    /// This list or shard is needed and cannot be read, so nobody knows what it names.
    fn unreadable(&mut self, id: &BlobId, error: Error) -> Result<()>;
}

/// A walk over any number of snapshots.
#[derive(Debug)]
pub struct Walk {
    /// What was followed, and for whom.
    seen: HashMap<(Role, BlobId), u32>,
    owner: u32,
    seen_max: usize,
    waiting: Vec<Node>,
}

impl Walk {
    /// So many bytes for remembering what was seen.
    pub fn new(seen_bytes: u64) -> Self {
        Self {
            seen: HashMap::new(),
            owner: 0,
            seen_max: usize::try_from(seen_bytes / SEEN_BYTES).unwrap_or(usize::MAX).max(1024),
            waiting: Vec::new(),
        }
    }

    /// From here on blobs are needed for another one's sake: a list that was followed for the first is followed once more for
    /// the second, and then never again. Whoever wants to know only what is needed at all never calls this.
    pub fn belong_to(&mut self, owner: u32) {
        self.owner = owner;
    }

    /// What the document itself names. Nothing is read: that is [`Walk::finish`]'s.
    pub fn begin(&mut self, snapshot: &Snapshot, sink: &mut dyn Sink) -> Result<()> {
        let streams = snapshot.databases.iter().flat_map(|database| &database.streams);
        let lists = streams
            .map(|stream| &stream.list)
            .chain(snapshot.config.iter().map(|item| &item.list));
        for list in lists {
            self.root(list, Role::List, sink)?;
        }
        if let Some(media) = &snapshot.media {
            self.root(&media.shards, Role::Shards, sink)?;
        }
        Ok(())
    }

    fn root(&mut self, list: &List, role: impl Fn(u8) -> Role, sink: &mut dyn Sink) -> Result<()> {
        for entry in &list.entries {
            let (role, wanted) = (role(list.depth), Wanted::from(entry));
            self.visit(Node { role, wanted }, sink)?;
        }
        Ok(())
    }

    fn visit(&mut self, node: Node, sink: &mut dyn Sink) -> Result<()> {
        sink.blob(&node.wanted.id, node.wanted.length)?;
        if node.role == Role::List(0) {
            return Ok(());
        }
        if self.seen.len() >= self.seen_max {
            self.seen.clear();
        }
        let owner = self.seen.entry((node.role, node.wanted.id));
        match owner {
            Entry::Vacant(owner) => {
                owner.insert(self.owner);
            }
            Entry::Occupied(mut owner) if *owner.get() != self.owner && *owner.get() != SEVERAL => {
                owner.insert(SEVERAL);
            }
            Entry::Occupied(_) => return Ok(()),
        }
        self.waiting.push(node);
        Ok(())
    }

    /// Read every list and shard that is waiting, and tell of what they name.
    pub async fn finish(&mut self, reader: &Reader, sink: &mut dyn Sink) -> Result<()> {
        while !self.waiting.is_empty() {
            let nodes = self.next_nodes();
            let wanted: Vec<Wanted> = nodes.iter().map(|node| node.wanted).collect();
            for (node, bytes) in nodes.iter().zip(reader.fetch(&wanted).await?) {
                let expanded = bytes.and_then(|bytes| expand(node, &bytes));
                match expanded {
                    Ok(children) => {
                        for child in children {
                            self.visit(child, sink)?;
                        }
                    }
                    Err(error @ (Error::Lost { .. } | Error::Damaged { .. })) => sink.unreadable(&node.wanted.id, error)?,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The last ones first: so the number of those that wait stays small.
    fn next_nodes(&mut self) -> Vec<Node> {
        let (mut nodes, mut bytes) = (Vec::new(), 0);
        while let Some(node) = self.waiting.last()
            && nodes.len() < BLOBS_AT_ONCE
            && (nodes.is_empty() || bytes + u64::from(node.wanted.length) <= BYTES_AT_ONCE)
        {
            bytes += u64::from(node.wanted.length);
            nodes.extend(self.waiting.pop());
        }
        nodes
    }
}

/// What a list or shard names.
fn expand(node: &Node, bytes: &[u8]) -> Result<Vec<Node>> {
    let damaged = |source: format::Error| Error::damaged(&format!("list {}", node.wanted.id), source);
    let list = |role: Role| {
        let entries = decode_list(bytes).map_err(damaged)?;
        let nodes = entries.iter().map(|entry| Node {
            role,
            wanted: Wanted::from(entry),
        });
        Ok(nodes.collect())
    };
    match node.role {
        Role::List(0) => Ok(Vec::new()),
        Role::List(depth) => list(Role::List(depth - 1)),
        Role::Shards(0) => shards(bytes).map_err(damaged),
        Role::Shards(depth) => list(Role::Shards(depth - 1)),
        Role::Shard => files(bytes).map_err(damaged),
    }
}

fn shards(bytes: &[u8]) -> format::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let shard = decode_shard_ref(line, number)?;
        let wanted = Wanted {
            id: shard.blob,
            length: shard.length,
            hint: Some(shard.pack),
        };
        nodes.push(Node { role: Role::Shard, wanted });
    }
    Ok(nodes)
}

fn files(bytes: &[u8]) -> format::Result<Vec<Node>> {
    let shard = decode_shard(bytes)?;
    let blobs = shard.entries.iter().flat_map(|entry| &entry.blobs);
    let nodes = blobs.map(|blob| Node {
        role: Role::List(0),
        wanted: Wanted {
            id: blob.id,
            length: blob.length,
            hint: shard.packs.get(blob.pack as usize).copied(),
        },
    });
    Ok(nodes.collect())
}
