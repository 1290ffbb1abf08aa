//! Columns as kubectl aligns them: left, three spaces apart, never wrapped.

use std::fmt::Write as _;

use anstyle::Style;

/// The space between two columns.
const GAP: usize = 3;

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a colour.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// A table with a header.
#[derive(Clone, Debug)]
pub struct Table<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    /// An empty table.
    pub fn new(header: [&'static str; N]) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// The lines, with escape codes where cells have colours.
    pub fn render(&self) -> String {
        let header = self.header.map(Cell::from);
        let rows = || std::iter::once(&header).chain(&self.rows);
        let widths: [usize; N] = std::array::from_fn(|column| {
            rows().map(|row| row[column].text.chars().count()).max().unwrap_or(0)
        });
        let mut out = String::new();
        for row in rows() {
            // Nothing after the last text of a line: what is copied from it should hold no spaces.
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (cell, width) in row.iter().zip(widths).take(last + 1) {
                let Cell { text, style } = cell;
                let _ = write!(out, "{style}{text}{style:#}");
                out.extend(std::iter::repeat_n(' ', width - text.chars().count() + GAP));
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "SKEW", "REASON"]);
        table.add(["worker-1".into(), "2".into(), "".into()]);
        table.add(["w".into(), "10".into(), "x".into()]);
        assert_eq!(table.render(), "NAME       SKEW   REASON\nworker-1   2\nw          10     x\n");
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::new(["A", "B"]);
        table.add([Cell::styled("x", AnsiColor::Red.on_default()), "y".into()]);
        assert_eq!(anstream::adapter::strip_str(&table.render()).to_string(), "A   B\nx   y\n");
    }
}
