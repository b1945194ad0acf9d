//! Asks judges for verdicts: a JSON object in a given form, read leniently, asked for once more when it cannot
//! be read, and never made up.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::super::candidate::Candidate;
use super::super::error::Cause;
use super::super::member::{forced, hear};
use super::super::missed::Missed;
use super::super::prompt::{Filling, label};
use super::super::run::Run;
use super::Judge;
use crate::chat::{Body, Completion, Usage, without_reasoning};
use crate::telemetry::{Ended, Part, Seat};
use crate::upstream::{DirectModel, ResponseFormat};

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

/// The form of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Which candidate is best.
    Best,
    /// A grade from 0 to 10 for each.
    Grades,
}

/// A mark for each candidate in the order in which they were shown: 1 for the best one and 0 for the others, or
/// the grades. None where a grade is missing.
pub(super) type Marks = Vec<Option<f64>>;

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
            form.find(&completion, question.shown.len())
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
    Bytes::from(json!({"role": "user", "content": prompt}).to_string())
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
    let name = Value::from(&*model.model_name).to_string();
    let edit = edit.set("model", name).wrap("messages", Bytes::new(), message.clone());
    forced(edit, model, &question.judge.params).body()
}

fn labels(count: usize) -> Vec<String> {
    (0..count).map(label).collect()
}

impl Form {
    fn words(self, labels: &[String]) -> String {
        let names = labels.join(", ");
        match self {
            Self::Best => format!(
                "Answer with one JSON object and nothing else, the reasons first: {{\"reasons\": \"…\", \"best\": \"…\"}}, \
                 where \"best\" is one of {names}."
            ),
            Self::Grades => {
                let grades: Vec<String> = labels.iter().map(|label| format!("\"{label}\": …")).collect();
                format!(
                    "Answer with one JSON object and nothing else, the reasons first: {{\"reasons\": \"…\", \"scores\": \
                     {{{}}}}}, where each score is a number from 0 to 10.",
                    grades.join(", ")
                )
            }
        }
    }

    fn response_format(self, takes: ResponseFormat, count: usize) -> Option<Value> {
        let labels = labels(count);
        let (name, verdict) = match self {
            Self::Best => ("best", json!({"type": "string", "enum": labels})),
            Self::Grades => {
                let grades: Map<String, Value> =
                    labels.iter().map(|label| (label.clone(), json!({"type": "number"}))).collect();
                let grades = json!({"type": "object", "properties": grades, "required": labels,
                    "additionalProperties": false});
                ("scores", grades)
            }
        };
        match takes {
            ResponseFormat::None => None,
            ResponseFormat::JsonObject => Some(json!({"type": "json_object"})),
            ResponseFormat::JsonSchema => {
                let schema = json!({"type": "object", "properties": {"reasons": {"type": "string"}, name: verdict},
                    "required": ["reasons", name], "additionalProperties": false});
                let schema = json!({"name": "verdict", "strict": true, "schema": schema});
                Some(json!({"type": "json_schema", "json_schema": schema}))
            }
        }
    }

    /// The marks that an answer gives: by the last object in its text that is a verdict. Judges may think
    /// aloud before it, and cite candidates that look like verdicts.
    fn find(self, completion: &Completion, count: usize) -> Option<Marks> {
        let text = without_reasoning(completion.content.as_deref().unwrap_or_default());
        let text = text.get(text.ceil_char_boundary(text.len().saturating_sub(MAX_READ))..)?;
        let labels = labels(count);
        let mut found = None;
        let mut at = 0;
        while let Some(brace) = text.get(at..).and_then(|rest| memchr::memchr(b'{', rest.as_bytes())) {
            at += brace;
            let mut values =
                serde_json::Deserializer::from_str(text.get(at..)?).into_iter::<Map<String, Value>>();
            let marks = values.next().and_then(Result::ok).and_then(|object| self.read(&object, &labels));
            // What stands inside a verdict is none; what stands inside something else may be one.
            at += if marks.is_some() { values.byte_offset() } else { 1 };
            found = marks.or(found);
        }
        found
    }

    fn read(self, object: &Map<String, Value>, labels: &[String]) -> Option<Marks> {
        match self {
            Self::Best => {
                let best = named(object.get("best")?.as_str()?, labels)?;
                Some((0..labels.len()).map(|at| Some(if at == best { 1.0 } else { 0.0 })).collect())
            }
            Self::Grades => {
                let scores = object.get("scores")?.as_object()?;
                let of = |label: &String| {
                    let (_, score) = scores
                        .iter()
                        .find(|(name, _)| named(name, labels).and_then(|at| labels.get(at)) == Some(label))?;
                    grade(score)
                };
                let marks: Marks = labels.iter().map(of).collect();
                marks.iter().any(Option::is_some).then_some(marks)
            }
        }
    }
}

