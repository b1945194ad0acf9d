//! What an answer in another format is in that of chat completions.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::Failure;
use crate::chat::{Completion, Delta, Event, Usage};

/// How a caller who offers functions the way they were offered before tools is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// `tool_calls`.
    #[default]
    Tools,
    /// One `function_call`.
    Functions,
}

/// A whole message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// What it says; none where it only calls tools.
    pub(super) content: Option<String>,
    /// What it thought aloud.
    pub(super) reasoning: Option<String>,
    /// Why it does not answer.
    pub(super) refusal: Option<String>,
    /// The tools it calls, in order.
    pub(super) calls: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolCall {
    pub(super) id: String,
    pub(super) name: String,
    /// A JSON text.
    pub(super) arguments: String,
}

/// What an answer cost; what was not reported is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// All that was read, cached or not.
    pub(super) prompt: u64,
    /// All that was written, reasoning included.
    pub(super) completion: u64,
    /// Of what was read, what came from a cache.
    pub(super) cached: Option<u64>,
    /// Of what was read, what was put into a cache.
    pub(super) cache_written: Option<u64>,
    /// Of what was written, what was thought.
    pub(super) reasoning: Option<u64>,
}

impl Message {
    /// As an event.
    ///
    /// # Errors
    /// Never for what was built here; the reader's signature has it.
    pub(super) fn event(self, style: Style) -> Result<Event, Failure> {
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        message.insert("content".to_owned(), self.content.into());
        message.insert("refusal".to_owned(), self.refusal.into());
        if let Some(reasoning) = self.reasoning {
            message.insert("reasoning_content".to_owned(), reasoning.into());
        }
        let mut calls = self.calls.iter();
        match style {
            Style::Functions => {
                if let Some(call) = calls.next() {
                    message.insert("function_call".to_owned(), call.function());
                }
            }
            Style::Tools if !self.calls.is_empty() => {
                let calls =
                    calls.map(|call| json!({"id": call.id, "type": "function", "function": call.function()}));
                message.insert("tool_calls".to_owned(), calls.collect());
            }
            Style::Tools => {}
        }
        let unreadable = |e: Box<dyn std::error::Error + Send + Sync>| Failure::Unreadable(e);
        let raw = serde_json::value::to_raw_value(&message).map_err(|e| unreadable(e.into()))?;
        let completion = Completion::from_message(raw).map_err(|e| unreadable(e.into()))?;
        Ok(Event::Message(Box::new(completion)))
    }
}

impl ToolCall {
    fn function(&self) -> Value {
        json!({"name": self.name, "arguments": self.arguments})
    }
}

impl Style {
    /// `reason` as such a caller knows it.
    pub(super) fn finish(self, reason: &str) -> Event {
        Event::Finish(match (self, reason) {
            (Self::Functions, "tool_calls") => "function_call".into(),
            _ => reason.into(),
        })
    }

    /// The beginning of the call at `index`.
    pub(super) fn call_begins(self, index: usize, id: &str, name: &str) -> Option<Event> {
        let function = json!({"name": name, "arguments": ""});
        self.call(index, json!({"index": index, "id": id, "type": "function", "function": function}))
    }

    /// A further piece of its arguments.
    pub(super) fn call_goes_on(self, index: usize, arguments: &str) -> Option<Event> {
        self.call(index, json!({"index": index, "function": {"arguments": arguments}}))
    }

    fn call(self, index: usize, mut call: Value) -> Option<Event> {
        match self {
            Self::Tools => Some(delta("tool_calls", json!([call]))),
            Self::Functions if index == 0 => {
                call.get_mut("function").map(|function| delta("function_call", function.take()))
            }
            Self::Functions => None,
        }
    }
}

/// A piece of a message's text.
pub(super) fn content(text: &str) -> Option<Event> {
    (!text.is_empty()).then(|| delta("content", text.into()))
}

/// A piece of what it thinks aloud.
pub(super) fn reasoning(text: &str) -> Option<Event> {
    (!text.is_empty()).then(|| delta("reasoning_content", text.into()))
}

fn delta(name: &str, value: Value) -> Event {
    let speaks = value.as_str().is_none_or(|text| !text.trim().is_empty());
    let json = Bytes::from(json!({ name: value }).to_string());
    Event::Delta(Delta { json, logprobs: None, speaks })
}

