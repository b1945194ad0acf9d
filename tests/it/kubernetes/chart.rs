//! The chart.

use std::fs;
use std::path::Path;
use std::process::Command;

use consort_testkit::service::Service;
use consort_testkit::{eventually, http};
use serde_json::{Value, json};

use super::objects::problems;
use super::values::{everything, ways};
use super::{Helm, Objects, document, read};
use crate::stack::ms;

#[test]
fn helm_has_nothing_to_say_against_the_chart() {
    let Some(helm) = Helm::find() else { return };
    for (way, values) in ways() {
        let linted = helm.run(["lint", "--strict"], &values);
        assert!(linted.status.success(), "{way}: {}", String::from_utf8_lossy(&linted.stdout));
    }
}

#[test]
fn every_object_is_one_that_kubernetes_takes() {
    let Some(helm) = Helm::find() else { return };
    for (way, values) in ways() {
        for object in helm.render(&values).0 {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            assert_eq!(problems(&helm.schemas, &object), [""; 0], "{way}: {kind} {name}");
        }
    }
}

#[test]
fn an_object_that_kubernetes_does_not_take_is_told_from_one_that_it_does() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&everything());
    for (kind, place, wrong) in [
        ("Deployment", "/spec/template/spec/containers/0/livenessProb", json!({})),
        ("Deployment", "/spec/replicas", json!("2")),
        ("ServiceMonitor", "/spec/endpoints/0/intervall", json!("15s")),
        ("PrometheusRule", "/spec/groups/0/rules/0/annotation", json!({})),
        ("NetworkPolicy", "/spec/egress/0/from", json!([])),
    ] {
        let mut object = objects.only(kind).clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = wrong;
        assert_eq!(problems(&helm.schemas, &object).len(), 1, "{kind} {place}");
    }
}

