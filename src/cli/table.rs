//! Tables, for people or for Markdown.

use std::fmt;

/// Cells below a header. The first column is text, the others are numbers.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    is_markdown: bool,
}

impl Table {
    pub(super) fn new(header: &[&str], is_markdown: bool) -> Self {
        let header = header.iter().map(|&title| title.to_owned()).collect();
        Self { header, rows: Vec::new(), is_markdown }
    }

    pub(super) fn push(&mut self, row: impl Into<Vec<String>>) {
        let mut row = row.into();
        if self.is_markdown {
            row.iter_mut().for_each(|cell| *cell = cell.replace('|', "\\|"));
        }
        self.rows.push(row);
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.header).chain(&self.rows)
    }

    /// The widest cell of each column.
    fn widths(&self) -> Vec<usize> {
        let width = |cell: &String| cell.chars().count();
        let of = |column| self.lines().filter_map(|line: &Vec<String>| line.get(column).map(width)).max();
        (0..self.header.len()).map(|column| of(column).unwrap_or_default()).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, between, right) = if self.is_markdown { ("| ", " | ", " |") } else { ("", "   ", "") };
        let widths = self.widths();
        for (at, line) in self.lines().enumerate() {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let cells: Vec<String> = cells.collect();
            writeln!(f, "{left}{}{right}", cells.join(between))?;
            if at == 0 && self.is_markdown {
                writeln!(f, "|---|{}", "--:|".repeat(self.header.len().saturating_sub(1)))?;
            }
        }
        Ok(())
    }
}

/// A share in per cent.
pub(super) fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * ratio(part, whole))
}

/// How often `part` goes into `whole`; 0 of nothing.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    let of = |count| u32::try_from(count).map_or(f64::INFINITY, f64::from);
    if whole == 0 { 0.0 } else { of(part) / of(whole) }
}
