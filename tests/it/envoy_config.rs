//! What `consort envoy-config` prints: the shipped files to the byte, and configurations that Envoys run.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use config::{Config, File, FileFormat};
use consort_testkit::envoy::replace_once;
use consort_testkit::provider::Reply;
use consort_testkit::{fetch, http, workspace};
use serde_json::{Value, json};

use crate::stack::{CHAT, Options, Stack, ms};

const MODES: [&str; 4] = ["standalone", "duplex", "buffered", "handoff"];
const EXAMPLE: &str = "deploy/consort.example.yaml";

/// The shipped files, and the configuration and arguments that they are made with.
const SHIPPED: [(&str, &str, &[&str]); 6] = [
    ("envoy.yaml", EXAMPLE, &["--mode", "standalone"]),
    ("envoy-gate.yaml", EXAMPLE, &["--mode", "standalone", "--gate"]),
    ("envoy-duplex.yaml", EXAMPLE, &["--mode", "duplex"]),
    ("envoy-buffered.yaml", EXAMPLE, &["--mode", "buffered"]),
    ("envoy-handoff.yaml", EXAMPLE, &["--mode", "handoff"]),
    (
        "compose/envoy.yaml",
        "deploy/envoy/compose/consort.yaml",
        &[
            "--mode",
            "standalone",
            "--listen",
            "0.0.0.0:10000",
            "--consort",
            "consort:50051",
            "--upstream",
            "provider:9000",
        ],
    ),
];

fn command(arguments: &[&str]) -> Command {
    command_for(EXAMPLE, arguments)
}

fn command_for(config: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consort"));
    command.args(["envoy-config", "-c", config]).args(arguments);
    command.current_dir(workspace()).env_remove("CONSORT_LISTEN");
    command
}

fn printed(arguments: &[&str]) -> String {
    printed_for(EXAMPLE, arguments)
}

