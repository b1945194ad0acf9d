//! Numbers as texts print them.

use std::ops::Range;
use std::sync::LazyLock;

use num_rational::BigRational;
use num_traits::Zero;
use regex::{Captures, Regex};

use super::pattern::fixed;
use super::{Found, Number, separators};

/// How far a number may lie from 1, in powers of ten.
const MAX_EXPONENT: i32 = 300;
/// With how many digits behind the point a fraction is taken to be printed, at most.
const MAX_FRACTION_DECIMALS: u32 = 6;

/// A place in a text that looks like a number.
#[derive(Debug)]
pub struct Numeral<'a> {
    text: &'a str,
    /// What prints it: with its sign, and without the currency unless that stands in between.
    pub span: Range<usize>,
    is_negative: bool,
    /// It without sign and scale.
    body: &'a str,
    /// `million` and the like.
    scale: Option<&'a str>,
}

/// The numerals of `text`, in order, without digits that are part of a name, a power or an index.
pub fn all(text: &str) -> Vec<Numeral<'_>> {
    NUMERAL.captures_iter(text).filter_map(|found| Numeral::of(text, &found)).collect()
}

impl<'a> Numeral<'a> {
    fn of(text: &'a str, found: &Captures<'a>) -> Option<Self> {
        let whole = found.get(0)?;
        let body = found.name("body")?;
        let before = text.get(..whole.start())?;
        let sign = found.name("sign").or(found.name("inner_sign"));
        let mut start = sign.unwrap_or(body).start();
        let mut written = body.as_str();
        if let Some(digits) = written.strip_prefix('.')
            && before.ends_with(char::is_alphanumeric)
        {
            // `No.18` is no `.18`.
            written = digits;
            start += 1;
        } else if before.ends_with(|c: char| c.is_ascii_alphabetic()) && !UNIT_BEFORE.is_match(tail(before)) {
            return None;
        }
        if ["^", "_", "^{", "_{"].iter().any(|mark| before.ends_with(mark)) {
            return None;
        }
        let signs = [found.name("sign"), found.name("inner_sign")].into_iter().flatten();
        Some(Self {
            text,
            span: start..whole.end(),
            is_negative: signs.filter(|sign| sign.as_str() != "+").count() == 1,
            body: written,
            scale: found.name("scale").map(|scale| scale.as_str()),
        })
    }

    /// The number, unless what stands around it leaves open which one it is.
    pub fn read(&self) -> Option<Found> {
        let (before, after) = (self.text.get(..self.span.start)?, self.text.get(self.span.end..)?);
        if UNCLEAR_BEFORE.is_match(tail(before)) || UNCLEAR_AFTER.is_match(after) {
            return None;
        }
        let printed = self.text.get(self.span.clone())?;
        let is_money = before.trim_end().ends_with(CURRENCIES) || printed.contains(CURRENCIES);
        if is_money && ABBREVIATED.is_match(after) {
            return None;
        }
        if self.body.contains(':') && !HALF_DAY.is_match(after) {
            return None;
        }
        let (mut ratio, mut decimals) = value(&plainly(self.body))?;
        let is_bracketed = before.ends_with(['(', '[']) && after.starts_with([')', ']']);
        if is_bracketed && decimals > 0 && self.body.contains(',') {
            // `(1,5)` is a pair as likely as a number.
            return None;
        }
        if let Some(scale) = self.scale {
            let zeros = zeros(scale);
            ratio *= power_of_ten(zeros);
            decimals = decimals.saturating_sub(zeros.unsigned_abs());
        }
        let value = Number::from(if self.is_negative { -ratio } else { ratio });
        Some(Found { value, span: self.span.clone(), decimals })
    }
}

/// The last characters of `before`: all that is looked at of them.
fn tail(before: &str) -> &str {
    before.get(before.floor_char_boundary(before.len().saturating_sub(24))..).unwrap_or_default()
}

/// The value of a [`plainly`] written numeral, and its digits behind the point.
fn value(plain: &str) -> Option<(BigRational, u32)> {
    let (whole, part) = plain.rsplit_once(' ').unwrap_or(("", plain));
    let Some((over, under)) = part.split_once('/') else {
        return whole.is_empty().then(|| decimal(part))?;
    };
    let under = decimal(under)?.0;
    if under.is_zero() {
        return None;
    }
    let mut ratio = decimal(over)?.0 / under;
    if !whole.is_empty() {
        ratio += decimal(whole)?.0;
    }
    let decimals = Number::from(ratio.clone()).decimals().unwrap_or(MAX_FRACTION_DECIMALS);
    Some((ratio, decimals.min(MAX_FRACTION_DECIMALS)))
}

fn decimal(plain: &str) -> Option<(BigRational, u32)> {
    let unsigned = plain.trim_start_matches('-');
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|e| (-MAX_EXPONENT..=MAX_EXPONENT).contains(e))?;
    let (digits, decimals) = separators::read(mantissa)?;
    let shift = exponent - i32::try_from(decimals).ok()?;
    let ratio = BigRational::from_integer(digits.parse().ok()?) * power_of_ten(shift);
    let ratio = if unsigned.len() < plain.len() { -ratio } else { ratio };
    Some((ratio, u32::try_from(-shift).unwrap_or(0)))
}

fn power_of_ten(exponent: i32) -> BigRational {
    BigRational::from_integer(10.into()).pow(exponent)
}

