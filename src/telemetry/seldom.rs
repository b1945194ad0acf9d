//! What may keep happening, and must not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets something be told at once, and then at most once a minute.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// How long nothing is told after it was told.
    pub const RHYTHM: Duration = Duration::from_secs(60);

    /// Nothing was told yet.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether it is to be told now, by whoever asks.
    pub fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|at| now.saturating_duration_since(at) >= Self::RHYTHM);
        if due {
            *told = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_and_then_once_a_minute() {
        let seldom = Seldom::new();
        let begin = Instant::now();
        let told =
            [0, 1, 59, 60, 61, 119, 120].map(|second| seldom.is_due_at(begin + Duration::from_secs(second)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
