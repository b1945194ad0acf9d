//! Which answers count.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::answer::Key;
use super::format::Format;
use crate::chat::{Completion, each, without_reasoning};

/// A member's usable answer.
#[derive(Debug)]
pub struct Candidate {
    /// The member's place in the panel.
    pub member: usize,
    /// Its weight.
    pub weight: f64,
    /// What it said.
    pub completion: Completion,
    /// What it is compared by; none when it abstains, or answers are not compared.
    pub key: Option<Key>,
}

/// Why an answer is no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Neither text nor tool calls.
    Empty,
    /// The model refused.
    Refusal,
    /// Its provider cut it out.
    ContentFilter,
    /// It ended for a reason that leaves no answer.
    Finish,
    /// Cut by its token limit where only the whole is valid: JSON, or the arguments of a tool call.
    Cut,
    /// Not what `response_format` asks for.
    Format,
}

impl Unusable {
    /// The cause in one word, for records and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Refusal => "refusal",
            Self::ContentFilter => "content_filter",
            Self::Finish => "finish_reason",
            Self::Cut => "cut",
            Self::Format => "format",
        }
    }
}

/// Whether an answer counts.
///
/// # Errors
/// Why it does not.
pub fn check(completion: &Completion, format: &Format) -> Result<(), Unusable> {
    match completion.finish_reason.as_deref() {
        Some("content_filter") => return Err(Unusable::ContentFilter),
        // Some compatible servers leave it out.
        None | Some("stop" | "tool_calls" | "function_call" | "length") => {}
        Some(_) => return Err(Unusable::Finish),
    }
    if completion.refused {
        return Err(Unusable::Refusal);
    }
    let is_cut = completion.finish_reason.as_deref() == Some("length");
    if let Some(calls) = &completion.tool_calls {
        return if is_cut && !are_whole(calls) { Err(Unusable::Cut) } else { Ok(()) };
    }
    let text = completion.content.as_deref().unwrap_or_default();
    if without_reasoning(text).trim().is_empty() {
        return Err(Unusable::Empty);
    }
    if matches!(format, Format::Text) {
        return Ok(());
    }
    if is_cut {
        return Err(Unusable::Cut);
    }
    if format.accepts(text) { Ok(()) } else { Err(Unusable::Format) }
}

/// Whether the arguments of all calls are JSON to their end.
fn are_whole(calls: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Call {
        function: Option<Function>,
        arguments: Option<String>,
    }
    #[derive(Deserialize)]
    struct Function {
        arguments: Option<String>,
    }
    let is_whole = |call: Call| {
        let arguments = call.function.map_or(call.arguments, |function| function.arguments);
        arguments.is_none_or(|json| serde_json::from_str::<IgnoredAny>(&json).is_ok())
    };
    let legacy = || serde_json::from_str::<Call>(calls.get());
    let mut are_whole = true;
    each(calls.get(), |call| are_whole &= is_whole(call)).is_ok_and(|_| are_whole)
        || legacy().is_ok_and(is_whole)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::Request;

    fn completion(message: Value, finish: &str) -> Completion {
        let json = json!({"choices": [{"message": message, "finish_reason": finish}]});
        Completion::parse(json.to_string().as_bytes()).unwrap()
    }

    fn format(response_format: Value) -> Format {
        let body = json!({"messages": [{}], "response_format": response_format});
        Format::of(&Request::parse(Bytes::from(body.to_string())).unwrap())
    }

    #[test]
    fn an_answer_counts_or_says_why_not() {
        let text = format(json!({"type": "text"}));
        for (message, finish, expected) in [
            (json!({"content": "hi"}), "stop", Ok(())),
            (json!({"content": "hi"}), "length", Ok(())),
            (json!({"content": [{"type": "text", "text": "hi"}]}), "stop", Ok(())),
            (json!({"content": null, "tool_calls": [{"id": "a"}]}), "tool_calls", Ok(())),
            (json!({"content": null, "function_call": {"name": "f"}}), "function_call", Ok(())),
            (json!({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}), "length", Ok(())),
            (
                json!({"tool_calls": [{"function": {"name": "f", "arguments": "{\"x"}}]}),
                "length",
                Err(Unusable::Cut),
            ),
            (json!({"tool_calls": [{"function": {"name": "f", "arguments": "{\"x"}}]}), "tool_calls", Ok(())),
            (json!({"function_call": {"name": "f", "arguments": "{\"x"}}), "length", Err(Unusable::Cut)),
            (json!({"content": " \n"}), "stop", Err(Unusable::Empty)),
            (json!({"content": null, "tool_calls": []}), "stop", Err(Unusable::Empty)),
            (json!({"content": null, "refusal": "I can't"}), "stop", Err(Unusable::Refusal)),
            (json!({"content": "part"}), "content_filter", Err(Unusable::ContentFilter)),
            (json!({"content": "part"}), "error", Err(Unusable::Finish)),
        ] {
            assert_eq!(check(&completion(message.clone(), finish), &text), expected, "{message} {finish}");
        }
    }

    #[test]
    fn a_thought_alone_is_no_answer() {
        let cut = completion(json!({"content": "<think>hm"}), "length");
        assert_eq!(check(&cut, &Format::Text), Err(Unusable::Empty));
    }

    #[test]
    fn where_json_is_asked_for_only_valid_json_counts() {
        let object = format(json!({"type": "json_object"}));
        let schema = format(json!({"type": "json_schema", "json_schema": {"name": "x", "schema":
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}));
        for (content, finish, of_object, of_schema) in [
            (r#"{"a":1}"#, "stop", Ok(()), Ok(())),
            (r#"{"a":"x"}"#, "stop", Ok(()), Err(Unusable::Format)),
            ("[1]", "stop", Err(Unusable::Format), Err(Unusable::Format)),
            ("a: 1", "stop", Err(Unusable::Format), Err(Unusable::Format)),
            (r#"{"a":1}"#, "length", Err(Unusable::Cut), Err(Unusable::Cut)),
        ] {
            let c = completion(json!({"content": content}), finish);
            assert_eq!((check(&c, &object), check(&c, &schema)), (of_object, of_schema), "{content}");
        }
    }
}
