//! What a real provider refuses.

use std::collections::HashSet;
use std::fmt;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::reply::error_body;

/// A refusal: what the caller is told, and what the test is.
#[derive(Debug, PartialEq)]
pub(super) struct Violation {
    pub(super) status: StatusCode,
    pub(super) message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Violation {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    fn bad(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(super) fn body(&self) -> Value {
        error_body(&self.message, "invalid_request_error", self.param.as_deref(), self.code)
    }
}

/// Method, path, key and content type.
pub(super) fn head(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    key: Option<&str>,
) -> Result<(), Violation> {
    if path != "/v1/chat/completions" {
        return Err(Violation::new(StatusCode::NOT_FOUND, format!("Invalid URL ({method} {path})")));
    }
    if method != Method::POST {
        let message = format!("Not allowed to {method} on {path}");
        return Err(Violation::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    if let Some(key) = key {
        let expected = format!("Bearer {key}");
        let mut given = headers.get_all(AUTHORIZATION).iter();
        if given.next().is_none_or(|value| value != expected.as_str()) || given.next().is_some() {
            return Err(Violation {
                code: Some("invalid_api_key"),
                ..Violation::new(StatusCode::UNAUTHORIZED, "Incorrect API key provided")
            });
        }
    }
    content_type(headers)
}

/// JSON, as it says itself.
pub(super) fn content_type(headers: &HeaderMap) -> Result<(), Violation> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        let message = format!("content-type is {content_type:?}, not application/json");
        return Err(Violation::new(StatusCode::BAD_REQUEST, message));
    }
    Ok(())
}

/// JSON in which no object has a name twice: which of the two counts, readers disagree on.
pub(super) fn json(body: &[u8]) -> Result<Value, Violation> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string());
    let parsed = text.and_then(|text| {
        serde_json::from_str::<Unambiguous>(text).map_err(|error| error.to_string())?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    });
    parsed.map_err(|error| {
        let message = format!("We could not parse the JSON body of your request: {error}");
        Violation::new(StatusCode::BAD_REQUEST, message)
    })
}

/// The fields that a real provider checks; unknown ones pass.
pub(super) fn fields(body: &Value, known: impl Fn(&str) -> bool) -> Result<(), Violation> {
    let Value::Object(body) = body else {
        return Err(Violation::new(StatusCode::BAD_REQUEST, "the body is not a JSON object"));
    };
    // As most providers, null is taken for absent.
    let given = |name: &str| body.get(name).filter(|value| !value.is_null());
    let Some(Value::String(model)) = given("model") else {
        return Err(Violation::bad("model", "you must provide a model parameter"));
    };
    self::known(model, known)?;
    messages(given("messages"))?;
    let stream = match given("stream") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(Violation::bad("stream", "'stream' is not a boolean")),
    };
    if let Some(options) = given("stream_options") {
        stream_options(options, stream)?;
    }
    if given("n").is_some_and(|n| n != 1) {
        return Err(Violation::bad("n", "'n' is not 1"));
    }
    if given("max_tokens").is_some() && given("max_completion_tokens").is_some() {
        let message = "'max_tokens' and 'max_completion_tokens' exclude one another";
        return Err(Violation::bad("max_tokens", message));
    }
    match given("temperature").map(Value::as_f64) {
        None => {}
        Some(Some(value)) if (0.0..=2.0).contains(&value) => {}
        Some(_) => {
            return Err(Violation::bad("temperature", "'temperature' is not within 0 and 2"));
        }
    }
    Ok(())
}

/// A model that is there.
pub(super) fn known(model: &str, is_known: impl Fn(&str) -> bool) -> Result<(), Violation> {
    if is_known(model) {
        return Ok(());
    }
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    let violation = Violation::new(StatusCode::NOT_FOUND, message);
    Err(Violation { code: Some("model_not_found"), ..violation })
}

