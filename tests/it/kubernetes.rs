//! The Helm chart and the attachments, without a cluster: rendered by a real Helm, held to the schemas of Kubernetes'
//! API and to each other, and given to the real `consort`.

mod attach;
mod chart;
mod objects;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use config::{Config, File, FileFormat};
use consort_testkit::{fetch, workspace};
use serde_json::Value;

const CHART: &str = "deploy/kubernetes/consort";

/// Helm and the schemas. A machine that cannot have them is no reason to fail, other than CI's, which has to have them.
struct Helm {
    program: PathBuf,
    schemas: PathBuf,
}

impl Helm {
    fn find() -> Option<Self> {
        let found = fetch::helm()
            .and_then(|program| fetch::kubernetes_schemas().map(|schemas| Self { program, schemas }));
        match found {
            Ok(helm) => Some(helm),
            Err(error) => {
                let why = format!("without Helm and schemas the chart is not rendered: {error}");
                consort_testkit::lacking(&why);
                None
            }
        }
    }

    /// Renders the chart as `helm template` does, for the release `test` in the namespace `llm`.
    fn render(&self, values: &Value) -> Objects {
        let rendered = self.run(["template", "test", "--namespace", "llm"], values);
        let errors = String::from_utf8_lossy(&rendered.stderr);
        assert!(rendered.status.success(), "{errors}\n{values:#}");
        Objects(documents(&String::from_utf8(rendered.stdout).unwrap()))
    }

    /// What Helm says against these values.
    fn refusal(&self, values: &Value) -> String {
        let refused = self.run(["template", "test"], values);
        assert!(!refused.status.success(), "{values}");
        let said = String::from_utf8(refused.stderr).unwrap();
        let told: Vec<_> = said.lines().filter(|line| !line.contains("found symbolic link")).collect();
        told.join("\n").replace("\n\nUse --debug flag to render out invalid YAML", "").trim().to_owned()
    }

    /// A command on the chart, with no cluster and no settings of the machine's.
    fn run(&self, command: impl IntoIterator<Item = impl AsRef<OsStr>>, values: &Value) -> Output {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("values.json");
        fs::write(&file, values.to_string()).unwrap();
        let mut helm = Command::new(&self.program);
        helm.args(command).arg(workspace().join(CHART)).arg("--values").arg(file);
        helm.env_remove("KUBECONFIG").env("HOME", dir.path());
        helm.output().unwrap()
    }
}

/// What a chart becomes.
struct Objects(Vec<Value>);

impl Objects {
    fn of<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let kind = kind.to_owned();
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The only one of its kind.
    #[track_caller]
    fn only(&self, kind: &str) -> &Value {
        let mut all = self.of(kind);
        let one = all.next().unwrap_or_else(|| panic!("there is no {kind}"));
        assert!(all.next().is_none(), "there is more than one {kind}");
        one
    }

    fn named(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of(kind).find(|object| object["metadata"]["name"] == name)
    }

    fn pod(&self) -> &Value {
        &self.only("Deployment")["spec"]["template"]
    }

    fn container(&self) -> &Value {
        let containers = self.pod()["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        &containers[0]
    }

    /// Its variables that are written out.
    fn environment(&self) -> BTreeMap<String, String> {
        let variables = self.container()["env"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        variables.filter_map(|variable| Some((text(&variable["name"])?, text(&variable["value"])?))).collect()
    }

    fn configuration(&self) -> &str {
        let map = self.named("ConfigMap", "test-consort").expect("a ConfigMap of the configuration");
        map["data"]["consort.yaml"].as_str().unwrap()
    }
}

/// The documents of a YAML text, apart from empty ones.
fn documents(text: &str) -> Vec<Value> {
    let texts = text.split("\n---").map(|text| text.trim_start_matches("---"));
    texts.map(document).filter(|document| document.as_object().is_some_and(|keys| !keys.is_empty())).collect()
}

fn document(text: &str) -> Value {
    let loaded = Config::builder().add_source(File::from_str(text, FileFormat::Yaml)).build();
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{text}"));
    loaded.try_deserialize().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
