//! Which of several choices an answer takes: a letter.

use std::sync::LazyLock;

use regex::Regex;

use super::pattern::fixed;
use super::place::{Mark, Place};

/// The letter that a place gives, in upper case, if it gives one.
pub fn letter(place: &Place<'_>) -> Option<char> {
    let passage = &*place.passage;
    let opening = || opening(passage, place.mark);
    match place.mark {
        Mark::Field | Mark::Boxed => opening().or_else(|| named(passage)),
        Mark::Hashes | Mark::Statement => opening(),
        Mark::LastLine => opening().or_else(|| named(passage)),
    }
}

/// The letter that a passage begins with, as in `B`, `(b)`, `**B**`, `B. Paris`, `Option B`.
fn opening(passage: &str, mark: Mark) -> Option<char> {
    let found = OPENING.captures(passage)?;
    let letter = found.name("letter")?;
    let rest = passage.get(letter.end()..)?;
    let is_upper = letter.as_str().starts_with(|c: char| c.is_ascii_uppercase());
    let is_word = matches!(letter.as_str(), "A" | "I");
    let is_stated = mark != Mark::LastLine && mark != Mark::Hashes;
    let is_choice = ALONE.is_match(rest)
        || mark != Mark::Hashes && LISTED.is_match(rest)
        || is_stated && is_upper && (if is_word { &BECAUSE } else { &SPACED }).is_match(rest);
    let is_choice = is_choice && !SEVERAL_AFTER.is_match(rest);
    is_choice.then(|| upper(letter.as_str())).flatten()
}

/// The last letter that a passage names as a choice, as in `so it must be (C).`
fn named(passage: &str) -> Option<char> {
    let found = NAMED.captures_iter(passage).last()?;
    let letter = ["bracketed", "titled", "predicate"].into_iter().find_map(|name| found.name(name))?;
    let before = passage.get(..found.get(0)?.start())?;
    (!SEVERAL_BEFORE.is_match(before)).then(|| upper(letter.as_str())).flatten()
}

fn upper(letter: &str) -> Option<char> {
    letter.chars().next().map(|c| c.to_ascii_uppercase())
}

static OPENING: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?x) ^ [\s*_`"'$>:]* (?: \\{1,2} (?: text | textbf | mathrm | mathbf ) \{ \s* )?
        (?: (?i: option | choice | letter | answer ) \s* :? \s* )? [*_(\[{"'`]* (?P<letter> [A-Za-z] )"#,
    )
});
/// Nothing that could be part of a word or of a sentence follows.
static ALONE: LazyLock<Regex> = LazyLock::new(|| fixed(r#"^[\s)\]}*_`"'.,:;!$\\]*$"#));
/// As before the text of a choice in a list.
static LISTED: LazyLock<Regex> = LazyLock::new(|| fixed(r#"^["'`*_]*(?:[)\]}]|[.:,](?:[\s*_]|$)|\*)"#));
static SPACED: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s"));
/// `A because` is a choice, `A dog` is none.
static BECAUSE: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"^\s+(?:because|since|as|is|for|which|with|[-–—(])(?:\W|$)"));
static SEVERAL_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    fixed(r"^[\s)\]*_]*(?:[,;/&+]|\band\b|\bor\b)[\s(\[*_]*(?:(?:and|or)\b[\s(\[*_]*)?[A-Z](?:\W|$)")
});

static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?x) [(\[] (?P<bracketed> [A-Z] ) [)\]]
        | \b (?i: option | choice | letter | answer ) \s+ [*_`"'(]* (?P<titled> [A-Z] ) \b
        | (?: \b (?i: is | be | choose | select | pick ) | [:=] ) \s* [*_`"'(]* (?P<predicate> [A-Z] ) [)*_`"'.!\s]* $"#,
    )
});
static SEVERAL_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    fixed(r"\b[A-Z][)\]*_]*\s*(?:[,;/&+]|,?\s*\b(?:and|or)\b)\s*(?:(?i:option|choice)\s+)?[(*_]*$")
});
