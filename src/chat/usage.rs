//! Token usage, summed without forgetting what it does not know.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A `usage` object. Sums are field by field, details included; a field that nobody reported stays
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usage(Map<String, Value>);

impl Usage {
    /// A guess for an answer whose provider reported nothing: four bytes a token, as OpenAI's
    /// guidance for English text has it.
    pub fn estimate(prompt_bytes: usize, completion_bytes: usize) -> Self {
        let (prompt, completion) = (prompt_bytes.div_ceil(4) as u64, completion_bytes.div_ceil(4) as u64);
        let mut usage = Map::new();
        usage.insert("prompt_tokens".to_owned(), prompt.into());
        usage.insert("completion_tokens".to_owned(), completion.into());
        usage.insert("total_tokens".to_owned(), (prompt + completion).into());
        Self(usage)
    }

    /// What a provider reported, if that can be read: an answer is not lost for its bill. Counts are
    /// whole and not negative, whatever they are written as; what is neither is left out.
    pub fn read(raw: &RawValue) -> Option<Self> {
        let mut usage: Map<String, Value> = serde_json::from_str(raw.get()).ok()?;
        tidy(&mut usage);
        (!usage.is_empty()).then_some(Self(usage))
    }

    /// Adds what another call cost.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.0, &other.0);
    }

    /// A top-level count, 0 when absent.
    pub fn count(&self, field: &str) -> u64 {
        self.0.get(field).and_then(Value::as_u64).unwrap_or(0)
    }

    /// A count inside one of the details objects, when it was reported.
    pub fn detail(&self, object: &str, field: &str) -> Option<u64> {
        self.0.get(object)?.get(field)?.as_u64()
    }
}

/// The doubles below this are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn tidy(usage: &mut Map<String, Value>) {
    usage.retain(|_, value| match value {
        Value::Object(details) => {
            tidy(details);
            true
        }
        Value::Number(n) if n.is_u64() => true,
        Value::Number(n) => match n.as_f64() {
            Some(n) if (0.0..EXACT).contains(&n) && n.fract() == 0.0 => {
                // Whole, not negative and exact: its digits are those of an integer.
                *value = format!("{n:.0}").parse::<u64>().map_or(Value::Null, Value::from);
                true
            }
            Some(n) => n >= 0.0,
            None => false,
        },
        _ => false,
    });
}

fn add(sum: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (field, value) in other {
        let slot = sum.entry(field.as_str()).or_insert(Value::Null);
        match value {
            Value::Number(n) => {
                let total = match (slot.as_u64(), n.as_u64()) {
                    (Some(a), Some(b)) => a.saturating_add(b).into(),
                    (None, _) if slot.is_null() => value.clone(),
                    _ => (slot.as_f64().unwrap_or(0.0) + n.as_f64().unwrap_or(0.0)).into(),
                };
                *slot = total;
            }
            Value::Object(details) => {
                if slot.is_null() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(into) = slot {
                    add(into, details);
                }
            }
            // Labels cannot be summed; null is no report.
            _ => {}
        }
    }
    sum.retain(|_, value| !value.is_null());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
