//! A caller's chat-completions request.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::error::ApiError;
use super::listed::each;
use super::object::{Edit, ObjectError, RawObject};

/// A chat-completions request that an ensemble can honour, as the caller wrote it.
#[derive(Clone, Debug)]
pub struct Request {
    object: RawObject,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether a stream is to end with a usage chunk.
    pub include_usage: bool,
}

/// What is wrong with a caller's request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not one JSON object.
    #[error("the request body is not a valid JSON object: {0}")]
    Syntax(ObjectError),
    /// A key that comes twice means different things to different parsers.
    #[error("the request body has the key {0:?} more than once; send each key once")]
    Duplicate(Box<str>),
    /// A key that is a field's name to parsers that do not look at case, and a stranger to the others.
    #[error("the request body has the key {key:?}; the field is called '{field}'")]
    Misspelt {
        /// The key.
        key: Box<str>,
        /// The field's name.
        field: &'static str,
    },
    /// A field with a value that it cannot have.
    #[error("'{param}' {what}")]
    Invalid {
        /// The field.
        param: &'static str,
        /// What would be right.
        what: &'static str,
    },
    /// A field that an ensemble cannot honour.
    #[error("'{param}' {what}")]
    Unsupported {
        /// The field.
        param: &'static str,
        /// Why, and what would work.
        what: &'static str,
    },
}

/// The fields of a chat-completions request by its documentation.
const FIELDS: [&str; 34] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Request {
    /// Reads the request that `bytes` are.
    ///
    /// # Errors
    /// When [`Request::parse_for_any`] says so, or when a field asks for what no single answer of an ensemble
    /// can be (`n` above 1, audio).
    pub fn parse(bytes: Bytes) -> Result<Self, RequestError> {
        let request = Self::parse_for_any(bytes)?;
        request.check_supported()?;
        Ok(request)
    }

    /// Reads the request that `bytes` are, whoever is to answer it.
    ///
    /// # Errors
    /// When they are not one JSON object with distinct keys, when a key is a field's name but for its case, or when a field that Consort itself reads
    /// (`messages`, `stream`, `stream_options`) has a wrong type.
    pub fn parse_for_any(bytes: Bytes) -> Result<Self, RequestError> {
        let object = RawObject::parse(bytes).map_err(|e| match e {
            ObjectError::Duplicate(key) => RequestError::Duplicate(key),
            e => RequestError::Syntax(e),
        })?;
        if let Some((key, field)) = object.names().find_map(|key| Some((key, misspelt(key)?))) {
            return Err(RequestError::Misspelt { key: key.into(), field });
        }
        let invalid = |param, what| RequestError::Invalid { param, what };
        let messages = object.raw("messages").unwrap_or_default();
        if !messages.starts_with('[') || messages.get(1..).is_some_and(|m| m.trim_start() == "]") {
            return Err(invalid("messages", "must be a non-empty array of messages"));
        }
        let stream =
            object.read("stream").map_err(|_| invalid("stream", "must be true or false"))?.unwrap_or(false);
        let options: Option<StreamOptions> = object
            .read("stream_options")
            .map_err(|_| invalid("stream_options", "must be an object like {\"include_usage\": true}"))?;
        if options.is_some() && !stream {
            return Err(invalid("stream_options", "is only allowed when 'stream' is true"));
        }
        Ok(Self { stream, include_usage: options.and_then(|o| o.include_usage).unwrap_or(false), object })
    }

    /// Sees that an ensemble can honour it.
    ///
    /// # Errors
    /// When a field asks for what no single answer of an ensemble can be (`n` above 1, audio).
    pub fn check_supported(&self) -> Result<(), RequestError> {
        let unsupported = |param, what| Err(RequestError::Unsupported { param, what });
        match self.object.read::<u64>("n") {
            Ok(None | Some(1)) => {}
            Ok(_) => return unsupported("n", "must be 1: an ensemble gives one answer"),
            Err(_) => return Err(RequestError::Invalid { param: "n", what: "must be a whole number" }),
        }
        let mut is_text = true;
        let wanted = self.object.raw("modalities").filter(|raw| *raw != "null");
        match wanted.map(|raw| each(raw, |Text(one)| is_text &= one == "text")) {
            None | Some(Ok(_)) if is_text => {}
            None | Some(Ok(_)) => {
                return unsupported("modalities", "must be [\"text\"]: an ensemble answers in text");
            }
            Some(Err(_)) => {
                return Err(RequestError::Invalid {
                    param: "modalities",
                    what: "must be an array of strings",
                });
            }
        }
        match self.object.raw("audio") {
            None | Some("null") => Ok(()),
            Some(_) => unsupported("audio", "is not supported: an ensemble answers in text"),
        }
    }

    /// The JSON text of a field.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.object.raw(name)
    }

    /// A field as a `T`; absent, `null` or of another type reads as none.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.object.read(name).ok().flatten()
    }

    /// The names of its fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.object.names()
    }

    /// Starts an edited copy that shares the caller's bytes.
    pub fn edit(&self) -> Edit<'_> {
        self.object.edit()
    }

    /// How many tools it offers: its `tools`, or else its legacy `functions`; none where that is no array.
    pub fn tools(&self) -> usize {
        let of = |name| self.read::<Vec<IgnoredAny>>(name);
        of("tools").or_else(|| of("functions")).map_or(0, |tools| tools.len())
    }
}

