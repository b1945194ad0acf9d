//! `${VAR}` in string values.

use std::collections::BTreeMap;
use std::mem;

use serde_json::Value;

use super::load::Environment;
use super::problem::{Path, Report};

/// The interpolated strings as the file has them, so that a message can name a value without
/// showing what the environment put there.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<Path, String>);

impl Written {
    /// Whether the value at `path` has a part that came from the environment.
    pub(super) fn interpolated(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// Every place whose value has a part that came from the environment, with what is written there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.0.iter().map(|(path, text)| (path, text.as_str()))
    }

    /// What may be shown of `value` at `path`.
    pub(super) fn show<'a>(&'a self, path: &Path, value: &'a str) -> &'a str {
        self.0.get(path).map_or(value, String::as_str)
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` in every string value beneath `tree`; `$${` is a literal
/// `${`. As in a shell, the default also stands in for a variable that is set but empty.
pub(super) fn interpolate(tree: &mut Value, environment: &Environment, report: &mut Report) -> Written {
    let mut written = Written::default();
    visit(tree, &Path::root(), &mut |path, text| {
        if !text.contains("${") {
            return;
        }
        match expand(text, environment) {
            Ok(expanded) => {
                written.0.insert(path.clone(), mem::replace(text, expanded));
            }
            Err(what) => report.add(path.clone(), what),
        }
    });
    written
}

fn visit(value: &mut Value, path: &Path, string: &mut impl FnMut(&Path, &mut String)) {
    match value {
        Value::String(text) => string(path, text),
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                visit(item, &path.index(i), string);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                visit(member, &path.key(key), string);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn expand(text: &str, environment: &Environment) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((reference, tail)) = after.split_once('}') else {
            return Err("`${` is not closed (write `$${` for the text itself)".to_owned());
        };
        out.push_str(lookup(reference, environment)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup<'a>(reference: &'a str, environment: &'a Environment) -> Result<&'a str, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        return Err("expected `${VAR}` or `${VAR:-default}` (write `$${` for the text itself)".to_owned());
    }
    match (environment.get(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default),
        (None, None) => Err(format!("the environment variable {name} is not set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let environment =
            [("KEY", "k"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        expand(text, &environment)
    }

    #[test]
    fn variables_defaults_and_escapes_are_expanded() {
        for (text, expected) in [
            ("${KEY}", "k"),
            ("a-${KEY}-${KEY}", "a-k-k"),
            ("${NONE:-d}", "d"),
            ("${NONE:-}", ""),
            ("${KEY:-d}", "k"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("$${KEY}", "${KEY}"),
            ("$KEY $ {{candidates}}", "$KEY $ {{candidates}}"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_a_problem() {
        insta::assert_snapshot!(expanded("${NONE}").unwrap_err(), @"the environment variable NONE is not set");
        insta::assert_snapshot!(expanded("${KEY").unwrap_err(), @"`${` is not closed (write `$${` for the text itself)");
        insta::assert_snapshot!(expanded("${a b}").unwrap_err(), @"expected `${VAR}` or `${VAR:-default}` (write `$${` for the text itself)");
    }

    #[test]
    fn an_expanded_value_does_not_expand_again() {
        let environment = [("A".to_owned(), "${B}".to_owned())].into();
        assert_eq!(expand("${A}", &environment).as_deref(), Ok("${B}"));
    }
}
