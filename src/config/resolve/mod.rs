//! From the configuration as written to the types of a run, which cannot hold a wrong one.

mod answer;
mod ensemble;
mod files;
mod health;
mod http;
mod judge;
mod limits;
mod listen;
mod models;
mod network;
mod overrides;
mod panel;
mod provider;
mod request;
mod rules;
mod shown;
mod signing;
mod strategy;
mod tls;

use std::path::{self, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderName;
use tracing::level_filters::LevelFilter;

use self::files::Files;
use self::models::Resolver;
use self::network::Around;
use super::interpolate::Written;
use super::load::Environment;
use super::problem::{Path, Report};
use super::schema::{self, File};
use super::{Config, Drain};
use crate::ensemble::Snapshot;
use crate::ext_proc::{ListModels, ModeOverride, Settings};
use crate::signing::Secrets;
use crate::telemetry::{DecisionFile, Log, LogFormat, Sinks};
use crate::upstream::Pools;

/// What the whole file means; nothing when that is not certain. Providers that have not changed keep their `earlier`
/// connections.
pub(super) fn resolve(
    file: &File,
    written: &Written,
    environment: &Environment,
    earlier: &Pools,
    report: &mut Report,
) -> Option<Config> {
    let listen = listen::listen(file, report);
    let admin_hosts = listen::admin_hosts(file, report);
    let mut files = Files::new(written);
    let secrets = signing::secrets(file, &mut files, report);
    let settings = settings(file, secrets.as_ref(), report);
    let ext_proc_tls = tls::resolve(
        file.ext_proc.tls.as_ref(),
        &Path::root().key("ext_proc").key("tls"),
        &["h2"],
        written,
        report,
    );
    let door = http::resolve(file, written, &settings, report);
    let store = limits::store(file, report);
    let mut pools = Pools::default();
    let mut around = Around { environment, files: &mut files, earlier, pools: &mut pools };
    let providers = provider::resolve(file, written, &mut around, report);
    let mut resolver = Resolver::new(file, written, report);
    let direct_models = resolver.models(&providers, &settings.secrets);
    let ensembles = resolver.ensembles();
    let (door, connections) = door?;
    secrets?;
    let has_secrets = !file.signing.secrets.is_empty() || !file.signing.secret_files.is_empty();
    let signs = settings.ticket_ttl.is_some() || direct_models.iter().any(|model| model.marker.is_some());
    Some(Config {
        signs_alone: signs && !has_secrets,
        listen: listen?,
        ext_proc: settings,
        ext_proc_tls: ext_proc_tls?,
        door,
        connections,
        snapshot: Arc::new(Snapshot::new(ensembles).with_direct(direct_models.iter().map(Arc::clone))),
        direct_models,
        max_inflight: file.limits.max_inflight,
        max_lateness: bound(file.limits.max_lateness_ms),
        max_held_bytes: limits::max_held_bytes(&file.limits, report),
        max_answer_bytes: file.limits.max_answer_bytes,
        store: store?,
        log: log(&file.log),
        drain: Drain {
            delay: Duration::from_millis(file.drain.delay_ms),
            timeout: file.drain.timeout_ms.map(Duration::from_millis),
        },
        admin_hosts,
        pools,
        watched: report.files().to_vec(),
        shown: Arc::new(shown::shown(file, written)),
        decisions: decisions(&file.decisions, report),
    })
}

/// A bound in ms as written, where 0 means none.
fn bound(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn settings(file: &File, secrets: Option<&Secrets>, report: &mut Report) -> Settings {
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
        caller_key: limits::caller_key(file, report),
        clear_route_cache: file.ext_proc.clear_route_cache,
        list_models: match file.ext_proc.list_models {
            schema::ListModels::Off => ListModels::Off,
            schema::ListModels::Add => ListModels::Add,
            schema::ListModels::Answer => ListModels::Answer,
        },
        ticket_ttl: ticket_ttl(file, report),
        // Where there is none, the configuration is refused.
        secrets: secrets.cloned().unwrap_or_else(Secrets::of_process),
    }
}

/// How long tickets of the hand-off hold; none where nothing is handed off.
fn ticket_ttl(file: &File, report: &mut Report) -> Option<Duration> {
    let schema::HandOff { enabled, ticket_ttl_ms } = file.ext_proc.handoff;
    if enabled && file.listen.http.is_none() {
        let what = "needs `listen.http`: that door answers what this one hands off";
        report.add(Path::root().key("ext_proc").key("handoff").key("enabled"), what);
    }
    enabled.then(|| Duration::from_millis(ticket_ttl_ms))
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

fn decisions(written: &schema::Decisions, report: &mut Report) -> Sinks {
    let file = written.file.as_ref();
    if let Some((journal, file)) = written.journal.as_ref().zip(file) {
        let is = |one: &str, other: &str| path::Path::new(one) == path::Path::new(other);
        let is_renamed_to = file.max_bytes.is_some() && is(journal, &format!("{}.1", file.path));
        let at = Path::root().key("decisions").key("journal");
        if is(journal, &file.path) {
            report.add(at, "must not be the file of decisions");
        } else if is_renamed_to || is(&format!("{journal}.new"), &file.path) {
            report.add(at, "must not share `….1` or `….new` with the file of decisions");
        }
    }
    Sinks {
        journal: written.journal.as_ref().map(PathBuf::from),
        file: file.map(|file| DecisionFile { path: file.path.as_str().into(), max_bytes: file.max_bytes }),
        stdout: written.stdout,
        ring: written.ring,
        ring_bytes: written.ring_bytes,
        max_content_bytes: written.include_content.then_some(written.max_content_bytes),
    }
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
