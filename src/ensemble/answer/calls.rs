//! Tool calls by value: whatever their ids, their order and the spelling of their arguments.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::json::Json;
use crate::chat::{First, MAX_CALLS, Request, UpTo, each, quoted};

/// The tool calls of one message, in an order of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Calls {
    names: Box<str>,
    canonical: Box<str>,
}

impl Calls {
    /// Whether they call the same tools, each as often.
    pub fn same_names(&self, other: &Self) -> bool {
        self.names == other.names
    }

    /// Whether they are the same calls with the same arguments.
    pub fn same(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

/// How large the tools of a request may be, in bytes, for their defaults to be read: they are while others wait.
const MAX_TOOLS: usize = 1 << 20;
/// How many values the defaults of a request's tools may have together: they are held as long as its run.
const MAX_DEFAULTS: usize = 1024;

/// The tools that a request offers.
#[derive(Clone, Debug)]
pub struct Tools {
    /// What the arguments of each are, where they are not given.
    defaults: HashMap<Box<str>, Defaults>,
    /// Whether one must be called.
    pub must_call: bool,
}

/// What the schema of an object says its absent properties are.
#[derive(Clone, Debug, Default)]
struct Defaults {
    properties: Vec<(Box<str>, Option<Json>, Self)>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    name: Box<str>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

enum Choice {
    Word(Box<str>),
    Object(Chosen),
}

#[derive(Deserialize)]
struct Chosen {
    allowed_tools: Option<AllowedTools>,
}

#[derive(Deserialize)]
struct AllowedTools {
    mode: Option<Box<str>>,
}

impl Choice {
    fn of(json: &str) -> Option<Self> {
        if json.starts_with('"') {
            serde_json::from_str(json).ok().map(Self::Word)
        } else {
            // Serde would take a list for an object's fields in order.
            let object = json.starts_with('{').then(|| serde_json::from_str(json));
            object?.ok().map(Self::Object)
        }
    }

    fn is(&self, expected: &str) -> bool {
        matches!(self, Self::Word(word) if **word == *expected)
    }

    /// Whether it names a tool, or says that some tool be called.
    fn must_call(&self) -> bool {
        match self {
            Self::Object(Chosen { allowed_tools: Some(allowed) }) => {
                allowed.mode.as_deref() == Some("required")
            }
            Self::Object(Chosen { allowed_tools: None }) => true,
            Self::Word(_) => self.is("required"),
        }
    }
}

impl Tools {
    /// The tools of `request`, or its legacy functions; none when it offers none or forbids their use.
    pub fn of(request: &Request) -> Option<Self> {
        let offered = |field, choice| {
            let offered = request.raw(field)?;
            let First::<IgnoredAny>(first) = serde_json::from_str(offered).ok()?;
            let choice = request.raw(choice).and_then(Choice::of);
            let is_forbidden = choice.as_ref().is_some_and(|choice| choice.is("none"));
            (first.is_some() && !is_forbidden).then_some((offered, choice.is_some_and(|c| c.must_call())))
        };
        let (tools, functions) = (offered("tools", "tool_choice"), offered("functions", "function_call"));
        if tools.is_none() && functions.is_none() {
            return None;
        }
        let must_call = [&tools, &functions].into_iter().flatten().any(|(_, must_call)| *must_call);
        let mut offered = Self { defaults: HashMap::new(), must_call };
        let sizes = [&tools, &functions].into_iter().flatten().map(|(offered, _)| offered.len());
        if sizes.sum::<usize>() > MAX_TOOLS {
            return Some(offered);
        }
        let mut left = MAX_DEFAULTS;
        let mut add = |function: Option<Function<'_>>| offered.add(function, &mut left);
        // They have been read as lists before.
        if let Some((functions, _)) = functions {
            let _ = each(functions, |raw: &RawValue| add(serde_json::from_str(raw.get()).ok()));
        }
        if let Some((tools, _)) = tools {
            let _ = each(tools, |raw: &RawValue| {
                let tool = serde_json::from_str::<Tool<'_>>(raw.get()).ok();
                add(tool.and_then(|tool| tool.function));
            });
        }
        Some(offered)
    }

    /// Remembers what the arguments of a tool are by default, if there is room for it.
    fn add(&mut self, function: Option<Function<'_>>, left: &mut usize) {
        let read = |f: Function<'_>| Some((f.name, Defaults::of(&Json::parse(f.parameters?.get())?)));
        let Some((name, defaults)) = function.and_then(read) else {
            return;
        };
        let size = defaults.size();
        // Of a name that comes twice the last one counts.
        *left += self.defaults.remove(&name).map_or(0, |before| before.size());
        if let Some(rest) = left.checked_sub(size).filter(|_| size > 0) {
            *left = rest;
            self.defaults.insert(name, defaults);
        }
    }
}

impl Defaults {
    fn of(schema: &Json) -> Self {
        let Some(Json::Object(properties)) = schema.member("properties") else {
            return Self::default();
        };
        let properties = properties.iter().filter_map(|(name, schema)| {
            let (default, inner) = (schema.member("default"), Self::of(schema));
            let says = default.is_some() || !inner.properties.is_empty();
            says.then(|| (name.clone(), default.cloned(), inner))
        });
        Self { properties: properties.collect() }
    }

    /// How many values it holds: the properties, and what is in their defaults.
    fn size(&self) -> usize {
        let sizes = self.properties.iter();
        sizes.map(|(_, default, inner)| 1 + default.as_ref().map_or(0, Json::size) + inner.size()).sum()
    }

    fn fill(&self, arguments: &mut Json) {
        let Json::Object(members) = arguments else {
            return;
        };
        for (name, default, inner) in &self.properties {
            if let Some(default) = default
                && !members.contains_key(name)
            {
                members.insert(name.clone(), default.clone());
            }
            if let Some(member) = members.get_mut(name) {
                inner.fill(member);
            }
        }
    }
}

/// An element of `tool_calls`.
#[derive(Default, Deserialize)]
struct ToolCall {
    function: Option<Call>,
    custom: Option<Call>,
}

/// A call as its model wrote it.
#[derive(Default, Deserialize)]
struct Call {
    #[serde(default)]
    name: Box<str>,
    /// JSON in a string, or, from some servers, JSON.
    arguments: Option<Box<RawValue>>,
    /// Of a custom tool: any text.
    input: Option<Box<str>>,
}

impl Tools {
    /// What is compared of a message's `tool_calls`, or of its legacy `function_call`.
    pub fn calls(&self, raw: &RawValue) -> Calls {
        let calls: Vec<Call> = match serde_json::from_str::<UpTo<ToolCall, MAX_CALLS>>(raw.get()) {
            Ok(UpTo(calls)) => calls.into_iter().filter_map(|call| call.function.or(call.custom)).collect(),
            Err(_) => serde_json::from_str(raw.get()).into_iter().collect(),
        };
        let mut names: Vec<String> = calls.iter().map(|call| quoted(&call.name)).collect();
        let mut canonical: Vec<String> = calls.iter().map(|call| self.canonical(call)).collect();
        if canonical.is_empty() {
            // Nothing that we know as a call: equal to itself at most.
            canonical.push(raw.get().to_owned());
        }
        names.sort_unstable();
        canonical.sort_unstable();
        Calls { names: names.join(",").into(), canonical: canonical.join(",").into() }
    }

    /// The name and, behind it, `(` before canonical JSON or `<` before a text that is compared byte for byte.
    fn canonical(&self, call: &Call) -> String {
        let name = quoted(&call.name);
        if let Some(input) = &call.input {
            return format!("{name}<{}", quoted(input));
        }
        let raw = call.arguments.as_ref().map_or("", |raw| raw.get());
        let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
        // A call without arguments has empty ones, and some models write none.
        let json = if text.trim().is_empty() || text == "null" { "{}" } else { &*text };
        match Json::parse(json) {
            Some(mut arguments) => {
                if let Some(defaults) = self.defaults.get(&call.name) {
                    defaults.fill(&mut arguments);
                }
                format!("{name}({arguments}")
            }
            None => format!("{name}<{}", quoted(&text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn tools(fields: Value) -> Option<Tools> {
        let mut body = json!({"messages": [{}]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Tools::of(&Request::parse(Bytes::from(body.to_string())).unwrap())
    }

    fn weather() -> Tools {
        tools(json!({"tools": [{"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "default": "C"},
                "days": {"type": "integer", "default": 1.0},
                "map": {"type": "object", "properties": {"zoom": {"default": 3}, "pin": {}}},
                "style": {"default": {}, "properties": {"dark": {"default": false}}},
            },
        }}}]}))
        .unwrap()
    }

    fn call(name: &str, arguments: &str) -> Value {
        let function = json!({"name": name, "arguments": arguments});
        json!({"id": format!("{name}{}", arguments.len()), "type": "function", "function": function})
    }

    fn read(calls: &Value) -> Calls {
        weather().calls(&RawValue::from_string(calls.to_string()).unwrap())
    }

    #[test]
    fn calls_are_compared_as_parsed_json_with_defaults() {
        let paris = || json!([call("weather", r#"{"city":"Paris"}"#)]);
        for (a, b, same) in [
            (paris(), json!([call("weather", " { \"city\" : \"Par\\u0069s\" } ")]), true),
            (paris(), json!([call("weather", r#"{"unit":"C","city":"Paris","days":1e0}"#)]), true),
            (paris(), json!([call("weather", r#"{"city":"Paris","style":{"dark":false}}"#)]), true),
            (paris(), json!([call("weather", r#"{"city":"Paris","unit":"F"}"#)]), false),
            (paris(), json!([call("weather", r#"{"city":"Paris","unit":null}"#)]), false),
            (paris(), json!([call("weather", r#"{"city":"Paris","map":{}}"#)]), false),
            (paris(), json!([call("weather", r#"{"city":"paris"}"#)]), false),
            (paris(), json!([call("forecast", r#"{"city":"Paris"}"#)]), false),
            (paris(), json!([paris()[0], paris()[0]]), false),
            (paris(), json!([{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]), true),
            (paris(), json!({"name": "weather", "arguments": r#"{"city": "Paris"}"#}), true),
            (
                json!([call("weather", r#"{"map":{}}"#)]),
                json!([call("weather", r#"{"map":{"zoom":3}}"#)]),
                true,
            ),
            (
                json!([call("weather", r#"{"map":{"pin":1}}"#)]),
                json!([call("weather", r#"{"map":{"zoom":4,"pin":1}}"#)]),
                false,
            ),
            (json!([call("a", "1"), call("b", "2")]), json!([call("b", "2.0"), call("a", "1")]), true),
            (json!([call("a", "1"), call("b", "2")]), json!([call("a", "2"), call("b", "1")]), false),
            (json!([call("a", "")]), json!([call("a", "{}")]), true),
            (json!([call("a", "")]), json!([{"function": {"name": "a"}}]), true),
            (json!([call("a", "{x")]), json!([call("a", "{x")]), true),
            (json!([call("a", "{x")]), json!([call("a", "{x ")]), false),
            (json!([call("a", "{x")]), json!([call("a", "\"{x\"")]), false),
            (json!([call("a", "18446744073709551617")]), json!([call("a", "18446744073709551616")]), false),
            (
                json!([{"id": "1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]),
                json!([{"id": "2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]),
                true,
            ),
            (
                json!([{"id": "1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]),
                json!([{"id": "1", "type": "custom", "custom": {"name": "sh", "input": "ls "}}]),
                false,
            ),
            (json!([{"id": "1", "type": "new"}]), json!([{"id": "1", "type": "new"}]), true),
            (json!([{"id": "1", "type": "new"}]), json!([{"id": "2", "type": "new"}]), false),
        ] {
            assert_eq!(read(&a).same(&read(&b)), same, "{a} and {b}");
        }
    }

    #[test]
    fn names_are_compared_as_often_as_they_are_called() {
        let [a, b] = ["a", "b"].map(|name| call(name, "{}"));
        let other = call("a", "1");
        for (x, y, same) in [
            (json!([a, b]), json!([b, other]), true),
            (json!([a, a, b]), json!([a, b]), false),
            (json!([a, a, b]), json!([a, b, b]), false),
            (json!([a]), json!([b]), false),
        ] {
            assert_eq!(read(&x).same_names(&read(&y)), same, "{x} and {y}");
        }
    }

    #[test]
    fn defaults_are_filled_in_as_far_as_there_is_room_for_them() {
        let of = |values: usize| {
            // The property, its default, and what is in it.
            let default = vec![0; values - 2];
            let parameters = json!({"properties": {"a": {"default": default}, "b": {"type": "string"}}});
            let tool = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
            let tools = tools(json!({"tools": [tool]})).unwrap();
            let [given, absent] = [json!({"a": default}), json!({})].map(|arguments| {
                let calls = json!([call("f", &arguments.to_string())]).to_string();
                tools.calls(&RawValue::from_string(calls).unwrap())
            });
            given.same(&absent)
        };
        assert!(of(MAX_DEFAULTS) && !of(MAX_DEFAULTS + 1));
    }

    #[test]
    fn tools_are_what_the_request_offers_and_allows() {
        let tool = json!([{"type": "function", "function": {"name": "f"}}]);
        let function = json!([{"name": "f", "parameters": {"properties": {"x": {"default": 1}}}}]);
        let named = json!({"type": "function", "function": {"name": "f"}});
        let allowed =
            |mode: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": []}});
        for (fields, must_call) in [
            (json!({}), None),
            (json!({"tools": []}), None),
            (json!({"tools": null}), None),
            (json!({"tools": tool}), Some(false)),
            (json!({"tools": tool, "tool_choice": "auto"}), Some(false)),
            (json!({"tools": tool, "tool_choice": "none"}), None),
            (json!({"tools": tool, "tool_choice": "required"}), Some(true)),
            (json!({"tools": tool, "tool_choice": named}), Some(true)),
            (json!({"tools": tool, "tool_choice": allowed("auto")}), Some(false)),
            (json!({"tools": tool, "tool_choice": allowed("required")}), Some(true)),
            (json!({"functions": function}), Some(false)),
            (json!({"functions": function, "function_call": "none"}), None),
            (json!({"functions": function, "function_call": {"name": "f"}}), Some(true)),
            (json!({"tool_choice": "required"}), None),
        ] {
            assert_eq!(tools(fields.clone()).map(|tools| tools.must_call), must_call, "{fields}");
        }
        let legacy = tools(json!({"functions": function})).unwrap();
        let [a, b] = ["{}", r#"{\"x\":1}"#].map(|arguments| {
            let call = format!(r#"{{"name":"f","arguments":"{arguments}"}}"#);
            legacy.calls(&RawValue::from_string(call).unwrap())
        });
        assert!(a.same(&b));
    }
}
