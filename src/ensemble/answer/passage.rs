//! Which number a passage gives.

use std::sync::LazyLock;

use regex::Regex;

use super::Found;
use super::numeral::{self, Numeral};
use super::pattern::fixed;
use super::place::{Mark, Place};

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

/// The number that a place gives, if it gives one.
pub fn number(place: &Place<'_>) -> Option<Found> {
    let found = match place.mark {
        Mark::Field | Mark::Boxed => stated(&place.passage),
        Mark::Statement => opening(&place.passage),
        Mark::Hashes => opening(&place.passage)
            .filter(|found| place.passage.get(found.span.end..).is_some_and(|rest| UNIT.is_match(rest))),
        Mark::LastLine => closing(&place.passage),
    }?;
    Some(found.shifted(place.start))
}

/// The number of a passage that is meant to be nothing else: its only one, what its equation comes to,
/// or the one that it begins with.
pub fn stated(passage: &str) -> Option<Found> {
    let numerals = numeral::all(passage.get(..MAX_STATED).map_or(passage, |_| ""));
    match numerals.as_slice() {
        [only] => only.read(),
        _ if passage.contains('=') => last(passage, &numerals),
        _ => opening(passage),
    }
}

/// The number that a passage begins with.
fn opening(passage: &str) -> Option<Found> {
    let numerals = numeral::all(passage);
    let first = numerals.first()?;
    if !LEAD.is_match(passage.get(..first.span.start)?) {
        return None;
    }
    let mut result = (first, true);
    let mut links = 0;
    for (a, b) in numerals.iter().zip(numerals.iter().skip(1)) {
        match link(passage, a, b) {
            Link::None => break,
            Link::Parts => result = (b, false),
            Link::Equals => result = (b, true),
        }
        links += 1;
    }
    // A calculation that goes on has not come to its end.
    let goes_on = links > 0 && links + 1 < numerals.len();
    let (numeral, is_result) = result;
    numeral.read().filter(|_| is_result && !goes_on)
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
    let gap =
        TYPESETTING.replace_all(&EQUAL.replace_all(&TIMES.replace_all(gap, "*"), "="), " ").into_owned();
    let after = passage.get(b.span.end..).unwrap_or_default();
    let is_mixed = MEASURE_GAP.is_match(&gap) && MEASURE.is_match(after);
    if RESULT.is_match(&gap) {
        Link::Equals
    } else if is_mixed || PARTS.is_match(&gap) {
        Link::Parts
    } else {
        Link::None
    }
}

static TIMES: LazyLock<Regex> = LazyLock::new(|| fixed(r"\\{1,2}(?:times|cdot|ast|div|pm|mp)\b"));
static EQUAL: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"\\{1,2}(?:approx|simeq|equiv|implies|[rR]ightarrow|to)\b|[≈≅→⇒]|[-=]>"));
static TYPESETTING: LazyLock<Regex> =
    LazyLock::new(|| fixed(r#"\\{1,2}[a-zA-Z]+|\\{1,2}.|\*\*|__|[`$€£¥₹₩₽"{}]"#));

static RESULT: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?i)^[)\]%\s]*/?(?:\p{L}[\p{L}/.%²³]*\s*)?(?:=|\b(?:is|equals|gives|makes|leaves)\b)\s*(?:about|approximately)?\s*$",
    )
});

static PARTS: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?xi) ^ [)\]%°'′″]* (?:
            \s* /? (?: \p{L}[\p{L}/.%²³]* \s* ){0,2} (?: [-\u{2212}–—+*×·÷^~±&/] | \.\.+ | … ) [\s(\[+-]*
          | \s* (?: \p{L}[\p{L}/.%²³]* \s+ ){0,2}? (?: x | and | or | plus | minus | times | to | through | until | by
                | (?: divided | multiplied ) \s by | vs\.? ) \b \s* (?: about | approximately | around | roughly | even | another )? [\s(\[]*
          | : | \s+ : \s+
          | \s* [,;] \s* (?: and | or )? \s*
          | \s*
        ) $",
    )
});

/// Between the parts of a measure in several units.
static MEASURE_GAP: LazyLock<Regex> = LazyLock::new(|| fixed(&format!(r"(?i)^\s*{UNITS}\s*,?\s*$")));
static MEASURE: LazyLock<Regex> = LazyLock::new(|| fixed(&format!(r"(?i)^\s*{UNITS}")));
const UNITS: &str = r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|feet|foot|ft|inch(?:es)?|in|pounds?|lbs?|ounces?|oz|dollars?|cents?|km|kg|cm|g)\b";

/// What may stand between the beginning of a passage and its number.
static LEAD: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?xi) ^ (?: [\s*_`"'(\[{$€£¥₹₩₽~≈:=|>] | \\{1,2} (?: [a-z]+ | . )
        | (?: about | approximately | around | roughly | exactly | only | just | simply | equal \s to | thus | therefore ) \b
        | [a-z]\w{0,20} \s* =
        )* $"#,
    )
});

/// What may stand behind the number between hashes and the end of the line: a unit.
static UNIT: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"^[%*_$\\]*\s*(?:[\p{L}/²³]+[*_]*\s*){0,2}\.?[*_]*\s*$"));
