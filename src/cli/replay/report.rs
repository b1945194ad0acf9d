//! What is told of the members and of the strategies.

use std::sync::Arc;

use crate::ensemble::Key;

use super::Result;
use super::judge::RealJudge;
use super::recordings::Recordings;
use super::rehearsal::Outcome;
use super::strategies::Strategy;
use crate::cli::table::{Table, percent, ratio};

/// The least weight: the configuration takes none of 0, which a member that is never right would have.
const LEAST_WEIGHT: f64 = 0.001;

/// What became of the questions that one strategy was asked.
#[derive(Debug, Default)]
pub(super) struct Tally {
    questions: usize,
    right: usize,
    asked: usize,
    judge_calls: usize,
    degraded: usize,
    without_answer: usize,
    /// What the first caller was told who got an error.
    error: Option<String>,
}

impl Tally {
    pub(super) fn add(&mut self, truth: &Key, outcome: Outcome) {
        self.questions += 1;
        self.right += usize::from(outcome.key.as_ref().is_some_and(|key| key.same(truth)));
        self.asked += outcome.asked;
        self.judge_calls += outcome.judge_calls;
        self.degraded += usize::from(outcome.is_degraded);
        self.without_answer += usize::from(outcome.key.is_none());
        self.error = self.error.take().or(outcome.error);
    }
}

/// The tables, in the making.
pub(super) struct Report {
    recordings: Arc<Recordings>,
    weights: Vec<f64>,
    rows: Vec<[String; 6]>,
    notes: Vec<String>,
}

impl Report {
    /// With these weights, or by what the recordings themselves say of their members.
    pub(super) fn of(recordings: Arc<Recordings>, given: &[(String, f64)]) -> Result<Self> {
        let members = &recordings.members;
        if let Some((stranger, _)) = given.iter().find(|(name, _)| !members.contains(name)) {
            return Err(format!("--weights: {stranger:?} is none of {}", members.join(", ")).into());
        }
        let total = recordings.questions.len();
        let weights = members.iter().enumerate().map(|(place, member)| {
            if given.is_empty() {
                return (100.0 * ratio(recordings.right(place), total)).max(LEAST_WEIGHT);
            }
            given.iter().find(|(name, _)| name == member).map_or(1.0, |(_, weight)| *weight)
        });
        let weights = weights.collect();
        Ok(Self { recordings, weights, rows: Vec::new(), notes: notes(given.is_empty()) })
    }

    /// The members' weights, in panel order.
    pub(super) fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Adds a strategy's row.
    pub(super) fn add(&mut self, strategy: Strategy, tally: Tally, judge: Option<&RealJudge>) {
        let title = strategy.title();
        let first_member = self.recordings.members.first().map(String::as_str).unwrap_or_default();
        let title = match (strategy.judge(), judge) {
            (None, _) => title.to_owned(),
            (Some(_), Some(judge)) => format!("{title}, by {}", judge.model),
            (Some(_), None) => format!("{title}, played by {first_member}"),
        };
        if strategy == Strategy::First {
            self.notes
                .push("first: recordings do not tell who was first; here all write at one speed, so the shortest text is.".to_owned());
        }
        let played =
            "played: by no real judge, but by what that member itself had answered; see --judge-url.";
        if strategy.judge().is_some() && judge.is_none() && !self.notes.iter().any(|note| note == played) {
            self.notes.push(played.to_owned());
        }
        if let Some(error) = &tally.error {
            self.notes.push(format!("{title}: some callers got an error, the first one: {error}"));
        }
        let share = |part| percent(part, tally.questions);
        self.rows.push([
            title,
            share(tally.right),
            percent(tally.asked, tally.questions * self.recordings.members.len()),
            format!("{:.1}", ratio(tally.judge_calls, tally.questions)),
            share(tally.degraded),
            share(tally.without_answer),
        ]);
    }

    /// All of it.
    pub(super) fn shown(&self, is_markdown: bool) -> String {
        let (members, strategies) = (self.members(is_markdown), self.strategies(is_markdown));
        format!("{members}\n{strategies}\n{}\n", self.notes.join("\n"))
    }

    fn members(&self, is_markdown: bool) -> Table {
        let mut table = Table::new(&["member", "accuracy", "coverage", "weight"], is_markdown);
        let total = self.recordings.questions.len();
        for (place, (name, weight)) in self.recordings.members.iter().zip(&self.weights).enumerate() {
            let right = percent(self.recordings.right(place), total);
            let readable = percent(self.recordings.readable(place), total);
            table.push([name.clone(), right, readable, format!("{weight:.1}")]);
        }
        table
    }

    /// The strategies between what they must beat and what none can.
    fn strategies(&self, is_markdown: bool) -> Table {
        let header = ["strategy", "accuracy", "calls", "judge calls", "degraded", "no answer"];
        let mut table = Table::new(&header, is_markdown);
        let (recordings, total) = (&self.recordings, self.recordings.questions.len());
        let members = recordings.members.iter().enumerate();
        // Of equals, `max_by_key` takes the last one.
        let best = members.rev().max_by_key(|(place, _)| recordings.right(*place));
        let bound = |title: String, right, calls| {
            let none = || "-".to_owned();
            [title, percent(right, total), calls, none(), none(), none()]
        };
        if let Some((place, name)) = best {
            let calls = percent(1, recordings.members.len());
            table.push(bound(format!("best member: {name}"), recordings.right(place), calls));
        }
        for row in &self.rows {
            table.push(row.clone());
        }
        table.push(bound("at least one right".to_owned(), recordings.right_by_any(), "-".to_owned()));
        table
    }
}

/// What a reader needs to know of every table.
fn notes(is_weighed_by_file: bool) -> Vec<String> {
    let mut notes = vec![
        "calls: members asked, as a share of the whole panel; some may have been cancelled later.",
        "no answer: an error, or a text from which no answer can be read.",
    ];
    if is_weighed_by_file {
        notes.push("weight: the member's accuracy on these very questions, which flatters `weighted`.");
    }
    notes.into_iter().map(str::to_owned).collect()
}
