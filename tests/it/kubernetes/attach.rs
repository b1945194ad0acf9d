//! The attachments: made by `consort envoy-config`, and taken by Envoy.

use std::fs;
use std::process::Command;

use consort_testkit::{fetch, workspace};
use serde_json::{Value, json};

use super::objects::problems;
use super::{Helm, document, documents, read};

const DIRECTORY: &str = "deploy/kubernetes/attach";
/// Where the chart makes Consort known, for a release `consort` in the namespace `default`.
const CONSORT: &str = "consort-headless.default.svc.cluster.local:50051";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

#[test]
fn the_attachments_are_what_consort_prints() {
    for format in ["envoy-gateway", "istio"] {
        let arguments =
            ["envoy-config", "-c", "deploy/consort.example.yaml", "--consort", CONSORT, "--format", format];
        let mut print = Command::new(env!("CARGO_BIN_EXE_consort"));
        let printed = print.current_dir(workspace()).args(arguments).output().unwrap();
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let file = format!("{DIRECTORY}/{format}.yaml");
        assert!(
            read(&file).as_bytes() == printed.stdout,
            "{file} is to be made anew: cargo run -q --bin consort -- {} > {file}",
            arguments.join(" ")
        );
    }
}

#[test]
fn istio_takes_its_attachment() {
    let Some(helm) = Helm::find() else { return };
    let filter = document(&read(&format!("{DIRECTORY}/istio.yaml")));
    assert_eq!(problems(&helm.schemas, &filter), [""; 0]);
    let mut wrong = filter;
    wrong["spec"]["configPatches"][0]["patch"]["operation"] = json!("APPEND");
    assert_eq!(problems(&helm.schemas, &wrong).len(), 1, "another one is told from it");
}

#[test]
fn envoy_takes_what_the_attachments_patch_in() {
    for name in ["envoy-gateway", "istio", "envoy-ai-gateway-ext-proc"] {
        let patches = Patches::of(name);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("envoy.json");
        fs::write(&file, patches.bootstrap().to_string()).unwrap();
        let mut validate = Command::new(fetch::envoy().expect("Envoy is found or fetched"));
        validate.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(file);
        let validated = validate.output().unwrap();
        assert!(validated.status.success(), "{name}: {}", String::from_utf8_lossy(&validated.stderr));
    }
}

#[test]
fn before_envoy_ai_gateway_stands_the_same_filter_under_a_name_that_it_does_not_look_for() {
    let (gateway, ai) = (Patches::of("envoy-gateway"), Patches::of("envoy-ai-gateway-ext-proc"));
    assert_eq!(gateway.cluster, ai.cluster);
    assert_eq!(gateway.filter["typed_config"], ai.filter["typed_config"]);
    assert!(!ai.filter["name"].as_str().unwrap().starts_with("envoy.filters.http."), "{}", ai.filter["name"]);
    assert_eq!(ai.filter["disabled"], Value::Null, "no route turns it on");
}

#[test]
fn envoy_ai_gateway_routes_every_alias_to_the_http_door() {
    let resources = documents(&read(&format!("{DIRECTORY}/envoy-ai-gateway.yaml")));
    let of =
        |kind: &str| resources.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("{kind}"));
    let rule = &of("AIGatewayRoute")["spec"]["rules"][0];
    let routed: Vec<_> = rule["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert_eq!(one["headers"][0]["name"], "x-ai-eg-model");
            one["headers"][0]["value"].as_str().unwrap()
        })
        .collect();
    let example = document(&read("deploy/consort.example.yaml"));
    let models = example["models"].as_array().unwrap().iter();
    let ensembles = models.filter(|model| !model["ensemble"].is_null()).map(|model| &model["display_name"]);
    let aliases: Vec<_> = ensembles.chain([&example["overrides"]["ad_hoc"]["alias"]]).collect();
    assert_eq!(aliases, routed);
    let service = of("AIServiceBackend");
    assert_eq!(rule["backendRefs"][0]["name"], service["metadata"]["name"]);
    assert_eq!(service["spec"]["backendRef"]["name"], of("Backend")["metadata"]["name"]);
    let door = &of("Backend")["spec"]["endpoints"][0]["fqdn"];
    assert_eq!(door["hostname"], CONSORT.split(':').next().unwrap());
    assert_eq!(door["port"], document(&read("deploy/kubernetes/consort/values.yaml"))["http"]["port"]);
}

/// What an attachment makes of an Envoy.
struct Patches {
    cluster: Value,
    filter: Value,
    /// Those behind it.
    fence: Vec<Value>,
    manager: Value,
    route: Value,
}

impl Patches {
    fn of(name: &str) -> Self {
        let resources = documents(&read(&format!("{DIRECTORY}/{name}.yaml")));
        let mut patches = Self {
            cluster: Value::Null,
            filter: Value::Null,
            fence: Vec::new(),
            manager: json!({}),
            route: json!({}),
        };
        for patch in resources.iter().flat_map(|one| one["spec"]["configPatches"].as_array()).flatten() {
            let value = patch["patch"]["value"].clone();
            match patch["applyTo"].as_str().unwrap() {
                "CLUSTER" => patches.cluster = value,
                "HTTP_FILTER" if value["name"] == "envoy.filters.http.ext_proc" => patches.filter = value,
                "HTTP_FILTER" => patches.fence.push(value),
                "NETWORK_FILTER" => patches.manager = value["typed_config"].clone(),
                "HTTP_ROUTE" => patches.route = value,
                // Those that are merged elsewhere are proven where they are generated.
                _ => {}
            }
        }
        for patch in resources.iter().flat_map(|one| one["spec"]["jsonPatches"].as_array()).flatten() {
            let value = patch["operation"]["value"].clone();
            match patch["operation"]["path"].as_str().unwrap() {
                "" if patch["name"] == "consort" => patches.cluster = value,
                "" => patches.fence.push(value),
                "/typed_config" => patches.filter = json!({"name": "consort", "typed_config": value}),
                "/typed_config/http_filters/0" => patches.filter = value,
                path => {
                    if let Some(field) = path.strip_prefix("/typed_config/") {
                        patches.manager[field] = value;
                    }
                }
            }
        }
        assert!(!patches.cluster.is_null() && !patches.filter.is_null(), "{name}");
        patches
    }

    /// An Envoy with nothing else.
    fn bootstrap(&self) -> Value {
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        }});
        let mut route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 404}});
        merge(&mut route, &self.route);
        let filters = [std::slice::from_ref(&self.filter), &*self.fence, &[router]].concat();
        let mut manager = json!({
            "@type": MANAGER,
            "stat_prefix": "test",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": filters
        });
        merge(&mut manager, &self.manager);
        let filter =
            json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
        json!({"static_resources": {
            "clusters": [self.cluster],
            "listeners": [{
                "name": "test",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"filters": [filter]}]
            }]
        }})
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}
