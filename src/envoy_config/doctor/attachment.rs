//! Consort's filters, one after the other, with all that each of them hangs on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dump::{Dump, Manager};
use super::{Expected, Finding, Part, Severity, at, cluster, connection, fence, gate, list, processor};

/// A filter of Consort's.
pub(super) struct Attached<'a> {
    pub(super) manager: &'a Manager<'a>,
    /// The entry among the HTTP filters.
    pub(super) filter: &'a Value,
    /// The processor's own configuration, wrapped or not.
    pub(super) processor: &'a Value,
    /// How Envoy shows the request's body.
    pub(super) body: &'a str,
    pub(super) expected: &'a Expected,
}

pub(super) fn check(dump: &Dump<'_>, expected: &Expected, findings: &mut Vec<Finding>) {
    let managers = dump.managers();
    let all: Vec<_> = managers.iter().flat_map(|manager| processors(manager, expected)).collect();
    let is_ours = |attached: &&Attached<'_>| {
        cluster_of(attached.processor).contains("consort")
            || at(attached.processor, "stat_prefix") == "consort"
    };
    // One that is named otherwise can only be told by being the one that there is.
    let ours: Vec<_> = if all.iter().any(|a| is_ours(&a)) {
        all.iter().filter(is_ours).collect()
    } else {
        all.iter().collect()
    };
    if ours.is_empty() {
        let mut whole = Part { place: "listeners".to_owned(), value: &Value::Null, findings: &mut *findings };
        let is = "no filter envoy.filters.http.ext_proc".to_owned();
        whole.tell(
            Severity::Error,
            "",
            is,
            "one that asks Consort",
            "aliases reach the upstream, which answers 404",
        );
    }
    let mut clusters = BTreeMap::new();
    for attached in ours {
        let (place, config) = (attached.place(), at(attached.filter, "typed_config"));
        let mut part = Part { place: place.clone(), value: attached.processor, findings: &mut *findings };
        processor::check(&mut part, attached, dump);
        let mut part = Part { place, value: config, findings: &mut *findings };
        gate::check(&mut part, attached);
        let lets_aliases_pass = fence::check(&mut part, attached);
        connection::check(&mut *findings, attached, dump);
        *clusters.entry(attached.cluster()).or_insert(false) |= lets_aliases_pass;
    }
    for (name, lets_aliases_pass) in clusters {
        let value = dump.cluster(name);
        let place = format!("cluster {name}");
        let mut part = Part { place, value: value.unwrap_or(&Value::Null), findings: &mut *findings };
        cluster::check(&mut part, expected, lets_aliases_pass);
    }
}

/// The processors of a connection manager, whoever they are.
fn processors<'a>(manager: &'a Manager<'a>, expected: &'a Expected) -> impl Iterator<Item = Attached<'a>> {
    list(at(manager.value, "http_filters")).filter_map(move |filter| {
        let config = at(filter, "typed_config");
        let wrapped = at(config, "extension_config.typed_config");
        let processor = if wrapped.is_null() { config } else { wrapped };
        let is_processor = at(processor, "@type")
            .as_str()
            .is_some_and(|name| name.ends_with("ext_proc.v3.ExternalProcessor"));
        let body = at(processor, "processing_mode.request_body_mode").as_str().unwrap_or("NONE");
        is_processor.then_some(Attached { manager, filter, processor, body, expected })
    })
}

fn cluster_of(processor: &Value) -> &str {
    at(processor, "grpc_service.envoy_grpc.cluster_name").as_str().unwrap_or_default()
}

impl<'a> Attached<'a> {
    /// The filter's name, under which routes speak of it.
    pub(super) fn name(&self) -> &str {
        at(self.filter, "name").as_str().unwrap_or_default()
    }

    /// The name of the listener that it is in.
    pub(super) fn listener(&self) -> &str {
        at(self.manager.listener, "name").as_str().unwrap_or("without a name")
    }

    /// The name of the cluster that it asks.
    pub(super) fn cluster(&self) -> &'a str {
        cluster_of(self.processor)
    }

    fn place(&self) -> String {
        format!("listener {}, filter {}", self.listener(), self.name())
    }
}
