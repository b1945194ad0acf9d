//! What stands around the filter: the listener, its connection manager, and the routes that turn Consort on.

use serde_json::Value;

use super::Severity::{Error, Note, Warning};
use super::attachment::Attached;
use super::door::{self, TICKET};
use super::dump::Dump;
use super::routes::{self, Chat};
use super::{Finding, Part, at, list, seconds};

const MARKER: &str = "x-consort-marker";

pub(super) fn check(findings: &mut Vec<Finding>, attached: &Attached<'_>, dump: &Dump<'_>) {
    let place = format!("listener {}", attached.listener());
    let holds = attached.body == "BUFFERED";
    let hands_over = holds && attached.expected.handoff;
    let mut listener =
        Part { place: place.clone(), value: attached.manager.listener, findings: &mut *findings };
    if holds {
        let wanted = attached.expected.max_request_bytes as f64;
        let setting = "per_connection_buffer_limit_bytes";
        let holds_all = listener.number(setting, 1_048_576.0) >= wanted;
        let should_be = format!("{wanted} (limits.max_request_bytes) or more");
        listener.want(
            holds_all,
            Warning,
            setting,
            &should_be,
            "Envoy answers long requests with a 413 of its own",
        );
    }
    let place = format!("{place}, HTTP connection manager");
    let mut manager = Part { place: place.clone(), value: attached.manager.value, findings: &mut *findings };
    check_manager(&mut manager, hands_over);
    check_routes(findings, &place, attached, hands_over, dump);
}

fn check_manager(part: &mut Part<'_>, hands_over: bool) {
    let is_short = part.seconds("delayed_close_timeout", 1.0) <= 0.25;
    part.want(
        is_short,
        Note,
        "delayed_close_timeout",
        "0.25s",
        "HTTP/1.1 callers notice a broken stream after a second",
    );
    let format = "local_reply_config.body_format";
    let is_left = part.at(format).is_null();
    part.want(
        is_left,
        Error,
        format,
        "unset",
        "Consort's answers that are not streamed are replaced by this text",
    );
    let mappers = "local_reply_config.mappers";
    let rewrites = list(part.at(mappers))
        .any(|mapper| mapper.get("body_format_override").is_some() && !takes_faults_alone(mapper));
    part.want(
        !rewrites,
        Warning,
        mappers,
        "none with body_format_override that takes Consort's answers",
        "answers that it takes are replaced by its text",
    );
    if hands_over {
        let early = "early_header_mutation_extensions";
        let removes = list(part.at(early))
            .flat_map(|extension| list(at(extension, "typed_config.mutations")))
            .any(|mutation| mutation["remove"] == TICKET);
        part.want(
            removes,
            Warning,
            early,
            "one that removes x-consort-ticket",
            "tickets that callers made up reach Consort's door, which refuses them",
        );
    }
}

/// The fence's refusals are faults, and Consort's answers are none.
fn takes_faults_alone(mapper: &Value) -> bool {
    list(at(mapper, "filter.and_filter.filters"))
        .any(|filter| list(at(filter, "response_flag_filter.flags")).eq(["FI"]))
}

fn check_routes(
    findings: &mut Vec<Finding>,
    manager: &str,
    attached: &Attached<'_>,
    hands_over: bool,
    dump: &Dump<'_>,
) {
    let routes = attached.manager.routes;
    let mut whole = Part { place: manager.to_owned(), value: routes, findings: &mut *findings };
    if routes.is_null() {
        whole.tell(
            Error,
            "",
            "no routes yet".to_owned(),
            "a route configuration",
            "every request is answered with 404",
        );
        return;
    }
    let (lists, chats): (Vec<_>, Vec<_>) = routes::asked(attached).partition(Chat::is_list);
    if chats.is_empty() {
        let is = format!("no route turns {} on", attached.name());
        whole.tell(
            Error,
            "routes",
            is,
            "typed_per_filter_config of the chat route names it",
            "aliases reach the upstream: Consort is never asked",
        );
    }
    if attached.expected.lists_models && lists.is_empty() {
        let is = "no route of /v1/models asks Consort".to_owned();
        let should_be = "one before the others whose processing_mode sends Consort the response";
        let symptom = "aliases are not in the list of models (ext_proc.list_models)";
        whole.tell(Note, "routes", is, should_be, symptom);
    }
    for chat in lists.iter().chain(&chats) {
        let place = chat.place(attached);
        check_chat(
            &mut Part { place, value: chat.route, findings: &mut *findings },
            attached,
            chat,
            hands_over,
        );
    }
    if hands_over {
        door::check(findings, attached, &chats, dump);
    }
}

fn check_chat(part: &mut Part<'_>, attached: &Attached<'_>, chat: &Chat<'_>, hands_over: bool) {
    let own = seconds(part.at("route.idle_timeout"));
    let inherited = seconds(at(attached.manager.value, "stream_idle_timeout")).unwrap_or(300.0);
    let idle = own.unwrap_or(inherited);
    let longest = attached.expected.longest_run.map(|run| run.as_secs_f64());
    if let Some(longest) = longest.filter(|longest| !hands_over && idle > 0.0 && idle < *longest) {
        let (is, should_be) =
            (format!("{idle}s"), format!("{longest}s (the longest run of this file) or more"));
        part.tell(
            Error,
            "route.idle_timeout",
            is,
            &should_be,
            "plain answers that take longer are cut off with 504",
        );
    }
    let removed: Vec<_> = [chat.route, chat.host, attached.manager.routes]
        .iter()
        .flat_map(|level| list(at(level, "request_headers_to_remove")))
        .collect();
    for name in [MARKER, TICKET] {
        let is_removed = removed.iter().any(|removed| **removed == name);
        let should_be = format!("with {name}");
        part.want(
            is_removed,
            Note,
            "request_headers_to_remove",
            &should_be,
            "a header of Consort's own may reach an upstream",
        );
    }
}
