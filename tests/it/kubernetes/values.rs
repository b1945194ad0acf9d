//! Values to install with: from nothing said to everything said.

use serde_json::{Value, json};

use super::{document, read};

/// Ways in which people may install it, by what is special about each.
pub(super) fn ways() -> Vec<(&'static str, Value)> {
    vec![
        ("nothing said", json!({})),
        ("everything said", everything()),
        ("somebody else's objects", elsewhere()),
        ("as little as can be", bare()),
    ]
}

/// Every value other than its default, and the example configuration.
pub(super) fn everything() -> Value {
    let volume = json!({"name": "decisions", "emptyDir": {"sizeLimit": "1Gi"}});
    json!({
        "image": {
            "repository": "registry.internal/consort",
            "tag": "1.2.3",
            "digest": format!("sha256:{}", "ab".repeat(32)),
            "pullPolicy": "Always"
        },
        "imagePullSecrets": [{"name": "registry"}],
        "config": example(),
        "secrets": {"files": {"openai": "sk-test"}},
        "listenAddress": "[::]",
        "extProc": {"port": 6001},
        "http": {"enabled": true, "port": 6002},
        "admin": {"port": 6003},
        "drain": {"delayMs": 7500, "timeoutMs": 100_250},
        "service": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/consort"}},
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}},
        "autoscaling": {"enabled": true, "inflight": {"perPod": 100_000}, "cpu": {"enabled": true}},
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "networkPolicy": {
            "http": [{"podSelector": {"matchLabels": {"app": "notebooks"}}}],
            "redis": [{"podSelector": {"matchLabels": {"app": "redis"}}}],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "vllm"}}}], "ports": [{"port": 8000}]}]
        },
        "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}, "interval": "30s"},
        "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": true, "annotations": {"grafana_folder": "Models"}},
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"team": "models"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
        ]}}},
        "extraEnv": [
            {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4317"},
            {"name": "ANTHROPIC_API_KEY", "valueFrom": {"secretKeyRef": {"name": "anthropic", "key": "key"}}}
        ],
        "extraEnvFrom": [{"secretRef": {"name": "keys", "optional": true}}],
        "extraVolumes": [volume],
        "extraVolumeMounts": [{"name": "decisions", "mountPath": "/var/log/consort"}]
    })
}

/// Objects that others make; names of one's own.
fn elsewhere() -> Value {
    json!({
        "fullnameOverride": "ensembles",
        "nameOverride": "models",
        "existingConfigMap": "our-consort",
        "extProc": {"tls": {"existingSecret": "our-tls"}},
        "secrets": {"existingSecret": "our-keys"},
        "serviceAccount": {"create": false, "name": "ours"}
    })
}

/// All that can be turned off.
fn bare() -> Value {
    json!({
        "replicas": 1,
        "admin": {"exposed": false},
        "service": {"headless": false},
        "podDisruptionBudget": {"enabled": false},
        "networkPolicy": {"enabled": false},
        "topologySpreadConstraints": []
    })
}

/// The shipped example without what is the chart's to say, and with a key from a file.
fn example() -> Value {
    let mut example = document(&read("deploy/consort.example.yaml"));
    example.as_object_mut().unwrap().remove("listen");
    let openai = &mut example["providers"][0];
    openai.as_object_mut().unwrap().remove("api_key");
    openai["api_key_file"] = json!("/run/secrets/consort/openai");
    example["http"] = json!({"api_keys": [format!("sha256:{}", "9f".repeat(32))]});
    example["limits"]["store"] = json!({"redis": {"url": "redis://redis:6379"}});
    // Helm holds numbers as floats: large ones must keep their digits.
    example["limits"]["max_request_bytes"] = json!(123_456_789);
    example["limits"]["max_held_bytes"] = json!(1_234_567_890);
    example
}
