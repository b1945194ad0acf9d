//! A decision in words and figures, for people.

use super::paint::{Paint, Tone, plain};
use super::table::Table;
use crate::telemetry::decision::{Call, Decision, Outcome};

/// Who was asked, when, and at what cost; then what came of it, in one line.
pub(super) fn told(decision: &Decision, paint: Paint) -> String {
    let header = ["call", "result", "began", "first words", "took", "read", "written", "cost"];
    let mut table = Table::new(&header, false);
    for call in decision.members.iter().chain(&decision.judges) {
        table.push(row(call).iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    format!("{table}\n{}\n", summary(decision, paint))
}

/// What came of a run: how, by how many, how sure, how long, how much.
pub(super) fn summary(decision: &Decision, paint: Paint) -> String {
    let outcome = decision.outcome();
    let how = match outcome {
        Outcome::Failed => format!("failed: {}", decision.error_code),
        _ if decision.degraded.is_empty() => outcome.label().to_owned(),
        _ => format!("{}: {}", outcome.label(), decision.degraded.join(", ")),
    };
    let tokens = decision.usage.map(|usage| {
        let about = if usage.estimated { "about " } else { "" };
        format!("{about}{} tokens", usage.total_tokens)
    });
    let parts = [
        Some(paint.toned(&how, tone(outcome))),
        Some(format!("{} usable of {} needed", decision.quorum_got, decision.quorum_needed)),
        decision.agreement.map(|agreement| format!("agreement {:.0} %", 100.0 * agreement)),
        Some(seconds(decision.total_ms)),
        tokens,
        decision.cost_usd.map(usd),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The colour of a call's result.
pub(super) fn tone_of_call(result: &str) -> Tone {
    match result {
        "usable" | "answered" => Tone::Good,
        "cancelled" | "not_asked" | "running" => Tone::Quiet,
        _ => Tone::Bad,
    }
}

/// Milliseconds as seconds.
pub(super) fn seconds(ms: f64) -> String {
    format!("{:.2} s", ms / 1000.0)
}

fn tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Full | Outcome::Quorum | Outcome::Single | Outcome::Cascade => Tone::Good,
        Outcome::Degraded => Tone::Doubtful,
        Outcome::Failed => Tone::Bad,
        Outcome::Cancelled | Outcome::Running | Outcome::Unspecified => Tone::Quiet,
    }
}

fn row(call: &Call) -> Vec<String> {
    let is_asked = call.result != "not_asked";
    let when = |ms: Option<f64>| ms.filter(|_| is_asked).map_or_else(dash, seconds);
    let tokens = |of: fn(&crate::telemetry::decision::Usage) -> u64| {
        call.usage.as_ref().map_or_else(dash, |usage| of(usage).to_string())
    };
    let retries = if call.attempts > 1 { format!(" ({} attempts)", call.attempts) } else { String::new() };
    let chosen = if call.chosen { ", chosen" } else { "" };
    let name =
        if call.role == "member" { call.model.clone() } else { format!("{}: {}", call.role, call.model) };
    vec![
        name,
        format!("{}{chosen}{retries}", call.result.replace('_', " ")),
        when(Some(call.started_ms)),
        when(call.first_byte_ms),
        when(Some(call.elapsed_ms)),
        tokens(|usage| usage.prompt_tokens),
        tokens(|usage| usage.completion_tokens),
        call.cost_usd.map_or_else(dash, usd),
    ]
}

/// To the hundredth of a cent: many a call costs less than one.
fn usd(usd: f64) -> String {
    format!("${usd:.4}")
}

fn dash() -> String {
    "-".to_owned()
}
