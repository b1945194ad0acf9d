//! Where writers put their answers.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::pattern::fixed;

/// How much of a text is looked at, from its end, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// How much of a line is looked at, in bytes.
const MAX_LINE: usize = 512;
/// How many places of one sort are looked at.
const MAX_PLACES: usize = 16;

/// What marks a place as that of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `"answer": …`, in JSON that may be broken elsewhere.
    Field,
    /// `\boxed{…}`.
    Boxed,
    /// `#### …`.
    Hashes,
    /// `The answer is …`, `Answer: …`.
    Statement,
    /// Nothing but that it is the last line.
    LastLine,
}

/// A passage of a text that may say what the answer is.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// What says so.
    pub mark: Mark,
    /// The passage. Its bytes stand where they do in the text: what JSON escapes is blanked out.
    pub passage: Cow<'a, str>,
    /// Where in the text it begins.
    pub start: usize,
}

/// What a place holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding<T> {
    /// No answer: it may stand elsewhere.
    Nothing,
    /// An answer that cannot be told from others: what stands elsewhere is none.
    Unclear,
    /// The answer.
    Answer(T),
}

impl<T> Finding<T> {
    /// The answer, if it is one.
    pub fn answer(self) -> Option<T> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Nothing | Self::Unclear => None,
        }
    }
}

/// What `read` makes of the strongest place in `text`; `is_whole` says that the text was not cut.
///
/// Strongest first: a field or a box is put there for whoever reads by machine, so the last one decides,
/// even where nothing can be read from it: what stands elsewhere is then something else. Hashes and
/// statements also head sections and begin explanations, so the last one that holds anything decides. The
/// last line is only trusted where the text reached its end and is not JSON without such a field.
pub fn find<T>(text: &str, is_whole: bool, read: impl Fn(&Place<'_>) -> Finding<T>) -> Option<T> {
    let skipped = text.ceil_char_boundary(text.len().saturating_sub(MAX_TEXT));
    let text = text.get(skipped..)?;
    let read = |mut place: Place<'_>| {
        place.start += skipped;
        read(&place)
    };
    if let Some(place) = field(text).or_else(|| boxed(text)) {
        return read(place).answer();
    }
    for (expression, mark) in [(&HASHES, Mark::Hashes), (&STATEMENT, Mark::Statement)] {
        let ends: Vec<usize> = expression.find_iter(text).map(|found| found.end()).collect();
        // Only the last ones: a text may be made of nothing else.
        for place in ends.into_iter().rev().take(MAX_PLACES).filter_map(|end| behind(text, mark, end)) {
            match read(place) {
                Finding::Nothing => {}
                finding => return finding.answer(),
            }
        }
    }
    last_line(text).filter(|_| is_whole).and_then(|place| read(place).answer())
}

impl<'a> Place<'a> {
    fn of(text: &'a str, mark: Mark, span: Range<usize>) -> Option<Self> {
        Some(Self { mark, start: span.start, passage: Cow::Borrowed(text.get(span)?) })
    }

    /// A JSON value, when it is no array or object: as a field is.
    pub fn json(value: &'a str) -> Option<Self> {
        let passage = match value.as_bytes().first()? {
            b'{' | b'[' => return None,
            _ => Cow::Owned(blanked(value)),
        };
        Some(Self { mark: Mark::Field, passage, start: 0 })
    }

    /// What stands behind `start` in its line.
    fn in_line(text: &'a str, mark: Mark, start: usize) -> Option<Self> {
        let line = text.get(start..text.floor_char_boundary(start + MAX_LINE))?;
        Self::of(text, mark, start..start + line.find('\n').unwrap_or(line.len()))
    }
}

fn field(text: &str) -> Option<Place<'_>> {
    let found = FIELD.captures_iter(text).last()?;
    if let Some(string) = found.name("string") {
        let passage = Cow::Owned(blanked(string.as_str()));
        return Some(Place { mark: Mark::Field, passage, start: string.start() });
    }
    let value = found.name("quoted").or(found.name("bare"))?;
    Place::of(text, Mark::Field, value.range())
}

/// The inside of a JSON string with a blank for every byte of an escape, so that nothing moves. Escapes that
/// JSON does not know stay: models write `"\frac{1}{2}"` and mean it.
fn blanked(json: &str) -> String {
    ESCAPE
        .replace_all(json, |escape: &Captures<'_>| {
            let escape = escape.get(0).map_or("", |escape| escape.as_str());
            if escape.eq_ignore_ascii_case(r"\u2212") {
                "     -".to_owned()
            } else {
                " ".repeat(escape.len())
            }
        })
        .into_owned()
}

/// The inside of the last box, up to the brace that closes it or to the end of its line.
fn boxed(text: &str) -> Option<Place<'_>> {
    let start = BOX.find_iter(text).last()?.end();
    let rest = text.get(start..)?;
    let mut depth = 0_usize;
    let mut is_escaped = false;
    let mut end = None;
    for (at, c) in rest.char_indices() {
        match c {
            '{' if !is_escaped => depth += 1,
            '}' if !is_escaped && depth == 0 => {
                end = Some(at);
                break;
            }
            '}' if !is_escaped => depth -= 1,
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    let end = end.or_else(|| rest.find('\n')).unwrap_or(rest.len());
    Place::of(text, Mark::Boxed, start..start + end)
}

/// What stands behind a mark that ends at `end`; where its line ends too, the next one, if it is the last.
fn behind(text: &str, mark: Mark, end: usize) -> Option<Place<'_>> {
    let place = Place::in_line(text, mark, end)?;
    if place.passage.contains(char::is_alphanumeric) {
        return Some(place);
    }
    let rest = text.get(end + place.passage.len()..)?.trim();
    let last = if rest.contains('\n') { None } else { last_line(text) }?;
    Some(Place { mark, ..last })
}

