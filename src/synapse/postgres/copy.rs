//! Rows as `COPY … TO STDOUT` sends them: one a line, tabs between fields, backslashes for what would be in the way.
//!
//! Rows come as they are read, so the memory is that of one line, however many there are. The format is the text format
//! of the PostgreSQL documentation, "COPY".

use bytes::BytesMut;

use super::{Error, Session};

/// A stream of rows. Dropped before its end, it leaves the session unusable: close that.
#[derive(Debug)]
pub struct CopyOut<'s> {
    session: &'s mut Session,
    what: String,
    done: bool,
}

impl<'s> CopyOut<'s> {
    pub(super) fn new(session: &'s mut Session, what: String) -> Self {
        Self {
            session,
            what,
            done: false,
        }
    }

    /// The next row as it came, without its line end; `None` when all are read and the server said so.
    pub async fn next_line(&mut self) -> Result<Option<BytesMut>, Error> {
        if self.done {
            return Ok(None);
        }
        let line = self.session.line(&self.what).await?;
        self.done = line.is_none();
        Ok(line)
    }

    /// The next row, each field decoded; `None` in a field is NULL.
    pub async fn next_row(&mut self) -> Result<Option<Vec<Option<String>>>, Error> {
        let Some(line) = self.next_line().await? else { return Ok(None) };
        let row = decode_row(&line).ok_or_else(|| Error::Answer {
            what: self.what.clone(),
            reason: "a row of COPY is malformed".into(),
        })?;
        Ok(Some(row))
    }
}

/// The fields of one line; `None` when an escape or the UTF-8 is broken.
pub fn decode_row(line: &[u8]) -> Option<Vec<Option<String>>> {
    line.split(|byte| *byte == b'\t').map(decode_field).collect()
}

#[expect(clippy::option_option, reason = "the outer one is an error, the inner one is NULL")]
fn decode_field(field: &[u8]) -> Option<Option<String>> {
    if field == b"\\N" {
        return Some(None);
    }
    if !field.contains(&b'\\') {
        return Some(Some(std::str::from_utf8(field).ok()?.to_owned()));
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first()?;
        rest = after;
        bytes.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            other => other,
        });
    }
    Some(Some(String::from_utf8(bytes).ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_as_copy_writes_them() {
        for (line, expected) in [
            ("a\tb", vec![Some("a"), Some("b")]),
            ("\\N\t\t\\\\N", vec![None, Some(""), Some("\\N")]),
            (r"a\tb\nc\\d\re", vec![Some("a\tb\nc\\d\re")]),
            (r"\b\f\v", vec![Some("\u{8}\u{c}\u{b}")]),
            ("", vec![Some("")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|field| field.map(str::to_owned)).collect();
            assert_eq!(decode_row(line.as_bytes()).unwrap(), expected, "{line}");
        }
        assert_eq!(decode_row(b"cut\\"), None);
        assert_eq!(decode_row(b"\xff"), None);
    }
}
