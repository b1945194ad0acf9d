//! The reference of the configuration file, in Markdown: the JSON Schema, for people.

use serde_json::{Map, Value};

use super::json_schema;

/// What holds for all keys.
const ABOUT: &str = "\
# Configuration

Every key of Consort's file. This page is printed by `consort schema --markdown`; the same as a JSON Schema, for editors,
is [`deploy/consort.schema.json`](../deploy/consort.schema.json) (`consort schema`). A commented file to begin with is
[`deploy/consort.example.yaml`](../deploy/consort.example.yaml).

- The file is YAML, TOML or JSON, told by its name: `.yaml`, `.yml`, `.toml`, `.json`.
- `${VAR}` in a text value is the environment's `VAR`, which must be there; `${VAR:-default}` has a default.
- `CONSORT__SECTION__KEY` in the environment overrides a key outside lists: `CONSORT__LIMITS__MAX_INFLIGHT=100`.
- Unknown keys are problems, and so is every value out of bounds. `consort check -c FILE` names all of them at once, each
  with its path and what would be right, and exits with 64.
- Durations are in milliseconds where a key ends in `_ms` (and in `timeout`), sizes in bytes where it ends in `_bytes`.
- Most changes take effect at once, without a restart: [operations](operations.md#reload).
";

/// The reference of the configuration file, as `consort schema --markdown` prints it.
pub fn reference() -> String {
    let schema = json_schema();
    let mut pages = Pages::default();
    let mut contents = String::from("\n## Sections\n\n");
    for (name, node) in properties(&schema) {
        let nested = mappings(name, node);
        for (path, _) in &nested {
            contents += &format!("- {}: {}\n", link(path), description(node));
        }
        for (path, mapping) in nested {
            pages.section("##", &path, mapping, description(node));
        }
    }
    format!("{ABOUT}{contents}{}", pages.text)
}

/// The sections so far.
#[derive(Default)]
struct Pages<'a> {
    text: String,
    /// The keys of each mapping that has a section, and its path: what is written twice is described once.
    described: Vec<(&'a Value, String)>,
}

impl<'a> Pages<'a> {
    /// The section of a mapping, then those of the mappings in it.
    fn section(&mut self, level: &str, path: &str, mapping: &'a Value, about: &str) {
        self.note(path, mapping);
        self.text += &format!(
            "\n{level} `{path}`\n\n{about}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
        );
        let mut nested = Vec::new();
        for (name, node) in properties(mapping) {
            let inside = mappings(&format!("{path}.{name}"), node);
            for (path, inner) in &inside {
                self.note(path, inner);
            }
            let links: Vec<String> =
                inside.iter().map(|(path, inner)| link(self.home(path, inner))).collect();
            let value = match links.is_empty() {
                true => form(node),
                false => format!("{}: {}", form(node), links.join(", ")),
            };
            let cells = [format!("`{name}`"), value, default(mapping, name, node), meaning(node)];
            self.text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
            nested.extend(inside.into_iter().map(|(path, inner)| (path, inner, description(node))));
        }
        for (path, inner, about) in nested {
            if self.home(&path, inner) == path {
                self.section("###", &path, inner, about);
            }
        }
    }

    /// Notes that a mapping is described under this path, unless it is under another one.
    fn note(&mut self, path: &str, mapping: &'a Value) {
        if let Some(keys) = mapping.get("properties")
            && !self.described.iter().any(|(described, _)| *described == keys)
        {
            self.described.push((keys, path.to_owned()));
        }
    }

    /// The path under which a mapping is described.
    fn home<'p>(&'p self, path: &'p str, mapping: &Value) -> &'p str {
        let keys = mapping.get("properties");
        self.described.iter().find(|(described, _)| Some(*described) == keys).map_or(path, |(_, home)| home)
    }
}

/// The mappings with keys of their own that a value may be, or hold.
fn mappings<'a>(path: &str, node: &'a Value) -> Vec<(String, &'a Value)> {
    if let Some(items) = node.get("items") {
        return mappings(&format!("{path}[]"), items);
    }
    if is_mapping(node) {
        return vec![(path.to_owned(), node)];
    }
    let inside = |branch: &'a Value| match tag(branch) {
        Some((name, value)) => mappings(&format!("{path}.{name}"), value),
        None => mappings(path, branch),
    };
    branches(node).iter().flat_map(inside).collect()
}

