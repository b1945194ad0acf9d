//! What an answer's text must be.

use jsonschema::{PatternOptions, Validator};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::chat::{self, Nodes, Request};

/// How many nodes a schema may have once its references are written out. A caller's schema is
/// evaluated while others wait: without a bound two kilobytes of references to references would take
/// hours.
const MAX_NODES: usize = 5_000;
/// How deep a schema may be, references included.
const MAX_DEPTH: usize = 100;
/// How many nodes a pattern counts for, and how large it may be once it is compiled, in bytes: a dozen bytes of one can
/// take megabytes, and they are held as long as the run.
const PATTERN_NODES: usize = 500;
const PATTERN_BYTES: usize = 512 << 10;
/// How large a schema may be, in bytes: what is read of it, and made of its patterns, takes many times as much.
const MAX_BYTES: usize = 256 << 10;

/// What an answer's text must be, from the request's `response_format`.
#[derive(Debug)]
pub enum Format {
    /// Anything.
    Text,
    /// A JSON object.
    Object,
    /// JSON valid against a schema.
    Schema(Box<Validator>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Box<str>,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Box<RawValue>>,
}

impl Format {
    /// What `request` asks for. A schema that is wrong is its provider's to refuse; one that refers to
    /// itself, or is larger than can be evaluated while others wait, is taken to ask for a JSON object.
    pub fn of(request: &Request) -> Self {
        let asked: Option<ResponseFormat> = request.read("response_format");
        match asked {
            Some(f) if &*f.kind == "json_object" => Self::Object,
            Some(f) if &*f.kind == "json_schema" => f
                .json_schema
                .and_then(|s| s.schema)
                .filter(|schema| schema.get().len() <= MAX_BYTES)
                .and_then(|schema| validator(&serde_json::from_str(schema.get()).ok()?))
                .map_or(Self::Object, |v| Self::Schema(Box::new(v))),
            _ => Self::Text,
        }
    }

    /// Whether `text` is that.
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Object => {
                text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok()
            }
            Self::Schema(validator) => {
                Nodes::up_to(chat::MAX_NODES).read(text).is_ok_and(|value| validator.is_valid(&value))
            }
        }
    }
}

fn validator(schema: &Value) -> Option<Validator> {
    let mut size = Size { root: schema, nodes: 0 };
    size.add(schema, 0)?;
    // The linear engine: a caller's pattern must not backtrack.
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
    jsonschema::options().with_pattern_options(patterns).build(schema).ok()
}

/// Counts the nodes of a schema with its references written out.
struct Size<'a> {
    root: &'a Value,
    nodes: usize,
}

impl Size<'_> {
    /// None when it is too much. What refers to itself is always too deep.
    fn add(&mut self, node: &Value, depth: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return None;
        }
        match node {
            Value::Object(members) => {
                for (key, value) in members {
                    match (key.as_str(), value) {
                        ("$ref", Value::String(target)) => {
                            let target = self.root.pointer(target.strip_prefix('#')?)?;
                            self.add(target, depth + 1)?;
                        }
                        (
                            "$dynamicRef" | "$recursiveRef" | "$id" | "$anchor" | "$dynamicAnchor",
                            Value::String(_),
                        ) => {
                            return None;
                        }
                        ("pattern", Value::String(_)) => self.nodes += PATTERN_NODES,
                        ("patternProperties", Value::Object(patterns)) => {
                            self.nodes += PATTERN_NODES * patterns.len();
                            self.add(value, depth + 1)?;
                        }
                        _ => self.add(value, depth + 1)?,
                    }
                }
                Some(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.add(item, depth + 1)),
            _ => Some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn format(schema: &Value) -> Format {
        let response_format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let body = json!({"messages": [{}], "response_format": response_format});
        Format::of(&Request::parse(Bytes::from(body.to_string())).unwrap())
    }

    #[test]
    fn references_are_followed() {
        let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"],
            "$defs": {"n": {"type": "integer"}}});
        let format = format(&schema);
        assert!(format.accepts(r#"{"a": 1}"#) && !format.accepts(r#"{"a": "x"}"#));
    }

    #[test]
    fn a_schema_of_the_bound_is_evaluated_and_one_past_it_asks_for_an_object() {
        let of = |bytes: usize| {
            let schema = |text: &str| json!({"type": "object", "description": text});
            format(&schema(&"x".repeat(bytes - schema("").to_string().len())))
        };
        assert!(matches!(of(MAX_BYTES), Format::Schema(_)));
        assert!(matches!(of(MAX_BYTES + 1), Format::Object));
    }

    #[test]
    fn patterns_are_as_many_and_as_large_as_the_bound_and_not_more() {
        let of = |count: usize, pattern: &str| {
            let patterns: Vec<Value> =
                (0..count).map(|n| json!({"pattern": format!("{pattern}{n}")})).collect();
            matches!(format(&json!({"anyOf": patterns})), Format::Schema(_))
        };
        let most = MAX_NODES / PATTERN_NODES;
        assert!(of(most - 1, "^a") && !of(most + 1, "^a"));
        let names: serde_json::Map<_, _> = (0..=most).map(|n| (format!("^{n}"), json!({}))).collect();
        assert!(matches!(format(&json!({ "patternProperties": names })), Format::Object));
        assert!(of(1, r"^\p{L}$") && !of(1, r"^\p{L}{1,20}$"));
    }

    #[test]
    fn an_answer_of_as_many_values_as_are_read_may_be_valid_and_one_past_that_is_not() {
        let format = format(&json!({"type": "array"}));
        let of = |values: usize| format!("[{}]", vec!["0"; values - 1].join(","));
        assert!(format.accepts(&of(chat::MAX_NODES)) && !format.accepts(&of(chat::MAX_NODES + 1)));
    }

    #[test]
    fn a_schema_that_would_take_hours_asks_for_an_object_only() {
        let doubled = |levels: usize| {
            let mut defs = serde_json::Map::new();
            for i in 0..levels {
                let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
                defs.insert(format!("d{i}"), json!({"allOf": [next, next]}));
            }
            defs.insert(format!("d{levels}"), json!({"type": "object"}));
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        let itself = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]});
        let tree = json!({"properties": {"next": {"$ref": "#"}}});
        let chain = {
            let link = |i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)}));
            let mut defs: serde_json::Map<_, _> = (0..50_000).map(link).collect();
            defs.insert("d50000".to_owned(), json!({}));
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        let began = Instant::now();
        for schema in [doubled(40), itself, tree, chain] {
            let format = format(&schema);
            assert!(matches!(format, Format::Object));
            assert!(format.accepts("{}") && !format.accepts("[]"));
        }
        assert!(matches!(format(&doubled(6)), Format::Schema(_)));
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[test]
    fn usual_patterns_are_not_too_large() {
        for (pattern, right, wrong) in [
            (r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$", "2026-11-22T16:00:00Z", "today"),
            (r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$", "a.b@c.example", "a at c"),
            (r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "00000000-0000-0000-0000-000000000000", "0"),
            (r"^[A-Za-z0-9_-]{1,64}$", "get_weather", "get weather"),
            (r"^.{1,255}$", "a", ""),
            (r"^\+?[1-9]\d{1,14}$", "+4930123456", "0"),
        ] {
            let format = format(&json!({"properties": {"a": {"pattern": pattern}}}));
            let accepts = |text: &str| format.accepts(&json!({"a": text}).to_string());
            assert!(accepts(right) && !accepts(wrong), "{pattern}");
        }
    }
}
