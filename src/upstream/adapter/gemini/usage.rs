//! What an answer cost.

use serde::Deserialize;

use super::super::told::Cost;

/// A `usageMetadata` object. A count that is 0 is left out by the provider.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metered {
    prompt_token_count: u64,
    /// Results of tools that the provider ran itself, read as further prompt.
    tool_use_prompt_token_count: u64,
    candidates_token_count: u64,
    thoughts_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
}

impl Metered {
    /// The same as OpenAI counts it: thoughts are part of what was written.
    pub(super) fn cost(self) -> Cost {
        Cost {
            prompt: self.prompt_token_count.saturating_add(self.tool_use_prompt_token_count),
            completion: self.candidates_token_count.saturating_add(self.thoughts_token_count.unwrap_or(0)),
            cached: self.cached_content_token_count,
            cache_written: None,
            reasoning: self.thoughts_token_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn thoughts_and_results_of_tools_count_where_openai_counts_them() {
        let cost = |metadata: Value| serde_json::from_value::<Metered>(metadata).unwrap().cost();
        assert_eq!(
            cost(json!({"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 4,
                "thoughtsTokenCount": 3, "cachedContentTokenCount": 8, "totalTokenCount": 22})),
            Cost { prompt: 15, completion: 7, cached: Some(8), cache_written: None, reasoning: Some(3) }
        );
        assert_eq!(
            cost(json!({"promptTokenCount": 10, "promptTokensDetails": [{"modality": "TEXT"}]})),
            Cost { prompt: 10, ..Cost::default() }
        );
    }
}
