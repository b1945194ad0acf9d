//! What an ensemble's strategy, order and reading of answers mean.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::ensemble::prompt::{Purpose, Template};
use crate::ensemble::{
    Average, Cascade, Confidence, Execution, Judge, OnNoConsensus, Pattern, Pointer, RankMode, Reading,
    Reasoning, Require, Strategy, Trace, Vote, Weighted,
};

const PANEL: &str = "panel: [{model: a}, {model: b}, {model: a}]";
const JUDGE: &str = "judge: {model: b}";

fn strategy(fields: &str) -> Strategy {
    ensemble(&format!("{PANEL}, {fields}")).strategy.clone()
}

fn vote(fields: &str) -> Vote {
    match strategy(fields) {
        Strategy::Vote(vote) | Strategy::Weighted(Weighted { vote, .. }) => vote,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_judge_judges_where_there_is_one_and_members_vote_otherwise() {
    assert_eq!(strategy(JUDGE).name(), "judge");
    let default = vote("min_responses: 1");
    assert_eq!(default.require, Require::Plurality);
    assert_eq!(default.similarity, 0.8);
    assert!(matches!(default.on_no_consensus, OnNoConsensus::First));
}

#[test]
fn every_strategy_has_its_settings() {
    for name in ["judge", "rank", "score", "vote", "weighted", "average", "first"] {
        assert_eq!(strategy(&format!("strategy: {name}, {JUDGE}")).name(), name);
    }
    let mode = |fields: &str| match strategy(&format!("strategy: rank, {JUDGE}, {fields}")) {
        Strategy::Rank(rank) => rank.mode,
        other => panic!("{other:?}"),
    };
    assert_eq!(mode("rank: {}"), RankMode::Listwise);
    assert_eq!(mode("rank: {mode: pairwise}"), RankMode::Pairwise);
    let confidence = |fields: &str| match strategy(&format!("strategy: weighted, {fields}")) {
        Strategy::Weighted(weighted) => weighted.confidence,
        other => panic!("{other:?}"),
    };
    assert_eq!(confidence("weighted: {}"), Confidence::Flat);
    assert_eq!(confidence("weighted: {confidence: logprob}"), Confidence::Logprob);
    let average = |fields: &str| match strategy(&format!("strategy: average, {fields}")) {
        Strategy::Average(average) => average,
        other => panic!("{other:?}"),
    };
    assert_eq!(average("average: {}"), Average::Median);
    assert_eq!(average("average: {of: mean}"), Average::Mean);
}

#[test]
fn a_vote_needs_what_is_required_and_has_a_way_out() {
    for strategy in ["vote", "weighted"] {
        let vote = |fields: &str| vote(&format!("strategy: {strategy}, {fields}"));
        let majority = vote("vote: {require: majority, on_no_consensus: fail, similarity: 1}");
        assert_eq!((majority.require, majority.similarity), (Require::Majority, 1.0));
        assert!(matches!(majority.on_no_consensus, OnNoConsensus::Fail));
        assert_eq!(vote("vote: {require: unanimous}").require, Require::Unanimous);
        let judged = vote(JUDGE);
        assert!(matches!(&judged.on_no_consensus, OnNoConsensus::Judge(judge) if &*judge.model.name == "b"));
        let first = vote(&format!("{JUDGE}, vote: {{on_no_consensus: first}}"));
        assert!(matches!(first.on_no_consensus, OnNoConsensus::First));
    }
}

#[test]
fn first_needs_one_answer() {
    assert_eq!(ensemble(&format!("{PANEL}, strategy: first")).quorum.get(), 1);
    assert_eq!(ensemble(&format!("{PANEL}, strategy: first, min_responses: 1")).quorum.get(), 1);
    assert_eq!(ensemble(&format!("{PANEL}, strategy: average")).quorum.get(), 2);
}

fn judges(strategy: &Strategy) -> Vec<Judge> {
    strategy.clone().judges_mut().to_vec()
}

#[test]
fn graders_are_the_judges_or_else_the_judge() {
    let judge = format!("strategy: score, {JUDGE}");
    let names = |fields: &str| -> Vec<String> {
        judges(&strategy(fields)).iter().map(|judge| judge.model.name.to_string()).collect()
    };
    assert_eq!(names(&judge), ["b"]);
    assert_eq!(names("strategy: score, judges: [{model: a}, {model: b}]"), ["a", "b"]);
    assert_eq!(names(&format!("{judge}, judges: [{{model: a}}]")), ["a"]);
    let own = "strategy: score, judges: [{model: a, fallback: b, params: {seed: 1}, max_candidate_bytes: 7,
         prompt: '{{candidates}} {{verdict}}'}, {model: b, prompt: {score: '{{verdict}} {{candidates}}'}}]";
    let judges = judges(&strategy(own));
    assert_eq!(judges[0].prompt, Template::parse("{{candidates}} {{verdict}}", Purpose::Scoring).unwrap());
    assert_eq!(judges[1].prompt, Template::parse("{{verdict}} {{candidates}}", Purpose::Scoring).unwrap());
    assert_eq!(judges[0].fallback.as_ref().map(|model| &*model.name), Some("b"));
    assert_eq!((judges[0].max_candidate_bytes, shown(&judges[0].params).as_str()), (7, "seed=1"));
}

