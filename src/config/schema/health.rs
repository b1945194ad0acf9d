//! When a direct model is left alone, and how it is asked whether it is back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A day: longer is more likely a slip in the unit than a wish.
const MAX_SECONDS: u64 = 86_400;

/// When a direct model that keeps failing is left alone, so that nobody waits for it: its calls fail at once, and
/// ensembles go on without it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cooldown {
    /// Whether it is left alone at all.
    pub enabled: bool,
    /// How many attempts in a row have to fail: connections and answers that do not come about, timeouts
    /// before the first word, and `trigger_statuses`. Calls that are cancelled and other statuses do not count.
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
    /// How long the first cooldown lasts, in seconds. It ends with one call that finds out whether the model is
    /// back; if not, the next cooldown is twice as long. A `retry-after` makes it longer.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub default_seconds: u64,
    /// The bound on all cooldowns, in seconds.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub max_seconds: u64,
    /// The statuses that count as failures.
    #[schemars(inner(range(min = 400, max = 599)))]
    pub trigger_statuses: Vec<u16>,
}

impl Default for Cooldown {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 3,
            default_seconds: 30,
            max_seconds: 600,
            trigger_statuses: vec![401, 408, 429, 500, 502, 503, 504],
        }
    }
}

/// A question to a direct model that has cooled down. With it, no caller's call is spent on finding out whether the
/// model is back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackgroundCheck {
    /// How long to wait between two looks whether a question is due, in seconds.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub interval_seconds: u64,
    /// The question.
    #[schemars(length(min = 1))]
    pub prompt: String,
    /// How many tokens its answer may have.
    #[schemars(range(min = 1))]
    pub max_tokens: u32,
}

impl Default for BackgroundCheck {
    fn default() -> Self {
        Self { interval_seconds: 30, prompt: "Say ok.".to_owned(), max_tokens: 16 }
    }
}
