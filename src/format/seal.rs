//! Sealing: age v1 around a whole object, written as a stream and opened by range.
//!
//! An age file is a header (one stanza per recipient), a nonce, and chunks of 64 KiB, each sealed by itself under its number
//! and whether it is the last. So a few bytes of a large pack cost the chunks that cover them, and an object that was cut short has no last
//! chunk. The header is the `age` crate's; chunks are sealed and opened here: its reader wants the whole file, and its writer
//! copies each chunk three times. Sealing draws fresh keys from the operating system: the one thing on this floor that is not the same twice.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{Error, Result, within};

/// Plain bytes of a chunk.
pub const CHUNK_BYTES: u64 = 64 << 10;
const TAG_BYTES: u64 = 16;
/// The same two as lengths in memory.
const PLAIN_CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// Sealed bytes of a chunk.
pub const SEALED_CHUNK_BYTES: u64 = CHUNK_BYTES + TAG_BYTES;
/// Header and nonce are read with one GET of so many bytes.
pub const HEADER_BYTES_MAX: u64 = 4096;
/// An object of so many plain bytes is at most this long when it is sealed.
pub fn sealed_bytes_max(plain: u64) -> u64 {
    (plain / CHUNK_BYTES)
        .saturating_add(1)
        .saturating_mul(SEALED_CHUNK_BYTES)
        .saturating_add(HEADER_BYTES_MAX)
}

/// Recipients of one object; their stanzas fit the header.
pub const RECIPIENTS_MAX: usize = 24;
const NONCE_BYTES: usize = 16;
const SEAL: &str = "seal";
/// What the stanza of a recipient is called; others are there so that no reader relies on the number.
const X25519: &str = "X25519";

/// To whom an object is sealed: a public key, `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.trim()
            .parse()
            .map(Self)
            .map_err(|_| "an age recipient looks like age1… and has 62 characters")
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What opens: a secret key, `AGE-SECRET-KEY-1…`. Its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Identity(age::x25519::Identity);

impl Identity {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Its public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// As it stands in a file.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }
}

impl FromStr for Identity {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.trim().parse().map(Self).map_err(|_| "not an age identity")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", self.recipient())
    }
}

/// Seals a stream: plain bytes in, sealed bytes out as they come. Holds one chunk, which is sealed where it lies.
pub struct Sealer {
    cipher: LessSafeKey,
    /// Header and nonce, until the first bytes are taken.
    head: Vec<u8>,
    /// Plain bytes of the chunk that is being filled. It stays open until more comes, since the last one is sealed as the last.
    chunk: Vec<u8>,
    number: u64,
    sealed_bytes: u64,
}

impl Sealer {
    /// To these recipients, at least one. The header is the `age` crate's, with a file key that it draws.
    pub fn new<'a>(recipients: impl IntoIterator<Item = &'a Recipient>) -> Result<Self> {
        let catches: Vec<CatchMade<'_>> = recipients.into_iter().map(CatchMade::new).collect();
        within("recipients", catches.len() as u64, RECIPIENTS_MAX as u64)?;
        let encryptor = age::Encryptor::with_recipients(catches.iter().map(|catch| catch as &dyn age::Recipient)).map_err(cannot)?;
        let mut head = Vec::new();
        drop(encryptor.wrap_output(&mut head).map_err(cannot)?);
        let file_key = catches.iter().find_map(|catch| catch.caught.borrow_mut().take());
        let file_key = file_key.ok_or_else(|| cannot("no file key was drawn"))?;
        Ok(Self {
            cipher: payload_cipher(&file_key, &head)?,
            head,
            chunk: Vec::new(),
            number: 0,
            sealed_bytes: 0,
        })
    }

    /// Takes plain bytes and gives what is sealed so far, which may be nothing yet.
    pub fn push(&mut self, mut plain: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = std::mem::take(&mut self.head);
        while !plain.is_empty() {
            if self.chunk.len() == PLAIN_CHUNK {
                self.seal_chunk(false, &mut sealed)?;
            }
            let (now, later) = plain.split_at(plain.len().min(PLAIN_CHUNK - self.chunk.len()));
            if self.chunk.capacity() == 0 {
                self.chunk.reserve_exact(PLAIN_CHUNK + TAG);
            }
            self.chunk.extend_from_slice(now);
            plain = later;
        }
        self.sealed_bytes += sealed.len() as u64;
        Ok(sealed)
    }

    /// The last chunk, and how many bytes were sealed in all.
    pub fn finish(mut self) -> Result<(Vec<u8>, u64)> {
        let mut sealed = std::mem::take(&mut self.head);
        self.seal_chunk(true, &mut sealed)?;
        let sealed_bytes = self.sealed_bytes + sealed.len() as u64;
        Ok((sealed, sealed_bytes))
    }

    /// The chunk goes to `sealed`, itself where that is empty, and the next one begins.
    fn seal_chunk(&mut self, is_last: bool, sealed: &mut Vec<u8>) -> Result<()> {
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce(self.number, is_last), Aad::empty(), &mut self.chunk)
            .map_err(cannot)?;
        self.number += 1;
        self.chunk.extend_from_slice(tag.as_ref());
        if sealed.is_empty() {
            std::mem::swap(sealed, &mut self.chunk);
        } else {
            sealed.append(&mut self.chunk);
        }
        Ok(())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(after {} bytes)", self.sealed_bytes)
    }
}

