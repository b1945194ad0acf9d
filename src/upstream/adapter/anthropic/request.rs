//! A request in Anthropic's words.

use serde_json::{Map, Value, json};

use super::super::super::{Failure, Unsupported};
use super::super::asked::{Asked, Choice, Effort, Form, Image, Part, Tool, Turn};
use super::super::told::object;

/// Fields of Anthropic's own that go through as they are, for an operator's `set` and `params`.
const OWN: [&str; 4] = ["cache_control", "thinking", "top_k", "output_config"];
/// The least that may be thought, in tokens.
const LEAST_THOUGHT: u64 = 1024;
/// How a model without a JSON mode is told to answer in JSON.
const JSON_ONLY: &str = "Answer with one JSON object and nothing else: no words around it, no code fence.";

/// Puts a request in Anthropic's words; `max_tokens_default` bounds an answer that is not bounded.
pub(super) fn translate(
    mut asked: Asked,
    max_tokens_default: u64,
    unsupported: Unsupported,
) -> Result<Value, Failure> {
    let mut request = Map::new();
    let mut put = |name: &str, value: Value| request.insert(name.to_owned(), value);
    put("model", std::mem::take(&mut asked.model).into());
    let last_calls = asked.turns.iter().rev().find_map(|turn| match turn {
        Turn::Assistant { calls, .. } => Some(!calls.is_empty()),
        _ => None,
    });
    let (mut system, messages) = conversation(std::mem::take(&mut asked.turns))?;
    if asked.form == Form::Json {
        system.push(text(JSON_ONLY));
    }
    if !system.is_empty() {
        put("system", system.into());
    }
    put("messages", messages.into());
    let own: Vec<(&str, Value)> =
        OWN.into_iter().filter_map(|name| Some((name, asked.take(name)?))).collect();
    for (name, value) in &own {
        put(name, value.clone());
    }
    let owns = |name: &str| own.iter().any(|(known, _)| *known == name);

    let temperature = temperature(&mut asked, unsupported)?;
    let top_p = asked.number("top_p")?;
    for (name, value) in [("temperature", temperature), ("top_p", top_p)] {
        if let Some(value) = value {
            put(name, number(value));
        }
    }
    // What Anthropic does not allow beside thinking is said outright; how much to think is a wish. Calls have
    // to be shown with the thoughts that led to them, and chat completions do not carry those.
    let may_think = !owns("thinking")
        && !owns("top_k")
        && last_calls != Some(true)
        && temperature.is_none_or(|temperature| temperature == 1.0)
        && top_p.is_none_or(|top_p| top_p >= 0.95)
        && !matches!(asked.choice, Some(Choice::Required | Choice::Named(_)));
    let budget = asked.effort.and_then(budget).filter(|_| may_think);
    let (max_tokens, budget) = match (asked.max_tokens, budget) {
        (Some(max_tokens), Some(budget)) => (max_tokens, fitting(budget, max_tokens)),
        (Some(max_tokens), None) => (max_tokens, None),
        (None, budget) => (max_tokens_default.saturating_add(budget.unwrap_or_default()), budget),
    };
    put("max_tokens", max_tokens.into());
    if let Some(budget) = budget {
        put("thinking", json!({"type": "enabled", "budget_tokens": budget}));
    }

    if !asked.stop.is_empty() {
        put("stop_sequences", std::mem::take(&mut asked.stop).into());
    }
    if !asked.tools.is_empty() {
        put("tools", std::mem::take(&mut asked.tools).into_iter().map(tool).collect());
        if let Some(choice) = choice(asked.choice.as_ref(), asked.parallel) {
            put("tool_choice", choice);
        }
    }
    if let Form::Schema(schema) = std::mem::take(&mut asked.form) {
        let config = request.entry("output_config").or_insert_with(|| json!({}));
        if let Some(config) = config.as_object_mut() {
            config.insert("format".to_owned(), object([("type", "json_schema".into()), ("schema", schema)]));
        }
    }
    let user = asked.text("safety_identifier")?.or(asked.text("user")?);
    if let Some(user) = user {
        request.insert("metadata".to_owned(), json!({ "user_id": user }));
    }
    if asked.stream {
        request.insert("stream".to_owned(), true.into());
    }
    asked.settle(unsupported)?;
    Ok(Value::Object(request))
}

/// Anthropic's temperatures end at 1, OpenAI's at 2.
fn temperature(asked: &mut Asked, unsupported: Unsupported) -> Result<Option<f64>, Failure> {
    let temperature = asked.number("temperature")?;
    if temperature.is_some_and(|temperature| temperature > 1.0) {
        asked.misfit("temperature");
        asked.settle(unsupported)?;
    }
    Ok(temperature.map(|temperature| temperature.min(1.0)))
}

