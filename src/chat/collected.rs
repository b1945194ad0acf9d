//! A stream's events, collected into one message.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::completion::MAX_CALLS;
use super::counted::{MAX_NODES, Nodes};
use super::{Completion, CompletionError, Event, RawObject, Usage, quoted};

/// How many lists of log probabilities there may be: OpenAI has two.
const MAX_LISTS: usize = 16;

/// An answer's events, collected into one message: how a caller that does not stream is answered.
#[derive(Debug, Default)]
pub struct Collected {
    message: Option<Box<Completion>>,
    pieces: Map<String, Value>,
    /// How many values these are. A text that goes on is one.
    held: usize,
    /// Lists by their names, as they were written: they are as long as the answer, and nobody looks into them here.
    logprobs: Vec<(Box<str>, String)>,
    finish_reason: Option<Box<str>>,
    usage: Usage,
    /// The decision, when one came.
    pub decision: Option<Box<RawValue>>,
}

impl Collected {
    /// Takes the next event.
    ///
    /// # Errors
    /// When a piece is no JSON object, there are more than 1,024 numbered items in a list, or more than 131,072 values in
    /// all.
    pub fn push(&mut self, event: Event) -> Result<(), CompletionError> {
        match event {
            Event::Message(message) => self.message = Some(message),
            Event::Delta(delta) => {
                let piece = Nodes::up_to(MAX_NODES).fields(&delta.json).map_err(|(_, error)| error)?;
                join(&mut self.pieces, piece, &mut self.held)?;
                if let Some(logprobs) = delta.logprobs {
                    let bytes = Bytes::copy_from_slice(logprobs.get().as_bytes());
                    join_raw(&mut self.logprobs, &RawObject::parse(bytes)?)?;
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
                    let lists: Vec<String> = self
                        .logprobs
                        .into_iter()
                        .map(|(name, json)| format!("{}:{json}", quoted(&name)))
                        .collect();
                    completion.logprobs = Some(RawValue::from_string(format!("{{{}}}", lists.join(",")))?);
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
fn join(
    into: &mut Map<String, Value>,
    piece: Map<String, Value>,
    held: &mut usize,
) -> Result<(), CompletionError> {
    for (name, value) in piece {
        if !into.contains_key(&*name) {
            hold(&Value::Null, held)?;
        }
        let slot = into.entry(&*name).or_insert(Value::Null);
        match (slot, value) {
            (_, Value::Null) => {}
            (Value::String(text), Value::String(more)) if name != "type" && name != "id" => {
                text.push_str(&more)
            }
            (Value::Object(object), Value::Object(more)) => join(object, more, held)?,
            (Value::Array(items), Value::Array(more)) => join_items(items, more, held)?,
            (slot @ Value::Null, Value::Array(more)) => {
                let mut items = Vec::new();
                join_items(&mut items, more, held)?;
                *slot = Value::Array(items);
            }
            (slot, value) => {
                *held = held.saturating_sub(size(slot));
                hold(&value, held)?;
                *slot = value;
            }
        }
    }
    Ok(())
}

/// Counts what is held from now on.
fn hold(value: &Value, held: &mut usize) -> Result<(), CompletionError> {
    *held += size(value);
    if *held <= MAX_NODES { Ok(()) } else { Err(CompletionError::TooMany) }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.values().map(size).sum(),
        _ => 0,
    }
}

/// Joins lists as they are written; of anything else the last one counts.
fn join_raw(joined: &mut Vec<(Box<str>, String)>, piece: &RawObject) -> Result<(), CompletionError> {
    for name in piece.names() {
        let raw = piece.raw(name).unwrap_or("null");
        let is_full = joined.len() >= MAX_LISTS;
        match joined.iter_mut().find(|(known, _)| **known == *name) {
            None if is_full => return Err(CompletionError::TooMany),
            None => joined.push((name.into(), raw.to_owned())),
            Some(_) if raw == "null" => {}
            Some((_, known)) => match (items(known), items(raw)) {
                (Some(_), Some("")) => {}
                (Some(before), Some(more)) if !before.is_empty() => {
                    known.truncate(known.len() - 1);
                    known.extend([",", more, "]"]);
                }
                _ => raw.clone_into(known),
            },
        }
    }
    Ok(())
}

/// What stands between the brackets of a list.
fn items(json: &str) -> Option<&str> {
    Some(json.strip_prefix('[')?.strip_suffix(']')?.trim())
}

fn join_items(items: &mut Vec<Value>, more: Vec<Value>, held: &mut usize) -> Result<(), CompletionError> {
    for item in more {
        match item {
            Value::Object(mut fields) => match fields.shift_remove("index").and_then(|i| i.as_u64()) {
                Some(index) => {
                    // Indexes come in order; one far ahead of the rest is not a reason to allocate.
                    let at = usize::try_from(index).unwrap_or(usize::MAX).min(items.len());
                    let is_full = items.len() >= MAX_CALLS;
                    match items.get_mut(at) {
                        Some(Value::Object(known)) => join(known, fields, held)?,
                        _ if is_full => return Err(CompletionError::TooMany),
                        _ => push(items, Value::Object(fields), held)?,
                    }
                }
                None => push(items, Value::Object(fields), held)?,
            },
            item => push(items, item, held)?,
        }
    }
    Ok(())
}

fn push(items: &mut Vec<Value>, item: Value, held: &mut usize) -> Result<(), CompletionError> {
    hold(&item, held)?;
    items.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
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
    fn values_are_as_many_as_are_held_and_one_past_that_is_an_error() {
        let list = |values: usize| {
            let json = format!(r#"{{"x_vendor":[{}]}}"#, vec!["0"; values].join(","));
            Event::Delta(Delta { json: json.into(), logprobs: None, speaks: true })
        };
        let mut collected = Collected::default();
        collected.push(list(MAX_NODES - 11)).unwrap();
        collected.push(list(9)).unwrap();
        // What takes the place of another, or goes on, is none more.
        for piece in [r#"{"content":"a"}"#, r#"{"content":"b"}"#, r#"{"content":"c"}"#] {
            collected.push(delta(piece)).unwrap();
        }
        assert!(matches!(collected.push(list(1)), Err(CompletionError::TooMany)));
        let mut collected = Collected::default();
        (0..MAX_NODES + 1).for_each(|_| collected.push(delta(r#"{"x":1}"#)).unwrap());
    }

    #[test]
    fn log_probabilities_are_joined_as_they_are_written() {
        let mut collected = Collected::default();
        for logprobs in [
            r#"{"content":[ {"token":"a","logprob":-0.50} ],"refusal":null}"#,
            r#"{"content":[],"refusal":[]}"#,
            r#"{"content":null,"refusal":[1]}"#,
            r#"{"content":[{"token":"b"},2.0],"x":1}"#,
            r#"{"x":2}"#,
        ] {
            let logprobs = Some(RawValue::from_string(logprobs.to_owned()).unwrap());
            let json = Bytes::from_static(b"{}");
            collected.push(Event::Delta(Delta { json, logprobs, speaks: true })).unwrap();
        }
        let (completion, _) = collected.finish().unwrap();
        let joined = r#"{"content":[ {"token":"a","logprob":-0.50} ,{"token":"b"},2.0],"refusal":[1],"x":2}"#;
        assert_eq!(completion.logprobs.unwrap().get(), joined);
    }

    #[test]
    fn log_probabilities_are_in_as_many_lists_as_are_held_and_one_past_that_is_an_error() {
        let mut collected = Collected::default();
        let mut list = |name: usize| {
            let logprobs = Some(RawValue::from_string(format!(r#"{{"{name}":[]}}"#)).unwrap());
            collected.push(Event::Delta(Delta { json: Bytes::from_static(b"{}"), logprobs, speaks: true }))
        };
        assert!((0..MAX_LISTS).all(|name| list(name).is_ok()) && list(0).is_ok());
        assert!(list(MAX_LISTS).is_err());
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
