//! The plain HTTP door.

use std::time::Duration;

use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report};
use crate::config::schema::{ApiKey, File};
use crate::dispatch::Pacing;
use crate::ext_proc;
use crate::http::door::{Connections, Key, Keys, Settings};

/// What a file says of the door, beside what it shares with Envoy's; nothing of it where something is wrong.
pub(super) fn resolve(
    file: &File,
    written: &Written,
    envoys: &ext_proc::Settings,
    report: &mut Report,
) -> Option<(Settings, Connections)> {
    let path = Path::root().key("http");
    let keys = keys(&file.http.api_keys, &path.key("api_keys"), report);
    let tls =
        super::tls::resolve(file.http.tls.as_ref(), &path.key("tls"), &["h2", "http/1.1"], written, report);
    let settings = Settings {
        max_request_bytes: file.limits.max_request_bytes,
        body_timeout: Duration::from_millis(file.http.body_timeout_ms),
        pacing: Pacing {
            commit_after: Duration::from_millis(file.stream.commit_after_ms),
            heartbeat: super::bound(file.stream.heartbeat_ms),
        },
        caller_key: envoys.caller_key.clone(),
        keys: keys?,
        ticket_ttl: Duration::from_millis(file.ext_proc.handoff.ticket_ttl_ms),
        secrets: envoys.secrets.clone(),
    };
    let connections = Connections {
        head_timeout: Duration::from_millis(file.http.head_timeout_ms),
        max_head_bytes: file.http.max_head_bytes,
        max_headers: file.http.max_headers,
        idle_timeout: Duration::from_millis(file.http.idle_timeout_ms),
        max_open: file.http.max_connections,
        tls: tls?,
    };
    Some((settings, connections))
}

fn keys(keys: &[ApiKey], list: &Path, report: &mut Report) -> Option<Keys> {
    let mut resolved: Vec<Option<Key>> = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let path = list.index(i);
        let (name, hex, path) = match key {
            ApiKey::Digest(text) => {
                let Some(hex) = text.strip_prefix("sha256:") else {
                    // Not shown: whoever mistakes the field has written the key itself here.
                    let what = "expected `sha256:` and the key's digest in hexadecimal, as `printf %s \"$KEY\" | \
                                sha256sum` prints it";
                    report.add(path, what);
                    resolved.push(None);
                    continue;
                };
                (format!("#{i}"), hex, path)
            }
            ApiKey::Named(named) => (named.name.clone(), &*named.sha256, path.key("sha256")),
        };
        let is_taken = |key: &Key| *key.name == *name;
        if resolved.iter().flatten().any(is_taken) {
            report.add(list.index(i).key("name"), "is the name of another key too");
        }
        let digest = digest(hex);
        if digest.is_none() {
            report.add(path, "expected the key's SHA-256 digest: 64 hexadecimal digits");
        }
        resolved.push(digest.map(|digest| Key { name: name.into(), digest }));
    }
    resolved.into_iter().collect()
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let (pairs, odd) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    if odd.is_empty() { bytes.try_into().ok() } else { None }
}
