//! Reads answers as the service itself does.

use crate::chat::{Completion, Request};
use crate::ensemble::{Key, Reader, Reading};
use bytes::Bytes;
use clap::ValueEnum;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::Result;

/// How answers are read for comparing: a value of the configuration's `answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AnswerKind {
    /// A number.
    Number,
    /// A letter, as in multiple choice.
    Choice,
}

impl AnswerKind {
    /// Its name in the configuration.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Choice => "choice",
        }
    }
}

/// Reads the answers to plain questions.
#[derive(Clone, Debug)]
pub(super) struct Answers(Reader);

impl Answers {
    pub(super) fn of(kind: AnswerKind) -> Result<Self> {
        let reading = match kind {
            AnswerKind::Number => Reading::Number { pattern: None, pointer: None },
            AnswerKind::Choice => Reading::Choice(None),
        };
        let question = json!({"model": "any", "messages": [{"role": "user", "content": ""}]});
        let question = Request::parse(Bytes::from(question.to_string()))?;
        Ok(Self(Reader::of(&reading, &question)))
    }

    /// What a text answers; none where nothing can be read.
    pub(super) fn in_text(&self, text: &str) -> Option<Key> {
        self.in_completion(&said(text)?)
    }

    /// What a message answers; none where nothing can be read.
    pub(super) fn in_completion(&self, completion: &Completion) -> Option<Key> {
        self.0.key(completion)
    }
}

/// The message that says this.
pub(super) fn said(text: &str) -> Option<Completion> {
    let message = to_raw_value(&json!({"role": "assistant", "content": text})).ok()?;
    Completion::from_message(message).ok()
}
