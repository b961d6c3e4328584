//! Words for a terminal: what came from outside made harmless, numbers with their units, colours where they are wanted.
//!
//! Names of items come from other people's uploads. A control character in one could move the cursor, hide a line or
//! answer a prompt, so none ever reaches a terminal.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{BinaryBytes, FormattedDuration, HumanCount};

/// Words in less room than this are harder to read than long lines.
const WORDS_COLUMNS_MIN: usize = 30;

/// The text with everything that would not print as itself written as an escape.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unprintable(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters, and the invisible ones that reorder or join what stands around them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// `1.25 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `1 file`, `2 files`.
pub(crate) fn counted(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", count(number))
}

/// `12.3 s` below a minute, `01:02:03` above.
pub(crate) fn seconds(time: Duration) -> String {
    if time < Duration::from_mins(1) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        FormattedDuration(time).to_string()
    }
}

/// The few colours that messages have; none of them carries a meaning that the words do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Headings.
    Bold,
    /// `error:`, failures.
    Red,
    /// Problems, warnings.
    Yellow,
    /// What is well.
    Green,
    /// `hint:`.
    Cyan,
}

impl Colour {
    /// The text in this colour, where `on`.
    pub(crate) fn paint(self, text: &str, on: bool) -> String {
        if !on {
            return text.to_owned();
        }
        let code = match self {
            Self::Bold => "1",
            Self::Red => "1;31",
            Self::Yellow => "33",
            Self::Green => "32",
            Self::Cyan => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Lines of text behind something that takes as much room as `indent`, broken between words where the terminal ends.
pub(crate) fn hanging(text: &str, indent: &str, columns: Option<usize>) -> String {
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(indent.len()).max(WORDS_COLUMNS_MIN));
    let mut out = String::new();
    for line in text.lines() {
        let mut used = 0;
        for word in escaped(line).split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                out.push('\n');
                used = 0;
            }
            if used > 0 {
                out.push(' ');
                used += 1;
            } else if !out.is_empty() {
                out.push_str(indent);
            }
            out.push_str(word);
            used += length;
        }
        out.push('\n');
    }
    if out.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_gets_through() {
        for (given, shown) in [
            ("plain name.jpg", "plain name.jpg"),
            ("größe 图", "größe 图"),
            ("a\nb", "a\\nb"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("cr\rlf", "cr\\rlf"),
            ("csi \u{9b}31m", "csi \\u{9b}31m"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
        ] {
            assert_eq!(escaped(given), shown);
        }
    }

    #[test]
    fn lines_hang_behind_what_they_belong_to() {
        let text = "one two three four five six seven\nnext";
        for (columns, shown) in [
            (None, "one two three four five six seven\n    next\n"),
            (Some(80), "one two three four five six seven\n    next\n"),
            (Some(34), "one two three four five six\n    seven\n    next\n"),
            (Some(10), "one two three four five six\n    seven\n    next\n"),
        ] {
            assert_eq!(hanging(text, "    ", columns), shown, "{columns:?}");
        }
        assert_eq!(hanging("", "    ", Some(80)), "\n");
    }

    #[test]
    fn numbers_read_like_numbers() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_288_490_189), "1.20 GiB");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(20_000, "file"), "20,000 files");
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(3723)), "01:02:03");
    }
}