fn zeros(scale: &str) -> i32 {
    let scale = scale.to_ascii_lowercase();
    let known = [("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12)];
    known.into_iter().find(|(word, _)| scale.contains(word)).map_or(0, |(_, zeros)| zeros)
}

/// The numeral in plain ASCII: `1/2` for fractions however set, with a space behind the whole part of a
/// mixed one; `e` for powers of ten; `_` for spaces between digits; `-` for a minus.
fn plainly(body: &str) -> String {
    let ascii: String = body
        .chars()
        .map(|c| {
            RAISED.chars().zip("0123456789-+".chars()).find(|(raised, _)| *raised == c).map_or(c, |(_, c)| c)
        })
        .map(|c| match c {
            '\u{2212}' => '-',
            '\u{2044}' => '/',
            '\u{2019}' => '\'',
            '\u{a0}' | '\u{2009}' | '\u{202f}' => ' ',
            c => c,
        })
        .collect();
    SPELLINGS
        .iter()
        .fold(ascii, |text, (spelling, plain)| spelling.replace_all(&text, *plain).into_owned())
        .trim()
        .to_owned()
}

const RAISED: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺";

/// Spellings of [`plainly`] and what is plain, in this order.
static SPELLINGS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let command = r"\\{1,2}";
    [
        (r"\{,\}|,\\{1,2}!".to_owned(), ","),
        (format!(r"{command}[,;:! ]| ?_"), "_"),
        (format!(r" *(?:[×x*·]|{command}(?:times|cdot)) *10(?: *\^ *\{{? *)?([-+0-9]+) *\}}?$"), "e$1"),
        (r" ([0-9]{3})\b".to_owned(), "_$1"),
        (format!(r"{command}[dtc]?frac *([0-9])([0-9])"), " $1/$2"),
        (format!(r"{command}[dtc]?frac *\{{ *([^{{}}]*?) *\}} *\{{ *([^{{}}]*?) *\}}"), " $1/$2"),
        (" ?½".to_owned(), " 1/2"),
        (" ?⅓".to_owned(), " 1/3"),
        (" ?⅔".to_owned(), " 2/3"),
        (" ?¼".to_owned(), " 1/4"),
        (" ?¾".to_owned(), " 3/4"),
        (" */ *".to_owned(), "/"),
        (":00$".to_owned(), ""),
        (r"^10 *\^ *\{? *([-+0-9]+) *\}?$".to_owned(), "1e$1"),
    ]
    .map(|(spelling, plain)| (fixed(&spelling), plain))
    .into()
});

static NUMERAL: LazyLock<Regex> = LazyLock::new(|| {
    let space = r"[\ \u{a0}\u{2009}\u{202f}]";
    let command = r"\\{1,2}";
    let separator = format!(r"(?:[.,'\u{{2019}}_]|\{{,\}}|{command}[,;:!\ ]|,{command}!)");
    let digits =
        format!(r"(?:[0-9]{{1,3}}(?:{space}[0-9]{{3}})+\b(?:[.,][0-9]+)?|\.?[0-9]+(?:{separator}[0-9]+)*)");
    let exponent = r"[-\u{2212}+]?[0-9]+";
    let power = format!(r"\ *\^\ *(?:\{{\ *{exponent}\ *\}}|{exponent})");
    let argument = format!(r"\ *\{{\ *[-\u{{2212}}]?{digits}\ *\}}");
    fixed(&format!(
        r"(?x)
        (?P<sign> [-\u{{2212}}+] )?
        (?: \\{{0,2}} [$€£¥₹₩₽] \ ? )?
        (?P<inner_sign> [-\u{{2212}}+] )?
        (?P<body>
            (?: {digits} \ * )? {command} [dtc]? frac (?: {argument} {argument} | \ * [0-9]{{2}} )
          | [0-9]+ {space} [0-9]+ [/\u{{2044}}] [0-9]+
          | {digits} \ ? [/\u{{2044}}] \ ? {digits}
          | [0-9]{{1,2}} :00
          | 10 {power}
          | {digits} [eE] {exponent}
          | {digits} \ * (?: [×x*·] | {command} (?: times | cdot ) ) \ *
            10 (?: {power} | [⁻⁺]? [⁰¹²³⁴⁵⁶⁷⁸⁹]+ )
          | (?: {digits} \ ? )? [½⅓⅔¼¾]
          | {digits}
        )
        (?P<scale> [\s~]* (?: {command} (?: text | mathrm ) \{{ \s* )?
            (?i: hundred | thousand | million | billion | trillion ) \b \}}? )?"
    ))
});

const CURRENCIES: [char; 7] = ['$', '€', '£', '¥', '₹', '₩', '₽'];

/// An abbreviated scale behind money, where `m` is no metre.
static ABBREVIATED: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s?(?i:k|m|b|t|bn|mn)\b"));

/// `2:00 pm` is `2 pm`; without the half of the day it might be a ratio, or minutes.
static HALF_DAY: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s*(?i:[ap]\.?m)\b"));

/// Letters before a numeral that are no part of a name.
static UNIT_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"(?:\b(?:USD|EUR|GBP|INR|CHF|CNY|JPY|Rs|R\$)|\\{1,2}[a-zA-Z]+)$"));

/// What stands before a numeral that is only part of a number: a root, a dash that may be a minus.
static UNCLEAR_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"(?:√\(?|sqrt[\[\]0-9]*[({]?|[–—]|=\s*[-−–]\s+)$"));

/// What stands behind a numeral that is only part of a number: a power, a root, a factor, an abbreviated scale.
static UNCLEAR_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"^(?:\s*(?:\^|√|π|\\{1,2}(?:sqrt|pi|log|ln)\b)|[⁰¹²³⁴⁵⁶⁷⁸⁹]|[xX](?:[0-9A-Fa-f]|\b)|(?:k|K|M|B|T|bn|mn)\b)",
    )
});

#[cfg(test)]
mod tests;
