//! The filter itself.

use serde_json::Value;

use super::Severity::{Error, Note, Warning};
use super::attachment::Attached;
use super::dump::Dump;
use super::{Part, at, list};

/// The first Envoy that takes a mode override by itself.
const STANDALONE: (u64, u64) = (1, 40);

pub(super) fn check(part: &mut Part<'_>, attached: &Attached<'_>, dump: &Dump<'_>) {
    let expected = attached.expected;
    let asks = matches!(attached.body, "NONE" | "STREAMED");
    check_mode(part, attached.body, asks && expected.overrides_mode, dump.version);
    if attached.body != "FULL_DUPLEX_STREAMED" {
        let fails_open = part.at("failure_mode_allow") == true;
        part.want(
            fails_open,
            Warning,
            "failure_mode_allow",
            "true",
            "while Consort is down, plain models fail as well",
        );
        let timeout = part.seconds("message_timeout", 0.2);
        part.want(
            timeout >= 5.0,
            Error,
            "message_timeout",
            "10s",
            "504 in bursts, before Consort has said a word",
        );
    }
    let hands_over = attached.body == "BUFFERED" && expected.handoff;
    if attached.body == "BUFFERED" && !hands_over {
        let wanted = expected.buffered_timeout.as_secs_f64();
        part.want(
            part.seconds("max_message_timeout", 0.0) >= wanted,
            Error,
            "max_message_timeout",
            &format!("{wanted}s (ext_proc.buffered_timeout_ms) or more"),
            "runs that take longer than message_timeout are cut off: Envoy refuses to wait longer",
        );
    }
    let picks_the_idlest =
        dump.cluster(attached.cluster()).is_some_and(|cluster| at(cluster, "lb_policy") == "LEAST_REQUEST");
    check_retries(part, picks_the_idlest);
    let status = part.at("status_on_error.code") == "ServiceUnavailable";
    part.want(
        status,
        Warning,
        "status_on_error.code",
        "ServiceUnavailable",
        "clients are told 500 and do not try again",
    );
    let observes = part.at("observability_mode") == true;
    part.want(
        !observes,
        Error,
        "observability_mode",
        "false",
        "Envoy waits for no answer: aliases reach the upstream",
    );
    check_routing(part, hands_over, expected.clears_route_cache);
    if !hands_over {
        let namespaces = "metadata_options.receiving_namespaces.untyped";
        let may_write = list(part.at(namespaces)).any(|namespace| namespace == "consort");
        part.want(
            may_write,
            Note,
            namespaces,
            "[consort]",
            "%DYNAMIC_METADATA(consort)% is empty in access logs",
        );
    }
}

fn check_mode(part: &mut Part<'_>, body: &str, overrides: bool, version: Option<(u64, u64)>) {
    let setting = "processing_mode.request_header_mode";
    part.want(
        part.at(setting) != "SKIP",
        Error,
        setting,
        "SEND",
        "aliases reach the upstream, or requests fail",
    );
    let is_known = matches!(body, "BUFFERED" | "FULL_DUPLEX_STREAMED") || overrides;
    part.want(
        is_known,
        Error,
        "processing_mode.request_body_mode",
        "NONE with ext_proc.mode_override: standalone, FULL_DUPLEX_STREAMED or BUFFERED",
        "Consort does not see bodies: aliases reach the upstream",
    );
    for (setting, fine) in [
        ("processing_mode.response_header_mode", &["SKIP"][..]),
        ("processing_mode.response_body_mode", &["", "NONE"]),
        ("processing_mode.response_trailer_mode", &["", "DEFAULT", "SKIP"]),
    ] {
        let is_fine = fine.contains(&part.at(setting).as_str().unwrap_or_default());
        let should_be = fine.last().copied().unwrap_or_default();
        part.want(is_fine, Warning, setting, should_be, "every answer of an upstream waits for Consort");
    }
    if !overrides {
        return;
    }
    let allows = part.at("allow_mode_override") == true;
    part.want(
        allows,
        Error,
        "allow_mode_override",
        "true",
        "aliases reach the upstream: Envoy drops Consort's mode override",
    );
    let listed = part.at("allowed_override_modes").as_array().is_none_or(|modes| modes.iter().any(is_ours));
    part.want(
        listed,
        Error,
        "allowed_override_modes",
        "FULL_DUPLEX_STREAMED with request trailers SEND, everything of the response SKIP or NONE",
        "aliases reach the upstream: Envoy drops Consort's mode override",
    );
    if let Some(older @ (major, minor)) = version.filter(|version| *version < STANDALONE) {
        let is = format!("Envoy {major}.{minor}");
        let should_be =
            if older >= (1, 37) { "Envoy 1.40, or --mode duplex" } else { "Envoy 1.40, or --mode buffered" };
        part.tell(
            Error,
            "",
            is,
            should_be,
            "aliases reach the upstream: this Envoy knows no standalone mode override",
        );
    }
}

