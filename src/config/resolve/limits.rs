//! How much names may take, and where that is counted.

use std::num::NonZeroU64;
use std::time::Duration;

use http::HeaderName;

use crate::config::problem::{Path, Report};
use crate::config::schema::{self, File};
use crate::limits::{Budget, KeySource, OnError, Rate, RateLimit, RedisSettings, StoreSettings, Window};

/// The limit of the direct model at `path`; none when it has none.
pub(super) fn of_model(model: &schema::Model, path: &Path, report: &mut Report) -> Option<RateLimit> {
    rate_limit(model.rate_limit.as_ref()?, &path.key("rate_limit"), report)
}

/// The limit of the ensemble at `path`; none when it has none.
pub(super) fn of_ensemble(
    written: Option<&schema::RateLimit>,
    path: &Path,
    report: &mut Report,
) -> Option<RateLimit> {
    let (written, path) = (written?, path.key("rate_limit"));
    let limit = rate_limit(written, &path, report);
    if written.wait_ms > 0 {
        let what = "is for direct models: a caller who is over a limit is told so, and comes back";
        report.add(path.key("wait_ms"), what);
    }
    limit
}

fn rate_limit(written: &schema::RateLimit, path: &Path, report: &mut Report) -> Option<RateLimit> {
    let rates = [
        (Rate::Rps, written.rps),
        (Rate::Rpm, written.rpm),
        (Rate::Rpd, written.rpd),
        (Rate::Tpm, written.tpm),
        (Rate::Tpd, written.tpd),
    ];
    let window = |(rate, limit): (Rate, Option<u64>)| Some(Window { rate, limit: NonZeroU64::new(limit?)? });
    let windows: Vec<Window> = rates.into_iter().filter_map(window).collect();
    let concurrency = written.concurrency.and_then(NonZeroU64::new);
    if windows.is_empty() && concurrency.is_none() {
        // One that is wrong has been reported.
        if !report.doubts(path) {
            report.add(path.clone(), "bounds nothing: give one of rps, rpm, rpd, tpm, tpd, concurrency");
        }
        return None;
    }
    Some(RateLimit { windows, concurrency, wait: Duration::from_millis(written.wait_ms) })
}

/// How much of bodies may be held at once; one at least.
pub(super) fn max_held_bytes(limits: &schema::Limits, report: &mut Report) -> usize {
    let schema::Limits { max_held_bytes, max_request_bytes, .. } = *limits;
    if max_held_bytes < max_request_bytes {
        let what = format!(
            "must be at least `limits.max_request_bytes` ({max_request_bytes}), or no such request fits"
        );
        report.add(Path::root().key("limits").key("max_held_bytes"), what);
    }
    max_held_bytes
}

/// What an ensemble may spend.
pub(super) fn budget(written: Option<schema::Budget>) -> Option<Budget> {
    written.map(|budget| Budget::usd_per_day(budget.usd_per_day))
}

/// What tells callers apart.
pub(super) fn caller_key(file: &File, report: &mut Report) -> KeySource {
    let path = Path::root().key("limits").key("caller_key");
    match &file.limits.caller_key {
        schema::CallerKey::Global => KeySource::Global,
        schema::CallerKey::Header(name) => match HeaderName::try_from(name) {
            Ok(name) => KeySource::Header(name),
            Err(_) => {
                report.add(path.key("header"), "is no name of a header");
                KeySource::Global
            }
        },
        schema::CallerKey::Metadata(keys) => match keys.split_first() {
            Some((namespace, path)) if !path.is_empty() => {
                KeySource::Metadata { namespace: namespace.clone(), path: path.to_vec() }
            }
            _ => {
                report.add(path.key("metadata"), "needs a namespace and at least one key in it");
                KeySource::Global
            }
        },
    }
}

/// Where use is counted.
pub(super) fn store(file: &File, report: &mut Report) -> Option<StoreSettings> {
    let schema::Store::Redis(written) = &file.limits.store else {
        return Some(StoreSettings::Memory);
    };
    let path = Path::root().key("limits").key("store").key("redis");
    if written.prefix.contains(['{', '}']) {
        report.add(path.key("prefix"), "must be without braces: they tell a cluster what belongs together");
    }
    let mut settings = match RedisSettings::new(written.url.expose()) {
        Ok(settings) => settings,
        Err(error) => {
            report.add(path.key("url"), error.to_string());
            return None;
        }
    };
    settings.is_cluster = written.cluster;
    settings.on_error = match written.on_error {
        schema::OnError::Open => OnError::Open,
        schema::OnError::Closed => OnError::Closed,
    };
    settings.timeout = Duration::from_millis(written.timeout_ms);
    settings.prefix.clone_from(&written.prefix);
    Some(StoreSettings::Redis(Box::new(settings)))
}
