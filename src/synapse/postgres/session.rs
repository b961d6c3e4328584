//! A connection: one `psql` that takes statements on its standard input and answers on its standard output.
//!
//! Each answer ends with a line that begins with `\.` and a number, which psql echoes after the statement. No answer of
//! ours can hold such a line: rows are JSON or COPY text, and neither begins a line with `\.`. After that number stand
//! psql's `ERROR` and `SQLSTATE`, so a failed statement is an error and the connection lives on (a failed COPY ends it, as
//! psql does not always tell of it otherwise). psql itself never prompts, reads no start file, and ends when the server does: then its standard output ends, and nothing hangs.

use bytes::{Buf, BytesMut};
use serde::de::DeserializeOwned;

use super::child::Child;
use super::conninfo::ConnInfo;
use super::copy::CopyOut;
use super::tools::{Tools, Version};
use super::{Error, pooler, sql};

/// One line of an answer; a longer one is an error.
const LINE_BYTES_MAX: usize = 16 << 20;
/// The exit code of psql when `ON_ERROR_STOP` ended it.
const STOPPED_ON_ERROR: i32 = 3;
/// How much is read from psql at once.
const READ_BYTES: usize = 64 << 10;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing can be written through it.
    Read,
    /// Loading and cleaning up.
    Write,
}

/// What the server tells of itself when a session begins.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Server {
    /// `server_version_num`.
    pub version_number: u32,
    /// `server_version`, as the vendor spells it.
    pub version: String,
    /// The database's name.
    pub database: String,
    /// Our role.
    pub user: String,
    /// Is our role a superuser?
    pub superuser: bool,
    /// Server process of this session.
    pub pid: i64,
    /// A replica?
    pub in_recovery: bool,
    /// Schemas where a name without one is looked for, as the role's settings have it.
    pub search_path: Vec<String>,
}

impl Server {
    /// Its version.
    pub const fn version(&self) -> Version {
        Version::of_server(self.version_number)
    }
}

/// An open connection. Dropping it kills its psql; the server then rolls back what was open.
#[derive(Debug)]
pub struct Session {
    child: Child,
    buffer: BytesMut,
    statements: u64,
    /// An answer was not read to its end: what comes next on the pipe is not ours.
    out_of_step: bool,
    server: Server,
}

impl Session {
    /// Connect, make sure that no pooler stands between, and make the session ours (no timeouts of the role's, a safe
    /// search path). `lock_seconds` bounds every wait for a lock.
    ///
    /// Errors: [`Error::Connect`] with libpq's words, [`Error::Pooler`].
    pub async fn open(info: &ConnInfo, tools: &Tools, purpose: Purpose, lock_seconds: u64) -> Result<Self, Error> {
        let mut session = Self::connect(info, tools).await?;
        let mut other = Self::connect(info, tools).await?;
        pooler::refuse(&mut session, &mut other).await?;
        other.close().await;
        session.settle(purpose, lock_seconds).await?;
        Ok(session)
    }

    /// One more session through settings that [`Session::open`] has found to be without a pooler.
    pub async fn open_another(info: &ConnInfo, tools: &Tools, purpose: Purpose, lock_seconds: u64) -> Result<Self, Error> {
        let mut session = Self::connect(info, tools).await?;
        session.settle(purpose, lock_seconds).await?;
        Ok(session)
    }

