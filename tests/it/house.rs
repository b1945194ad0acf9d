//! The house's own rules: what imports what, how long a file may be, and that whatever we ship loads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use consort::config::{Environment, Format, Source};
use consort_testkit::{fetch, workspace};

/// From the top down: a module may name those that stand below it. One line is one layer; within it, none names another.
const LAYERS: [&[&str]; 10] = [
    &["main"],
    &["cli"],
    &["app"],
    // What people run beside the service; it needs nothing of it.
    &["envoy_config"],
    &["ext_proc", "http"],
    // What every door does with a request, so that no door does it its own way.
    &["dispatch"],
    &["ensemble"],
    &["upstream"],
    &["limits"],
    &["telemetry"],
];
/// Below all layers, and free of them and of each other: what is said, and how Consort knows its own word.
const BOTTOM: [&str; 2] = ["chat", "signing"];
/// It builds the runtime types of all layers below these, which alone may name it.
const CONFIG: (&str, &[&str]) = ("config", &["main", "cli", "app"]);

/// Crates that are one module's business.
const RESERVED: [(&str, &[&str]); 18] = [
    ("envoy_types", &["ext_proc"]),
    ("hyper", &["upstream", "http"]),
    // Spans are exported over HTTP, below the layer that calls providers, and Envoy's admin interface is asked by it.
    ("hyper_util", &["upstream", "http", "telemetry", "envoy_config"]),
    ("hyper_rustls", &["upstream", "telemetry"]),
    ("redis", &["limits"]),
    // `app` puts the listeners' routes together.
    ("axum", &["http", "app"]),
    ("notify", &["app"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("tokio_rustls", &["http"]),
    // The key digests of the plain door.
    ("subtle", &["http"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_http", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("tower_service", &["upstream"]),
    ("minijinja", &["envoy_config"]),
    // What is asked of the system for the process as a whole.
    ("rustix", &["cli"]),
    // Secrets come in by the configuration.
    ("zeroize", &["config"]),
];

/// Files that are longer than a reader likes, and why.
const LONG: [(&str, &str); 0] = [];
const LINES: usize = 400;

/// A file of `src/`: its path there, its module, its text without comments.
struct SourceFile {
    path: String,
    module: String,
    text: String,
    lines: usize,
}

fn sources() -> Vec<SourceFile> {
    let root = workspace().join("src");
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("src/ is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(read(&root, &path));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 20, "the sources were found");
    files
}

fn read(root: &Path, path: &Path) -> SourceFile {
    let text = fs::read_to_string(path).expect("a readable file");
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let path = path.strip_prefix(root).expect("below src/").display().to_string();
    let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    SourceFile { path, module, lines: text.lines().count(), text: code.join("\n") }
}

/// The first names of the paths that begin with `prefix`: `crate::chat::Body` has `chat`, and `crate::{a, b::C}` has both.
fn named(text: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(first_names(group)),
            None => names.push(name(rest)),
        }
    }
    names
}

fn name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of every element of a group, up to its closing brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut begins) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                names.push(name(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn rank(module: &str) -> Option<usize> {
    if BOTTOM.contains(&module) {
        Some(LAYERS.len())
    } else {
        LAYERS.iter().position(|layer| layer.contains(&module))
    }
}

fn may_name(from: &str, to: &str) -> bool {
    let (config, users) = CONFIG;
    if from == to || from == "lib" {
        return true;
    }
    if to == config {
        return users.contains(&from);
    }
    if from == config {
        return !users.contains(&to);
    }
    matches!((rank(from), rank(to)), (Some(from), Some(to)) if from < to)
}

#[test]
fn imports_run_downwards_only() {
    let modules: Vec<String> = sources().iter().map(|file| file.module.clone()).collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::<(String, String), usize>::new();
    for file in sources() {
        let known = file.module == "lib" || file.module == CONFIG.0 || rank(&file.module).is_some();
        assert!(known, "{} is a module without a layer", file.path);
        let own = if file.module == "main" { "consort::" } else { "crate::" };
        for to in named(&file.text, own).into_iter().filter(|to| modules.contains(to)) {
            if !may_name(&file.module, &to) {
                wrong.push(format!("{} names {to}", file.path));
            }
            *seen.entry((file.module.clone(), to)).or_default() += 1;
        }
        // A chain of `super` as long as the file lies deep would leave its module unseen.
        let deep = file.path.split('/').count() - usize::from(file.path.ends_with("mod.rs"));
        if file.module != "main" && file.text.contains(&"super::".repeat(deep.max(1) + 1)) {
            wrong.push(format!("{} leaves its module by super", file.path));
        }
    }
    assert!(
        seen.contains_key(&("ext_proc".to_owned(), "ensemble".to_owned())),
        "imports were found: {seen:?}"
    );
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn envoys_types_and_hypers_client_have_one_home_each() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (name, homes) in RESERVED {
            if !named(&file.text, &format!("{name}::")).is_empty() && !homes.contains(&&*file.module) {
                wrong.push(format!("{} names {name}", file.path));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn paths_are_read_as_they_are_written() {
    let text = "use crate::{a, b::{C, D}, e as f};\nfn x() -> crate::g::H {}\nother_crate::i crate::j::k";
    assert_eq!(named(text, "crate::"), ["a", "b", "e", "g", "j"]);
    assert!(may_name("ensemble", "chat") && may_name("config", "ext_proc") && may_name("app", "config"));
    assert!(!may_name("chat", "ensemble") && !may_name("ensemble", "config") && !may_name("config", "app"));
    assert!(
        !may_name("telemetry", "limits") && !may_name("signing", "chat") && !may_name("http", "ext_proc")
    );
}

#[test]
fn no_file_is_long_without_a_reason() {
    let of = |path: &str| LONG.iter().find(|(long, _)| *long == path);
    let files = sources();
    let surprises: Vec<String> = files
        .iter()
        .filter(|file| file.lines > LINES && of(&file.path).is_none())
        .map(|file| format!("{} has {} lines", file.path, file.lines))
        .collect();
    assert_eq!(surprises, [""; 0]);
    let excused = |path: &str| files.iter().any(|file| file.path == path && file.lines > LINES);
    assert!(
        LONG.iter().all(|(path, why)| excused(path) && !why.is_empty()),
        "an excuse that is no longer needed"
    );
}

/// The YAML files below `deploy/`, apart from templates of charts, which are none until they are rendered.
fn shipped() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![workspace().join("deploy")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("deploy/ is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "templates") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[track_caller]
pub fn assert_consort_loads(name: &str, text: &str) {
    let variables =
        [("OPENAI_API_KEY", "sk-test"), ("CONSORT_SIGNING_SECRET", "of-a-test-and-of-at-least-32-bytes")];
    let environment = Environment::from(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let source = Source { name, text, format: Format::Yaml, environment: &environment };
    if let Err(problems) = source.load() {
        panic!("{name}: {problems}\n{text}");
    }
}

#[test]
fn every_yaml_that_we_ship_loads() {
    let envoy = fetch::envoy().expect("Envoy is found or fetched");
    let (mut for_envoy, mut for_consort) = (0, 0);
    for path in shipped() {
        let text = fs::read_to_string(&path).expect("a readable file");
        if text.lines().any(|line| line.starts_with("static_resources:")) {
            let mut validate = Command::new(&envoy);
            validate.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(&path);
            let checked = validate.output().expect("Envoy runs");
            assert!(
                checked.status.success(),
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&checked.stderr)
            );
            for_envoy += 1;
        } else if is_of_consort(&text) {
            assert_consort_loads(&path.display().to_string(), &text);
            for_consort += 1;
        }
    }
    assert!(for_envoy >= 2 && for_consort >= 1, "{for_envoy} files of Envoy's, {for_consort} of ours");
}

/// Whether a text's first key is one of a configuration of Consort's.
pub fn is_of_consort(text: &str) -> bool {
    let schema = consort::config::json_schema();
    let first = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    first.split_once(':').is_some_and(|(key, _)| !schema["properties"][key].is_null())
}
