//! `consort envoy-config --doctor`: what a running Envoy lacks, where, and what comes of it.

use std::process::{Command, Output};

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::workspace;
use serde_json::Value;

use crate::envoy_config::instead;
use crate::tls::Authority;

/// Asks for the differences between this Envoy and the example, whose aliases the shipped gate has.
async fn examined(url: String, environment: &[(&str, &str)], json: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consort"));
    command.args(["envoy-config", "-c", "deploy/consort.example.yaml", "--doctor", &url]);
    command.args(json.then_some("--json")).envs(environment.iter().copied()).current_dir(workspace());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

const HANDOFF: (&str, &str) = ("CONSORT__EXT_PROC__HANDOFF__ENABLED", "true");
const DOOR: (&str, &str) = ("CONSORT__LISTEN__HTTP", "127.0.0.1:8080");

/// The findings: severity, setting (or what is, where there is none), symptom.
async fn findings(options: EnvoyOptions, environment: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let envoy = Envoy::start(options).await;
    let said = examined(format!("http://{}", envoy.admin()), environment, true).await;
    let told: Vec<Value> = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&said.stderr)));
    assert_eq!(said.status.code(), Some(if told.is_empty() { 0 } else { 1 }));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let setting = |finding: &Value| Some(text(finding, "setting")).filter(|s| !s.is_empty());
    let row =
        |f: &Value| (text(f, "severity"), setting(f).unwrap_or_else(|| text(f, "is")), text(f, "symptom"));
    told.iter().map(row).collect()
}

#[tokio::test]
async fn nothing_is_found_where_a_shipped_file_runs() {
    for file in ["envoy.yaml", "envoy-gate.yaml", "envoy-duplex.yaml", "envoy-buffered.yaml"] {
        assert_eq!(findings(EnvoyOptions::shipped(file), &[]).await, [], "{file}");
    }
    assert_eq!(findings(EnvoyOptions::shipped("envoy-handoff.yaml"), &[HANDOFF, DOOR]).await, []);
    let prefixed = EnvoyOptions::shipped("envoy.yaml")
        .edit(|yaml| instead(&yaml, &["--gate", "--alias-prefix", "ens", "--mode", "duplex"]));
    assert_eq!(findings(prefixed, &[]).await, []);
}

/// A shipped file, what is changed in it, and the one finding: its severity, its setting, a word of its symptom.
type Row = (&'static str, &'static str, &'static str, (&'static str, &'static str, &'static str));

