//! The oracle's books: what callers, providers and decisions say of each run, held against one another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use crate::plan::{Kind, Plan};

/// Who may be called, by place: three members, two judges.
pub const MODELS: [&str; 5] = ["m0", "m1", "m2", "j0", "j1"];
/// What a thousand tokens cost at every model: read, and written.
pub const PRICES: (f64, f64) = (0.5, 2.0);
/// How many wrongs are told in full.
const TOLD: usize = 40;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tokens {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub estimated: bool,
}

impl Tokens {
    pub fn add(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }

    fn is(self, other: Self) -> bool {
        (self.prompt_tokens, self.completion_tokens) == (other.prompt_tokens, other.completion_tokens)
    }
}

/// A line of Consort's decisions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decision {
    pub request_id: String,
    pub alias: String,
    pub outcome: String,
    pub error_code: String,
    pub stream: bool,
    pub door: String,
    pub members: Vec<Call>,
    pub judges: Vec<Call>,
    pub usage: Option<Tokens>,
    pub cost_usd: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Call {
    pub model: String,
    pub result: String,
    pub attempts: u64,
    pub usage: Option<Tokens>,
}

/// How a caller's request ended.
#[derive(Debug)]
pub enum End {
    Left,
    Answered { outcome: String, usage: Option<Tokens> },
}

#[derive(Debug, Default)]
struct Run {
    arrived: [u64; MODELS.len()],
    billed: Tokens,
    end: Option<End>,
    decision: Option<Decision>,
}

/// What all books come to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests that callers made, and those that they left.
    pub asked: u64,
    pub left: u64,
    /// Of these, plain models'.
    pub passed: u64,
    /// Requests that reached the upstream of plain models.
    pub upstream: u64,
    /// HTTP calls that reached providers, and those of which decisions tell.
    pub calls: u64,
    pub attempts: u64,
    /// Decisions, by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Calls of members by result, of whatever but `not_asked`.
    pub members: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// What providers billed, for the runs whose calls all came to their end, and what decisions say of these.
    pub billed: Tokens,
    pub told: Tokens,
    /// How many these are.
    pub exact: u64,
    /// What decisions say of all runs.
    pub tokens: Tokens,
    pub cost_usd: f64,
    /// Runs whose books were closed, faults that befell calls, and wrongs.
    pub closed: u64,
    pub faults: u64,
    pub wrong: u64,
    /// The first wrongs.
    pub wrongs: Vec<String>,
}

impl Totals {
    pub fn decisions(&self) -> u64 {
        self.outcomes.values().sum()
    }
}

#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    open: HashMap<u64, Run>,
    /// The closed ones, and whether one of their calls may still arrive at a provider: it was on its way when nobody
    /// wanted it any more.
    closed: HashMap<u64, bool>,
    totals: Totals,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn totals(&self) -> Totals {
        self.books().totals.clone()
    }

    /// How many runs are not closed.
    pub fn open(&self) -> usize {
        self.books().open.len()
    }

    pub fn wrong(&self, n: u64, what: impl Into<String>) {
        self.books().totals.note(n, what.into());
    }

    pub fn asked(&self, plan: &Plan) {
        let mut books = self.books();
        books.totals.asked += 1;
        if plan.kind == Kind::Pass {
            books.totals.passed += 1;
        } else {
            books.open.entry(plan.n).or_default();
        }
    }

    /// A call has reached a model; the how-manieth of its run.
    pub fn arrived(&self, n: u64, model: usize) -> u64 {
        let mut books = self.books();
        books.totals.calls += 1;
        if let Some(run) = books.open.get_mut(&n) {
            run.arrived[model] += 1;
            return run.arrived[model];
        }
        if books.closed.get(&n) != Some(&true) {
            books.totals.note(n, format!("{} is called, and no run goes on", MODELS[model]));
        }
        1
    }

    pub fn befell(&self) {
        self.books().totals.faults += 1;
    }

    pub fn passed_upstream(&self) {
        self.books().totals.upstream += 1;
    }

    pub fn billed(&self, n: u64, tokens: Tokens) {
        if let Some(run) = self.books().open.get_mut(&n) {
            run.billed.add(tokens);
        }
    }

    pub fn ended(&self, n: u64, end: End) {
        let mut books = self.books();
        if matches!(end, End::Left) {
            books.totals.left += 1;
        }
        if let Some(run) = books.open.get_mut(&n) {
            run.end = Some(end);
        }
        books.close(n);
    }

    pub fn decided(&self, decision: Decision) {
        let mut books = self.books();
        books.totals.decided(&decision);
        let Some(n) = decision.request_id.strip_prefix("soak-").and_then(|n| n.parse().ok()) else {
            books.totals.note(0, format!("a decision of nobody's request: {}", decision.request_id));
            return;
        };
        match books.open.get_mut(&n) {
            Some(run) if run.decision.is_none() => run.decision = Some(decision),
            _ => books.totals.note(n, "a second decision, or one of a run that nobody began"),
        }
        books.close(n);
    }

    /// Closes the books of what will never be: callers that left before Consort had heard of them.
    pub fn finish(&self) {
        let mut books = self.books();
        for (n, run) in std::mem::take(&mut books.open) {
            let is_unheard =
                matches!(run.end, Some(End::Left)) && run.arrived.iter().all(|calls| *calls == 0);
            if !is_unheard {
                books.totals.note(n, format!("no decision, or no end: {run:?}"));
            }
        }
    }
}

