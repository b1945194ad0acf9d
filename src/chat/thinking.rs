//! Thinking aloud in a stream: what stands in `think` tags before an answer, piece by piece.

use super::chunk::is_blank;
use super::{Delta, RawObject, quoted};

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Tells what a stream's text says from what its model thinks before, in `think` tags at its beginning. A text
/// whose chat template has opened the tag cannot be told from an answer before it closes, and is taken for one.
#[derive(Debug, Default)]
pub struct Thinking {
    state: State,
    /// What may still belong to a tag.
    held: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// A tag may still open.
    #[default]
    Before,
    /// Until the tag closes.
    Within,
    /// Until the answer begins.
    Behind,
    /// All that comes is said.
    Over,
}

impl Thinking {
    /// What the next piece of text says.
    pub fn hear(&mut self, text: &str) -> String {
        if self.state == State::Over {
            return text.to_owned();
        }
        self.held.push_str(text);
        if self.state == State::Before {
            let begins = self.held.trim_start();
            if OPEN.starts_with(begins) {
                return String::new();
            }
            match begins.strip_prefix(OPEN) {
                Some(thought) => {
                    self.held = thought.to_owned();
                    self.state = State::Within;
                }
                None => return self.over(),
            }
        }
        if self.state == State::Within {
            let Some((_, behind)) = self.held.split_once(CLOSE) else {
                // The tag may close with the next piece.
                let tail = self.held.ceil_char_boundary(self.held.len().saturating_sub(CLOSE.len() - 1));
                self.held.drain(..tail);
                return String::new();
            };
            self.held = behind.to_owned();
            self.state = State::Behind;
        }
        self.held = self.held.trim_start().to_owned();
        if self.held.is_empty() { String::new() } else { self.over() }
    }

    /// What is left at the end: the beginning of a tag that never came.
    pub fn rest(&mut self) -> String {
        if self.state == State::Before { self.over() } else { String::new() }
    }

    fn over(&mut self) -> String {
        self.state = State::Over;
        std::mem::take(&mut self.held)
    }
}

impl Delta {
    /// Whether it says a part of the answer: text behind what was thought aloud, or a tool call; and not
    /// reasoning alone.
    pub fn answers(&self, thinking: &mut Thinking) -> bool {
        let Ok(delta) = RawObject::parse(self.json.clone()) else {
            return false;
        };
        let calls = ["tool_calls", "function_call"].iter().any(|name| !is_blank(delta.raw(name)));
        match delta.read::<String>("content") {
            Ok(Some(text)) => !thinking.hear(&text).trim().is_empty() || calls,
            Ok(None) => calls,
            // Parts of content.
            Err(_) => true,
        }
    }

    /// The piece without the part of its text that is thought aloud; none when it then says nothing.
    pub fn without_thinking(self, thinking: &mut Thinking) -> Option<Self> {
        // What cannot be read is not let through.
        let delta = RawObject::parse(self.json.clone()).ok()?;
        let Ok(Some(text)) = delta.read::<String>("content") else {
            return Some(self);
        };
        let said = thinking.hear(&text);
        if said == text {
            return Some(self);
        }
        let content = quoted(&said);
        Self::read(delta.edit().set("content", content).body().to_bytes(), None).ok().flatten()
    }

    /// A piece of text.
    pub fn of_text(text: &str) -> Self {
        let json = format!(r#"{{"content":{}}}"#, quoted(text)).into();
        Self { json, logprobs: None, speaks: !text.trim().is_empty() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::without_reasoning;

    fn said(pieces: &[&str]) -> String {
        let mut thinking = Thinking::default();
        let mut said: String = pieces.iter().map(|piece| thinking.hear(piece)).collect();
        said.push_str(&thinking.rest());
        said
    }

    #[test]
    fn what_is_thought_aloud_is_not_said_wherever_the_pieces_are_cut() {
        for (text, expected) in [
            ("Paris", "Paris"),
            ("<think>hm é</think>\n\nParis </think>", "Paris </think>"),
            (" \n<think></think>Paris", "Paris"),
            ("<think>hm", ""),
            ("<think>hm</thin", ""),
            ("<thin", "<thin"),
            ("<thinking>Paris", "<thinking>Paris"),
            (" Paris", " Paris"),
            ("a <think>b</think>", "a <think>b</think>"),
            ("", ""),
        ] {
            assert_eq!(said(&[text]), expected, "{text}");
            let each: Vec<String> = text.chars().map(String::from).collect();
            assert_eq!(said(&each.iter().map(|c| &**c).collect::<Vec<_>>()), expected, "{text}");
            if text.starts_with("<think>") {
                assert_eq!(without_reasoning(text), expected, "as of a whole text");
            }
        }
    }

    #[test]
    fn a_piece_answers_with_text_behind_its_thoughts_or_a_call() {
        let mut thinking = Thinking::default();
        let delta = |json: &'static str| Delta { json: json.into(), logprobs: None, speaks: true };
        let mut answers = |json| delta(json).answers(&mut thinking);
        assert!(!answers(r#"{"reasoning_content":"hm"}"#));
        assert!(!answers(r#"{"content":"<think>hm"}"#));
        assert!(!answers(r#"{"content":"</think>\n"}"#));
        assert!(answers(r#"{"tool_calls":[{"index":0}]}"#));
        assert!(answers(r#"{"content":"a"}"#));
        assert!(answers(r#"{"content":[{"type":"text","text":"a"}]}"#));
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(text in "(<think>|</think>|[a-c ]){0,8}", cut in 0..30usize) {
            let cut = cut.min(text.len());
            prop_assert_eq!(said(&[&text[..cut], &text[cut..]]), said(&[&text]));
        }
    }
}
