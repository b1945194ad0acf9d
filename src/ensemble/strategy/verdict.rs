//! Asks judges for verdicts: a JSON object in a given form, read leniently, asked for once more when it cannot
//! be read, and never made up.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::de::IgnoredAny;
use tracing::warn;

use super::super::candidate::Candidate;
use super::super::error::Cause;
use super::super::member::{forced, hear};
use super::super::missed::Missed;
use super::super::prompt::Filling;
use super::super::run::Run;
use super::Judge;
use super::form::{Form, Marks, labels};
use crate::chat::{Body, Usage, quoted};
use crate::telemetry::{Ended, Part, Seat};
use crate::upstream::DirectModel;

/// How many verdicts of one run are waited for at once.
pub(super) const MAX_AT_ONCE: usize = 16;

/// What a judge gets of a caller's request: the conversation and what belongs to it, and not how the caller
/// wants an answer to be given.
const KEPT: [&str; 9] = [
    "model",
    "messages",
    "tools",
    "functions",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    "reasoning_effort",
];

/// What one judge is asked.
pub(super) struct Question<'a> {
    pub(super) judge: &'a Judge,
    pub(super) shown: Vec<&'a Candidate>,
}

/// One call for a verdict.
struct Attempt {
    question: usize,
    model: Arc<DirectModel>,
    is_fallback: bool,
    is_repeat: bool,
}

/// Asks all questions, and takes each answer as it comes: the marks, or why there are none.
pub(super) async fn ask(run: &mut Run, form: Form, questions: &[Question<'_>]) -> Vec<Result<Marks, Cause>> {
    let mut verdicts: Vec<Option<Result<Marks, Cause>>> = questions.iter().map(|_| None).collect();
    let messages: Vec<Bytes> = questions.iter().map(|question| message(run, form, question)).collect();
    let mut waiting: VecDeque<Attempt> = questions
        .iter()
        .enumerate()
        .map(|(question, asked)| Attempt {
            question,
            model: Arc::clone(&asked.judge.model),
            is_fallback: false,
            is_repeat: false,
        })
        .collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < MAX_AT_ONCE
            && !run.is_out_of_time()
            && let Some(attempt) = waiting.pop_front()
        {
            let (Some(question), Some(message)) =
                (questions.get(attempt.question), messages.get(attempt.question))
            else {
                continue;
            };
            if attempt.is_fallback {
                run.degrade("judge_fallback");
            }
            let body = body(run, form, question, &attempt.model, message);
            let part = if attempt.is_fallback { Part::Fallback } else { Part::Judge };
            let (seat, attempts) = run.account.judge_began(&attempt.model.name, part, attempt.model.cost);
            let sent = body.len();
            let call = run.call(&attempt.model, body, false, attempts);
            running.push(hear(call).map(move |heard| (attempt, seat, sent, heard)).boxed());
        }
        let Some((attempt, seat, sent, heard)) = running.next().await else {
            break;
        };
        let Some(question) = questions.get(attempt.question) else {
            continue;
        };
        let estimate = heard.said.map(|said| Usage::estimate(sent, said));
        let marks = heard.result.map(|completion| {
            if run.account.keeps_texts() {
                run.account.said(seat, completion.shown());
            }
            form.find(&completion, &question.shown, question.judge.max_candidate_bytes)
        });
        let result = match &marks {
            Ok(Some(_)) => "answered",
            Ok(None) => "unreadable",
            Err(missed) => missed.label(),
        };
        run.account.ended(seat, &Ended { result, usage: heard.usage, estimate });
        let verdict = match marks {
            Ok(Some(marks)) => Ok(marks),
            missing => {
                warn_of(run, &attempt, seat, missing.as_ref().err());
                match attempt.again(question, missing.is_ok()) {
                    Some(next) => {
                        waiting.push_back(next);
                        continue;
                    }
                    None => Err(missing.err().map_or(Cause::Upstream, |missed| missed.seen())),
                }
            }
        };
        if let Some(slot) = verdicts.get_mut(attempt.question) {
            *slot = Some(verdict);
        }
    }
    verdicts.into_iter().map(|verdict| verdict.unwrap_or(Err(Cause::Timeout))).collect()
}

impl Attempt {
    /// What is tried next: the same model once more when its verdict could not be read, the fallback when it
    /// gave none.
    fn again(&self, question: &Question<'_>, is_unreadable: bool) -> Option<Self> {
        let (model, is_fallback, is_repeat) = if is_unreadable {
            (&self.model, self.is_fallback, true)
        } else {
            (question.judge.fallback.as_ref()?, true, false)
        };
        let is_new = if is_unreadable { !self.is_repeat } else { !self.is_fallback };
        is_new.then(|| Self { question: self.question, model: Arc::clone(model), is_fallback, is_repeat })
    }
}

fn warn_of(run: &Run, attempt: &Attempt, seat: Seat, missed: Option<&Missed>) {
    let (request_id, model) = (&*run.context.request_id, &*attempt.model.name);
    let cause = missed.map_or_else(|| "unreadable verdict".to_owned(), Missed::chain);
    warn!(request_id, alias = %run.ensemble.name, model, ?seat, cause, "judge gave no verdict");
}

/// The message that asks for the verdict.
fn message(run: &Run, form: Form, question: &Question<'_>) -> Bytes {
    let template = &question.judge.prompt;
    let prompt = template.fill(&Filling {
        shown: &question.shown,
        question: &if template.shows_question() {
            run.request.conversation().last_user
        } else {
            String::new()
        },
        verdict: &form.words(&labels(question.shown.len())),
        nonce: rand::random(),
        max_candidate_bytes: question.judge.max_candidate_bytes,
    });
    Bytes::from(format!(r#"{{"role":"user","content":{}}}"#, quoted(&prompt)))
}

fn body(run: &Run, form: Form, question: &Question<'_>, model: &DirectModel, message: &Bytes) -> Body {
    let request = &run.request;
    let mut edit = request.edit();
    for name in request.names().filter(|name| !KEPT.contains(name)) {
        edit = edit.remove(name);
    }
    // The tools explain what candidates may call; the judge itself is to call none.
    for (tools, choice) in [("tools", "tool_choice"), ("functions", "function_call")] {
        match request.read::<Vec<IgnoredAny>>(tools) {
            Some(offered) if !offered.is_empty() => edit = edit.set(choice, "\"none\""),
            _ => edit = edit.remove(tools),
        }
    }
    if let Some(format) = form.response_format(model.response_format, question.shown.len()) {
        edit = edit.set("response_format", format.to_string());
    }
    let edit = edit.set("model", quoted(&model.model_name)).wrap("messages", Bytes::new(), message.clone());
    forced(edit, model, &question.judge.params).body()
}
