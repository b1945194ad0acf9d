//! Reads the key of a completion.

use std::ops::Range;

use serde::Deserialize;

use super::calls::Tools;
use super::json::{self, Json};
use super::place::{self, Place};
use super::{Key, Kind, Number, Pattern, Pointer, Reading, Text, choice, code, passage};
use crate::chat::without_reasoning;
use crate::chat::{Completion, Request};

/// How the answers to one request are read.
#[derive(Clone, Debug)]
pub struct Reader {
    kind: Kind,
    reading: Reading,
    tools: Option<Tools>,
}

/// A number and where an answer prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number.
    pub value: Number,
    /// The bytes of the completion's `content` that print it: with its sign and without its unit, and
    /// without its currency unless that stands behind the sign.
    pub span: Range<usize>,
    /// How many digits it is printed with behind the decimal point; of a fraction as many as it takes, at
    /// most 6.
    pub decimals: u32,
}

impl Found {
    /// It in a text in which what it was found in begins at `start`.
    pub(super) fn shifted(self, start: usize) -> Self {
        Self { span: self.span.start + start..self.span.end + start, ..self }
    }
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Box<str>,
}

impl Reader {
    /// Reads answers to `request`: it says what they must be, and `reading` what it leaves open.
    pub fn of(reading: &Reading, request: &Request) -> Self {
        let tools = Tools::of(request);
        let format: Option<ResponseFormat> = request.read("response_format");
        let is_json = format.is_some_and(|format| matches!(&*format.kind, "json_object" | "json_schema"));
        let kind = match reading {
            _ if tools.is_some() => Kind::ToolCall,
            _ if is_json => Kind::Json,
            Reading::Auto | Reading::Text => Kind::Text,
            Reading::Choice(_) => Kind::Choice,
            Reading::Number { .. } => Kind::Number,
            Reading::Json(_) => Kind::Json,
            Reading::Regex(_) => Kind::Regex,
            Reading::Code => Kind::Code,
        };
        Self { kind, reading: reading.clone(), tools }
    }

    /// What sort of answer is compared.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is compared of `completion`; none when it abstains.
    pub fn key(&self, completion: &Completion) -> Option<Key> {
        let said = without_reasoning(completion.content.as_deref().unwrap_or_default());
        match self.kind {
            Kind::ToolCall => {
                let tools = self.tools.as_ref()?;
                match &completion.tool_calls {
                    Some(calls) => Some(Key::Calls(tools.calls(calls))),
                    None => (!tools.must_call && !said.trim().is_empty()).then(|| Key::Prose(Text::of(said))),
                }
            }
            Kind::Text => (!said.trim().is_empty()).then(|| Key::Text(Text::of(said))),
            Kind::Choice => self.choice(said, is_whole(completion)),
            Kind::Number => self.number(completion).map(|found| Key::Number(found.value)),
            Kind::Json => {
                let document = json::document(said)?;
                let part = self.pointer().map_or(Some(document), |pointer| json::part(document, pointer))?;
                Some(word(Json::parse(part)?.to_string()))
            }
            Kind::Regex => self.pattern().and_then(|pattern| captured(pattern, said)).map(word),
            Kind::Code => code::canonical(said).map(word),
        }
    }

    /// The number that `completion` gives, whatever the kind: what the reading's pattern finds, in the part
    /// that its pointer selects; without either, what stands where writers put their answers.
    pub fn number(&self, completion: &Completion) -> Option<Found> {
        let content = completion.content.as_deref()?;
        let said = without_reasoning(content);
        let (part, is_part) = match self.pointer() {
            Some(pointer) => (json::part(json::document(said)?, pointer)?, true),
            None => (said, false),
        };
        let found = match &self.reading {
            Reading::Number { pattern: Some(pattern), .. } => {
                let range = pattern.last(part)?;
                passage::stated(part.get(range.clone())?)?.shifted(range.start)
            }
            _ if is_part => passage::number(&Place::json(part)?).answer()?,
            _ => place::find(said, is_whole(completion), passage::number)?,
        };
        // What was said and its parts are slices of the content.
        let mut found = found.shifted(part.as_ptr() as usize - content.as_ptr() as usize);
        found.span.start = escape(content, found.span.start);
        Some(found)
    }

    fn choice(&self, said: &str, is_whole: bool) -> Option<Key> {
        let choice = match self.pattern() {
            Some(pattern) => captured(pattern, said)?.to_uppercase(),
            None => place::find(said, is_whole, choice::letter)?.to_string(),
        };
        Some(Key::Choice(choice.into()))
    }

    fn pattern(&self) -> Option<&Pattern> {
        match &self.reading {
            Reading::Choice(pattern) | Reading::Number { pattern, .. } => pattern.as_ref(),
            Reading::Regex(pattern) => Some(pattern),
            Reading::Auto | Reading::Text | Reading::Json(_) | Reading::Code => None,
        }
    }

    fn pointer(&self) -> Option<&Pointer> {
        match &self.reading {
            Reading::Number { pointer, .. } | Reading::Json(pointer) => pointer.as_ref(),
            Reading::Auto | Reading::Text | Reading::Choice(_) | Reading::Regex(_) | Reading::Code => None,
        }
    }
}

/// Where the escape of a minus sign that ends at `start` begins, if it is one: who replaces the number replaces
/// all of its sign.
fn escape(content: &str, start: usize) -> usize {
    const MINUS: &str = r"\u2212";
    let begin = (start + 1).saturating_sub(MINUS.len());
    match content.get(begin..=start) {
        Some(escape) if escape.eq_ignore_ascii_case(MINUS) => begin,
        _ => start,
    }
}

/// Whether its writer came to an end.
fn is_whole(completion: &Completion) -> bool {
    completion.finish_reason.as_deref() != Some("length")
}

/// What a pattern finds last, without the blanks around it; none when that is nothing.
fn captured<'a>(pattern: &Pattern, said: &'a str) -> Option<&'a str> {
    said.get(pattern.last(said)?).map(str::trim).filter(|found| !found.is_empty())
}

fn word(word: impl Into<Box<str>>) -> Key {
    Key::Word(word.into())
}

#[cfg(test)]
mod tests;
