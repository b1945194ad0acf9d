//! The account of one run: kept while it goes on, closed once on every exit.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::decision::{Call, Decision, Outcome, Usage as UsageRecord};
use super::{Attempts, RunSpan};
use crate::chat::Usage;

const NOT_ASKED: &str = "not_asked";
const CANCELLED: &str = "cancelled";
const USABLE: &str = "usable";
/// The label of an error that is a defect of ours.
const DEFECT: &str = "internal_error";

/// The account of one run. Dropping it closes it: on success, failure, cancellation and panic
/// alike, the decision is emitted once.
#[derive(Debug)]
pub struct Account {
    decision: Decision,
    usage: Usage,
    /// The attempts of every call that was made.
    attempts: Vec<(Seat, Arc<Attempts>)>,
    began: Instant,
    trace: Option<Box<RunSpan>>,
}

/// Whose call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// A panel member, by its place in the panel.
    Member(usize),
    /// A judge, by the order in which judges were asked.
    Judge(usize),
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `usable`, `answered`, or the cause of failure in one word.
    pub result: &'static str,
    /// What the provider reported.
    pub usage: Option<Usage>,
    /// What stands in when it answered and reported nothing.
    pub estimate: Option<Usage>,
}

impl Account {
    /// Opens the account of a run that has asked nobody yet; the run's span, if it has one, ends with it.
    pub fn open<'a>(
        request_id: &str,
        alias: &str,
        strategy: &str,
        quorum: usize,
        panel: impl Iterator<Item = (&'a str, f64)>,
        trace: Option<Box<RunSpan>>,
    ) -> Self {
        let members = panel
            .map(|(model, weight)| Call {
                model: model.to_owned(),
                result: NOT_ASKED.to_owned(),
                weight,
                ..Call::default()
            })
            .collect();
        let decision = Decision {
            request_id: request_id.to_owned(),
            alias: alias.to_owned(),
            strategy: strategy.to_owned(),
            outcome: Outcome::Cancelled.into(),
            quorum_needed: u32::try_from(quorum).unwrap_or(u32::MAX),
            members,
            usage: Some(UsageRecord::default()),
            ..Decision::default()
        };
        Self { decision, usage: Usage::default(), attempts: Vec::new(), began: Instant::now(), trace }
    }

    /// The request is known.
    pub fn panel_began(&mut self, stream: bool) {
        self.decision.stream = stream;
    }

    /// The beginning of a member's call, cancelled until its end is known; where its attempts are counted.
    pub fn member_began(&mut self, index: usize) -> Arc<Attempts> {
        let started_ms = self.elapsed_ms();
        if let Some(call) = self.decision.members.get_mut(index) {
            CANCELLED.clone_into(&mut call.result);
            call.started_ms = started_ms;
        }
        self.attempts_of(Seat::Member(index))
    }

    /// The beginning of a judge's call, cancelled until its end is known; where its attempts are counted.
    pub fn judge_began(&mut self, model: &str) -> (Seat, Arc<Attempts>) {
        let started_ms = self.elapsed_ms();
        self.decision.judges.push(Call {
            model: model.to_owned(),
            result: CANCELLED.to_owned(),
            started_ms,
            ..Call::default()
        });
        let seat = Seat::Judge(self.decision.judges.len() - 1);
        (seat, self.attempts_of(seat))
    }

    /// The end of a call.
    pub fn ended(&mut self, seat: Seat, ended: &Ended) {
        if let Some(usage) = ended.usage.as_ref().or(ended.estimate.as_ref()) {
            self.bill(seat, usage, ended.usage.is_none());
        }
        self.bill_attempts(|of| of == seat);
        let now = self.elapsed_ms();
        self.decision.quorum_got += u32::from(ended.result == USABLE);
        if let Some(call) = self.call(seat) {
            ended.result.clone_into(&mut call.result);
            call.elapsed_ms = now - call.started_ms;
        }
    }

    /// What the answer of a member was compared by.
    pub fn read(&mut self, member: usize, key: Option<String>) {
        if let Some(call) = self.decision.members.get_mut(member) {
            call.key = key;
        }
    }

    /// What verdicts about a member's answer came to.
    pub fn graded(&mut self, member: usize, score: f64) {
        if let Some(call) = self.decision.members.get_mut(member) {
            call.score = Some(score);
        }
    }

