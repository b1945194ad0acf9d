//! What is compared of answers: how each is read, and the key that is read from it.
//!
//! The [`Kind`] follows the request first, then what the operator says ([`Reading`]). A [`Reader`]
//! reads the [`Key`] of one completion after the other; a completion from which none can be read
//! abstains. Guessing is worse than abstaining: a wrong key is a vote for something nobody said.

mod calls;
mod choice;
mod code;
mod fence;
mod json;
mod number;
mod numeral;
mod passage;
mod pattern;
mod place;
mod reader;
mod separators;
mod text;

use std::hash::{DefaultHasher, Hash, Hasher};

pub use calls::Calls;
pub use number::Number;
pub use pattern::{Pattern, PatternError, Pointer, PointerError};
pub use reader::{Found, Reader};
pub use text::Text;

/// The longest key that is shown as it is, in bytes.
const MAX_SHOWN: usize = 64;

/// How an operator wants answers read.
#[derive(Clone, Debug, Default)]
pub enum Reading {
    /// As text, where the request says nothing else.
    #[default]
    Auto,
    /// As free text.
    Text,
    /// As one of several choices: what the pattern finds, or a letter.
    Choice(Option<Pattern>),
    /// As a number.
    Number {
        /// What finds it; none looks where writers put their answers.
        pattern: Option<Pattern>,
        /// Which part of a JSON answer has it.
        pointer: Option<Pointer>,
    },
    /// As JSON, all of it or one part.
    Json(Option<Pointer>),
    /// As what the pattern finds.
    Regex(Pattern),
    /// As the code in its fences.
    Code,
}

impl Reading {
    /// Whether it says which part of a JSON answer counts.
    pub fn has_pointer(&self) -> bool {
        matches!(self, Self::Number { pointer: Some(_), .. } | Self::Json(Some(_)))
    }
}

/// What sort of answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Free text, by likeness.
    Text,
    /// One of several choices.
    Choice,
    /// A number, by value.
    Number,
    /// JSON, by value.
    Json,
    /// What a pattern finds, exactly.
    Regex,
    /// Code, line by line.
    Code,
    /// Tool calls, or the decision to make none.
    ToolCall,
}

impl Kind {
    /// Its name, as the configuration writes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Choice => "choice",
            Self::Number => "number",
            Self::Json => "json",
            Self::Regex => "regex",
            Self::Code => "code",
            Self::ToolCall => "tool_call",
        }
    }
}

/// What is compared of one answer.
#[derive(Clone, Debug)]
pub enum Key {
    /// A choice, in upper case.
    Choice(Box<str>),
    /// Canonical JSON, code, or what a pattern found.
    Word(Box<str>),
    /// A number.
    Number(Number),
    /// Tool calls.
    Calls(Calls),
    /// A text where tools were offered: the answer of all who would call none.
    Prose(Text),
    /// A text.
    Text(Text),
}

impl Key {
    /// Whether two answers are the same one. Texts never are, only more or less alike; of texts where
    /// tools were offered what counts is that they are texts.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Choice(a), Self::Choice(b)) | (Self::Word(a), Self::Word(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Calls(a), Self::Calls(b)) => a.same(b),
            (Self::Prose(_), Self::Prose(_)) => true,
            _ => false,
        }
    }

    /// It for the records: a choice or a number of up to 64 bytes as it is, of all else 16 hexadecimal
    /// digits that are the same for the same key and tell nothing of it.
    pub fn shown(&self) -> String {
        match self {
            Self::Choice(choice) if choice.len() <= MAX_SHOWN => choice.to_string(),
            Self::Choice(word) | Self::Word(word) => digest(word),
            Self::Number(number) => {
                let shown = number.to_string();
                if shown.len() <= MAX_SHOWN { shown } else { digest(&shown) }
            }
            Self::Calls(calls) => digest(calls),
            Self::Prose(text) | Self::Text(text) => digest(text),
        }
    }
}

/// Says whether two records are of the same key, and no more. Another build may give another one.
fn digest(value: &(impl Hash + ?Sized)) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