/// What may be written, in a few words.
fn form(node: &Value) -> String {
    if let Some(items) = node.get("items") {
        let least = node.get("minItems").map(|least| format!(", at least {least}")).unwrap_or_default();
        return format!("list of {}{least}", plural(&form(items)));
    }
    let mut forms: Vec<String> = Vec::new();
    for branch in branches(node) {
        let form = match tag(branch) {
            Some((name, value)) => format!("`{{{name}: …}}` of a {}", form(value)),
            None => form(branch),
        };
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    if !forms.is_empty() {
        return forms.join(" or ");
    }
    match node.get("type").and_then(Value::as_str) {
        _ if node.get("const").is_some() => "word".to_owned(),
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some(kind @ ("integer" | "number")) => format!("{kind}{}", bounds(node)),
        _ if is_mapping(node) => "mapping".to_owned(),
        _ => "mapping of request fields".to_owned(),
    }
}

fn plural(form: &str) -> String {
    let (kind, rest) = form.split_at(form.find(',').unwrap_or(form.len()));
    match kind {
        "text" => form.to_owned(),
        kind => format!("{}s{rest}", kind.replace(" or ", "s or ")),
    }
}

fn bounds(node: &Value) -> String {
    let [least, above, most] = ["minimum", "exclusiveMinimum", "maximum"].map(|bound| node.get(bound));
    match (least, above, most) {
        (Some(least), _, Some(most)) => format!(", {least} to {most}"),
        (None, Some(above), Some(most)) => format!(", above {above}, at most {most}"),
        (Some(least), _, None) => format!(", at least {least}"),
        (None, Some(above), None) => format!(", above {above}"),
        (None, None, Some(most)) => format!(", at most {most}"),
        (None, None, None) => String::new(),
    }
}

/// What a key has when it is absent.
fn default(mapping: &Value, name: &str, node: &Value) -> String {
    let lists =
        |list: Option<&Value>| list.and_then(Value::as_array).is_some_and(|l| l.iter().any(|n| n == name));
    if lists(mapping.get("required")) {
        return "required".to_owned();
    }
    let unless = mapping
        .pointer("/if/required/0")
        .and_then(Value::as_str)
        .filter(|_| lists(mapping.pointer("/else/required")));
    if let Some(unless) = unless {
        return format!("required without `{unless}`");
    }
    match node.get("default") {
        None => String::new(),
        Some(Value::Array(list)) if list.is_empty() => "none".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`").replace(',', ", "),
    }
}

/// What a key means, and each word that it may have.
fn meaning(node: &Value) -> String {
    let mut lines = vec![description(node).to_owned()];
    for branch in branches(node) {
        let means = description(branch);
        lines.push(match (branch.get("const"), tag(branch)) {
            (Some(Value::String(word)), _) => format!("`{word}`: {means}"),
            (Some(value), _) => format!("`{value}`: {means}"),
            (None, Some((name, _))) => format!("`{{{name}: …}}`: {means}"),
            (None, None) => format!("a {}: {means}", form(branch)),
        });
    }
    let words: Vec<String> = node
        .get("items")
        .map(branches)
        .unwrap_or_default()
        .iter()
        .filter_map(|branch| branch.get("const")?.as_str())
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        lines.push(words.join(", "));
    }
    lines.join("<br>")
}

/// A mapping with a closed set of keys.
fn is_mapping(node: &Value) -> bool {
    node.get("properties").is_some() && node.get("additionalProperties") == Some(&Value::Bool(false))
}

/// The one key of a mapping that says which of several choices it is, and what stands there.
fn tag(branch: &Value) -> Option<(&str, &Value)> {
    let keys = branch.get("properties")?.as_object()?;
    let (name, value) = keys.iter().next().filter(|_| keys.len() == 1)?;
    Some((name, value))
}

fn branches(node: &Value) -> &[Value] {
    let choice = node.get("oneOf").or_else(|| node.get("anyOf"));
    choice.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn properties(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn description(node: &Value) -> &str {
    node.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn link(path: &str) -> String {
    let anchor: String = path.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    format!("[`{path}`](#{anchor})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The names of all keys below a node that may be written.
    fn names(node: &Value, found: &mut Vec<String>) {
        for (name, node) in properties(node).filter(|(_, node)| node.get("not").is_none()) {
            found.push(name.clone());
            names(node, found);
        }
        node.get("items").into_iter().chain(branches(node)).for_each(|node| names(node, found));
    }

    #[test]
    fn every_key_is_described() {
        let (text, mut found) = (reference(), Vec::new());
        names(&json_schema(), &mut found);
        assert!(found.len() > 150, "the keys were found");
        for name in found {
            let ways = [format!("- [`{name}"), format!("| `{name}` |"), format!("{{{name}: …}}")];
            assert!(ways.iter().any(|way| text.contains(way)), "{name}");
        }
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            assert!(
                matches!(&*cells, [_, value, _, meaning] if !value.is_empty() && !meaning.is_empty()),
                "{row}"
            );
        }
    }

    #[test]
    fn values_are_told_with_their_bounds() {
        let word = |word: &str| json!({ "const": word });
        let rows = [
            (json!({ "type": "integer", "minimum": 1, "maximum": 9 }), "integer, 1 to 9"),
            (json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }), "number, above 0, at most 1"),
            (
                json!({ "type": "array", "minItems": 1, "items": { "type": "string" } }),
                "list of text, at least 1",
            ),
            (
                json!({ "type": "array", "items": { "type": "integer", "minimum": 4 } }),
                "list of integers, at least 4",
            ),
            (
                json!({ "oneOf": [word("a"), word("b"), { "properties": { "c": { "type": "string" } } }] }),
                "word or `{c: …}` of a text",
            ),
            (json!({ "type": "object", "additionalProperties": true }), "mapping of request fields"),
        ];
        for (node, expected) in rows {
            assert_eq!(form(&node), expected);
        }
    }

    #[test]
    fn a_mapping_that_is_written_twice_is_described_once() {
        let text = reference();
        assert_eq!(text.matches("### `models[].ensemble.judge`").count(), 1);
        assert!(!text.contains("### `models[].ensemble.judges"));
        assert!(text.contains("| `judges` | list of mappings, at least 1: [`models[].ensemble.judge`]"));
    }
}
