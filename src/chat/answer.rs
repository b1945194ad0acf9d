//! The caller's answer: one completion, or a stream of chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::{Completion, CompletionError, Delta, Event, RawObject, Usage, sse};

/// What is the same in every piece of one answer.
#[derive(Clone, Debug)]
pub struct Answer {
    id: String,
    alias: Box<str>,
    created: u64,
    include_usage: bool,
    /// The decision, for the last chunk of a stream.
    decision: Option<Box<RawValue>>,
    /// Whether a stream's opening has been written.
    is_open: bool,
}

#[derive(Serialize)]
struct CompletionWire<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [ChoiceWire<'a>; 1],
    usage: &'a Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    consort: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ChoiceWire<'a> {
    index: u32,
    message: &'a RawValue,
    logprobs: Option<&'a RawValue>,
    finish_reason: &'a str,
}

#[derive(Serialize)]
struct ChunkWire<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChunkChoice<'a>],
    /// Present in every chunk when a usage chunk was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<&'a Usage>>,
    /// In the last chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    consort: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: &'a RawValue,
    logprobs: Option<&'a RawValue>,
    finish_reason: Option<&'a str>,
}

impl Answer {
    /// An answer of `alias`, with an id of its own.
    pub fn new(alias: &str, include_usage: bool) -> Self {
        Self {
            id: format!("chatcmpl-{:032x}", rand::random::<u128>()),
            alias: alias.into(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            include_usage,
            decision: None,
            is_open: false,
        }
    }

    /// The whole answer as one JSON object.
    ///
    /// # Errors
    /// Never for a message that was read; serde's signature has it.
    pub fn completion(
        &self,
        completion: &Completion,
        usage: &Usage,
        decision: Option<&RawValue>,
    ) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(&CompletionWire {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.alias,
            choices: [ChoiceWire {
                index: 0,
                message: &completion.message,
                logprobs: completion.logprobs.as_deref(),
                finish_reason: completion.finish_reason.as_deref().unwrap_or("stop"),
            }],
            usage,
            consort: decision,
        })
        .map(Bytes::from)
    }

