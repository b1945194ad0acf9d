//! Which of a numeral's separators is the decimal one.
//!
//! A lone point is a decimal point, also in `1.234`: the text around it is more often English than
//! not, and no count of digits tells otherwise. A lone comma before exactly three digits separates
//! thousands (`1,234`), any other one is a decimal comma (`1,5`, `0,123`, `3,1416`). Of two kinds of
//! separators the last is the decimal one. What is left is separated by one kind, in groups of three,
//! or with commas also as in India (`12,34,567`). All else is no number: a list, a version, an
//! address.

/// How many digits a number may have.
const MAX_DIGITS: usize = 100;

/// The digits of a numeral that has no sign, and how many of them stand behind the decimal point.
pub fn read(numeral: &str) -> Option<(String, u32)> {
    let (whole, fraction) = cut(numeral)?;
    let digits = format!("{}{fraction}", ungrouped(whole)?);
    let is_short = !digits.is_empty() && digits.len() <= MAX_DIGITS;
    let is_number = is_short && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((digits, u32::try_from(fraction.len()).ok()?))
}

/// A numeral without its decimal separator, cut there.
fn cut(numeral: &str) -> Option<(&str, &str)> {
    let is_separator = |c: char| !c.is_ascii_digit();
    let Some(last) = numeral.rfind(is_separator) else {
        return Some((numeral, ""));
    };
    let (whole, rest) = numeral.split_at_checked(last)?;
    let separator = rest.chars().next()?;
    let fraction = rest.get(separator.len_utf8()..)?;
    let is_decimal = match separator {
        '.' | ',' if whole.contains(separator) => false,
        '.' => true,
        // Nothing separates thousands behind a zero.
        ',' => {
            whole.contains(is_separator)
                || fraction.len() != 3
                || whole.starts_with('0')
                || !(1..=3).contains(&whole.len())
        }
        _ => false,
    };
    Some(if is_decimal { (whole, fraction) } else { (numeral, "") })
}

/// The digits of a whole number in groups.
fn ungrouped(whole: &str) -> Option<String> {
    let Some(separator) = whole.chars().find(|c| !c.is_ascii_digit()) else {
        return Some(whole.to_owned());
    };
    let groups: Vec<&str> = whole.split(separator).collect();
    let (first, others) = groups.split_first()?;
    let (last, middle) = others.split_last()?;
    let is_grouped = |size| {
        (1..=size).contains(&first.len())
            && !first.starts_with('0')
            && middle.iter().all(|group| group.len() == size)
            && last.len() == 3
    };
    (is_grouped(3) || separator == ',' && is_grouped(2)).then(|| groups.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_and_decimals_are_told_apart_or_it_is_no_number() {
        for (numeral, number) in [
            ("18", Some("18")),
            ("007", Some("007")),
            ("1,234", Some("1234")),
            ("12,345,678", Some("12345678")),
            ("12,34,567", Some("1234567")),
            ("1,234.5", Some("1234.5")),
            ("1,234.567", Some("1234.567")),
            ("1,5", Some("1.5")),
            ("0,75", Some("0.75")),
            ("12,34", Some("12.34")),
            ("0,123", Some("0.123")),
            ("3,1416", Some("3.1416")),
            ("1234,567", Some("1234.567")),
            ("1.234", Some("1.234")),
            ("1.5", Some("1.5")),
            (".5", Some(".5")),
            ("1.234,50", Some("1234.50")),
            ("1.234.567", Some("1234567")),
            ("1.234.567,8", Some("1234567.8")),
            ("1 234 567", Some("1234567")),
            ("1 234 567,8", Some("1234567.8")),
            ("1'234'567.80", Some("1234567.80")),
            ("1_000_000", Some("1000000")),
            ("1,23,4", None),
            ("12.34.5", None),
            ("1.2.3", None),
            ("1,2,3", None),
            ("1234,567,890", None),
            ("0,123,456", None),
            ("1.234.56", None),
            ("1,234,56", None),
            ("1.23,4,5", None),
            ("1,234.567.890", None),
            ("1.234'567", None),
            ("5'10", None),
            ("1 23", None),
            ("", None),
            (".", None),
        ] {
            let read = read(numeral).map(|(mut digits, decimals)| {
                let point = digits.len() - decimals as usize;
                if decimals > 0 {
                    digits.insert(point, '.');
                }
                digits
            });
            assert_eq!(read.as_deref(), number, "{numeral}");
        }
        assert!(read(&"9".repeat(100)).is_some() && read(&"9".repeat(101)).is_none());
    }
}
