//! A judge model writes the answer from the candidates.

use std::sync::Arc;

use bytes::Bytes;

use super::super::alias::Params;
use super::super::begun::{Begun, addressed_as_asked, begin};
use super::super::candidate::Candidate;
use super::super::error::Cause;
use super::super::member::forced;
use super::super::prompt::{Filling, shuffled};
use super::super::run::Run;
use super::Judge;
use crate::chat::quoted;
use crate::telemetry::Part;
use crate::upstream::DirectModel;

/// Asks the judge, and its fallback when it failed before it had said anything.
pub(in super::super) async fn ask(
    run: &mut Run,
    judge: &Judge,
    candidates: &[Candidate],
) -> Result<Begun, Cause> {
    let prompt = judge.prompt.fill(&Filling {
        shown: &shuffled(candidates, &run.context.request_id),
        question: &if judge.prompt.shows_question() {
            run.request.conversation().last_user
        } else {
            String::new()
        },
        verdict: "",
        nonce: rand::random(),
        max_candidate_bytes: judge.max_candidate_bytes,
    });
    let message = Bytes::from(format!(r#"{{"role":"user","content":{}}}"#, quoted(&prompt)));
    let begun = ask_one(run, &judge.model, Part::Judge, &message, &judge.params).await;
    match (begun, &judge.fallback) {
        (Err(_), Some(fallback)) if !run.is_out_of_time() => {
            let begun = ask_one(run, fallback, Part::Fallback, &message, &judge.params).await?;
            Ok(Begun { by_fallback: true, ..begun })
        }
        (begun, _) => begun,
    }
}

async fn ask_one(
    run: &mut Run,
    model: &Arc<DirectModel>,
    part: Part,
    message: &Bytes,
    params: &Params,
) -> Result<Begun, Cause> {
    let edit = addressed_as_asked(&run.request, model).wrap("messages", Bytes::new(), message.clone());
    let body = forced(edit, model, params).body();
    begin(run, model, part, body).await
}
