//! Whether the gate lets every alias through.

use serde_json::Value;

use super::Severity::{Error, Note, Warning};
use super::attachment::Attached;
use super::{Part, at, list, routes};

/// Where the gate keeps what it has read.
const NAMESPACE: &str = "consort.gate";
const NEVER_SHUT: &str = "the gate is never shut: every chat request goes through Consort";

/// Looks at the filter's outer configuration: a gate is a matcher around it.
pub(super) fn check(part: &mut Part<'_>, attached: &Attached<'_>) {
    let matcher = part.at("xds_matcher");
    if matcher.is_null() {
        return;
    }
    let found = Found::within(matcher);
    if !found.is_ours {
        let is = "a matcher that is not of consort envoy-config".to_owned();
        part.tell(
            Note,
            "xds_matcher",
            is,
            "consort envoy-config --gate",
            "aliases that it skips reach the upstream",
        );
        return;
    }
    let aliases = &attached.expected.aliases;
    for alias in found.missing(aliases) {
        let is = format!("does not know {alias:?}");
        part.tell(
            Error,
            "xds_matcher",
            is,
            "with every alias",
            "small requests for this alias reach the upstream",
        );
    }
    for name in found.exact.iter().filter(|name| !aliases.iter().any(|alias| alias == *name)) {
        let is = format!("knows {name:?}, which is no alias");
        part.tell(Note, "xds_matcher", is, "without it", "requests for this model are sent through Consort");
    }
    check_reader(part, attached);
}

/// Looks for the filter that reads what the gate decides by.
fn check_reader(part: &mut Part<'_>, attached: &Attached<'_>) {
    let filters = list(at(attached.manager.value, "http_filters"));
    let before: Vec<_> = filters.take_while(|filter| at(filter, "name") != attached.name()).collect();
    let reads = |filter: &&Value| {
        let wrapped = at(filter, "typed_config.extension_config.name").as_str();
        wrapped.or_else(|| at(filter, "name").as_str()).is_some_and(|name| name.contains("json_to_metadata"))
    };
    let Some(reader) = before.into_iter().find(reads) else {
        let is = "behind no filter json_to_metadata".to_owned();
        part.tell(Warning, "xds_matcher", is, "behind a filter json_to_metadata", NEVER_SHUT);
        return;
    };
    for chat in routes::asked(attached).filter(|chat| !chat.is_list()) {
        if !routes::is_on(reader, attached.manager.routes, &chat) {
            let name = at(reader, "name").as_str().unwrap_or_default();
            let mut part =
                Part { place: chat.place(attached), value: chat.route, findings: &mut *part.findings };
            let should_be = format!("with {name}: it reads the model for the gate");
            part.tell(Warning, "typed_per_filter_config", format!("{name} is off"), &should_be, NEVER_SHUT);
        }
    }
}

/// The names in a matcher.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// Whether it looks at what Consort's filters have read.
    pub(super) is_ours: bool,
    exact: Vec<&'a str>,
    prefixes: Vec<&'a str>,
}

impl<'a> Found<'a> {
    pub(super) fn within(matcher: &'a Value) -> Self {
        let mut found = Self::default();
        found.search(matcher);
        found
    }

    /// Those of the aliases that it does not know.
    pub(super) fn missing<'n>(&self, aliases: &'n [String]) -> impl Iterator<Item = &'n String> {
        aliases.iter().filter(|alias| {
            !self.exact.contains(&alias.as_str())
                && !self.prefixes.iter().any(|prefix| alias.starts_with(prefix))
        })
    }

    fn search(&mut self, value: &'a Value) {
        match value {
            Value::Object(members) => {
                self.is_ours |= members.get("filter").is_some_and(|filter| filter == NAMESPACE);
                if let Some(matcher) = members.get("string_match") {
                    self.exact.extend(at(matcher, "exact").as_str());
                    self.prefixes.extend(at(matcher, "prefix").as_str());
                }
                members.values().for_each(|member| self.search(member));
            }
            Value::Array(elements) => elements.iter().for_each(|element| self.search(element)),
            _ => {}
        }
    }
}
