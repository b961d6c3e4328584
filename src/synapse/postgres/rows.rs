//! The rows of one table out of a stored dump, without a database: `pg_restore` writes them as the script it would run.
//!
//! The dump goes in at one end as it comes from wherever it is kept; rows come out at the other, one after the other, so
//! neither is ever held whole. `pg_restore` stops reading when it has its table.

use bytes::{Bytes, BytesMut};
use futures::stream::Stream;

use super::child::Child;
use super::copy::decode_row;
use super::tools::{Tools, Version};
use super::{ConnInfo, Error};

/// A row is not longer; what has no line end until then is no row.
const ROW_BYTES_MAX: usize = 16 << 20;

/// A row: its fields in the order of the columns that were asked for, `None` for NULL.
#[derive(Debug)]
pub struct Row<'a> {
    columns: &'a [String],
    fields: Vec<Option<String>>,
}

impl Row<'_> {
    /// A field by the name of its column; NULL and a column that is not there are `None`.
    pub fn get(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.fields.get(at)?.as_deref()
    }
}

/// Read a table (of a schema, where one is named) out of the dump that `archive` wrote; `each` gets its rows in their order.
pub async fn of_table<E: From<Error>>(
    info: &ConnInfo,
    tools: &Tools,
    archive: Version,
    (schema, table): (Option<&str>, &str),
    dump: impl Stream<Item = Result<Bytes, E>>,
    mut each: impl FnMut(&Row<'_>),
) -> Result<(), E> {
    let mut command = info.command(&tools.pg_restore(archive)?.path);
    command.args(["--format=custom", "--data-only", "--file=-"]);
    command.arg(format!("--table={table}"));
    if let Some(schema) = schema {
        command.arg(format!("--schema={schema}"));
    }
    let mut child = Child::spawn("pg_restore", command)?;
    let mut script = Script::default();
    child.pass(dump, |output| script.read(output, &mut each)).await?;
    let (status, words) = child.wait_long().await?;
    if status.success() {
        Ok(())
    } else {
        Err(child.failure(status, words).into())
    }
}

/// What `pg_restore` writes: settings, then `COPY schema.table (columns) FROM stdin;`, the rows, and `\.`.
#[derive(Debug, Default)]
struct Script {
    /// Of the rows that are being read.
    columns: Option<Vec<String>>,
}

impl Script {
    /// Take the lines that are whole.
    fn read(&mut self, output: &mut BytesMut, each: &mut impl FnMut(&Row<'_>)) -> Result<(), Error> {
        while let Some(end) = output.iter().position(|byte| *byte == b'\n') {
            let line = output.split_to(end + 1);
            self.line(&line[..end], each)?;
        }
        if output.len() > ROW_BYTES_MAX {
            return Err(malformed("a row has no end"));
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], each: &mut impl FnMut(&Row<'_>)) -> Result<(), Error> {
        let Some(columns) = &self.columns else {
            self.columns = columns_of(line);
            return Ok(());
        };
        if line == b"\\." {
            self.columns = None;
            return Ok(());
        }
        let fields = decode_row(line).filter(|fields| fields.len() == columns.len());
        each(&Row {
            columns,
            fields: fields.ok_or_else(|| malformed("a row is malformed"))?,
        });
        Ok(())
    }
}

fn malformed(reason: &str) -> Error {
    Error::Answer {
        what: "the rows of a table in a dump".into(),
        reason: reason.into(),
    }
}

/// The columns that a `COPY` names; any other line has none.
fn columns_of(line: &[u8]) -> Option<Vec<String>> {
    let line = std::str::from_utf8(line).ok()?;
    let inside = line.strip_prefix("COPY ")?.strip_suffix(") FROM stdin;")?;
    let (_, columns) = inside.rsplit_once(" (")?;
    Some(columns.split(", ").map(|name| name.trim_matches('"').to_owned()).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_stands_between_copy_and_its_end() {
        let script = "SET x = 1;\n--\nCOPY public.t (id, \"order\", note) FROM stdin;\n1\t\\N\ta\\tb\n2\tx\t\n\\.\n\nSELECT 1;\n";
        // However it is cut.
        for size in [1, 7, 1000] {
            let (mut rows, mut buffer, mut read) = (Vec::new(), BytesMut::new(), Script::default());
            for piece in script.as_bytes().chunks(size) {
                buffer.extend_from_slice(piece);
                let mut each = |row: &Row<'_>| {
                    let field = |name| row.get(name).map(str::to_owned);
                    rows.push((field("id"), field("order"), field("note"), field("none")));
                };
                read.read(&mut buffer, &mut each).unwrap();
            }
            let text = |text: &str| Some(text.to_owned());
            let expected = [(text("1"), None, text("a\tb"), None), (text("2"), text("x"), text(""), None)];
            assert_eq!(rows, expected, "{size}");
        }
    }

    #[test]
    fn a_malformed_row_is_an_error() {
        for row in ["1", "1\t2\t3", "1\t\\"] {
            let mut script = Script::default();
            let text = format!("COPY public.t (a, b) FROM stdin;\n{row}\n");
            assert!(script.read(&mut BytesMut::from(text.as_bytes()), &mut |_| {}).is_err(), "{row}");
        }
    }
}