    /// The panel is done: everybody has answered, or nobody is waited for any more.
    /// So many of its calls could not matter any more.
    pub fn panel_ended(&mut self, saved: usize) {
        self.decision.calls_saved = u32::try_from(saved).unwrap_or(u32::MAX);
        self.bill_attempts(|_| true);
        self.decision.panel_ms = self.elapsed_ms();
        end_cancelled(&mut self.decision.members, self.decision.panel_ms);
    }

    /// The answer is this call's own.
    pub fn chosen(&mut self, seat: Seat) {
        if let Some(call) = self.call(seat) {
            call.chosen = true;
        }
    }

    /// The share of the leading class.
    pub fn agreed(&mut self, agreement: Option<f64>) {
        self.decision.agreement = agreement;
    }

    /// Something stood in for what the ensemble was made for.
    pub fn degraded(&mut self, why: &'static str) {
        if !self.decision.degraded.iter().any(|told| told == why) {
            self.decision.degraded.push(why.to_owned());
        }
    }

    /// What the caller wanted changed, and was not allowed to change; and whether the ensemble's condition
    /// could not be evaluated.
    pub fn wished(&mut self, applied: &[&'static str], ignored: &[&'static str], condition_failed: bool) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.decision.overrides = owned(applied);
        self.decision.ignored = owned(ignored);
        self.decision.condition_failed = condition_failed;
    }

    /// How the answer came about; the run may still be cancelled before its end.
    pub fn settle(&mut self, outcome: Outcome) {
        self.decision.outcome = outcome.into();
    }

    /// The caller gets an error with this label.
    pub fn failed(&mut self, label: &str) {
        self.decision.outcome = Outcome::Failed.into();
        label.clone_into(&mut self.decision.error_code);
    }

    /// What all calls so far cost.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The decision as it would be recorded now, as JSON.
    ///
    /// # Errors
    /// Never for what a decision holds; serde's signature has it.
    pub fn to_json(&mut self) -> Result<Box<RawValue>, serde_json::Error> {
        self.bill_attempts(|_| true);
        self.decision.total_ms = self.elapsed_ms();
        serde_json::value::to_raw_value(&self.decision)
    }

    /// How long the panel took.
    pub fn panel_time(&self) -> Duration {
        Duration::from_secs_f64(self.decision.panel_ms / 1000.0)
    }

    fn call(&mut self, seat: Seat) -> Option<&mut Call> {
        match seat {
            Seat::Member(index) => self.decision.members.get_mut(index),
            Seat::Judge(index) => self.decision.judges.get_mut(index),
        }
    }

    fn attempts_of(&mut self, seat: Seat) -> Arc<Attempts> {
        let attempts = Arc::new(Attempts::traced(self.trace.as_ref().map(|run| run.call(seat))));
        self.attempts.push((seat, Arc::clone(&attempts)));
        attempts
    }

    /// Counts the attempts of these calls so far, and what those without an answer have cost.
    fn bill_attempts(&mut self, of: impl Fn(Seat) -> bool) {
        let due: Vec<_> = self.attempts.iter().filter(|(seat, _)| of(*seat)).cloned().collect();
        for (seat, attempts) in due {
            if let Some(cost) = attempts.take_unbilled() {
                self.bill(seat, &cost, false);
            }
            if let Some(call) = self.call(seat) {
                call.attempts = attempts.count();
            }
        }
    }

    fn bill(&mut self, seat: Seat, usage: &Usage, is_estimated: bool) {
        self.usage.add(usage);
        let estimated = is_estimated || self.decision.usage.is_some_and(|u| u.estimated);
        self.decision.usage = Some(record(&self.usage, estimated));
        if let Some(call) = self.call(seat) {
            call.usage = Some(plus(call.usage, record(usage, is_estimated)));
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1000.0
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.bill_attempts(|_| true);
        self.decision.total_ms = self.elapsed_ms();
        end_cancelled(&mut self.decision.members, self.decision.total_ms);
        end_cancelled(&mut self.decision.judges, self.decision.total_ms);
        if std::thread::panicking() {
            self.failed(DEFECT);
        }
        if let Some(span) = self.trace.take() {
            span.end(&self.decision);
        }
        emit(&self.decision);
    }
}

