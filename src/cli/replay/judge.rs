//! Who judges: a real model, or the first member by its own recorded answer, since recordings have no judge.

use crate::ensemble::prompt::label;
use serde_json::{Map, Value, json};

use super::answers::Answers;
use super::recordings::Question;

/// A judge behind an OpenAI-compatible API.
#[derive(Clone, Debug)]
pub(super) struct RealJudge {
    /// The API's base, like `https://api.openai.com/v1`.
    pub(super) url: String,
    /// The API's name for the model.
    pub(super) model: String,
    /// The environment variable that holds the key.
    pub(super) key_env: Option<String>,
}

/// What the first member says when it plays this judge: as an answer, what it said itself; as a verdict, that
/// whoever agrees with it is right.
pub(super) fn played(judge: &str, asked: &Value, question: &Question, answers: &Answers) -> String {
    let own = question.texts.first().map(String::as_str).unwrap_or_default();
    let own_key = question.key(0);
    let agrees = |text: &str| match (own_key, answers.in_text(text)) {
        (Some(own), Some(key)) => own.same(&key),
        _ => false,
    };
    let prompt = asked.pointer("/messages/1/content").and_then(Value::as_str).unwrap_or_default();
    let shown = shown(prompt);
    let verdict = match judge {
        "judge-that-writes" => return own.to_owned(),
        "judge-that-chooses" => {
            let best = shown.iter().find(|(_, text)| agrees(text)).or(shown.first());
            json!({"reasons": "as I see it", "best": best.map(|(label, _)| label)})
        }
        _ => {
            let grade = |text| if agrees(text) { 10 } else { 0 };
            let grades: Map<String, Value> =
                shown.iter().map(|(label, text)| (label.clone(), json!(grade(text)))).collect();
            json!({"reasons": "as I see it", "scores": grades})
        }
    };
    verdict.to_string()
}

/// The candidates between the fences of a judge's prompt, each with its letters.
fn shown(prompt: &str) -> Vec<(String, &str)> {
    let mut shown = Vec::new();
    let mut rest = prompt;
    // The fences' code, which no candidate knows, is that of the first one.
    let Some(code) = prompt.lines().find_map(|line| line.strip_prefix("BEGIN A ")) else {
        return shown;
    };
    for label in (0..).map(label) {
        let fenced = rest
            .split_once(&format!("BEGIN {label} {code}\n"))
            .and_then(|(_, after)| after.split_once(&format!("\nEND {label} {code}")));
        let Some((text, after)) = fenced else { break };
        shown.push((label, text));
        rest = after;
    }
    shown
}