    /// Connect and ask the server who it is. Nothing is set yet: behind a pooler it would be set for others.
    pub(super) async fn connect(info: &ConnInfo, tools: &Tools) -> Result<Self, Error> {
        let mut command = info.command(&tools.psql()?.path);
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--no-password",
            "--set=ON_ERROR_STOP=0",
        ]);
        command
            .arg(format!("--dbname={}", info.to_argument()))
            .env("PGCLIENTENCODING", "UTF8");
        let child = Child::spawn("psql", command)?;
        let server = Server {
            version_number: 0,
            version: String::new(),
            database: String::new(),
            user: String::new(),
            superuser: false,
            pid: 0,
            in_recovery: false,
            search_path: Vec::new(),
        };
        let mut session = Self {
            child,
            buffer: BytesMut::new(),
            statements: 0,
            out_of_step: false,
            server,
        };
        let greeting = session.one("the greeting of the server", GREETING).await;
        session.server = greeting.map_err(|error| match error {
            Error::Lost { message, .. } => Error::Connect {
                database: info.to_string(),
                message: connect_message(&message),
            },
            other => other,
        })?;
        Ok(session)
    }

    /// Make the session ours, when it is known to have a server process of its own.
    pub(super) async fn settle(&mut self, purpose: Purpose, lock_seconds: u64) -> Result<(), Error> {
        self.execute("the settings of our session", &settings(purpose, lock_seconds)).await
    }

    /// What the server told when the session began.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// Process id of its psql, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Run one statement whose rows, if any, do not matter. `what` names it in errors.
    pub async fn execute(&mut self, what: &str, statement: &str) -> Result<(), Error> {
        self.send(what, statement).await?;
        while self.line(what).await?.is_some() {}
        Ok(())
    }

    /// The rows of a query, each as `T`. The whole answer is in memory: for catalogs and counts, not for content.
    pub async fn query<T: DeserializeOwned>(&mut self, what: &str, query: &str) -> Result<Vec<T>, Error> {
        self.send(what, &format!("SELECT pg_catalog.row_to_json(answer) FROM ({query}) AS answer"))
            .await?;
        let mut rows = Vec::new();
        let mut wrong = None;
        while let Some(line) = self.line(what).await? {
            match serde_json::from_slice(&line) {
                Ok(row) => rows.push(row),
                Err(error) => wrong = Some(error.to_string()),
            }
        }
        wrong.map_or(Ok(rows), |reason| {
            Err(Error::Answer {
                what: what.to_owned(),
                reason,
            })
        })
    }

    /// The rows of a query, each as a JSON object.
    pub async fn query_json(&mut self, what: &str, query: &str) -> Result<Vec<serde_json::Value>, Error> {
        self.query(what, query).await
    }

    /// The only row of a query.
    pub async fn one<T: DeserializeOwned>(&mut self, what: &str, query: &str) -> Result<T, Error> {
        let mut rows = self.query(what, query).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Error::Answer {
                what: what.to_owned(),
                reason: "one row was expected".into(),
            }),
        }
    }

    /// The rows of a query as a stream of COPY text, with bounded memory.
    pub async fn copy_out(&mut self, what: &str, query: &str) -> Result<CopyOut<'_>, Error> {
        // psql 15 leaves ERROR at `false` when a COPY fails half way, so a COPY that fails must end psql.
        self.send(what, &format!("\\set ON_ERROR_STOP 1\nCOPY ({query}) TO STDOUT")).await?;
        Ok(CopyOut::new(self, what.to_owned()))
    }

    /// End the session in good order.
    pub async fn close(mut self) {
        self.child.close_stdin();
        let _ = self.child.wait().await;
    }

    /// End it at once: psql is killed and reaped.
    pub async fn kill(mut self) {
        self.child.kill().await;
    }

    async fn send(&mut self, what: &str, statement: &str) -> Result<(), Error> {
        if self.out_of_step {
            return Err(Error::Lost {
                what: what.to_owned(),
                message: "an earlier answer was not read to its end".into(),
            });
        }
        self.out_of_step = true;
        self.statements += 1;
        let text = format!(
            "{statement};\n\\set ON_ERROR_STOP 0\n\\echo '\\\\.{}' :ERROR :SQLSTATE\n",
            self.statements
        );
        if self.child.write(&mut text.as_bytes()).await? {
            Ok(())
        } else {
            Err(self.lost(what).await)
        }
    }

    /// The next line of the answer; `None` at its end, which is an error if the statement failed.
    pub(super) async fn line(&mut self, what: &str) -> Result<Option<BytesMut>, Error> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + at;
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                return Err(Error::Answer {
                    what: what.to_owned(),
                    reason: format!("a line is over the limit of {LINE_BYTES_MAX} bytes"),
                });
            }
            self.buffer.reserve(READ_BYTES);
            if self.child.read(&mut self.buffer).await? == 0 {
                return Err(self.lost(what).await);
            }
        };
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        if !line.starts_with(b"\\.") {
            return Ok(Some(line));
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let mut words = text[2..].split(' ');
        if words.next().and_then(|number| number.parse().ok()) != Some(self.statements) {
            return Err(Error::Answer {
                what: what.to_owned(),
                reason: "the answers are out of step".into(),
            });
        }
        self.out_of_step = false;
        if words.next() == Some("false") {
            return Ok(None);
        }
        let sqlstate = words.next().unwrap_or_default().to_owned();
        Err(Error::Statement {
            what: what.to_owned(),
            sqlstate,
            message: self.child.words().await,
        })
    }

    async fn lost(&mut self, what: &str) -> Error {
        self.out_of_step = true;
        let what = what.to_owned();
        match self.child.wait().await {
            Ok((status, message)) if status.code() == Some(STOPPED_ON_ERROR) => Error::Statement {
                what,
                sqlstate: String::new(),
                message,
            },
            Ok((_, message)) => Error::Lost { what, message },
            Err(error) => error,
        }
    }
}

/// psql's words without its name: `psql: error: connection to server … failed: …`.
fn connect_message(message: &str) -> String {
    message.trim_start_matches("psql: error: ").to_owned()
}

const GREETING: &str = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version_number, \
    pg_catalog.current_setting('server_version') AS version, pg_catalog.current_database() AS database, \
    current_user AS \"user\", pg_catalog.pg_backend_pid() AS pid, pg_catalog.pg_is_in_recovery() AS in_recovery, \
    pg_catalog.current_schemas(false) AS search_path, \
    (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser";

/// One statement that sets everything; settings that a server does not know (`transaction_timeout` before 17) are left out.
fn settings(purpose: Purpose, lock_seconds: u64) -> String {
    let read_only = if purpose == Purpose::Read { "on" } else { "off" };
    let lock = format!("{lock_seconds}s");
    let wanted = [
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("transaction_timeout", "0"),
        ("lock_timeout", lock.as_str()),
        ("default_transaction_read_only", read_only),
        ("default_transaction_isolation", "read committed"),
        ("standard_conforming_strings", "on"),
        ("client_min_messages", "error"),
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("extra_float_digits", "3"),
        ("row_security", "off"),
        ("search_path", "pg_catalog, pg_temp"),
    ];
    let values: Vec<_> = wanted
        .iter()
        .map(|(name, value)| format!("({},{})", sql::literal(name), sql::literal(value)))
        .collect();
    format!(
        "SELECT pg_catalog.count(pg_catalog.set_config(wanted.name, wanted.value, false)) FROM (VALUES {}) AS wanted(name, value) \
         JOIN pg_catalog.pg_settings AS known ON pg_catalog.lower(known.name) = pg_catalog.lower(wanted.name)",
        values.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_session_cannot_write_and_has_no_timeouts() {
        let text = settings(Purpose::Read, 60);
        for setting in [
            "('statement_timeout','0')",
            "('transaction_timeout','0')",
            "('lock_timeout','60s')",
            "('default_transaction_read_only','on')",
        ] {
            assert!(text.contains(setting), "{setting}");
        }
        assert!(settings(Purpose::Write, 1).contains("('default_transaction_read_only','off')"));
    }
}
