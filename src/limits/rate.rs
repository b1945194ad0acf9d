//! How much a name may take.

use std::num::NonZeroU64;
use std::time::Duration;

/// What a name may take: of each rate so much, and so many at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// The rates, no two alike.
    pub windows: Vec<Window>,
    /// How many calls (or runs) may be in flight at once.
    pub concurrency: Option<NonZeroU64>,
    /// How long a call may wait for room.
    pub wait: Duration,
}

/// A bound on one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What is counted, and for how long.
    pub rate: Rate,
    /// How much of it there may be in one window.
    pub limit: NonZeroU64,
}

/// What is counted, and how long one window lasts. It begins with the first request in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Requests per second.
    Rps,
    /// Requests per minute.
    Rpm,
    /// Requests per day.
    Rpd,
    /// Tokens per minute.
    Tpm,
    /// Tokens per day.
    Tpd,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Requests,
    Tokens,
}

/// How much may be spent in a day of UTC, in 10⁻⁹ USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(u64);

/// How many of a day's 10⁻⁹ USD a number of USD is; the largest sum that both stores count exactly bounds it.
pub(super) fn nano_usd(usd: f64) -> u64 {
    const EXACT: f64 = 9e15;
    // In bounds: a cast from a float would otherwise have to be trusted to saturate.
    (usd.max(0.0) * 1e9).min(EXACT).round() as u64
}

/// So many 10⁻⁹ USD, in USD.
pub(super) fn usd(nano: u64) -> f64 {
    nano as f64 / 1e9
}

impl Budget {
    /// So many USD in a day.
    pub fn usd_per_day(usd: f64) -> Self {
        Self(nano_usd(usd))
    }

    /// How many USD it is in a day.
    pub fn usd(self) -> f64 {
        usd(self.0)
    }

    pub(super) fn nano(self) -> u64 {
        self.0
    }
}

/// The milliseconds of a day.
pub(super) const DAY_MS: u64 = 86_400_000;

impl Rate {
    /// All of them; a rate's place here is its place in a bucket.
    pub(super) const ALL: [Self; 5] = [Self::Rps, Self::Rpm, Self::Rpd, Self::Tpm, Self::Tpd];

    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Rps => "rps",
            Self::Rpm => "rpm",
            Self::Rpd => "rpd",
            Self::Tpm => "tpm",
            Self::Tpd => "tpd",
        }
    }

    /// It, for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Rps => "requests per second",
            Self::Rpm => "requests per minute",
            Self::Rpd => "requests per day",
            Self::Tpm => "tokens per minute",
            Self::Tpd => "tokens per day",
        }
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Rps | Self::Rpm | Self::Rpd => Unit::Requests,
            Self::Tpm | Self::Tpd => Unit::Tokens,
        }
    }

    /// How long one window lasts, in ms.
    pub(super) fn period_ms(self) -> u64 {
        match self {
            Self::Rps => 1000,
            Self::Rpm | Self::Tpm => 60_000,
            Self::Rpd | Self::Tpd => DAY_MS,
        }
    }
}

impl RateLimit {
    /// Whether tokens are counted, so that somebody has to estimate them.
    pub fn counts_tokens(&self) -> bool {
        self.windows.iter().any(|window| window.rate.unit() == Unit::Tokens)
    }
}

impl Window {
    /// What a request with this estimate takes of it before its cost is known. An estimate above the whole limit takes
    /// all of a window: what may turn out to be less must not be refused for ever.
    pub(super) fn amount(self, tokens: u64) -> u64 {
        match self.rate.unit() {
            Unit::Requests => 1,
            Unit::Tokens => tokens.min(self.limit.get()),
        }
    }
}

/// The tokens that an answer is taken to have where its request names no bound.
const ANSWER_TOKENS: u64 = 512;

/// The tokens that a request of so many bytes may cost: four bytes a token, and the bound on its answer or else 512.
pub fn estimated_tokens(request_bytes: usize, max_tokens: Option<u64>) -> u64 {
    (request_bytes as u64).div_ceil(4).saturating_add(max_tokens.unwrap_or(ANSWER_TOKENS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_of_the_prompt_and_of_the_bound_on_the_answer() {
        assert_eq!(estimated_tokens(401, Some(1000)), 101 + 1000);
        assert_eq!(estimated_tokens(400, None), 100 + 512);
        assert_eq!(estimated_tokens(usize::MAX, Some(u64::MAX)), u64::MAX);
    }

    #[test]
    fn a_budget_is_exact_to_a_billionth_and_never_negative() {
        assert_eq!(Budget::usd_per_day(25.5).nano(), 25_500_000_000);
        assert_eq!((nano_usd(0.000_000_123), nano_usd(-1.0), nano_usd(f64::NAN)), (123, 0, 0));
        assert_eq!(nano_usd(f64::INFINITY), 9_000_000_000_000_000);
    }

    #[test]
    fn the_order_of_rates_is_that_of_their_places() {
        for (place, rate) in Rate::ALL.into_iter().enumerate() {
            assert_eq!(rate as usize, place);
        }
    }
}