#[test]
fn whatever_names_another_object_finds_it() {
    let Some(helm) = Helm::find() else { return };
    for (way, values) in ways() {
        let objects = helm.render(&values);
        let labels = &objects.pod()["metadata"]["labels"];
        let deployment = objects.only("Deployment");
        let mut selectors = vec![&deployment["spec"]["selector"]["matchLabels"]];
        selectors.extend(objects.of("Service").map(|service| &service["spec"]["selector"]));
        selectors
            .extend(objects.of("PodDisruptionBudget").map(|pdb| &pdb["spec"]["selector"]["matchLabels"]));
        selectors.extend(objects.of("NetworkPolicy").map(|np| &np["spec"]["podSelector"]["matchLabels"]));
        let spread = objects.pod()["spec"]["topologySpreadConstraints"].as_array();
        selectors.extend(spread.into_iter().flatten().map(|rule| &rule["labelSelector"]["matchLabels"]));
        for selector in selectors {
            assert!(selects(selector, labels), "{way}: {selector} of {labels}");
        }
        for monitor in objects.of("ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let selected: Vec<_> = objects
                .of("Service")
                .filter(|service| selects(selector, &service["metadata"]["labels"]))
                .collect();
            assert_eq!(selected.len(), 1, "{way}: each pod is scraped once");
            let port = &monitor["spec"]["endpoints"][0]["port"];
            assert!(list(&selected[0]["spec"]["ports"]).any(|there| there["name"] == *port), "{way}: {port}");
        }
        if let Some(scaler) = objects.of("HorizontalPodAutoscaler").next() {
            assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
            assert_eq!(deployment["spec"]["replicas"], Value::Null, "two would decide");
        }
        assert_ports_are_open(way, &objects);
        assert_mounts_are_there(way, &objects);
        if let Some(account) = objects.of("ServiceAccount").next() {
            assert_eq!(objects.pod()["spec"]["serviceAccountName"], account["metadata"]["name"], "{way}");
        }
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Every port that something asks for is one at which the container listens by its environment.
fn assert_ports_are_open(way: &str, objects: &Objects) {
    let container = objects.container();
    let ports: Vec<&Value> = list(&container["ports"]).collect();
    let is_open =
        |port: &Value| ports.iter().any(|open| open["name"] == *port || open["containerPort"] == *port);
    let mut asked: Vec<&Value> = objects
        .of("Service")
        .flat_map(|service| list(&service["spec"]["ports"]))
        .map(|p| &p["targetPort"])
        .collect();
    for policy in objects.of("NetworkPolicy") {
        asked.extend(
            list(&policy["spec"]["ingress"]).flat_map(|rule| list(&rule["ports"])).map(|p| &p["port"]),
        );
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let probe = &container[probe];
        let asks = ["grpc", "httpGet"].into_iter().find(|kind| !probe[kind].is_null());
        asked.extend(asks.map(|kind| &probe[kind]["port"]));
    }
    assert!(asked.iter().all(|port| is_open(port)), "{way}: {asked:?} of {ports:?}");
    let listens = objects.environment();
    for (name, variable) in [("grpc", "EXT_PROC"), ("http", "HTTP"), ("admin", "ADMIN")] {
        let Some(port) = ports.iter().find(|port| port["name"] == name) else { continue };
        let address = &listens[&format!("CONSORT__LISTEN__{variable}")];
        assert!(address.ends_with(&format!(":{}", port["containerPort"])), "{way}: {name} at {address}");
        assert!(!address.starts_with("127."), "{way}: nobody outside reaches {address}");
    }
}

/// Every mount has its volume, and every volume of ours its object; none is of a single file.
fn assert_mounts_are_there(way: &str, objects: &Objects) {
    let volumes: Vec<&Value> = list(&objects.pod()["spec"]["volumes"]).collect();
    for mount in list(&objects.container()["volumeMounts"]) {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{way}: {mount}");
        assert_eq!(mount["subPath"], Value::Null, "{way}: {mount} would never change");
    }
    for volume in volumes {
        for (kind, name) in
            [("ConfigMap", &volume["configMap"]["name"]), ("Secret", &volume["secret"]["secretName"])]
        {
            let Some(name) = name.as_str() else { continue };
            assert!(name.starts_with("our-") || objects.named(kind, name).is_some(), "{way}: {kind} {name}");
        }
    }
}

#[test]
fn pods_may_do_no_more_than_they_must() {
    let Some(helm) = Helm::find() else { return };
    for (way, values) in ways() {
        let objects = helm.render(&values);
        let pod = &objects.pod()["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{way}");
        assert_eq!(pod["enableServiceLinks"], false, "{way}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{way}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{way}");
        let container = &objects.container()["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false, "{way}");
        assert_eq!(container["readOnlyRootFilesystem"], true, "{way}");
        assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}), "{way}");
    }
}

#[test]
fn nobody_is_let_in_where_no_peers_are_named() {
    let Some(helm) = Helm::find() else { return };
    let nobody = json!({"envoy": [], "prometheus": [], "dns": [], "providers": []});
    let policy = helm.render(&json!({"http": {"enabled": true}, "networkPolicy": nobody}));
    let spec = &policy.only("NetworkPolicy")["spec"];
    assert_eq!(list(&spec["ingress"]).chain(list(&spec["egress"])).count(), 0, "{spec}");
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    let everybody = helm.render(&everything());
    let rules = list(&everybody.only("NetworkPolicy")["spec"]["ingress"]);
    let admits: Vec<_> = rules.map(|rule| (rule["from"].as_array().map(Vec::len), ports(rule))).collect();
    assert_eq!(
        admits,
        [
            (Some(2), vec![json!("grpc"), json!("http")]),
            (Some(1), vec![json!("http")]),
            (Some(1), vec![json!("admin")])
        ]
    );
}

fn ports(rule: &Value) -> Vec<Value> {
    list(&rule["ports"]).map(|port| port["port"].clone()).collect()
}