const ROWS: [Row; 40] = [
    (
        "envoy.yaml",
        "                  consort.fence.refusal:\n                    \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig\n                    config: {}\n",
        "",
        ("warning", "typed_per_filter_config", "prompts for aliases"),
    ),
    (
        "envoy.yaml",
        "- string_match: {exact: \"maths-ensemble\"}",
        "- string_match: {exact: \"ensemble\"}",
        ("warning", "http_filters", "prompts for this alias"),
    ),
    (
        "envoy.yaml",
        "                name: envoy.filters.http.fault\n                typed_config:\n                  \"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault\n                  abort: {http_status: 503, percentage: {numerator: 100}}\n",
        "                name: envoy.filters.http.fault\n                typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 1}\n",
        ("warning", "http_filters", "reach the upstream"),
    ),
    (
        "envoy.yaml",
        "response_flag_filter: {flags: [FI]}",
        "response_flag_filter: {flags: [FI, UH]}",
        ("warning", "local_reply_config.mappers", "replaced by its text"),
    ),
    (
        "envoy-duplex.yaml",
        "max_requests: 65536, max_retries",
        "max_requests: 1024, max_retries",
        ("error", "circuit_breakers.thresholds.max_requests", "refused with status_on_error"),
    ),
    (
        "envoy.yaml",
        "host_selection_retry_max_attempts: 32",
        "host_selection_retry_max_attempts: 3",
        ("warning", "grpc_service.retry_policy.host_selection_retry_max_attempts", "restarts"),
    ),
    (
        "envoy.yaml",
        "      update_merge_window: 0s ",
        "      # ",
        ("note", "common_lb_config.update_merge_window", "later"),
    ),
    (
        "envoy-gate.yaml",
        "                  envoy.filters.http.json_to_metadata:\n                    \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig\n                    config: {}\n",
        "",
        ("warning", "typed_per_filter_config", "never shut"),
    ),
    // The table of settings that decide survival, one by one.
    (
        "envoy.yaml",
        "max_connections: 65536, max_pending_requests: 65536, max_requests: 65536, max_retries",
        "max_connections: 1024, max_pending_requests: 65536, max_requests: 65536, max_retries",
        (
            "error",
            "circuit_breakers.thresholds.max_connections",
            "run 1025 of those that wait at once is refused",
        ),
    ),
    (
        "envoy.yaml",
        "max_pending_requests: 65536, max_requests: 65536, max_retries",
        "max_requests: 65536, max_retries",
        ("error", "circuit_breakers.thresholds.max_pending_requests", "run 1025"),
    ),
    (
        "envoy.yaml",
        "max_requests: 65536, max_retries",
        "max_requests: 9000, max_retries",
        ("warning", "circuit_breakers.thresholds.max_requests", "run 9001"),
    ),
    (
        "envoy.yaml",
        "            max_outbound_control_frames: 65536\n",
        "",
        ("error", "http2_protocol_options.max_outbound_control_frames", "crowd"),
    ),
    (
        "envoy.yaml",
        "            max_outbound_frames: 131072\n",
        "",
        ("error", "http2_protocol_options.max_outbound_frames", "crowd"),
    ),
    (
        "envoy.yaml",
        "connection_keepalive: {interval: 15s, timeout: 5s}",
        "",
        ("warning", "http2_protocol_options.connection_keepalive", "vanished"),
    ),
    (
        "envoy.yaml",
        "retry_on: connect-failure,refused-stream",
        "retry_on: connect-failure",
        ("warning", "grpc_service.retry_policy.retry_on", "restarts"),
    ),
    (
        "envoy.yaml",
        "retry_back_off: {base_interval: 0.01s, max_interval: 0.05s}",
        "",
        ("warning", "grpc_service.retry_policy.retry_back_off.base_interval", "0.5-0.9 s"),
    ),
    (
        "envoy.yaml",
        "                  - name: envoy.retry_host_predicates.previous_hosts\n",
        "                  - name: envoy.retry_host_predicates.omit_canary_hosts\n",
        ("warning", "grpc_service.retry_policy.retry_host_predicate", "just refused"),
    ),
    (
        "envoy.yaml",
        "      no_traffic_interval: 3s",
        "",
        ("warning", "health_checks.no_traffic_interval", "a minute"),
    ),
    (
        "envoy.yaml",
        "grpc_health_check: {service_name: envoy.service.ext_proc.v3.ExternalProcessor}",
        "tcp_health_check: {}",
        ("warning", "health_checks", "drains or hangs"),
    ),
    (
        "envoy.yaml",
        "healthy_panic_threshold: {value: 0}             # none healthy",
        "healthy_panic_threshold: {value: 50}            # none healthy",
        ("warning", "common_lb_config.healthy_panic_threshold", "dead ones"),
    ),
    ("envoy.yaml", "delayed_close_timeout: 0.25s", "", ("note", "delayed_close_timeout", "after a second")),
    (
        "envoy.yaml",
        "status_on_error: {code: ServiceUnavailable}",
        "",
        ("warning", "status_on_error.code", "500"),
    ),
    ("envoy.yaml", "route_cache_action: RETAIN", "", ("note", "route_cache_action", "other routes")),
    ("envoy.yaml", "message_timeout: 10s ", "# ", ("error", "message_timeout", "bursts")),
    // What makes aliases fall through, or costs everybody.
    (
        "envoy.yaml",
        "              allow_mode_override: true\n",
        "",
        ("error", "allow_mode_override", "drops"),
    ),
    (
        "envoy.yaml",
        "              - request_body_mode: FULL_DUPLEX_STREAMED\n                request_trailer_mode: SEND\n",
        "              - request_body_mode: FULL_DUPLEX_STREAMED\n",
        ("error", "allowed_override_modes", "drops"),
    ),
    (
        "envoy.yaml",
        "request_body_mode: NONE\n                request_trailer_mode",
        "request_body_mode: BUFFERED_PARTIAL\n                request_trailer_mode",
        ("error", "processing_mode.request_body_mode", "does not see"),
    ),
    (
        "envoy.yaml",
        "                request_header_mode: SEND ",
        "                request_header_mode: SKIP ",
        ("error", "processing_mode.request_header_mode", ""),
    ),
    (
        "envoy.yaml",
        "response_header_mode: SKIP            # what",
        "response_header_mode: SEND            # what",
        ("warning", "processing_mode.response_header_mode", "every answer"),
    ),
    (
        "envoy.yaml",
        "failure_mode_allow: true",
        "failure_mode_allow: false",
        ("warning", "failure_mode_allow", "plain models fail"),
    ),
    (
        "envoy.yaml",
        "metadata_options: {receiving_namespaces: {untyped: [consort]}}",
        "",
        ("note", "metadata_options.receiving_namespaces.untyped", "access logs"),
    ),
    (
        "envoy.yaml",
        "              request_headers_to_remove: [x-consort-marker, x-consort-ticket]",
        "              request_headers_to_remove: [x-consort-ticket]",
        ("note", "request_headers_to_remove", "may reach"),
    ),
    (
        "envoy.yaml",
        "          local_reply_config:\n",
        "          local_reply_config:\n            body_format: {text_format_source: {inline_string: x}}\n",
        ("error", "local_reply_config.body_format", "replaced"),
    ),
    (
        "envoy.yaml",
        "route: {cluster: upstream, timeout: 0s, idle_timeout: 600s}   #",
        "route: {cluster: upstream, timeout: 0s, idle_timeout: 5s}   #",
        ("error", "route.idle_timeout", "504"),
    ),
    (
        "envoy.yaml",
        "envoy_grpc: {cluster_name: consort,",
        "envoy_grpc: {cluster_name: upstream,",
        ("error", "", ""),
    ),
    (
        "envoy-buffered.yaml",
        "max_message_timeout: 600s ",
        "# ",
        ("error", "max_message_timeout", "refuses to wait"),
    ),
    (
        "envoy-buffered.yaml",
        "per_connection_buffer_limit_bytes: 34603008",
        "per_connection_buffer_limit_bytes: 1048576",
        ("warning", "per_connection_buffer_limit_bytes", "413"),
    ),
    (
        "envoy-gate.yaml",
        "- string_match: {exact: \"maths-ensemble\"}\n                                          - string_match: {exact: \"research-ensemble\"}\n",
        "- string_match: {exact: \"ensemble\"}\n                                          - string_match: {exact: \"research-ensemble\"}\n",
        ("error", "xds_matcher", "this alias"),
    ),
    (
        "envoy-gate.yaml",
        "- string_match: {exact: \"maths-ensemble\"}\n                                          - string_match: {exact: \"research-ensemble\"}\n",
        "- or_match: {value_matchers: [{string_match: {exact: \"maths-ensemble\"}}, {string_match: {exact: \"gpt-4o\"}}]}\n                                          - string_match: {exact: \"research-ensemble\"}\n",
        ("note", "xds_matcher", "through Consort"),
    ),
    (
        "envoy.yaml",
        "                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute\n                    overrides: {} ",
        "                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute\n                    disabled: true #",
        ("error", "routes", "never asked"),
    ),
];