/// The prompt of the own strategy's judge, and of the one that callers may choose.
fn prompts(own: &str, chosen: &str, prompt: &str) -> [Template; 2] {
    let fields = format!(
        "{PANEL}, strategy: {own}, judge: {{model: b, prompt: {prompt}}}, overrides: {{strategy: [{chosen}]}}"
    );
    let ensemble = ensemble(&fields);
    [&ensemble.strategy, &ensemble.overrides.strategies[0]].map(|strategy| judges(strategy)[0].prompt.clone())
}

#[test]
fn a_prompt_that_is_a_text_is_for_the_own_strategy() {
    let plain = "Of {{count}}: {{candidates}}";
    let verdict = "{{candidates}} {{verdict}}";
    let template = |text, purpose| Template::parse(text, purpose).unwrap();
    let ours = Template::of;
    let rows = [
        ("judge", "rank", plain, template(plain, Purpose::Synthesis), ours(Purpose::Ranking)),
        ("rank", "judge", verdict, template(verdict, Purpose::Ranking), ours(Purpose::Synthesis)),
        ("score", "rank", verdict, template(verdict, Purpose::Scoring), ours(Purpose::Ranking)),
        ("vote", "score", plain, template(plain, Purpose::Synthesis), ours(Purpose::Scoring)),
        ("weighted", "vote", plain, template(plain, Purpose::Synthesis), template(plain, Purpose::Synthesis)),
    ];
    for (own, chosen, text, of_own, of_chosen) in rows {
        assert_eq!(prompts(own, chosen, &format!("'{text}'")), [of_own, of_chosen], "{own}, {chosen}");
    }
}

#[test]
fn a_prompt_may_be_one_for_each_strategy() {
    let each = "{judge: 'J {{candidates}}', rank: 'R {{candidates}} {{verdict}}', score: 'S {{candidates}} {{verdict}}'}";
    let judge = Template::parse("J {{candidates}}", Purpose::Synthesis).unwrap();
    let rank = Template::parse("R {{candidates}} {{verdict}}", Purpose::Ranking).unwrap();
    let score = Template::parse("S {{candidates}} {{verdict}}", Purpose::Scoring).unwrap();
    assert_eq!(prompts("judge", "rank", each), [judge.clone(), rank.clone()]);
    assert_eq!(prompts("score", "vote", each), [score, judge]);
    let one = prompts("rank", "score", "{rank: 'R {{candidates}} {{verdict}}'}");
    assert_eq!(one, [rank, Template::of(Purpose::Scoring)]);
}

fn reading(answer: &str) -> Reading {
    ensemble(&format!("{PANEL}, answer: {answer}")).reading.clone()
}

