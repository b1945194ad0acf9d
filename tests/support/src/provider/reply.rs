//! What a model answers, in a test's words.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};

use super::usage::Usage;

/// One answer: made by a constructor, bent by modifiers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) act: Act,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) delay: Duration,
    pub(super) pace: Pace,
    pub(super) breaks: Option<Break>,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Completion(Box<Completion>),
    Raw(Bytes),
    Stall,
    Cut,
}

#[derive(Clone, Debug)]
pub(super) struct Completion {
    pub(super) message: Map<String, Value>,
    pub(super) tokens: Option<Vec<String>>,
    pub(super) finish: String,
    pub(super) logprobs: Value,
    pub(super) usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    Whole,
    Gap(Duration),
    Trickle(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    pub(super) after: usize,
    pub(super) cut: bool,
}

/// An error in OpenAI's envelope.
pub fn error_body(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

/// What is said.
impl Reply {
    /// A text that ends with `stop`. A streaming caller gets it word by word.
    pub fn text(content: impl Into<String>) -> Self {
        Self::message(json!({"content": content.into(), "refusal": null}))
    }

    /// A message with any members (`role` is added); a streaming caller gets them as deltas.
    pub fn message(message: Value) -> Self {
        let Value::Object(mut message) = message else {
            panic!("a message is an object, not {message}");
        };
        message.entry("role").or_insert_with(|| json!("assistant"));
        let words = message
            .get("content")
            .and_then(Value::as_str)
            .map_or(1, |content| u64::try_from(content.split_whitespace().count()).unwrap_or(u64::MAX));
        Self::act(Act::Completion(Box::new(Completion {
            message,
            tokens: None,
            finish: "stop".to_owned(),
            logprobs: Value::Null,
            usage: Some(Usage::new(10, words)),
        })))
    }

    /// Calls of tools, each a name and its arguments' JSON text, with ids `call_0`, `call_1`, …
    pub fn tool_calls(calls: &[(&str, &str)]) -> Self {
        let call = |(index, (name, arguments)): (usize, &(&str, &str))| {
            json!({
                "id": format!("call_{index}"),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            })
        };
        let calls: Vec<Value> = calls.iter().enumerate().map(call).collect();
        Self::message(json!({"content": null, "tool_calls": calls})).finish("tool_calls")
    }

    /// A refusal in words of its own, as OpenAI's structured outputs give it.
    pub fn refusal(text: &str) -> Self {
        Self::message(json!({"content": null, "refusal": text}))
    }

    /// An answer that the provider's filter took away.
    pub fn content_filter() -> Self {
        Self::message(json!({"content": "", "refusal": null})).finish("content_filter")
    }

    /// A text in exactly these tokens, `gap` apart. A buffered caller waits as long as the tokens take.
    pub fn stream(tokens: &[&str], gap: Duration) -> Self {
        let mut reply = Self::text(tokens.concat()).gap(gap);
        if let Act::Completion(completion) = &mut reply.act {
            completion.tokens = Some(tokens.iter().map(ToString::to_string).collect());
        }
        reply
    }

    /// A completion with a text of this many bytes.
    pub fn huge(bytes: usize) -> Self {
        Self::text("x".repeat(bytes))
    }

    /// A status with a JSON body, buffered for streaming callers too.
    pub fn status(status: u16, body: Value) -> Self {
        let status = StatusCode::from_u16(status).expect("a test's status is one");
        Self { status, ..Self::raw("application/json", body.to_string()) }
    }

    /// A status with an error in OpenAI's envelope.
    pub fn error(status: u16, message: &str, kind: &str, code: Option<&str>) -> Self {
        Self::status(status, error_body(message, kind, None, code))
    }

    /// A 429, with this `retry-after`.
    pub fn rate_limited(retry_after: &str) -> Self {
        let message = "Rate limit reached. Please try again later.";
        Self::error(429, message, "requests", Some("rate_limit_exceeded"))
            .header(RETRY_AFTER.as_str(), retry_after)
    }

    /// A 200 with any body, whatever was asked.
    pub fn raw(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::act(Act::Raw(body.into())).header(CONTENT_TYPE.as_str(), content_type)
    }

    /// A 200 with an event stream as it is: CRLF, comments, a missing `[DONE]`.
    pub fn sse(text: impl Into<Bytes>) -> Self {
        Self::raw("text/event-stream", text)
    }

    /// A 200 that says JSON and is not.
    pub fn garbage() -> Self {
        Self::raw("application/json", "{\"choices\": [{\"message\": \u{0}<html>oops")
    }

    /// Nothing, until the caller leaves.
    pub fn stall() -> Self {
        Self::act(Act::Stall)
    }

    /// The connection (on HTTP/2, the stream) is broken off before the headers.
    pub fn cut() -> Self {
        Self::act(Act::Cut)
    }

    fn act(act: Act) -> Self {
        Self {
            act,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            delay: Duration::ZERO,
            pace: Pace::Whole,
            breaks: None,
        }
    }
}

/// How it is said.
impl Reply {
    /// Another `finish_reason`.
    pub fn finish(self, reason: &str) -> Self {
        self.completion(|completion| completion.finish = reason.to_owned())
    }

    /// Reasoning beside the content, as `reasoning_content`.
    pub fn reasoning(self, text: &str) -> Self {
        self.completion(|completion| {
            completion.message.insert("reasoning_content".to_owned(), json!(text));
        })
    }

    /// The choice's `logprobs`; a streaming caller gets them with the last chunk.
    pub fn logprobs(self, logprobs: Value) -> Self {
        self.completion(|completion| completion.logprobs = logprobs)
    }

    /// Another usage than 10 prompt tokens and one completion token per word.
    pub fn usage(self, usage: Usage) -> Self {
        self.completion(|completion| completion.usage = Some(usage))
    }

    /// No usage, even when asked for.
    pub fn without_usage(self) -> Self {
        self.completion(|completion| completion.usage = None)
    }

    /// Another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).expect("a test's status is one");
        self
    }

    /// A header, in place of what would be there.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a test's header name is one");
        let value: HeaderValue = value.parse().expect("a test's header value is one");
        self.headers.insert(name, value);
        self
    }

    /// Another content type.
    pub fn content_type(self, content_type: &str) -> Self {
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    /// So long until the headers.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// So long between a stream's tokens.
    pub fn gap(mut self, gap: Duration) -> Self {
        self.pace = Pace::Gap(gap);
        self
    }

    /// The body in drops of 7 bytes, so long apart.
    pub fn trickle(mut self, gap: Duration) -> Self {
        self.pace = Pace::Trickle(gap);
        self
    }

    /// Silence after `n` tokens of a stream, or after half the bytes of any other body.
    pub fn stall_after(mut self, n: usize) -> Self {
        self.breaks = Some(Break { after: n, cut: false });
        self
    }

    /// The connection (on HTTP/2, the stream) is broken off after `n` tokens of a stream, or half the bytes of any
    /// other body.
    pub fn cut_after(mut self, n: usize) -> Self {
        self.breaks = Some(Break { after: n, cut: true });
        self
    }

    fn completion(mut self, change: impl FnOnce(&mut Completion)) -> Self {
        match &mut self.act {
            Act::Completion(completion) => change(completion),
            other => panic!("only a completion can be changed so, not {other:?}"),
        }
        self
    }
}
