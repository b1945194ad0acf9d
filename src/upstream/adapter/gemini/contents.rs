//! A conversation in Gemini's words.

use serde_json::{Map, Value, json};

use super::super::asked::{Image, Part, Turn, Wrong};
use super::super::told::{ToolCall, object};
use crate::chat::Nodes;

/// What Google's documentation has in place of the signature of a call that the model itself did not make,
/// or not as it stands here: the models from Gemini 3 on take no call without one.
const UNSIGNED: &str = "skip_thought_signature_validator";

/// A conversation: what the operator and the developer say, and what is said in turns.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Conversation {
    /// The parts of the system instruction.
    pub(super) system: Vec<Value>,
    /// The contents; those of one role that followed one another are one.
    pub(super) contents: Vec<Value>,
    /// What cannot be carried, by path.
    pub(super) misfits: Vec<String>,
}

/// The turns in Gemini's words; `is_signed` where calls need a signature. Results that are JSON are read as far as there
/// are `nodes` for them.
///
/// # Errors
/// When a tool's result answers no call.
pub(super) fn contents(turns: Vec<Turn>, is_signed: bool, nodes: &mut Nodes) -> Result<Conversation, Wrong> {
    let mut said = Conversation::default();
    // A text has to be there: without any, what the operator says is what the user asks.
    let only_system = turns.iter().all(|turn| matches!(turn, Turn::System(_)));
    for (at, turn) in turns.into_iter().enumerate() {
        let path = format!("messages[{at}].content");
        match turn {
            Turn::System(parts) if only_system => {
                let parts = said.texts(&path, parts);
                said.say("user", parts);
            }
            Turn::System(parts) => {
                let parts = said.texts(&path, parts);
                said.system.extend(parts);
            }
            Turn::User(parts) => said.say("user", parts.into_iter().map(part).collect()),
            Turn::Assistant { parts, calls } => {
                let mut parts = said.texts(&path, parts);
                parts.extend(
                    calls.into_iter().enumerate().map(|(i, call)| function_call(call, is_signed && i == 0)),
                );
                said.say("model", parts);
            }
            Turn::Tool { name, .. } if name.is_empty() => {
                let param = format!("messages[{at}].tool_call_id");
                return Err(Wrong::new(param, "must be the id of a call in the conversation"));
            }
            Turn::Tool { id, name, parts } => {
                let text = said.texts(&path, parts);
                let text: String = text.iter().filter_map(|part| part.get("text")?.as_str()).collect();
                let response =
                    [("id", id.into()), ("name", name.into()), ("response", response(text, nodes))];
                said.say("user", vec![object([("functionResponse", object(response))])]);
            }
        }
    }
    Ok(said)
}

impl Conversation {
    /// Adds parts of a role.
    fn say(&mut self, role: &str, parts: Vec<Value>) {
        if parts.is_empty() {
            return;
        }
        let last = self.contents.last_mut().filter(|last| last.get("role").is_some_and(|r| r == role));
        match last.and_then(|last| last.get_mut("parts")) {
            Some(Value::Array(before)) => before.extend(parts),
            _ => self.contents.push(object([("role", role.into()), ("parts", parts.into())])),
        }
    }

    /// Parts where only text can stand.
    fn texts(&mut self, path: &str, parts: Vec<Part>) -> Vec<Value> {
        if parts.iter().any(|part| matches!(part, Part::Image(_))) {
            self.misfits.push(path.to_owned());
        }
        parts.into_iter().filter(|part| matches!(part, Part::Text(_))).map(part).collect()
    }
}

fn part(part: Part) -> Value {
    match part {
        Part::Text(text) => object([("text", text.into())]),
        Part::Image(Image::Inline { media_type, data }) => {
            object([("inlineData", object([("mimeType", media_type.into()), ("data", data.into())]))])
        }
        Part::Image(Image::Url(url)) => {
            let mut file = Map::new();
            if let Some(media_type) = media_type(&url) {
                file.insert("mimeType".to_owned(), media_type.into());
            }
            file.insert("fileUri".to_owned(), url.into());
            json!({ "fileData": file })
        }
    }
}

/// What the name of a file says that it is.
fn media_type(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    match &*extension.to_ascii_lowercase() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "gif" => Some("image/gif"),
        "heic" => Some("image/heic"),
        "heif" => Some("image/heif"),
        _ => None,
    }
}

fn function_call(call: ToolCall, is_signed: bool) -> Value {
    // That it is an object was seen when the request was read.
    let args: Map<String, Value> = serde_json::from_str(&call.arguments).unwrap_or_default();
    let call = [("id", call.id.into()), ("name", call.name.into()), ("args", args.into())];
    let mut part = object([("functionCall", object(call))]);
    if let (true, Value::Object(part)) = (is_signed, &mut part) {
        part.insert("thoughtSignature".to_owned(), UNSIGNED.into());
    }
    part
}

/// An object; a tool that says something else has that as its result.
fn response(text: String, nodes: &mut Nodes) -> Value {
    let said = text.trim_start().starts_with('{').then(|| nodes.read(&text));
    said.and_then(Result::ok).unwrap_or_else(|| object([("result", text.into())]))
}