fn messages(messages: Option<&Value>) -> Result<(), Violation> {
    let messages = match messages {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        _ => {
            return Err(Violation::bad("messages", "'messages' is not an array with elements"));
        }
    };
    for (index, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str);
        let known = ["system", "developer", "user", "assistant", "tool", "function"];
        if !role.is_some_and(|role| known.contains(&role)) {
            let param = format!("messages[{index}].role");
            return Err(Violation::bad(&param, format!("{role:?} is no role, at {param}")));
        }
    }
    Ok(())
}

fn stream_options(options: &Value, stream: bool) -> Result<(), Violation> {
    let param = "stream_options";
    if !stream {
        let message = "'stream_options' is only allowed when 'stream' is enabled";
        return Err(Violation::bad(param, message));
    }
    let Value::Object(options) = options else {
        return Err(Violation::bad(param, "'stream_options' is not an object"));
    };
    let known = ["include_usage", "include_obfuscation"];
    match options.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Violation::bad(param, format!("Unknown parameter: 'stream_options.{name}'"))),
        None => Ok(()),
    }
}

/// Any JSON value, read only to see that its names are unique.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Self>()?;
            if let Some(twice) = names.replace(name) {
                return Err(serde::de::Error::custom(format!("duplicate key {twice:?}")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(body: &str) -> String {
        let checked = json(body.as_bytes()).and_then(|body| fields(&body, |model| model == "m"));
        checked.map_or_else(|violation| violation.message, |()| "ok".to_owned())
    }

    fn with(more: Value) -> String {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let members = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(members);
        verdict(&body.to_string())
    }

    #[test]
    fn what_a_real_provider_takes_is_taken() {
        assert_eq!(with(json!({})), "ok");
        assert_eq!(with(json!({"vendor_field": {"a": [1, {"b": null}]}, "n": 1})), "ok");
        assert_eq!(with(json!({"stream": true, "stream_options": {"include_usage": true}})), "ok");
        assert_eq!(with(json!({"stream": false, "stream_options": null})), "ok");
        assert_eq!(with(json!({"temperature": 2, "max_tokens": 1})), "ok");
        assert_eq!(with(json!({"messages": [{"role": "developer", "content": "x"}]})), "ok");
    }

    #[test]
    fn what_a_real_provider_refuses_is_refused() {
        let refused = [
            (json!({"model": "other"}), "does not exist"),
            (json!({"model": 1}), "model parameter"),
            (json!({"messages": []}), "'messages'"),
            (json!({"messages": "hi"}), "'messages'"),
            (json!({"messages": ["hi"]}), "no role"),
            (json!({"messages": [{"role": "wizard"}]}), "no role"),
            (json!({"stream_options": {"include_usage": true}}), "only allowed"),
            (json!({"stream": false, "stream_options": {}}), "only allowed"),
            (json!({"stream": true, "stream_options": {"usage": true}}), "Unknown parameter"),
            (json!({"stream": "yes"}), "boolean"),
            (json!({"n": 2}), "'n'"),
            (json!({"max_tokens": 1, "max_completion_tokens": 1}), "exclude"),
            (json!({"temperature": 2.1}), "'temperature'"),
            (json!({"temperature": "0.5"}), "'temperature'"),
        ];
        for (more, told) in refused {
            let verdict = with(more.clone());
            assert!(verdict.contains(told), "{more}: {verdict}");
        }
        assert!(verdict("[]").contains("not a JSON object"));
        assert!(verdict("{\"model\": \"m\",}").contains("could not parse"));
        assert!(verdict("").contains("could not parse"));
    }

    #[test]
    fn a_name_twice_is_refused_at_any_depth() {
        assert!(verdict(r#"{"model":"m","model":"n"}"#).contains("duplicate key \"model\""));
        assert!(verdict(r#"{"model":"m","x":[{"a":1,"\u0061":2}]}"#).contains("duplicate key \"a\""));
    }
}
