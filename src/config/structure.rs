//! A tree of values against the JSON Schema.
//!
//! What is wrong is reported and cut out, and the rest is read with defaults in its place: a slip
//! in one key then does not hide what only a later stage can see in the keys beside it.

use std::collections::HashSet;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::paths::{Location, LocationSegment};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::json_schema::json_schema;
use super::problem::{Path, Report, Segment, did_you_mean};
use super::schema::File;

/// Reads what is sound of `tree`; nothing when what is left has no meaning.
pub(super) fn read(mut tree: Value, report: &mut Report) -> Option<File> {
    let schema = json_schema();
    let validator = match jsonschema::validator_for(&schema) {
        Ok(validator) => validator,
        Err(error) => {
            report.add(Path::root(), format!("Consort's own schema is wrong: {error}"));
            return None;
        }
    };
    let mut findings = Vec::new();
    for error in validator.iter_errors(&tree) {
        findings.extend(describe(&error, &schema));
    }
    for Finding { path, what, cut_at } in findings {
        report.add(path, what);
        if let Some(path) = cut_at {
            cut(&mut tree, path.segments());
        }
    }
    let file = deserialize(&mut tree, report);
    erase(&mut tree);
    file
}

/// Leaves no text of a tree in memory: secrets have been in it.
fn erase(tree: &mut Value) {
    match tree {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(erase),
        Value::Object(members) => members.values_mut().for_each(erase),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads `tree`, which fits the schema. What the schema lets through and Rust's types do not is an
/// integer written as `2.0`, or one too large.
fn deserialize(tree: &mut Value, report: &mut Report) -> Option<File> {
    let mut places = HashSet::new();
    loop {
        let error = match serde_path_to_error::deserialize(&*tree) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let path: Path = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(Segment::Index(*index)),
                serde_path_to_error::Segment::Map { key } => Some(Segment::Key(key.clone())),
                _ => None,
            })
            .collect();
        // Not the error's own words, which show the value.
        report.add(path.clone(), "cannot be read: expected an integer without a fraction, within 64 bits");
        // An element of a list that cannot be empty goes with its list.
        let place = path.upwards().find(|place| places.insert(place.clone()))?;
        cut(tree, place.segments());
    }
}

/// One thing that is wrong with a tree.
struct Finding {
    path: Path,
    what: String,
    /// What to take out, so that the rest can be read; nothing where something is missing.
    cut_at: Option<Path>,
}

impl Finding {
    fn wrong(path: Path, what: String) -> Self {
        Self { cut_at: Some(path.clone()), path, what }
    }
}

/// Puts one error of the validator in words. No word is taken from a value, which may have come
/// from the environment.
fn describe(error: &ValidationError<'_>, schema: &Value) -> Vec<Finding> {
    let path = path_of(error.instance_path());
    // Everything is inlined, so that the keyword's path in the schema leads to it.
    let node = parent(schema, error.schema_path());
    let keyword = |name: &str| node.and_then(|node| node.get(name));
    let what = match error.kind() {
        Kind::AdditionalProperties { unexpected } => {
            let known = keyword("properties").and_then(Value::as_object);
            return unexpected
                .iter()
                .map(|key| Finding::wrong(path.key(key), unknown_key(key, known)))
                .collect();
        }
        Kind::Required { property } => {
            return vec![Finding {
                path: path.key(property.as_str().unwrap_or_default()),
                what: "is required".to_owned(),
                cut_at: None,
            }];
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            if error.instance().is_object()
                && let Some(branch) = context.iter().find(|branch| fits_object(branch, &path))
            {
                // Half a choice is none: it goes as a whole.
                let whole = |finding| Finding { cut_at: Some(path.clone()), ..finding };
                return branch.iter().flat_map(|error| describe(error, schema)).map(whole).collect();
            }
            choice(keyword(error.kind().keyword()), error.instance())
        }
        Kind::Type { .. } => mismatch(keyword("type"), error.instance()),
        Kind::Not { .. } => {
            keyword("description").and_then(Value::as_str).unwrap_or("is not allowed here").to_owned()
        }
        Kind::Minimum { .. }
        | Kind::Maximum { .. }
        | Kind::ExclusiveMinimum { .. }
        | Kind::ExclusiveMaximum { .. } => {
            range(keyword("minimum"), keyword("maximum"), keyword("exclusiveMinimum"))
        }
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinLength { .. } | Kind::MinItems { .. } => "must not be empty".to_owned(),
        _ => error.masked_with("the value").to_string(),
    };
    vec![Finding::wrong(path, what)]
}

