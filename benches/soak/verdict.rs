//! What is said in the end.

/// A table of what must hold and what was seen.
#[derive(Debug, Default)]
pub struct Verdict {
    rows: Vec<(String, String, bool)>,
}

impl Verdict {
    pub fn says(&mut self, what: impl Into<String>, seen: impl Into<String>, holds: bool) {
        self.rows.push((what.into(), seen.into(), holds));
    }

    /// Two counts of the same.
    pub fn same(&mut self, what: impl Into<String>, one: u64, other: u64) {
        self.says(what, format!("{one} and {other}"), one == other);
    }

    /// A count of what must not be.
    pub fn none(&mut self, what: impl Into<String>, count: u64) {
        self.says(what, count.to_string(), count == 0);
    }

    pub fn holds(&self) -> bool {
        self.rows.iter().all(|(_, _, holds)| *holds)
    }

    /// In Markdown.
    pub fn table(&self) -> String {
        let mut table = "| what | seen | |\n|---|---|---|\n".to_owned();
        for (what, seen, holds) in &self.rows {
            let word = if *holds { "pass" } else { "**FAIL**" };
            table.push_str(&format!("| {what} | {seen} | {word} |\n"));
        }
        table
    }
}