fn printed_for(config: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = command_for(config, arguments).output().unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn the_shipped_files_are_what_it_prints() {
    for (file, config, arguments) in SHIPPED {
        let shipped = fs::read_to_string(workspace().join("deploy/envoy").join(file)).unwrap_or_default();
        let again = format!(
            "cargo run -q --bin consort -- envoy-config -c {config} {} > deploy/envoy/{file}",
            arguments.join(" ")
        );
        assert!(
            shipped == printed_for(config, arguments),
            "deploy/envoy/{file} differs from what is printed; make it by\n  {again}"
        );
    }
}

#[test]
fn every_bootstrap_is_one_that_envoy_takes() {
    let envoy = fetch::envoy().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for mode in MODES {
        for gate in [
            &[][..],
            &["--on-failure", "open"],
            &["--gate"],
            &["--gate", "--on-failure", "open"],
            &["--gate", "--alias-prefix", "ensemble/"],
        ] {
            let file = dir.path().join("envoy.yaml");
            let elsewhere = [
                "--consort",
                "unix:/run/consort.sock",
                "--upstream",
                "api.example.com:80",
                "--listen",
                "[::1]:1",
            ];
            for addresses in [&[][..], &elsewhere] {
                fs::write(&file, printed(&[&["--mode", mode], gate, addresses].concat())).unwrap();
                let mut validate = Command::new(&envoy);
                validate.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(&file);
                let said = validate.output().unwrap();
                let why = String::from_utf8_lossy(&said.stderr);
                assert!(said.status.success(), "{mode} {gate:?} {addresses:?}: {why}");
            }
        }
    }
}

#[test]
fn the_head_tells_every_option_that_is_no_default_as_a_shell_reads_it() {
    let arguments = [
        "--gate",
        "--alias-prefix",
        "it's $x/",
        "--on-failure",
        "open",
        "--listen",
        "[::1]:1",
        "--format",
        "istio",
    ];
    let text = printed(&[&arguments[..], &["--route", "llm", "--namespace", "default"]].concat());
    let told = text.lines().find(|line| line.starts_with("#   consort")).unwrap();
    assert_eq!(
        told,
        format!(
            "#   consort envoy-config -c {EXAMPLE} --gate --mode standalone --format istio --alias-prefix 'it'\\''s $x/' --on-failure open --listen '[::1]:1' --route llm"
        )
    );
}

#[test]
fn lists_of_models_and_a_door_with_tls_are_ones_that_envoy_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let pair = rcgen::generate_simple_self_signed(["consort".to_owned()]).unwrap();
    fs::write(&cert, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    for door in ["127.0.0.1:8080", "consort.llm:8080", "unix:/run/door.sock"] {
        // Who signed is the operator's to say.
        let ca = cert.to_str().unwrap();
        let mut print = command(&["--mode", "handoff", "--gate", "--consort-http", door, "--consort-ca", ca]);
        print.env("CONSORT__EXT_PROC__LIST_MODELS", "add").env("CONSORT__EXT_PROC__HANDOFF__ENABLED", "true");
        print.env("CONSORT__LISTEN__HTTP", "127.0.0.1:8080");
        print.env("CONSORT__HTTP__TLS__CERT", &cert).env("CONSORT__HTTP__TLS__KEY", &key);
        let text = String::from_utf8(print.output().unwrap().stdout).unwrap();
        assert!(text.contains("- name: models") && text.contains("UpstreamTlsContext"), "{text}");
        let file = dir.path().join("envoy.yaml");
        fs::write(&file, text).unwrap();
        let mut validate = Command::new(fetch::envoy().unwrap());
        validate.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(&file);
        let said = validate.output().unwrap();
        assert!(said.status.success(), "{door}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

#[test]
fn what_cannot_be_is_told() {
    for (arguments, code, why) in [
        (&["--route", "a')]"][..], 2, "expected a DNS label"),
        (&["--alias-prefix", ""], 2, "--alias-prefix"),
        (&["--listen", "nowhere"], 2, "expected `host:port` or `unix:/path`"),
        (
            &["--format", "envoy-gateway", "--consort", "10.0.0.1:1"],
            1,
            "--consort: Envoy Gateway wants a Service",
        ),
    ] {
        let said = command(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code() == Some(code) && told.contains(why), "{arguments:?}: {told}");
        assert!(said.stdout.is_empty());
    }
}

/// A document of YAML as JSON.
pub fn parsed(yaml: &str) -> Value {
    let file = File::from_str(yaml, FileFormat::Yaml);
    let config = Config::builder().add_source(file).build().unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    config.try_deserialize().unwrap()
}

/// A bootstrap of these arguments in the place of this one: it listens, and finds everybody, where that does.
pub fn instead(yaml: &str, arguments: &[&str]) -> String {
    let was = parsed(yaml);
    let at = |cluster: &str| found(&was, cluster).map(|addr| addr.to_string()).unwrap_or_default();
    let (consort, upstream, door) = (at("consort"), at("upstream"), at("consort_http"));
    let mut all = vec!["--listen", "127.0.0.1:0", "--consort", &consort, "--upstream", &upstream];
    if !door.is_empty() {
        all.extend(["--consort-http", &door]);
    }
    all.extend(arguments);
    replace_once(printed(&all), "port_value: 9901}", "port_value: 0}")
}

fn clusters(bootstrap: &Value) -> &Vec<Value> {
    bootstrap["static_resources"]["clusters"].as_array().unwrap()
}

/// Where a cluster's one host is.
fn found(bootstrap: &Value, cluster: &str) -> Option<SocketAddr> {
    let cluster = clusters(bootstrap).iter().find(|c| c["name"] == cluster)?;
    let address =
        cluster.pointer("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address")?;
    let host = address["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(host, u16::try_from(address["port_value"].as_u64()?).ok()?))
}

/// A bootstrap without anything of Consort's: what a platform has before Consort is attached to it.
struct Platform {
    bootstrap: Value,
    consort: SocketAddr,
    door: Option<SocketAddr>,
}

impl Platform {
    fn before(yaml: &str) -> Self {
        let mut bootstrap = parsed(yaml);
        let (consort, door) = (found(&bootstrap, "consort").unwrap(), found(&bootstrap, "consort_http"));
        let ours = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("consort"));
        bootstrap["static_resources"]["clusters"].as_array_mut().unwrap().retain(|c| !ours(&c["name"]));
        let mut platform = Self { bootstrap, consort, door };
        platform.listener().as_object_mut().unwrap().remove("per_connection_buffer_limit_bytes");
        let hcm = platform.hcm();
        hcm["http_filters"].as_array_mut().unwrap().retain(|f| f["name"] == "envoy.filters.http.router");
        for ours in ["early_header_mutation_extensions", "local_reply_config"] {
            hcm.as_object_mut().unwrap().remove(ours);
        }
        let host = platform.virtual_host();
        host.as_object_mut().unwrap().remove("request_headers_to_remove");
        let routes = host["routes"].as_array_mut().unwrap();
        routes.retain(|route| route["name"] != "handoff");
        for route in routes {
            route.as_object_mut().unwrap().remove("typed_per_filter_config");
        }
        platform
    }

    fn listener(&mut self) -> &mut Value {
        &mut self.bootstrap["static_resources"]["listeners"][0]
    }

    fn hcm(&mut self) -> &mut Value {
        &mut self.listener()["filter_chains"][0]["filters"][0]["typed_config"]
    }

    fn virtual_host(&mut self) -> &mut Value {
        &mut self.hcm()["route_config"]["virtual_hosts"][0]
    }

    fn route(&mut self, name: &str) -> &mut Value {
        let routes = self.virtual_host()["routes"].as_array_mut().unwrap();
        routes.iter_mut().find(|route| route["name"] == name).unwrap()
    }

    /// Adds a cluster, whose Service is on the loopback here.
    fn add_cluster(&mut self, mut cluster: Value) {
        let addr = if cluster["name"] == "consort_http" { self.door.unwrap() } else { self.consort };
        let address =
            json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}});
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        *cluster.pointer_mut(endpoint).unwrap() = address;
        cluster["type"] = "STATIC".into();
        self.bootstrap["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
    }

    fn before_the_router(&mut self, filter: Value) {
        let filters = self.hcm()["http_filters"].as_array_mut().unwrap();
        filters.insert(filters.len() - 1, filter);
    }

    /// As somebody does who pastes the parts to where they belong.
    fn paste(&mut self, parts: &Value) {
        merge(self.listener(), &parts["listener"]);
        let mut hcm = parts["http_connection_manager"].clone();
        for filter in hcm.as_object_mut().unwrap().remove("http_filters").unwrap().as_array().unwrap() {
            self.before_the_router(filter.clone());
        }
        merge(self.hcm(), &hcm);
        let mut host = parts["virtual_host"].clone();
        if let Some(routes) = host.as_object_mut().unwrap().remove("routes") {
            for route in routes.as_array().unwrap().iter().rev() {
                self.virtual_host()["routes"].as_array_mut().unwrap().insert(0, route.clone());
            }
        }
        merge(self.virtual_host(), &host);
        merge(self.route("chat"), &parts["route"]);
        for cluster in parts["clusters"].as_array().unwrap() {
            self.add_cluster(cluster.clone());
        }
    }

    /// As Istio applies an EnvoyFilter to a gateway.
    fn istio(&mut self, resource: &Value) {
        for patch in resource["spec"]["configPatches"].as_array().unwrap() {
            let (to, value) = (patch["applyTo"].as_str().unwrap(), patch["patch"]["value"].clone());
            let route = patch.pointer("/match/routeConfiguration/vhost/route/name").and_then(Value::as_str);
            match (to, patch["patch"]["operation"].as_str().unwrap()) {
                ("CLUSTER", "ADD") => self.add_cluster(value),
                ("LISTENER", "MERGE") => merge(self.listener(), &value),
                ("NETWORK_FILTER", "MERGE") => merge(self.hcm(), &value["typed_config"]),
                ("HTTP_FILTER", "INSERT_BEFORE") => self.before_the_router(value),
                ("VIRTUAL_HOST", "MERGE") => merge(self.virtual_host(), &value),
                ("HTTP_ROUTE", "MERGE") => merge(self.route(route.unwrap()), &value),
                ("HTTP_ROUTE", "INSERT_FIRST") => {
                    self.virtual_host()["routes"].as_array_mut().unwrap().insert(0, value);
                }
                other => panic!("{other:?} is nothing that Istio does"),
            }
        }
    }

    /// What Envoy Gateway makes of an EnvoyExtensionPolicy (its `internal/xds/translator/extproc.go`).
    fn extension_policy(&mut self, policy: &Value) {
        let wanted = &policy["spec"]["extProc"][0];
        let namespace = policy["metadata"]["namespace"].as_str().unwrap();
        let name = format!(
            "envoyextensionpolicy/{namespace}/{}/extproc/0",
            policy["metadata"]["name"].as_str().unwrap()
        );
        let body = wanted["processingMode"]["request"]["body"].as_str();
        let (body, trailers) = match body {
            None => ("NONE", "SKIP"),
            Some("Buffered") => ("BUFFERED", "SKIP"),
            Some("FullDuplexStreamed") => ("FULL_DUPLEX_STREAMED", "SEND"),
            Some(other) => panic!("{other}"),
        };
        let mut processor = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": name, "authority": "consort.default:50051"}, "timeout": "10s"},
            "failure_mode_allow": wanted["failOpen"],
            "allow_mode_override": wanted["processingMode"]["allowModeOverride"].as_bool().unwrap_or(false),
            "processing_mode": {
                "request_header_mode": "SEND", "request_body_mode": body, "request_trailer_mode": trailers,
                "response_header_mode": "SKIP", "response_body_mode": "NONE", "response_trailer_mode": "SKIP",
            },
            "metadata_options": {"receiving_namespaces": {"untyped": wanted["metadata"]["writableNamespaces"]}},
        });
        if let Some(timeout) = wanted["messageTimeout"].as_str() {
            processor["message_timeout"] = timeout.into();
        }
        let filter = format!("envoy.filters.http.ext_proc/{name}");
        self.before_the_router(json!({"name": filter, "disabled": true, "typed_config": processor}));
        let enabled =
            json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}});
        merge(self.route("chat"), &json!({"typed_per_filter_config": {filter: enabled}}));
        let protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        self.add_cluster(json!({
            "name": name,
            "typed_extension_protocol_options": {protocol: {
                "@type": format!("type.googleapis.com/{protocol}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {}}}]}],
            },
        }));
    }

    /// As Envoy Gateway applies an EnvoyPatchPolicy (its `internal/xds/translator/jsonpatch.go`).
    fn patch_policy(&mut self, policy: &Value) {
        for patch in policy["spec"]["jsonPatches"].as_array().unwrap() {
            let operation = &patch["operation"];
            let (path, value) = (operation["path"].as_str().unwrap(), &operation["value"]);
            let resource = match patch["type"].as_str().unwrap().rsplit('.').next().unwrap() {
                "Cluster" => {
                    assert_eq!((path, &operation["op"]), ("", &json!("add")));
                    self.add_cluster(value.clone());
                    continue;
                }
                "Listener" => self.listener(),
                "RouteConfiguration" => &mut self.hcm()["route_config"],
                other => panic!("{other}"),
            };
            let selector = operation["jsonPath"].as_str();
            let targets =
                selector.map_or_else(|| vec![String::new()], |selector| selected(resource, selector));
            assert!(!targets.is_empty(), "{selector:?} selects nothing");
            for target in targets {
                set(resource, &format!("{target}{path}"), value.clone());
            }
        }
    }
}