fn unknown_key(key: &str, known: Option<&Map<String, Value>>) -> String {
    let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    let hint =
        did_you_mean(key, known.iter().copied()).unwrap_or_else(|| format!(" (known: {})", known.join(", ")));
    format!("unknown key{hint}")
}

/// Whether a branch of a choice is meant for mappings: none of its errors is about the type.
fn fits_object(branch: &[ValidationError<'_>], path: &Path) -> bool {
    !branch.iter().any(|error| {
        matches!(error.kind(), Kind::Type { .. } | Kind::Constant { .. })
            && path_of(error.instance_path()) == *path
    })
}

/// What may stand where there is a choice of words, or of words or text and a mapping.
fn choice(branches: Option<&Value>, instance: &Value) -> String {
    let branches = branches.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let words: Vec<&str> = branches.iter().filter_map(|branch| branch.get("const")?.as_str()).collect();
    let forms: Vec<String> = branches
        .iter()
        .filter_map(|branch| match branch.get("const").and_then(Value::as_str) {
            Some(word) => Some(format!("`{word}`")),
            None if branch.get("type")? == "string" => Some("a string".to_owned()),
            None => {
                let keys = branch.get("properties")?.as_object()?.keys();
                let keys: Vec<String> = keys.map(|key| format!("{key}: …")).collect();
                Some(format!("`{{{}}}`", keys.join(", ")))
            }
        })
        .collect();
    let expected = match forms.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => return "is not allowed here".to_owned(),
    };
    let hint = instance.as_str().and_then(|word| did_you_mean(word, words)).unwrap_or_default();
    format!("expected {expected}{hint}")
}

fn mismatch(expected: Option<&Value>, instance: &Value) -> String {
    let expected = expected.and_then(Value::as_str).unwrap_or_default();
    let words = |name| match name {
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        _ => "another kind of value",
    };
    let (found, quotable) = match instance {
        Value::Null => ("nothing", false),
        Value::Bool(_) => ("true or false", true),
        Value::Number(number) if number.is_f64() => ("a number", true),
        Value::Number(_) => ("an integer", true),
        Value::String(_) => ("a string", false),
        Value::Array(_) => ("a list", false),
        Value::Object(_) => ("a mapping", false),
    };
    let hint = if expected == "string" && quotable { " (put it in quotes)" } else { "" };
    format!("expected {}, found {found}{hint}", words(expected))
}

fn range(least: Option<&Value>, most: Option<&Value>, above: Option<&Value>) -> String {
    match (least, most, above) {
        (Some(least), Some(most), _) => format!("must be from {least} to {most}"),
        (Some(least), None, _) => format!("must be at least {least}"),
        (None, Some(most), Some(above)) => format!("must be greater than {above} and at most {most}"),
        (None, Some(most), None) => format!("must be at most {most}"),
        (None, None, Some(above)) => format!("must be greater than {above}"),
        (None, None, None) => "is out of range".to_owned(),
    }
}

/// Removes what is at the end of `path`. An element of a list leaves an empty mapping, so that the
/// others keep their places.
fn cut(tree: &mut Value, path: &[Segment]) {
    let Some((last, way)) = path.split_last() else {
        *tree = Value::Object(Map::new());
        return;
    };
    let mut node = tree;
    for segment in way {
        let next = match (node, segment) {
            (Value::Object(members), Segment::Key(key)) => members.get_mut(key),
            (Value::Array(items), Segment::Index(index)) => items.get_mut(*index),
            _ => None,
        };
        // Cut out together with something above it.
        let Some(next) = next else {
            return;
        };
        node = next;
    }
    match (node, last) {
        (Value::Object(members), Segment::Key(key)) => {
            members.shift_remove(key);
        }
        (Value::Array(items), Segment::Index(index)) => {
            if let Some(item) = items.get_mut(*index) {
                *item = Value::Object(Map::new());
            }
        }
        _ => {}
    }
}

fn path_of(location: &Location) -> Path {
    location
        .segments()
        .map(|segment| match segment {
            LocationSegment::Property(key) => Segment::Key(key.into_owned()),
            LocationSegment::Index(index) => Segment::Index(index),
        })
        .collect()
}

/// The schema that holds the keyword at `location`.
fn parent<'a>(schema: &'a Value, location: &Location) -> Option<&'a Value> {
    let (parent, _) = location.as_str().rsplit_once('/')?;
    schema.pointer(parent)
}
