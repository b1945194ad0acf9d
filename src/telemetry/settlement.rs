//! Who is told what a call, or a run, has cost.

use std::fmt;

/// Somebody who is told a cost, once.
pub(super) struct Settlement<T>(pub(super) Box<dyn FnOnce(T) + Send>);

/// What a run has cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// All tokens that were billed.
    pub tokens: u64,
    /// What they cost in US dollars; 0 where no model that was asked has a cost.
    pub usd: f64,
}

impl<T> fmt::Debug for Settlement<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settlement")
    }
}
