//! The conversation of a request.

use serde_json::{Map, Value};

use super::super::told::ToolCall;
use super::Wrong;
use crate::chat::Nodes;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Turn {
    /// The operator's or the developer's words.
    System(Vec<Part>),
    /// The user's.
    User(Vec<Part>),
    /// The model's own: what it said and what it called.
    Assistant {
        /// What it said.
        parts: Vec<Part>,
        /// What it called.
        calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    Tool {
        /// The call that it answers.
        id: String,
        /// The tool's name; empty where the conversation does not have the call.
        name: String,
        /// What it said.
        parts: Vec<Part>,
    },
}

/// A piece of a message. Empty texts are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Part {
    /// Text.
    Text(String),
    /// An image.
    Image(Image),
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Image {
    /// To be fetched by the provider.
    Url(String),
    /// In the request itself.
    Inline {
        /// Like `image/png`.
        media_type: String,
        /// In base64.
        data: String,
    },
}

/// Reads `messages`; parts of a kind that nobody but OpenAI knows are misfits.
pub(super) fn read(
    messages: Option<Value>,
    misfits: &mut Vec<String>,
    nodes: &mut Nodes,
) -> Result<Vec<Turn>, Wrong> {
    let Some(Value::Array(messages)) = messages else {
        return Err(Wrong::new("messages", "must be a list of messages"));
    };
    let mut reader = Reader { misfits, nodes, called: Vec::new() };
    messages.into_iter().enumerate().map(|(at, message)| reader.turn(at, message)).collect()
}

struct Reader<'a> {
    misfits: &'a mut Vec<String>,
    /// How many values the arguments of calls may still have.
    nodes: &'a mut Nodes,
    /// The ids of all calls so far and what they called.
    called: Vec<(String, String)>,
}

impl Reader<'_> {
    fn turn(&mut self, at: usize, message: Value) -> Result<Turn, Wrong> {
        let path = format!("messages[{at}]");
        let Value::Object(mut message) = message else {
            return Err(Wrong::new(path, "must be a message"));
        };
        let role = message.shift_remove("role");
        let parts = self.parts(&path, message.shift_remove("content"))?;
        match role.as_ref().and_then(Value::as_str) {
            Some("system" | "developer") => Ok(Turn::System(parts)),
            Some("user") => Ok(Turn::User(parts)),
            Some("assistant") => self.assistant(&path, message, parts),
            Some("tool") => {
                let id = string(&message, "tool_call_id");
                let id = id.ok_or_else(|| Wrong::new(format!("{path}.tool_call_id"), "is required"))?;
                let called = self.called.iter().rev().find(|(known, _)| *known == id);
                let name = called.map(|(_, name)| name.clone()).unwrap_or_default();
                Ok(Turn::Tool { id, name, parts })
            }
            Some("function") => {
                let name = string(&message, "name");
                let name = name.ok_or_else(|| Wrong::new(format!("{path}.name"), "is required"))?;
                let called = self.called.iter().rev().find(|(_, known)| *known == name);
                let id = called.map_or_else(|| format!("call_{at}"), |(id, _)| id.clone());
                Ok(Turn::Tool { id, name, parts })
            }
            _ => Err(Wrong::new(
                format!("{path}.role"),
                "must be system, developer, user, assistant, tool or function",
            )),
        }
    }

    fn assistant(
        &mut self,
        path: &str,
        mut message: Map<String, Value>,
        parts: Vec<Part>,
    ) -> Result<Turn, Wrong> {
        let mut calls = Vec::new();
        if let Some(Value::Array(written)) = message.shift_remove("tool_calls") {
            for (at, call) in written.into_iter().enumerate() {
                let path = format!("{path}.tool_calls[{at}]");
                let id = call.get("id").and_then(Value::as_str);
                let (Some(id), Some(Value::Object(function))) = (id, call.get("function")) else {
                    // A custom tool's, which takes text and not JSON.
                    self.misfits.push(path);
                    continue;
                };
                calls.push(self.called(&path, id.to_owned(), function)?);
            }
        }
        if let Some(Value::Object(function)) = message.shift_remove("function_call") {
            // It had no id then.
            let id = format!("call_{}", self.called.len());
            calls.push(self.called(path, id, &function)?);
        }
        self.called.extend(calls.iter().map(|call| (call.id.clone(), call.name.clone())));
        let mut parts = parts;
        if let Some(refusal) = string(&message, "refusal").filter(|refusal| !refusal.is_empty()) {
            parts.push(Part::Text(refusal));
        }
        Ok(Turn::Assistant { parts, calls })
    }

    fn called(&mut self, path: &str, id: String, function: &Map<String, Value>) -> Result<ToolCall, Wrong> {
        let Some(name) = string(function, "name") else {
            return Err(Wrong::new(format!("{path}.function.name"), "is required"));
        };
        let mut arguments = string(function, "arguments").unwrap_or_default();
        if arguments.trim().is_empty() {
            "{}".clone_into(&mut arguments);
        }
        let param = || format!("{path}.function.arguments");
        match self.nodes.read(&arguments) {
            Ok(Value::Object(_)) => Ok(ToolCall { id, name, arguments }),
            Err(error) if error.is_data() => Err(Wrong::unreadable(param(), &error)),
            Ok(_) | Err(_) => Err(Wrong::new(param(), "must be the text of a JSON object")),
        }
    }

    fn parts(&mut self, path: &str, content: Option<Value>) -> Result<Vec<Part>, Wrong> {
        let written = match content {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::String(text)) => return Ok(text_part(text).into_iter().collect()),
            Some(Value::Array(parts)) => parts,
            Some(_) => {
                return Err(Wrong::new(format!("{path}.content"), "must be a string or a list of parts"));
            }
        };
        let mut parts = Vec::with_capacity(written.len());
        for (at, part) in written.into_iter().enumerate() {
            let path = format!("{path}.content[{at}]");
            match part.get("type").and_then(Value::as_str) {
                Some("text") => parts.extend(part_text(&part, "text").and_then(text_part)),
                Some("refusal") => parts.extend(part_text(&part, "refusal").and_then(text_part)),
                Some("image_url") => parts.push(Part::Image(image(&path, &part)?)),
                Some(_) => self.misfits.push(path),
                None => return Err(Wrong::new(path, "must have a type")),
            }
        }
        Ok(parts)
    }
}

fn string(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name)?.as_str().map(str::to_owned)
}

fn part_text(part: &Value, name: &str) -> Option<String> {
    part.get(name)?.as_str().map(str::to_owned)
}

fn text_part(text: String) -> Option<Part> {
    (!text.trim().is_empty()).then_some(Part::Text(text))
}

fn image(path: &str, part: &Value) -> Result<Image, Wrong> {
    let url = part.pointer("/image_url/url").and_then(Value::as_str);
    let url = url.ok_or_else(|| Wrong::new(format!("{path}.image_url.url"), "is required"))?;
    let Some(inline) = url.strip_prefix("data:") else {
        return Ok(Image::Url(url.to_owned()));
    };
    match inline.split_once(";base64,") {
        Some((media_type, data)) if !media_type.is_empty() => {
            let media_type = media_type.split(';').next().unwrap_or_default().to_owned();
            Ok(Image::Inline { media_type, data: data.to_owned() })
        }
        _ => Err(Wrong::new(format!("{path}.image_url.url"), "must be a URL, or data:image/…;base64,…")),
    }
}
