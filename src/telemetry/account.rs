//! The account of one run: kept while it goes on, closed once on every exit.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::decision::{Call, Decision, Outcome, Usage as UsageRecord};
use super::live::{Followed, Live};
use super::record::{self, CANCELLED, DEFECT, NOT_ASKED, RUNNING, USABLE, end_running, ms, plus};
use super::settlement::{Settlement, Spent};
use super::{Attempts, Bill, Cost, Decisions, Door, Part, RunSpan, metrics};
use crate::chat::Usage;

/// The account of one run. Dropping it closes it: on success, failure, cancellation and panic
/// alike, the decision is emitted once.
#[derive(Debug)]
pub struct Account {
    decision: Decision,
    usage: Usage,
    bill: Bill,
    /// Every call that was made.
    made: Vec<Made>,
    /// Who is told what the run has cost.
    settlement: Option<Settlement<Spent>>,
    began: Instant,
    decisions: Decisions,
    live: Arc<Live>,
    max_content_bytes: Option<usize>,
    trace: Option<Box<RunSpan>>,
}

/// A call that was made.
#[derive(Debug)]
struct Made {
    seat: Seat,
    attempts: Arc<Attempts>,
    cost: Option<Cost>,
}

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The caller's `x-request-id`, or one made for it.
    pub request_id: &'a str,
    /// The model name that the caller sent.
    pub alias: &'a str,
    /// How candidates become one answer.
    pub strategy: &'a str,
    /// How many usable candidates are needed.
    pub quorum: usize,
    /// How the caller came in.
    pub door: Door,
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
    /// Opens the account of a run that has asked nobody yet, with a panel of these models and weights. Its decision
    /// goes to `decisions`.
    pub fn open<'a>(
        decisions: &Decisions,
        about: About<'_>,
        panel: impl Iterator<Item = (&'a str, f64)>,
    ) -> Self {
        let began = Instant::now();
        let members = panel
            .map(|(model, weight)| Call {
                model: model.to_owned(),
                result: NOT_ASKED.to_owned(),
                role: Part::Member.label().to_owned(),
                weight,
                ..Call::default()
            })
            .collect();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let decision = Decision {
            request_id: about.request_id.to_owned(),
            alias: about.alias.to_owned(),
            strategy: about.strategy.to_owned(),
            outcome: Outcome::Cancelled.into(),
            quorum_needed: u32::try_from(about.quorum).unwrap_or(u32::MAX),
            members,
            usage: Some(UsageRecord::default()),
            started_at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            door: about.door.label().to_owned(),
            run: decisions.next_run(),
            ..Decision::default()
        };
        Self {
            decision,
            usage: Usage::default(),
            bill: Bill::default(),
            made: Vec::new(),
            settlement: None,
            began,
            decisions: decisions.clone(),
            live: Arc::new(Live::new(decisions.clone(), began)),
            max_content_bytes: decisions.max_content_bytes(),
            trace: None,
        }
    }

    /// With the run's span, which ends with the account.
    #[must_use]
    pub fn traced(mut self, trace: Option<Box<RunSpan>>) -> Self {
        self.trace = trace;
        self
    }

    /// Has somebody told, once, at the run's end, what it was billed in all.
    pub fn settle_with(&mut self, settlement: Box<dyn FnOnce(Spent) + Send>) {
        self.settlement = Some(Settlement(settlement));
    }

    /// The request is known.
    pub fn panel_began(&mut self, stream: bool) {
        self.decision.stream = stream;
    }

    /// The beginning of a member's call, of a model with this cost; where its attempts are noted.
    pub fn member_began(&mut self, index: usize, cost: Option<Cost>) -> Arc<Attempts> {
        let started_ms = self.elapsed_ms();
        if let Some(call) = self.decision.members.get_mut(index) {
            RUNNING.clone_into(&mut call.result);
            call.started_ms = started_ms;
        }
        let attempts = self.made(Seat::Member(index), cost);
        self.changed();
        attempts
    }

    /// The beginning of a judge's call, or a fallback's, of a model with this cost; where its attempts are noted.
    pub fn judge_began(&mut self, model: &str, part: Part, cost: Option<Cost>) -> (Seat, Arc<Attempts>) {
        let started_ms = self.elapsed_ms();
        self.decision.judges.push(Call {
            model: model.to_owned(),
            result: RUNNING.to_owned(),
            role: part.label().to_owned(),
            started_ms,
            ..Call::default()
        });
        let seat = Seat::Judge(self.decision.judges.len() - 1);
        let attempts = self.made(seat, cost);
        self.changed();
        (seat, attempts)
    }

    /// The end of a call.
    pub fn ended(&mut self, seat: Seat, ended: &Ended) {
        if let Some(usage) = ended.usage.as_ref().or(ended.estimate.as_ref()) {
            let cost = self.made.iter().find(|made| made.seat == seat).and_then(|made| made.cost);
            self.bill(seat, cost, usage, ended.usage.is_none());
        }
        let now = self.elapsed_ms();
        self.decision.quorum_got += u32::from(ended.result == USABLE);
        if let Some(call) = self.call(seat) {
            ended.result.clone_into(&mut call.result);
            call.elapsed_ms = now - call.started_ms;
        }
        self.take_attempts(|of| of == seat);
        self.settle_calls(|of| of == seat);
        self.made.retain(|made| made.seat != seat);
        self.changed();
    }

    /// There are enough usable candidates; only the first time counts.
    pub fn quorum_met(&mut self) {
        if self.decision.quorum_ms.is_none() {
            self.decision.quorum_ms = Some(self.elapsed_ms());
            self.changed();
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

    /// The panel is done: everybody has answered, or nobody is waited for any more; apart from a member that is
    /// `live`, whose words are the answer. So many of its calls could not matter any more.
    pub fn panel_ended(&mut self, saved: usize, live: Option<Seat>) {
        self.decision.calls_saved = u32::try_from(saved).unwrap_or(u32::MAX);
        self.decision.panel_ms = self.elapsed_ms();
        let cancelled = self.decision.members.iter_mut().enumerate();
        let cancelled = cancelled.filter(|(index, _)| live != Some(Seat::Member(*index)));
        end_running(cancelled.map(|(_, call)| call), CANCELLED, self.decision.panel_ms);
        self.take_attempts(|_| true);
        self.settle_calls(|seat| matches!(seat, Seat::Member(_)) && live != Some(seat));
        self.changed();
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

    /// What the caller changed, and was not allowed to change; whether the condition could not be evaluated.
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

    /// The tokens of all calls so far.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What all calls so far cost, in US dollars; none when no model that was asked has a cost.
    pub fn cost_usd(&self) -> Option<f64> {
        self.decision.cost_usd
    }

    /// What the run costs, followed up to its end.
    pub fn follow_cost(&self) -> Bill {
        self.bill.clone()
    }

    /// The decision as it would be recorded now, as JSON; without texts, which are the operator's to see.
    ///
    /// # Errors
    /// Never for what a decision holds; serde's signature has it.
    pub fn to_json(&mut self) -> Result<Box<RawValue>, serde_json::Error> {
        self.take_attempts(|_| true);
        self.decision.total_ms = self.elapsed_ms();
        if !self.keeps_texts() {
            return serde_json::value::to_raw_value(&self.decision);
        }
        serde_json::value::to_raw_value(&self.decision.clone().without_texts())
    }

    /// How long the panel took.
    pub fn panel_time(&self) -> Duration {
        Duration::from_secs_f64(self.decision.panel_ms / 1000.0)
    }

    /// Tells those who follow the run.
    fn changed(&mut self) {
        if self.decisions.are_followed() {
            self.take_attempts(|_| true);
            self.live.tell(&self.decision);
        } else {
            self.live.forget();
        }
    }

    fn call(&mut self, seat: Seat) -> Option<&mut Call> {
        self.decision.call_mut(seat)
    }

    /// Notes that a call is made.
    fn made(&mut self, seat: Seat, cost: Option<Cost>) -> Arc<Attempts> {
        let followed = Followed { live: Arc::clone(&self.live), seat };
        let trace = self.trace.as_ref().map(|run| run.call(seat, &self.decision));
        let attempts = Arc::new(Attempts::of(Some(followed), trace));
        self.made.push(Made { seat, attempts: Arc::clone(&attempts), cost });
        self.charge(seat, cost.map(|_| 0.0));
        attempts
    }

    /// Records the attempts of these calls so far, and bills what those without an answer have cost.
    fn take_attempts(&mut self, of: impl Fn(Seat) -> bool) {
        let made = std::mem::take(&mut self.made);
        for Made { seat, attempts, cost } in made.iter().filter(|made| of(made.seat)) {
            if let Some(usage) = attempts.take_unbilled() {
                self.bill(*seat, *cost, &usage, false);
            }
            let began = self.began;
            if let Some(call) = self.call(*seat) {
                attempts.record(call, began);
            }
        }
        self.made = made;
    }

    /// Tells who waits for it what these calls were billed.
    fn settle_calls(&mut self, of: impl Fn(Seat) -> bool) {
        let made = std::mem::take(&mut self.made);
        for Made { seat, attempts, .. } in made.iter().filter(|made| of(made.seat)) {
            attempts.settle(self.call(*seat).and_then(|call| call.usage).map_or(0, tokens));
        }
        self.made = made;
    }

    fn bill(&mut self, seat: Seat, cost: Option<Cost>, usage: &Usage, is_estimated: bool) {
        self.usage.add(usage);
        let estimated = is_estimated || self.decision.usage.is_some_and(|u| u.estimated);
        self.decision.usage = Some(record::record(&self.usage, estimated));
        if let Some(call) = self.call(seat) {
            call.usage = Some(plus(call.usage, record::record(usage, is_estimated)));
        }
        self.charge(seat, cost.map(|cost| cost.of(usage)));
    }

    fn charge(&mut self, seat: Seat, usd: Option<f64>) {
        let Some(usd) = usd else {
            return;
        };
        if let Some(call) = self.call(seat) {
            *call.cost_usd.get_or_insert_default() += usd;
        }
        // Summed anew, so that a reader who adds up the calls finds the same to the last digit.
        let calls = self.decision.members.iter().chain(&self.decision.judges);
        self.decision.cost_usd = Some(calls.filter_map(|call| call.cost_usd).sum());
        self.bill.set(self.decision.cost_usd);
    }

    fn elapsed_ms(&self) -> f64 {
        ms(self.began.elapsed())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.decision.total_ms = self.elapsed_ms();
        let Decision { members, judges, total_ms, .. } = &mut self.decision;
        end_running(members.iter_mut().chain(judges), CANCELLED, *total_ms);
        self.take_attempts(|_| true);
        self.settle_calls(|_| true);
        if let Some(Settlement(settlement)) = self.settlement.take() {
            let tokens = self.decision.usage.map_or(0, tokens);
            settlement(Spent { tokens, usd: self.decision.cost_usd.unwrap_or_default() });
        }
        if std::thread::panicking() {
            self.failed(DEFECT);
        }
        if let Some(span) = self.trace.take() {
            span.end(&self.decision);
        }
        metrics::record(&self.decision);
        self.live.forget();
        self.decisions.take(std::mem::take(&mut self.decision));
    }
}

/// All tokens of a usage, also where its provider has not summed them.
fn tokens(usage: UsageRecord) -> u64 {
    usage.total_tokens.max(usage.prompt_tokens.saturating_add(usage.completion_tokens))
}

mod texts;

#[cfg(test)]
mod tests;
