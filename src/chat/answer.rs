//! The caller's answer: one completion, or a stream of chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{Completion, CompletionError, Delta, Event, RawObject, Usage, sse};

/// What is the same in every piece of one answer.
#[derive(Clone, Debug)]
pub struct Answer {
    id: String,
    alias: Box<str>,
    created: u64,
    include_usage: bool,
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
            is_open: false,
        }
    }

    /// The whole answer as one JSON object.
    ///
    /// # Errors
    /// Never for what [`Collected`] gives; serde's signature has it.
    pub fn completion(&self, completion: &Completion, usage: &Usage) -> Result<Bytes, serde_json::Error> {
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
        })
        .map(Bytes::from)
    }

    /// The events of a stream that say this step: the first one is preceded by the opening, which
    /// gives the role, and the last one is followed by the end marker.
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
        sse::encode(&error.to_json())
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
        let mut json = serde_json::to_vec(&ChunkWire {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.alias,
            choices,
            usage: self.include_usage.then_some(usage),
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
            Self::Finish(_) | Self::Usage(_) => false,
        }
    }
}

/// An answer's events, collected into one message: how a caller that does not stream is answered.
#[derive(Debug, Default)]
pub struct Collected {
    message: Option<Box<Completion>>,
    pieces: Map<String, Value>,
    logprobs: Map<String, Value>,
    finish_reason: Option<Box<str>>,
    usage: Usage,
}

impl Collected {
    /// Takes the next event.
    ///
    /// # Errors
    /// When a piece is no JSON object.
    pub fn push(&mut self, event: Event) -> Result<(), CompletionError> {
        match event {
            Event::Message(message) => self.message = Some(message),
            Event::Delta(delta) => {
                join(&mut self.pieces, serde_json::from_slice(&delta.json)?);
                if let Some(logprobs) = delta.logprobs {
                    join(&mut self.logprobs, serde_json::from_str(logprobs.get())?);
                }
            }
            Event::Finish(reason) => self.finish_reason = Some(reason),
            Event::Usage(usage) => self.usage.add(&usage),
        }
        Ok(())
    }

    /// The message, and what it cost. A message that came whole is returned as it was written.
    ///
    /// # Errors
    /// When the pieces make no message.
    pub fn finish(self) -> Result<(Completion, Usage), CompletionError> {
        let mut completion = match self.message {
            Some(message) => *message,
            None => {
                let mut message = Map::new();
                message.insert("role".to_owned(), json!("assistant"));
                message.insert("content".to_owned(), Value::Null);
                message.insert("refusal".to_owned(), Value::Null);
                message.extend(self.pieces);
                let mut completion = Completion::from_message(serde_json::value::to_raw_value(&message)?)?;
                if !self.logprobs.is_empty() {
                    completion.logprobs = Some(serde_json::value::to_raw_value(&self.logprobs)?);
                }
                completion
            }
        };
        if self.finish_reason.is_some() {
            completion.finish_reason = self.finish_reason;
        }
        Ok((completion, self.usage))
    }
}

/// Joins a further piece to what came before: texts are appended, lists of numbered items by their
/// `index`, other lists one behind the other.
fn join(into: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (name, value) in piece {
        let slot = into.entry(&*name).or_insert(Value::Null);
        match (slot, value) {
            (_, Value::Null) => {}
            (Value::String(text), Value::String(more)) if name != "type" && name != "id" => {
                text.push_str(&more)
            }
            (Value::Object(object), Value::Object(more)) => join(object, more),
            (Value::Array(items), Value::Array(more)) => join_items(items, more),
            (slot @ Value::Null, Value::Array(more)) => {
                let mut items = Vec::new();
                join_items(&mut items, more);
                *slot = Value::Array(items);
            }
            (slot, value) => *slot = value,
        }
    }
}

fn join_items(items: &mut Vec<Value>, more: Vec<Value>) {
    for item in more {
        match item {
            Value::Object(mut fields) => match fields.shift_remove("index").and_then(|i| i.as_u64()) {
                Some(index) => {
                    // Indexes come in order; one far ahead of the rest is not a reason to allocate.
                    let at = usize::try_from(index).unwrap_or(usize::MAX).min(items.len());
                    match items.get_mut(at) {
                        Some(Value::Object(known)) => join(known, fields),
                        _ => items.push(Value::Object(fields)),
                    }
                }
                None => items.push(Value::Object(fields)),
            },
            item => items.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(include_usage: bool) -> Answer {
        Answer {
            id: "chatcmpl-1".to_owned(),
            alias: "team".into(),
            created: 7,
            include_usage,
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
    fn pieces_collect_to_the_message_they_were_cut_from() {
        let mut collected = Collected::default();
        for piece in [
            r#"{"content":"he"}"#,
            r#"{"content":"llo","reasoning_content":"hm"}"#,
            r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
        ] {
            collected.push(delta(piece)).unwrap();
        }
        collected.push(Event::Finish("tool_calls".into())).unwrap();
        let (completion, _) = collected.finish().unwrap();
        assert_eq!(completion.finish_reason.as_deref(), Some("tool_calls"));
        let message: Value = serde_json::from_str(completion.message.get()).unwrap();
        assert_eq!(
            message,
            json!({"role": "assistant", "content": "hello", "refusal": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]})
        );
    }

    #[test]
    fn a_whole_message_is_returned_as_it_was_written() {
        let message = r#"{"role":"assistant", "content":"a\u00e9", "x":0.70}"#;
        let raw = RawValue::from_string(message.to_owned()).unwrap();
        let mut collected = Collected::default();
        collected.push(Event::Message(Box::new(Completion::from_message(raw).unwrap()))).unwrap();
        collected.push(Event::Finish("length".into())).unwrap();
        let (completion, usage) = collected.finish().unwrap();
        let body = answer(false).completion(&completion, &usage).unwrap();
        assert!(
            text(&body).contains(&format!(r#""message":{message},"logprobs":null,"finish_reason":"length"#)),
            "{}",
            text(&body)
        );
    }
}