impl Cost {
    /// As an event.
    pub(super) fn event(self) -> Option<Event> {
        let mut usage = json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt.saturating_add(self.completion),
        });
        let details = [
            ("prompt_tokens_details", "cached_tokens", self.cached),
            ("prompt_tokens_details", "cache_creation_tokens", self.cache_written),
            ("completion_tokens_details", "reasoning_tokens", self.reasoning),
        ];
        for (object, field, count) in details {
            if let (Some(count), Some(usage)) = (count, usage.as_object_mut())
                && let Value::Object(object) = usage.entry(object).or_insert_with(|| json!({}))
            {
                object.insert(field.to_owned(), count.into());
            }
        }
        let usage: Usage = serde_json::from_value(usage).ok()?;
        Some(Event::Usage(usage))
    }
}

/// An object of these values, which `json!` would copy.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
}

/// JSON without white space between its tokens: a whole answer is indented, the events of a stream are not.
pub(super) fn compact(json: &str) -> String {
    let (mut in_text, mut is_escaped) = (false, false);
    let keeps = |c: &char| {
        let keeps = in_text || !c.is_ascii_whitespace();
        if *c == '"' && !is_escaped {
            in_text = !in_text;
        }
        is_escaped = in_text && *c == '\\' && !is_escaped;
        keeps
    };
    json.chars().filter(keeps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(message: Message, style: Style) -> Value {
        match message.event(style).unwrap() {
            Event::Message(completion) => serde_json::from_str(completion.message.get()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn json_of(event: Option<Event>) -> Value {
        match event {
            Some(Event::Delta(delta)) => serde_json::from_slice(&delta.json).unwrap(),
            Some(Event::Usage(usage)) => serde_json::to_value(usage).unwrap(),
            _ => Value::Null,
        }
    }

    #[test]
    fn calls_are_told_the_way_they_were_offered() {
        let calling = || Message {
            reasoning: Some("hm".to_owned()),
            calls: ["f", "g"]
                .map(|name| ToolCall {
                    id: format!("id_{name}"),
                    name: name.to_owned(),
                    arguments: "{}".to_owned(),
                })
                .into(),
            ..Message::default()
        };
        assert_eq!(
            message(calling(), Style::Tools),
            json!({"role": "assistant", "content": null, "refusal": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "id_f", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "id_g", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]})
        );
        assert_eq!(
            message(calling(), Style::Functions)["function_call"],
            json!({"name": "f", "arguments": "{}"})
        );
        let begins = |style: Style, index| json_of(style.call_begins(index, "id", "f"));
        assert_eq!(
            begins(Style::Tools, 1),
            json!({"tool_calls": [{"index": 1, "id": "id", "type": "function", "function": {"name": "f", "arguments": ""}}]})
        );
        assert_eq!(begins(Style::Functions, 0), json!({"function_call": {"name": "f", "arguments": ""}}));
        assert_eq!(begins(Style::Functions, 1), Value::Null);
        assert_eq!(
            json_of(Style::Functions.call_goes_on(0, "{")),
            json!({"function_call": {"arguments": "{"}})
        );
        assert!(matches!(Style::Functions.finish("tool_calls"), Event::Finish(f) if &*f == "function_call"));
        assert!(matches!(Style::Tools.finish("tool_calls"), Event::Finish(f) if &*f == "tool_calls"));
    }

    #[test]
    fn usage_has_the_details_that_were_reported_and_no_others() {
        let cost = Cost { prompt: 10, completion: 5, ..Cost::default() };
        assert_eq!(
            json_of(cost.event()),
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
        );
        let cost = Cost { cached: Some(4), cache_written: Some(1), reasoning: Some(2), ..cost };
        assert_eq!(
            json_of(cost.event()),
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 2}})
        );
    }

    #[test]
    fn a_text_without_a_word_is_no_speech() {
        let speaks = |event| matches!(event, Some(Event::Delta(Delta { speaks: true, .. })));
        assert!(
            speaks(content("a")) && speaks(reasoning("a")) && speaks(Style::Tools.call_begins(0, "i", "f"))
        );
        assert!(content("").is_none() && !speaks(content(" \n")));
    }
}