/// The pointers that `..key[?(@.name=='x')]` or `..key[*]` selects.
fn selected(value: &Value, selector: &str) -> Vec<String> {
    let (key, filter) = selector.strip_prefix("..").unwrap().split_once('[').unwrap();
    let name = filter.strip_prefix("?(@.name=='").and_then(|rest| rest.strip_suffix("')]"));
    assert!(name.is_some() || filter == "*]", "{selector}");
    let mut found = Vec::new();
    let mut open = vec![(String::new(), value)];
    while let Some((pointer, value)) = open.pop() {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(members) => members.iter().map(|(k, v)| (k.replace('/', "~1"), v)).collect(),
            Value::Array(elements) => elements.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
            _ => Vec::new(),
        };
        for (step, child) in children {
            let pointer = format!("{pointer}/{step}");
            let list = child.as_array().filter(|_| step == key).into_iter().flatten().enumerate();
            found.extend(
                list.filter(|(_, item)| name.is_none_or(|name| item["name"] == name))
                    .map(|(i, _)| format!("{pointer}/{i}")),
            );
            open.push((pointer, child));
        }
    }
    found
}

fn set(value: &mut Value, pointer: &str, to: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent).unwrap() {
        Value::Array(elements) => elements.insert(last.parse().unwrap(), to),
        parent => parent[last] = to,
    }
}

