//! What stands around the filter: the listener, its connection manager, and the routes that turn Consort on.

use serde_json::Value;

use super::Severity::{Error, Note, Warning};
use super::attachment::Attached;
use super::dump::Dump;
use super::{Finding, Part, at, list, seconds};

const TICKET: &str = "x-consort-ticket";
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
    let rewrites = list(part.at(mappers)).any(|mapper| mapper.get("body_format_override").is_some());
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

/// A route on which Consort is asked, and its virtual host.
struct Chat<'a> {
    host: &'a Value,
    route: &'a Value,
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
    let hosts = || list(at(routes, "virtual_hosts"));
    let each = hosts().flat_map(|host| list(at(host, "routes")).map(move |route| Chat { host, route }));
    let chats: Vec<_> = each.filter(|chat| is_on(attached, routes, chat)).collect();
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
    for chat in &chats {
        let name = at(chat.route, "name").as_str().unwrap_or("without a name");
        let place = format!("listener {}, route {name}", attached.listener());
        check_chat(
            &mut Part { place, value: chat.route, findings: &mut *findings },
            attached,
            chat,
            hands_over,
        );
    }
    if hands_over {
        let leads = |route: &&Value| list(at(route, "match.headers")).any(|header| header["name"] == TICKET);
        let door = hosts().flat_map(|host| list(at(host, "routes"))).find(leads);
        check_door(findings, attached.listener(), door, dump);
    }
}

/// Whether Consort is asked there: the most specific word counts.
fn is_on(attached: &Attached<'_>, routes: &Value, chat: &Chat<'_>) -> bool {
    let word = |value: &Value| {
        let word = at(value, "typed_per_filter_config").get(attached.name())?;
        Some(word.get("disabled") != Some(&Value::Bool(true)))
    };
    let by_default = attached.filter.get("disabled") != Some(&Value::Bool(true));
    word(chat.route).or_else(|| word(chat.host)).or_else(|| word(routes)).unwrap_or(by_default)
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

fn check_door(findings: &mut Vec<Finding>, listener: &str, door: Option<&Value>, dump: &Dump<'_>) {
    let place = format!("listener {listener}, route to Consort's door");
    let Some(door) = door else {
        let mut part = Part { place, value: &Value::Null, findings };
        let is = "no route matches x-consort-ticket".to_owned();
        part.tell(
            Error,
            "",
            is,
            "one before the others, to the cluster of Consort's listen.http",
            "aliases reach the upstream, with a ticket",
        );
        return;
    };
    let mut part = Part { place, value: door, findings };
    let is_unbound = part.seconds("route.timeout", 15.0) == 0.0;
    part.want(
        is_unbound,
        Error,
        "route.timeout",
        "0s",
        "answers that take longer than this are cut off with 504",
    );
    let cluster = part.at("route.cluster").as_str().unwrap_or_default();
    let is_there = dump.cluster(cluster).is_some();
    part.want(
        is_there,
        Error,
        "route.cluster",
        "the cluster of Consort's listen.http",
        "every alias is answered with 503",
    );
}
