//! Which answers count.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::chat::{Completion, Request};

/// A member's usable answer.
#[derive(Debug)]
pub struct Candidate {
    /// The member's place in the panel.
    pub member: usize,
    /// Its weight.
    pub weight: f64,
    /// What it said.
    pub completion: Completion,
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
    /// Cut by its token limit where only the whole is valid.
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

/// What an answer's text must be, from the request's `response_format`.
#[derive(Debug)]
pub enum Format {
    /// Anything.
    Text,
    /// A JSON object.
    Object,
    /// JSON valid against a schema.
    Schema(Box<jsonschema::Validator>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Box<str>,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

impl Format {
    /// What `request` asks for. A schema that cannot be compiled is its upstream's to refuse; here
    /// it then asks for JSON only.
    pub fn of(request: &Request) -> Self {
        let asked: Option<ResponseFormat> = request.read("response_format");
        match asked {
            Some(f) if &*f.kind == "json_object" => Self::Object,
            Some(f) if &*f.kind == "json_schema" => f
                .json_schema
                .and_then(|s| s.schema)
                .and_then(|schema| jsonschema::validator_for(&schema).ok())
                .map_or(Self::Object, |v| Self::Schema(Box::new(v))),
            _ => Self::Text,
        }
    }

    fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Object => {
                text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok()
            }
            Self::Schema(validator) => {
                serde_json::from_str(text).is_ok_and(|value: Value| validator.is_valid(&value))
            }
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
    if completion.tool_calls.is_some() {
        return Ok(());
    }
    let text = completion.content.as_deref().unwrap_or_default();
    if text.trim().is_empty() {
        return Err(Unusable::Empty);
    }
    if matches!(format, Format::Text) {
        return Ok(());
    }
    if completion.finish_reason.as_deref() == Some("length") {
        return Err(Unusable::Cut);
    }
    if format.accepts(text) { Ok(()) } else { Err(Unusable::Format) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

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
