//! The one fan-out: every strategy asks its panel here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tracing::debug;

use super::alias::{Ensemble, Execution, Member, OnQuorumFailure};
use super::answer::{Key, Kind};
use super::begun::Begun;
use super::candidate::{self, Candidate};
use super::consensus::Open;
use super::member::{self, Heard, Said};
use super::missed::{Missed, Panel, SharedCause};
use super::pace::Pace;
use super::quorum::{Quorum, Verdict};
use super::run::Run;
use super::strategy::{OnNoConsensus, Require, Strategy};
use crate::chat::Usage;
use crate::telemetry::{Ended, Seat};

/// How long members are waited for that may confirm why the others failed.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// A member's call: who it is, the bytes of its request, what came of it.
type Running = FuturesUnordered<BoxFuture<'static, (usize, usize, Said)>>;

/// Asks the panel at the ensemble's pace, and waits for as many as the quorum, the grace and the strategy
/// want. Members that are no longer wanted are cancelled by being dropped.
pub(super) async fn ask(run: &mut Run) -> Panel {
    let mut asking = Asking::new(run);
    asking.ask_next(run);
    while let Some(step) = asking.next().await {
        let is_over = match step {
            Step::Ended(member, sent, Said::Whole(heard)) => {
                let is_usable = asking.ended(run, member, sent, *heard);
                asking.is_over(run, !is_usable)
            }
            Step::Ended(member, _, Said::Live(begun)) => {
                asking.begun(run, member, *begun);
                true
            }
            Step::Hedge => {
                asking.ask_next(run);
                false
            }
            Step::Grace => asking.is_over_late(run),
        };
        if is_over {
            break;
        }
    }
    let Asking { mut panel, pace, .. } = asking;
    panel.asked = pace.asked();
    panel.missed.sort_by_key(|(member, _)| *member);
    panel
}

/// A panel that is being asked.
struct Asking {
    ensemble: Arc<Ensemble>,
    pace: Pace,
    quorum: Quorum,
    running: Running,
    /// Which members have ended.
    has_ended: Vec<bool>,
    /// Until when stragglers may go on.
    grace: Option<Instant>,
    /// When the next member is asked although the others have not ended.
    hedge: Option<Instant>,
    panel: Panel,
}

/// What a panel waits for.
enum Step {
    /// A member: its place, the bytes of its request, what came of it.
    Ended(usize, usize, Said),
    /// The next member is due.
    Hedge,
    /// Stragglers have had their time.
    Grace,
}

/// What a panel still needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// More candidates.
    More,
    /// Nothing but a decision.
    Decision,
    /// Somebody's word, within this time, that the others have failed for a cause that all share.
    Confirmation(Duration),
    /// Nothing helps.
    Nothing,
}

impl Asking {
    fn new(run: &Run) -> Self {
        let ensemble = Arc::clone(&run.ensemble);
        let members = ensemble.panel.len();
        let required = ensemble.panel.iter().filter(|m| m.required).count();
        Self {
            pace: Pace::new(&ensemble.execution, members),
            quorum: Quorum::new(ensemble.quorum, members, required),
            running: Running::new(),
            has_ended: vec![false; members],
            grace: None,
            hedge: None,
            panel: Panel::default(),
            ensemble,
        }
    }

