//! Log probabilities of tokens.

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

/// A `logprobsResult`: of each token the one that was chosen, and the likeliest ones.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Logprobs {
    chosen_candidates: Vec<Token>,
    top_candidates: Vec<Likeliest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Likeliest {
    candidates: Vec<Token>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Token {
    token: String,
    log_probability: f64,
}

impl Logprobs {
    /// The `logprobs` of a choice; none when there are none.
    pub(super) fn of_a_choice(self) -> Option<Box<RawValue>> {
        if self.chosen_candidates.is_empty() {
            return None;
        }
        let mut top = self.top_candidates.into_iter();
        let tokens = self.chosen_candidates.into_iter().map(|chosen| {
            let likeliest = top.next().map(|likeliest| likeliest.candidates).unwrap_or_default();
            let mut token = chosen.json();
            if let Value::Object(token) = &mut token {
                token.insert("top_logprobs".to_owned(), likeliest.iter().map(Token::json).collect());
            }
            token
        });
        let content: Vec<Value> = tokens.collect();
        to_raw_value(&json!({"content": content, "refusal": null})).ok()
    }
}

impl Token {
    fn json(&self) -> Value {
        json!({"token": self.token, "logprob": self.log_probability, "bytes": self.token.as_bytes()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_order_and_their_rivals() {
        let result: Logprobs = serde_json::from_value(json!({
            "chosenCandidates": [{"token": "é", "tokenId": 7, "logProbability": -0.5}, {"token": "b", "logProbability": -1}],
            "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "c", "logProbability": -2}]}],
        }))
        .unwrap();
        let read: Value = serde_json::from_str(result.of_a_choice().unwrap().get()).unwrap();
        assert_eq!(
            read,
            json!({"refusal": null, "content": [
                {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [
                    {"token": "é", "logprob": -0.5, "bytes": [195, 169]}, {"token": "c", "logprob": -2.0, "bytes": [99]}]},
                {"token": "b", "logprob": -1.0, "bytes": [98], "top_logprobs": []},
            ]})
        );
        assert!(Logprobs::default().of_a_choice().is_none());
    }
}
