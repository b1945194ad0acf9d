//! When a model is left alone.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::problem::{Path, Report};
use crate::config::schema;
use crate::limits::Cooldown;
use crate::upstream::BackgroundCheck;

/// The cooldown of the model at `path`, none when it has none; nothing when that is not certain.
pub(super) fn cooldown(
    written: &schema::Cooldown,
    path: &Path,
    report: &mut Report,
) -> Option<Option<Cooldown>> {
    if written.max_seconds < written.default_seconds {
        let what = format!("must be at least `default_seconds`, which is {}", written.default_seconds);
        report.add(path.key("cooldown").key("max_seconds"), what);
    }
    for (i, status) in written.trigger_statuses.iter().enumerate() {
        if matches!(status, 400 | 404 | 413 | 422) {
            let what =
                format!("{status} says that a request is wrong, and callers must not cool a model by theirs");
            report.add(path.key("cooldown").key("trigger_statuses").index(i), what);
        }
    }
    let cooldown = Cooldown {
        failures: NonZeroU32::new(written.failures)?,
        first: Duration::from_secs(written.default_seconds),
        longest: Duration::from_secs(written.max_seconds),
        statuses: written.trigger_statuses.as_slice().into(),
    };
    Some(written.enabled.then_some(cooldown))
}

/// The background check of the model at `path`.
pub(super) fn background_check(
    model: &schema::Model,
    path: &Path,
    report: &mut Report,
) -> Option<BackgroundCheck> {
    let written = model.background_check.as_ref()?;
    if !model.cooldown.enabled {
        let what = "asks models that have cooled down, and `cooldown.enabled` is false";
        report.add(path.key("background_check"), what);
    }
    Some(BackgroundCheck {
        interval: Duration::from_secs(written.interval_seconds),
        prompt: written.prompt.clone(),
        max_tokens: written.max_tokens,
    })
}
