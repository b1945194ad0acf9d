//! Token usage, summed without forgetting what it does not know.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A `usage` object. Sums are field by field, details included; a field that nobody reported stays
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Usage(Fields);

/// What an object of counts says, in the order in which it says it. There are a handful: they are sooner compared than
/// hashed.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fields(Vec<(Cow<'static, str>, Field)>);

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Count(u64),
    /// What is no count, such as a price.
    Amount(f64),
    Details(Fields),
}

const PROMPT: &str = "prompt_tokens";
const COMPLETION: &str = "completion_tokens";
const TOTAL: &str = "total_tokens";

/// The names that need no room of their own.
const USUAL: [&str; 9] = [
    PROMPT,
    COMPLETION,
    TOTAL,
    "prompt_tokens_details",
    "completion_tokens_details",
    "cached_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "accepted_prediction_tokens",
];

/// How many fields an object of counts may have, and how deep its details may be; what is beyond is not read. Each field is
/// compared with the others, and is summed and told for as long as the answer's record is kept.
const MAX_FIELDS: usize = 64;
const MAX_DEPTH: usize = 2;

/// The doubles below this are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Usage {
    /// A guess for an answer whose provider reported nothing: four bytes a token, as OpenAI's
    /// guidance for English text has it.
    pub fn estimate(prompt_bytes: usize, completion_bytes: usize) -> Self {
        let (prompt, completion) = (prompt_bytes.div_ceil(4) as u64, completion_bytes.div_ceil(4) as u64);
        let counts = [(PROMPT, prompt), (COMPLETION, completion), (TOTAL, prompt + completion)];
        Self(Fields(counts.map(|(name, count)| (name.into(), Field::Count(count))).into()))
    }

    /// What a provider reported, if that can be read: an answer is not lost for its bill. Counts are
    /// whole and not negative, whatever they are written as; what is neither is left out.
    pub fn read(raw: &RawValue) -> Option<Self> {
        let usage: Self = serde_json::from_str(raw.get()).ok()?;
        (!usage.0.0.is_empty()).then_some(usage)
    }

    /// Adds what another call cost.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }

    /// A top-level count, 0 when absent.
    pub fn count(&self, field: &str) -> u64 {
        self.0.count(field).unwrap_or(0)
    }

    /// A count inside one of the details objects, when it was reported.
    pub fn detail(&self, object: &str, field: &str) -> Option<u64> {
        match self.0.field(object)? {
            Field::Details(details) => details.count(field),
            _ => None,
        }
    }
}

impl Fields {
    fn field(&self, name: &str) -> Option<&Field> {
        self.0.iter().find(|(named, _)| named == name).map(|(_, field)| field)
    }

    fn count(&self, name: &str) -> Option<u64> {
        match self.field(name)? {
            Field::Count(count) => Some(*count),
            _ => None,
        }
    }

    fn add(&mut self, other: &Self) {
        for (name, field) in &other.0 {
            match self.0.iter_mut().find(|(named, _)| named == name) {
                Some((_, sum)) => sum.add(field),
                None => self.0.push((name.clone(), field.clone())),
            }
        }
    }

    /// The last of several fields of one name counts.
    fn set(&mut self, name: Cow<'static, str>, field: Field) {
        match self.0.iter_mut().find(|(named, _)| *named == name) {
            Some((_, set)) => *set = field,
            None => self.0.push((name, field)),
        }
    }
}

impl Field {
    /// Of what cannot be summed, the first stays.
    fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Count(sum), Self::Count(count)) => *sum = sum.saturating_add(*count),
            (Self::Details(sum), Self::Details(details)) => sum.add(details),
            (Self::Details(_), _) | (_, Self::Details(_)) => {}
            (Self::Count(sum), Self::Amount(amount)) => *self = Self::Amount(*sum as f64 + amount),
            (Self::Amount(sum), Self::Count(count)) => *sum += *count as f64,
            (Self::Amount(sum), Self::Amount(amount)) => *sum += amount,
        }
    }
}

/// Takes objects of counts and nothing else, at this depth.
struct Read(usize);

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Read(1)).map(Self)
    }
}

