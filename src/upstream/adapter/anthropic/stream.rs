//! A streamed answer in Anthropic's words, event by event.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::super::Failure;
use super::super::Stage;
use super::super::told::{self, Cost, Style};
use super::answer::Block;
use super::{Usage, answer, finish_reason, read};
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

/// An event: its fields are read when its type is known, as those of a block.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
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
        let said: Said<'_> = serde_json::from_slice(data).map_err(|e| Failure::Unreadable(e.into()))?;
        let event = match &*said.kind {
            "message_start" => {
                let Start { usage } = read(said.message)?;
                self.usage.update(usage);
                None
            }
            "content_block_start" => self.begins(read(said.index)?, &read(said.content_block)?)?,
            "content_block_delta" => {
                let delta: Delta<'_> = read(said.delta)?;
                match &*delta.kind {
                    "text_delta" => told::content(&read::<Cow<'_, str>>(delta.text)?),
                    "thinking_delta" => told::reasoning(&read::<Cow<'_, str>>(delta.thinking)?),
                    "input_json_delta" => {
                        self.goes_on(read(said.index)?, &read::<Cow<'_, str>>(delta.partial_json)?)
                    }
                    // A thought's signature, citations.
                    _ => None,
                }
            }
            "content_block_stop" => self.ends(read(said.index)?),
            "message_delta" => {
                if said.usage.is_some() {
                    self.usage.update(read(said.usage)?);
                }
                let End { stop_reason } = read(said.delta)?;
                stop_reason.filter(|_| self.stage == Stage::Speaking).map(|reason| {
                    self.stage = Stage::Finished;
                    self.style.finish(finish_reason(&reason))
                })
            }
            "message_stop" => {
                let events = self.end()?;
                self.stage = Stage::Done;
                return Ok(events);
            }
            "error" => return Err(Failure::ErrorEvent),
            // `ping`, and what is still to come.
            _ => None,
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

    fn begins(&mut self, block: u64, content: &Block<'_>) -> Result<Option<Event>, Failure> {
        let text = |field: Option<&RawValue>| field.map_or(Ok(String::new()), |raw| read(Some(raw)));
        Ok(match &*content.kind {
            "text" => told::content(&text(content.text)?),
            "thinking" => told::reasoning(&text(content.thinking)?),
            "tool_use" => {
                let (id, name): (String, String) = (read(content.id)?, read(content.name)?);
                let index = self.calls.len();
                self.calls.insert(block, Call { index, has_input: false });
                self.style.call_begins(index, &id, &name)
            }
            _ => None,
        })
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
