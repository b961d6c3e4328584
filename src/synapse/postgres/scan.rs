//! Is a dump stream whole? `pg_restore` reads all of it and writes the script that it would be to nowhere.
//!
//! The custom format has no mark at its end, and `pg_restore --list` reads no further than the table of contents: of a
//! stream that was cut it sees nothing. Read to the end, a missing byte is an error. No server is needed.

use std::process::Stdio;

use bytes::Bytes;
use tokio::process::Command;

use super::Error;
use super::child::Child;
use super::tools::{Tools, Version};

/// What the pipe may hold.
const PIPE_BYTES: usize = 1 << 20;

/// A stream that is being read. Dropping it ends its `pg_restore`.
#[derive(Debug)]
pub struct Scan {
    child: Child,
}

impl Scan {
    /// Begin; `archive` is the version of the `pg_dump` that wrote the stream.
    pub fn start(tools: &Tools, archive: Version) -> Result<Self, Error> {
        let mut command = Command::new(&tools.pg_restore(archive)?.path);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.arg("--file=/dev/null");
        let child = Child::spawn_with("pg_restore", command, Stdio::piped(), Stdio::null())?;
        child.widen_pipes(PIPE_BYTES);
        Ok(Self { child })
    }

    /// The next bytes. A `pg_restore` that ended early is an error with what it said.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        if self.child.write(&mut bytes).await? {
            return Ok(());
        }
        let (status, words) = self.child.wait().await?;
        Err(self.child.failure(status, words))
    }

    /// There are no more bytes: is it whole?
    pub async fn finish(mut self) -> Result<(), Error> {
        let (status, words) = self.child.wait_long().await?;
        if status.success() {
            Ok(())
        } else {
            Err(self.child.failure(status, words))
        }
    }
}
