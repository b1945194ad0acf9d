//! From the configuration as written to the types of a run, which cannot hold a wrong one.

mod answer;
mod ensemble;
mod files;
mod health;
mod judge;
mod models;
mod network;
mod overrides;
mod panel;
mod provider;
mod request;
mod rules;
mod strategy;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tracing::level_filters::LevelFilter;

use self::files::Files;
use self::models::Resolver;
use super::interpolate::Written;
use super::load::Environment;
use super::problem::{Path, Report};
use super::schema::{self, File};
use super::{Address, Config, Listen, Log, LogFormat};
use crate::ensemble::Snapshot;
use crate::ext_proc::{ModeOverride, Settings};

/// What the whole file means; nothing when that is not certain.
pub(super) fn resolve(
    file: &File,
    written: &Written,
    environment: &Environment,
    report: &mut Report,
) -> Option<Config> {
    let ext_proc = address(file, report);
    let settings = settings(file, report);
    let mut files = Files::new(written);
    let providers = provider::resolve(file, written, environment, &mut files, report);
    let mut resolver = Resolver::new(file, written, report);
    let direct_models = resolver.models(&providers);
    let ensembles = resolver.ensembles();
    Some(Config {
        listen: Listen { ext_proc: ext_proc? },
        ext_proc: settings,
        snapshot: Arc::new(Snapshot::new(ensembles)),
        direct_models,
        max_inflight: file.limits.max_inflight,
        max_answer_bytes: file.limits.max_answer_bytes,
        log: log(&file.log),
        watched: files.into_paths(),
    })
}

/// A bound in ms as written, where 0 means none.
fn bound(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn address(file: &File, report: &mut Report) -> Option<Address> {
    let written = &file.listen.ext_proc;
    let address = match written.strip_prefix("unix:") {
        Some(socket) => socket.starts_with('/').then(|| Address::Unix(socket.into())),
        None => written
            .rsplit_once(':')
            .filter(|(host, port)| {
                let ipv6 = host.starts_with('[') && host.ends_with(']');
                !host.is_empty() && (ipv6 || !host.contains(':')) && port.parse::<u16>().is_ok()
            })
            .map(|_| Address::Tcp(written.clone())),
    };
    if address.is_none() {
        report.add(Path::root().key("listen").key("ext_proc"), "expected `host:port` or `unix:/path`");
    }
    address
}

fn settings(file: &File, report: &mut Report) -> Settings {
    Settings {
        mode_override: match file.ext_proc.mode_override {
            schema::ModeOverride::Standalone => ModeOverride::Standalone,
            schema::ModeOverride::Never => ModeOverride::Never,
        },
        max_request_bytes: file.limits.max_request_bytes,
        commit_after: Duration::from_millis(file.stream.commit_after_ms),
        heartbeat: bound(file.stream.heartbeat_ms),
        buffered_timeout: Duration::from_millis(file.ext_proc.buffered_timeout_ms),
        model_header: model_header(file, report),
        clear_route_cache: file.ext_proc.clear_route_cache,
    }
}

/// The header that names a redirected request's model.
fn model_header(file: &File, report: &mut Report) -> Option<HeaderName> {
    /// What goes by the message that a request is, and not by who should get it.
    const FRAMING: [&str; 3] = ["host", "content-length", "transfer-encoding"];
    let written = file.ext_proc.model_header.as_deref()?;
    let what = match HeaderName::try_from(written) {
        _ if written.starts_with(':') => "must not be a pseudo header",
        Err(_) => "is no name of a header",
        Ok(name) if name.as_str().starts_with("x-envoy-") => {
            "must not begin with `x-envoy-`: Envoy lets nobody else set these"
        }
        Ok(name) if FRAMING.contains(&name.as_str()) => "must be a header of its own, like `x-model`",
        Ok(name) => return Some(name),
    };
    report.add(Path::root().key("ext_proc").key("model_header"), what);
    None
}

fn log(log: &schema::Log) -> Log {
    Log {
        format: match log.format {
            schema::LogFormat::Json => LogFormat::Json,
            schema::LogFormat::Pretty => LogFormat::Pretty,
        },
        level: match log.level {
            schema::LogLevel::Error => LevelFilter::ERROR,
            schema::LogLevel::Warn => LevelFilter::WARN,
            schema::LogLevel::Info => LevelFilter::INFO,
            schema::LogLevel::Debug => LevelFilter::DEBUG,
            schema::LogLevel::Trace => LevelFilter::TRACE,
        },
    }
}
