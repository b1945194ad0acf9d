//! What an operator writes to say where an answer stands: patterns and pointers.

use std::ops::Range;

use regex::{Regex, RegexBuilder};

/// How large a compiled pattern may be, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A regular expression that finds an answer in a text: its group, or the whole match where it has none.
///
/// It is matched in time linear in the text, without look-around and back-references.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not an expression of the `regex` crate's syntax.
    #[error("not a regular expression: {0}")]
    Syntax(String),
    /// It would take too much memory.
    #[error("larger than {MAX_COMPILED} bytes once compiled; use fewer or smaller repetitions")]
    TooLarge,
    /// With several groups it is not clear which is the answer.
    #[error("has {0} groups; at most one may capture, write the others as (?:…)")]
    Groups(usize),
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// When it is no regular expression, a huge one, or has more than one group.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(text).size_limit(MAX_COMPILED).build().map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
            // The crate draws the place of the error over several lines; the last one says what it is.
            e => PatternError::Syntax(
                e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
            ),
        })?;
        match regex.captures_len() - 1 {
            0 | 1 => Ok(Self(regex)),
            groups => Err(PatternError::Groups(groups)),
        }
    }

    /// Where the answer of the last match lies. A group that took no part in that match gives none.
    pub(super) fn last(&self, text: &str) -> Option<Range<usize>> {
        let last = self.0.captures_iter(text).last()?;
        let answer = if self.0.captures_len() > 1 { last.get(1) } else { last.get(0) };
        answer.map(|found| found.range())
    }
}

/// An expression of our own.
#[expect(clippy::expect_used, reason = "all are constants, and tests compile each")]
pub(super) fn fixed(expression: &str) -> Regex {
    Regex::new(expression).expect("a regular expression")
}

/// A JSON pointer (RFC 6901): which part of a JSON answer counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Box<[String]>);

/// Why a text is no [`Pointer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It begins with something else.
    #[error("must be empty or begin with \"/\", like /result/value")]
    Start,
    /// A tilde that escapes nothing.
    #[error("has a \"~\" that is neither ~0 (for ~) nor ~1 (for /)")]
    Escape,
}

impl Pointer {
    /// Reads `text`.
    ///
    /// # Errors
    /// When it is no pointer.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self(Box::default()));
        }
        let tokens = text.strip_prefix('/').ok_or(PointerError::Start)?;
        tokens.split('/').map(unescape).collect::<Option<_>>().map(Self).ok_or(PointerError::Escape)
    }

    /// The keys and indices that lead to the part, from the outside in.
    pub(super) fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(1)?;
        plain.push(match escaped {
            "0" => '~',
            "1" => '/',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_counts_and_its_group_is_the_answer() {
        for (pattern, text, answer) in [
            ("[0-9]+", "a 1 b 22", Some("22")),
            ("x=([0-9]+)", "x=1 x=2 y=3", Some("2")),
            ("x=(?:[0-9]+)", "x=1", Some("x=1")),
            ("a(b)?", "ab a", None),
            ("z", "ab", None),
        ] {
            let found = Pattern::parse(pattern).unwrap().last(text).map(|range| &text[range]);
            assert_eq!(found, answer, "{pattern} in {text}");
        }
    }

    #[test]
    fn a_wrong_pattern_says_what_is_wrong() {
        for (pattern, message) in [
            ("(a", "not a regular expression: unclosed group"),
            (
                "(?=a)",
                "not a regular expression: look-around, including look-ahead and look-behind, \
                 is not supported",
            ),
            ("(a)(b)", "has 2 groups; at most one may capture, write the others as (?:…)"),
            (r"\w{80}", "larger than 1048576 bytes once compiled; use fewer or smaller repetitions"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap_err().to_string(), message, "{pattern}");
        }
    }

    #[test]
    fn a_pointer_is_read_as_rfc_6901_says() {
        for (text, steps) in [
            ("", Ok(vec![])),
            ("/", Ok(vec![""])),
            ("/a/0/b c", Ok(vec!["a", "0", "b c"])),
            ("/a~1b/m~0n/~01", Ok(vec!["a/b", "m~n", "~1"])),
            ("a", Err(PointerError::Start)),
            ("#/a", Err(PointerError::Start)),
            ("/a~", Err(PointerError::Escape)),
            ("/a~2", Err(PointerError::Escape)),
            ("/~é", Err(PointerError::Escape)),
        ] {
            let pointer = Pointer::parse(text);
            assert_eq!(
                pointer.as_ref().map(|p| p.steps().collect::<Vec<_>>()).map_err(|e| *e),
                steps,
                "{text}"
            );
        }
    }
}
