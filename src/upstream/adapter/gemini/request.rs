//! A request in Gemini's words.

use serde_json::{Map, Value, json};

use super::super::super::{Failure, Unsupported};
use super::super::asked::{Asked, Choice, Form, Tool, Wrong};
use super::super::told::object;
use super::contents::{Conversation, contents};
use super::thinking;

/// Fields of Gemini's own that go through as they are, for an operator's `set` and `params`.
const OWN: [&str; 2] = ["cachedContent", "safetySettings"];
/// Numbers and what they are called there.
const NUMBERS: [(&str, &str); 6] = [
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
    ("top_logprobs", "logprobs"),
];

/// Puts a request in Gemini's words. Its model goes into the path.
///
/// # Errors
/// When a field has a value that it cannot have, or cannot be carried and must not be dropped.
pub(super) fn translate(mut asked: Asked, unsupported: Unsupported) -> Result<Value, Failure> {
    let turns = std::mem::take(&mut asked.turns);
    let is_signed = thinking::takes_levels(&asked.model);
    let Conversation { system, contents, misfits } = contents(turns, is_signed, &mut asked.nodes)?;
    misfits.into_iter().for_each(|path| asked.misfit(path));
    let mut request = Map::new();
    let mut put = |name: &str, value: Value| request.insert(name.to_owned(), value);
    if !system.is_empty() {
        put("systemInstruction", object([("parts", system.into())]));
    }
    put("contents", contents.into());
    if !asked.tools.is_empty() {
        let tools = std::mem::take(&mut asked.tools).into_iter();
        let declarations: Vec<Value> = tools.map(declaration).collect();
        put("tools", Value::Array(vec![object([("functionDeclarations", declarations.into())])]));
        if let Some(choice) = &asked.choice {
            put("toolConfig", json!({ "functionCallingConfig": calling(choice) }));
        }
        if asked.parallel == Some(false) {
            asked.misfit("parallel_tool_calls");
        }
    }
    for name in OWN {
        if let Some(value) = asked.take(name) {
            put(name, value);
        }
    }
    let config = generation_config(&mut asked)?;
    if !config.is_empty() {
        put("generationConfig", config.into());
    }
    asked.settle(unsupported)?;
    Ok(Value::Object(request))
}

fn declaration(tool: Tool) -> Value {
    let mut declaration = Map::new();
    declaration.insert("name".to_owned(), tool.name.into());
    if let Some(description) = tool.description {
        declaration.insert("description".to_owned(), description.into());
    }
    if let Some(parameters) = tool.parameters {
        declaration.insert("parametersJsonSchema".to_owned(), parameters);
    }
    declaration.into()
}

fn calling(choice: &Choice) -> Value {
    match choice {
        Choice::Auto => json!({"mode": "AUTO"}),
        Choice::None => json!({"mode": "NONE"}),
        Choice::Required => json!({"mode": "ANY"}),
        Choice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    }
}

fn generation_config(asked: &mut Asked) -> Result<Map<String, Value>, Wrong> {
    let mut config = Map::new();
    let mut put = |name: &str, value: Value| config.insert(name.to_owned(), value);
    if asked.take("logprobs").is_some_and(|wanted| wanted == true) {
        put("responseLogprobs", true.into());
    } else {
        // It says nothing alone.
        asked.take("top_logprobs");
    }
    for (name, theirs) in NUMBERS {
        match asked.take(name) {
            Some(value) if value.is_number() => put(theirs, value),
            Some(_) => return Err(Wrong::new(name, "must be a number")),
            None => None,
        };
    }
    // Theirs is of 32 bits. One that does not fit is left out: it is a wish, here as there.
    let seed = asked.take("seed").and_then(|seed| i32::try_from(seed.as_i64()?).ok());
    if let Some(seed) = seed {
        put("seed", seed.into());
    }
    if let Some(max_tokens) = asked.max_tokens {
        put("maxOutputTokens", max_tokens.into());
    }
    if !asked.stop.is_empty() {
        put("stopSequences", std::mem::take(&mut asked.stop).into());
    }
    if asked.form != Form::Text {
        put("responseMimeType", "application/json".into());
    }
    if let Form::Schema(schema) = std::mem::take(&mut asked.form) {
        put("responseJsonSchema", schema);
    }
    if let Some(effort) = asked.effort {
        put("thinkingConfig", thinking::config(&asked.model, effort));
    }
    if let Some(Value::Object(own)) = asked.take("generationConfig") {
        config.extend(own);
    }
    Ok(config)
}