    /// The events of a stream that say this step: the first one is preceded by the opening, which
    /// gives the role, and the last one is followed by the end marker. A decision says nothing by itself: it
    /// goes with the last chunk.
    ///
    /// # Errors
    /// When a message cannot be cut into pieces: its tool calls are none.
    pub fn event(&mut self, event: &Event) -> Result<Bytes, CompletionError> {
        let said = match event {
            Event::Message(message) => {
                let pieces: Result<Vec<Bytes>, _> =
                    message.to_deltas()?.iter().map(|d| self.piece(d)).collect();
                Bytes::from(pieces?.concat())
            }
            Event::Delta(delta) => self.piece(delta)?,
            Event::Finish(reason) => self.chunk(b"{}", None, Some(reason))?,
            Event::Usage(usage) if self.include_usage => {
                Bytes::from([self.encode(&[], Some(usage))?, sse::encode(sse::DONE)].concat())
            }
            Event::Usage(_) => sse::encode(sse::DONE),
            Event::Decision(decision) => {
                self.decision = Some(decision.clone());
                return Ok(Bytes::new());
            }
        };
        if std::mem::replace(&mut self.is_open, true) {
            return Ok(said);
        }
        // An accumulating client shows what the opening says: no text where only tools are called.
        let content = if event.calls_tools_only() { "null" } else { "\"\"" };
        let opening = format!(r#"{{"role":"assistant","content":{content}}}"#);
        Ok(Bytes::from([self.chunk(opening.as_bytes(), None, None)?, said].concat()))
    }

    /// The event that ends a stream after its status was committed.
    pub fn error(error: &ApiError) -> Bytes {
        sse::encode(&error.to_json(None))
    }

    fn piece(&self, delta: &Delta) -> Result<Bytes, serde_json::Error> {
        self.chunk(&delta.json, delta.logprobs.as_deref(), None)
    }

    fn chunk(
        &self,
        delta: &[u8],
        logprobs: Option<&RawValue>,
        finish: Option<&str>,
    ) -> Result<Bytes, serde_json::Error> {
        let choice =
            ChunkChoice { index: 0, delta: serde_json::from_slice(delta)?, logprobs, finish_reason: finish };
        self.encode(&[choice], None)
    }

    fn encode(&self, choices: &[ChunkChoice<'_>], usage: Option<&Usage>) -> Result<Bytes, serde_json::Error> {
        let is_last = if self.include_usage {
            usage.is_some()
        } else {
            choices.iter().any(|choice| choice.finish_reason.is_some())
        };
        let mut json = serde_json::to_vec(&ChunkWire {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.alias,
            choices,
            usage: self.include_usage.then_some(usage),
            consort: self.decision.as_deref().filter(|_| is_last),
        })?;
        // A provider may break lines inside its JSON, an event's data may not. In JSON they are white space.
        if memchr::memchr2(b'\n', b'\r', &json).is_some() {
            json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
        Ok(sse::encode(&json))
    }
}

impl Event {
    /// Whether it begins an answer of tool calls without text.
    fn calls_tools_only(&self) -> bool {
        match self {
            Self::Message(message) => message.tool_calls.is_some() && message.content.is_none(),
            Self::Delta(delta) => RawObject::parse(delta.json.clone()).is_ok_and(|delta| {
                delta.raw("tool_calls").is_some() && delta.raw("content").is_none_or(|c| c == "null")
            }),
            Self::Finish(_) | Self::Usage(_) | Self::Decision(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::Collected;

    fn answer(include_usage: bool) -> Answer {
        Answer {
            id: "chatcmpl-1".to_owned(),
            alias: "team".into(),
            created: 7,
            include_usage,
            decision: None,
            is_open: false,
        }
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    fn delta(json: &'static str) -> Event {
        Event::Delta(Delta { json: Bytes::from_static(json.as_bytes()), logprobs: None, speaks: true })
    }

    #[test]
    fn a_stream_has_a_usage_chunk_exactly_when_it_was_asked_for() {
        let usage = || Event::Usage(Usage::estimate(4, 8));
        let mut plain = answer(false);
        insta::assert_snapshot!(text(&plain.event(&delta(r#"{"content":"x\u00e9"}"#)).unwrap()));
        insta::assert_snapshot!(text(&plain.event(&usage()).unwrap()), @"data: [DONE]");
        let mut asked = answer(true);
        asked.event(&delta(r#"{"content":"x"}"#)).unwrap();
        insta::assert_snapshot!(text(&asked.event(&Event::Finish("stop".into())).unwrap()));
        insta::assert_snapshot!(text(&asked.event(&usage()).unwrap()));
    }

    #[test]
    fn the_opening_has_no_text_where_only_tools_are_called() {
        let opening = |event: &Event| {
            let events = answer(false).event(event).unwrap();
            text(&events).contains(r#""delta":{"role":"assistant","content":null}"#)
        };
        assert!(opening(&delta(r#"{"tool_calls":[{"index":0}]}"#)));
        assert!(opening(&delta(r#"{"content":null,"tool_calls":[{"index":0}]}"#)));
        assert!(!opening(&delta(r#"{"content":"a","tool_calls":[{"index":0}]}"#)));
        assert!(!opening(&delta(r#"{"reasoning":"a"}"#)));
    }

    #[test]
    fn a_whole_message_is_written_in_its_pieces_behind_one_opening() {
        let content = "word ".repeat(100);
        let message = format!(
            r#"{{"role":"assistant","content":"{content}","reasoning":"hm","tool_calls":[{{"id":"a"}}]}}"#
        );
        let message = Completion::from_message(RawValue::from_string(message).unwrap()).unwrap();
        let written = answer(false).event(&Event::Message(Box::new(message))).unwrap();
        let chunks: Vec<Value> = text(&written)
            .split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
        let of_words = |count: usize| json!({"content": "word ".repeat(count)});
        let opening = json!({"role": "assistant", "content": ""});
        let call = json!({"tool_calls": [{"index": 0, "id": "a"}]});
        let thought = json!({"reasoning": "hm"});
        assert_eq!(deltas, [&opening, &thought, &of_words(40), &of_words(40), &of_words(20), &call]);
    }

    #[test]
    fn a_line_break_inside_a_piece_does_not_break_the_event() {
        let event = answer(false).event(&delta("{\"content\":\r\n\"x\",\"y\":0.70}")).unwrap();
        assert_eq!(text(&event).matches('\n').count(), 4, "two events");
        assert!(text(&event).contains(r#""delta":{"content":  "x","y":0.70}"#));
    }

    #[test]
    fn a_whole_message_is_returned_as_it_was_written() {
        let message = r#"{"role":"assistant", "content":"a\u00e9", "x":0.70}"#;
        let raw = RawValue::from_string(message.to_owned()).unwrap();
        let mut collected = Collected::default();
        collected.push(Event::Message(Box::new(Completion::from_message(raw).unwrap()))).unwrap();
        collected.push(Event::Finish("length".into())).unwrap();
        let (completion, usage) = collected.finish().unwrap();
        let body = answer(false).completion(&completion, &usage, None).unwrap();
        assert!(
            text(&body).contains(&format!(r#""message":{message},"logprobs":null,"finish_reason":"length"#)),
            "{}",
            text(&body)
        );
    }
}
