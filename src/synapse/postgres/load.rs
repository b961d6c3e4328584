//! A load: one `pg_restore` fed from a stream, any error of which is the end of it.
//!
//! A stream of rows needs nothing but that. A dump of everything, as earlier snapshots have it, does:
//! A role that is no superuser cannot comment on extensions that somebody else made, yet every dump does so. The only
//! exact way to leave that out, and who owns `public`, is `--use-list`, and the list is in the head of the dump: so the
//! head is kept until `pg_restore --list` can read it, then given again to the real `pg_restore`, with a list that lacks
//! those lines and nothing else. The definitions alone are loaded by `archive`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::process::Stdio;

use bytes::{Buf, Bytes, BytesMut};
use tokio::process::Command;

use super::Error;
use super::archive::MemoryFile;
use super::child::Child;
use super::conninfo::ConnInfo;
use super::contents::split_contents;
use super::tools::{Tools, Version};

/// The head of a dump is tried as a whole table of contents at this size first, then at four times of it, and so on.
const HEAD_BYTES_MIN: usize = 1 << 20;
/// No table of contents is larger: this stands for hundreds of thousands of objects.
const HEAD_BYTES_MAX: usize = 64 << 20;
/// What the pipe may hold.
const PIPE_BYTES: usize = 1 << 20;

/// How to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Objects get the owners that the dump names; else they belong to our role, or to `role`.
    pub keep_owners: bool,
    /// Grants and revokes are done as in the dump.
    pub keep_privileges: bool,
    /// Act as this role (`SET ROLE`) for everything.
    pub role: Option<String>,
    /// Is our role (or `role`) a superuser? If not, comments on extensions are left out.
    pub superuser: bool,
    /// What the stream is.
    pub content: Content,
}

/// What a stream that is loaded holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Content {
    /// Definitions and rows.
    #[default]
    Everything,
    /// Rows: the definitions are there already.
    Rows,
}

impl LoadOptions {
    /// The arguments that these options are for `pg_restore`.
    pub(super) fn apply(&self, command: &mut Command) {
        command.args(["--exit-on-error", "--no-password", "--format=custom"]);
        if !self.keep_owners {
            command.arg("--no-owner");
        }
        if !self.keep_privileges {
            command.arg("--no-privileges");
        }
        if let Some(role) = &self.role {
            command.arg(format!("--role={role}"));
        }
    }
}

/// A running load. Dropping it ends its `pg_restore`; what was loaded so far stays.
#[derive(Debug)]
pub struct Load {
    info: ConnInfo,
    program: std::path::PathBuf,
    options: LoadOptions,
    stage: Stage,
    left_out: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    /// The head of the dump, until its table of contents can be read; the next try at so many bytes.
    Head { parts: Vec<Bytes>, bytes: usize, try_at: usize },
    /// `pg_restore` takes what comes.
    Streaming(Box<Child>),
}

impl Load {
    /// Get ready; `archive` is the version of the `pg_dump` that wrote the dump.
    pub fn start(info: &ConnInfo, tools: &Tools, archive: Version, options: LoadOptions) -> Result<Self, Error> {
        let program = tools.pg_restore(archive)?.path.clone();
        let head = Stage::Head {
            parts: Vec::new(),
            bytes: 0,
            try_at: HEAD_BYTES_MIN,
        };
        let mut load = Self {
            info: info.clone(),
            program,
            options,
            stage: head,
            left_out: Vec::new(),
        };
        if load.options.content == Content::Rows {
            load.stage = Stage::Streaming(Box::new(load.restore(None)?));
        }
        Ok(load)
    }

