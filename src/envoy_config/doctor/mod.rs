//! What a running Envoy lacks of what Consort needs, read from the `/config_dump` of its admin interface.
//!
//! Each rule names a setting, what it should be, and what comes of it when it is not: what operators see is the symptom.

mod attachment;
mod cluster;
mod connection;
mod door;
mod dump;
mod fence;
mod fetch;
mod gate;
mod processor;
mod routes;
mod transport;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use self::dump::Dump;
pub use self::fetch::{FetchError, fetch};
pub use self::transport::Transport;

/// What Consort's own configuration asks of Envoy's.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The names of the ensembles.
    pub aliases: Vec<String>,
    /// How many runs may wait at once.
    pub max_inflight: usize,
    /// The longest that a run may take, where all of them have a bound.
    pub longest_run: Option<Duration>,
    /// The longest body of an ensemble's request, in bytes.
    pub max_request_bytes: usize,
    /// What a message timer of Envoy's is extended to.
    pub buffered_timeout: Duration,
    /// Whether Consort hands requests over to its plain door.
    pub handoff: bool,
    /// What is spoken at Envoy's door.
    pub transport: Transport,
    /// What is spoken at the plain door.
    pub door_transport: Transport,
    /// Whether lists of models are to come through Consort.
    pub lists_models: bool,
    /// Whether Consort asks for bodies that it is not sent.
    pub overrides_mode: bool,
    /// Whether requests that are redirected are to be routed anew.
    pub clears_route_cache: bool,
}

/// How bad a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Aliases do not work, or not for everybody.
    Error,
    /// They work until something happens.
    Warning,
    /// Something is worse than it could be.
    Note,
}

/// A difference between what is and what should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The listener, filter, route or cluster.
    pub place: String,
    /// The setting, as the path of its fields; empty where it is about the place as a whole.
    pub setting: String,
    /// What it is.
    pub is: String,
    /// What it should be.
    pub should_be: String,
    /// What comes of it.
    pub symptom: String,
}

/// In a few lines, for people.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let setting = if self.setting.is_empty() { String::new() } else { format!("{}: ", self.setting) };
        writeln!(f, "{severity}: {}: {setting}{}", self.place, self.is)?;
        writeln!(f, "  should be: {}", self.should_be)?;
        write!(f, "  symptom: {}", self.symptom)
    }
}

/// Compares a `/config_dump` with what is expected; the worst comes first.
pub fn diagnose(dump: &Value, expected: &Expected) -> Vec<Finding> {
    let dump = Dump::read(dump);
    let mut findings = Vec::new();
    attachment::check(&dump, expected, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    findings.dedup();
    findings
}

/// A part of Envoy's configuration that is being looked at.
struct Part<'a> {
    place: String,
    /// What stands there; null where there is nothing.
    value: &'a Value,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Part<'a> {
    /// What stands at these fields; null where there is nothing.
    fn at(&self, setting: &str) -> &'a Value {
        at(self.value, setting)
    }

    /// A number, which JSON has as a text where it is long, or what Envoy takes when there is none.
    fn number(&self, setting: &str, default: f64) -> f64 {
        match self.at(setting) {
            Value::String(text) => text.parse().unwrap_or(default),
            value => value.as_f64().unwrap_or(default),
        }
    }

    /// A duration in seconds, or what Envoy takes when there is none.
    fn seconds(&self, setting: &str, default: f64) -> f64 {
        seconds(self.at(setting)).unwrap_or(default)
    }

    /// Tells of a setting that is not as it should be.
    fn want(&mut self, is_so: bool, severity: Severity, setting: &str, should_be: &str, symptom: &str) {
        if !is_so {
            let is = match self.at(setting) {
                Value::Null => "unset".to_owned(),
                value => value.to_string(),
            };
            self.tell(severity, setting, is, should_be, symptom);
        }
    }

    fn tell(&mut self, severity: Severity, setting: &str, is: String, should_be: &str, symptom: &str) {
        self.findings.push(Finding {
            severity,
            place: self.place.clone(),
            setting: setting.to_owned(),
            is,
            should_be: should_be.to_owned(),
            symptom: symptom.to_owned(),
        });
    }
}

/// What stands at these fields (`a.b`); null where there is nothing.
fn at<'a>(value: &'a Value, fields: &str) -> &'a Value {
    fields.split('.').fold(value, |value, field| value.get(field).unwrap_or(&Value::Null))
}

fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.strip_suffix('s')?.parse().ok()
}

/// The elements of a list; nothing is an empty one.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