impl Books {
    /// Closes a run's books once both sides have told their end.
    fn close(&mut self, n: u64) {
        let is_told = |run: &Run| run.end.is_some() && run.decision.is_some();
        if !self.open.get(&n).is_some_and(is_told) {
            return;
        }
        let Some(Run { arrived, billed, end: Some(end), decision: Some(decision) }) = self.open.remove(&n)
        else {
            return;
        };
        let calls = || decision.members.iter().chain(&decision.judges);
        let has_cancelled = calls().any(|call| call.result == "cancelled");
        self.closed.insert(n, has_cancelled);
        self.totals.closed += 1;
        for wrong in compare(&Plan::of(n), &decision, &end, &arrived, has_cancelled) {
            self.totals.note(n, wrong);
        }
        let told = decision.usage.unwrap_or_default();
        if !has_cancelled && !told.estimated {
            self.totals.exact += 1;
            self.totals.billed.add(billed);
            self.totals.told.add(told);
            if !told.is(billed) {
                self.totals.note(n, format!("billed {billed:?}, told {told:?}"));
            }
        }
    }
}

impl Totals {
    fn note(&mut self, n: u64, what: impl Into<String>) {
        self.wrong += 1;
        if self.wrongs.len() < TOLD {
            self.wrongs.push(format!("{:?}: {}", Plan::of(n), what.into()));
        }
    }

    fn decided(&mut self, decision: &Decision) {
        *self.outcomes.entry(decision.outcome.clone()).or_default() += 1;
        self.members += decision.members.iter().filter(|call| call.result != "not_asked").count() as u64;
        for call in decision.members.iter().chain(&decision.judges) {
            self.attempts += call.attempts;
            self.retries += call.attempts.saturating_sub(1);
        }
        self.tokens.add(decision.usage.unwrap_or_default());
        self.cost_usd += decision.cost_usd.unwrap_or_default();
    }
}

/// Everything in which the books of a run differ.
fn compare(
    plan: &Plan,
    decision: &Decision,
    end: &End,
    arrived: &[u64; MODELS.len()],
    has_cancelled: bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let door = if plan.is_at_door { "http" } else { "ext_proc" };
    let told = (&*decision.alias, decision.stream, &*decision.door);
    if told != (plan.alias(), plan.is_stream, door) {
        wrong.push(format!("the decision is another run's: {told:?}"));
    }
    for (model, arrived) in MODELS.iter().zip(arrived) {
        let calls = decision.members.iter().chain(&decision.judges).filter(|call| call.model == *model);
        let (attempts, is_cancelled) = calls.fold((0, false), |(attempts, is_cancelled), call| {
            (attempts + call.attempts, is_cancelled || call.result == "cancelled")
        });
        // What was cancelled may have been so before it had arrived.
        let is_right = if is_cancelled { *arrived <= attempts } else { *arrived == attempts };
        if !is_right {
            wrong.push(format!("{model}: {attempts} attempts by the decision, {arrived} arrived"));
        }
    }
    for (seat, call) in decision.members.iter().enumerate() {
        let is_lost = plan.is_lost(seat as u64) || plan.breaks_off();
        let is_right = match &*call.result {
            "cancelled" | "not_asked" => true,
            "usable" => !plan.is_lost(seat as u64),
            _ => is_lost,
        };
        if plan.kind != Kind::Direct && !is_right {
            wrong.push(format!("{} is {}", call.model, call.result));
        }
    }
    let cost = decision.usage.unwrap_or_default();
    let due = (cost.prompt_tokens as f64 * PRICES.0 + cost.completion_tokens as f64 * PRICES.1) / 1e3;
    if (decision.cost_usd.unwrap_or_default() - due).abs() > 1e-9 {
        wrong.push(format!("costs {:?}, not {due}", decision.cost_usd));
    }
    match end {
        End::Left => {
            if decision.outcome == "failed" && !matches!(plan.kind, Kind::Direct) {
                wrong.push(format!("failed ({}) as its caller left", decision.error_code));
            }
        }
        End::Answered { outcome, usage } => {
            if !outcome.is_empty() && *outcome != decision.outcome && !plan.breaks_off() {
                wrong.push(format!("told {outcome} to the caller, {} to its operators", decision.outcome));
            }
            if decision.outcome == "cancelled" || (has_cancelled && plan.kind == Kind::Judge) {
                wrong.push("cancelled under a caller who waited".to_owned());
            }
            if let Some(usage) = usage.filter(|usage| !usage.is(decision.usage.unwrap_or_default())) {
                wrong.push(format!("told usage {usage:?} to the caller, {:?} to operators", decision.usage));
            }
        }
    }
    wrong
}
