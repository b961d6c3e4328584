//! The archive with the definitions: small, so it is held in a memory file, and loaded in two sections around the rows.
//!
//! `pg_restore` reads a file by name as often as it likes and by several jobs at once, which it refuses to do with
//! standard input. The memory file is the child's standard input and is named `/proc/self/fd/0`: opening that name gives
//! each job a position of its own, no other child inherits the file, and nothing is on a disk. In the same way the list
//! of what to load is its standard output, on which it prints nothing when it loads into a database. What is in the
//! archive, and which indexes can be built before all rows are there, is read by `contents`.

use std::fs::File;
use std::io::{Seek, Write};
use std::process::Stdio;

use bytes::BytesMut;

use super::Error;
use super::child::Child;

use super::conninfo::ConnInfo;
use super::contents::Contents;
use super::load::LoadOptions;
use super::tools::{Tools, Version};

/// An archive of definitions is not larger: this stands for hundreds of thousands of tables.
pub const SCHEMA_BYTES_MAX: u64 = 64 << 20;

/// Which part of the definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What must be there before rows come: tables, types, functions.
    BeforeData,
    /// What is quicker, or only possible, afterwards: indexes, constraints, triggers.
    AfterData,
}

/// An archive of definitions, ready to be loaded.
#[derive(Debug)]
pub struct Archive {
    file: MemoryFile,
    program: std::path::PathBuf,
    info: ConnInfo,
    options: LoadOptions,
    contents: Contents,
}

impl Archive {
    /// Look into the archive; `version` is that of the `pg_dump` that wrote it.
    pub async fn open(bytes: &[u8], info: &ConnInfo, tools: &Tools, version: Version, options: LoadOptions) -> Result<Self, Error> {
        let mut archive = Self {
            file: MemoryFile::new(bytes)?,
            program: tools.pg_restore(version)?.path.clone(),
            info: info.clone(),
            options,
            contents: Contents::default(),
        };
        archive.contents = Contents::read(&archive.list().await?, archive.options.superuser);
        Ok(archive)
    }

    /// Lines of the table of contents that are left out, since they speak of what somebody else owns.
    pub fn left_out(&self) -> &[String] {
        self.contents.left_out()
    }

    /// Of these tables, whose rows come in streams of their own, the indexes are built by [`Archive::load_indexes`] as soon
    /// as those are there: [`Section::AfterData`] leaves them out.
    pub fn set_apart(&mut self, tables: &[String]) {
        self.contents.set_apart(tables);
    }

    /// Build the indexes and unique constraints of a table that was set apart.
    pub async fn load_indexes(&self, table: &str) -> Result<String, Error> {
        match self.contents.indexes_of(table) {
            Some(list) => self.restore(Section::AfterData, 1, list).await,
            None => Ok(String::new()),
        }
    }

    /// Load one section by so many jobs. Gives what `pg_restore` said on the way; empty as a rule.
    pub async fn load(&self, section: Section, jobs: usize) -> Result<String, Error> {
        self.restore(section, jobs, &self.contents.all()).await
    }

    async fn restore(&self, section: Section, jobs: usize, list: &str) -> Result<String, Error> {
        let mut command = self.info.command(&self.program);
        self.options.apply(&mut command);
        command.arg(match section {
            Section::BeforeData => "--section=pre-data",
            Section::AfterData => "--section=post-data",
        });
        if jobs > 1 && cfg!(target_os = "linux") {
            command.arg(format!("--jobs={jobs}"));
        }
        let list = MemoryFile::new(list.as_bytes())?;
        command.arg(format!("--use-list={}", MemoryFile::STDOUT));
        command.arg(format!("--dbname={}", self.info.to_argument())).arg(MemoryFile::STDIN);
        let mut child = Child::spawn_with("pg_restore", command, self.file.stdio()?, list.stdio()?)?;
        let (status, words) = child.wait_long().await?;
        if status.success() {
            Ok(words)
        } else {
            Err(child.failure(status, words))
        }
    }

    /// The table of contents, each entry with what it depends on.
    async fn list(&self) -> Result<String, Error> {
        let mut command = self.info.command(&self.program);
        command.args(["--list", "--verbose", MemoryFile::STDIN]);
        let mut child = Child::spawn_with("pg_restore --list", command, self.file.stdio()?, Stdio::piped())?;
        let output = child.exchange(&mut BytesMut::new()).await?;
        let (status, words) = child.wait().await?;
        if status.success() {
            Ok(String::from_utf8_lossy(&output).into_owned())
        } else {
            Err(child.failure(status, words))
        }
    }
}

/// A file without a name, in memory where the system has such files, that a child gets as a standard stream.
#[derive(Debug)]
pub(super) struct MemoryFile(File);

impl MemoryFile {
    /// The name by which a child opens its standard input anew.
    #[cfg(target_os = "linux")]
    pub(super) const STDIN: &'static str = "/proc/self/fd/0";
    /// The name by which a child opens its standard output anew.
    #[cfg(target_os = "linux")]
    pub(super) const STDOUT: &'static str = "/proc/self/fd/1";
    #[cfg(not(target_os = "linux"))]
    pub(super) const STDIN: &'static str = "/dev/fd/0";
    #[cfg(not(target_os = "linux"))]
    pub(super) const STDOUT: &'static str = "/dev/fd/1";

    pub(super) fn new(bytes: &[u8]) -> Result<Self, Error> {
        let made = || {
            let mut file = Self::make()?;
            file.write_all(bytes)?;
            file.rewind()?;
            Ok(Self(file))
        };
        made().map_err(failed)
    }

    #[cfg(target_os = "linux")]
    fn make() -> std::io::Result<File> {
        Ok(rustix::fs::memfd_create("pg_restore", rustix::fs::MemfdFlags::CLOEXEC)?.into())
    }

    #[cfg(not(target_os = "linux"))]
    fn make() -> std::io::Result<File> {
        tempfile::tempfile()
    }

    /// For a child's standard stream.
    pub(super) fn stdio(&self) -> Result<Stdio, Error> {
        self.0.try_clone().map(Stdio::from).map_err(failed)
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::Pipe {
        program: "pg_restore",
        source,
    }
}