impl Outcome {
    /// The word for it in headers, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Full => "full",
            Self::Quorum => "quorum",
            Self::Degraded => "degraded",
            Self::Single => "single",
            Self::Cascade => "cascade",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Writes an outcome as its word.
pub(super) fn word<S: serde::Serializer>(outcome: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let outcome = Outcome::try_from(*outcome).unwrap_or(Outcome::Unspecified);
    serializer.serialize_str(outcome.label())
}

fn emit(d: &Decision) {
    let usage = d.usage.unwrap_or_default();
    let (members, judges) = (calls(&d.members), calls(&d.judges));
    let outcome = d.outcome().label();
    macro_rules! line {
        ($level:ident, $message:literal) => {
            $level!(
                request_id = %d.request_id, alias = %d.alias, strategy = %d.strategy, outcome, code = %d.error_code,
                quorum.got = d.quorum_got, quorum.needed = d.quorum_needed, stream = d.stream,
                agreement = d.agreement, calls_saved = d.calls_saved, degraded = %d.degraded.join(","),
                overrides = %d.overrides.join(","), ignored = %d.ignored.join(","),
                condition_failed = d.condition_failed, members = %members, judges = %judges,
                usage.prompt_tokens = usage.prompt_tokens, usage.completion_tokens = usage.completion_tokens,
                usage.total_tokens = usage.total_tokens, usage.estimated = usage.estimated,
                panel_ms = d.panel_ms, elapsed_ms = d.total_ms, $message
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

/// Gives an end to the calls that never had one.
fn end_cancelled(calls: &mut [Call], now_ms: f64) {
    for call in calls.iter_mut().filter(|call| call.result == CANCELLED && call.elapsed_ms == 0.0) {
        call.elapsed_ms = now_ms - call.started_ms;
    }
}

/// `name=result@ms`, and `x2` behind it after a second attempt, for people who read lines.
fn calls(calls: &[Call]) -> String {
    let mut text = String::new();
    for call in calls {
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

/// What two attempts of one call cost.
fn plus(before: Option<UsageRecord>, usage: UsageRecord) -> UsageRecord {
    let Some(before) = before else {
        return usage;
    };
    let either = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))));
    UsageRecord {
        prompt_tokens: before.prompt_tokens.saturating_add(usage.prompt_tokens),
        completion_tokens: before.completion_tokens.saturating_add(usage.completion_tokens),
        total_tokens: before.total_tokens.saturating_add(usage.total_tokens),
        cached_tokens: either(before.cached_tokens, usage.cached_tokens),
        reasoning_tokens: either(before.reasoning_tokens, usage.reasoning_tokens),
        estimated: before.estimated || usage.estimated,
    }
}

fn record(usage: &Usage, estimated: bool) -> UsageRecord {
    UsageRecord {
        prompt_tokens: usage.count("prompt_tokens"),
        completion_tokens: usage.count("completion_tokens"),
        total_tokens: usage.count("total_tokens"),
        cached_tokens: usage.detail("prompt_tokens_details", "cached_tokens"),
        reasoning_tokens: usage.detail("completion_tokens_details", "reasoning_tokens"),
        estimated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(total: u64) -> Usage {
        serde_json::from_value(serde_json::json!({"total_tokens": total})).unwrap()
    }

    #[test]
    fn attempts_are_counted_and_what_they_cost_is_billed_once_however_the_call_ends() {
        let mut account = Account::open("r", "team", "judge", 2, [("a", 1.0), ("b", 1.0)].into_iter(), None);
        let [a, b] = [0, 1].map(|index| account.member_began(index));
        a.begin();
        a.failed_at(&tokens(3));
        a.begin();
        let ended = Ended { result: USABLE, usage: Some(tokens(10)), estimate: None };
        account.ended(Seat::Member(0), &ended);
        b.begin();
        b.failed_at(&tokens(4));
        assert_eq!(account.usage().count("total_tokens"), 13);
        account.panel_ended(0);
        assert_eq!(account.usage().count("total_tokens"), 17, "what follows the panel is told of all of it");
        let (judge, attempts) = account.judge_began("judge");
        assert_eq!(attempts.count(), 0);
        account.ended(judge, &Ended { result: "cooling", usage: None, estimate: None });
        assert_eq!(account.usage().count("total_tokens"), 17);
        let decision: serde_json::Value = serde_json::from_str(account.to_json().unwrap().get()).unwrap();
        let told = |call: &serde_json::Value| {
            (call["result"].clone(), call["attempts"].clone(), call["usage"]["total_tokens"].clone())
        };
        assert_eq!(told(&decision["members"][0]), ("usable".into(), 2.into(), 13.into()));
        assert_eq!(told(&decision["members"][1]), (CANCELLED.into(), 1.into(), 4.into()));
        assert_eq!(told(&decision["judges"][0]), ("cooling".into(), 0.into(), serde_json::Value::Null));
        assert_eq!(decision["usage"]["total_tokens"], 17);
        assert!(calls(&account.decision.members).ends_with("x2 b=cancelled@0"), "once needs no number");
    }
}
