//! The line that a run leaves in the log.

use std::fmt::Write as _;

use tracing::{error, info, warn};

use super::decision::{Call, Decision, Outcome};
use super::record::{DEFECT, NOT_ASKED};

/// Writes it.
pub(super) fn write(d: &Decision) {
    let usage = d.usage.unwrap_or_default();
    let (members, judges) = (calls(&d.members), calls(&d.judges));
    let outcome = d.outcome().label();
    let [degraded, overrides, ignored] = [&d.degraded, &d.overrides, &d.ignored].map(|words| words.join(","));
    let calls_saved = Some(d.calls_saved).filter(|saved| *saved > 0);
    let condition_failed = Some(true).filter(|_| d.condition_failed);
    macro_rules! line {
        ($level:ident, $message:literal) => {
            $level!(
                request_id = d.request_id,
                alias = d.alias,
                strategy = d.strategy,
                outcome,
                code = said(&d.error_code),
                quorum.got = d.quorum_got,
                quorum.needed = d.quorum_needed,
                stream = d.stream,
                agreement = d.agreement,
                calls_saved,
                degraded = said(&degraded),
                overrides = said(&overrides),
                ignored = said(&ignored),
                condition_failed,
                members = said(&members),
                judges = said(&judges),
                usage.prompt_tokens = usage.prompt_tokens,
                usage.completion_tokens = usage.completion_tokens,
                usage.total_tokens = usage.total_tokens,
                usage.estimated = usage.estimated,
                cost_usd = d.cost_usd,
                panel_ms = d.panel_ms,
                elapsed_ms = d.total_ms,
                $message
            )
        };
    }
    let is_asked = d.members.iter().any(|call| call.result != NOT_ASKED);
    match d.outcome() {
        Outcome::Failed if d.error_code == DEFECT => line!(error, "ensemble failed"),
        Outcome::Failed if !is_asked => line!(info, "ensemble refused"),
        Outcome::Failed => line!(warn, "ensemble failed"),
        Outcome::Cancelled => line!(info, "ensemble cancelled"),
        _ => line!(info, "ensemble answered"),
    }
}

/// A field that says nothing is left out.
fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// How much of a line calls may take that are still told one by one, in bytes: the verdicts of a large panel would make
/// tens of kilobytes. The decision has them all.
const MAX_TOLD: usize = 4 << 10;

/// `name=result@ms`, and `x2` behind it after a second attempt, for people who read lines.
pub(super) fn calls(calls: &[Call]) -> String {
    let mut text = String::new();
    for (told, call) in calls.iter().enumerate() {
        if text.len() >= MAX_TOLD {
            let _ = write!(text, " … and {} more", calls.len() - told);
            break;
        }
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ =
            write!(text, "{space}{}={}@{:.0}", call.model, call.result, call.started_ms + call.elapsed_ms);
        if call.attempts > 1 {
            let _ = write!(text, "x{}", call.attempts);
        }
    }
    text
}