#[test]
fn a_pod_has_far_more_memory_than_it_holds_of_bodies() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&json!({}));
    let limit = &objects.pod()["spec"]["containers"][0]["resources"]["limits"]["memory"];
    assert_eq!(limit, "1Gi");
    let config = document(objects.configuration());
    let held = config["limits"]["max_held_bytes"].as_u64().unwrap();
    assert!(held * 4 <= 1 << 30, "{held} bytes of bodies");
}

#[test]
fn a_pod_is_given_the_time_that_its_drain_takes() {
    let Some(helm) = Helm::find() else { return };
    for (delay, timeout) in [(12_000, 120_000), (0, 0), (1, 3_600_000), (7_500, 100_250)] {
        let objects = helm.render(&json!({"drain": {"delayMs": delay, "timeoutMs": timeout}}));
        let grace = objects.pod()["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        // Consort's own last steps: what is cut tells its callers (2 s), decisions (5 s) and spans (5 s) are written.
        assert!(grace * 1000 >= delay + timeout + 12_000, "{grace} s for {delay} ms and {timeout} ms");
        assert!(grace * 1000 <= delay + timeout + 20_000, "{grace} s for {delay} ms and {timeout} ms");
        let environment = objects.environment();
        assert_eq!(environment["CONSORT__DRAIN__DELAY_MS"], delay.to_string());
        assert_eq!(environment["CONSORT__DRAIN__TIMEOUT_MS"], timeout.to_string());
    }
}

#[test]
fn the_configuration_passes_consorts_check_as_the_pod_has_it() {
    let Some(helm) = Helm::find() else { return };
    for (way, values) in ways() {
        let objects = helm.render(&values);
        if objects.of("ConfigMap").next().is_none() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = mounted(&objects, dir.path());
        let mut check = Command::new(env!("CARGO_BIN_EXE_consort"));
        check.args(["check", "-c"]).arg(config).envs(objects.environment());
        let checked = check.output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{way}: {said}\n{}", objects.configuration());
    }
    let mut rendered = document(helm.render(&everything()).configuration());
    rendered.as_object_mut().unwrap().remove("signing");
    assert_eq!(rendered, everything()["config"], "nothing is lost on the way");
}

/// Lays the pod's files below a directory, and gives the configuration's place there.
fn mounted(objects: &Objects, root: &Path) -> std::path::PathBuf {
    let mut config = objects.configuration().to_owned();
    for mount in list(&objects.container()["volumeMounts"]) {
        let volume = list(&objects.pod()["spec"]["volumes"]).find(|volume| volume["name"] == mount["name"]);
        let path = mount["mountPath"].as_str().unwrap();
        let here = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(&here).unwrap();
        if let Some(secret) = volume.and_then(|volume| volume["secret"]["secretName"].as_str()) {
            let secret = objects.named("Secret", secret).expect("a Secret of the chart's");
            for (file, value) in secret["data"].as_object().unwrap() {
                // What it holds does not matter here, as long as it is long enough.
                fs::write(here.join(file), value.as_str().unwrap()).unwrap();
            }
        }
        config = config.replace(&format!("{path}/"), &format!("{}/", here.display()));
    }
    let file = root.join("etc/consort/consort.yaml");
    fs::write(&file, config).unwrap();
    file
}

/// The pods' template changes exactly where a running Consort says that it needs a restart.
#[tokio::test]
async fn new_pods_are_made_for_what_consort_cannot_follow_and_for_nothing_else() {
    let Some(helm) = tokio::task::spawn_blocking(Helm::find).await.unwrap() else { return };
    let render = |changed: &Value| helm.render(&json!({ "config": changed, "signing": {"enabled": false} }));
    let models = json!([
        {"display_name": "a", "provider": "p", "model_name": "m"},
        {"display_name": "e", "ensemble": {"panel": [{"model": "a"}], "strategy": "first"}}
    ]);
    let base = json!({
        "providers": [{"name": "p", "base_url": "http://127.0.0.1:9"}],
        "models": models
    });
    let before = render(&base);
    let service = Service::start_with(env!("CARGO_BIN_EXE_consort"), before.configuration(), |command| {
        command.env("CONSORT__LISTEN__EXT_PROC", "127.0.0.1:0");
    })
    .await;
    let changes = [
        ("/models/1/ensemble/timeout_ms", json!(1000)),
        ("/providers/0/base_url", json!("http://127.0.0.1:10")),
        ("/limits", json!({"max_inflight": 7})),
        ("/limits", json!({"store": {"redis": {"url": "redis://127.0.0.1:9"}}})),
        ("/limits", json!({"max_request_bytes": 1 << 27})),
        ("/log", json!({"level": "debug"})),
        ("/log", json!({"format": "pretty"})),
        ("/decisions", json!({"ring": 5})),
        ("/http", json!({"max_connections": 5})),
        ("/http", json!({"head_timeout_ms": 5})),
        ("/http", json!({"max_head_bytes": 8192})),
        ("/http", json!({"max_headers": 5})),
        ("/http", json!({"idle_timeout_ms": 5})),
        ("/ext_proc", json!({"model_header": "x-model"})),
        ("/ext_proc", json!({"buffered_timeout_ms": 5})),
        ("/admin", json!({"hosts": ["consort.internal"]})),
        ("/stream", json!({"heartbeat_ms": 5})),
    ];
    for (n, (place, value)) in changes.into_iter().enumerate() {
        let mut changed = base.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value.clone();
        let after = render(&changed);
        fs::write(service.config_path(), after.configuration()).unwrap();
        let generation = n + 2;
        let ready = eventually(&format!("{place} {value} to be in force"), ms(20_000), async || {
            let ready = http::get(service.admin(), "/readyz").send().await.json();
            Some(ready).filter(|ready| ready["config"]["generation"] == generation)
        })
        .await;
        let needs = list(&ready["config"]["needs_restart"]).count() > 0;
        assert_eq!(before.pod() != after.pod(), needs, "{place} {value}: {ready}");
    }
    let settings =
        json!({ "config": base, "signing": {"enabled": false}, "drain": {"delayMs": 1, "timeoutMs": 1} });
    assert_ne!(before.pod(), helm.render(&settings).pod(), "the grace period goes with the drain");
}

#[test]
fn envoy_and_consort_speak_tls_by_a_secret() {
    let Some(helm) = Helm::find() else { return };
    let with = |tls: Value| helm.render(&json!({"extProc": {"tls": tls}, "admin": {"exposed": false}}));
    for (client_ca, files) in [(true, &["CERT", "KEY", "CLIENT_CA"][..]), (false, &["CERT", "KEY"])] {
        let objects = with(json!({"existingSecret": "our-tls", "clientCa": client_ca}));
        let environment = objects.environment();
        let tls = environment.keys().filter_map(|name| name.strip_prefix("CONSORT__EXT_PROC__TLS__"));
        let mut named: Vec<_> = tls.collect();
        named.sort_by_key(|name| files.iter().position(|file| file == name));
        assert_eq!(named, files);
        for name in named {
            let file = &environment[&format!("CONSORT__EXT_PROC__TLS__{name}")];
            let (mount, _) = file.rsplit_once('/').unwrap();
            let mounted =
                list(&objects.container()["volumeMounts"]).find(|m| m["mountPath"] == mount).unwrap();
            let volume =
                list(&objects.pod()["spec"]["volumes"]).find(|v| v["name"] == mounted["name"]).unwrap();
            assert_eq!(volume["secret"]["secretName"], "our-tls");
        }
        // The kubelet speaks gRPC in plain text alone.
        for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
            let command = &objects.container()[probe]["exec"]["command"];
            assert_eq!(command, &json!(["consort", "health", "--admin", "127.0.0.1:9902"]), "{probe}");
        }
        for service in objects.of("Service") {
            let grpc = list(&service["spec"]["ports"]).find(|port| port["name"] == "grpc").unwrap();
            assert_eq!(grpc["appProtocol"], "https");
        }
    }
    let plain = with(json!({}));
    assert!(!plain.environment().keys().any(|name| name.contains("TLS")));
    assert_ne!(plain.pod(), with(json!({"existingSecret": "our-tls"})).pod());
}

