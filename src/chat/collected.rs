//! A stream's events, collected into one message.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::completion::MAX_CALLS;
use super::{Completion, CompletionError, Event, Usage};

/// An answer's events, collected into one message: how a caller that does not stream is answered.
#[derive(Debug, Default)]
pub struct Collected {
    message: Option<Box<Completion>>,
    pieces: Map<String, Value>,
    logprobs: Map<String, Value>,
    finish_reason: Option<Box<str>>,
    usage: Usage,
    /// The decision, when one came.
    pub decision: Option<Box<RawValue>>,
}

impl Collected {
    /// Takes the next event.
    ///
    /// # Errors
    /// When a piece is no JSON object, or there are more than 1,024 numbered items in a list.
    pub fn push(&mut self, event: Event) -> Result<(), CompletionError> {
        match event {
            Event::Message(message) => self.message = Some(message),
            Event::Delta(delta) => {
                join(&mut self.pieces, serde_json::from_slice(&delta.json)?)?;
                if let Some(logprobs) = delta.logprobs {
                    join(&mut self.logprobs, serde_json::from_str(logprobs.get())?)?;
                }
            }
            Event::Finish(reason) => self.finish_reason = Some(reason),
            Event::Usage(usage) => self.usage.add(&usage),
            Event::Decision(decision) => self.decision = Some(decision),
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
fn join(into: &mut Map<String, Value>, piece: Map<String, Value>) -> Result<(), CompletionError> {
    for (name, value) in piece {
        let slot = into.entry(&*name).or_insert(Value::Null);
        match (slot, value) {
            (_, Value::Null) => {}
            (Value::String(text), Value::String(more)) if name != "type" && name != "id" => {
                text.push_str(&more)
            }
            (Value::Object(object), Value::Object(more)) => join(object, more)?,
            (Value::Array(items), Value::Array(more)) => join_items(items, more)?,
            (slot @ Value::Null, Value::Array(more)) => {
                let mut items = Vec::new();
                join_items(&mut items, more)?;
                *slot = Value::Array(items);
            }
            (slot, value) => *slot = value,
        }
    }
    Ok(())
}

fn join_items(items: &mut Vec<Value>, more: Vec<Value>) -> Result<(), CompletionError> {
    for item in more {
        match item {
            Value::Object(mut fields) => match fields.shift_remove("index").and_then(|i| i.as_u64()) {
                Some(index) => {
                    // Indexes come in order; one far ahead of the rest is not a reason to allocate.
                    let at = usize::try_from(index).unwrap_or(usize::MAX).min(items.len());
                    let is_full = items.len() >= MAX_CALLS;
                    match items.get_mut(at) {
                        Some(Value::Object(known)) => join(known, fields)?,
                        _ if is_full => return Err(CompletionError::TooMany),
                        _ => items.push(Value::Object(fields)),
                    }
                }
                None => items.push(Value::Object(fields)),
            },
            item => items.push(item),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::chat::Delta;

    fn delta(json: &'static str) -> Event {
        Event::Delta(Delta { json: Bytes::from_static(json.as_bytes()), logprobs: None, speaks: true })
    }

    #[test]
    fn numbered_items_are_as_many_as_are_held_and_one_past_that_is_an_error() {
        let call = |index: usize| {
            let json = format!(r#"{{"tool_calls":[{{"index":{index},"id":"x"}}]}}"#);
            Event::Delta(Delta { json: json.into(), logprobs: None, speaks: true })
        };
        let mut collected = Collected::default();
        for index in 0..MAX_CALLS {
            collected.push(call(index)).unwrap();
        }
        collected.push(call(0)).unwrap();
        assert!(collected.push(call(MAX_CALLS)).is_err());
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
}
