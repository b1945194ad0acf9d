//! The same scripts in Gemini's words: `generateContent` and `streamGenerateContent`, as strict as the real ones.

use std::collections::HashSet;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::reply::Completion;
use super::strict::{self, Violation};
use super::usage::Usage;

const MODELS: &str = "/v1beta/models/";

/// What a path of this API asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Route<'a> {
    pub(super) model: &'a str,
    pub(super) stream: bool,
}

/// What a path asks for; nothing when it is none of this API.
pub(super) fn route(path: &str) -> Option<Route<'_>> {
    let (model, method) = path.strip_prefix(MODELS)?.rsplit_once(':')?;
    match method {
        "generateContent" => Some(Route { model, stream: false }),
        // Without `alt=sse` the real one streams the elements of a JSON array.
        "streamGenerateContent?alt=sse" => Some(Route { model, stream: true }),
        _ => None,
    }
}

/// A refusal in Google's envelope.
pub(super) fn error_body(status: StatusCode, message: &str) -> Value {
    let word = match status.as_u16() {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status.as_u16(), "message": message, "status": word}})
}

/// Method, key and content type.
pub(super) fn head(method: &Method, headers: &HeaderMap, key: Option<&str>) -> Result<(), Violation> {
    if method != Method::POST {
        return Err(Violation::new(StatusCode::NOT_FOUND, format!("no method {method} here")));
    }
    let given = headers.get("x-goog-api-key").and_then(|value| value.to_str().ok());
    if key.is_some() && given != key {
        return Err(Violation::new(
            StatusCode::BAD_REQUEST,
            "API key not valid. Please pass a valid API key.",
        ));
    }
    if headers.contains_key(AUTHORIZATION) {
        return Err(Violation::new(StatusCode::UNAUTHORIZED, "a key goes into x-goog-api-key alone"));
    }
    strict::content_type(headers)
}

/// What the API's messages may hold. As protobuf's JSON has it, an unknown name is an error.
const KNOWN: [(&str, &[&str]); 9] = [
    ("", &["contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings"]),
    ("content", &["role", "parts"]),
    (
        "part",
        &[
            "text",
            "thought",
            "thoughtSignature",
            "inlineData",
            "fileData",
            "functionCall",
            "functionResponse",
        ],
    ),
    ("inlineData", &["mimeType", "data"]),
    ("fileData", &["mimeType", "fileUri"]),
    ("functionCall", &["id", "name", "args"]),
    ("functionResponse", &["id", "name", "response"]),
    ("declaration", &["name", "description", "parameters", "parametersJsonSchema"]),
    (
        "generationConfig",
        &[
            "temperature",
            "topP",
            "topK",
            "maxOutputTokens",
            "stopSequences",
            "candidateCount",
            "seed",
            "presencePenalty",
            "frequencyPenalty",
            "responseLogprobs",
            "logprobs",
            "responseMimeType",
            "responseSchema",
            "responseJsonSchema",
            "thinkingConfig",
        ],
    ),
];

/// The body for a model.
pub(super) fn fields(model: &str, body: &Value) -> Result<(), Violation> {
    let body = object("", body)?;
    let contents = array(body.get("contents"), "contents")?;
    if contents.is_empty() {
        return bad("contents is not specified");
    }
    if let Some(system) = body.get("systemInstruction") {
        for part in parts(system)? {
            if part.keys().any(|name| name != "text") {
                return bad("a system instruction is text");
            }
        }
    }
    turns(model, contents)?;
    let declared = declarations(body.get("tools"))?;
    if let Some(config) = body.get("toolConfig") {
        tool_config(config, &declared)?;
    }
    body.get("generationConfig").map_or(Ok(()), generation_config)
}

fn bad<T>(message: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::new(StatusCode::BAD_REQUEST, message))
}

/// An object of this kind, without unknown names.
fn object<'a>(kind: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Violation> {
    let Value::Object(object) = value else {
        return bad(format!("{value} is no object ({kind})"));
    };
    let known = KNOWN.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, known)| *known);
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => bad(format!("Unknown name {name:?} at '{kind}': Cannot find field.")),
        None => Ok(object),
    }
}

fn array<'a>(value: Option<&'a Value>, name: &str) -> Result<&'a [Value], Violation> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => bad(format!("{name} is {other}")),
    }
}

