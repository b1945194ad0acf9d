//! What models answered once, and what would have been right: one JSON object a line.
//!
//! ```json
//! {"id": "1", "prompt": "What is 6 × 7?", "answer": "42", "candidates": {"model-a": "It is 42.", "model-b": "48"}}
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::ensemble::Key;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answers::Answers;

/// A file of recordings; it holds at least one.
#[derive(Debug)]
pub(super) struct Recordings {
    /// The models, in the order in which the first line names them.
    pub(super) members: Vec<String>,
    /// The questions, in the file's order.
    pub(super) questions: Vec<Question>,
    by_prompt: HashMap<String, usize>,
}

/// One question, and what each member made of it.
#[derive(Debug)]
pub(super) struct Question {
    /// The user message.
    pub(super) prompt: String,
    /// The right answer.
    pub(super) truth: Key,
    /// The members' texts, in panel order.
    pub(super) texts: Vec<String>,
    /// What can be read from each text.
    keys: Vec<Option<Key>>,
}

/// Why a file holds no recordings.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordingsError {
    #[error("{}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: it has no recordings", .path.display())]
    Empty { path: PathBuf },
    #[error("{}, line {line}: {problem}", .path.display())]
    Line { path: PathBuf, line: usize, problem: Problem },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{0}")]
    Json(String),
    #[error("candidates: names no model")]
    NoCandidates,
    #[error("candidates: {0:?} is missing, which the first line has")]
    Missing(String),
    #[error("candidates: {0:?} is not among the first line's models")]
    Stranger(String),
    #[error("candidates.{0}: not a text")]
    NoText(String),
    #[error("answer: nothing can be read from {0:?} (see --answer)")]
    NoTruth(String),
    #[error("prompt: the same as that of line {0}")]
    Again(usize),
}

/// A line as it is written. What else it holds is its owner's.
#[derive(Deserialize)]
struct Line {
    prompt: String,
    answer: String,
    candidates: Map<String, Value>,
}

impl Recordings {
    /// Reads a file, or its first `limit` recordings.
    pub(super) fn read(
        path: &Path,
        limit: Option<usize>,
        answers: &Answers,
    ) -> Result<Self, RecordingsError> {
        let at = |line, problem| RecordingsError::Line { path: path.to_owned(), line, problem };
        let text = fs::read_to_string(path)
            .map_err(|error| RecordingsError::Unreadable { path: path.to_owned(), error })?;
        let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        let mut recordings = Self { members: Vec::new(), questions: Vec::new(), by_prompt: HashMap::new() };
        let mut numbers = Vec::new();
        for (line, number) in lines.take(limit.unwrap_or(usize::MAX)) {
            let question = recordings.question(line, answers).map_err(|problem| at(number, problem))?;
            let place = recordings.questions.len();
            if let Some(earlier) = recordings.by_prompt.insert(question.prompt.clone(), place) {
                return Err(at(number, Problem::Again(numbers.get(earlier).copied().unwrap_or_default())));
            }
            numbers.push(number);
            recordings.questions.push(question);
        }
        if recordings.questions.is_empty() {
            return Err(RecordingsError::Empty { path: path.to_owned() });
        }
        Ok(recordings)
    }

    /// The question with this user message.
    pub(super) fn find(&self, prompt: &str) -> Option<&Question> {
        self.questions.get(*self.by_prompt.get(prompt)?)
    }

    /// How many questions the member at this place answered rightly.
    pub(super) fn right(&self, place: usize) -> usize {
        self.questions.iter().filter(|question| question.is_right(place)).count()
    }

    /// How many questions at least one member answered rightly.
    pub(super) fn right_by_any(&self) -> usize {
        let is_right = |question: &&Question| (0..self.members.len()).any(|place| question.is_right(place));
        self.questions.iter().filter(is_right).count()
    }

    /// Of how many of its texts the member's answer can be read.
    pub(super) fn readable(&self, place: usize) -> usize {
        self.questions.iter().filter(|question| question.key(place).is_some()).count()
    }

    fn question(&mut self, line: &str, answers: &Answers) -> Result<Question, Problem> {
        let mut json = serde_json::Deserializer::from_str(line);
        let parsed: Result<Line, _> = serde_path_to_error::deserialize(&mut json);
        let line = parsed.map_err(|error| Problem::Json(placed(&error)))?;
        json.end().map_err(|error| Problem::Json(in_its_line(&error)))?;
        let mut candidates = line.candidates;
        if self.members.is_empty() {
            self.members = candidates.keys().cloned().collect();
        }
        if self.members.is_empty() {
            return Err(Problem::NoCandidates);
        }
        let mut texts = Vec::new();
        for member in &self.members {
            match candidates.remove(member) {
                Some(Value::String(text)) => texts.push(text),
                Some(_) => return Err(Problem::NoText(member.clone())),
                None => return Err(Problem::Missing(member.clone())),
            }
        }
        if let Some(stranger) = candidates.keys().next() {
            return Err(Problem::Stranger(stranger.clone()));
        }
        Ok(Question {
            keys: texts.iter().map(|text| answers.in_text(text)).collect(),
            texts,
            truth: answers.in_text(&line.answer).ok_or(Problem::NoTruth(line.answer))?,
            prompt: line.prompt,
        })
    }
}

impl Question {
    /// What can be read from the text of the member at this place.
    pub(super) fn key(&self, place: usize) -> Option<&Key> {
        self.keys.get(place)?.as_ref()
    }

    fn is_right(&self, place: usize) -> bool {
        self.key(place).is_some_and(|key| key.same(&self.truth))
    }
}

/// An error of JSON with the field that it is about.
fn placed(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (field, error) = (error.path().to_string(), in_its_line(error.inner()));
    if field == "." { error } else { format!("{field}: {error}") }
}

/// The number of the line is the file's, so that of an object's own lines would only mislead.
fn in_its_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}