fn cannot(error: impl fmt::Display) -> Error {
    Error::Invalid {
        what: SEAL,
        reason: error.to_string(),
    }
}

/// What seals and opens the chunks behind a header with its nonce.
fn payload_cipher(file_key: &[u8; 16], head: &[u8]) -> Result<LessSafeKey> {
    let nonce = &head[head.len() - NONCE_BYTES..];
    let key = Zeroizing::new(age_core::primitives::hkdf(nonce, b"payload", file_key));
    UnboundKey::new(&CHACHA20_POLY1305, &*key).map(LessSafeKey::new).map_err(cannot)
}

/// A whole object at once.
pub fn seal<'a>(recipients: impl IntoIterator<Item = &'a Recipient>, plain: &[u8]) -> Result<Vec<u8>> {
    let mut sealer = Sealer::new(recipients)?;
    let mut sealed = sealer.push(plain)?;
    sealed.append(&mut sealer.finish()?.0);
    Ok(sealed)
}

/// The opened header of one object: opens any of its chunks. Its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Opener {
    cipher: Arc<LessSafeKey>,
    header_bytes: u64,
    opened_by: usize,
}

impl Opener {
    /// From the first bytes of the object ([`HEADER_BYTES_MAX`] are enough). [`Error::NoKey`]: it is sealed to others.
    pub fn new(head: &[u8], identities: &[Identity]) -> Result<Self> {
        let mut rest = &head[..head.len().min(usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX))];
        let whole = rest.len();
        let unread = |error: age::DecryptError| Error::damaged(SEAL, format!("its header: {error}"));
        let decryptor = age::Decryptor::new_buffered(&mut rest).map_err(unread)?;
        let catches: Vec<Catch<'_>> = identities.iter().map(Catch::new).collect();
        let opened = decryptor.decrypt(catches.iter().map(|catch| catch as &dyn age::Identity));
        match opened.map(drop) {
            Ok(()) => {}
            Err(age::DecryptError::NoMatchingKeys) => return Err(Error::NoKey),
            Err(error) => return Err(unread(error)),
        }
        let caught = |(at, catch): (usize, &Catch<'_>)| Some((at, catch.caught.borrow_mut().take()?));
        let (opened_by, file_key) = catches.iter().enumerate().find_map(caught).ok_or(Error::NoKey)?;
        let header = whole - rest.len();
        Ok(Self {
            cipher: Arc::new(payload_cipher(&file_key, &head[..header])?),
            header_bytes: header as u64,
            opened_by,
        })
    }

    /// Which of the identities has opened it.
    pub fn opened_by(&self) -> usize {
        self.opened_by
    }

    /// Plain length of an object of so many sealed bytes.
    pub fn plain_bytes(&self, sealed_bytes: u64) -> Result<u64> {
        let payload = sealed_bytes
            .checked_sub(self.header_bytes)
            .filter(|payload| *payload >= TAG_BYTES)
            .ok_or_else(|| Error::damaged(SEAL, "its end: cut short"))?;
        let chunks = payload.div_ceil(SEALED_CHUNK_BYTES);
        payload
            .checked_sub(chunks * TAG_BYTES)
            .ok_or_else(|| Error::damaged(SEAL, "its end: cut short"))
    }

    /// The first chunk that holds any of these plain bytes, and the sealed bytes (from, to) that must be read for them.
    pub fn covering(&self, plain: (u64, u64), sealed_bytes: u64) -> (u64, (u64, u64)) {
        let first = plain.0 / CHUNK_BYTES;
        let end = plain.1.div_ceil(CHUNK_BYTES).max(first + 1);
        let place = |chunk: u64| (self.header_bytes + chunk * SEALED_CHUNK_BYTES).min(sealed_bytes);
        (first, (place(first), place(end)))
    }