fn parts(content: &Value) -> Result<Vec<&Map<String, Value>>, Violation> {
    let parts = array(object("content", content)?.get("parts"), "parts")?;
    if parts.is_empty() {
        return bad("a content must have parts");
    }
    parts.iter().map(part).collect()
}

/// A part that is exactly one thing.
fn part(value: &Value) -> Result<&Map<String, Value>, Violation> {
    let part = object("part", value)?;
    let kinds: Vec<&String> = part.keys().filter(|name| !name.starts_with("thought")).collect();
    let [kind] = kinds[..] else {
        return bad(format!("{value} is not one thing"));
    };
    let inner = &part[kind];
    let text = |name: &str| inner.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let is_right = match &**kind {
        "text" => inner.is_string(),
        "inlineData" => object(kind, inner).is_ok() && text("mimeType") && text("data"),
        "fileData" => object(kind, inner).is_ok() && text("fileUri"),
        "functionCall" => object(kind, inner).is_ok() && text("name") && is_object(inner.get("args")),
        _ => object(kind, inner).is_ok() && text("name") && inner["response"].is_object(),
    };
    if is_right { Ok(part) } else { bad(format!("{value} is no part")) }
}

fn is_object(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_object)
}

/// Turns alternate, and each call is answered in the turn that follows.
fn turns(model: &str, contents: &[Value]) -> Result<(), Violation> {
    let mut before: Option<&str> = None;
    let mut due: Vec<&Value> = Vec::new();
    for content in contents {
        let role = content.get("role").and_then(Value::as_str).unwrap_or_default();
        if !["user", "model"].contains(&role) {
            return bad(format!("Please use a valid role: user, model (not {role:?})"));
        }
        if before == Some(role) {
            return bad(format!("two contents of role {role} in a row"));
        }
        let parts = parts(content)?;
        let of = |kind: &str| -> Vec<&Value> { parts.iter().filter_map(|part| part.get(kind)).collect() };
        let (calls, responses) = (of("functionCall"), of("functionResponse"));
        let names = |of: &[&Value]| {
            let mut names: Vec<String> =
                of.iter().map(|one| format!("{} {}", one["name"], one["id"])).collect();
            names.sort();
            names
        };
        if names(&due) != names(&responses) {
            return bad("the function responses are not those of the function call turn before");
        }
        if !calls.is_empty() && (role != "model" || before.is_none()) {
            return bad("a function call turn comes after a user turn");
        }
        let first = parts.iter().find(|part| part.contains_key("functionCall"));
        if model.starts_with("gemini-3") && first.is_some_and(|part| !part.contains_key("thoughtSignature")) {
            return bad("Function call is missing a thought_signature in functionCall parts.");
        }
        due = calls;
        before = Some(role);
    }
    if before != Some("user") {
        return bad("the last turn is not the user's");
    }
    Ok(())
}

fn declarations(tools: Option<&Value>) -> Result<HashSet<&str>, Violation> {
    let mut names = HashSet::new();
    for tool in array(tools, "tools")? {
        for declaration in array(tool.get("functionDeclarations"), "functionDeclarations")? {
            let declared = object("declaration", declaration)?;
            let name = declared.get("name").and_then(Value::as_str).unwrap_or_default();
            let is_known = |c: char| c.is_ascii_alphanumeric() || "_:.-".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(is_known) || !names.insert(name) {
                return bad(format!("Invalid function name: {name:?}"));
            }
            let schema = declared.get("parametersJsonSchema").or(declared.get("parameters"));
            if schema.is_some_and(|schema| schema["type"] != "object") {
                return bad("parameters are an object");
            }
        }
    }
    Ok(names)
}

fn tool_config(config: &Value, declared: &HashSet<&str>) -> Result<(), Violation> {
    let calling = &config["functionCallingConfig"];
    let mode = calling["mode"].as_str().unwrap_or_default();
    if !["AUTO", "ANY", "NONE", "VALIDATED"].contains(&mode) {
        return bad(format!("no mode {mode:?}"));
    }
    let allowed = array(calling.get("allowedFunctionNames"), "allowedFunctionNames")?;
    if !allowed.is_empty() && !["ANY", "VALIDATED"].contains(&mode) {
        return bad("allowedFunctionNames go with ANY alone");
    }
    if allowed.iter().any(|name| !name.as_str().is_some_and(|name| declared.contains(name))) {
        return bad("allowedFunctionNames are not declared");
    }
    Ok(())
}

