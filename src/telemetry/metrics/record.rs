//! What a decision says, counted.

use super::Metrics;
use super::series::Scribe;
use super::table;
use crate::telemetry::decision::{Call, Decision};
use crate::telemetry::record::{CANCELLED, NOT_ASKED, USABLE};

/// The one thing that we ask models to do.
pub(super) const OPERATION: &str = "chat";
/// The words of results that are no failures.
const ANSWERS: [&str; 2] = [USABLE, "answered"];
/// The result of a call that was refused for a limit of ours.
const LIMITED: &str = "limited";
/// The causes of errors that are limits of an alias, where nobody was asked.
const LIMITS: [&str; 2] = ["rate_limit_exceeded", "insufficient_quota"];

impl Metrics {
    /// Counts what has come of a run.
    pub fn record(&self, decision: &Decision) {
        let mut to = self.series().scribe();
        run(&mut to, decision);
        panel(&mut to, decision);
        for call in decision.members.iter().filter(|call| call.result != NOT_ASKED) {
            to.count(&table::MEMBER_CALLS, &[&call.model, &call.result], 1);
            self.call(&mut to, call);
        }
        for call in &decision.judges {
            if !is_answer(call) && call.result != CANCELLED {
                to.count(&table::JUDGE_FAILURES, &[&call.result], 1);
            }
            self.call(&mut to, call);
        }
        to.observe(&table::OVERHEAD, &[], overhead_ms(decision) / 1000.0);
    }

    /// Counts a call, whoever made it.
    fn call(&self, to: &mut Scribe, call: &Call) {
        let model = &*call.model;
        let provider = self.provider(model);
        let labels = [OPERATION, provider, model];
        if let Some(usage) = &call.usage {
            for (kind, tokens) in [("input", usage.prompt_tokens), ("output", usage.completion_tokens)] {
                let [operation, provider, model] = labels;
                to.observe(&table::TOKEN_USAGE, &[operation, provider, model, kind], tokens as f64);
            }
            if usage.estimated {
                to.count(&table::ESTIMATED, &[model], 1);
            }
        }
        if let Some(usd) = call.cost_usd {
            to.add(&table::COST, &[model], usd);
        }
        if call.result == LIMITED {
            to.count(&table::LIMITED, &["model", model], 1);
        }
        if call.queued_ms > 0.0 {
            to.observe(&table::QUEUE, &[model], call.queued_ms / 1000.0);
        }
        // Who was not called at all took no time that says anything.
        if call.attempts == 0 {
            return;
        }
        to.count(&table::RETRIES, &[model], u64::from(call.attempts - 1));
        let [operation, provider, model] = labels;
        let error = if is_answer(call) { "" } else { &*call.result };
        to.observe(
            &table::OPERATION_DURATION,
            &[operation, provider, model, error],
            call.elapsed_ms / 1000.0,
        );
        if let Some(first_ms) = call.first_byte_ms {
            let began_ms = call.tries.last().map_or(call.started_ms, |last| last.started_ms);
            to.observe(&table::FIRST_TOKEN, &labels, (first_ms - began_ms).max(0.0) / 1000.0);
        }
    }
}

fn run(to: &mut Scribe, d: &Decision) {
    let (alias, outcome) = (&*d.alias, d.outcome().label());
    to.count(&table::REQUESTS, &[alias, &d.strategy, outcome], 1);
    to.observe(&table::REQUEST_DURATION, &[alias, outcome], d.total_ms / 1000.0);
    if !d.error_code.is_empty() {
        to.count(&table::ERRORS, &[alias, &d.error_code], 1);
        let is_refused = d.members.iter().all(|call| call.result == NOT_ASKED);
        if is_refused && LIMITS.contains(&&*d.error_code) {
            to.count(&table::LIMITED, &["alias", alias], 1);
        }
    }
    for cause in &d.degraded {
        to.count(&table::DEGRADED, &[alias, cause], 1);
    }
    for header in &d.ignored {
        to.count(&table::IGNORED_HEADERS, &[alias, header], 1);
    }
    if d.condition_failed {
        to.count(&table::CONDITION_FAILURES, &[alias], 1);
    }
}

fn panel(to: &mut Scribe, d: &Decision) {
    let alias = &*d.alias;
    if let Some(quorum_ms) = d.quorum_ms {
        to.observe(&table::QUORUM_WAIT, &[alias], quorum_ms / 1000.0);
        // Before the panel's end, it was the caller who left.
        if d.panel_ms > 0.0 {
            let late = d.members.iter().filter(|call| call.result == CANCELLED).count();
            to.count(&table::STRAGGLERS, &[alias], late as u64);
        }
    }
    to.count(&table::CALLS_SAVED, &[alias], u64::from(d.calls_saved));
    if let Some(agreement) = d.agreement {
        to.observe(&table::AGREEMENT, &[alias], agreement);
    }
}

fn is_answer(call: &Call) -> bool {
    ANSWERS.contains(&&*call.result)
}

/// The time of a run in which no call was under way.
fn overhead_ms(d: &Decision) -> f64 {
    let asked = d.members.iter().chain(&d.judges).filter(|call| call.result != NOT_ASKED);
    let mut calls: Vec<(f64, f64)> =
        asked.map(|call| (call.started_ms, call.started_ms + call.elapsed_ms)).collect();
    calls.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut idle, mut busy_until) = (0.0, 0.0);
    for (began, ended) in calls {
        idle += f64::max(began - busy_until, 0.0);
        busy_until = f64::max(busy_until, ended);
    }
    idle + f64::max(d.total_ms - busy_until, 0.0)
}
