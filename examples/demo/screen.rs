//! What the demo prints: plain where nobody watches (`NO_COLOR` counts as nobody).

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::decision::Decision;

/// Where a paragraph is broken.
const WIDTH: usize = 90;
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Standard output. Whoever closed it does not want to hear of it, so failures are ignored.
pub struct Screen {
    /// Whether to use colours.
    pub colours: bool,
    begun: Cell<bool>,
}

impl Screen {
    pub fn new() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: io::stdout().is_terminal() && !refused, begun: Cell::new(false) }
    }

    pub fn heading(&self, text: &str) {
        let gap = if self.begun.replace(true) { "\n" } else { "" };
        self.line(&format!("{gap}{}", self.styled(BOLD, text)));
    }

    /// What runs, where, and the file to look at.
    pub fn row(&self, name: &str, what: &str, file: &str) {
        let gap = if file.is_empty() { "" } else { "   " };
        self.line(&format!("  {name:<8} {what}{gap}{}", self.styled(DIM, file)));
    }

    pub fn question(&self, text: &str) {
        self.line(&format!("  {} {text}", self.styled(DIM, ">")));
    }

    /// A remark of the demo's own.
    pub fn note(&self, text: &str) {
        self.line(&format!("  {}", self.styled(DIM, text)));
    }

    /// Something to paste into a shell, so it begins where the line does.
    pub fn command(&self, text: &str) {
        self.line(&format!("\n{text}\n"));
    }

    pub fn error(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", self.styled(RED, &format!("demo: {text}")));
    }

    pub fn decision(&self, decision: &Decision) {
        self.line(&self.styled(DIM, &format!("\n  {:<10}{:<16}{:>9}", "model", "result", "after")));
        for call in &decision.calls {
            let (colour, after) = match call.result.as_str() {
                "usable" | "answered" => (GREEN, format!("{} ms", call.ended_ms)),
                // It was not waited for, so there is no time at which it ended.
                "cancelled" => (YELLOW, "-".to_owned()),
                _ => (RED, format!("{} ms", call.ended_ms)),
            };
            let result = self.styled(colour, &format!("{:<16}", call.result));
            self.line(&format!("  {:<10}{result}{after:>9}", call.model));
        }
        let (got, needed) = &decision.quorum;
        let Decision { outcome, tokens, .. } = decision;
        self.note(&format!(
            "outcome {outcome}: {got} usable answers, {needed} needed; {tokens} tokens in all"
        ));
    }

    /// Shows that something goes on, until dropped; nothing where nobody watches.
    pub fn waiting(&self, what: &'static str) -> Waiting {
        let bar = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Waiting(bar)
    }

    /// A text that comes in pieces.
    pub fn paragraph(&self) -> Paragraph {
        Paragraph { column: 0, word: String::new() }
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.colours && !text.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        let _ = writeln!(io::stdout(), "{text}");
    }
}

/// A spinner.
pub struct Waiting(ProgressBar);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Prints a text word by word, indented and broken at the width. It ends when it is dropped.
pub struct Paragraph {
    column: usize,
    word: String,
}

impl Paragraph {
    pub fn push(&mut self, piece: &str) {
        for character in piece.chars() {
            match character {
                '\n' => {
                    self.flush_word();
                    self.column = 0;
                }
                ' ' => self.flush_word(),
                // A model's words should not move the cursor.
                other if other.is_control() => {}
                other => self.word.push(other),
            }
        }
        let _ = io::stdout().flush();
    }

    fn flush_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let length = self.word.chars().count();
        let before = match self.column {
            0 => "\n  ",
            column if column + 1 + length > WIDTH => "\n  ",
            _ => " ",
        };
        self.column = if before == " " { self.column + 1 + length } else { 2 + length };
        let _ = write!(io::stdout(), "{before}{}", std::mem::take(&mut self.word));
    }
}

impl Drop for Paragraph {
    fn drop(&mut self) {
        self.flush_word();
        if self.column > 0 {
            let _ = writeln!(io::stdout());
        }
    }
}