#[test]
fn an_answer_is_read_as_it_says() {
    let is = |pattern: &Option<Pattern>, text: &str| {
        pattern.as_ref().is_some_and(|p| format!("{p:?}").contains(&format!("{text:?}")))
    };
    let part = Pointer::parse("/a/0").unwrap();
    assert!(matches!(ensemble(PANEL).reading, Reading::Auto));
    assert!(matches!(reading("auto"), Reading::Auto));
    assert!(matches!(reading("text"), Reading::Text));
    assert!(matches!(reading("{kind: text}"), Reading::Text));
    assert!(matches!(reading("code"), Reading::Code));
    assert!(matches!(reading("{kind: code}"), Reading::Code));
    assert!(matches!(reading("choice"), Reading::Choice(None)));
    assert!(matches!(reading("{kind: choice, pattern: 'x(.)'}"), Reading::Choice(p) if is(&p, "x(.)")));
    assert!(matches!(reading("number"), Reading::Number { pattern: None, pointer: None }));
    assert!(matches!(
        reading("{kind: number, pattern: '= (\\d+)', pointer: /a/0}"),
        Reading::Number { pattern, pointer } if is(&pattern, "= (\\d+)") && pointer == Some(part.clone())
    ));
    assert!(matches!(reading("json"), Reading::Json(None)));
    assert!(
        matches!(reading("{kind: json, pointer: /a/0}"), Reading::Json(pointer) if pointer == Some(part))
    );
    assert!(matches!(reading("{kind: json, pointer: ''}"), Reading::Json(Some(_))));
    assert!(
        matches!(reading("{kind: regex, pattern: x+}"), Reading::Regex(p) if format!("{p:?}").contains("x+"))
    );
}

#[test]
fn an_average_reads_numbers() {
    for answer in ["auto", "number", "{kind: number}"] {
        let ensemble = ensemble(&format!("{PANEL}, strategy: average, answer: {answer}"));
        assert!(matches!(ensemble.reads(), Reading::Number { pattern: None, pointer: None }), "{answer}");
    }
    let chosen = ensemble(&format!("{PANEL}, answer: choice, overrides: {{strategy: [average]}}"));
    assert!(matches!(chosen.reads(), Reading::Choice(None)));
    let mut average = Ensemble::clone(&chosen);
    average.strategy = chosen.overrides.strategies[0].clone();
    assert!(matches!(average.reads(), Reading::Number { .. }), "whoever chose the average");
}

#[test]
fn a_panel_is_asked_in_its_order() {
    let execution = |fields: &str| ensemble(&format!("{PANEL}, {fields}")).execution.clone();
    let cascade = |start, step, agreement| {
        let [start, step] = [start, step].map(|n| NonZeroUsize::new(n).unwrap());
        Execution::Cascade(Cascade { start, step, agreement })
    };
    for (fields, expected) in [
        ("execution: parallel", Execution::Parallel),
        ("execution: sequential", Execution::Sequential),
        ("cascade: {}", cascade(2, 1, 1.0)),
        ("cascade: {start: 3, step: 2, agreement: 0.5}", cascade(3, 2, 0.5)),
        ("strategy: first", Execution::Parallel),
        ("strategy: first, first: {}", Execution::Parallel),
        ("strategy: first, execution: sequential", Execution::Sequential),
        ("strategy: first, first: {hedge_ms: 300}", Execution::Hedged(Duration::from_millis(300))),
    ] {
        assert_eq!(execution(fields), expected, "{fields}");
    }
}

#[test]
fn what_callers_see_of_a_run_is_said() {
    let e = ensemble(PANEL);
    assert_eq!((e.trace, e.reasoning), (Trace::Off, Reasoning::Pass));
    let e = ensemble(&format!("{PANEL}, trace: always, reasoning: drop"));
    assert_eq!((e.trace, e.reasoning), (Trace::Always, Reasoning::Drop));
    assert_eq!(ensemble(&format!("{PANEL}, trace: header")).trace, Trace::Header);
}

#[test]
fn no_trace_is_off_in_every_spelling() {
    for off in ["off", "'off'", "false"] {
        assert_eq!(ensemble(&format!("{PANEL}, trace: {off}")).trace, Trace::Off, "{off}");
    }
    let json = r#"{"providers": [{"name": "p", "base_url": "http://h"}], "models": [
        {"display_name": "a", "provider": "p", "model_name": "m"},
        {"display_name": "e", "ensemble": {"panel": [{"model": "a"}], "trace": false}}]}"#;
    let config = read(json, Format::Json, &Environment::new()).unwrap();
    assert_eq!(config.snapshot.ensemble("e").unwrap().trace, Trace::Off, "as Helm hands it on");
}
