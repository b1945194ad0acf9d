//! What becomes of aliases while Consort cannot be asked: behind its filter, a fence refuses them.

use serde_json::Value;

use super::Severity::Warning;
use super::attachment::Attached;
use super::gate::Found;
use super::{Part, at, list, routes};

const SHOULD_BE: &str = "the fence of consort envoy-config";

/// Whether ensembles' requests reach the upstream when Consort cannot be asked. Tells of each that does.
pub(super) fn check(part: &mut Part<'_>, attached: &Attached<'_>) -> bool {
    if at(attached.processor, "failure_mode_allow") != true {
        return false;
    }
    let filters = list(at(attached.manager.value, "http_filters"));
    let behind = filters.skip_while(|filter| at(filter, "name") != attached.name()).skip(1);
    let fence: Vec<_> = behind.filter(|filter| is_of_fence(filter)).collect();
    let Some(refusal) = fence.iter().find(|filter| refuses(filter)) else {
        let is = "no fence behind it".to_owned();
        part.tell(
            Warning,
            "http_filters",
            is,
            SHOULD_BE,
            "while Consort is down, prompts for aliases reach the upstream",
        );
        return true;
    };
    let found = Found::within(at(refusal, "typed_config.xds_matcher"));
    let mut passes = false;
    for alias in found.missing(&attached.expected.aliases) {
        passes = true;
        let is = format!("the fence does not know {alias:?}");
        let symptom = "while Consort is down, prompts for this alias reach the upstream";
        part.tell(Warning, "http_filters", is, "with every alias", symptom);
    }
    for chat in routes::asked(attached).filter(|chat| !chat.is_list()) {
        for filter in fence.iter().filter(|filter| !routes::is_on(filter, attached.manager.routes, &chat)) {
            passes = true;
            let name = at(filter, "name").as_str().unwrap_or_default();
            let mut part =
                Part { place: chat.place(attached), value: chat.route, findings: &mut *part.findings };
            let symptom = "while Consort is down, prompts for aliases reach the upstream";
            let should_be = format!("with {name}: it is of the fence");
            part.tell(Warning, "typed_per_filter_config", format!("{name} is off"), &should_be, symptom);
        }
    }
    passes
}

/// Told by what they look at, whatever they are called: whether Consort has answered, and what was read where it has not.
fn is_of_fence(filter: &Value) -> bool {
    let text = at(filter, "typed_config.xds_matcher").to_string();
    text.contains("FilterStateInput") && text.contains("envoy.filters.http.ext_proc")
}

fn refuses(filter: &Value) -> bool {
    let kind = at(filter, "typed_config.extension_config.typed_config.@type");
    kind.as_str().is_some_and(|kind| kind.ends_with("fault.v3.HTTPFault"))
        && Found::within(at(filter, "typed_config.xds_matcher")).is_ours
}
