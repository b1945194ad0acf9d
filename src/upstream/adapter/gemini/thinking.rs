//! How much a model thinks before it answers.

use serde_json::{Value, json};

use super::super::asked::Effort;

/// The `thinkingConfig` that a `reasoning_effort` asks of a model.
///
/// Models from Gemini 3 on take levels, those before take budgets in tokens, as Google's own
/// OpenAI-compatible endpoint sets them. Thinking cannot be switched off everywhere: `none` then asks for the
/// least there is.
pub(super) fn config(model_name: &str, effort: Effort) -> Value {
    let mut config = if takes_levels(model_name) {
        json!({"thinkingLevel": level(model_name, effort)})
    } else {
        json!({"thinkingBudget": budget(model_name, effort)})
    };
    if let (true, Value::Object(config)) = (effort > Effort::None, &mut config) {
        config.insert("includeThoughts".to_owned(), Value::Bool(true));
    }
    config
}

/// Whether a model is of Gemini 3 or later. One whose name has no number stands for the newest.
pub(super) fn takes_levels(model_name: &str) -> bool {
    let number = model_name.split_once("gemini-").map(|(_, rest)| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..digits).unwrap_or_default()
    });
    number.and_then(|number| number.parse::<u32>().ok()).is_none_or(|number| number >= 3)
}

fn level(model_name: &str, effort: Effort) -> &'static str {
    let is_pro = model_name.contains("-pro");
    match effort {
        Effort::None | Effort::Minimal if is_pro => "LOW",
        Effort::None | Effort::Minimal => "MINIMAL",
        Effort::Low => "LOW",
        // The first of them knows two levels.
        Effort::Medium if model_name.contains("gemini-3-pro") => "HIGH",
        Effort::Medium => "MEDIUM",
        Effort::High | Effort::Most => "HIGH",
    }
}

fn budget(model_name: &str, effort: Effort) -> u32 {
    match effort {
        Effort::None if model_name.contains("-pro") => 128,
        Effort::None => 0,
        Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 8_192,
        Effort::High | Effort::Most => 24_576,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts_are_levels_or_budgets() {
        let level = |level: &str| json!({"thinkingLevel": level, "includeThoughts": true});
        let budget = |budget: u32| json!({"thinkingBudget": budget, "includeThoughts": true});
        for (model, effort, expected) in [
            ("gemini-2.5-flash", Effort::None, json!({"thinkingBudget": 0})),
            ("gemini-2.5-pro", Effort::None, json!({"thinkingBudget": 128})),
            ("gemini-2.5-flash", Effort::Minimal, budget(1024)),
            ("gemini-2.5-flash", Effort::Low, budget(1024)),
            ("gemini-2.5-pro", Effort::Medium, budget(8192)),
            ("gemini-2.5-flash-lite", Effort::High, budget(24576)),
            ("gemini-3-flash-preview", Effort::None, json!({"thinkingLevel": "MINIMAL"})),
            ("gemini-3.1-pro-preview", Effort::None, json!({"thinkingLevel": "LOW"})),
            ("gemini-3-flash-preview", Effort::Minimal, level("MINIMAL")),
            ("gemini-3-pro-preview", Effort::Minimal, level("LOW")),
            ("gemini-3-pro-preview", Effort::Medium, level("HIGH")),
            ("gemini-3.1-pro-preview", Effort::Medium, level("MEDIUM")),
            ("gemini-flash-latest", Effort::Low, level("LOW")),
            ("gemini-12-flash", Effort::Most, level("HIGH")),
        ] {
            assert_eq!(config(model, effort), expected, "{model} {effort:?}");
        }
    }
}
