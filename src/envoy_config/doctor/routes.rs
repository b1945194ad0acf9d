//! The routes on which a filter is on.

use serde_json::Value;

use super::attachment::Attached;
use super::{at, list};

/// A route on which Consort is asked, and its virtual host.
pub(super) struct Chat<'a> {
    pub(super) host: &'a Value,
    pub(super) route: &'a Value,
}

impl Chat<'_> {
    /// Whether Consort is shown the response there, as it is for lists of models alone.
    pub(super) fn is_list(&self) -> bool {
        let words = at(self.route, "typed_per_filter_config").as_object();
        let mut words = words.into_iter().flat_map(|words| words.values());
        words.any(|word| at(word, "overrides.processing_mode.response_header_mode") == "SEND")
    }

    pub(super) fn place(&self, attached: &Attached<'_>) -> String {
        let name = at(self.route, "name").as_str().unwrap_or("without a name");
        format!("listener {}, route {name}", attached.listener())
    }
}

/// Where Consort is asked.
pub(super) fn asked<'a>(attached: &Attached<'a>) -> impl Iterator<Item = Chat<'a>> {
    let (filter, routes) = (attached.filter, attached.manager.routes);
    let hosts = list(at(routes, "virtual_hosts"));
    let each = hosts.flat_map(|host| list(at(host, "routes")).map(move |route| Chat { host, route }));
    each.filter(move |chat| is_on(filter, routes, chat))
}

/// Whether this filter is on there: the most specific word counts.
pub(super) fn is_on(filter: &Value, routes: &Value, chat: &Chat<'_>) -> bool {
    let name = at(filter, "name").as_str().unwrap_or_default();
    let word = |value: &Value| {
        let word = at(value, "typed_per_filter_config").get(name)?;
        Some(word.get("disabled") != Some(&Value::Bool(true)))
    };
    let by_default = filter.get("disabled") != Some(&Value::Bool(true));
    word(chat.route).or_else(|| word(chat.host)).or_else(|| word(routes)).unwrap_or(by_default)
}
