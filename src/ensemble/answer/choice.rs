//! Which of several choices an answer takes: a letter.

use std::sync::LazyLock;

use regex::Regex;

use super::pattern::fixed;
use super::place::{Finding, Mark, Place};

/// The letter that a place gives, in upper case.
pub fn letter(place: &Place<'_>) -> Finding<char> {
    let passage = &*place.passage;
    match (opening(passage, place.mark), place.mark) {
        (Finding::Nothing, Mark::Field | Mark::Boxed | Mark::LastLine) => named(passage),
        (finding, _) => finding,
    }
}

/// The letter that a passage begins with, as in `B`, `(b)`, `**B**`, `B. Paris`, `Option B`.
fn opening(passage: &str, mark: Mark) -> Finding<char> {
    let Some(found) = OPENING.captures(passage) else {
        return Finding::Nothing;
    };
    let letter = found.name("letter").map_or("", |letter| letter.as_str());
    let rest = passage.get(found.get(0).map_or(0, |whole| whole.end())..).unwrap_or_default();
    let is_listed = match mark {
        Mark::Hashes => false,
        // `(A) is wrong, so (C) it is.`
        Mark::LastLine => found.name("bracket").is_none(),
        Mark::Field | Mark::Boxed | Mark::Statement => true,
    };
    let is_stated = !matches!(mark, Mark::LastLine | Mark::Hashes);
    let is_upper = letter.starts_with(|c: char| c.is_ascii_uppercase());
    let is_choice = ALONE.is_match(rest)
        || is_listed && LISTED.is_match(rest)
        || is_stated && is_upper && EXPLAINED.is_match(rest);
    match SEVERAL_AFTER.is_match(rest) {
        true if is_choice || is_stated => Finding::Unclear,
        false if is_choice => upper(letter),
        _ => Finding::Nothing,
    }
}

/// The last letter that a passage names as a choice, as in `so it must be (C).`
fn named(passage: &str) -> Finding<char> {
    let Some(found) = NAMED.captures_iter(passage).last() else {
        return Finding::Nothing;
    };
    let before = found.get(0).and_then(|whole| passage.get(..whole.start())).unwrap_or_default();
    if SEVERAL_BEFORE.is_match(before) {
        return Finding::Unclear;
    }
    let letter = ["bracketed", "titled", "predicate"].into_iter().find_map(|name| found.name(name));
    upper(letter.map_or("", |letter| letter.as_str()))
}

fn upper(letter: &str) -> Finding<char> {
    letter.chars().next().map_or(Finding::Nothing, |c| Finding::Answer(c.to_ascii_uppercase()))
}

static OPENING: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?x) ^ [\s*_`"'$>:]* (?: \\{1,2} (?: text | textbf | mathrm | mathbf ) \{ \s* )?
        (?: (?i: option | choice | letter | answer ) \s* :? \s* )?
        [*_{"'`]* (?P<bracket> [(\[] )? [*_"'`]* (?P<letter> [A-Za-z] )"#,
    )
});
/// Nothing that could be part of a word or of a sentence follows.
static ALONE: LazyLock<Regex> = LazyLock::new(|| fixed(r#"^[\s)\]}*_`"'.,:;!$\\]*$"#));
/// As before the text of a choice in a list.
static LISTED: LazyLock<Regex> = LazyLock::new(|| fixed(r#"^["'`*_]*(?:[)\]}]|[.:,](?:[\s*_]|$)|\*)"#));
/// `A because` is a choice, `A dog` and `T cells` are none.
static EXPLAINED: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"^\s+(?:(?:because|since|as|is|for|which|with)\b|[-–—]\s|\()"));
static SEVERAL_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    fixed(r"^[\s)\]*_]*(?:[,;/&+]|\band\b|\bor\b)[\s(\[*_]*(?:(?:and|or)\b[\s(\[*_]*)?[A-HJ-Z](?:\W|$)")
});

