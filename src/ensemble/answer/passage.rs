//! Which number a passage gives.

use std::sync::LazyLock;

use regex::Regex;

use super::Found;
use super::numeral::{self, Numeral};
use super::pattern::fixed;
use super::place::{Finding, Mark, Place};

/// The longest passage that may be an answer as a whole, in bytes.
const MAX_STATED: usize = 4096;
/// The longest text between two numbers that may tie them to each other, in bytes.
const MAX_GAP: usize = 80;

/// How two neighbouring numbers of a text hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not.
    None,
    /// As parts of something that is neither of them: a sum, a range, a date, a list, hours and minutes.
    Parts,
    /// The latter is what the former comes to.
    Equals,
}

/// The number that a place gives.
pub fn number(place: &Place<'_>) -> Finding<Found> {
    let passage = &*place.passage;
    let found = match place.mark {
        Mark::Field | Mark::Boxed => clear(stated(passage)),
        Mark::Statement => opening(passage),
        Mark::Hashes => match opening(passage) {
            Finding::Answer(found) if !is_followed_by_unit(passage, &found) => Finding::Nothing,
            finding => finding,
        },
        Mark::LastLine => clear(closing(passage)),
    };
    match found {
        Finding::Answer(found) => Finding::Answer(found.shifted(place.start)),
        finding => finding,
    }
}

fn clear<T>(found: Option<T>) -> Finding<T> {
    found.map_or(Finding::Unclear, Finding::Answer)
}

fn is_followed_by_unit(passage: &str, found: &Found) -> bool {
    passage.get(found.span.end..).is_some_and(|rest| UNIT.is_match(rest))
}

/// The number of a passage that is meant to be nothing else: its only one, what its equation comes to,
/// or the one that it begins with.
pub fn stated(passage: &str) -> Option<Found> {
    if passage.len() > MAX_STATED {
        return None;
    }
    let numerals = numeral::all(passage);
    match numerals.as_slice() {
        [only] => only.read(),
        _ if passage.contains('=') => last(passage, &numerals),
        _ => opening(passage).answer(),
    }
}

/// The number that a passage begins with, or what a calculation there comes to.
fn opening(passage: &str) -> Finding<Found> {
    let numerals = numeral::all(passage);
    let Some(first) = numerals.first() else {
        return Finding::Nothing;
    };
    if !passage.get(..first.span.start).is_some_and(|lead| LEAD.is_match(lead)) {
        return Finding::Nothing;
    }
    let (mut result, mut is_result, mut links) = (first, true, 0);
    for (a, b) in numerals.iter().zip(numerals.iter().skip(1)) {
        let link = link(passage, a, b);
        if link == Link::None {
            break;
        }
        (result, is_result) = (b, link == Link::Equals);
        links += 1;
    }
    if is_result && links > 0 && links + 1 < numerals.len() {
        // A calculation that goes on has not come to its end.
        return Finding::Nothing;
    }
    clear(result.read().filter(|_| is_result))
}

/// The number that a passage ends with.
fn closing(passage: &str) -> Option<Found> {
    last(passage, &numeral::all(passage))
}

fn last(passage: &str, numerals: &[Numeral<'_>]) -> Option<Found> {
    let (last, others) = numerals.split_last()?;
    let is_part = others.last().is_some_and(|before| link(passage, before, last) == Link::Parts);
    last.read().filter(|_| !is_part)
}

fn link(passage: &str, a: &Numeral<'_>, b: &Numeral<'_>) -> Link {
    let gap = passage.get(a.span.end..b.span.start).unwrap_or_default();
    if gap.len() > MAX_GAP {
        return Link::None;
    }
    let after = passage.get(b.span.end..).unwrap_or_default();
    let after = after.get(..after.floor_char_boundary(MAX_GAP)).unwrap_or_default();
    let (gap, after) = (unset(gap), unset(after));
    let is_mixed = MEASURE_GAP.is_match(&gap) && MEASURE.is_match(&after);
    if RESULT.is_match(&gap) {
        Link::Equals
    } else if is_mixed || PARTS.is_match(&gap) {
        Link::Parts
    } else {
        Link::None
    }
}

/// A text without its typesetting.
fn unset(text: &str) -> String {
    TYPESETTING.replace_all(&EQUAL.replace_all(&TIMES.replace_all(text, "*"), "="), " ").into_owned()
}

static TIMES: LazyLock<Regex> = LazyLock::new(|| fixed(r"\\{1,2}(?:times|cdot|ast|div|pm|mp)\b"));
static EQUAL: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"\\{1,2}(?:approx|simeq|equiv|implies|[rR]ightarrow|to)\b|[≈≅→⇒]|[-=]>"));
static TYPESETTING: LazyLock<Regex> =
    LazyLock::new(|| fixed(r#"\\{1,2}[a-zA-Z]+|\\{1,2}.|\*\*|__|[`$€£¥₹₩₽"{}]"#));

/// A word between two numbers, as a unit is.
const WORD: &str = r"\p{L}[\p{L}/.%²³]*";

static RESULT: LazyLock<Regex> = LazyLock::new(|| {
    fixed(&format!(
        r"(?xi) ^ [)\]%\s]* /? (?: {WORD} \s* )? (?: = | \b (?: is | equals | gives | makes | leaves ) \b )
        \s* (?: about | approximately )? \s* $"
    ))
});

static PARTS: LazyLock<Regex> = LazyLock::new(|| {
    fixed(&format!(
        r"(?xi) ^ [)\]%°'′″]* (?:
            \s* /? (?: {WORD} \s* ){{0,2}} (?: [-\u{{2212}}–—+*×·÷^~±&/] | \.\.+ | … ) [\s(\[+-]*
          | \s* (?: {WORD} \s+ ){{0,2}}?
            (?: x | and | or | plus | minus | times | to | through | until | by
              | (?: divided | multiplied ) \s by | vs\.? ) \b
            \s* (?: about | approximately | around | roughly | even | another )? [\s(\[]*
          | : | \s+ : \s+
          | \s* [,;] \s* (?: and | or )? \s*
          | \s*
        ) $"
    ))
});

/// Between the parts of a measure in several units.
static MEASURE_GAP: LazyLock<Regex> = LazyLock::new(|| fixed(&format!(r"(?i)^\s*{UNITS}\s*,?\s*$")));
static MEASURE: LazyLock<Regex> = LazyLock::new(|| fixed(&format!(r"(?i)^\s*{UNITS}")));
const UNITS: &str = "(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|feet|foot\
    |ft|inch(?:es)?|in|pounds?|lbs?|ounces?|oz|dollars?|cents?|km|kg|cm|g)\\b";

/// What may stand between the beginning of a passage and its number.
static LEAD: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?xi) ^ (?: [\s*_`"'(\[{}$€£¥₹₩₽~≈:=|>] | \\{1,2} (?: [a-z]+ | . )
        | (?: about | approximately | around | roughly | exactly | only | just | simply | equal \s to
            | thus | therefore ) \b
        | [a-z]\w{0,20} \s* =
        )* $"#,
    )
});

/// What may stand behind the number between hashes and the end of the line: a unit.
static UNIT: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"^[%*_$\\]*\s*(?:[\p{L}/²³]+[*_]*\s*){0,2}\.?[*_]*\s*$"));

#[cfg(test)]
mod tests;
