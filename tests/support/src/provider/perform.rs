//! A reply as the steps that deliver it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::reply::{Act, Break, Completion, Pace, Reply};
use super::usage::Usage;

/// The largest piece that is handed to the connection at once, so that "finished" means nearly sent.
const PIECE: usize = 64 * 1024;
/// The size of a trickle's drops: odd, so that they fall across lines, events and characters.
const DROP: usize = 7;

/// An answer as the server performs it.
#[derive(Debug)]
pub(super) struct Performance {
    pub(super) delay: Duration,
    pub(super) head: Head,
}

#[derive(Debug)]
pub(super) enum Head {
    Stall,
    Cut,
    Answer { status: StatusCode, headers: HeaderMap, steps: VecDeque<Step> },
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Duration),
    Claim(Usage),
    Stall,
    Cut,
}

/// What of the request shapes the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) model: &'a str,
    pub(super) id: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// The body, when it is one in Gemini's words.
    pub(super) gemini: Option<&'a Value>,
}

impl Reply {
    pub(super) fn perform(self, asked: Asked<'_>) -> Performance {
        let mut delay = self.delay;
        let (content_type, events, claim) = match &self.act {
            Act::Stall => {
                return Performance { delay, head: Head::Stall };
            }
            Act::Cut => {
                return Performance { delay, head: Head::Cut };
            }
            Act::Raw(body) => ("application/json", vec![Event::plain(body.clone())], None),
            Act::Completion(completion) if asked.stream => {
                let claim = completion.usage.filter(|_| asked.include_usage || asked.gemini.is_some());
                ("text/event-stream", completion.events(asked), claim)
            }
            Act::Completion(completion) => {
                if let Pace::Gap(gap) = self.pace {
                    let tokens = u32::try_from(completion.tokens().len()).unwrap_or(u32::MAX);
                    delay += gap * tokens;
                }
                let body = completion.whole(asked).to_string();
                ("application/json", vec![Event::plain(body.into())], completion.usage)
            }
        };
        let streams = matches!(self.act, Act::Completion(_)) && asked.stream;
        let mut headers = self.headers;
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        if !streams {
            let length: usize = events.iter().map(|event| event.bytes.len()).sum();
            headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
        }
        let events = broken_off(events, self.breaks, streams);
        let mut steps = paced(events, self.pace);
        match self.breaks {
            Some(Break { cut: true, .. }) => steps.push_back(Step::Cut),
            Some(Break { cut: false, .. }) => steps.push_back(Step::Stall),
            None => steps.extend(claim.map(Step::Claim)),
        }
        Performance { delay, head: Head::Answer { status: self.status, headers, steps } }
    }
}

struct Event {
    bytes: Bytes,
    token: bool,
}

impl Event {
    fn plain(bytes: Bytes) -> Self {
        Self { bytes, token: false }
    }
}

/// What is left of a body that does not come to its end.
fn broken_off(mut events: Vec<Event>, breaks: Option<Break>, streams: bool) -> Vec<Event> {
    let Some(Break { after, .. }) = breaks else {
        return events;
    };
    if streams {
        let mut tokens = 0;
        let beyond = events.iter().position(|event| {
            tokens += usize::from(event.token);
            tokens > after
        });
        if let Some(beyond) = beyond {
            events.truncate(beyond);
        }
    } else {
        for event in &mut events {
            event.bytes.truncate(event.bytes.len() / 2);
        }
    }
    events
}

fn paced(events: Vec<Event>, pace: Pace) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    match pace {
        Pace::Whole | Pace::Gap(_) => {
            for event in events {
                if let (Pace::Gap(gap), true) = (pace, event.token) {
                    steps.push_back(Step::Wait(gap));
                }
                steps.extend(pieces(&event.bytes, PIECE).map(Step::Send));
            }
        }
        Pace::Trickle(gap) => {
            let whole: Bytes = events.iter().flat_map(|event| &event.bytes).copied().collect();
            for piece in pieces(&whole, DROP) {
                steps.push_back(Step::Send(piece));
                steps.push_back(Step::Wait(gap));
            }
        }
    }
    steps
}

fn pieces(bytes: &Bytes, size: usize) -> impl Iterator<Item = Bytes> {
    let starts = (0..bytes.len()).step_by(size);
    starts.map(move |start| bytes.slice(start..bytes.len().min(start + size)))
}