/// Whether this is the mode that Consort asks for, as Envoy compares it. Zeros are not in a dump.
fn is_ours(mode: &Value) -> bool {
    let is =
        |field: &str, wanted: &str| mode.get(field).and_then(Value::as_str).unwrap_or_default() == wanted;
    is("request_body_mode", "FULL_DUPLEX_STREAMED")
        && is("request_trailer_mode", "SEND")
        && is("response_header_mode", "SKIP")
        && is("response_body_mode", "")
        && is("response_trailer_mode", "SKIP")
}

fn check_retries(part: &mut Part<'_>, picks_the_idlest: bool) {
    let retry_on = "grpc_service.retry_policy.retry_on";
    let listed = part.at(retry_on).as_str().unwrap_or_default();
    let retries = ["connect-failure", "refused-stream"].iter().all(|cause| listed.contains(cause));
    part.want(
        retries,
        Warning,
        retry_on,
        "connect-failure,refused-stream",
        "while a replica restarts, requests fail that another would take",
    );
    if retries {
        let pause = "grpc_service.retry_policy.retry_back_off.base_interval";
        let is_short = part.seconds(pause, 0.025) <= 0.02;
        part.want(
            is_short,
            Warning,
            pause,
            "0.01s",
            "while Consort is down, each chat request takes 0.5-0.9 s longer",
        );
        let hosts = "grpc_service.retry_policy.retry_host_predicate";
        let elsewhere =
            list(part.at(hosts)).any(|host| host["name"] == "envoy.retry_host_predicates.previous_hosts");
        part.want(
            elsewhere,
            Warning,
            hosts,
            "envoy.retry_host_predicates.previous_hosts",
            "a retry may go to the replica that has just refused",
        );
        let attempts = "grpc_service.retry_policy.host_selection_retry_max_attempts";
        let finds_another = !picks_the_idlest || part.number(attempts, 1.0) >= 32.0;
        part.want(
            finds_another,
            Warning,
            attempts,
            "32: LEAST_REQUEST prefers the replica that has just refused",
            "while a replica restarts, requests pass to the upstream or fail",
        );
    }
}

fn check_routing(part: &mut Part<'_>, hands_over: bool, clears: bool) {
    let setting = "route_cache_action";
    let action = part.at(setting).as_str().unwrap_or("DEFAULT");
    if hands_over {
        part.want(
            action != "RETAIN",
            Error,
            setting,
            "DEFAULT",
            "requests with a ticket reach the upstream, not Consort's door",
        );
    } else if clears {
        part.want(
            action != "RETAIN",
            Error,
            setting,
            "DEFAULT",
            "what goes to `otherwise` keeps the route of its alias (ext_proc.clear_route_cache)",
        );
    } else {
        part.want(
            action == "RETAIN",
            Note,
            setting,
            "RETAIN",
            "a processor could move requests to other routes",
        );
    }
}