    /// What happens next; nothing when nobody is being asked any more.
    async fn next(&mut self) -> Option<Step> {
        if self.running.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            ended = self.running.next() => ended.map(|(member, sent, said)| Step::Ended(member, sent, said)),
            () = until(self.grace) => Some(Step::Grace),
            () = until(self.hedge) => Some(Step::Hedge),
        }
    }

    /// Asks those whose turn it is; whether there were any, and time for them.
    fn ask_next(&mut self, run: &mut Run) -> bool {
        if run.is_out_of_time() {
            return false;
        }
        let due = self.pace.next();
        let ensemble = Arc::clone(&self.ensemble);
        for index in due.clone() {
            if let Some(member) = ensemble.panel.get(index) {
                self.running.push(member::begin(run, index, member));
            }
        }
        self.hedge = self.pace.delay().map(|delay| Instant::now() + delay);
        !due.is_empty()
    }

    /// Takes the end of a member's call; whether it gave a candidate.
    fn ended(&mut self, run: &mut Run, index: usize, sent: usize, heard: Heard) -> bool {
        let member = self.ensemble.panel.get(index);
        let judged = heard.result.and_then(|completion| {
            candidate::check(&completion, &run.format).map(|()| completion).map_err(Missed::Unusable)
        });
        if let Err(Missed::Failed(failure)) = &judged {
            let model = member.map(|m| &*m.model.name);
            debug!(request_id = %run.context.request_id, model, cause = %failure.chain(), "member failed");
        }
        run.account.ended(
            Seat::Member(index),
            &Ended {
                result: judged.as_ref().map_or_else(Missed::label, |_| "usable"),
                usage: heard.usage,
                estimate: heard.said.map(|said| Usage::estimate(sent, said)),
            },
        );
        if let Some(ended) = self.has_ended.get_mut(index) {
            *ended = true;
        }
        let is_usable = judged.is_ok();
        self.panel.verdict = self.quorum.observe(member.is_some_and(|m| m.required), is_usable);
        if self.panel.verdict == Verdict::Reached {
            run.account.quorum_met();
        }
        match judged {
            Ok(completion) => {
                if run.account.keeps_texts() {
                    run.account.said(Seat::Member(index), completion.shown());
                }
                let key = run.key(&completion);
                run.account.read(index, key.as_ref().map(Key::shown));
                let weight = member.map_or(1.0, |m| m.weight);
                let at = self.panel.candidates.partition_point(|c| c.member < index);
                self.panel.candidates.insert(at, Candidate { member: index, weight, completion, key });
            }
            Err(missed) => self.panel.missed.push((index, missed)),
        }
        is_usable
    }

    /// A member has begun to speak to the caller.
    fn begun(&mut self, run: &mut Run, member: usize, begun: Begun) {
        if let Some(ended) = self.has_ended.get_mut(member) {
            *ended = true;
        }
        self.panel.saved = self.open().count();
        self.panel.live = Some(begun);
        self.panel.verdict = Verdict::Reached;
        run.account.quorum_met();
    }

    fn need(&self) -> Need {
        let is_best_effort = matches!(self.ensemble.on_quorum_failure, OnQuorumFailure::BestEffort);
        match self.panel.verdict {
            Verdict::Wait => Need::More,
            Verdict::Reached => Need::Decision,
            Verdict::Unreachable if is_best_effort && self.panel.candidates.is_empty() => Need::More,
            Verdict::Unreachable if is_best_effort => Need::Decision,
            // What all members say alike is the caller's to know: the others are given a moment to say so.
            Verdict::Unreachable => match self.panel.shared_cause() {
                // Who is not called says so at once.
                Some(SharedCause::Cooling | SharedCause::Undecided) => Need::Confirmation(Duration::ZERO),
                Some(_) => Need::Confirmation(CONFIRMATION),
                None => Need::Nothing,
            },
        }
    }

    /// Whether the end of a call was the panel's end; otherwise who is due is asked.
    fn is_over(&mut self, run: &mut Run, has_failed: bool) -> bool {
        let is_idle = self.running.is_empty();
        match self.need() {
            Need::Nothing => true,
            Need::Confirmation(confirmation) => {
                self.grace.get_or_insert_with(|| Instant::now() + confirmation);
                is_idle
            }
            Need::More => {
                let is_due = is_idle || has_failed && self.pace.replaces();
                is_due && !self.ask_next(run) && is_idle
            }
            Need::Decision if self.is_decided(run, is_idle) => true,
            Need::Decision if is_idle => {
                let asked = self.ask_next(run);
                self.give_grace();
                !asked
            }
            Need::Decision => {
                if self.grace.is_none() {
                    self.give_grace();
                }
                false
            }
        }
    }

    /// Whether the end of the grace is the panel's end. An adaptive panel asks on instead, and hears
    /// stragglers that come nevertheless.
    fn is_over_late(&mut self, run: &mut Run) -> bool {
        self.grace = None;
        if self.need() != Need::Decision || self.is_decided(run, true) || !self.ask_next(run) {
            return true;
        }
        self.give_grace();
        false
    }

    fn give_grace(&mut self) {
        self.grace = self.ensemble.straggler_grace.map(|grace| Instant::now() + grace);
    }

    /// Whether what the others may say cannot matter any more; `is_asked` when nobody is waited for.
    fn is_decided(&mut self, run: &Run, is_asked: bool) -> bool {
        let strategy = &self.ensemble.strategy;
        let candidates = &self.panel.candidates;
        let is_decided = match strategy.vote() {
            // Texts are never settled early, and comparing them costs time.
            Some(_) if run.reader.kind() == Kind::Text => false,
            Some(vote) => {
                let open: Option<Vec<Open>> =
                    self.open().map(|(member, m)| strategy.gain(member, m)).collect();
                let tally = run.tally(candidates);
                // Without unanimity there is an error, and nobody else is needed for one.
                let has_failed = vote.require == Require::Unanimous
                    && matches!(vote.on_no_consensus, OnNoConsensus::Fail)
                    && tally.is_split();
                has_failed || open.is_some_and(|open| tally.is_settled(vote.require, &open))
            }
            None => matches!(strategy, Strategy::First) || self.ensemble.execution == Execution::Sequential,
        };
        if !is_decided
            && is_asked
            && let Execution::Cascade(cascade) = &self.ensemble.execution
        {
            self.panel.is_agreed = run.tally(candidates).reaches(cascade.agreement);
        }
        if is_decided || self.panel.is_agreed {
            self.panel.saved = self.open().count();
        }
        is_decided || self.panel.is_agreed
    }

    /// The members that have not ended.
    fn open(&self) -> impl Iterator<Item = (usize, &Member)> {
        let members = self.ensemble.panel.iter().enumerate();
        members.filter(|(index, _)| self.has_ended.get(*index) == Some(&false))
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
