//! Objects against the schemas of Kubernetes' API, in which unknown fields are errors.

use std::fs;
use std::path::Path;

use jsonschema::Registry;
use serde_json::Value;

/// What is wrong with an object, by place.
pub(super) fn problems(schemas: &Path, object: &Value) -> Vec<String> {
    let definitions = schema(&schemas.join("_definitions.json"));
    let registry = Registry::new().add("https://kubernetes.io/api/_definitions.json", definitions).unwrap();
    let registry = registry.prepare().unwrap();
    let schema = schema(&schemas.join(format!("{}.json", schema_of(object))));
    let validator = jsonschema::options().with_registry(&registry).build(&schema).unwrap();
    validator.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn schema(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// `deployment-apps-v1`, `service-v1`.
fn schema_of(object: &Value) -> String {
    let [kind, version] = ["kind", "apiVersion"].map(|key| object[key].as_str().unwrap());
    let version = match version.split_once('/') {
        Some((group, version)) => format!("{}-{version}", group.split('.').next().unwrap()),
        None => version.to_owned(),
    };
    format!("{}-{version}", kind.to_lowercase())
}
