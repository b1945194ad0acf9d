//! Reads the key of a completion.

use std::ops::Range;

use super::{Key, Kind, Number, Reading};
use crate::chat::{Completion, Request};

/// How the answers to one request are read.
#[derive(Clone, Debug)]
pub struct Reader {
    kind: Kind,
    #[expect(dead_code, reason = "reading answers comes next")]
    reading: Reading,
}

/// A number and where an answer prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number.
    pub value: Number,
    /// The bytes of the completion's `content` that print it, without currency and unit.
    pub span: Range<usize>,
    /// How many digits it is printed with behind the decimal point.
    pub decimals: u32,
}

impl Reader {
    /// Reads answers to `request`: the request says what they must be, `reading` all that it leaves open.
    pub fn of(reading: &Reading, _request: &Request) -> Self {
        Self { kind: Kind::Text, reading: reading.clone() }
    }

    /// What sort of answer is compared.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is compared of `completion`; none when it abstains.
    pub fn key(&self, _completion: &Completion) -> Option<Key> {
        None
    }

    /// The number that `completion` gives, whatever the kind.
    pub fn number(&self, _completion: &Completion) -> Option<Found> {
        None
    }
}
