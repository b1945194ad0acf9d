//! Where use is counted: in this process, or in a Redis that several share.

mod keeper;
mod memory;
mod redis;

use std::time::Duration;

pub use self::keeper::Keeper;
pub(super) use self::keeper::Order;
pub(super) use self::memory::Memory;
pub(super) use self::redis::Redis;
pub use self::redis::{OnError, RedisSettings, RedisUrlError};

use super::key::Subject;
use super::rate::{Rate, RateLimit};

/// What is asked of a store in one step: all of it is counted, or nothing.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) subject: Subject,
    pub(super) rate: RateLimit,
    /// How much may be spent in a day, in 10⁻⁹ USD.
    pub(super) budget: Option<u64>,
    /// The tokens that are reserved.
    pub(super) tokens: u64,
}

/// What a store says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) is_admitted: bool,
    pub(super) seen: Seen,
}

/// What a store has counted, after what it has admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The store's clock, in ms since 1970.
    pub(super) now: u64,
    /// The windows, in the order of the limit's.
    pub(super) windows: Vec<Counted>,
    /// How many are in flight.
    pub(super) running: u64,
    /// What was spent today, in 10⁻⁹ USD.
    pub(super) spent: u64,
}

/// What one window has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// When it began, in ms since 1970, which is also what it is known by; 0 when it has not.
    pub(super) begun: u64,
    pub(super) used: u64,
}

impl Counted {
    /// How long it still lasts.
    pub(super) fn left(self, rate: Rate, now: u64) -> Duration {
        let ends = if self.begun == 0 { now } else { self.begun.saturating_add(rate.period_ms()) };
        Duration::from_millis(ends.saturating_sub(now))
    }
}

/// What was counted turns out to be more, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Correction {
    pub(super) rate: Rate,
    /// The window it was counted in; another one is none of its business.
    pub(super) begun: u64,
    pub(super) by: i64,
}

/// What a request has taken of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) rate: Rate,
    pub(super) begun: u64,
    pub(super) amount: u64,
}

impl Request {
    /// What it has taken, by this verdict.
    pub(super) fn taken<'a>(&'a self, verdict: &'a Verdict) -> impl Iterator<Item = Taken> + 'a {
        let windows = self.rate.windows.iter().zip(&verdict.seen.windows);
        windows.map(|(window, counted)| Taken {
            rate: window.rate,
            begun: counted.begun,
            amount: window.amount(self.tokens),
        })
    }
}

impl Taken {
    /// The correction that leaves this amount of it.
    pub(super) fn to(self, amount: u64) -> Correction {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let by = signed(amount).saturating_sub(signed(self.amount));
        Correction { rate: self.rate, begun: self.begun, by }
    }

    /// The correction that leaves nothing of it.
    pub(super) fn back(self) -> Correction {
        self.to(0)
    }
}
