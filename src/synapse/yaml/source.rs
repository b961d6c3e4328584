//! The text itself, before and beside the parser: what `PyYAML`'s reader and scanner refuse and a YAML 1.2 parser accepts.
//!
//! Bytes that are not UTF-8, characters that do not print, files that are too large, and tabs: `PyYAML` takes a tab only
//! inside quotes, block scalars and comments.

use std::ops::Range;

use super::{Position, YAML_BYTES_MAX, YamlError};

const START: Position = Position { line: 1, column: 1 };

/// The text without its byte order mark.
pub(super) fn read(bytes: &[u8]) -> Result<&str, YamlError> {
    if bytes.len() > YAML_BYTES_MAX {
        return Err(YamlError::new(
            START,
            format!("the file is larger than {} MiB", YAML_BYTES_MAX >> 20),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        YamlError::new(place(good.chars()), "the file is not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((offset, _)) = text.char_indices().find(|&(_, c)| !is_printable(c)) {
        return Err(YamlError::new(
            place(text[..offset].chars()),
            "a control character, which YAML does not allow",
        ));
    }
    Ok(text)
}

/// Refuses tabs outside `opaque`, the ranges (in characters, ascending) of quoted and block scalars, and outside comments.
pub(super) fn refuse_tabs(text: &str, opaque: &[Range<usize>]) -> Result<(), YamlError> {
    if !text.contains('\t') {
        return Ok(());
    }
    let chars: Vec<char> = text.chars().collect();
    // The parser counts the white space after a quoted scalar to it.
    let end = |range: &Range<usize>| {
        let inside = chars.get(range.start..range.end.min(chars.len())).unwrap_or_default();
        let quoted = matches!(inside.first(), Some('"' | '\''));
        range.start
            + inside
                .iter()
                .rposition(|c| !quoted || !c.is_whitespace())
                .map_or(0, |last| last + 1)
    };
    let mut opaque = opaque.iter().map(|range| range.start..end(range)).peekable();
    let mut in_comment = false;
    let mut before = '\n';
    for (index, &c) in chars.iter().enumerate() {
        while opaque.next_if(|range| range.end <= index).is_some() {}
        let in_scalar = opaque.peek().is_some_and(|range| range.contains(&index));
        in_comment = !in_scalar && c != '\n' && c != '\r' && (in_comment || (c == '#' && before.is_whitespace()));
        if c == '\t' && !in_scalar && !in_comment {
            return Err(YamlError::new(
                place(chars[..index].iter().copied()),
                "a tab where only spaces are allowed",
            ));
        }
        before = c;
    }
    Ok(())
}

/// `Reader.NON_PRINTABLE` of `PyYAML`, turned around.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

fn place(before: impl Iterator<Item = char>) -> Position {
    before.fold(START, |at, c| match c {
        '\n' => Position {
            line: at.line + 1,
            column: 1,
        },
        _ => Position {
            line: at.line,
            column: at.column + 1,
        },
    })
}
