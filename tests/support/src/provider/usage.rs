//! What an answer costs, as it says itself.

use serde_json::{Value, json};

/// Tokens that an answer claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `prompt_tokens`.
    pub prompt: u64,
    /// `completion_tokens`.
    pub completion: u64,
    /// `prompt_tokens_details.cached_tokens`, where told.
    pub cached: Option<u64>,
    /// `completion_tokens_details.reasoning_tokens`, where told.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Without details.
    pub fn new(prompt: u64, completion: u64) -> Self {
        Self { prompt, completion, ..Self::default() }
    }

    /// With `cached_tokens` told.
    pub fn cached(self, tokens: u64) -> Self {
        Self { cached: Some(tokens), ..self }
    }

    /// With `reasoning_tokens` told.
    pub fn reasoning(self, tokens: u64) -> Self {
        Self { reasoning: Some(tokens), ..self }
    }

    /// `total_tokens`.
    pub fn total(self) -> u64 {
        self.prompt + self.completion
    }

    /// The field-wise sum; a detail that neither tells stays untold.
    pub fn plus(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        Self {
            prompt: self.prompt + other.prompt,
            completion: self.completion + other.completion,
            cached: sum(self.cached, other.cached),
            reasoning: sum(self.reasoning, other.reasoning),
        }
    }

    /// As it stands in an answer.
    pub fn json(self) -> Value {
        let mut usage = json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.total(),
        });
        if let Some(tokens) = self.cached {
            usage["prompt_tokens_details"] = json!({"cached_tokens": tokens});
        }
        if let Some(tokens) = self.reasoning {
            usage["completion_tokens_details"] = json!({"reasoning_tokens": tokens});
        }
        usage
    }
}