/// How much of a judge's answer is read for its verdict, from its end, in bytes.
const MAX_READ: usize = 64 << 10;

/// The one label that a word names: `B`, `b`, `Answer B`, `(B)`; none where it names several, in whatever order.
fn named(word: &str, labels: &[String]) -> Option<usize> {
    let parts = word.split(|c: char| !c.is_alphanumeric());
    let mut named = parts.filter_map(|part| labels.iter().position(|label| label.eq_ignore_ascii_case(part)));
    let first = named.next()?;
    named.all(|other| other == first).then_some(first)
}

/// A grade from 0 to 10; what is outside is none.
fn grade(value: &Value) -> Option<f64> {
    let grade = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (0.0..=10.0).contains(&grade).then_some(grade)
}

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod tests {
    use super::*;

    fn marks(form: Form, text: &str) -> Option<Marks> {
        let json = json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]});
        form.find(&Completion::parse(json.to_string().as_bytes()).unwrap(), 3)
    }

    #[test]
    fn a_choice_is_read_through_fences_and_prose_and_the_last_one_counts() {
        let best = |at: usize| Some((0..3).map(|i| Some(if i == at { 1.0 } else { 0.0 })).collect::<Marks>());
        for (text, expected) in [
            (r#"{"reasons":"x","best":"B"}"#, best(1)),
            ("Sure!\n```json\n{\"reasons\": \"{\", \"best\": \"c\"}\n```\nDone.", best(2)),
            (r#"{"best":"A"} was A's own claim. {"reasons":"…","best":"Answer B."}"#, best(1)),
            (r#"<think>{"best":"A"}</think>{"best":"(C)"}"#, best(2)),
            (r#"{"verdict":{"best":"B"}}"#, best(1)),
            (r#"{"best":"D"}"#, None),
            (r#"{"best":2}"#, None),
            (r#"{"reasons":"B is best"#, None),
            (r#"{"reasons":"\\frac{1}{2}","best":"Answer C"}"#, best(2)),
            (&format!(r#"{{"reasons":"{}","best":"C"}}"#, r"\\frac{1}{2}".repeat(99)), best(2)),
            (&format!(r#"{}{{"best":"C"}}"#, "{x} ".repeat(999)), best(2)),
            (r#"{"best":"B > A > C"}"#, None),
            (r#"{"best":"A or B"}"#, None),
            ("B", None),
            ("", None),
        ] {
            assert_eq!(marks(Form::Best, text), expected, "{text}");
        }
    }

    #[test]
    fn a_grade_that_is_none_is_missing_and_not_zero() {
        let read = |text| marks(Form::Grades, text);
        assert_eq!(
            read(r#"{"reasons":"x","scores":{"A":7,"B":"8.5","C":0}}"#),
            Some(vec![Some(7.0), Some(8.5), Some(0.0)])
        );
        assert_eq!(read(r#"{"scores":{"Answer b":10,"C":11}}"#), Some(vec![None, Some(10.0), None]));
        assert_eq!(read(r#"{"scores":{"A":-1,"C":null}}"#), None);
        assert_eq!(read(r#"{"scores":[1,2,3]}"#), None);
    }

    #[test]
    fn an_answer_of_braces_is_given_up_quickly() {
        let began = std::time::Instant::now();
        assert_eq!(marks(Form::Best, &"{\"a\":".repeat(500_000)), None);
        assert_eq!(marks(Form::Best, &"{".repeat(4_000_000)), None);
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[test]
    fn the_form_is_asked_for_as_strictly_as_the_model_takes_it() {
        assert_eq!(Form::Best.response_format(ResponseFormat::None, 2), None);
        let object = Form::Grades.response_format(ResponseFormat::JsonObject, 2).unwrap();
        assert_eq!(object, json!({"type": "json_object"}));
        for form in [Form::Best, Form::Grades] {
            let format = form.response_format(ResponseFormat::JsonSchema, 2).unwrap();
            let schema = &format["json_schema"]["schema"];
            let sample = match form {
                Form::Best => json!({"reasons": "x", "best": "B"}),
                Form::Grades => json!({"reasons": "x", "scores": {"A": 1, "B": 2.5}}),
            };
            assert!(jsonschema::is_valid(schema, &sample) && !jsonschema::is_valid(schema, &json!({})));
            assert!(
                form.find(
                    &Completion::from_message(
                        serde_json::value::to_raw_value(&json!({"content": sample.to_string()})).unwrap()
                    )
                    .unwrap(),
                    2
                )
                .is_some()
            );
        }
    }
}