    /// Opens whole chunks, from number `first` on. What reaches the object's end must end in a chunk that was sealed as the last.
    pub fn open(&self, first: u64, sealed: &[u8], sealed_bytes: u64) -> Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(sealed.len());
        let mut place = self.header_bytes + first * SEALED_CHUNK_BYTES;
        let chunk_bytes = usize::try_from(SEALED_CHUNK_BYTES).unwrap_or(usize::MAX);
        for (number, chunk) in (first..).zip(sealed.chunks(chunk_bytes)) {
            place += chunk.len() as u64;
            let is_last = place == sealed_bytes;
            let damaged = || Error::damaged(SEAL, format!("chunk {number}"));
            let tag_at = chunk.len().checked_sub(16).ok_or_else(damaged)?;
            // Only an empty object has an empty chunk; only the last one may be short.
            if (tag_at == 0 && number > 0) || (chunk.len() < chunk_bytes && !is_last) {
                return Err(damaged());
            }
            let from = plain.len();
            plain.extend_from_slice(chunk);
            self.cipher
                .open_in_place(nonce(number, is_last), Aad::empty(), &mut plain[from..])
                .map_err(|_| damaged())?;
            plain.truncate(from + tag_at);
        }
        Ok(plain)
    }

    /// A whole object, of which the header was opened.
    pub fn open_whole(&self, object: &[u8]) -> Result<Vec<u8>> {
        let bytes = object.len() as u64;
        self.plain_bytes(bytes)?;
        let header = usize::try_from(self.header_bytes).unwrap_or(usize::MAX);
        self.open(0, &object[header..], bytes)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener(header of {} bytes)", self.header_bytes)
    }
}

/// A whole object at once.
pub fn open(object: &[u8], identities: &[Identity]) -> Result<Vec<u8>> {
    Opener::new(object, identities)?.open_whole(object)
}

/// What the header of an object tells of whom it is sealed to: it names nobody, so that keys must be tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// How many recipients it has.
    pub recipients: usize,
    /// Which of the identities open it.
    pub opened_by: Vec<usize>,
}

impl Header {
    /// From the first bytes of the object ([`HEADER_BYTES_MAX`] are enough).
    pub fn read(head: &[u8], identities: &[Identity]) -> Result<Self> {
        let unread = |error: age::DecryptError| Error::damaged(SEAL, format!("its header: {error}"));
        let look = Look {
            identities,
            seen: RefCell::default(),
        };
        let decryptor = age::Decryptor::new_buffered(head).map_err(unread)?;
        match decryptor.decrypt(std::iter::once(&look as &dyn age::Identity)).map(drop) {
            Ok(()) | Err(age::DecryptError::NoMatchingKeys) => Ok(look.seen.into_inner()),
            Err(error) => Err(unread(error)),
        }
    }
}

/// An identity that opens nothing, and looks at what it is shown.
struct Look<'a> {
    identities: &'a [Identity],
    seen: RefCell<Header>,
}

impl age::Identity for Look<'_> {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<std::result::Result<FileKey, age::DecryptError>> {
        None
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<std::result::Result<FileKey, age::DecryptError>> {
        let opens = |identity: &Identity| matches!(identity.0.unwrap_stanzas(stanzas), Some(Ok(_)));
        *self.seen.borrow_mut() = Header {
            recipients: stanzas.iter().filter(|stanza| stanza.tag == X25519).count(),
            opened_by: (0..self.identities.len()).filter(|at| opens(&self.identities[*at])).collect(),
        };
        None
    }
}

/// 11 bytes of chunk number, big-endian, and whether it is the last.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// A recipient that keeps the file key that is wrapped for it, since the crate's writer does not give it away.
struct CatchMade<'a> {
    recipient: &'a Recipient,
    caught: RefCell<Option<Zeroizing<[u8; 16]>>>,
}

impl<'a> CatchMade<'a> {
    fn new(recipient: &'a Recipient) -> Self {
        Self {
            recipient,
            caught: RefCell::new(None),
        }
    }
}

impl age::Recipient for CatchMade<'_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> std::result::Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        *self.caught.borrow_mut() = Some(Zeroizing::new(*file_key.expose_secret()));
        self.recipient.0.wrap_file_key(file_key)
    }
}

/// An identity that keeps the file key that it finds, since the crate's reader does not give it away.
struct Catch<'a> {
    identity: &'a Identity,
    caught: RefCell<Option<Zeroizing<[u8; 16]>>>,
}

impl<'a> Catch<'a> {
    fn new(identity: &'a Identity) -> Self {
        Self {
            identity,
            caught: RefCell::new(None),
        }
    }
}

impl age::Identity for Catch<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<std::result::Result<FileKey, age::DecryptError>> {
        let found = self.identity.0.unwrap_stanza(stanza);
        if let Some(Ok(key)) = &found {
            *self.caught.borrow_mut() = Some(Zeroizing::new(*key.expose_secret()));
        }
        found
    }
}

#[cfg(test)]
mod tests;
