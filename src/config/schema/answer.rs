//! How answers are read for comparing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::json_schema::one_choice;

/// How an answer is read for comparing. A request with tools or a JSON `response_format` decides for itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(transform = one_choice)]
pub enum Answer {
    /// By a kind's own rules.
    Word(AnswerWord),
    /// A kind, and where in an answer it stands.
    Spec(AnswerSpec),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Word(AnswerWord::default())
    }
}

/// A kind of answer that can be read without further words.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerWord {
    /// What the request says, or else `text`; numbers for strategy `average`.
    #[default]
    Auto,
    /// A number.
    Number,
    /// A letter, as in multiple choice.
    Choice,
    /// JSON, equal whatever the order of its keys.
    Json,
    /// The code in fences.
    Code,
    /// Text, equal by similarity.
    Text,
}

/// A kind of answer, and where it stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["kind"]))]
pub struct AnswerSpec {
    /// What kind of answer it is.
    pub kind: AnswerKind,
    /// `choice`, `number` and `regex`, which needs it: a regular expression whose last match is the answer,
    /// or its group if it has one.
    #[schemars(length(min = 1))]
    pub pattern: Option<String>,
    /// `number` and `json`: a JSON Pointer (RFC 6901) to the part of a JSON answer that counts.
    pub pointer: Option<String>,
}

/// A kind of answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// A letter, as in multiple choice, or what `pattern` finds, in any case.
    Choice,
    /// A number.
    Number,
    /// JSON, equal whatever the order of its keys.
    Json,
    /// What `pattern` finds, letter by letter.
    Regex,
    /// The code in fences.
    Code,
    /// Text, equal by similarity.
    #[default]
    Text,
}
