//! The clusters by which Envoy reaches Consort: its external processing, and its plain door.

use super::Severity::{Error, Note, Warning};
use super::{Expected, Part, Severity, at, list, transport};

const PROTOCOL: &str = "typed_extension_protocol_options";

/// The cluster of the filter.
pub(super) fn check(part: &mut Part<'_>, expected: &Expected, lets_aliases_pass: bool) {
    if part.value.is_null() {
        part.tell(
            Error,
            "",
            "no such cluster".to_owned(),
            "Consort's listen.ext_proc",
            "aliases reach the upstream, or chat requests fail",
        );
        return;
    }
    let beyond = if lets_aliases_pass {
        "passes to the upstream, prompt included (failure_mode_allow)"
    } else {
        "is refused with status_on_error, or, for an alias, by the fence"
    };
    check_breakers(part, expected.max_inflight, beyond);
    check_protocol(part, Error, "every chat request fails: gRPC is HTTP/2");
    check_health(
        part,
        "grpc_health_check",
        "grpc_health_check of envoy.service.ext_proc.v3.ExternalProcessor",
        "while no replica is well, chat requests are sent to dead ones before they pass or fail",
    );
    check_members(part);
    let symptom = format!("no health check passes, and every chat request {beyond}");
    transport::check(part, expected.transport, "ext_proc.tls", &symptom);
}

/// The cluster of the plain door, to which a hand-off leads.
pub(super) fn check_door(part: &mut Part<'_>, expected: &Expected) {
    check_breakers(part, expected.max_inflight, "is refused with 503");
    check_protocol(part, Warning, "each run takes a connection of its own");
    check_health(
        part,
        "http_health_check",
        "http_health_check of /health",
        "while no replica is well, runs are sent to dead ones before they fail",
    );
    check_members(part);
    transport::check(part, expected.door_transport, "http.tls", "every alias is answered with 503");
}

fn check_breakers(part: &mut Part<'_>, max_inflight: usize, beyond: &str) {
    let thresholds = list(part.at("circuit_breakers.thresholds"));
    // DEFAULT is the zero of its enum, which a dump leaves out.
    let of_default = thresholds.into_iter().find(|threshold| threshold.get("priority").is_none());
    let limit =
        |name: &str| of_default.and_then(|t| t.get(name)).and_then(serde_json::Value::as_u64).unwrap_or(1024);
    for name in ["max_connections", "max_pending_requests", "max_requests"] {
        let limit = limit(name);
        if limit < 65_536 {
            // Requests that only pass count as well, for a moment each.
            let severity = if limit <= max_inflight as u64 { Error } else { Warning };
            let symptom = format!("run {} of those that wait at once {beyond}", limit + 1);
            part.tell(
                severity,
                &format!("circuit_breakers.thresholds.{name}"),
                limit.to_string(),
                "65536",
                &symptom,
            );
        }
    }
}

fn check_protocol(part: &mut Part<'_>, severity: Severity, symptom: &str) {
    let http = part
        .at(PROTOCOL)
        .get("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
        .map(|options| at(options, "explicit_http_config.http2_protocol_options").clone())
        .unwrap_or_default();
    if http.is_null() {
        let is = "no HTTP/2".to_owned();
        let should_be = "explicit_http_config with http2_protocol_options";
        part.tell(severity, "http2_protocol_options", is, should_be, symptom);
        return;
    }
    let number =
        |name: &str, default: u64| http.get(name).and_then(serde_json::Value::as_u64).unwrap_or(default);
    for (name, default, wanted) in
        [("max_outbound_control_frames", 1000, 65_536), ("max_outbound_frames", 10_000, 131_072)]
    {
        let limit = number(name, default);
        if limit < wanted {
            let symptom = "when callers leave in a crowd, the connection to Consort is closed, and every running answer with it";
            part.tell(
                Error,
                &format!("http2_protocol_options.{name}"),
                limit.to_string(),
                &wanted.to_string(),
                symptom,
            );
        }
    }
    if http.get("connection_keepalive").is_none() {
        let symptom = "a replica that vanished without a word holds its requests until TCP gives up";
        part.tell(
            Warning,
            "http2_protocol_options.connection_keepalive",
            "unset".to_owned(),
            "{interval: 15s, timeout: 5s}",
            symptom,
        );
    }
}

fn check_health(part: &mut Part<'_>, kind: &str, should_be: &str, panics: &str) {
    let check = list(part.at("health_checks")).find(|check| check.get(kind).is_some()).cloned();
    let Some(check) = check else {
        part.tell(
            Warning,
            "health_checks",
            format!("no {kind}"),
            should_be,
            "a replica that drains or hangs still gets requests",
        );
        return;
    };
    let pause = super::seconds(at(&check, "no_traffic_interval")).unwrap_or(60.0);
    if pause > 10.0 {
        let symptom =
            "after a quiet night, a dead Consort is noticed after a minute, and so is one that is back";
        part.tell(Warning, "health_checks.no_traffic_interval", format!("{pause}s"), "3s", symptom);
    }
    let panic = at(part.value, "common_lb_config.healthy_panic_threshold");
    let threshold = if panic.is_null() { 50.0 } else { at(panic, "value").as_f64().unwrap_or(0.0) };
    part.want(threshold == 0.0, Warning, "common_lb_config.healthy_panic_threshold", "{value: 0}", panics);
}

/// How soon it is seen which replicas are there.
fn check_members(part: &mut Part<'_>) {
    let window = "common_lb_config.update_merge_window";
    let is_seen_at_once = part.seconds(window, 1.0) == 0.0;
    part.want(
        is_seen_at_once,
        Note,
        window,
        "0s",
        "replicas that fail or are new are noticed up to this much later",
    );
}
