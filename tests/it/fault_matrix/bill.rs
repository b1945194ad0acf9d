//! What every call costs: as the provider tells it, and as it stands in the record.

use consort_testkit::provider::Usage;
use serde_json::Value;

/// What a thousand tokens cost at every model: read, and written.
pub(super) const PRICES: (f64, f64) = (0.5, 2.0);

/// What an answer of this model claims: no two claim the same.
pub(super) fn claimed(model: &str) -> Usage {
    match model {
        "a" => Usage::new(11, 3),
        "b" => Usage::new(13, 5),
        "c" => Usage::new(17, 7),
        _ => Usage::new(101, 61),
    }
}

/// The calls of a decision, members' before judges'.
pub(super) fn calls(decision: &Value) -> impl Iterator<Item = &Value> {
    ["members", "judges"].into_iter().filter_map(|seat| decision[seat].as_array()).flatten()
}

/// Whether a call has given a whole answer, so that the provider has told what it costs.
pub(super) fn is_whole(call: &Value) -> bool {
    call["result"] == "usable" || call["result"] == "answered"
}

/// Tokens read and written, and their price.
#[derive(Clone, Copy, Debug, Default)]
struct Bill {
    tokens: (u64, u64),
    cost: f64,
}

impl Bill {
    fn of(usage: Usage) -> Self {
        let price = |tokens: u64, per_1k: f64| tokens as f64 * per_1k / 1000.0;
        let cost = price(usage.prompt, PRICES.0) + price(usage.completion, PRICES.1);
        Self { tokens: (usage.prompt, usage.completion), cost }
    }

    /// As a call or a whole run tells it; None where its parts do not make its total.
    fn recorded(told: &Value) -> Option<Self> {
        let count = |name: &str| told["usage"][name].as_u64().unwrap_or_default();
        let tokens = (count("prompt_tokens"), count("completion_tokens"));
        let cost = told["cost_usd"].as_f64().unwrap_or_default();
        (count("total_tokens") == tokens.0 + tokens.1).then_some(Self { tokens, cost })
    }

    fn plus(self, other: Self) -> Self {
        let tokens = (self.tokens.0 + other.tokens.0, self.tokens.1 + other.tokens.1);
        Self { tokens, cost: self.cost + other.cost }
    }

    fn is(self, other: Self) -> bool {
        self.tokens == other.tokens && (self.cost - other.cost).abs() < 1e-9
    }
}

/// Everything that is wrong with what a run was billed: a call that was answered costs what the provider has claimed, by
/// the token; what one costs that was not is the provider's secret, and said to be a guess where it is anything; the run
/// costs what its calls do.
pub(super) fn wrong(decision: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sum = Bill::default();
    let mut is_guess = false;
    for call in calls(decision) {
        let Some(recorded) = Bill::recorded(call) else {
            wrong.push(format!("parts that do not make the whole: {call}"));
            continue;
        };
        sum = sum.plus(recorded);
        let call_is_guess = call["usage"]["estimated"] == true;
        is_guess |= call_is_guess;
        let claimed = Bill::of(claimed(call["model"].as_str().unwrap_or_default()));
        let is_right = if is_whole(call) {
            recorded.is(claimed) && !call_is_guess
        } else {
            call_is_guess || recorded.is(Bill::default()) || recorded.is(claimed)
        };
        if !is_right {
            wrong.push(format!("{recorded:?} and not {claimed:?} for {call}"));
        }
    }
    let whole = Bill::recorded(decision);
    if !whole.is_some_and(|whole| whole.is(sum)) || (decision["usage"]["estimated"] == true) != is_guess {
        wrong.push(format!("{whole:?} and not {sum:?}: {decision}"));
    }
    wrong
}