/// The field for which a parser may take a key that is not its name. Go's compares keys by Unicode's simple folding,
/// in which two letters beyond ASCII are an `s` and a `k`: behind our own `model`, a `Model` would be the caller's choice
/// of what the operator pays for.
fn misspelt(key: &str) -> Option<&'static str> {
    let is_folded = |c: char| c.is_ascii_uppercase() || matches!(c, '\u{17f}' | '\u{212a}');
    if !key.contains(is_folded) {
        return None;
    }
    let fold = |c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    FIELDS.into_iter().find(|field| key.chars().map(fold).eq(field.chars()))
}

impl From<&RequestError> for ApiError {
    fn from(error: &RequestError) -> Self {
        let api = |label| Self::new(400, label, error.to_string());
        match error {
            RequestError::Syntax(_) => api("invalid_json").code(None),
            RequestError::Duplicate(key) => api("duplicate_key").param(key),
            RequestError::Misspelt { key, .. } => api("misspelt_key").param(key),
            RequestError::Invalid { param, .. } => api("invalid_value").param(param),
            RequestError::Unsupported { param, .. } => api("unsupported_parameter").param(param),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &'static str) -> Result<Request, RequestError> {
        Request::parse(Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn stream_and_its_options_are_read() {
        let r = parse(r#"{"messages":[{}],"stream":true,"stream_options":{"include_usage":true,"x":1}}"#)
            .unwrap();
        assert!(r.stream && r.include_usage);
        let r = parse(r#"{"messages":[{}],"stream":null,"n":1,"modalities":["text"],"audio":null}"#).unwrap();
        assert!(!r.stream && !r.include_usage);
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (body, param, code) in [
            (r#"{"messages":"hi"}"#, "messages", "invalid_value"),
            (r#"{"messages":[ ]}"#, "messages", "invalid_value"),
            (r#"{"model":"x"}"#, "messages", "invalid_value"),
            (r#"{"messages":[{}],"stream":"yes"}"#, "stream", "invalid_value"),
            (r#"{"messages":[{}],"stream_options":{}}"#, "stream_options", "invalid_value"),
            (r#"{"messages":[{}],"n":2}"#, "n", "unsupported_parameter"),
            (r#"{"messages":[{}],"n":"2"}"#, "n", "invalid_value"),
            (r#"{"messages":[{}],"modalities":["text","audio"]}"#, "modalities", "unsupported_parameter"),
            (r#"{"messages":[{}],"modalities":["text",1]}"#, "modalities", "invalid_value"),
            (r#"{"messages":[{}],"audio":{"voice":"x"}}"#, "audio", "unsupported_parameter"),
            (r#"{"messages":[{}],"model":"a","model":"b"}"#, "model", "duplicate_key"),
            (r#"{"messages":[{}],"model":"a","Model":"b"}"#, "Model", "misspelt_key"),
            (r#"{"messages":[{}],"n":1,"\u004e":2}"#, "N", "misspelt_key"),
            (r#"{"messages":[{}],"me\u017fsages":[]}"#, "me\u{17f}sages", "misspelt_key"),
            (r#"{"messages":[{}],"to\u212a_choice":1,"Seed":1}"#, "Seed", "misspelt_key"),
        ] {
            let error = ApiError::from(&parse(body).unwrap_err());
            assert_eq!(
                (error.status, error.param.as_deref(), error.code.as_deref()),
                (400, Some(param), Some(code)),
                "{body}"
            );
        }
    }

    #[test]
    fn a_vendors_own_field_may_be_written_as_it_likes() {
        assert!(parse(r#"{"messages":[{}],"topK":1,"chatTemplate":"x","É":1,"\u212a":1}"#).is_ok());
    }

    #[test]
    fn tools_are_counted_or_else_legacy_functions() {
        for (fields, count) in [
            (r#""tools":[{"type":"function"},{}]"#, 2),
            (r#""functions":[{"name":"f"}]"#, 1),
            (r#""tools":[{},{}],"functions":[{}]"#, 2),
            (r#""tools":null,"functions":[{}]"#, 1),
            (r#""tools":[]"#, 0),
            (r#""tools":{"a":1}"#, 0),
            (r#""tools":"many""#, 0),
            (r#""functions":3"#, 0),
            (r#""x":1"#, 0),
        ] {
            let body = format!(r#"{{"messages":[{{}}],{fields}}}"#);
            assert_eq!(Request::parse(Bytes::from(body)).unwrap().tools(), count, "{fields}");
        }
    }
}