impl Completion {
    pub(super) fn tokens(&self) -> Vec<String> {
        let content = self.message.get("content").and_then(Value::as_str);
        self.tokens.clone().unwrap_or_else(|| words(content.unwrap_or_default()))
    }

    fn whole(&self, asked: Asked<'_>) -> Value {
        if let Some(request) = asked.gemini {
            return self.whole_by_gemini(request, asked.id);
        }
        let mut whole = envelope(asked, "chat.completion");
        whole["choices"] = json!([{
            "index": 0,
            "message": self.message,
            "logprobs": self.logprobs,
            "finish_reason": self.finish,
        }]);
        if let Some(usage) = self.usage {
            whole["usage"] = usage.json();
        }
        whole
    }

    fn events(&self, asked: Asked<'_>) -> Vec<Event> {
        let Some(request) = asked.gemini else {
            return self.chunks(asked);
        };
        let objects = self.objects_by_gemini(request, asked.id).into_iter();
        objects.map(|(object, token)| Event { bytes: event(&object), token }).collect()
    }

    /// The order of OpenAI: the role, the deltas, the finish reason alone, the usage alone, `[DONE]`.
    fn chunks(&self, asked: Asked<'_>) -> Vec<Event> {
        let chunk = |delta: Value, finish: Value, logprobs: &Value| {
            let mut chunk = envelope(asked, "chat.completion.chunk");
            chunk["choices"] = json!([{
                "index": 0,
                "delta": delta,
                "logprobs": logprobs,
                "finish_reason": finish,
            }]);
            if asked.include_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        let delta = |delta: Value| chunk(delta, Value::Null, &Value::Null);
        let said = |delta_of: Value| Event { bytes: event(&delta(delta_of)), token: true };
        let mut events = vec![Event::plain(event(&delta(self.opening())))];
        let text = |name: &str| self.message.get(name).and_then(Value::as_str).unwrap_or_default();
        for word in words(text("reasoning_content")) {
            events.push(said(json!({"reasoning_content": word})));
        }
        for word in words(text("refusal")) {
            events.push(said(json!({"refusal": word})));
        }
        for token in self.tokens() {
            events.push(said(json!({"content": token})));
        }
        for call in self.call_deltas() {
            events.push(said(json!({"tool_calls": [call]})));
        }
        events.push(Event::plain(event(&chunk(json!({}), json!(self.finish), &self.logprobs))));
        if let Some(usage) = self.usage.filter(|_| asked.include_usage) {
            let mut last = envelope(asked, "chat.completion.chunk");
            last["choices"] = json!([]);
            last["usage"] = usage.json();
            events.push(Event::plain(event(&last)));
        }
        events.push(Event::plain(Bytes::from_static(b"data: [DONE]\n\n")));
        events
    }

    /// The role and whatever else is not told bit by bit.
    fn opening(&self) -> Value {
        let mut opening = self.message.clone();
        for name in ["tool_calls", "reasoning_content", "refusal"] {
            opening.shift_remove(name);
        }
        let content = self.message.get("content");
        let content = content.map(|content| if content.is_null() { json!(null) } else { json!("") });
        opening.insert("content".to_owned(), content.unwrap_or_default());
        Value::Object(opening)
    }

    /// Each call by its id and name, then its arguments in pieces.
    fn call_deltas(&self) -> Vec<Value> {
        let calls = self.message.get("tool_calls").and_then(Value::as_array);
        let mut deltas = Vec::new();
        for (index, call) in calls.into_iter().flatten().enumerate() {
            let mut first = call.clone();
            first["index"] = json!(index);
            let arguments = call.pointer("/function/arguments").and_then(Value::as_str);
            first["function"]["arguments"] = json!("");
            deltas.push(first);
            let characters: Vec<char> = arguments.unwrap_or_default().chars().collect();
            for piece in characters.chunks(5) {
                let piece: String = piece.iter().collect();
                deltas.push(json!({"index": index, "function": {"arguments": piece}}));
            }
        }
        deltas
    }
}

fn envelope(asked: Asked<'_>, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-provider-{}", asked.id),
        "object": object,
        "created": 1_700_000_000,
        "model": asked.model,
        "system_fingerprint": "fp_testkit",
    })
}

fn event(data: &Value) -> Bytes {
    format!("data: {data}\n\n").into()
}

fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}
