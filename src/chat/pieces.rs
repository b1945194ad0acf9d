//! A whole message, cut into the pieces of a stream.

use bytes::Bytes;
use unicode_segmentation::UnicodeSegmentation;

use super::chunk::is_empty;
use super::completion::calls;
use super::{Completion, CompletionError, Delta, RawObject};

/// How many bytes of content make a piece: some lines of text, about as much as the chunk around it.
const PIECE: usize = 200;

impl Completion {
    /// The message as the pieces of a stream, each as its provider wrote it: first what is neither text nor
    /// calls (reasoning, annotations, vendors' own fields), then the content, then the tool calls, numbered
    /// and whole. Its role is left out, and what says nothing.
    ///
    /// A content with `logprobs` stays in one piece with them: cut apart, it would no longer show which of
    /// them are whose.
    ///
    /// # Errors
    /// When the message's tool calls are no array of objects.
    pub fn to_deltas(&self) -> Result<Vec<Delta>, CompletionError> {
        let message = RawObject::parse(Bytes::copy_from_slice(self.message.get().as_bytes()))?;
        let others = message.edit().remove("content").remove("tool_calls").remove("function_call");
        let mut deltas = Vec::from_iter(Delta::read(others.body().to_bytes(), None)?);
        let said = deltas.len();
        deltas.extend(message.raw("content").map(|raw| self.content_deltas(raw)).into_iter().flatten());
        let tool_calls = message.raw("tool_calls").map(calls).transpose()?.unwrap_or_default();
        for (index, call) in tool_calls.iter().enumerate() {
            let call = call.edit().set("index", index.to_string()).body().to_bytes();
            deltas.push(delta([br#"{"tool_calls":["#, &*call, b"]}"].concat()));
        }
        if let Some(call) = message.raw("function_call").filter(|raw| *raw != "null") {
            deltas.push(delta(format!(r#"{{"function_call":{call}}}"#)));
        }
        match deltas.get_mut(said) {
            Some(first) => first.logprobs = self.logprobs.clone(),
            None if self.logprobs.is_some() => {
                let json = Bytes::from_static(b"{}");
                deltas.push(Delta { json, logprobs: self.logprobs.clone(), speaks: false });
            }
            None => {}
        }
        Ok(deltas)
    }

    fn content_deltas(&self, raw: &str) -> Vec<Delta> {
        if is_empty(Some(raw)) {
            return Vec::new();
        }
        if !raw.starts_with('"') || self.logprobs.is_some() {
            return vec![delta(format!(r#"{{"content":{raw}}}"#))];
        }
        let pieces = pieces(raw, self.content.as_deref().unwrap_or_default()).into_iter();
        pieces.map(|piece| delta(format!(r#"{{"content":"{piece}"}}"#))).collect()
    }
}

fn delta(json: impl Into<Bytes>) -> Delta {
    Delta { json: json.into(), logprobs: None, speaks: true }
}

/// Cuts a JSON string that says `text` into what stands between its quotes, piece by piece: behind white
/// space where there is some, otherwise between two characters as a reader sees them, so that no escape, no
/// accent and no emoji falls apart.
fn pieces<'a>(raw: &'a str, text: &str) -> Vec<&'a str> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    let mut pieces = Vec::with_capacity(inner.len() / PIECE + 1);
    let (mut start, mut end) = (0, 0);
    // Behind the last white space of the piece.
    let mut space = None;
    for character in text.graphemes(true) {
        let written = written(inner.get(end..).unwrap_or_default(), character);
        while end > start && end + written - start > PIECE {
            let cut = space.take().unwrap_or(end);
            pieces.extend(inner.get(start..cut));
            start = cut;
        }
        end += written;
        if character.chars().all(char::is_whitespace) {
            space = Some(end);
        }
    }
    pieces.extend(inner.get(start..).filter(|last| !last.is_empty()));
    pieces
}

/// How many bytes of the inside of a JSON string, from its beginning, say `text`, which it begins with.
pub(super) fn written(inner: &str, text: &str) -> usize {
    text.chars().fold(0, |at, char| {
        at + match inner.as_bytes().get(at..) {
            // Beyond the first plane it takes two of them.
            Some([b'\\', b'u', ..]) => char.len_utf16() * r"\u0000".len(),
            Some([b'\\', ..]) => r"\n".len(),
            _ => char.len_utf8(),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::{Collected, Event};

    fn completion(message: &str) -> Completion {
        Completion::from_message(RawValue::from_string(message.to_owned()).unwrap()).unwrap()
    }

    fn deltas(message: &str) -> Vec<String> {
        let deltas = completion(message).to_deltas().unwrap();
        deltas.iter().map(|d| String::from_utf8(d.json.to_vec()).unwrap()).collect()
    }

    /// The pieces of a content that is written so, between its quotes.
    fn cut(inner: &str) -> Vec<String> {
        let raw = format!("\"{inner}\"");
        let text: String = serde_json::from_str(&raw).unwrap();
        pieces(&raw, &text).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_not_said_comes_first_then_the_content_then_each_tool_call_whole() {
        let message = r#"{"role":"assistant","content":"Let me look.","refusal":null,"reasoning":"h\u006d",
            "x_vendor":{"a":0.10},"tool_calls":[
            {"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\": 0.70}"},"x":1.50},
            {"index":7,"id":"b"}, {}],"function_call":{"name":"g","arguments":{"y":1e2}}}"#;
        assert_eq!(
            deltas(message),
            [
                "{\"refusal\":null,\"reasoning\":\"h\\u006d\",\n            \"x_vendor\":{\"a\":0.10}}",
                r#"{"content":"Let me look."}"#,
                r#"{"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\": 0.70}"},"x":1.50,"index":0}]}"#,
                r#"{"tool_calls":[{"index":1,"id":"b"}]}"#,
                r#"{"tool_calls":[{"index":2}]}"#,
                r#"{"function_call":{"name":"g","arguments":{"y":1e2}}}"#,
            ]
        );
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        for silent in [
            r#"{"role":"assistant","content":null,"refusal":null,"annotations":[],"tool_calls":null}"#,
            r#"{"role":"assistant","content":"","tool_calls":[],"function_call":null}"#,
            "{}",
        ] {
            assert_eq!(deltas(silent), [""; 0], "{silent}");
        }
        let parts = r#"{"content":[{"type":"text","text":"a  b"}]}"#;
        assert_eq!(deltas(parts), [parts]);
    }

    #[test]
    fn logprobs_keep_the_content_in_one_piece_and_go_with_it() {
        let long = "word ".repeat(100);
        let calls = r#""tool_calls":[{"id":"a"}]"#;
        for (message, with) in [
            (
                format!(r#"{{"content":"{long}","reasoning":"hm",{calls}}}"#),
                format!(r#"{{"content":"{long}"}}"#),
            ),
            (
                format!(r#"{{"content":null,"reasoning":"hm",{calls}}}"#),
                r#"{"tool_calls":[{"id":"a","index":0}]}"#.to_owned(),
            ),
            (r#"{"content":null,"reasoning":"hm"}"#.to_owned(), "{}".to_owned()),
            (r#"{"content":""}"#.to_owned(), "{}".to_owned()),
        ] {
            let mut completion = completion(&message);
            completion.logprobs = Some(RawValue::from_string(r#"{"content":[-0.10]}"#.to_owned()).unwrap());
            let deltas = completion.to_deltas().unwrap();
            let carriers: Vec<_> = deltas.iter().filter(|d| d.logprobs.is_some()).collect();
            assert_eq!((carriers.len(), &*carriers[0].json), (1, with.as_bytes()), "{message}");
            assert_eq!(carriers[0].logprobs.as_deref().unwrap().get(), r#"{"content":[-0.10]}"#);
        }
    }

    #[test]
    fn a_long_content_is_cut_behind_white_space() {
        let word = "x".repeat(150);
        for space in [" ", r"\n", r"\u0020", r"\t \r\n", "\u{3000}"] {
            let one = format!("{word}{space}");
            assert_eq!(cut(&one.repeat(3)), [one.clone(), one.clone(), one.clone()], "{space:?}");
        }
        let full = format!("{} ", "x y ".repeat(50).trim_end());
        assert_eq!((full.len(), cut(&format!("{full}z"))), (PIECE, vec![full, "z".to_owned()]));
        assert_eq!(cut("short"), ["short"]);
    }

    #[test]
    fn without_white_space_it_is_cut_between_characters() {
        let cases = [
            ("x", 200),
            ("漢", 66),
            ("\\\"", 100),
            (r"\u6f22", 33),
            // A pair of surrogates, a family, a flag, a thumb with its tone, letters with accents of their own.
            (r"\ud83d\ude00", 16),
            ("👩\u{200d}👩\u{200d}👧", 11),
            ("🇩🇪", 25),
            ("👍🏽", 25),
            ("e\u{301}", 66),
            (r"e\u0301", 28),
            ("✌\u{fe0f}", 33),
        ];
        for (character, fit) in cases {
            let pieces = cut(&character.repeat(201));
            let full = pieces.split_last().unwrap().1;
            assert!(full.iter().all(|piece| *piece == character.repeat(fit)), "{character} {pieces:?}");
            assert_eq!(pieces.concat(), character.repeat(201));
        }
        let crowded = format!("a{}", "\u{301}".repeat(300));
        assert_eq!(cut(&crowded), [crowded], "no piece is shorter than one character");
    }

    #[test]
    fn a_mebibyte_is_cut_in_time() {
        for character in ["x", "x ", r"\ud83d\ude00", "🇩🇪", "\u{301}"] {
            let inner = character.repeat((1 << 20) / character.len());
            let began = std::time::Instant::now();
            assert_eq!(cut(&inner).concat(), inner);
            assert!(began.elapsed().as_secs() < 5, "{character} {:?}", began.elapsed());
        }
    }

    /// A content as somebody might write it: any character, written plainly or escaped.
    fn content() -> impl Strategy<Value = String> {
        let char = prop_oneof![
            Just(' '),
            Just('\n'),
            Just('"'),
            Just('\\'),
            Just('\u{301}'),
            Just('\u{200d}'),
            Just('\u{fe0f}'),
            Just('👩'),
            Just('🇩'),
            Just('漢'),
            any::<char>(),
        ];
        let written = (char, any::<bool>()).prop_map(|(char, escaped)| {
            if escaped {
                char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            } else {
                let literal = Value::from(char.to_string()).to_string();
                literal[1..literal.len() - 1].to_owned()
            }
        });
        proptest::collection::vec(written, 0..600).prop_map(|chars| chars.concat())
    }

    proptest! {
        /// Whatever a message says, its pieces are JSON of their own and say it again.
        #[test]
        fn pieces_collect_to_their_message(content in content(), calls in 0..3_usize) {
            let text: String = serde_json::from_str(&format!("\"{content}\"")).unwrap();
            let tool_calls = (0..calls).map(|i| json!({"id": format!("call_{i}"), "function": {"arguments": &text}}));
            let tool_calls = Value::from_iter(tool_calls);
            let message = format!(
                r#"{{"role":"assistant","content":"{content}","refusal":null,"reasoning":"{content}","tool_calls":{tool_calls}}}"#
            );
            let mut collected = Collected::default();
            let mut contents = Vec::new();
            for delta in completion(&message).to_deltas().unwrap() {
                let json: Value = serde_json::from_slice(&delta.json).unwrap();
                contents.extend(json["content"].as_str().map(str::to_owned));
                collected.push(Event::Delta(delta)).unwrap();
            }
            prop_assert_eq!(contents.concat(), &*text);
            let whole: Vec<&str> = text.graphemes(true).collect();
            let apart: Vec<&str> = contents.iter().flat_map(|piece| piece.graphemes(true)).collect();
            prop_assert_eq!(apart, whole, "no character was cut apart");
            let collected: Value = serde_json::from_str(collected.finish().unwrap().0.message.get()).unwrap();
            let mut expected: Value = serde_json::from_str(&message).unwrap();
            if text.is_empty() {
                expected["content"] = Value::Null;
                expected.as_object_mut().unwrap().remove("reasoning");
            }
            if calls == 0 {
                expected.as_object_mut().unwrap().remove("tool_calls");
            }
            prop_assert_eq!(collected, expected);
        }
    }
}
