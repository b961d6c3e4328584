//! A byte stream of unknown length into blobs: cut by content, hash, gather, and a list of what came of it.
//!
//! While one window is hashed on a blocking thread the next is read. Where the repository knows earlier nights, windows wait until the
//! two after them are hashed: what is used around a blob decides whether its old frame is still worth reading (`thin`). The end of the stream is believed only if the
//! reader says so: an error at the end fails the stream.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

use super::alongside::Alongside;
use super::gather::Gatherer;
use super::lists::ListWriter;
use super::{Error, Result, Writer};
use crate::format::BlobId;
use crate::format::chunk::Chunker;
use crate::format::list::List;
use crate::repo::aside;

/// Raw bytes that are read, cut and hashed together.
const WINDOW_BYTES: usize = 2 << 20;

/// Where the bytes of a stream come from.
pub trait Source: Send {
    /// Append the next bytes to `buffer`; 0 is the end of a stream that is whole. A source that did not end well fails.
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut) -> BoxFuture<'a, std::result::Result<usize, SourceError>>;
}

/// Why a source failed.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// What became of a stream.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its blobs.
    pub list: List,
    /// Raw bytes.
    pub read_bytes: u64,
    /// Raw bytes that the repository did not have.
    pub new_bytes: u64,
}

/// Bytes, and the blobs in them.
type Window = (Bytes, Vec<(BlobId, Range<usize>)>);
type Hashed = BoxFuture<'static, Result<Window>>;

impl Writer {
    /// Store everything that `source` gives until its end. `advance` is told of raw bytes as they are read;
    /// `alongside` is the list that this stream had in the last snapshot, where the index did not fit into memory.
    pub async fn store_stream(
        &self,
        what: &str,
        source: &mut dyn Source,
        mut alongside: Option<Alongside<'_>>,
        advance: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Stored> {
        let chunker = Chunker::new(self.inner.repository.info.chunk_sizes).map_err(|source| Error::Encode { source })?;
        let mut gatherer = Gatherer::for_stream(self);
        let mut windows = VecDeque::new();
        let mut list = ListWriter::new(self);
        let mut buffer = BytesMut::new();
        let mut hashing: Option<Hashed> = None;
        let mut read_bytes = 0;
        loop {
            let (read, at_end) = fill(source, &mut buffer).await.map_err(|source| Error::Source {
                what: what.to_owned(),
                source,
            })?;
            read_bytes += read as u64;
            advance(read as u64);
            let cuts = cut(&chunker, &buffer, at_end);
            let window = buffer.split_to(cuts.last().map_or(0, |last| last.end)).freeze();
            if let Some(hashed) = hashing.take() {
                let hashed = hashed.await?;
                let ahead = gatherer.look_ahead(&hashed.1);
                windows.push_back(hashed);
                if windows.len() > ahead {
                    push(&mut gatherer, &mut alongside, read_bytes, windows.pop_front()).await?;
                }
            }
            hashing = Some(aside::work(move || hash(window, cuts)));
            while let Some(entry) = gatherer.ready() {
                list.push(entry).await?;
            }
            if at_end {
                break;
            }
        }
        if let Some(hashed) = hashing {
            let hashed = hashed.await?;
            gatherer.look_ahead(&hashed.1);
            windows.push_back(hashed);
        }
        while !windows.is_empty() {
            push(&mut gatherer, &mut alongside, read_bytes, windows.pop_front()).await?;
        }
        gatherer.finish().await?;
        while let Some(entry) = gatherer.ready() {
            list.push(entry).await?;
        }
        Ok(Stored {
            list: list.finish().await?,
            read_bytes,
            new_bytes: gatherer.new_bytes,
        })
    }
}

async fn push(gatherer: &mut Gatherer, alongside: &mut Option<Alongside<'_>>, position: u64, window: Option<Window>) -> Result<()> {
    let Some((window, blobs)) = window else { return Ok(()) };
    match alongside {
        Some(alongside) => {
            alongside.advance(position).await?;
            gatherer.push(&window, blobs, &|id| alongside.hint(id)).await
        }
        None => gatherer.push(&window, blobs, &|_| None).await,
    }
}

/// Read until the window is full or the stream has ended.
async fn fill(source: &mut dyn Source, buffer: &mut BytesMut) -> std::result::Result<(usize, bool), SourceError> {
    let before = buffer.len();
    buffer.reserve(WINDOW_BYTES - before.min(WINDOW_BYTES / 2));
    while buffer.len() < WINDOW_BYTES {
        if source.read(buffer).await? == 0 {
            return Ok((buffer.len() - before, true));
        }
    }
    Ok((buffer.len() - before, false))
}

fn cut(chunker: &Chunker, data: &[u8], at_end: bool) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let mut start = 0;
    while let Some(length) = chunker.cut(&data[start..], at_end) {
        cuts.push(start..start + length);
        start += length;
    }
    cuts
}

fn hash(window: Bytes, cuts: Vec<Range<usize>>) -> Window {
    let blobs = cuts.into_iter().map(|range| (BlobId::of(&window[range.clone()]), range)).collect();
    (window, blobs)
}