#[test]
fn a_changed_key_makes_no_new_pods() {
    let Some(helm) = Helm::find() else { return };
    let with = |key: &str| helm.render(&json!({"secrets": {"files": {"openai": key}}}));
    let (before, after) = (with("sk-before"), with("sk-after"));
    let data = |objects: &Objects| objects.named("Secret", "test-consort").unwrap()["data"].clone();
    assert_ne!(data(&before), data(&after));
    assert_eq!(before.pod(), after.pod());
}

#[test]
fn a_secret_to_sign_by_is_made_where_none_is_named() {
    let Some(helm) = Helm::find() else { return };
    let made = helm.render(&json!({"signing": {"enabled": true}}));
    let secret = made.named("Secret", "test-consort-signing").expect("a Secret");
    let value = secret["data"]["secret"].as_str().unwrap();
    assert!(value.len() >= 64 * 4 / 3, "base64 of 64 characters: {value}");
    let again = helm.render(&json!({"signing": {"enabled": true}}));
    assert_ne!(again.named("Secret", "test-consort-signing").unwrap()["data"], secret["data"], "by chance");
    let named =
        helm.render(&json!({"signing": {"enabled": true, "existingSecret": "our-secret", "key": "k"}}));
    assert_eq!(named.of("Secret").count(), 0);
    let config = document(named.configuration());
    assert_eq!(config["signing"], json!({"secret_files": ["/run/secrets/consort-signing/k"]}));
}

