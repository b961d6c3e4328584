//! Reading fixed-size fields off the front of bytes that came from the bucket.
//!
//! Every field has a name, and an error says which one was cut short, of what, and at which byte. Nothing here takes
//! memory: counts and lengths are checked by the callers, who know their limits.

use super::{Error, Result};

/// A cursor over the bytes of one `what`.
pub(super) struct Fields<'a> {
    what: &'static str,
    data: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(what: &'static str, data: &'a [u8]) -> Self {
        Self { what, data, at: 0 }
    }

    /// The next `N` bytes, as they stand.
    pub(super) fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let found = rest.first_chunk::<N>().ok_or_else(|| self.damaged(field))?;
        self.at += N;
        Ok(*found)
    }

    pub(super) fn u8(&mut self, field: &str) -> Result<u8> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self, field: &str) -> Result<i64> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// The next bytes must be these.
    pub(super) fn expect<const N: usize>(&mut self, field: &str, wanted: &[u8; N]) -> Result<()> {
        let start = self.at;
        if self.array::<N>(field)? == *wanted {
            return Ok(());
        }
        self.at = start;
        Err(self.damaged(field))
    }

    /// The next `length` bytes, borrowed.
    pub(super) fn bytes(&mut self, field: &str, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(|| self.damaged(field))?;
        let found = self.data.get(self.at..end).ok_or_else(|| self.damaged(field))?;
        self.at = end;
        Ok(found)
    }

    /// An error that names `field` and the byte where the cursor stands.
    pub(super) fn damaged(&self, field: &str) -> Error {
        Error::damaged(self.what, format!("byte {}: {field}", self.at))
    }
}
