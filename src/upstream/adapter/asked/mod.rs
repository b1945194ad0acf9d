//! One typed reading of a chat-completions request, for formats that say it in other words.
//!
//! What a format carries it takes out; what is left in the end is named and refused, or left out, as
//! [`Asked::settle`] says. No field gets lost without either.

mod messages;
mod tools;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

pub(super) use messages::{Image, Part, Turn};
pub(super) use tools::{Choice, Tool};

use super::super::{Failure, ProviderError, Unsupported};
use super::told::Style;
use crate::chat::{MAX_NODES, Nodes};

/// What changes nothing that a caller would miss, and is left out where it cannot be carried.
const HARMLESS: [&str; 11] = [
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "stream_options",
    "user",
    "verbosity",
];

/// A chat-completions request.
#[derive(Debug)]
pub(super) struct Asked {
    /// The model's name at its provider.
    pub(super) model: String,
    /// Whether the answer is to be streamed.
    pub(super) stream: bool,
    /// The conversation.
    pub(super) turns: Vec<Turn>,
    /// The tools that may be called, in order.
    pub(super) tools: Vec<Tool>,
    /// Which of them.
    pub(super) choice: Option<Choice>,
    /// Whether several at once; none where that is not said.
    pub(super) parallel: Option<bool>,
    /// How its calls are told.
    pub(super) style: Style,
    /// The form of the answer.
    pub(super) form: Form,
    /// What ends the answer.
    pub(super) stop: Vec<String>,
    /// The bound on its length, in tokens.
    pub(super) max_tokens: Option<u64>,
    /// How much is to be thought.
    pub(super) effort: Option<Effort>,
    /// How many more values may be built of it, of texts that are JSON themselves.
    pub(super) nodes: Nodes,
    /// The fields that nobody has taken yet.
    rest: Map<String, Value>,
    /// What no format carries, by path.
    misfits: Vec<String>,
}

/// The form of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Form {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON of this schema.
    Schema(Value),
}

/// How much is to be thought before an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    /// `xhigh`, `max`.
    Most,
}

/// Why a request cannot be put in other words: the field at fault and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    param: String,
    what: String,
}

impl Wrong {
    /// A field with a value that it cannot have.
    pub(super) fn new(param: impl Into<String>, what: impl Into<String>) -> Self {
        Self { param: param.into(), what: what.into() }
    }

    /// A field that is not JSON of a size that can be put in other words.
    fn unreadable(param: impl Into<String>, error: &serde_json::Error) -> Self {
        if error.is_data() {
            Self::new(
                param,
                format!("is too much: this model takes requests of at most {MAX_NODES} JSON values"),
            )
        } else {
            Self::new(param, "cannot be read")
        }
    }
}

impl From<Wrong> for Failure {
    fn from(Wrong { param, what }: Wrong) -> Self {
        refusal(format!("'{param}' {what}"), param, "invalid_value")
    }
}