impl<'de> Visitor<'de> for Read {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of counts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while fields.0.len() < MAX_FIELDS
            && let Some(Name(name)) = map.next_key()?
        {
            if let Some(field) = map.next_value_seed(Worth(self.0))? {
                fields.set(name, field);
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(fields)
    }
}

/// The name of a field.
struct Name(Cow<'static, str>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Named;
        impl Visitor<'_> for Named {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                let usual = USUAL.into_iter().find(|usual| *usual == text).map(Cow::Borrowed);
                Ok(Name(usual.unwrap_or_else(|| Cow::Owned(text.to_owned()))))
            }
        }
        json.deserialize_str(Named)
    }
}

/// A value, when it is one that can be summed.
struct Worth(usize);

impl<'de> DeserializeSeed<'de> for Worth {
    type Value = Option<Field>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<Field>, D::Error> {
        struct Valued(usize);
        impl<'de> Visitor<'de> for Valued {
            type Value = Option<Field>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_u64<E>(self, count: u64) -> Result<Self::Value, E> {
                Ok(Some(Field::Count(count)))
            }

            fn visit_i64<E>(self, count: i64) -> Result<Self::Value, E> {
                Ok(u64::try_from(count).ok().map(Field::Count))
            }

            fn visit_f64<E>(self, amount: f64) -> Result<Self::Value, E> {
                let is_count = (0.0..EXACT).contains(&amount) && amount.fract() == 0.0;
                // Whole, not negative and exact: nothing is lost.
                let field = if is_count { Field::Count(amount as u64) } else { Field::Amount(amount) };
                Ok((amount >= 0.0).then_some(field))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                if self.0 < MAX_DEPTH {
                    return Read(self.0 + 1).visit_map(map).map(|details| Some(Field::Details(details)));
                }
                IgnoredAny.visit_map(map).map(|_| None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }
        json.deserialize_any(Valued(self.0))
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_map(self.0.iter().map(|(name, field)| (name, field)))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => json.serialize_u64(*count),
            Self::Amount(amount) => json.serialize_f64(*amount),
            Self::Details(details) => details.serialize(json),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn usage(value: Value) -> Usage {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn odd_reports_are_read_as_far_as_they_make_sense() {
        let read = |json: &str| {
            Usage::read(&RawValue::from_string(json.to_owned()).unwrap())
                .map(|u| serde_json::to_value(u).unwrap())
        };
        for nothing in ["null", "\"none\"", "[]", "{}", r#"{"prompt_tokens":1e999}"#, r#"{"a":null,"b":"x"}"#]
        {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        let odd =
            r#"{"prompt_tokens":10.0,"completion_tokens":-5,"cost":0.25,"d":{"cached_tokens":2.0,"x":null}}"#;
        assert_eq!(read(odd), Some(json!({"prompt_tokens": 10, "cost": 0.25, "d": {"cached_tokens": 2}})));
    }

    #[test]
    fn a_report_is_read_as_far_as_its_bounds() {
        let of = |fields: usize| {
            let fields: Vec<String> = (0..fields).map(|i| format!(r#""f{i}":1"#)).collect();
            let json = format!(r#"{{{},"d":{{"e":2}}}}"#, fields.join(","));
            Usage::read(&RawValue::from_string(json).unwrap()).unwrap()
        };
        assert_eq!(of(MAX_FIELDS - 1).detail("d", "e"), Some(2));
        assert_eq!((of(MAX_FIELDS).detail("d", "e"), of(MAX_FIELDS).0.0.len()), (None, MAX_FIELDS));
        let deep = json!({"prompt_tokens": 1, "d": {"e": 2, "f": {"g": 3}}});
        assert_eq!(usage(deep), usage(json!({"prompt_tokens": 1, "d": {"e": 2}})));
    }

    #[test]
    fn fields_are_summed_with_their_details_and_absent_stays_absent() {
        let mut sum = Usage::default();
        sum.add(&usage(json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "tier": "x"})));
        assert_eq!(sum, usage(json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})));
        sum.add(&usage(json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0.5,
            "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": null}})));
        sum.add(&usage(json!({"cost": 0.25, "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": null})));
        assert_eq!(
            sum,
            usage(json!({"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9, "cost": 0.75,
                "prompt_tokens_details": {"cached_tokens": 3}}))
        );
        assert_eq!(sum.detail("prompt_tokens_details", "cached_tokens"), Some(3));
        assert_eq!(sum.detail("completion_tokens_details", "reasoning_tokens"), None);
    }
}
