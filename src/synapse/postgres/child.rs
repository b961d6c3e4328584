//! The programs we start: clean environment, own process group, bounded standard error, killed and reaped when dropped.
//!
//! Standard error is read beside standard input and output by whoever drives the child, so no task of its own is
//! needed. A child that outlives a killed parent ends by itself, since its pipes are closed; but a `pg_restore` that reads
//! the definitions from a memory file (`archive`) goes on to its end. What the programs say and take is their callers'
//! business (`session`, `dump`, `load`).

use std::future::Future;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::Error;

/// Bytes of standard error that are kept; the first half and the last half, since the cause often stands first.
const STDERR_BYTES_MAX: usize = 16 << 10;
/// How long a child may take to end after its pipes are closed.
const EXIT_WAIT: Duration = Duration::from_secs(30);

/// The user that a child runs as, when we are root: whom Synapse runs as, so that peer authentication, `~/.pgpass` and
/// `~/.postgresql` are the ones Synapse has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id; supplementary groups are dropped.
    pub gid: u32,
    /// Home folder, for libpq's files there.
    pub home: Option<PathBuf>,
}

/// What a child said on standard error.
#[derive(Debug)]
struct Listener {
    pipe: Option<ChildStderr>,
    said: BytesMut,
}

impl Listener {
    /// Read what there is; waits for ever once the stream has ended, so that it can stand beside other work.
    async fn listen(&mut self) {
        loop {
            let Some(pipe) = &mut self.pipe else {
                return std::future::pending().await;
            };
            if !matches!(pipe.read_buf(&mut self.said).await, Ok(read) if read > 0) {
                self.pipe = None;
            }
            self.keep_both_ends();
        }
    }

    /// Read to the end, for as long as a child that was told to end may take.
    async fn listen_to_end(&mut self) {
        while let Some(pipe) = &mut self.pipe {
            if !matches!(pipe.read_buf(&mut self.said).await, Ok(read) if read > 0) {
                self.pipe = None;
            }
            self.keep_both_ends();
        }
    }

    fn keep_both_ends(&mut self) {
        if self.said.len() > STDERR_BYTES_MAX {
            let tail = self.said.split_off(self.said.len() - STDERR_BYTES_MAX / 2);
            self.said.truncate(STDERR_BYTES_MAX / 2);
            self.said.extend_from_slice(&tail);
        }
    }

    /// Do `work` and listen meanwhile.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            () = self.listen() => unreachable!("listening never ends"),
        }
    }
}

/// A running program of PostgreSQL.
#[derive(Debug)]
pub(super) struct Child {
    program: &'static str,
    process: tokio::process::Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Listener,
}

impl Child {
    /// Start `command`, whose environment is already the clean one, with pipes to all three streams.
    pub(super) fn spawn(program: &'static str, command: Command) -> Result<Self, Error> {
        Self::spawn_with(program, command, Stdio::piped(), Stdio::piped())
    }

    /// The same with a file in the place of standard input or output: no other child can inherit it.
    pub(super) fn spawn_with(program: &'static str, mut command: Command, stdin: Stdio, stdout: Stdio) -> Result<Self, Error> {
        command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        let path = PathBuf::from(command.as_std().get_program());
        let mut process = command.spawn().map_err(|source| Error::Spawn { program: path, source })?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let stderr = Listener {
            pipe: process.stderr.take(),
            said: BytesMut::new(),
        };
        Ok(Self {
            program,
            process,
            stdin,
            stdout,
            stderr,
        })
    }

    /// Process id, while it is not reaped.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Let the pipes hold `bytes`: fewer switches between the child and us. A kernel that refuses leaves them as they are.
    pub(super) fn widen_pipes(&self, bytes: usize) {
        #[cfg(target_os = "linux")]
        {
            if let Some(stdout) = &self.stdout {
                let _ = rustix::pipe::fcntl_setpipe_size(stdout, bytes);
            }
            if let Some(stdin) = &self.stdin {
                let _ = rustix::pipe::fcntl_setpipe_size(stdin, bytes);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }

    /// Read some of standard output into `buffer`; 0 is the end. No byte is lost when the call is dropped half way.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, Error> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        let program = self.program;
        self.stderr
            .beside(stdout.read_buf(buffer))
            .await
            .map_err(|source| Error::Pipe { program, source })
    }

    /// Write all of `bytes`, taking them from its front as they go. A closed pipe is `false`: the child has ended.
    pub(super) async fn write(&mut self, bytes: &mut impl Buf) -> Result<bool, Error> {
        let Some(stdin) = &mut self.stdin else { return Ok(false) };
        while bytes.has_remaining() {
            match self.stderr.beside(stdin.write_buf(bytes)).await {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
                Err(source) => {
                    return Err(Error::Pipe {
                        program: self.program,
                        source,
                    });
                }
            }
        }
        Ok(true)
    }

    /// Give it `input`, close, and read its whole output: for answers that are known to be small.
    pub(super) async fn exchange(&mut self, input: &mut BytesMut) -> Result<BytesMut, Error> {
        let program = self.program;
        let (stdin, stdout) = (self.stdin.take(), self.stdout.take());
        let give = async move {
            // A child that has read enough closes its end: that is no error here, its exit status tells.
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all_buf(input).await;
            }
        };
        let take = async move {
            let mut output = BytesMut::new();
            if let Some(mut stdout) = stdout {
                while stdout.read_buf(&mut output).await? > 0 {}
            }
            Ok(output)
        };
        let ((), output) = self.stderr.beside(async { tokio::join!(give, take) }).await;
        output.map_err(|source| Error::Pipe { program, source })
    }