    /// The next bytes of the dump. A `pg_restore` that ended early is an error with what it said.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Streaming(child) => {
                if child.write(&mut bytes).await? {
                    return Ok(());
                }
                Err(failure(child).await)
            }
            Stage::Head {
                parts,
                bytes: held,
                try_at,
            } => {
                *held += bytes.len();
                parts.push(bytes);
                if *held < *try_at {
                    return Ok(());
                }
                *try_at *= 4;
                let over = *held > HEAD_BYTES_MAX;
                match self.begin().await {
                    Err(Error::Child { .. }) if over => Err(Error::Contents { limit: HEAD_BYTES_MAX }),
                    Err(Error::Child {
                        program: "pg_restore --list",
                        ..
                    }) => Ok(()),
                    other => other,
                }
            }
        }
    }

    /// The same for many pieces: they go through the pipe together, since each write wakes the other side.
    pub async fn write_many(&mut self, pieces: VecDeque<Bytes>) -> Result<(), Error> {
        if let Stage::Streaming(child) = &mut self.stage {
            if child.write(&mut Pieces(pieces)).await? {
                return Ok(());
            }
            return Err(failure(child).await);
        }
        for piece in pieces {
            self.write(piece).await?;
        }
        Ok(())
    }

    /// The dump is complete: wait until everything is loaded. Gives what `pg_restore` said on the way; empty as a rule.
    pub async fn finish(mut self) -> Result<Loaded, Error> {
        if matches!(self.stage, Stage::Head { .. }) {
            self.begin().await?;
        }
        let Stage::Streaming(child) = &mut self.stage else {
            return Err(Error::Contents { limit: HEAD_BYTES_MAX });
        };
        child.close_stdin();
        let mut nothing = BytesMut::new();
        while child.read(&mut nothing).await? > 0 {
            nothing.clear();
        }
        let (status, words) = child.wait_long().await?;
        if status.success() {
            Ok(Loaded {
                warnings: words,
                left_out: std::mem::take(&mut self.left_out),
            })
        } else {
            Err(child.failure(status, words))
        }
    }

    /// Process id of `pg_restore`, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        if let Stage::Streaming(child) = &self.stage {
            child.id()
        } else {
            None
        }
    }

    /// Kill it and wait until it is gone.
    pub async fn kill(mut self) {
        if let Stage::Streaming(child) = &mut self.stage {
            child.kill().await;
        }
    }

    /// Read the table of contents in the head, start the real `pg_restore` and give it the head again.
    async fn begin(&mut self) -> Result<(), Error> {
        let Stage::Head { parts, .. } = &self.stage else { return Ok(()) };
        let mut parts = parts.clone();
        let contents = self.contents(&parts).await?;
        let list;
        (list, self.left_out) = split_contents(&contents, self.options.superuser);
        let mut child = self.restore(list.as_deref())?;
        for part in &mut parts {
            if !child.write(part).await? {
                return Err(failure(&mut child).await);
            }
        }
        self.stage = Stage::Streaming(Box::new(child));
        Ok(())
    }

    /// What `pg_restore --list` makes of the head: it reads no further than the table of contents.
    async fn contents(&self, parts: &[Bytes]) -> Result<String, Error> {
        let mut command = self.info.command(&self.program);
        command.arg("--list");
        let mut child = Child::spawn("pg_restore --list", command)?;
        let mut input = parts.iter().fold(BytesMut::new(), |mut all, part| {
            all.extend_from_slice(part);
            all
        });
        let output = child.exchange(&mut input).await?;
        let (status, words) = child.wait().await?;
        if status.success() {
            Ok(String::from_utf8_lossy(&output).into_owned())
        } else {
            Err(child.failure(status, words))
        }
    }

    fn restore(&self, list: Option<&str>) -> Result<Child, Error> {
        let mut command = self.info.command(&self.program);
        self.options.apply(&mut command);
        if self.options.content == Content::Rows {
            // Not `--section=data`: large objects are made in another section, and count as data here.
            command.arg("--data-only");
        }
        command.arg(format!("--dbname={}", self.info.to_argument()));
        let child = match list {
            None => Child::spawn("pg_restore", command)?,
            Some(list) => {
                let list = MemoryFile::new(list.as_bytes())?;
                command.arg(format!("--use-list={}", MemoryFile::STDOUT));
                Child::spawn_with("pg_restore", command, Stdio::piped(), list.stdio()?)?
            }
        };
        child.widen_pipes(PIPE_BYTES);
        Ok(child)
    }
}

/// Pieces of a stream, as one buffer.
struct Pieces(VecDeque<Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        self.0.iter().any(|piece| !piece.is_empty())
    }

    fn chunk(&self) -> &[u8] {
        self.0.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.0.iter().filter(|piece| !piece.is_empty());
        let filled = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.0.front_mut() {
            let taken = count.min(piece.len());
            piece.advance(taken);
            count -= taken;
            if !piece.is_empty() {
                return;
            }
            self.0.pop_front();
        }
    }
}

/// What a load that went well has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What `pg_restore` said; empty as a rule.
    pub warnings: String,
    /// Lines of the table of contents that were left out.
    pub left_out: Vec<String>,
}

async fn failure(child: &mut Child) -> Error {
    match child.wait().await {
        Ok((status, words)) => child.failure(status, words),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_taken_from_the_front_byte_by_byte_or_many_at_once() {
        for step in 1..12 {
            let mut pieces = Pieces(["ab", "", "cde", "f", ""].map(|piece| Bytes::from_static(piece.as_bytes())).into());
            let mut taken = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = pieces.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                assert!(seen.starts_with(pieces.chunk()) && !seen.is_empty());
                let count = step.min(seen.len());
                taken.extend_from_slice(&seen[..count]);
                pieces.advance(count);
            }
            assert_eq!(taken, b"abcdef", "{step} at a time");
        }
    }
}
