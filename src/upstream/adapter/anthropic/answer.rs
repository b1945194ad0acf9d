//! A whole answer in Anthropic's words.

use serde::Deserialize;
use serde_json::Value;

use super::super::super::Failure;
use super::super::told::{Message, Style, ToolCall};
use super::{Usage, finish_reason};
use crate::chat::Event;

#[derive(Deserialize)]
struct Answer {
    content: Vec<Block>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
    },
    ToolUse(ToolUse),
    #[serde(other)]
    Other,
}

/// A call.
#[derive(Deserialize)]
struct ToolUse {
    id: String,
    name: String,
    input: Value,
}

/// What an answer says.
pub(super) fn whole(body: &[u8], style: Style) -> Result<Vec<Event>, Failure> {
    let answer: Answer = serde_json::from_slice(body).map_err(|e| Failure::Unreadable(e.into()))?;
    let mut message = Message::default();
    for block in answer.content {
        match block {
            Block::Text { text } => message.content.get_or_insert_default().push_str(&text),
            Block::Thinking { thinking } => message.reasoning.get_or_insert_default().push_str(&thinking),
            Block::ToolUse(ToolUse { id, name, input }) => {
                message.calls.push(ToolCall { id, name, arguments: input.to_string() });
            }
            Block::Other => {}
        }
    }
    let finish = answer.stop_reason.map(|reason| style.finish(finish_reason(&reason)));
    let cost = answer.usage.and_then(Usage::cost).and_then(super::Cost::event);
    Ok([Some(message.event(style)?), finish, cost].into_iter().flatten().collect())
}
