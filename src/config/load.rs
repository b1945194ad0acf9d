//! From a file and the environment to one tree of values.

use std::collections::HashMap;

use config::{ConfigError, FileFormat, ValueKind};
use serde_json::{Map, Number, Value};
use zeroize::Zeroize as _;

use super::problem::{Path, Problems, Report, Segment};
use super::{Config, interpolate, resolve, structure, text};
use crate::upstream::Pools;

/// What an environment variable that overrides a key begins with.
const PREFIX: &str = "CONSORT";
/// What separates the keys in its name.
const SEPARATOR: &str = "__";

/// Environment variables by name.
pub type Environment = HashMap<String, String>;

/// The syntax of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.yaml`, `.yml`
    Yaml,
    /// `.toml`
    Toml,
    /// `.json`
    Json,
}

impl Format {
    /// The format that a file's extension stands for.
    pub fn of(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A configuration before it is read. Not `Debug`: both the text and the environment hold secrets.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What a syntax error calls the file.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Its syntax.
    pub format: Format,
    /// Where `${VAR}` and `CONSORT__SECTION__KEY` are looked up.
    pub environment: &'a Environment,
}

/// Reads the configuration file at `path` with the environment of this process.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &std::path::Path) -> Result<Config, Problems> {
    load_with(path, &Pools::default())
}

/// As [`load`], with the connections of an earlier configuration to providers that have not changed.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_with(path: &std::path::Path, pools: &Pools) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let Some(format) = Format::of(path) else {
        return Err(Problems::with_file(format!(
            "{name}: cannot tell the format: expected a name that ends in .yaml, .yml, .toml or .json"
        )));
    };
    let unreadable =
        |error: &dyn std::error::Error| Problems::with_file(format!("{name}: cannot be read: {error}"));
    let text = text::read(path).map_err(|error| unreadable(&error))?;
    let text = std::str::from_utf8(&text).map_err(|error| unreadable(&error))?;
    // Not `vars`, which panics over a variable that is not Unicode, whosever it is.
    let mut environment: Environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let config = Source { name: &name, text, format, environment: &environment }.load_with(pools);
    // The process's own environment stays as it is: nothing safe can erase that.
    environment.values_mut().for_each(|value| value.zeroize());
    config
}

impl Source<'_> {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, Problems> {
        self.load_with(&Pools::default())
    }

    /// As [`Source::load`], with the connections of an earlier configuration to providers that have not changed.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_with(&self, pools: &Pools) -> Result<Config, Problems> {
        let mut report = Report::default();
        let mut tree = self.tree(&mut report)?;
        let written = interpolate::interpolate(&mut tree, self.environment, &mut report);
        let config = structure::read(tree, &mut report)
            .and_then(|file| resolve::resolve(&file, &written, self.environment, pools, &mut report));
        match config {
            Some(config) if report.is_empty() => Ok(config),
            _ => Err(report.into_problems(|path| self.overridden_by(path))),
        }
    }

    /// The file's values beneath the environment's.
    fn tree(&self, report: &mut Report) -> Result<Value, Problems> {
        let format = match self.format {
            Format::Yaml => FileFormat::Yaml,
            Format::Toml => FileFormat::Toml,
            Format::Json => FileFormat::Json,
        };
        let environment = config::Environment::with_prefix(PREFIX)
            .separator(SEPARATOR)
            .try_parsing(true)
            .source(Some(self.overrides()));
        let merged = config::Config::builder()
            .add_source(text::Text::new(self.text, format))
            .add_source(environment)
            .build()
            .map_err(|error| Problems::with_file(syntax(self.name, error)))?;
        Ok(json(merged.cache, &Path::root(), report))
    }

    /// The variables that override keys. The others are not handed on: some of them are secrets.
    fn overrides(&self) -> config::Map<String, String> {
        let ours = self.environment.iter().filter(|(name, _)| override_path(name).is_some());
        ours.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Names the environment variable that wrote at `path`: it is not in the file that an operator
    /// will look at.
    fn overridden_by(&self, path: &Path) -> Option<String> {
        if path.segments().is_empty() {
            return None;
        }
        self.environment
            .keys()
            .filter(|name| override_path(name).is_some_and(|written| path.contains(&written)))
            .min()
            .map(|name| format!(" [set by {name}]"))
    }
}

