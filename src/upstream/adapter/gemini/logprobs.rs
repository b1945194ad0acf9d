//! Log probabilities of tokens.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::chat::UpTo;

/// How many tokens are told with their probabilities: as many as an answer has.
const MAX_TOKENS: usize = 1 << 17;
/// How many tokens are told beside the one that was chosen.
const MAX_RIVALS: usize = 64;
/// How long a token may be, in bytes, of which each is told as a number.
const MAX_BYTES: usize = 4096;
/// By how much they may grow in other words.
const MAX_GROWTH: usize = 4;

/// A `logprobsResult`: of each token the one that was chosen, and the likeliest ones.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logprobs<'a> {
    #[serde(borrow, default)]
    chosen_candidates: UpTo<&'a RawValue, MAX_TOKENS>,
    #[serde(borrow, default)]
    top_candidates: UpTo<&'a RawValue, MAX_TOKENS>,
}

#[derive(Default, Deserialize)]
struct Likeliest<'a> {
    #[serde(borrow, default)]
    candidates: UpTo<&'a RawValue, MAX_RIVALS>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(default)]
    log_probability: f64,
}

/// One as chat completions have it.
#[derive(Serialize)]
struct Told<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

/// The `logprobs` of a choice; none when there are none, or more than anybody can have asked for.
pub(super) fn of_a_choice(result: &RawValue) -> Option<Box<RawValue>> {
    let Logprobs { chosen_candidates: UpTo(chosen), top_candidates: UpTo(top) } =
        serde_json::from_str(result.get()).ok()?;
    if chosen.is_empty() {
        return None;
    }
    let mut json = br#"{"content":["#.to_vec();
    let mut top = top.into_iter();
    for (at, token) in chosen.into_iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        tell(&mut json, token)?;
        // In place of its closing brace.
        json.pop();
        json.extend_from_slice(br#","top_logprobs":["#);
        let likeliest = top.next().map(|likeliest| serde_json::from_str(likeliest.get()));
        let Likeliest { candidates: UpTo(rivals) } = likeliest.transpose().ok()?.unwrap_or_default();
        for (at, rival) in rivals.into_iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            tell(&mut json, rival)?;
        }
        json.extend_from_slice(b"]}");
        if json.len() > MAX_GROWTH * result.get().len() {
            return None;
        }
    }
    json.extend_from_slice(br#"],"refusal":null}"#);
    RawValue::from_string(String::from_utf8(json).ok()?).ok()
}

fn tell(json: &mut Vec<u8>, token: &RawValue) -> Option<()> {
    let Token { token, log_probability } = serde_json::from_str(token.get()).ok()?;
    if token.len() > MAX_BYTES {
        return None;
    }
    let told = Told { token: &token, logprob: log_probability, bytes: token.as_bytes() };
    serde_json::to_writer(json, &told).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn tokens_keep_their_order_and_their_rivals() {
        let read = |result: Value| {
            let told = of_a_choice(&RawValue::from_string(result.to_string()).unwrap())?;
            Some(serde_json::from_str::<Value>(told.get()).unwrap())
        };
        let told = read(json!({
            "chosenCandidates": [{"token": "é", "tokenId": 7, "logProbability": -0.5}, {"token": "b", "logProbability": -1}],
            "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "c", "logProbability": -2}]}],
        }));
        assert_eq!(
            told.unwrap(),
            json!({"refusal": null, "content": [
                {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [
                    {"token": "é", "logprob": -0.5, "bytes": [195, 169]}, {"token": "c", "logprob": -2.0, "bytes": [99]}]},
                {"token": "b", "logprob": -1.0, "bytes": [98], "top_logprobs": []},
            ]})
        );
        assert!(read(json!({})).is_none());
    }

    #[test]
    fn tokens_are_told_as_many_as_there_may_be_and_no_more() {
        let token = r#"{"token":"a","tokenId":7,"logProbability":-0.5}"#;
        let of = |count: usize| {
            let tokens = vec![token; count].join(",");
            of_a_choice(&RawValue::from_string(format!(r#"{{"chosenCandidates":[{tokens}]}}"#)).unwrap())
        };
        assert!(of(MAX_TOKENS).is_some() && of(MAX_TOKENS + 1).is_none());
        let long = |bytes: usize| {
            let token = format!(r#"{{"chosenCandidates":[{{"token":"{}"}}]}}"#, "a".repeat(bytes));
            of_a_choice(&RawValue::from_string(token).unwrap())
        };
        assert!(long(MAX_BYTES).is_some() && long(MAX_BYTES + 1).is_none());
        // What says nothing is not made longer.
        let empty = format!(r#"{{"chosenCandidates":[{}]}}"#, vec!["{}"; 1000].join(","));
        assert!(of_a_choice(&RawValue::from_string(empty).unwrap()).is_none());
    }
}