/// A number as it was written, as far as that matters: 1 stays 1.
fn number(value: f64) -> Value {
    let is_small = value.fract() == 0.0 && value.abs() < 1000.0;
    if is_small {
        format!("{value:.0}").parse::<i64>().map_or(value.into(), Value::from)
    } else {
        value.into()
    }
}

/// How many tokens are thought for an effort; none for no thinking.
fn budget(effort: Effort) -> Option<u64> {
    match effort {
        Effort::None | Effort::Minimal => None,
        Effort::Low => Some(LEAST_THOUGHT),
        Effort::Medium => Some(4096),
        Effort::High => Some(16_384),
        Effort::Most => Some(32_768),
    }
}

/// As much of a budget as leaves half of the bound to the answer; none where that is too little to think.
fn fitting(budget: u64, max_tokens: u64) -> Option<u64> {
    let budget = budget.min(max_tokens / 2);
    (budget >= LEAST_THOUGHT).then_some(budget)
}

/// The system's blocks, and the messages: the turns of one side are one message.
fn conversation(turns: Vec<Turn>) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let mut system = Vec::new();
    let mut sides: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let (side, blocks) = match turn {
            Turn::System(parts) => {
                system.extend(parts.into_iter().map(block));
                continue;
            }
            Turn::User(parts) => ("user", parts.into_iter().map(block).collect()),
            Turn::Assistant { parts, calls } => {
                let mut blocks: Vec<Value> = parts.into_iter().map(block).collect();
                for call in calls {
                    let input: Value =
                        serde_json::from_str(&call.arguments).map_err(|e| Failure::Unreadable(e.into()))?;
                    blocks.push(object([
                        ("type", "tool_use".into()),
                        ("id", id(&call.id).into()),
                        ("name", call.name.into()),
                        ("input", input),
                    ]));
                }
                ("assistant", blocks)
            }
            Turn::Tool { id: call, parts, .. } => {
                let content: Vec<Value> = parts.into_iter().map(block).collect();
                let mut result = json!({"type": "tool_result", "tool_use_id": id(&call)});
                if let (Some(result), false) = (result.as_object_mut(), content.is_empty()) {
                    result.insert("content".to_owned(), content.into());
                }
                ("user", vec![result])
            }
        };
        if blocks.is_empty() {
            continue;
        }
        match sides.last_mut() {
            Some((last, content)) if *last == side => content.extend(blocks),
            _ => sides.push((side, blocks)),
        }
    }
    // There has to be a message; a system's words alone are a question, too.
    if sides.is_empty() {
        sides.push(("user", std::mem::take(&mut system)));
    }
    let message =
        |(role, content): (&str, Vec<Value>)| object([("role", role.into()), ("content", content.into())]);
    Ok((system, sides.into_iter().map(message).collect()))
}

fn block(part: Part) -> Value {
    match part {
        Part::Text(words) => text(words),
        Part::Image(Image::Url(url)) => json!({"type": "image", "source": {"type": "url", "url": url}}),
        Part::Image(Image::Inline { media_type, data }) => {
            let source =
                [("type", "base64".into()), ("media_type", media_type.into()), ("data", data.into())];
            object([("type", "image".into()), ("source", object(source))])
        }
    }
}

fn text(words: impl Into<Value>) -> Value {
    object([("type", "text".into()), ("text", words.into())])
}

/// A call's id in the letters that Anthropic allows.
fn id(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect()
}

fn tool(tool: Tool) -> Value {
    let mut written = object([("name", tool.name.into())]);
    if let Some(fields) = written.as_object_mut() {
        if let Some(description) = tool.description {
            fields.insert("description".to_owned(), description.into());
        }
        let none = || json!({"type": "object", "properties": {}});
        fields.insert("input_schema".to_owned(), tool.parameters.unwrap_or_else(none));
        if tool.strict {
            fields.insert("strict".to_owned(), true.into());
        }
    }
    written
}

fn choice(choice: Option<&Choice>, parallel: Option<bool>) -> Option<Value> {
    let mut written = match choice {
        Some(Choice::None) => return Some(json!({"type": "none"})),
        Some(Choice::Required) => json!({"type": "any"}),
        Some(Choice::Named(name)) => json!({"type": "tool", "name": name}),
        Some(Choice::Auto) => json!({"type": "auto"}),
        None if parallel == Some(false) => json!({"type": "auto"}),
        None => return None,
    };
    if let (Some(fields), Some(false)) = (written.as_object_mut(), parallel) {
        fields.insert("disable_parallel_tool_use".to_owned(), true.into());
    }
    Some(written)
}