/// Where a variable of this name writes, if it is one of ours.
fn override_path(name: &str) -> Option<Path> {
    let name = name.to_lowercase();
    let keys = name.strip_prefix(&PREFIX.to_lowercase())?.strip_prefix(SEPARATOR)?;
    Some(keys.split(SEPARATOR).map(|key| Segment::Key(key.to_owned())).collect())
}

/// The `config` crate's value as JSON. A null counts as absent, so that a section may stand in a
/// file with all its keys commented out; only in `params` it is a value.
fn json(value: config::Value, path: &Path, report: &mut Report) -> Value {
    match value.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(flag) => Value::Bool(flag),
        ValueKind::I64(number) => number.into(),
        ValueKind::U64(number) => number.into(),
        ValueKind::I128(number) => exact(i64::try_from(number).ok(), path, report),
        ValueKind::U128(number) => exact(u64::try_from(number).ok(), path, report),
        ValueKind::Float(number) => float(number, path, report),
        ValueKind::String(text) => Value::String(text),
        ValueKind::Array(items) => {
            items.into_iter().enumerate().map(|(i, item)| json(item, &path.index(i), report)).collect()
        }
        ValueKind::Table(members) => {
            let in_params = path.segments().contains(&Segment::Key("params".to_owned()));
            let members: Map<String, Value> = members
                .into_iter()
                .filter(|(_, member)| in_params || member.kind != ValueKind::Nil)
                .map(|(key, member)| {
                    let member = json(member, &path.key(&key), report);
                    (key, member)
                })
                .collect();
            Value::Object(members)
        }
    }
}

/// A number as JSON. The parsers turn an integer that they cannot hold into the nearest float: it
/// would reach a provider with other digits than the file has, so it is refused.
fn float(number: f64, path: &Path, report: &mut Report) -> Value {
    /// The least magnitude that no 64-bit signed integer has, 2⁶³.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if !number.is_finite() {
        report.add(path.clone(), "must be a finite number");
        return Value::Null;
    }
    let number = Number::from_f64(number).filter(|_| number.abs() < BEYOND);
    exact(number, path, report)
}

fn exact(number: Option<impl Into<Value>>, path: &Path, report: &mut Report) -> Value {
    number.map_or_else(
        || {
            report.add(path.clone(), "is too large to keep its digits: it needs more than 64 bits");
            Value::Null
        },
        Into::into,
    )
}

/// A syntax error with its place, and without the text there: it may be a secret.
fn syntax(name: &str, error: ConfigError) -> String {
    let ConfigError::FileParse { cause, .. } = error else {
        return format!("{name}: {error}");
    };
    // A root of another kind, which the error shows. The crate boxes this one twice.
    if cause.is::<ConfigError>() || cause.is::<Box<ConfigError>>() {
        return format!("{name}: must be a mapping of keys to values");
    }
    let message = cause.to_string();
    match Fault::of(&message) {
        Some(Fault { line, column, what }) => {
            // `String("key"): duplicated key in mapping`
            let duplicate = what
                .strip_prefix("String(")
                .and_then(|what| what.strip_suffix("): duplicated key in mapping"))
                .map(|key| format!("duplicate key {key}"));
            let what = duplicate.as_deref().unwrap_or(what);
            format!("{name}:{line}:{column}: {what}")
        }
        // The one message without a place, which shows the key in the parser's own notation.
        None if message.contains("unsupported hash key") => {
            format!("{name}: a key must be text, not a list or a mapping")
        }
        None => format!("{name}: {message}"),
    }
}

/// A parser's message in its parts.
struct Fault<'a> {
    line: &'a str,
    column: &'a str,
    what: &'a str,
}

impl<'a> Fault<'a> {
    /// Takes a message apart by its text: the `config` crate hides the types of its parsers.
    fn of(message: &'a str) -> Option<Self> {
        // "TOML parse error at line L, column C", the place as drawn (three lines), then the words.
        if let Some(place) = message.strip_prefix("TOML parse error at line ") {
            let mut lines = place.lines();
            let (line, column) = lines.next()?.split_once(", column ")?;
            let what = lines.nth(3)?;
            return Some(Self { line, column, what });
        }
        // YAML: "… at byte B line L column C"; JSON: "… at line L column C".
        let (rest, column) = message.rsplit_once(" column ")?;
        let (rest, line) = rest.rsplit_once(" line ")?;
        let what = match rest.rsplit_once(" at byte ") {
            Some((what, _)) => what,
            None => rest.strip_suffix(" at").unwrap_or(rest),
        };
        Some(Self { line, column, what })
    }
}
