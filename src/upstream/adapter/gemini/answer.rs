//! What `generateContent` answers. A stream is a series of the same objects.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::super::super::Failure;
use super::super::Stage;
use super::super::told::{Cost, Message, Style, ToolCall, compact, content, reasoning};
use super::finish::Finish;
use super::logprobs;
use super::usage::Metered;
use crate::chat::{Event, First, MAX_PARTS, UpTo};

/// Ids of calls up to this many bytes are kept: OpenAI takes none that are longer.
const MAX_ID_BYTES: usize = 40;

/// Reads one answer, in one object or in several.
pub(in super::super) struct Listener {
    style: Style,
    /// How many calls there were so far.
    calls: usize,
    finish: Option<Finish>,
    cost: Option<Cost>,
}

/// What one object adds to the message.
#[derive(Default)]
struct Said {
    parts: Vec<Piece>,
    logprobs: Option<Box<RawValue>>,
}

enum Piece {
    Text(String),
    Thought(String),
    Call(ToolCall),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, default)]
    candidates: First<Candidate<'a>>,
    #[serde(borrow, default)]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(default)]
    usage_metadata: Option<Metered>,
    #[serde(borrow, default)]
    response_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    #[serde(borrow, default)]
    block_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    logprobs_result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: UpTo<Part<'a>, MAX_PARTS>,
}

/// A piece of content; of other kinds than these nothing can be told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    #[serde(borrow, default)]
    function_call: Option<FunctionCall<'a>>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    name: String,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

impl Listener {
    /// Before anything was said.
    pub(in super::super) fn new(style: Style) -> Self {
        Self { style, calls: 0, finish: None, cost: None }
    }

    /// What a whole answer says.
    pub(in super::super) fn whole(&mut self, body: &[u8]) -> Result<Vec<Event>, Failure> {
        let said = self.object(body)?;
        let mut message = Message::default();
        for piece in said.parts {
            match piece {
                Piece::Text(text) => message.content.get_or_insert_default().push_str(&text),
                Piece::Thought(text) => message.reasoning.get_or_insert_default().push_str(&text),
                Piece::Call(call) => message.calls.push(call),
            }
        }
        let mut event = message.event(self.style)?;
        if let Event::Message(completion) = &mut event {
            completion.logprobs = said.logprobs;
        }
        // Nothing was said about the end: the object is whole all the same.
        self.finish.get_or_insert(Finish::Stop);
        Ok(std::iter::once(event).chain(self.last()).collect())
    }

    /// What one object of a stream says.
    pub(in super::super) fn hear(&mut self, data: &[u8]) -> Result<Vec<Event>, Failure> {
        let style = self.style;
        let mut index = self.calls;
        let Said { parts, mut logprobs } = self.object(data)?;
        let mut events = Vec::new();
        for piece in parts {
            match piece {
                Piece::Text(text) => events.extend(content(&text).map(|mut event| {
                    if let Event::Delta(delta) = &mut event {
                        delta.logprobs = logprobs.take();
                    }
                    event
                })),
                Piece::Thought(text) => events.extend(reasoning(&text)),
                Piece::Call(ToolCall { id, name, arguments }) => {
                    events.extend(style.call_begins(index, &id, &name));
                    events.extend(style.call_goes_on(index, &arguments));
                    index += 1;
                }
            }
        }
        Ok(events)
    }

    /// Why the message ended and what it cost: each object tells the cost anew, so that only the last one
    /// counts.
    pub(in super::super) fn end(&mut self) -> Result<Vec<Event>, Failure> {
        if self.finish.is_none() {
            return Err(Failure::Incomplete);
        }
        Ok(self.last().collect())
    }

    pub(in super::super) fn cost_so_far(&self) -> Option<Event> {
        self.cost.and_then(Cost::event)
    }

    pub(in super::super) fn stage(&self) -> Stage {
        if self.finish.is_none() { Stage::Speaking } else { Stage::Finished }
    }

    fn last(&self) -> impl Iterator<Item = Event> + use<> {
        let finish = self.finish.as_ref().map(|finish| self.style.finish(&finish.reason(self.calls > 0)));
        finish.into_iter().chain(self.cost_so_far())
    }

    fn object(&mut self, json: &[u8]) -> Result<Said, Failure> {
        let wire = Wire::read(json).map_err(|e| Failure::Unreadable(e.into()))?;
        if wire.error.is_some_and(|e| e.get() != "null") {
            return Err(Failure::ErrorEvent);
        }
        self.cost = wire.usage_metadata.map(Metered::cost).or(self.cost);
        if wire.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some()) {
            self.finish = Some(Finish::Filtered);
        }
        let mut said = Said::default();
        let Some(candidate) = wire.candidates.0 else {
            return Ok(said);
        };
        if let Some(finish) = candidate.finish_reason.and_then(|reason| Finish::of(&reason)) {
            self.finish = Some(finish);
        }
        said.logprobs = candidate.logprobs_result.and_then(logprobs::of_a_choice);
        let answer = wire.response_id.unwrap_or_default();
        for part in candidate.content.into_iter().flat_map(|content| content.parts.0) {
            if let Some(text) = part.text {
                said.parts.push(if part.thought { Piece::Thought(text) } else { Piece::Text(text) });
            }
            if let Some(call) = part.function_call {
                said.parts.push(Piece::Call(call.told(&answer, self.calls)));
                self.calls += 1;
            }
        }
        Ok(said)
    }
}

impl<'a> Wire<'a> {
    fn read(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        // Serde would take a list for an object's fields in order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(serde_json::Error::custom("not a generateContent response"));
        }
        serde_json::from_slice(json)
    }
}

impl FunctionCall<'_> {
    fn told(self, answer: &str, index: usize) -> ToolCall {
        let arguments =
            self.args.filter(|args| args.get() != "null").map_or("{}".into(), |args| compact(args.get()));
        let id = match self.id {
            Some(id) if !id.is_empty() && id.len() <= MAX_ID_BYTES => id.into_owned(),
            _ => made_id(answer, index, &self.name, &arguments),
        };
        ToolCall { id, name: self.name, arguments }
    }
}

/// An id of our own. An answer that is read again gets the same ones.
fn made_id(answer: &str, index: usize, name: &str, arguments: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (answer, index, name, arguments).hash(&mut hasher);
    format!("call_{:016x}", hasher.finish())
}
