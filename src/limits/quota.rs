//! What callers are told of their limits.

use std::time::Duration;

use super::rate::{RateLimit, Unit};
use super::store::Seen;

/// What is left of a caller's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    requests: Option<Gauge>,
    tokens: Option<Gauge>,
}

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gauge {
    limit: u64,
    remaining: u64,
    reset: Duration,
}

impl Quota {
    /// What a store has seen of these limits: of several windows over one thing, the one of which least is left.
    pub(super) fn of(rate: &RateLimit, seen: &Seen) -> Self {
        let gauges = rate.windows.iter().zip(&seen.windows).map(|(window, counted)| {
            let limit = window.limit.get();
            let reset = counted.left(window.rate, seen.now);
            (window.rate.unit(), Gauge { limit, remaining: limit.saturating_sub(counted.used), reset })
        });
        let mut quota = Self::default();
        for (unit, gauge) in gauges {
            let slot = match unit {
                Unit::Requests => &mut quota.requests,
                Unit::Tokens => &mut quota.tokens,
            };
            let tightness = |gauge: &Gauge| (gauge.remaining, std::cmp::Reverse(gauge.reset));
            if slot.is_none_or(|known| tightness(&gauge) < tightness(&known)) {
                *slot = Some(gauge);
            }
        }
        quota
    }

    /// The headers that tell it, as OpenAI names them.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if let Some(Gauge { limit, remaining, reset }) = self.requests {
            headers.push(("x-ratelimit-limit-requests", limit.to_string()));
            headers.push(("x-ratelimit-remaining-requests", remaining.to_string()));
            headers.push(("x-ratelimit-reset-requests", span(reset)));
        }
        if let Some(Gauge { limit, remaining, reset }) = self.tokens {
            headers.push(("x-ratelimit-limit-tokens", limit.to_string()));
            headers.push(("x-ratelimit-remaining-tokens", remaining.to_string()));
            headers.push(("x-ratelimit-reset-tokens", span(reset)));
        }
        headers
    }
}

/// A time as OpenAI writes it: `20ms`, `1s`, `6m0s`, `23h59m0s`; from a second on in whole ones, rounded up.
fn span(time: Duration) -> String {
    let ms = time.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let seconds = ms.div_ceil(1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::store::Counted;
    use crate::limits::{Rate, Window};

    #[test]
    fn times_are_written_as_openai_writes_them() {
        let written = |ms| span(Duration::from_millis(ms));
        assert_eq!(
            [0, 20, 999, 1000, 1001, 360_000, 86_340_000].map(written),
            ["0ms", "20ms", "999ms", "1s", "2s", "6m0s", "23h59m0s"]
        );
    }

    #[test]
    fn of_several_windows_the_tightest_is_told() {
        let window = |rate, limit: u64| Window { rate, limit: limit.try_into().unwrap() };
        let windows = vec![window(Rate::Rps, 5), window(Rate::Rpm, 9), window(Rate::Rpd, 90)];
        let rate = RateLimit { windows, ..RateLimit::default() };
        let counted = |begun, used| Counted { begun, used };
        let seen = Seen {
            now: 100_500,
            windows: vec![counted(100_000, 2), counted(90_000, 8), counted(80_000, 89)],
            running: 0,
            spent: 0,
        };
        let told: Vec<String> =
            Quota::of(&rate, &seen).headers().into_iter().map(|(_, value)| value).collect();
        assert_eq!(told, ["90", "1", "23h59m40s"], "as little as of the minute, and for longer");
    }
}
