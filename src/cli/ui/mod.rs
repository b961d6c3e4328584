//! What people and programs see: data on standard output, everything else on standard error.
//!
//! `Screen` knows who looks (a person, a program that reads JSON lines, nobody) and is the only thing that writes.
//! What the words are is decided beside it: `error`, `summary` (what a run did), `look` (tables), `report` (JSON).

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use anyhow::Context as _;
use indicatif::MultiProgress;
use tokio::io::AsyncWrite;

use super::environment::Environment;

mod bars;
mod error;
mod keys;
mod look;
mod progress;
mod report;
mod show;
mod signing_keys;
mod skeleton;
mod stats;
mod summary;
mod table;
mod text;

pub(super) use error::{Told, lines as error_lines, tell};
pub(super) use look::{item_line, look};
pub(super) use progress::Watcher;
pub(super) use report::{End, report};
pub(super) use signing_keys::old_signing_keys;
pub(super) use skeleton::skeleton;
pub(super) use summary::summary;

/// Who looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Somebody who reads text.
    Person,
    /// Somebody who wants errors and problems only (`-q`).
    QuietPerson,
    /// A program (`--json`); `-q` leaves out the events.
    Program {
        /// Without events.
        quiet: bool,
    },
}

/// Both streams. Cheap to share.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    /// Who looks on.
    pub(super) audience: Audience,
    colour_out: bool,
    colour_err: bool,
    /// Owns the lower lines of the terminal while bars are drawn; every other line goes through it.
    bars: Option<MultiProgress>,
    reader_gone: Arc<AtomicBool>,
}

impl Screen {
    /// Look at the streams once.
    pub(super) fn new(audience: Audience, environment: &Environment) -> Self {
        let colour = environment.wants_colour();
        let bars = audience == Audience::Person && std::io::stderr().is_terminal() && environment.get("TERM").is_some_and(|t| t != "dumb");
        Self {
            audience,
            colour_out: colour && std::io::stdout().is_terminal(),
            colour_err: colour && std::io::stderr().is_terminal(),
            bars: bars.then(MultiProgress::new),
            reader_gone: Arc::default(),
        }
    }

    /// JSON lines?
    pub(super) const fn for_program(&self) -> bool {
        matches!(self.audience, Audience::Program { .. })
    }

    /// May data on standard output be coloured?
    pub(super) const fn colour_out(&self) -> bool {
        self.colour_out
    }

    /// How wide standard output is, where it is a terminal: text in a pipe is not broken.
    pub(super) fn columns_out(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        (size.ws_col > 0 && !self.for_program()).then_some(usize::from(size.ws_col))
    }

    /// May messages on standard error be coloured?
    pub(super) const fn colour_err(&self) -> bool {
        self.colour_err
    }

    /// The bars, on a terminal.
    pub(super) const fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Data for standard output. Fails when the reader went away (quietly, see [`Screen::reader_gone`]) or the disk is full.
    pub(super) fn data(&self, text: &str) -> anyhow::Result<()> {
        let mut stream = std::io::stdout().lock();
        let written = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
        if let Err(error) = &written {
            self.note_broken_pipe(error);
        }
        written.context("write to standard output")
    }

    /// A line for whoever follows the run by program; a reader that went away must not end a backup.
    pub(super) fn event(line: &str) {
        let mut stream = std::io::stdout().lock();
        let _ = writeln!(stream, "{line}").and_then(|()| stream.flush());
    }

    /// Lines for standard error, above the bars.
    pub(super) fn tell(&self, text: &str) {
        self.aside(|| {
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        });
    }

    /// Do this while no bar is drawn.
    fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(work),
            None => work(),
        }
    }

    /// Whoever read our data has closed the pipe: `| head` got what it wanted.
    pub(super) fn reader_gone(&self) -> bool {
        self.reader_gone.load(Ordering::Relaxed)
    }

    fn note_broken_pipe(&self, error: &std::io::Error) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            self.reader_gone.store(true, Ordering::Relaxed);
        }
    }

    /// Standard output for the bytes of an item.
    pub(super) fn bytes_out(&self) -> std::io::Result<BytesOut> {
        // As a file: standard output's own buffer looks for line ends, which the bytes of an item have or have not.
        let stream = std::io::stdout().as_fd().try_clone_to_owned()?;
        Ok(BytesOut {
            inner: tokio::fs::File::from_std(stream.into()),
            screen: self.clone(),
        })
    }

    /// A writer for log lines.
    pub(super) fn log_lines(&self) -> LogLines {
        LogLines { screen: self.clone() }
    }
}

/// Standard output that remembers when its reader went away.
#[derive(Debug)]
pub(super) struct BytesOut {
    inner: tokio::fs::File,
    screen: Screen,
}

impl BytesOut {
    fn noted<T>(&self, poll: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if let Poll::Ready(Err(error)) = &poll {
            self.screen.note_broken_pipe(error);
        }
        poll
    }
}

impl AsyncWrite for BytesOut {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noted(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.noted(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.noted(poll)
    }
}

/// Where `tracing` writes: standard error, never through a bar.
#[derive(Debug, Clone)]
pub(super) struct LogLines {
    screen: Screen,
}

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.screen.aside(|| std::io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
