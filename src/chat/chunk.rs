//! A chunk of a provider's stream.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::listed::First;
use super::object::{ObjectError, RawObject};
use super::{Delta, JsonError, Usage};

/// What a chunk of a provider's stream says.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// A further piece of the message; none when it would say nothing to a caller.
    pub delta: Option<Delta>,
    /// Why the message ended.
    pub finish_reason: Option<Box<str>>,
    /// What the answer cost.
    pub usage: Option<Usage>,
}

/// Why an event of a provider's stream is no chunk.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Not the JSON of one.
    #[error("not a chat completion chunk: {0}")]
    Json(JsonError),
    /// Its delta is no object with distinct keys.
    #[error("not a delta")]
    Delta(#[from] ObjectError),
    /// The provider ended its stream with an error.
    #[error("the provider sent an error event")]
    Provider,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    choices: Option<First<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    logprobs: Option<&'a RawValue>,
}

impl Chunk {
    /// Reads the chunk that an event's data is.
    ///
    /// # Errors
    /// When it is none, or the provider's error.
    pub fn parse(data: &Bytes) -> Result<Self, ChunkError> {
        let wire: Wire<'_> = serde_json::from_slice(data).map_err(|e| ChunkError::Json(e.into()))?;
        if wire.error.is_some_and(|e| e.get() != "null") {
            return Err(ChunkError::Provider);
        }
        let mut chunk = Self { usage: wire.usage.and_then(Usage::read), ..Self::default() };
        let Some(choice) = wire.choices.and_then(|First(choice)| choice) else {
            return Ok(chunk);
        };
        // Some providers write an empty one where others write null.
        let finish_reason = choice.finish_reason.filter(|f| !f.is_empty());
        chunk.finish_reason = finish_reason.map(|f| f.into_owned().into_boxed_str());
        if let Some(delta) = choice.delta.filter(|d| d.get() != "null") {
            let raw = data.slice_ref(delta.get().as_bytes());
            let logprobs = choice.logprobs.filter(|l| l.get() != "null").map(ToOwned::to_owned);
            chunk.delta = Delta::read(raw, logprobs)?;
        }
        Ok(chunk)
    }
}

impl Delta {
    /// Reads a provider's delta. The role is dropped (ours has been sent, and accumulating clients
    /// would write it twice), and with it a delta that then says nothing.
    pub(super) fn read(json: Bytes, logprobs: Option<Box<RawValue>>) -> Result<Option<Self>, ObjectError> {
        let object = RawObject::parse(json)?;
        let speaks = ["content", "tool_calls", "reasoning_content", "reasoning", "refusal", "function_call"]
            .iter()
            .any(|name| !is_blank(object.raw(name)));
        let says_more = object.names().any(|name| name != "role" && !is_empty(object.raw(name)));
        if !says_more && logprobs.is_none() {
            return Ok(None);
        }
        let json = match object.raw("role") {
            None => object.bytes().clone(),
            Some(_) => object.edit().remove("role").body().to_bytes(),
        };
        Ok(Some(Self { json, logprobs, speaks }))
    }

    /// Whether it is a piece of a refusal.
    pub fn refuses(&self) -> bool {
        RawObject::parse(self.json.clone()).is_ok_and(|delta| !is_empty(delta.raw("refusal")))
    }
}

/// Whether it is nothing, or a text of white space.
pub(super) fn is_blank(raw: Option<&str>) -> bool {
    // A longer text is never only white space in practice, and not worth unescaping.
    let is_short = |raw: &&str| raw.len() <= 32;
    is_empty(raw)
        || raw
            .filter(is_short)
            .and_then(|raw| serde_json::from_str::<String>(raw).ok())
            .is_some_and(|text| text.trim().is_empty())
}

/// Whether it is nothing at all.
pub(super) fn is_empty(raw: Option<&str>) -> bool {
    matches!(raw, None | Some("null" | "\"\"" | "[]" | "{}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &'static str) -> Chunk {
        Chunk::parse(&Bytes::from_static(data.as_bytes())).unwrap()
    }

    #[test]
    fn a_piece_keeps_its_bytes_but_for_the_role() {
        let c = parse(
            r#"{"choices":[{"delta":{"role":"assistant","content":"h\u00e9","x":0.70},"finish_reason":null}]}"#,
        );
        let delta = c.delta.unwrap();
        assert_eq!(delta.json, r#"{"content":"h\u00e9","x":0.70}"#);
        assert!(delta.speaks && c.finish_reason.is_none() && c.usage.is_none());
    }

    #[test]
    fn a_piece_that_says_nothing_is_none() {
        for data in [
            r#"{"choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}"#,
            r#"{"choices":[{"delta":{}}]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[]}"#,
        ] {
            assert!(parse(data).delta.is_none(), "{data}");
        }
        let quiet = parse(r#"{"choices":[{"delta":{"annotations":[1]}}]}"#).delta.unwrap();
        assert!(!quiet.speaks);
        assert!(!parse(r#"{"choices":[{"delta":{"content":"\n \u00a0"}}]}"#).delta.unwrap().speaks);
        for speaking in
            [r#"{"reasoning_content":"x"}"#, r#"{"reasoning":"x"}"#, r#"{"tool_calls":[{"index":0}]}"#]
        {
            let data = format!(r#"{{"choices":[{{"delta":{speaking}}}]}}"#);
            assert!(Chunk::parse(&Bytes::from(data)).unwrap().delta.unwrap().speaks, "{speaking}");
        }
    }

    #[test]
    fn finish_and_usage_are_read() {
        let c = parse(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#);
        assert_eq!(c.finish_reason.as_deref(), Some("stop"));
        assert_eq!(c.usage.unwrap().count("prompt_tokens"), 1);
    }

    #[test]
    fn an_error_event_is_an_error() {
        let data = Bytes::from_static(br#"{"error":{"message":"secret host"}}"#);
        let error = Chunk::parse(&data).unwrap_err();
        assert!(matches!(error, ChunkError::Provider));
        assert!(!error.to_string().contains("secret"));
    }
}
