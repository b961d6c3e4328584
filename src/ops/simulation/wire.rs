//! The network between the simulated processes and the store: requests that are on their way, and what became of them.
//!
//! A request is sent by a process and does nothing by itself. The scheduler *lands* it (now it takes effect, all at once)
//! and *answers* it, in two steps, or never. A process may be told that a request failed while it is still on its way; a process may
//! be dead when its request lands. The objects are those of the store in memory, whose clock the scheduler moves.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use tokio::sync::oneshot;

use super::site::Site;
use crate::store::memory::Memory;
use crate::store::{ByteRange, Call, Error, Got, Head, Page, PartTag, Stamp, Store, UploadId};

/// What is asked of the store.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Put(String, Bytes),
    Copy(String, String),
    Get(String, ByteRange),
    Head(String),
    List(String, Option<String>),
    Delete(String),
}

impl Ask {
    /// It changes something.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Copy(..) | Self::Delete(_))
    }

    /// The error when nobody knows what became of it.
    pub(super) fn lost(&self) -> Error {
        let (unknown, action, key) = match self {
            Self::Put(key, _) => (true, "PUT", key),
            Self::Copy(_, to) => (true, "COPY", to),
            Self::Get(key, _) => (false, "GET", key),
            Self::Head(key) => (false, "HEAD", key),
            Self::List(key, _) => (false, "LIST", key),
            Self::Delete(key) => (false, "DELETE", key),
        };
        let (key, source) = (key.clone(), "the network".into());
        if unknown {
            Error::Unknown { action, key, source }
        } else {
            Error::Failed { action, key, source }
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, _) => write!(f, "PUT {key}"),
            Self::Copy(from, to) => write!(f, "COPY {from} to {to}"),
            Self::Get(key, _) => write!(f, "GET {key}"),
            Self::Head(key) => write!(f, "HEAD {key}"),
            Self::List(prefix, None) => write!(f, "LIST {prefix}"),
            Self::List(prefix, Some(after)) => write!(f, "LIST {prefix} after {after}"),
            Self::Delete(key) => write!(f, "DELETE {key}"),
        }
    }
}

/// What the store says.
#[derive(Debug)]
pub(super) enum Answer {
    Stamp(Stamp),
    Got(Got),
    Head(Head),
    Page(Page),
}

type Answered = Result<Answer, Error>;

/// A request that is on its way, or whose answer is.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) process: usize,
    pub(super) site: Site,
    pub(super) ask: Ask,
    /// It took effect, and this is the answer.
    pub(super) landed: Option<Answered>,
    waiting: Option<oneshot::Sender<Answered>>,
    /// The scheduler knows whether its process stands still before it.
    pub(super) considered: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}{}", self.process, self.number, self.ask, self.site.suffix())
    }
}

impl Request {
    /// Somebody waits for the answer.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.is_closed())
    }

    /// Whoever waited is gone.
    pub(super) fn nobody_waits(&mut self) {
        self.waiting = None;
    }

    /// The answer arrives, if somebody waits for it.
    pub(super) fn answer(&mut self, answer: Answered) {
        if let Some(waiting) = self.waiting.take() {
            // Whoever gave up does not hear it.
            let _ = waiting.send(answer);
        }
    }
}

/// All requests, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Wire {
    sent: u64,
    pub(super) requests: Vec<Request>,
    /// Processes that send nothing more and hear nothing more.
    pub(super) dead: Vec<usize>,
}

/// A store as one process sees it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    wire: Arc<Mutex<Wire>>,
    process: usize,
    site: Site,
}

impl Line {
    pub(super) fn new(wire: Arc<Mutex<Wire>>, process: usize, site: Site) -> Self {
        Self { wire, process, site }
    }

    async fn ask(&self, ask: Ask) -> Answered {
        let (sender, receiver) = oneshot::channel();
        {
            let mut wire = lock(&self.wire);
            if !wire.dead.contains(&self.process) {
                wire.sent += 1;
                let number = wire.sent;
                wire.requests.push(Request {
                    number,
                    process: self.process,
                    site: self.site,
                    ask,
                    landed: None,
                    waiting: Some(sender),
                    considered: false,
                });
            }
        }
        match receiver.await {
            Ok(answer) => answer,
            // A dead process hears nothing.
            Err(_) => std::future::pending().await,
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Let it take effect, at a moment for which the store's stamps lag by so much.
pub(super) fn land(memory: &Memory, ask: &Ask, lag: SignedDuration) -> Answered {
    memory.clock().advance(-lag);
    let landed = match ask {
        Ask::Put(key, body) => now(memory.put(key, body.clone())).map(Answer::Stamp),
        Ask::Copy(from, to) => now(memory.copy(from, to)).map(Answer::Stamp),
        Ask::Get(key, range) => now(memory.get(key, *range)).map(Answer::Got),
        Ask::Head(key) => now(memory.head(key)).map(Answer::Head),
        Ask::List(prefix, after) => now(memory.list_page(prefix, after.as_deref())).map(Answer::Page),
        Ask::Delete(key) => now(memory.delete(key)).map(Answer::Stamp),
    };
    memory.clock().advance(lag);
    landed
}

fn now<T>(call: Call<'_, T>) -> Result<T, Error> {
    call.now_or_never().unwrap_or_else(|| Err(odd("memory never waits")))
}

fn odd(what: &str) -> Error {
    Error::Failed {
        action: "SIMULATE",
        key: String::new(),
        source: what.to_owned().into(),
    }
}

/// Ask, and take the kind of answer that belongs to it.
macro_rules! ask {
    ($self:ident, $ask:expr, $kind:ident) => {{
        let ask = $ask;
        Box::pin(async move {
            match $self.ask(ask).await? {
                Answer::$kind(answer) => Ok(answer),
                _ => Err(odd("an answer of another kind")),
            }
        })
    }};
}

impl Store for Line {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Call<'a, Stamp> {
        ask!(self, Ask::Put(key.to_owned(), body), Stamp)
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Call<'a, Stamp> {
        ask!(self, Ask::Copy(from.to_owned(), to.to_owned()), Stamp)
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> Call<'a, Got> {
        ask!(self, Ask::Get(key.to_owned(), range), Got)
    }

    fn head<'a>(&'a self, key: &'a str) -> Call<'a, Head> {
        ask!(self, Ask::Head(key.to_owned()), Head)
    }

    fn list_page<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Call<'a, Page> {
        ask!(self, Ask::List(prefix.to_owned(), after.map(str::to_owned)), Page)
    }

    fn delete<'a>(&'a self, key: &'a str) -> Call<'a, Stamp> {
        ask!(self, Ask::Delete(key.to_owned()), Stamp)
    }

    fn create_upload<'a>(&'a self, _: &'a str) -> Call<'a, UploadId> {
        uploads_are_too_large()
    }

    fn put_part<'a>(&'a self, _: &'a str, _: &'a UploadId, _: u32, _: Bytes) -> Call<'a, PartTag> {
        uploads_are_too_large()
    }

    fn complete_upload<'a>(&'a self, _: &'a str, _: &'a UploadId, _: Vec<PartTag>, _: u64) -> Call<'a, Stamp> {
        uploads_are_too_large()
    }

    fn abort_upload<'a>(&'a self, _: &'a str, _: &'a UploadId) -> Call<'a, ()> {
        uploads_are_too_large()
    }

    fn url(&self) -> &'static str {
        "simulated:"
    }
}

/// Simulated packs are a few kilobytes: nothing is sent in parts.
fn uploads_are_too_large<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(async { Err(odd("nothing here is large enough for parts")) })
}
