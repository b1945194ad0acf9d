//! JSON by value: whatever the order of its keys and the spelling of its numbers and strings.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Pointer, fence};
use crate::chat::quoted;

/// The largest text that is read, in bytes: each level of nesting costs another pass over it.
const MAX_BYTES: usize = 256 << 10;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// A JSON value. Equal values are equal, and are written alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// A string, a number, true, false or null, in its one spelling.
    Scalar(Box<str>),
    /// An array.
    Array(Vec<Self>),
    /// An object. Of a key that comes twice the last one counts, as for most parsers.
    Object(BTreeMap<Box<str>, Self>),
}

/// The JSON that `text` is, or that stands in its only fence.
pub fn document(text: &str) -> Option<&str> {
    let is_json = |text: &&str| text.len() <= MAX_BYTES && serde_json::from_str::<IgnoredAny>(text).is_ok();
    Some(text.trim()).filter(is_json).or_else(|| match fence::blocks(text).as_slice() {
        [only] => Some(only.trim()).filter(is_json),
        _ => None,
    })
}

/// The part of `document` that `pointer` leads to.
pub fn part<'a>(document: &'a str, pointer: &Pointer) -> Option<&'a str> {
    pointer.steps().try_fold(document, |json, step| match level(json)? {
        Level::Object(members) => Some(members.get(step)?.get()),
        Level::Array(items) => {
            let is_index = step == "0" || !step.starts_with('0') && step.bytes().all(|b| b.is_ascii_digit());
            Some(items.get(step.parse::<usize>().ok().filter(|_| is_index)?)?.get())
        }
        Level::Scalar(_) => None,
    })
}

/// One level of a JSON text.
enum Level<'a> {
    Scalar(&'a str),
    Array(Vec<&'a RawValue>),
    Object(BTreeMap<Box<str>, &'a RawValue>),
}

fn level(json: &str) -> Option<Level<'_>> {
    match json.as_bytes().first()? {
        b'{' => serde_json::from_str(json).ok().map(Level::Object),
        b'[' => serde_json::from_str(json).ok().map(Level::Array),
        _ => Some(Level::Scalar(json)),
    }
}

impl Json {
    /// The value that `text` is. None when it is no JSON, more than 256 KiB or nested more than 32 deep.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() <= MAX_BYTES).then(|| Self::nested(text, 0))?
    }

    /// The value of an object's key.
    pub fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            Self::Scalar(_) | Self::Array(_) => None,
        }
    }

    /// How many values there are in it, and it.
    pub fn size(&self) -> usize {
        1 + match self {
            Self::Scalar(_) => 0,
            Self::Array(items) => items.iter().map(Self::size).sum(),
            Self::Object(members) => members.values().map(Self::size).sum(),
        }
    }

    fn nested(json: &str, depth: usize) -> Option<Self> {
        let inner = |raw: &RawValue| Self::nested(raw.get(), depth + 1).filter(|_| depth < MAX_DEPTH);
        Some(match level(json)? {
            Level::Scalar(scalar) => Self::Scalar(canonical_scalar(scalar)?.into()),
            Level::Array(items) => Self::Array(items.into_iter().map(inner).collect::<Option<_>>()?),
            Level::Object(members) => Self::Object(
                members.into_iter().map(|(key, raw)| Some((key, inner(raw)?))).collect::<Option<_>>()?,
            ),
        })
    }
}

/// In its canonical spelling.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => f.write_str(scalar),
            Self::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { '[' } else { ',' })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Self::Object(members) => {
                for (i, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}{}:{value}", if i == 0 { '{' } else { ',' }, quoted(key))?;
                }
                f.write_str(if members.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn canonical_scalar(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str::<Box<str>>(json).ok().map(|text| quoted(&text)),
        b'-' | b'0'..=b'9' => {
            serde_json::from_str::<&RawValue>(json).ok()?;
            Some(canonical_number(json).unwrap_or_else(|| json.to_owned()))
        }
        _ => serde_json::from_str::<IgnoredAny>(json).ok().map(|_| json.to_owned()),
    }
}

