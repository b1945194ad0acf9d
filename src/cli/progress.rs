//! A run's calls as they go on, for who watches.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::account::{seconds, tone_of_call};
use super::paint::{Paint, plain};
use crate::telemetry::decision::{Call, Decision};

const TICK: Duration = Duration::from_millis(100);

/// One line for each call, on standard error, and only on a terminal.
pub(super) struct Progress {
    screen: MultiProgress,
    lines: HashMap<usize, ProgressBar>,
    paint: Paint,
}

impl Progress {
    pub(super) fn new(paint: Paint) -> Self {
        Self { screen: MultiProgress::new(), lines: HashMap::new(), paint }
    }

    /// Shows how far a run has come.
    pub(super) fn show(&mut self, decision: &Decision) {
        if self.screen.is_hidden() {
            return;
        }
        let calls = decision.members.iter().chain(&decision.judges);
        let width = calls.clone().map(|call| call.model.chars().count()).max().unwrap_or_default();
        for (place, call) in calls.enumerate() {
            let line = self.lines.entry(place).or_insert_with(|| line(&self.screen));
            line.set_prefix(format!("{:<width$}", plain(&call.model)));
            if call.result == "running" {
                line.set_message(heard(call));
            } else if !line.is_finished() {
                let result = self.paint.toned(&call.result.replace('_', " "), tone_of_call(&call.result));
                line.finish_with_message(format!("{result}, {}", seconds(call.elapsed_ms)));
            }
        }
    }

    /// Leaves the lines as they are: what follows stands below.
    pub(super) fn end(&self) {
        for line in self.lines.values().filter(|line| !line.is_finished()) {
            line.abandon();
        }
    }
}

fn line(screen: &MultiProgress) -> ProgressBar {
    let line = screen.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {elapsed:>4}  {msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(TICK);
    line
}

fn heard(call: &Call) -> String {
    match call.first_byte_ms {
        Some(at) => format!("speaks since {}", seconds(at)),
        None => "asked".to_owned(),
    }
}
