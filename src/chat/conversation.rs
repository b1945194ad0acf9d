//! What a caller's request says, in a few figures.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Request, each};

/// What the messages of a request say. Text is a message's content, or that content's parts with a `text`;
/// what has another type counts as a message and says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// How many messages there are.
    pub messages: usize,
    /// How long their text is, all together, in Unicode scalar values.
    pub chars: usize,
    /// The text of the last user message, its parts joined by newlines; empty where there is none.
    pub last_user: String,
}

#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// A JSON string, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Request {
    /// Reads the messages once.
    pub fn conversation(&self) -> Conversation {
        let (mut chars, mut last_user) = (0, Vec::new());
        let messages = each(self.raw("messages").unwrap_or_default(), |message: &RawValue| {
            let message: Message<'_> = serde_json::from_str(message.get()).unwrap_or_default();
            let texts = message.texts();
            chars += texts.iter().map(|text| text.chars().count()).sum::<usize>();
            if message.is_users() {
                last_user = texts;
            }
        });
        // What is no list of messages has not got this far.
        Conversation { messages: messages.unwrap_or_default(), chars, last_user: last_user.join("\n") }
    }
}

impl<'a> Message<'a> {
    fn is_users(&self) -> bool {
        let role = self.role.and_then(|role| serde_json::from_str::<Text<'_>>(role.get()).ok());
        role.is_some_and(|role| role.0 == "user")
    }

    fn texts(&self) -> Vec<Cow<'a, str>> {
        let Some(content) = self.content.map(RawValue::get) else {
            return Vec::new();
        };
        if let Ok(Text(text)) = serde_json::from_str(content) {
            return vec![text];
        }
        let mut texts = Vec::new();
        let text = |part: &'a RawValue| {
            texts.extend(serde_json::from_str::<Part<'a>>(part.get()).ok().map(|part| part.text));
        };
        // Content that is neither a text nor a list says nothing.
        each(content, text).map_or_else(|_| Vec::new(), |_| texts)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn messages_are_counted_measured_and_the_last_users_is_read() {
        let two_parts = r#"[{"type":"text","text":"two"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"th\nree"}]"#;
        for (messages, count, chars, last_user) in [
            (r#"{"role":"user","content":"h\u00e9 \ud83d\ude00"}"#.to_owned(), 1, 4, "hé 😀"),
            (r#"{"role":"user","content":"one"},{"role":"user","content":"two"},{"role":"assistant","content":"no"}"#.to_owned(), 3, 8, "two"),
            (format!(r#"{{"role":"user","content":{two_parts}}},{{"role":"tool","content":"x"}}"#), 2, 10, "two\nth\nree"),
            (r#"{"\u0072ole":"us\u0065r","content":"a"}"#.to_owned(), 1, 1, "a"),
            (r#"{"role":"user","content":"a"},{"role":"user","content":null}"#.to_owned(), 2, 1, ""),
            (r#"{"role":"assistant","content":null,"tool_calls":[{}]}"#.to_owned(), 1, 0, ""),
            // What has a wrong type says nothing, and takes no other's word away.
            (r#"1,"x",{"role":5,"content":"abc"},{"role":"user","content":{"text":"x"}}"#.to_owned(), 4, 3, ""),
            (r#"{"role":"user","content":["x",7,{"text":9},{"text":"a"}]},[]"#.to_owned(), 2, 1, "a"),
        ] {
            let body = Bytes::from(format!(r#"{{"messages":[{messages}]}}"#));
            let last_user = last_user.to_owned();
            let expected = Conversation { messages: count, chars, last_user };
            assert_eq!(Request::parse(body).unwrap().conversation(), expected, "{messages}");
        }
    }
}