fn last_line(text: &str) -> Option<Place<'_>> {
    if text.trim_start().starts_with('{') {
        return None;
    }
    let mut end = text.len();
    for line in text.rsplit('\n') {
        let start = end - line.len();
        if line.contains(char::is_alphanumeric) {
            let start = text.ceil_char_boundary(start.max(end.saturating_sub(MAX_LINE)));
            return Place::of(text, Mark::LastLine, start..end).filter(|_| !MEMBER.is_match(line));
        }
        end = start.saturating_sub(1);
    }
    None
}

static FIELD: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?xis) ["'] (?: final [\ _-]? )? answer ["'] \s* : \s*
        (?: "(?P<string> (?: [^"\\] | \\. )* ) (?: " | \\? \z )
          | '(?P<quoted> [^'\n]* )
          |  (?P<bare> [^"'\s\n}] [^\n}]* ) )"#,
    )
});

/// What JSON escapes with a backslash that cannot be one of LaTeX.
static ESCAPE: LazyLock<Regex> = LazyLock::new(|| fixed(r#"\\(?:u[0-9a-fA-F]{4}|["/])"#));

static BOX: LazyLock<Regex> = LazyLock::new(|| fixed(r"\\f?box(?:ed)?\s*\{"));

static HASHES: LazyLock<Regex> = LazyLock::new(|| fixed(r"(?m)^[ \t>]*####[ \t]*"));

static STATEMENT: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?xi) \b answer \b [^.:;=!?\n]{0,80}?
        (?: : | = | \b (?: is | was | equals | (?: would | should | must | will ) \s be ) \b ) [*_\ \t]* :?",
    )
});

/// A line of JSON.
static MEMBER: LazyLock<Regex> = LazyLock::new(|| fixed(r#"^\s*"[^"]*"\s*:"#));

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::ensemble::answer::{choice, passage};

    fn marks(text: &str, accepted: &[Mark]) -> Option<Mark> {
        find(text, true, |place| match accepted.contains(&place.mark) {
            true => Finding::Answer(place.mark),
            false => Finding::Nothing,
        })
    }

    #[test]
    fn the_strongest_place_comes_first_and_weak_ones_only_when_readable() {
        use Mark::{Boxed, Field, Hashes, LastLine, Statement};
        let all = [Field, Boxed, Hashes, Statement, LastLine];
        let text = "The answer is 1.\n#### 2\n\\boxed{3}\n{\"answer\": 4}\n5";
        assert_eq!(marks(text, &all), Some(Field));
        assert_eq!(marks(text, &[Boxed, Hashes]), None, "the field decides, read or not");
        let text = "The answer is 1.\n#### 2\n\\boxed{3}\n5";
        assert_eq!(marks(text, &all), Some(Boxed));
        assert_eq!(marks(text, &[Hashes]), None, "the box decides, read or not");
        let text = "The answer is 1.\n#### 2\n5";
        assert_eq!(marks(text, &all), Some(Hashes));
        assert_eq!(marks(text, &[Statement, LastLine]), Some(Statement));
        assert_eq!(marks(text, &[LastLine]), Some(LastLine));
        assert_eq!(marks(text, &[]), None);
        let finding = |place: &Place<'_>| match place.mark {
            Hashes => Finding::Unclear,
            mark => Finding::Answer(mark),
        };
        assert_eq!(find(text, true, finding), None, "what is unclear decides as well");
        assert_eq!(find("1\n5", true, finding), Some(LastLine));
        assert_eq!(find("1\n5", false, finding), None, "cut, it is not the last line");
    }

    #[test]
    fn what_json_escapes_is_blanked_out_in_place() {
        for (json, blanked_out) in [
            (r"\u20ac18", "      18"),
            (r"\u221218", "     -18"),
            (r#"\"18\""#, "  18  "),
            (r"1\/2", "1  2"),
            (r"\\frac{1}{2}", r"\\frac{1}{2}"),
            (r"\frac{1}{2}", r"\frac{1}{2}"),
        ] {
            assert_eq!(blanked(json), blanked_out);
        }
    }

    #[test]
    fn only_the_end_of_a_huge_text_is_looked_at() {
        let text = format!("{{\"answer\": 1}}{}\né: the answer is 2", "é".repeat(MAX_TEXT));
        let found = find(&text, true, passage::number).unwrap();
        assert_eq!(&text[found.span], "2");
    }

    #[test]
    fn no_text_takes_long() {
        let began = Instant::now();
        for piece in [
            "answer: ",
            "answer: so 1, 2, 3, ",
            "answer: 1 + ",
            "answer",
            "#### 1\n",
            "#### x",
            "\"answer\": \"1",
            "\"answer\": \"",
            "\\boxed{",
            "1 ",
            "1,",
            "1.",
            "1/",
            "1 + ",
            "-",
            " ",
            "\n",
            "(A) or ",
            "a\n",
            "\\frac{1}{",
            "10^",
        ] {
            let text = piece.repeat((1 << 16) / piece.len());
            find(&text, true, passage::number);
            find(&text, true, choice::letter);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