#[test]
fn what_the_door_speaks_is_said_for_a_configuration_that_the_chart_cannot_see() {
    let Some(helm) = Helm::find() else { return };
    let own = |tls: bool| json!({"existingConfigMap": "ours", "http": {"enabled": true, "tls": tls}});
    let seen = json!({"config": {"http": {"tls": {"cert": "c", "key": "k"}}}, "http": {"enabled": true}});
    for (values, protocol) in [(own(true), "https"), (own(false), "http"), (seen, "https")] {
        let objects = helm.render(&values);
        for service in ["test-consort", "test-consort-headless"] {
            let service = objects.named("Service", service).expect("a Service");
            let ports = service["spec"]["ports"].as_array().unwrap();
            let door = ports.iter().find(|port| port["name"] == "http").expect("the door's port");
            assert_eq!(door["appProtocol"], protocol, "{values}");
        }
    }
}

#[test]
fn rules_and_dashboard_are_the_shipped_ones() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&everything());
    let rules = &objects.only("PrometheusRule")["spec"];
    assert_eq!(rules, &document(&read("deploy/prometheus/consort.rules.yaml")));
    let dashboard = objects.named("ConfigMap", "test-consort-dashboard").expect("a ConfigMap");
    let text = dashboard["data"]["test-consort.json"].as_str().unwrap();
    let shipped: Value = serde_json::from_str(&read("deploy/grafana/consort.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), shipped);
}

#[test]
fn the_documents_values_are_ones_to_install_with() {
    let Some(helm) = Helm::find() else { return };
    let text = read("docs/kubernetes.md");
    let blocks: Vec<_> =
        text.split("```yaml kubernetes\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let objects = helm.render(&document(block));
        let dir = tempfile::tempdir().unwrap();
        let config = mounted(&objects, dir.path());
        let environment = objects.environment();
        let mut check = Command::new(env!("CARGO_BIN_EXE_consort"));
        let checked = check.args(["check", "-c"]).arg(config).envs(environment).output().unwrap();
        assert!(checked.status.success(), "{block}\n{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn the_autoscaler_and_the_adapter_speak_of_one_metric() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&everything());
    let metrics = &objects.only("HorizontalPodAutoscaler")["spec"]["metrics"];
    let metric = metrics[0]["pods"]["metric"]["name"].as_str().unwrap();
    assert_eq!(metrics[0]["pods"]["target"]["averageValue"], "100000", "no power of ten");
    assert!(consort::telemetry::metrics::ALL.iter().any(|known| known.name == metric));
    let rule = &document(&read("deploy/kubernetes/prometheus-adapter-values.yaml"))["rules"]["custom"][0];
    assert_eq!(rule["name"]["as"], metric);
    assert!(rule["seriesQuery"].as_str().unwrap().starts_with(&format!("{metric}{{")));
}

#[test]
fn values_that_are_wrong_are_refused_by_name() {
    let Some(helm) = Helm::find() else { return };
    for (values, said) in [
        (json!({"replica": 2}), "at '': additional properties 'replica' not allowed"),
        (json!({"replicas": "two"}), "at '/replicas': got string, want integer"),
        (json!({"http": {"port": 70_000}}), "at '/http/port': maximum: got 70,000, want 65,535"),
        (json!({"drain": {"delayMs": -1}}), "at '/drain/delayMs': minimum: got -1, want 0"),
        (json!({"image": {"digest": "latest"}}), "at '/image/digest': 'latest' does not match pattern"),
        (json!({"networkPolicy": {"envoy": {}}}), "at '/networkPolicy/envoy': got object, want array"),
        (
            json!({"config": {"listen": {"admin": "none"}}}),
            "config.listen: is the chart's to say: set extProc.port, http and admin",
        ),
        (
            json!({"config": {"drain": {}}}),
            "config.drain: is the chart's to say: set drain.delayMs and drain.timeoutMs",
        ),
        (
            json!({"config": {"signing": {}}, "signing": {"enabled": true}}),
            "config.signing: the chart says it where signing.enabled is true",
        ),
        (
            json!({"secrets": {"files": {"a": "b"}, "existingSecret": "c"}}),
            "secrets: files and existingSecret exclude each other",
        ),
        (
            json!({"serviceMonitor": {"enabled": true}, "admin": {"exposed": false}}),
            "serviceMonitor.enabled: needs admin.exposed",
        ),
        (
            json!({"autoscaling": {"enabled": true, "inflight": {"enabled": false}}}),
            "autoscaling: needs inflight.enabled or cpu.enabled to go by",
        ),
        (
            json!({"autoscaling": {"enabled": true, "minReplicas": 11}}),
            "autoscaling.minReplicas: must not exceed autoscaling.maxReplicas",
        ),
    ] {
        let refusal = helm.refusal(&values);
        assert!(refusal.contains(said), "{values}: {refusal}");
    }
}

#[test]
fn the_notes_say_what_an_installation_lacks() {
    let Some(helm) = Helm::find() else { return };
    let notes = |values: &Value| {
        let shown = helm.run(["install", "test", "--dry-run=client", "--namespace", "llm"], values);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let text = String::from_utf8(shown.stdout).unwrap();
        text.split_once("\nNOTES:\n").expect("notes").1.to_owned()
    };
    let bare = notes(&json!({"http": {"enabled": true}, "networkPolicy": {"enabled": false}}));
    for said in ["test-consort-headless.llm.svc:50051", "no models", "asks for no key", "every pod reaches"] {
        assert!(bare.contains(said), "{said}: {bare}");
    }
    let long = json!([{"display_name": "slow", "ensemble": {"panel": [], "deadline_ms": 300_000}}]);
    let told = notes(&json!({"config": {"models": long}}));
    assert!(told.contains("slow may take 300000 ms, and drain.timeoutMs ends it after 120000 ms"), "{told}");
    let own = notes(&json!({"existingConfigMap": "ours", "signing": {"key": "k"}}));
    let block = "if ours names it; without this, each makes up its own:\n\n  signing:\n    \
                 secret_files: [/run/secrets/consort-signing/k]\n";
    assert!(own.contains(block), "{own}");
    assert!(!notes(&everything()).contains("NOTE: "), "nothing to say of one that is complete");
}
