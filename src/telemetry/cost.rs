//! What tokens cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chat::Usage;

/// What a direct model costs, in US dollars for 1,000 tokens. None is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of what it reads.
    pub input: f64,
    /// Of what it reads from a cache.
    pub cached_input: f64,
    /// Of what it writes, reasoning included.
    pub output: f64,
}

impl Cost {
    /// What this usage costs, in US dollars. Tokens read from a cache are a part of those read, and tokens of
    /// reasoning one of those written. What a total counts beyond both is taken for written: providers that leave
    /// reasoning out of what was written bill it all the same.
    pub fn of(&self, usage: &Usage) -> f64 {
        let count = |field| usage.count(field);
        let (read, written) = (count("prompt_tokens"), count("completion_tokens"));
        let cached = usage.detail("prompt_tokens_details", "cached_tokens").unwrap_or(0).min(read);
        let written = written.max(count("total_tokens").saturating_sub(read));
        let priced = |tokens: u64, price: f64| tokens as f64 * price;
        let of_thousand = priced(read - cached, self.input)
            + priced(cached, self.cached_input)
            + priced(written, self.output);
        of_thousand / 1000.0
    }
}

/// What a run has cost so far, for those who are told of it while the run is not theirs.
#[derive(Clone, Debug)]
pub struct Bill(Arc<AtomicU64>);

impl Bill {
    /// In US dollars; none when no model that was asked has a cost.
    pub fn usd(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Ordering::Relaxed))).filter(|usd| !usd.is_nan())
    }

    pub(super) fn set(&self, usd: Option<f64>) {
        self.0.store(usd.unwrap_or(f64::NAN).to_bits(), Ordering::Relaxed);
    }
}

impl Default for Bill {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(f64::NAN.to_bits())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn cached_tokens_are_cheaper_and_reasoning_is_counted_once() {
        let cost = Cost { input: 2.0, cached_input: 0.5, output: 8.0 };
        let of = |usage: Value| cost.of(&serde_json::from_value(usage).unwrap());
        for (usage, expected) in [
            (json!({}), 0.0),
            (json!({"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}), 2.0 + 4.0),
            (json!({"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 400}}), 1.2 + 0.2),
            (json!({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 1000}}), 0.005),
            (json!({"completion_tokens": 500, "completion_tokens_details": {"reasoning_tokens": 400}}), 4.0),
            // Reasoning beside what was written, as some providers report it.
            (json!({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1500}), 2.0 + 4.0),
            (json!({"total_tokens": 1000}), 8.0),
        ] {
            let usd = of(usage.clone());
            assert!((usd - expected).abs() < 1e-12, "{usage}: {usd}");
        }
    }

    #[test]
    fn a_bill_is_blank_until_something_has_a_price() {
        let bill = Bill::default();
        assert_eq!(bill.usd(), None);
        bill.set(Some(0.0));
        assert_eq!(bill.clone().usd(), Some(0.0));
    }
}