/// As protobuf merges messages: members of objects one by one, lists end to end.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, from) in from {
                merge(into.entry(key).or_insert(Value::Null), from);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

/// Asks through what was made, plainly, streaming, and for a plain model.
async fn answers(stack: &Stack, what: &str, arguments: &[&str]) {
    let answer = stack.ask(json!({})).send().await;
    assert_eq!(answer.header("x-ensemble-outcome"), "full", "{what} {arguments:?}: {}", answer.text());
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
    let streamed = stack.ask_stream().send().await;
    assert!(
        streamed.events().last().is_some_and(|e| e.is_done()),
        "{what} {arguments:?}: {}",
        streamed.text()
    );
    let answer = http::post(stack.envoy.addr(), CHAT).json(&json!({"model": "gpt-4o"})).send().await;
    assert_eq!(answer.header("x-upstream"), "echo", "{what} {arguments:?}: {}", answer.text());
}

fn of_mode(mode: &str) -> Options {
    if mode == "handoff" { Options::handoff() } else { Options::new() }
}

/// How a platform is given what was printed.
type Attach = fn(&mut Platform, &str);

async fn attached(format: &str, attach: Attach) {
    for mode in MODES {
        for gate in [false, true] {
            let mut arguments = vec!["--mode", mode, "--format", format];
            arguments.extend(gate.then_some("--gate"));
            let text = printed(&arguments);
            let edit = move |yaml: String| {
                let mut platform = Platform::before(&yaml);
                attach(&mut platform, &text);
                platform.bootstrap.to_string()
            };
            let stack = of_mode(mode).edit(edit).start().await;
            answers(&stack, format, &arguments).await;
            let streams = stack.envoy.stats("http.llm.ext_proc.consort.streams_started").await;
            assert_eq!(streams, if gate { 2 } else { 3 }, "{arguments:?}");
            stack.service.kill();
            let refused = stack.ask(json!({})).send().await;
            let code = if mode == "duplex" { "" } else { "ensemble_unavailable" };
            let body: Value = serde_json::from_slice(&refused.body).unwrap_or_default();
            let told = body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
            assert_eq!((refused.status.as_u16(), told), (503, code), "{arguments:?}: {}", refused.text());
        }
    }
}

