//! What is said, without the thinking aloud before it.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::chunk::is_empty;
use super::listed::each;
use super::pieces::written;
use super::{Completion, CompletionError, Delta, RawObject};

/// The members of a message, and of a delta, in which models think.
const FIELDS: [&str; 4] = ["reasoning", "reasoning_content", "reasoning_details", "thinking"];
/// The types of content parts in which they do.
const PARTS: [&str; 3] = ["thinking", "redacted_thinking", "reasoning"];

/// What a text says once its writer has stopped thinking aloud.
///
/// Models without a field of its own for reasoning put it in front, in `think` tags; some chat
/// templates have opened the tag already, and a token limit may leave it unclosed.
pub fn without_reasoning(text: &str) -> &str {
    let is_opened = text.trim_start().starts_with("<think>");
    match text.split_once("</think>") {
        Some((thought, said)) if is_opened || !thought.contains("<think>") => said.trim_start(),
        None if is_opened => "",
        _ => text,
    }
}

impl Completion {
    /// The answer without its reasoning: the fields for it, content parts of its types, and what stands in
    /// `think` tags before the text. All else keeps its bytes, but the `logprobs` go when anything was
    /// thought: the thought's tokens may be among them.
    ///
    /// # Errors
    /// When the message is none; never for one that was read.
    pub fn without_reasoning(self) -> Result<Self, CompletionError> {
        let message = RawObject::parse(Bytes::copy_from_slice(self.message.get().as_bytes()))?;
        let content = message.raw("content").and_then(|raw| spoken_text(raw).or_else(|| spoken_parts(raw)));
        let Some(spoken) = spoken(&message, content) else {
            return Ok(self);
        };
        Ok(Self {
            finish_reason: self.finish_reason,
            logprobs: self.logprobs.filter(|_| !spoken.thought),
            usage: self.usage,
            ..Self::from_message(serde_json::from_slice(&spoken.json)?)?
        })
    }
}

impl Delta {
    /// The piece without its reasoning, as [`Completion::without_reasoning`] has it, but for `think` tags, which
    /// may lie across pieces ([`super::Thinking`]); none when it then says nothing.
    pub fn without_reasoning(self) -> Option<Self> {
        // What cannot be read is not let through.
        let delta = RawObject::parse(self.json.clone()).ok()?;
        let content = delta.raw("content").and_then(spoken_parts);
        match spoken(&delta, content) {
            None => Some(self),
            Some(spoken) => Self::read(spoken.json, self.logprobs.filter(|_| !spoken.thought)).ok().flatten(),
        }
    }
}

/// What is left of an object that had room for reasoning.
struct Spoken {
    json: Bytes,
    /// Whether there was any.
    thought: bool,
}

/// The object without the fields for reasoning and with this content, if it has another one; none when all
/// of it stays.
fn spoken(object: &RawObject, content: Option<String>) -> Option<Spoken> {
    let fields: Vec<&str> = FIELDS.into_iter().filter(|name| object.raw(name).is_some()).collect();
    if fields.is_empty() && content.is_none() {
        return None;
    }
    let thought = content.is_some() || fields.iter().any(|name| !is_empty(object.raw(name)));
    let mut edit = fields.into_iter().fold(object.edit(), |edit, name| edit.remove(name));
    if let Some(content) = content {
        edit = edit.set("content", content);
    }
    Some(Spoken { json: edit.body().to_bytes(), thought })
}

/// The JSON string without the thinking aloud that it begins with; none when it does not.
fn spoken_text(raw: &str) -> Option<String> {
    let inner = raw.strip_prefix('"')?;
    let text: String = serde_json::from_str(raw).ok()?;
    let thought = text.strip_suffix(without_reasoning(&text)).filter(|thought| !thought.is_empty())?;
    Some(format!("\"{}", inner.get(written(inner, thought)..)?))
}