fn generation_config(config: &Value) -> Result<(), Violation> {
    let given = object("generationConfig", config)?;
    let number = |name: &str, least: f64, most: f64| match given.get(name).map(Value::as_f64) {
        None => Ok(()),
        Some(Some(value)) if (least..=most).contains(&value) => Ok(()),
        Some(_) => bad(format!("{name} is {}", given[name])),
    };
    number("temperature", 0.0, 2.0)?;
    number("topP", 0.0, 1.0)?;
    number("maxOutputTokens", 1.0, 1e6)?;
    number("candidateCount", 1.0, 1.0)?;
    number("logprobs", 0.0, 20.0)?;
    if array(given.get("stopSequences"), "stopSequences")?.len() > 5 {
        return bad("more than 5 stopSequences");
    }
    let has_schema = given.contains_key("responseSchema") || given.contains_key("responseJsonSchema");
    if has_schema && given.get("responseMimeType") != Some(&json!("application/json")) {
        return bad("a schema goes with responseMimeType application/json");
    }
    if given.contains_key("logprobs") && given.get("responseLogprobs") != Some(&json!(true)) {
        return bad("logprobs go with responseLogprobs");
    }
    let thinking = &config["thinkingConfig"];
    if thinking.get("thinkingBudget").is_some() && thinking.get("thinkingLevel").is_some() {
        return bad("You can only set only one of thinking budget and thinking level.");
    }
    Ok(())
}

impl Completion {
    /// The whole answer, to a request.
    pub(super) fn whole_by_gemini(&self, request: &Value, id: usize) -> Value {
        let parts: Vec<Value> = self.parts(request).into_iter().flat_map(|(parts, _)| parts).collect();
        self.response(id, parts, true)
    }

    /// The objects of a stream, and whether each says something.
    pub(super) fn objects_by_gemini(&self, request: &Value, id: usize) -> Vec<(Value, bool)> {
        let mut objects: Vec<(Value, bool)> = Vec::new();
        for (parts, speaks) in self.parts(request) {
            objects.push((self.response(id, parts, false), speaks));
        }
        objects.push((self.response(id, vec![json!({"text": ""})], true), false));
        objects
    }

    /// The parts in the portions of a stream.
    fn parts(&self, request: &Value) -> Vec<(Vec<Value>, bool)> {
        let mut portions = Vec::new();
        let text = |name: &str| self.message.get(name).and_then(Value::as_str).unwrap_or_default();
        let filtered = self.finish == "content_filter";
        if request["generationConfig"]["thinkingConfig"]["includeThoughts"] == true && !filtered {
            for word in text("reasoning_content").split_inclusive(' ') {
                portions.push((vec![json!({"text": word, "thought": true})], true));
            }
        }
        for token in self.tokens().into_iter().filter(|token| !token.is_empty() && !filtered) {
            portions.push((vec![json!({"text": token})], true));
        }
        let calls = self.message.get("tool_calls").and_then(Value::as_array);
        let calls: Vec<Value> = calls.into_iter().flatten().map(function_call).collect();
        if !calls.is_empty() {
            portions.push((calls, true));
        }
        portions
    }

    fn response(&self, id: usize, parts: Vec<Value>, last: bool) -> Value {
        let mut candidate = json!({"index": 0});
        if !parts.is_empty() {
            candidate["content"] = json!({"role": "model", "parts": parts});
        }
        if last {
            candidate["finishReason"] = json!(match &*self.finish {
                "stop" | "tool_calls" => "STOP",
                "length" => "MAX_TOKENS",
                "content_filter" => "SAFETY",
                own => own,
            });
        }
        let mut response = json!({
            "candidates": [candidate],
            "modelVersion": "gemini-testkit",
            "responseId": format!("response-{id}"),
        });
        if let Some(usage) = self.usage {
            response["usageMetadata"] = metadata(usage, last);
        }
        response
    }
}

fn function_call(call: &Value) -> Value {
    let arguments = call["function"]["arguments"].as_str().unwrap_or("{}");
    let args: Value = serde_json::from_str(arguments).expect("a test's arguments are JSON");
    let mut part = json!({"functionCall": {"name": call["function"]["name"], "args": args}});
    if let Some(signature) = call.pointer("/extra_content/google/thought_signature") {
        part["thoughtSignature"] = signature.clone();
    }
    part
}

