//! The JSON Schema of the configuration file: what editors complete from, and what a load checks
//! the structure against.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

use super::schema::File;

/// Request fields that Consort itself decides, and so no `params` may set and no `request` may touch.
pub(super) const OURS: [(&str, &str); 5] = [
    ("model", "is what `model` beside `params` says"),
    ("messages", "is the caller's conversation"),
    ("stream", "is Consort's to decide"),
    ("stream_options", "is Consort's to decide"),
    ("n", "is always 1 in an ensemble"),
];

/// The JSON Schema of the configuration file, as `consort schema` prints it.
pub fn json_schema() -> Value {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(plain))
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value()
}

/// What a key that may not be written here carries: the description says why, to the reader of an
/// error as to an editor.
fn forbidden(why: &str) -> Value {
    json!({ "not": {}, "description": why })
}

/// A model has the keys of a direct model, or `ensemble`.
pub(super) fn direct_or_ensemble(schema: &mut Schema) {
    let why = "is a direct model's key; an ensemble has only `display_name` and `ensemble`";
    schema.insert("if".to_owned(), json!({ "required": ["ensemble"] }));
    schema.insert(
        "then".to_owned(),
        json!({ "properties": {
            "provider": forbidden(why),
            "model_name": forbidden(why),
            "timeout": forbidden(why),
            "retries": forbidden(why),
            "cooldown": forbidden(why),
            "rate_limit": forbidden("is a direct model's key here; an ensemble's stands in `ensemble`"),
            "background_check": forbidden(why),
            "response_format": forbidden(why),
            "request": forbidden(why),
            "max_tokens_default": forbidden(why),
            "cost": forbidden(why),
        }}),
    );
    schema.insert("else".to_owned(), json!({ "required": ["provider", "model_name"] }));
}

/// `params` may set any request field but those that Consort decides.
pub(super) fn without_ours(schema: &mut Schema) {
    let ours: Map<String, Value> = OURS
        .iter()
        .map(|(field, why)| ((*field).to_owned(), forbidden(&format!("may not be set: it {why}"))))
        .collect();
    schema.insert("properties".to_owned(), Value::Object(ours));
}

/// `off` is a boolean to tools that read YAML 1.1, as Kubernetes' are; what they hand on is `false`.
pub(super) fn false_is_off(schema: &mut Schema) {
    if let Some(Value::Array(words)) = schema.get_mut("oneOf") {
        words.push(json!({ "const": false, "description": "`off`, as YAML 1.1 reads it." }));
    }
}

/// A choice between words and a mapping is one choice, not a choice within a choice.
pub(super) fn one_choice(schema: &mut Schema) {
    let Some(Value::Array(branches)) = schema.remove("anyOf") else {
        return;
    };
    let mut choice = Vec::new();
    for mut branch in branches {
        match branch.get_mut("oneOf") {
            Some(Value::Array(words)) => choice.append(words),
            _ => choice.push(branch),
        }
    }
    schema.insert("oneOf".to_owned(), choice.into());
}

/// Leaves out what Rust's types say and a configuration file does not: an absent key is absent, not
/// null (a null in a file counts as absent), and a mapping's defaults stand at its keys.
fn plain(schema: &mut Schema) {
    let Some(node) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::String(description)) = node.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Array(branches)) = node.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type") != Some(&json!("null")));
        if let [Value::Object(only)] = branches.as_mut_slice() {
            let only = std::mem::take(only);
            node.remove("anyOf");
            for (keyword, value) in only {
                node.entry(keyword).or_insert(value);
            }
        }
    }
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_mut_slice() {
            let only = only.take();
            node.insert("type".to_owned(), only);
        }
    }
    if matches!(node.get("default"), Some(Value::Null | Value::Object(_))) {
        node.remove("default");
    }
    // The width of a Rust integer; `minimum` and `maximum` say what is meant.
    if matches!(node.get("type"), Some(Value::String(name)) if name == "integer" || name == "number") {
        node.remove("format");
    }
    let required = match node.get("required") {
        Some(Value::Array(names)) => names.clone(),
        _ => Vec::new(),
    };
    for name in required.iter().filter_map(Value::as_str) {
        if let Some(property) = node.get_mut("properties").and_then(|all| all.get_mut(name))
            && let Some(property) = property.as_object_mut()
        {
            property.remove("default");
        }
    }
}
