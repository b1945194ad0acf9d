//! The tools of a request.

use serde_json::{Map, Value};

use super::super::told::Style;
use super::Wrong;

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Tool {
    /// Its name.
    pub(in super::super) name: String,
    /// What it does.
    pub(in super::super) description: Option<String>,
    /// The JSON Schema of its arguments; none where it takes none.
    pub(in super::super) parameters: Option<Value>,
    /// Whether calls have to fit the schema exactly.
    pub(in super::super) strict: bool,
}

/// Which tools a model is to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Choice {
    /// Those that it likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// Takes `tools` and `tool_choice`, or what they were called before.
pub(super) fn read(
    rest: &mut Map<String, Value>,
    misfits: &mut Vec<String>,
) -> Result<(Vec<Tool>, Option<Choice>, Style), Wrong> {
    let mut tools = Vec::new();
    for (at, mut tool) in list(rest, "tools")?.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        match tool.get_mut("function").map(Value::take) {
            Some(Value::Object(function)) => tools.push(self::tool(&format!("{path}.function"), function)?),
            _ => misfits.push(path),
        }
    }
    let functions = list(rest, "functions")?;
    let style = if tools.is_empty() && !functions.is_empty() { Style::Functions } else { Style::Tools };
    for (at, function) in functions.into_iter().enumerate() {
        let path = format!("functions[{at}]");
        let Value::Object(function) = function else {
            return Err(Wrong::new(path, "must be a function"));
        };
        tools.push(tool(&path, function)?);
    }
    let mut choice = None;
    for (name, nested) in [("function_call", false), ("tool_choice", true)] {
        match rest.shift_remove(name) {
            None => {}
            Some(Value::String(word)) => choice = Some(word_of(name, &word)?),
            Some(written) => {
                let function = if nested { written.get("function") } else { Some(&written) };
                match function.and_then(|function| function.get("name")).and_then(Value::as_str) {
                    Some(name) => choice = Some(Choice::Named(name.to_owned())),
                    None => misfits.push(name.to_owned()),
                }
            }
        }
    }
    Ok((tools, choice, style))
}

fn word_of(name: &str, word: &str) -> Result<Choice, Wrong> {
    match word {
        "auto" => Ok(Choice::Auto),
        "none" => Ok(Choice::None),
        "required" => Ok(Choice::Required),
        _ => Err(Wrong::new(name, "must be auto, none or required, or name a function")),
    }
}

fn list(rest: &mut Map<String, Value>, name: &str) -> Result<Vec<Value>, Wrong> {
    match rest.shift_remove(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Wrong::new(name, "must be a list")),
    }
}

fn tool(path: &str, mut function: Map<String, Value>) -> Result<Tool, Wrong> {
    let parameters = function.shift_remove("parameters").filter(Value::is_object);
    let text = |name: &str| function.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Tool {
        name: text("name").ok_or_else(|| Wrong::new(format!("{path}.name"), "is required"))?,
        description: text("description"),
        parameters,
        strict: function.get("strict").and_then(Value::as_bool).unwrap_or_default(),
    })
}