/// The JSON array of content parts without those that think; none when none does.
fn spoken_parts(raw: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Part {
        r#type: String,
    }
    let thinks = |part: &RawValue| {
        serde_json::from_str::<Part>(part.get()).is_ok_and(|part| PARTS.contains(&&*part.r#type))
    };
    let (mut spoken, mut count) = (String::new(), 0);
    let parts = each(raw, |part: &RawValue| {
        if !thinks(part) {
            spoken.push(if count == 0 { '[' } else { ',' });
            spoken.push_str(part.get());
            count += 1;
        }
    });
    if parts.ok()? == count {
        return None;
    }
    spoken.push_str(if count == 0 { "[]" } else { "]" });
    Some(spoken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn thinking_aloud_is_not_said() {
        for (text, said) in [
            ("Paris", "Paris"),
            ("<think>hm</think>\n\nParis", "Paris"),
            ("hm\n</think>\n\nParis", "Paris"),
            ("<think>hm", ""),
            ("The tag <think> opens, </think> closes.", "The tag <think> opens, </think> closes."),
        ] {
            assert_eq!(without_reasoning(text), said, "{text}");
        }
    }

    #[test]
    fn a_message_keeps_its_bytes_but_for_the_reasoning() {
        for (message, spoken, content) in [
            (
                r#"{"role":"assistant", "reasoning":"hm", "content":"P\u0061ris", "reasoning_content":"hm","x":1.50}"#,
                r#"{"role":"assistant", "content":"P\u0061ris","x":1.50}"#,
                "Paris",
            ),
            (
                r#"{"content":"a","reasoning_details":[{"text":"hm"}],"thinking":{"t":1}}"#,
                r#"{"content":"a"}"#,
                "a",
            ),
            (
                r#"{"content":"<think>h\u006d \ud83d\ude00\n</thi\u006ek>\n\nP\u0061ris <think>","x":0.70}"#,
                r#"{"content":"P\u0061ris <think>","x":0.70}"#,
                "Paris <think>",
            ),
            (r#"{"content":"<think>hm"}"#, r#"{"content":""}"#, ""),
            (
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}, {"type":"text","text":"a", "n":1.0},{"x":1}]}"#,
                r#"{"content":[{"type":"text","text":"a", "n":1.0},{"x":1}]}"#,
                "a",
            ),
        ] {
            let mut completion = Completion::from_message(raw(message)).unwrap();
            completion.finish_reason = Some("length".into());
            completion.logprobs = Some(raw(r#"{"content":[]}"#));
            let said = completion.without_reasoning().unwrap();
            assert_eq!((said.message.get(), said.content.as_deref()), (spoken, Some(content)));
            assert_eq!(said.finish_reason.as_deref(), Some("length"));
            assert!(said.logprobs.is_none(), "{message}");
        }
    }

    #[test]
    fn a_message_without_reasoning_stays_as_it_is() {
        for (message, spoken) in [
            (
                r#"{ "role":"assistant","content":"a </think" }"#,
                r#"{ "role":"assistant","content":"a </think" }"#,
            ),
            (
                r#"{"content":null,"tool_calls":[{"id":"a"}]}"#,
                r#"{"content":null,"tool_calls":[{"id":"a"}]}"#,
            ),
            (r#"{"content":[{"text":"a"},{"type":1}]}"#, r#"{"content":[{"text":"a"},{"type":1}]}"#),
            (r#"{"content":"a","reasoning":null}"#, r#"{"content":"a"}"#),
        ] {
            let mut completion = Completion::from_message(raw(message)).unwrap();
            completion.logprobs = Some(raw(r#"{"content":[]}"#));
            let said = completion.without_reasoning().unwrap();
            assert_eq!((said.message.get(), said.logprobs.is_some()), (spoken, true));
        }
    }

    #[test]
    fn a_piece_without_reasoning_is_none_where_it_says_nothing_else() {
        let spoken = |json: &'static str| {
            let json = Bytes::from_static(json.as_bytes());
            let delta = Delta { json, logprobs: Some(raw(r#"{"content":[]}"#)), speaks: true };
            let said = delta.without_reasoning()?;
            let json = String::from_utf8(said.json.to_vec()).unwrap();
            Some((json, said.speaks, said.logprobs.is_some()))
        };
        let said = |json: &str, speaks, logprobs| Some((json.to_owned(), speaks, logprobs));
        assert_eq!(spoken(r#"{"reasoning_content":"hm"}"#), None);
        assert_eq!(spoken(r#"{"content":"","reasoning_content":"hm"}"#), None);
        assert_eq!(spoken(r#"{"content":[{"type":"thinking","thinking":"hm"}]}"#), None);
        assert_eq!(spoken("[]"), None);
        assert_eq!(
            spoken(r#"{"content":"a\u0061","reasoning_content":null,"x":0.70}"#),
            said(r#"{"content":"a\u0061","x":0.70}"#, true, true)
        );
        assert_eq!(spoken(r#"{"content":"a","reasoning":"hm"}"#), said(r#"{"content":"a"}"#, true, false));
        assert_eq!(spoken(r#"{"thinking":"hm","x":1}"#), said(r#"{"x":1}"#, false, false));
        assert_eq!(spoken(r#"{"content":"<think>"}"#), said(r#"{"content":"<think>"}"#, true, true));
    }
}
