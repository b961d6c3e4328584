//! Columns of text, as wide as what stands in them.
//!
//! The last column is never padded, so long names and messages belong there.

use super::text::Colour;
use std::fmt::Write as _;

/// Where a column's words stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading. Cells must be harmless already.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row, a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines, each with its end.
    pub(crate) fn print(&self, colour: bool) -> String {
        let width = |at: usize, heading: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([heading.chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (heading, _))| width(at, heading))
            .collect();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let mut out = Colour::Bold.paint(&self.line(&headings, &widths), colour);
        out.push('\n');
        for row in &self.rows {
            out.push_str(&self.line(row, &widths));
            out.push('\n');
        }
        out
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut out = String::new();
        for ((cell, width), (_, side)) in cells.iter().zip(widths).zip(&self.columns) {
            if !out.is_empty() {
                out.push_str("  ");
            }
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            match side {
                Side::Left => {
                    let _ = write!(out, "{cell}{gap}");
                }
                Side::Right => {
                    let _ = write!(out, "{gap}{cell}");
                }
            }
        }
        out.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut table = Table::new(&[("id", Side::Left), ("size", Side::Right), ("name", Side::Left)]);
        table.row(vec!["3f".into(), "1,024".into(), "homeserver.yaml".into()]);
        table.row(vec!["a4c1".into(), "7".into(), "x".into()]);
        assert_eq!(
            table.print(false),
            "id     size  name\n3f    1,024  homeserver.yaml\na4c1      7  x\n"
        );
    }
}