static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"(?x) [(\[] (?P<bracketed> [A-Z] ) [)\]]
        | \b (?i: option | choice | letter | answer ) \s+ [*_`"'(]* (?P<titled> [A-Z] ) \b
        | (?: \b (?i: is | be | choose | select | pick ) | [:=] )
          \s* [*_`"'(]* (?P<predicate> [A-Z] ) [)*_`"'.!\s]* $"#,
    )
});
static SEVERAL_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    fixed(r"\b[A-Z][)\]*_]*\s*(?:[,;/&+]|,?\s*\b(?:and|or)\b)\s*(?:(?i:option|choice)\s+)?[(*_]*$")
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::answer::place;

    #[test]
    fn a_letter_is_read_where_writers_put_it() {
        let wrong: Vec<_> = [
            ("B", Some('B')),
            ("b", Some('B')),
            ("(B)", Some('B')),
            ("**B**", Some('B')),
            ("**(b)**", Some('B')),
            ("B.", Some('B')),
            ("B) Paris", Some('B')),
            ("B. Paris", Some('B')),
            ("B: Paris", Some('B')),
            ("**B. Paris**", Some('B')),
            ("**B**: Paris", Some('B')),
            ("[B] Paris", Some('B')),
            ("a) Paris", Some('A')),
            ("Option B", Some('B')),
            ("option (b)", Some('B')),
            ("$\\text{B}$", Some('B')),
            ("I weighed all.\n\nB\n", Some('B')),
            ("So it must be (C).", Some('C')),
            ("(A) is wrong, so (C) it is.", Some('C')),
            ("So the right option is C", Some('C')),
            ("Therefore, option C is right.", Some('C')),
            ("Hence I choose **C**.", Some('C')),
            ("The answer is (B).", Some('B')),
            ("The answer is B.", Some('B')),
            ("The answer is B because A is wrong.", Some('B')),
            ("The answer is A because B is wrong.", Some('A')),
            ("The correct answer is: **B) Paris**\n\nIt is the capital.", Some('B')),
            ("Answer: B\nThis took a while.", Some('B')),
            ("Answer: B (Paris)", Some('B')),
            ("Answer: A – Paris", Some('A')),
            ("Answer: B, I think", Some('B')),
            ("**Answer:** B", Some('B')),
            ("answer: option b.", Some('B')),
            ("The answer is \"B\".", Some('B')),
            ("The answer is (A). No: the answer is (D).", Some('D')),
            ("#### B\nI am sure.", Some('B')),
            ("#### A closer look\nThe answer is D.", Some('D')),
            ("#### B. Checks\nThe answer is D.", Some('D')),
            (r"$\boxed{B}$", Some('B')),
            (r"\boxed{\text{(B)}}", Some('B')),
            (r"\boxed{\textbf{B}}", Some('B')),
            (r"\boxed{\text{B) Paris}}", Some('B')),
            (r#"{"answer": "B"}"#, Some('B')),
            (r#"{"reasoning": "not A", "answer": "b"}"#, Some('B')),
            (r#"{"answer": "B) Paris"}"#, Some('B')),
            (r#"{"answer": "The right option is (B)."}"#, Some('B')),
            ("```json\n{\"answer\": \"B\"}\n```\nC", Some('B')),
            (r#"{"answer": B}"#, Some('B')),
            ("", None),
            ("I think so.", None),
            ("A dog.", None),
            ("The answer is a dog.", None),
            ("The answer is A dog.", None),
            ("The answer is Paris.", None),
            ("The answer is T cells.", None),
            ("Answer: I am not sure.", None),
            ("I'm not sure.", None),
            ("B and C", None),
            ("(A) and (C)", None),
            ("So it is (A) or (C).", None),
            ("The answer is B, C", None),
            ("The answer is A and B.\nOption C is wrong.", None),
            ("U.S. law says so.", None),
            ("X-rays do.", None),
            ("C++", None),
            ("It has vitamin C", None),
            (r#"{"answer": "Paris"}"#, None),
            (r#"{"answer": null} B"#, None),
            (r"\boxed{AB}", None),
            ("42", None),
        ]
        .into_iter()
        .map(|(text, choice)| (text, choice, place::find(text, true, letter)))
        .filter(|(_, expected, read)| expected != read)
        .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
