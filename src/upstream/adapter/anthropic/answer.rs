//! A whole answer in Anthropic's words.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::super::Failure;
use super::super::told::{Message, Style, ToolCall, compact};
use super::{Usage, finish_reason, read};
use crate::chat::{Event, MAX_PARTS, UpTo};

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    content: UpTo<Block<'a>, MAX_PARTS>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

/// A block: its fields are read when its type is known. (Serde's own reading of types keeps all the others in between,
/// as values.)
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// What an answer says.
pub(super) fn whole(body: &[u8], style: Style) -> Result<Vec<Event>, Failure> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|e| Failure::Unreadable(e.into()))?;
    let mut message = Message::default();
    for block in answer.content.0 {
        match &*block.kind {
            "text" => add(&mut message.content, read(block.text)?),
            "thinking" => add(&mut message.reasoning, read(block.thinking)?),
            "tool_use" => {
                // No JSON is none that can be read: a call has its arguments.
                let input = block.input.map_or("", RawValue::get);
                let input: &RawValue =
                    serde_json::from_str(input).map_err(|e| Failure::Unreadable(e.into()))?;
                let (id, name) = (read(block.id)?, read(block.name)?);
                message.calls.push(ToolCall { id, name, arguments: compact(input.get()) });
            }
            _ => {}
        }
    }
    let finish = answer.stop_reason.map(|reason| style.finish(finish_reason(&reason)));
    let cost = answer.usage.and_then(Usage::cost).and_then(super::Cost::event);
    Ok([Some(message.event(style)?), finish, cost].into_iter().flatten().collect())
}

/// Adds a further text; the first one is not copied.
fn add(text: &mut Option<String>, more: String) {
    match text {
        Some(text) => text.push_str(&more),
        None => *text = Some(more),
    }
}
