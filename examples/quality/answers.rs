//! Reads answers as the service itself does.

use bytes::Bytes;
use clap::ValueEnum;
use consort::chat::{Completion, Request};
use consort::ensemble::{Key, Reader, Reading};
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::Result;

/// How answers are read for comparing: a value of the configuration's `answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnswerKind {
    /// A number.
    Number,
    /// A letter, as in multiple choice.
    Choice,
}

impl AnswerKind {
    /// Its name in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Choice => "choice",
        }
    }
}

/// Reads the answers to plain questions.
#[derive(Clone, Debug)]
pub struct Answers(Reader);

impl Answers {
    pub fn of(kind: AnswerKind) -> Result<Self> {
        let reading = match kind {
            AnswerKind::Number => Reading::Number { pattern: None, pointer: None },
            AnswerKind::Choice => Reading::Choice(None),
        };
        let question = json!({"model": "any", "messages": [{"role": "user", "content": ""}]});
        let question = Request::parse(Bytes::from(question.to_string()))?;
        Ok(Self(Reader::of(&reading, &question)))
    }

    /// What a text answers; none where nothing can be read.
    pub fn in_text(&self, text: &str) -> Option<Key> {
        let message = to_raw_value(&json!({"role": "assistant", "content": text})).ok()?;
        self.0.key(&Completion::from_message(message).ok()?)
    }

    /// What a chat completion answers; none where nothing can be read.
    pub fn in_completion(&self, body: &[u8]) -> Result<Option<Key>> {
        Ok(self.0.key(&Completion::parse(body)?))
    }
}