    /// Give it `input` until it wants no more, and hand its output on meanwhile: what `take` leaves is given again with more.
    pub(super) async fn pass<E: From<Error>>(
        &mut self,
        input: impl Stream<Item = Result<Bytes, E>>,
        mut take: impl FnMut(&mut BytesMut) -> Result<(), Error>,
    ) -> Result<(), E> {
        let program = self.program;
        let (stdin, stdout) = (self.stdin.take(), self.stdout.take());
        let give = async move {
            let mut input = std::pin::pin!(input);
            if let Some(mut stdin) = stdin {
                while let Some(bytes) = input.next().await {
                    // As above: it has read enough.
                    if stdin.write_all_buf(&mut bytes?).await.is_err() {
                        break;
                    }
                }
            }
            Ok(())
        };
        let read = async move {
            let mut output = BytesMut::new();
            if let Some(mut stdout) = stdout {
                while stdout
                    .read_buf(&mut output)
                    .await
                    .map_err(|source| Error::Pipe { program, source })?
                    > 0
                {
                    take(&mut output)?;
                }
            }
            Ok(())
        };
        self.stderr.beside(async { tokio::try_join!(give, read) }).await.map(|((), ())| ())
    }

    /// No more input will come.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What it said on standard error since the last call, waiting a moment for words that are on their way.
    pub(super) async fn words(&mut self) -> String {
        if self.stderr.said.is_empty() {
            let Listener { pipe, said } = &mut self.stderr;
            if let Some(pipe) = pipe {
                let _ = timeout(Duration::from_millis(500), pipe.read_buf(said)).await;
            }
        }
        text(&self.stderr.said.split())
    }

    /// Close the pipes, wait for the end, reap. A child that does not end in half a minute is killed.
    pub(super) async fn wait(&mut self) -> Result<(ExitStatus, String), Error> {
        (self.stdin, self.stdout) = (None, None);
        let status = if let Ok(status) = timeout(EXIT_WAIT, self.end()).await {
            status
        } else {
            self.kill_group();
            self.process.wait().await
        };
        self.ended(status)
    }

    /// The same for a child that has closed its output only to go on working: there is no limit.
    pub(super) async fn wait_long(&mut self) -> Result<(ExitStatus, String), Error> {
        self.stdin = None;
        let status = self.end().await;
        self.ended(status)
    }

    async fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.stderr.listen_to_end().await;
        self.process.wait().await
    }

    fn ended(&mut self, status: std::io::Result<ExitStatus>) -> Result<(ExitStatus, String), Error> {
        let status = status.map_err(|source| Error::Pipe {
            program: self.program,
            source,
        })?;
        Ok((status, text(&self.stderr.said.split())))
    }

    /// The error of a child that did not end well.
    pub(super) fn failure(&self, status: ExitStatus, words: String) -> Error {
        Error::Child {
            program: self.program,
            status: status_text(status),
            message: words,
        }
    }

    /// Kill it and everything it started, and reap it.
    pub(super) async fn kill(&mut self) {
        self.kill_group();
        let _ = self.process.wait().await;
    }

    fn kill_group(&self) {
        let id = self
            .process
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Child {
    /// The runtime reaps what is killed here (`kill_on_drop`); [`Child::kill`] waits for it.
    fn drop(&mut self) {
        self.kill_group();
    }
}

fn status_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// One line of what was said: the lines of the server's log kind joined, for messages.
fn text(bytes: &[u8]) -> String {
    let said = String::from_utf8_lossy(bytes);
    said.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" | ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[tokio::test]
    async fn of_much_that_was_said_the_beginning_and_the_end_are_kept() {
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "echo the cause >&2; head -c 100000 /dev/zero | tr '\\0' a >&2; echo the end >&2; exit 3",
        ]);
        let mut child = Child::spawn("sh", command).unwrap();
        let (status, words) = child.wait().await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(
            words.starts_with("the cause | aaa") && words.ends_with("aaathe end"),
            "{} bytes",
            words.len()
        );
        assert!(words.len() <= STDERR_BYTES_MAX + 8, "{} bytes", words.len());
    }
}