#[tokio::test]
async fn each_setting_that_is_changed_is_found_and_no_other() {
    let mut wrong = Vec::new();
    for (file, is, becomes, (severity, setting, symptom)) in ROWS {
        let options = EnvoyOptions::shipped(file).edit(move |yaml| replace_once(yaml, is, becomes));
        let found = findings(options, &[]).await;
        let fits = match &*found {
            // The filter's cluster is another one altogether, with much to be said of it.
            found if setting.is_empty() => !found.is_empty(),
            [(s, at, why)] => (&**s, &**at) == (severity, setting) && why.contains(symptom),
            _ => false,
        };
        if !fits {
            wrong.push(format!("{becomes:?} for {is:?}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_hand_off_is_looked_through_to_its_end() {
    let rows: [(&str, &str, &str, &str); 9] = [
        (
            "retry_on: connect-failure,refused-stream   #",
            "retry_on: connect-failure,reset #",
            "route.retry_policy.retry_on",
            "taken once",
        ),
        (
            "http_health_check: {path: /health, codec_client_type: HTTP2}",
            "tcp_health_check: {}",
            "health_checks",
            "drains",
        ),
        (
            "max_concurrent_streams: 128               # further connections open beyond it; the door's own bound is 200\n            max_outbound_control_frames: 65536",
            "max_concurrent_streams: 128\n            max_outbound_control_frames: 1000",
            "http2_protocol_options.max_outbound_control_frames",
            "crowd",
        ),
        (
            "healthy_panic_threshold: {value: 0}             # none healthy: a 503 at once",
            "healthy_panic_threshold: {value: 50}",
            "common_lb_config.healthy_panic_threshold",
            "before they fail",
        ),
        (
            "route_cache_action: DEFAULT ",
            "route_cache_action: RETAIN ",
            "route_cache_action",
            "not Consort's door",
        ),
        ("- remove: x-consort-ticket", "- remove: x-other", "early_header_mutation_extensions", "made up"),
        (
            "headers: [{name: x-consort-ticket, present_match: true}]",
            "headers: [{name: x-other, present_match: true}]",
            "no route matches x-consort-ticket",
            "with a ticket",
        ),
        (
            "timeout: 0s                         #",
            "timeout: 15s                         #",
            "route.timeout",
            "504",
        ),
        (
            "              request_headers_to_remove: [x-consort-marker]",
            "              #",
            "request_headers_to_remove",
            "may reach",
        ),
    ];
    for (is, becomes, setting, symptom) in rows {
        let options =
            EnvoyOptions::shipped("envoy-handoff.yaml").edit(move |yaml| replace_once(yaml, is, becomes));
        let found = findings(options, &[HANDOFF, DOOR]).await;
        assert!(
            found.len() == 1 && found[0].1 == setting && found[0].2.contains(symptom),
            "{becomes}: {found:#?}"
        );
    }
}

/// What `consort envoy-config` prints where the environment says so, instead of a shipped file.
fn printed_by(environment: &[(&str, &str)], arguments: &[&str]) -> EnvoyOptions {
    let mut print = Command::new(env!("CARGO_BIN_EXE_consort"));
    print
        .args(["envoy-config", "-c", "deploy/consort.example.yaml", "--listen", "127.0.0.1:0"])
        .args(arguments);
    let printed = print.envs(environment.iter().copied()).current_dir(workspace()).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let text =
        replace_once(String::from_utf8(printed.stdout).unwrap(), "port_value: 9901}", "port_value: 0}");
    EnvoyOptions::shipped("envoy.yaml").edit(|_| text)
}

#[tokio::test]
async fn what_is_spoken_between_envoy_and_consort_is_found_where_they_do_not_agree() {
    let authority = Authority::new();
    let pair = authority.pair("consort");
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let [cert, key, ca] = [path(&pair.certificate), path(&pair.key), path(&authority.ca_file())];
    let known = ["--consort-ca", &ca, "--client-cert", &cert, "--client-key", &key];
    let doors = [
        ("EXT_PROC", "standalone", "by the fence", &[][..]),
        ("HTTP", "handoff", "answered with 503", &[HANDOFF, DOOR]),
    ];
    for (door, mode, symptom, more) in doors {
        let name = |field: &str| format!("CONSORT__{door}__TLS__{field}");
        let names = ["CERT", "KEY", "CLIENT_CA"].map(name);
        let tls = [(&*names[0], &*cert), (&*names[1], &*key), (&*names[2], &*ca)];
        let [plain, server, mutual] = [0, 2, 3].map(|files| [&tls[..files], more].concat());
        let printed = |by: &[(&str, &str)]| printed_by(by, &[&["--mode", mode][..], &known].concat());
        let cut = |from: &'static str, lines: usize| {
            printed(&mutual).edit(move |yaml| {
                let at = yaml.lines().position(|line| line.contains(from)).unwrap();
                let kept = yaml.lines().enumerate().filter(|(n, _)| *n < at || *n >= at + lines);
                kept.map(|(_, line)| line).collect::<Vec<_>>().join("\n")
            })
        };
        for consistent in [&plain, &server, &mutual] {
            assert_eq!(findings(printed(consistent), consistent).await, [], "{door}");
        }
        let context = "transport_socket.common_tls_context";
        let rows = [
            (printed(&plain), &mutual, "error", "transport_socket".to_owned(), symptom),
            (printed(&mutual), &plain, "warning", "transport_socket".to_owned(), symptom),
            (printed(&server), &mutual, "error", format!("{context}.tls_certificates"), symptom),
            (
                cut("validation_context:", 4),
                &mutual,
                "warning",
                format!("{context}.validation_context"),
                "every prompt",
            ),
        ];
        for (envoy, consort, severity, setting, symptom) in rows {
            let found = findings(envoy, consort).await;
            let [(of, at, why)] = &*found else { panic!("{door} {setting}: {found:#?}") };
            assert_eq!((&**of, at), (severity, &setting), "{door}");
            assert!(why.contains(symptom), "{door} {setting}: {why}");
        }
    }
}

#[tokio::test]
async fn a_hand_off_behind_a_chat_route_is_found() {
    let options = EnvoyOptions::shipped("envoy-handoff.yaml").edit(|yaml| {
        let start = yaml.find("              - name: handoff").unwrap();
        let chat = yaml.find("              - name: chat").unwrap();
        let rest = yaml.find("              - name: rest").unwrap();
        let (door, chats) = (&yaml[start..chat], &yaml[chat..rest]);
        format!("{}{chats}{door}{}", &yaml[..start], &yaml[rest..])
    });
    let found = findings(options, &[HANDOFF, DOOR]).await;
    assert!(
        matches!(&*found, [(severity, is, _)] if severity == "error" && is.contains("behind a chat route")),
        "{found:#?}"
    );
}

#[tokio::test]
async fn lists_of_models_that_pass_consort_by_are_found() {
    let lists = ("CONSORT__EXT_PROC__LIST_MODELS", "add");
    let found = findings(EnvoyOptions::shipped("envoy.yaml"), &[lists]).await;
    assert!(
        matches!(&*found, [(severity, setting, _)] if severity == "note" && setting == "routes"),
        "{found:#?}"
    );
}

#[tokio::test]
async fn routes_that_are_discovered_and_filters_of_other_names_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("routes.yaml");
    let path = file.display().to_string();
    let options = EnvoyOptions::shipped("envoy.yaml").edit(move |yaml| {
        let (before, rest) = yaml.split_once("          route_config:\n").unwrap();
        let (routes, clusters) = rest.split_once("\n  clusters:").unwrap();
        let routes = routes.replace("envoy.filters.http.ext_proc:", "attached/consort:");
        let resource = "  \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n";
        let routes: String =
            routes.lines().map(|line| format!("{}\n", line.get(10..).unwrap_or_default())).collect();
        let routes = routes.replacen("  name: llm\n", &format!("- name: llm\n{resource}"), 1);
        std::fs::write(&file, format!("resources:\n{routes}")).unwrap();
        let before = before.replace("- name: envoy.filters.http.ext_proc\n", "- name: attached/consort\n");
        let discovered = format!(
            "          rds: {{route_config_name: llm, config_source: {{path_config_source: {{path: {path:?}}}}}}}\n"
        );
        format!("node: {{id: one, cluster: all}}\n{before}{discovered}\n  clusters:{clusters}").replace("max_retries: 64, track_remaining: true}", "max_retries: 64}").replace("delayed_close_timeout: 0.25s", "")
    });
    let found = findings(options, &[]).await;
    assert_eq!(found.iter().map(|f| &*f.1).collect::<Vec<_>>(), ["delayed_close_timeout"], "{found:#?}");
}

#[tokio::test]
async fn findings_are_told_in_words_and_so_is_an_envoy_that_is_not_there() {
    let options = EnvoyOptions::shipped("envoy.yaml")
        .edit(|yaml| replace_once(yaml, "            max_outbound_frames: 131072\n", ""));
    let envoy = Envoy::start(options).await;
    let said = examined(envoy.admin().to_string(), &[], false).await;
    let told = String::from_utf8(said.stdout).unwrap().replace(&envoy.admin().to_string(), "ADMIN");
    insta::assert_snapshot!(told, @r"
    error: cluster consort: http2_protocol_options.max_outbound_frames: 10000
      should be: 131072
      symptom: when callers leave in a crowd, the connection to Consort is closed, and every running answer with it

    ADMIN: 1 finding
    ");
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (url, why) in [
        (format!("http://{refused}"), "no Envoy can be asked at"),
        (format!("http://{}", envoy.addr()), "is this the admin interface of an Envoy?"),
        ("unix:/x".to_owned(), "--doctor wants the URL"),
    ] {
        let said = examined(url, &[], false).await;
        let told = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code() == Some(69) && told.contains(why), "{:?} {told}", said.status);
    }
}