fn refusal(message: String, param: String, code: &str) -> Failure {
    let error = ProviderError { message, param: Some(param), code: Some(code.to_owned()) };
    Failure::Status { status: StatusCode::BAD_REQUEST, error: Some(error), retry_after: None }
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// When a field has a value that chat completions do not know, or there are more than 131,072 values in all.
    pub(super) fn read(body: &Bytes) -> Result<Self, Failure> {
        let mut nodes = Nodes::up_to(MAX_NODES);
        let mut rest = nodes.fields(body).map_err(|(field, error)| Wrong::unreadable(field, &error))?;
        rest.retain(|_, value| !value.is_null());
        let mut misfits = Vec::new();
        let turns = messages::read(rest.shift_remove("messages"), &mut misfits, &mut nodes)?;
        let (tools, choice, style) = tools::read(&mut rest, &mut misfits)?;
        let max_tokens = ["max_completion_tokens", "max_tokens"]
            .map(|name| whole(&mut rest, name))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            model: text(&mut rest, "model")?.unwrap_or_default(),
            stream: flag(&mut rest, "stream")?.unwrap_or_default(),
            turns,
            tools,
            choice,
            parallel: flag(&mut rest, "parallel_tool_calls")?,
            style,
            form: form(&mut rest)?,
            stop: stop(&mut rest)?,
            // One may be the caller's and one the operator's: the tighter bound holds.
            max_tokens: max_tokens.into_iter().flatten().min(),
            effort: effort(&mut rest)?,
            nodes,
            rest,
            misfits,
        })
    }

    /// Takes a field, as it is.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name)
    }

    /// Takes a number.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Wrong> {
        let value = self.take(name);
        let number = |value: Value| value.as_f64().ok_or_else(|| Wrong::new(name, "must be a number"));
        value.map(number).transpose()
    }

    /// Takes a text.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Wrong> {
        text(&mut self.rest, name)
    }

    /// Says that a format cannot carry what is at `path`.
    pub(super) fn misfit(&mut self, path: impl Into<String>) {
        self.misfits.push(path.into());
    }

    /// Sees to what nobody has taken. What is harmless, or says what would be so without it, is left out.
    ///
    /// # Errors
    /// When something else is left, and the operator has it refused: a 400 that names it.
    pub(super) fn settle(&mut self, unsupported: Unsupported) -> Result<(), Failure> {
        if unsupported == Unsupported::Drop {
            return Ok(());
        }
        let left = self
            .rest
            .iter()
            .filter(|(name, value)| !HARMLESS.contains(&&***name) && !is_neutral(name, value));
        let first = self.misfits.first().cloned().or_else(|| left.map(|(name, _)| name.clone()).next());
        match first {
            None => Ok(()),
            Some(param) => {
                let message = format!("'{param}' is not supported by this model");
                Err(refusal(message, param, "unsupported_parameter"))
            }
        }
    }
}

/// Whether a field says what would be so without it.
fn is_neutral(name: &str, value: &Value) -> bool {
    match name {
        "n" | "repetition_penalty" => value.as_f64() == Some(1.0),
        "frequency_penalty" | "presence_penalty" | "top_logprobs" | "min_p" => value.as_f64() == Some(0.0),
        "logprobs" => value == &Value::Bool(false),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "modalities" => value.as_array().is_some_and(|all| all.iter().all(|one| one == "text")),
        _ => false,
    }
}

fn text(rest: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Wrong> {
    match rest.shift_remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Wrong::new(name, "must be a string")),
    }
}

fn flag(rest: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Wrong> {
    let flag = |value: Value| value.as_bool().ok_or_else(|| Wrong::new(name, "must be true or false"));
    rest.shift_remove(name).map(flag).transpose()
}

fn whole(rest: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, Wrong> {
    let whole = |value: Value| value.as_u64().ok_or_else(|| Wrong::new(name, "must be a whole number"));
    rest.shift_remove(name).map(whole).transpose()
}

fn form(rest: &mut Map<String, Value>) -> Result<Form, Wrong> {
    let Some(mut format) = rest.shift_remove("response_format") else {
        return Ok(Form::Text);
    };
    let wrong = || Wrong::new("response_format", "must be of type text, json_object or json_schema");
    match format.get("type").and_then(Value::as_str).ok_or_else(wrong)? {
        "text" => Ok(Form::Text),
        "json_object" => Ok(Form::Json),
        "json_schema" => {
            let schema = format.pointer_mut("/json_schema/schema").map(Value::take);
            // Without a schema, any object will do.
            Ok(schema.map_or(Form::Json, Form::Schema))
        }
        _ => Err(wrong()),
    }
}

fn stop(rest: &mut Map<String, Value>) -> Result<Vec<String>, Wrong> {
    let wrong = || Wrong::new("stop", "must be a string or a list of strings");
    match rest.shift_remove("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(several) => serde_json::from_value(several).map_err(|_| wrong()),
    }
}

fn effort(rest: &mut Map<String, Value>) -> Result<Option<Effort>, Wrong> {
    let Some(effort) = text(rest, "reasoning_effort")? else {
        return Ok(None);
    };
    Ok(Some(match &*effort {
        "none" => Effort::None,
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" | "max" => Effort::Most,
        _ => return Err(Wrong::new("reasoning_effort", "must be none, minimal, low, medium, high or xhigh")),
    }))
}

#[cfg(test)]
mod tests;