/// So far: the prompt is known from the beginning, the rest at the end.
fn metadata(usage: Usage, last: bool) -> Value {
    let thoughts = usage.reasoning.unwrap_or(0);
    let said = if last { usage.completion - thoughts } else { 0 };
    let mut metadata = json!({"promptTokenCount": usage.prompt, "totalTokenCount": usage.prompt + said});
    if let Some(cached) = usage.cached {
        metadata["cachedContentTokenCount"] = json!(cached);
    }
    if said > 0 {
        metadata["candidatesTokenCount"] = json!(said);
    }
    if last && usage.reasoning.is_some() {
        metadata["thoughtsTokenCount"] = json!(thoughts);
        metadata["totalTokenCount"] = json!(usage.total());
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(model: &str, more: Value) -> String {
        let mut body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
        let members = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(members);
        fields(model, &body).map_or_else(|violation| violation.message, |()| "ok".to_owned())
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let route_of = |path| route(path).map(|route| (route.model, route.stream));
        assert_eq!(route_of("/v1beta/models/gemini-x:generateContent"), Some(("gemini-x", false)));
        assert_eq!(
            route_of("/v1beta/models/gemini-x:streamGenerateContent?alt=sse"),
            Some(("gemini-x", true))
        );
        for path in ["/v1beta/models/x:streamGenerateContent", "/v1beta/models/x", "/v1/chat/completions"] {
            assert_eq!(route_of(path), None, "{path}");
        }
    }

    #[test]
    fn a_conversation_with_tools_is_taken() {
        let call = json!({"functionCall": {"id": "a", "name": "f", "args": {}}, "thoughtSignature": "s"});
        let response = json!({"functionResponse": {"id": "a", "name": "f", "response": {"result": 1}}});
        let contents = json!([
            {"role": "user", "parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}}]},
            {"role": "model", "parts": [{"text": "so"}, call]},
            {"role": "user", "parts": [response, {"text": "and?"}]},
        ]);
        let config = json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}});
        let tools =
            json!([{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}]);
        let more = json!({"contents": contents, "tools": tools, "toolConfig": config,
            "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": {}}});
        assert_eq!(verdict("gemini-3-x", more), "ok");
    }

    #[test]
    fn what_the_api_refuses_is_refused() {
        let turn = |role: &str, part: Value| json!({"role": role, "parts": [part]});
        let (hi, call) = (json!({"text": "hi"}), json!({"functionCall": {"name": "f", "args": {}}}));
        let response = json!({"functionResponse": {"name": "g", "response": {}}});
        let user = turn("user", hi.clone());
        let signed = json!({"functionCall": {"name": "f"}, "thoughtSignature": "s"});
        for (more, told) in [
            (json!({"model": "x"}), "Unknown name \"model\""),
            (json!({"contents": []}), "not specified"),
            (json!({"contents": [turn("assistant", hi.clone())]}), "valid role"),
            (json!({"contents": [user, user]}), "in a row"),
            (json!({"contents": [user, turn("model", hi.clone())]}), "last turn"),
            (json!({"contents": [turn("user", json!({"text": "a", "fileData": {}}))]}), "one thing"),
            (json!({"contents": [turn("user", json!({"inlineData": {"data": "x"}}))]}), "no part"),
            (json!({"contents": [user, turn("model", call.clone()), user]}), "thought_signature"),
            (json!({"contents": [user, turn("model", signed.clone()), user]}), "function responses"),
            (
                json!({"contents": [user, turn("model", signed), turn("user", response)]}),
                "function responses",
            ),
            (json!({"systemInstruction": {"parts": []}}), "must have parts"),
            (json!({"tools": [{"functionDeclarations": [{"name": "f g"}]}]}), "Invalid function name"),
            (json!({"tools": [{"functionDeclarations": [{"name": "f", "strict": true}]}]}), "Unknown name"),
            (json!({"toolConfig": {"functionCallingConfig": {"mode": "auto"}}}), "no mode"),
            (json!({"generationConfig": {"responseJsonSchema": {}}}), "responseMimeType"),
            (json!({"generationConfig": {"max_tokens": 1}}), "Unknown name"),
            (json!({"generationConfig": {"temperature": 2.5}}), "temperature"),
            (
                json!({"generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}}),
                "only one",
            ),
        ] {
            let verdict = verdict("gemini-3-x", more.clone());
            assert!(verdict.contains(told), "{more}: {verdict}");
        }
    }
}
