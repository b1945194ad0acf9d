//! A streamed answer in Anthropic's words, event by event.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;

use super::super::super::Failure;
use super::super::Stage;
use super::super::told::{self, Cost, Style};
use super::{Usage, answer, finish_reason};
use crate::chat::Event;

/// Reads one answer.
pub(in super::super) struct Listener {
    style: Style,
    usage: Usage,
    /// Which call a block is, by the block's index: blocks of text and of thought are numbered, too.
    calls: HashMap<u64, Call>,
    stage: Stage,
}

struct Call {
    index: usize,
    /// Whether any of its input has come.
    has_input: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    MessageStart {
        message: Start,
    },
    ContentBlockStart {
        index: u64,
        content_block: Block,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: End,
        #[serde(default)]
        usage: Usage,
    },
    MessageStop,
    Error,
    /// `ping`, and what is still to come.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
    },
    ToolUse {
        id: String,
        name: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    /// A thought's signature, citations.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct End {
    #[serde(default)]
    stop_reason: Option<String>,
}

impl Listener {
    pub(in super::super) fn new(style: Style) -> Self {
        Self { style, usage: Usage::default(), calls: HashMap::new(), stage: Stage::Speaking }
    }

    pub(in super::super) fn whole(&self, body: &[u8]) -> Result<Vec<Event>, Failure> {
        answer::whole(body, self.style)
    }

    /// What one event says.
    pub(in super::super) fn hear(&mut self, data: &Bytes) -> Result<Vec<Event>, Failure> {
        let said: Said = serde_json::from_slice(data).map_err(|e| Failure::Unreadable(e.into()))?;
        let event = match said {
            Said::MessageStart { message } => {
                self.usage.update(message.usage);
                None
            }
            Said::ContentBlockStart { index, content_block } => self.begins(index, content_block),
            Said::ContentBlockDelta { index, delta } => match delta {
                Delta::Text { text } => told::content(&text),
                Delta::Thinking { thinking } => told::reasoning(&thinking),
                Delta::InputJson { partial_json } => self.goes_on(index, &partial_json),
                Delta::Other => None,
            },
            Said::ContentBlockStop { index } => self.ends(index),
            Said::MessageDelta { delta, usage } => {
                self.usage.update(usage);
                delta.stop_reason.filter(|_| self.stage == Stage::Speaking).map(|reason| {
                    self.stage = Stage::Finished;
                    self.style.finish(finish_reason(&reason))
                })
            }
            Said::MessageStop => {
                let events = self.end()?;
                self.stage = Stage::Done;
                return Ok(events);
            }
            Said::Error => return Err(Failure::ErrorEvent),
            Said::Other => None,
        };
        Ok(event.into_iter().collect())
    }

    /// Its cost, which is only known in the end.
    pub(in super::super) fn end(&mut self) -> Result<Vec<Event>, Failure> {
        match self.stage {
            Stage::Speaking => Err(Failure::Incomplete),
            Stage::Finished => Ok(self.cost_so_far().into_iter().collect()),
            Stage::Done => Ok(Vec::new()),
        }
    }

    pub(in super::super) fn cost_so_far(&self) -> Option<Event> {
        self.usage.cost().and_then(Cost::event)
    }

    pub(in super::super) fn stage(&self) -> Stage {
        self.stage
    }

    fn begins(&mut self, block: u64, content: Block) -> Option<Event> {
        match content {
            Block::Text { text } => told::content(&text),
            Block::Thinking { thinking } => told::reasoning(&thinking),
            Block::ToolUse { id, name } => {
                let index = self.calls.len();
                self.calls.insert(block, Call { index, has_input: false });
                self.style.call_begins(index, &id, &name)
            }
            Block::Other => None,
        }
    }

    fn goes_on(&mut self, block: u64, input: &str) -> Option<Event> {
        let call = self.calls.get_mut(&block).filter(|_| !input.is_empty())?;
        call.has_input = true;
        self.style.call_goes_on(call.index, input)
    }

    /// A call without input has no arguments, which are an object nevertheless.
    fn ends(&mut self, block: u64) -> Option<Event> {
        let call = self.calls.get(&block).filter(|call| !call.has_input)?;
        self.style.call_goes_on(call.index, "{}")
    }
}