/// A number by its digits and its power of ten, without zeros at either end, so that it stays exact however
/// large it is. None when its exponent is larger than anybody can mean.
fn canonical_number(json: &str) -> Option<String> {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (sign, digits) = mantissa.split_at(usize::from(mantissa.starts_with('-')));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let shift = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
    Some(match exponent.parse::<i64>().ok()?.checked_add(shift)? {
        0 => format!("{sign}{significant}"),
        exponent => format!("{sign}{significant}e{exponent}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Json::parse(text).map(|json| json.to_string())
    }

    #[test]
    fn equal_values_are_written_alike() {
        for (canonical_form, spellings) in [
            (r#"{"a":1,"b":[true,null,"x"]}"#, vec![r#" { "b" : [true, null, "\u0078"], "a": 1.0 } "#]),
            ("1", vec!["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000"]),
            ("1e2", vec!["100", "1e2", "1E+2", "100.0"]),
            ("-5e-1", vec!["-0.5", "-5e-1", "-0.50"]),
            ("0", vec!["0", "-0", "0.0", "0e9", "-0.0e-9"]),
            ("12345678901234567890123", vec!["12345678901234567890123", "12345678901234567890.123e3"]),
            ("1e400", vec!["1e400", "10E399"]),
            ("1e99999999999999999999", vec!["1e99999999999999999999"]),
            (r#""é/\"""#, vec![r#""é/\"""#, r#""\u00e9\/\u0022""#]),
            (r#"{"a":2}"#, vec![r#"{"a":1,"a":2}"#]),
            ("[]", vec!["[ ]"]),
            ("{}", vec!["{ }"]),
            ("[[],{}]", vec!["[ [ ] , { } ]"]),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling).as_deref(), Some(canonical_form), "{spelling}");
            }
        }
        assert_ne!(canonical("12345678901234567890123"), canonical("12345678901234567890124"));
        assert_ne!(canonical("18"), canonical(r#""18""#));
    }

    #[test]
    fn what_is_no_json_or_too_much_of_it_is_not_read() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let huge = format!("\"{}\"", "x".repeat(MAX_BYTES));
        for text in ["", "x", "01", "1.", "tru", "{a:1}", "[1,]", "{} {}", "\"\\ud800\"", &nested(33), &huge]
        {
            assert_eq!(canonical(text), None, "{:.20}", text);
        }
        assert!(canonical(&nested(32)).is_some());
        assert!(canonical(&format!("\"{}\"", "x".repeat(MAX_BYTES - 2))).is_some());
    }

    #[test]
    fn a_document_is_the_text_or_its_only_fence() {
        for (text, json) in [
            (" {\"a\": 1}\n", Some("{\"a\": 1}")),
            ("18", Some("18")),
            ("Here:\n```json\n{\"a\": 1}\n```\nDone.", Some("{\"a\": 1}")),
            ("```\n1\n```\n```\n2\n```", None),
            ("```json\n{a}\n```", None),
            ("Here: {\"a\": 1}", None),
        ] {
            assert_eq!(document(text), json, "{text:?}");
        }
    }

    #[test]
    fn a_pointer_leads_to_a_part_or_nowhere() {
        let document = r#"{"a": [10, {"b/c": "x", "": 2}], "0": 3, "m~n": null}"#;
        for (pointer, part_found) in [
            ("", Some(document)),
            ("/a/0", Some("10")),
            ("/a/1/b~1c", Some("\"x\"")),
            ("/a/1/", Some("2")),
            ("/0", Some("3")),
            ("/m~0n", Some("null")),
            ("/a/2", None),
            ("/a/-", None),
            ("/a/00", None),
            ("/a/+0", None),
            ("/a/0/x", None),
            ("/b", None),
        ] {
            let pointer = Pointer::parse(pointer).unwrap();
            assert_eq!(part(document, &pointer), part_found, "{pointer:?}");
        }
    }

    /// Any JSON, in one spelling and in another one.
    fn spelt_twice() -> impl Strategy<Value = (String, String)> {
        let scalar = prop_oneof![
            Just(("null".to_owned(), " null ".to_owned())),
            any::<i32>().prop_map(|n| (n.to_string(), format!("{n}.0"))),
            (any::<i16>(), 0..6_usize)
                .prop_map(|(n, zeros)| { (format!("{n}{}", "0".repeat(zeros)), format!("{n}.00e+{zeros}")) }),
            "[a-c\"é\\\\]{0,4}".prop_map(|text| {
                let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                (quoted(&text), format!("\"{escaped}\""))
            }),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            let items = proptest::collection::vec(inner.clone(), 0..4);
            let members = proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4);
            prop_oneof![
                items.prop_map(|items| {
                    let (a, b): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    (format!("[{}]", a.join(",")), format!("[ {} ]", b.join(" ,\n")))
                }),
                members.prop_map(|members| {
                    let (a, mut b): (Vec<_>, Vec<_>) = members
                        .into_iter()
                        .map(|(key, (a, b))| {
                            (format!("{}:{a}", quoted(&key)), format!("{} : {b}", quoted(&key)))
                        })
                        .unzip();
                    b.reverse();
                    (format!("{{{}}}", a.join(",")), format!("{{ {} }}", b.join(" ,\n")))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_knows_neither_order_nor_spelling((a, b) in spelt_twice()) {
            let (first, second) = (canonical(&a).unwrap(), canonical(&b).unwrap());
            prop_assert_eq!(&first, &second);
            prop_assert_eq!(canonical(&first), Some(first), "it is its own canonical form");
        }
    }
}
