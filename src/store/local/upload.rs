//! Uploads in parts, into one scratch file: each part is written at its own offset.
//!
//! All parts but the last have one length, and part 1 tells it. A part that comes before the length is known waits
//! in a file of its own and is appended when the upload is completed, so that parts may come in any order.
//! An upload lives as long as the process; what a killed one leaves is a scratch file, which is listed as an open upload.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{PartTag, Stamp, UploadId};
use super::files::{Root, Scratch, refused};

/// The uploads of this process.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<BTreeMap<String, Arc<Upload>>>);

struct Upload {
    file: File,
    scratch: Scratch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    part_bytes: Option<u64>,
    parts: BTreeMap<u32, Part>,
}

struct Part {
    bytes: u64,
    /// Where it waits, if its offset was not known yet.
    apart: Option<Scratch>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("scratch", &self.scratch.0).finish_non_exhaustive()
    }
}

impl Uploads {
    pub(super) fn create(&self, root: &Root) -> io::Result<UploadId> {
        let path = root.scratch()?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let upload = Upload {
            file,
            scratch: Scratch(path),
            state: Mutex::default(),
        };
        lock(&self.0).insert(id.clone(), Arc::new(upload));
        Ok(UploadId(id))
    }

    pub(super) fn add(&self, root: &Root, id: &UploadId, number: u32, body: &[u8]) -> io::Result<PartTag> {
        let upload = self.find(id)?;
        if number == 0 || body.is_empty() {
            return Err(refused("parts are numbered from 1 and are not empty"));
        }
        let bytes = body.len() as u64;
        let part_bytes = {
            let mut state = lock(&upload.state);
            if number == 1 {
                state.part_bytes = Some(bytes);
            }
            state.part_bytes
        };
        let apart = match part_bytes {
            Some(part_bytes) => {
                upload.file.write_all_at(body, u64::from(number - 1) * part_bytes)?;
                None
            }
            None => Some(write_apart(root.scratch()?, body)?),
        };
        lock(&upload.state).parts.insert(number, Part { bytes, apart });
        Ok(PartTag {
            number,
            etag: format!("{number}-{bytes}"),
            checksum: None,
        })
    }

    pub(super) fn complete(&self, root: &Root, id: &UploadId, key: &str, wanted: &[PartTag], object_bytes: u64) -> io::Result<Stamp> {
        let Ok(upload) = self.find(id) else {
            // Unknown outcome of an earlier try is settled by looking (rule G1).
            return match root.head(key) {
                Ok(head) if head.bytes == object_bytes => root.stamp(),
                _ => Err(refused("the upload is not there (completed or aborted)")),
            };
        };
        upload.gather(wanted, object_bytes)?;
        upload.file.sync_all()?;
        root.place(&upload.scratch.0, key)?;
        lock(&self.0).remove(&id.0);
        root.stamp()
    }

    pub(super) fn abort(&self, root: &Root, id: &UploadId) -> io::Result<()> {
        // A part that is being written holds the file open; the name goes when the last of them lets go.
        match lock(&self.0).remove(&id.0) {
            Some(ours) => drop(ours),
            None => root.remove_scratch(&id.0)?,
        }
        Ok(())
    }

    fn find(&self, id: &UploadId) -> io::Result<Arc<Upload>> {
        lock(&self.0)
            .get(&id.0)
            .cloned()
            .ok_or_else(|| refused("the upload is not there (completed or aborted)"))
    }
}

impl Upload {
    /// Check that exactly the wanted parts are there, and bring those that waited apart to their place.
    fn gather(&self, wanted: &[PartTag], object_bytes: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let part_bytes = state.part_bytes.ok_or_else(|| refused("part 1 is missing"))?;
        let last = wanted.len();
        let mut offset = 0;
        for (at, tag) in wanted.iter().enumerate() {
            let part = state.parts.get_mut(&tag.number).ok_or_else(|| refused("a part is missing"))?;
            let is_last = at + 1 == last;
            let length_fits = part.bytes == part_bytes || (is_last && part.bytes < part_bytes);
            if tag.number as usize != at + 1 || tag.etag != format!("{}-{}", tag.number, part.bytes) || !length_fits {
                return Err(refused(
                    "the parts are not those that were sent: from 1, in order, all but the last of one length",
                ));
            }
            if let Some(apart) = part.apart.take() {
                let bytes = std::fs::read(&apart.0)?;
                self.file.write_all_at(&bytes, offset)?;
            }
            offset += part.bytes;
        }
        if offset == 0 || offset != object_bytes {
            return Err(refused("the parts do not add up to the object's length"));
        }
        // Parts that were sent but are not wanted do not belong to the object.
        self.file.set_len(object_bytes)
    }
}

fn write_apart(path: PathBuf, body: &[u8]) -> io::Result<Scratch> {
    let scratch = Scratch(path);
    let file = OpenOptions::new().write(true).create_new(true).open(&scratch.0)?;
    file.write_all_at(body, 0)?;
    Ok(scratch)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
