//! A stream of a dump: the bytes of one `pg_dump`, and an error at their end unless it exited well.
//!
//! The custom format has no mark at its end, so only the exit status tells a whole dump from a cut one; it is asked for
//! before the end of the stream is given out. Nothing is compressed here: the repository finds repeated blobs only in
//! plain bytes. What becomes of the bytes is not known here.

use std::time::Duration;

use bytes::BytesMut;

use super::child::Child;
use super::conninfo::ConnInfo;
use super::session::{Purpose, Session};
use super::tools::{Tool, Tools, Version};
use super::{Error, snapshot};

/// A read is gathered to at least this size, the stream's end excepted.
const READ_BYTES_MIN: usize = 256 << 10;
/// Room made in the caller's buffer for one read from the pipe.
const READ_BYTES: usize = 1 << 20;
/// What the pipe may hold, as far as an ordinary user may ask for it.
const PIPE_BYTES: usize = 1 << 20;

/// The one table that must not travel: its rows are used up by other servers after the dump (Synapse's documentation,
/// "Backing up Synapse": exclude it or empty it before the start).
pub const ONE_TIME_KEYS_PATTERN: &str = "*.e2e_one_time_keys_json";
/// Its name, in whatever schema.
pub const ONE_TIME_KEYS: &str = "e2e_one_time_keys_json";
/// How long the look for whoever blocked a dump may wait itself, in seconds.
const LOOK_SECONDS: u64 = 5;

/// What one `pg_dump` dumps. Names are quoted ones in their schemas: as patterns they match exactly that table, since
/// inside double quotes no character of a pattern is special (PostgreSQL documentation, psql, "Patterns").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of the database.
    Everything,
    /// Definitions only.
    Schema,
    /// All rows but those of these tables, all large objects, the values of all sequences.
    AllBut(Vec<String>),
    /// The rows of one table.
    Table {
        /// Which.
        table: String,
        /// Sequences of its columns. `pg_dump` would write their values as well, which are in another stream already.
        sequences: Vec<String>,
    },
}

impl Content {
    fn arguments(&self) -> Vec<String> {
        let without = |names: &[String]| -> Vec<String> { names.iter().map(|name| format!("--exclude-table-data={name}")).collect() };
        let mut arguments: Vec<String> = Vec::new();
        match self {
            Self::Everything => {}
            Self::Schema => arguments.push("--schema-only".into()),
            Self::AllBut(tables) => {
                arguments.push("--data-only".into());
                arguments.extend(without(tables));
            }
            Self::Table { table, sequences } => {
                arguments.extend(["--data-only".into(), "--strict-names".into(), format!("--table={table}")]);
                arguments.extend(without(sequences));
            }
        }
        arguments
    }
}

/// What to dump, and how.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// An exported snapshot.
    pub snapshot: String,
    /// Which part of it.
    pub content: Content,
    /// Patterns of tables whose rows are left out, as psql's `\d` reads them.
    pub exclude_table_data: Vec<String>,
    /// How long it may wait for a lock that somebody else holds.
    pub lock_wait: Duration,
}

impl DumpOptions {
    /// Everything in `snapshot` but the one-time keys, waiting a minute for locks.
    pub fn new(snapshot: &str) -> Self {
        Self {
            snapshot: snapshot.to_owned(),
            content: Content::Everything,
            exclude_table_data: vec![ONE_TIME_KEYS_PATTERN.to_owned()],
            lock_wait: Duration::from_mins(1),
        }
    }

    /// The same for a part.
    #[must_use]
    pub fn with_content(&self, content: Content) -> Self {
        Self { content, ..self.clone() }
    }
}

/// A running dump. Dropping it ends its `pg_dump`.
#[derive(Debug)]
pub struct Dump {
    child: Child,
    version: Version,
    bytes: u64,
    ended: bool,
    words: String,
}

impl Dump {
    /// Start the `pg_dump` that fits `server`, in custom format, uncompressed.
    pub fn start(info: &ConnInfo, tools: &Tools, server: Version, options: &DumpOptions) -> Result<Self, Error> {
        let Tool { path, version } = tools.pg_dump(server)?;
        let mut command = info.command(path);
        command.args(["--format=custom", "--compress=0", "--no-password"]);
        command.arg(format!("--snapshot={}", options.snapshot));
        command.arg(format!("--lock-wait-timeout={}", options.lock_wait.as_millis()));
        command.args(options.content.arguments());
        command.args(
            options
                .exclude_table_data
                .iter()
                .map(|pattern| format!("--exclude-table-data={pattern}")),
        );
        command.arg(format!("--dbname={}", info.to_argument()));
        let mut child = Child::spawn("pg_dump", command)?;
        child.close_stdin();
        child.widen_pipes(PIPE_BYTES);
        Ok(Self {
            child,
            version: *version,
            bytes: 0,
            ended: false,
            words: String::new(),
        })
    }

    /// Append the next bytes to `buffer`: at least 256 KiB while there are as many, 0 at the end of a whole dump.
    ///
    /// Errors: [`Error::Child`] when `pg_dump` did not exit well, with what it said. Bytes that came before belong to a
    /// dump that is not whole. A call that is dropped half way loses nothing: the bytes are in `buffer`.
    pub async fn read_into(&mut self, buffer: &mut BytesMut) -> Result<usize, Error> {
        let before = buffer.len();
        while !self.ended && buffer.len() - before < READ_BYTES_MIN {
            if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
                buffer.reserve(READ_BYTES);
            }
            let read = self.child.read(buffer).await?;
            self.bytes += read as u64;
            if read == 0 {
                self.end().await?;
            }
        }
        Ok(buffer.len() - before)
    }

    async fn end(&mut self) -> Result<(), Error> {
        let (status, words) = self.child.wait().await?;
        if !status.success() {
            return Err(self.child.failure(status, words));
        }
        if self.bytes == 0 {
            // A script in its place that keeps the dump to itself, say.
            let reason = "it exited well and gave no dump".to_owned();
            return Err(Error::Answer {
                what: "pg_dump".into(),
                reason,
            });
        }
        (self.ended, self.words) = (true, words);
        Ok(())
    }

    /// Bytes read so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The version of this `pg_dump`: a `pg_restore` of at least its major can read the dump.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Process id of `pg_dump`, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// What a `pg_dump` that exited well had to say all the same; empty as a rule.
    pub fn warnings(&self) -> &str {
        &self.words
    }

    /// Kill it and wait until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await;
    }
}

/// The error of a `pg_dump` whose wait for a lock was over, as one that names who blocks it; any other error as it is.
///
/// We hold every table in ACCESS SHARE mode, so nobody can have taken what the dump wants; but an ALTER or TRUNCATE that
/// waits for *us* stands before it in the queue, and still does when the dump has given up.
pub async fn explain(error: Error, info: &ConnInfo, tools: &Tools, options: &DumpOptions) -> Error {
    let Error::Child { message, .. } = &error else { return error };
    // pg_dump waits by `statement_timeout`, so the statement tells, not the words of the error.
    if !message.contains("LOCK TABLE") {
        return error;
    }
    let Ok(mut session) = Session::open(info, tools, Purpose::Read, LOOK_SECONDS).await else {
        return error;
    };
    let found = snapshot::who_wants_tables(&mut session).await;
    session.close().await;
    match found {
        Ok(blockers) => Error::Locked {
            seconds: options.lock_wait.as_secs(),
            blockers,
        },
        Err(_) => error,
    }
}