#[tokio::test]
async fn the_parts_work_where_they_are_pasted() {
    attached("filter", |platform, text| platform.paste(&parsed(text))).await;
}

#[tokio::test]
async fn istios_gateway_answers_by_the_envoy_filter() {
    attached("istio", |platform, text| platform.istio(&parsed(text))).await;
}

#[tokio::test]
async fn envoy_gateway_answers_by_the_policy_and_its_patches() {
    attached("envoy-gateway", |platform, text| {
        let (policy, patches) = text.split_once("\n---\n").unwrap();
        platform.extension_policy(&parsed(policy));
        platform.patch_policy(&parsed(patches));
    })
    .await;
}

#[tokio::test]
async fn envoy_gateways_policy_answers_alone() {
    for mode in ["standalone", "duplex", "buffered"] {
        let arguments = ["--mode", mode, "--format", "envoy-gateway"];
        let text = printed(&arguments);
        let stack = Options::new()
            .edit(move |yaml| {
                let mut platform = Platform::before(&yaml);
                platform.extension_policy(&parsed(text.split_once("\n---\n").unwrap().0));
                // Its cluster is checked under the name that the tests wait for.
                let cluster = json!({"name": "consort"});
                let mut ours = clusters(&platform.bootstrap).last().unwrap().clone();
                merge(&mut ours, &cluster);
                platform.add_cluster(ours);
                platform.bootstrap.to_string()
            })
            .start()
            .await;
        answers(&stack, "policy", &arguments).await;
    }
}
