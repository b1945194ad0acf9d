//! A provider's whole completion.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::listed::{First, UpTo};
use super::object::{ObjectError, RawObject, quoted};
use super::{JsonError, Usage};

/// How many tool calls a message may have: each is remembered as an object, however short it was written.
pub const MAX_CALLS: usize = 1024;

/// How many parts a message's content may have, in whatever format: each is remembered, however little it says.
pub const MAX_PARTS: usize = 16_384;

/// The one choice of a completion: its message as its provider wrote it, and what Consort reads of
/// it.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The `message` object.
    pub message: Box<RawValue>,
    /// Its text; parts of type `text` are joined.
    pub content: Option<String>,
    /// Its `tool_calls`, or its legacy `function_call`.
    pub tool_calls: Option<Box<RawValue>>,
    /// Whether it is a refusal.
    pub refused: bool,
    /// Why it ended.
    pub finish_reason: Option<Box<str>>,
    /// The choice's `logprobs`.
    pub logprobs: Option<Box<RawValue>>,
    /// What it cost, when that was reported.
    pub usage: Option<Usage>,
}

/// Why bytes are no completion.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// Not the JSON of one.
    #[error("not a chat completion: {0}")]
    Json(JsonError),
    /// Its message, or a tool call in it, is no object with distinct keys.
    #[error("not a message")]
    Message(#[from] ObjectError),
    /// It has no choice.
    #[error("a chat completion without choices")]
    NoChoice,
    /// Its pieces are more than a message may have.
    #[error("more than {MAX_CALLS} numbered items, or too many values")]
    TooMany,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    choices: First<Choice<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: &'a RawValue,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    logprobs: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

impl Completion {
    /// Reads the completion that `json` is.
    ///
    /// # Errors
    /// When it is none, or has no choice.
    pub fn parse(json: &[u8]) -> Result<Self, CompletionError> {
        let wire: Wire<'_> = serde_json::from_slice(json)?;
        let choice = wire.choices.0.ok_or(CompletionError::NoChoice)?;
        let mut completion = Self::from_message(choice.message.to_owned())?;
        completion.finish_reason = choice.finish_reason.map(|f| f.into_owned().into_boxed_str());
        completion.logprobs = choice.logprobs.filter(|l| l.get() != "null").map(ToOwned::to_owned);
        completion.usage = wire.usage.and_then(Usage::read);
        Ok(completion)
    }

    /// Its text, or its tool calls where it has none.
    pub fn shown(&self) -> &str {
        let text = self.content.as_deref().filter(|text| !text.is_empty());
        text.or(self.tool_calls.as_deref().map(RawValue::get)).unwrap_or_default()
    }

    /// The completion that a message alone is.
    ///
    /// # Errors
    /// When it is no message object.
    pub fn from_message(message: Box<RawValue>) -> Result<Self, CompletionError> {
        let object = RawObject::parse(Bytes::copy_from_slice(message.get().as_bytes()))?;
        let called = match object.raw("tool_calls") {
            Some(raw) if !calls(raw)?.is_empty() => Some(raw),
            _ => object.raw("function_call").filter(|called| *called != "null"),
        };
        Ok(Self {
            content: content(&object)?,
            tool_calls: called.map(|raw| RawValue::from_string(raw.to_owned())).transpose()?,
            refused: object.read::<Cow<'_, str>>("refusal")?.is_some_and(|said| !said.is_empty()),
            finish_reason: None,
            logprobs: None,
            usage: None,
            message,
        })
    }

    /// The same message with another text, and without the log probabilities of its own.
    ///
    /// # Errors
    /// Never for a message that was read; the reader's signature has it.
    pub fn with_content(&self, content: &str) -> Result<Self, CompletionError> {
        let object = RawObject::parse(Bytes::copy_from_slice(self.message.get().as_bytes()))?;
        let json = object.edit().set("content", quoted(content)).body().to_bytes();
        let message = serde_json::from_slice(&json)?;
        Ok(Self { logprobs: None, message, content: Some(content.to_owned()), ..self.clone() })
    }
}

/// A message's text: whole, in parts, or none.
fn content(message: &RawObject) -> Result<Option<String>, serde_json::Error> {
    if !message.raw("content").is_some_and(|raw| raw.starts_with('[')) {
        return message.read("content");
    }
    let parts: Option<UpTo<Part, MAX_PARTS>> = message.read("content")?;
    Ok(parts.map(|UpTo(parts)| parts.into_iter().filter_map(|part| part.text).collect()))
}

/// A message's tool calls: an array of at most 1,024 objects, or `null`.
pub(super) fn calls(raw: &str) -> Result<Vec<RawObject>, CompletionError> {
    let calls: Option<UpTo<&RawValue, MAX_CALLS>> = serde_json::from_str(raw)?;
    let object = |call: &RawValue| RawObject::parse(Bytes::copy_from_slice(call.get().as_bytes()));
    Ok(calls.into_iter().flat_map(|UpTo(calls)| calls).map(object).collect::<Result<_, _>>()?)
}

impl From<JsonError> for CompletionError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl From<serde_json::Error> for CompletionError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_stays_as_it_was_written() {
        let message = r#"{"role":"assistant","content":"hi \u00e9","refusal":null,"x_vendor":{"a":0.10}}"#;
        let json = format!(
            r#"{{"id":"1","choices":[{{"index":0,"message":{message},"finish_reason":"stop","logprobs":null}}],"usage":null}}"#
        );
        let c = Completion::parse(json.as_bytes()).unwrap();
        assert_eq!(c.message.get(), message);
        assert_eq!(c.content.as_deref(), Some("hi é"));
        assert!(c.tool_calls.is_none() && !c.refused && c.logprobs.is_none() && c.usage.is_none());
        assert_eq!(c.finish_reason.as_deref(), Some("stop"));
    }

    #[test]
    fn a_message_has_as_many_calls_as_are_held_and_one_past_that_is_none() {
        let with = |calls: usize| {
            let calls = vec!["{}"; calls].join(",");
            let json = format!(r#"{{"choices":[{{"message":{{"tool_calls":[{calls}]}}}}]}}"#);
            Completion::parse(json.as_bytes())
        };
        assert!(with(MAX_CALLS).unwrap().tool_calls.is_some());
        assert!(with(MAX_CALLS + 1).is_err());
    }

    #[test]
    fn a_message_has_as_many_parts_as_are_held_and_one_past_that_is_none() {
        let with = |parts: usize| {
            let parts = vec![r#"{"text":"a"}"#; parts].join(",");
            let json = format!(r#"{{"choices":[{{"message":{{"content":[{parts}]}}}}]}}"#);
            Completion::parse(json.as_bytes())
        };
        assert_eq!(with(MAX_PARTS).unwrap().content.unwrap().len(), MAX_PARTS);
        assert!(with(MAX_PARTS + 1).is_err());
    }

    #[test]
    fn the_first_choice_is_read_and_no_other() {
        let c = Completion::parse(br#"{"choices":[{"message":{"content":"a"}},{"message":1},7]}"#).unwrap();
        assert_eq!(c.content.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_no_completion_is_an_error() {
        for json in [
            "",
            "[]",
            "<html>",
            r#"{"choices":[]}"#,
            r#"{"error":{"message":"x"}}"#,
            r#"{"choices":[{"message":1}]}"#,
            r#"{"choices":[{"message":{"content":"a","x":1,"x":2}}]}"#,
            r#"{"choices":[{"message":{"content":"a","tool_calls":{}}}]}"#,
            r#"{"choices":[{"message":{"content":"a","tool_calls":[1]}}]}"#,
            r#"{"choices":[{"message":{"content":"a","tool_calls":[{"id":"x","id":"y"}]}}]}"#,
        ] {
            assert!(Completion::parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
