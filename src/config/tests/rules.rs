//! What the fields of an ensemble may not say together, and in which words.

use super::*;

/// The problems of an ensemble of `a`, `b` and `a`.
fn with(fields: &str) -> String {
    ensemble_problems(&format!("panel: [{{model: a}}, {{model: b}}, {{model: a}}], {fields}"))
}

#[test]
fn who_asks_a_judge_needs_one() {
    insta::assert_snapshot!(with("strategy: judge"), @"models[2].ensemble.judge: is required by strategy `judge`");
    insta::assert_snapshot!(with("strategy: rank"), @"models[2].ensemble.judge: is required by strategy `rank`");
    insta::assert_snapshot!(with("strategy: score"), @"models[2].ensemble.judge: is required by strategy `score`");
    insta::assert_snapshot!(with("strategy: vote, vote: {on_no_consensus: judge}"), @"models[2].ensemble.vote.on_no_consensus: asks a judge, and there is no `judge` beside `vote`");
    insta::assert_snapshot!(with("overrides: {strategy: [vote, rank, score]}"), @r#"
        models[2].ensemble.overrides.strategy[1]: strategy `rank` asks a judge, and there is no `judge`
        models[2].ensemble.overrides.strategy[2]: strategy `score` asks a judge, and there is no `judge` and no `judges`
        "#);
    insta::assert_snapshot!(with(
        "strategy: score, judges: [{model: a}], overrides: {strategy: [score, judge]}"
    ), @"models[2].ensemble.overrides.strategy[1]: strategy `judge` asks a judge, and there is no `judge`");
}

#[test]
fn a_setting_that_nothing_reads_is_a_problem() {
    insta::assert_snapshot!(with(
        "rank: {}, weighted: {}, average: {}, first: {}, judges: [{model: a}]"
    ), @r#"
        models[2].ensemble.average: is never used: it is for strategy `average`, and here is `vote`
        models[2].ensemble.first: is never used: it is for strategy `first`, and here is `vote`
        models[2].ensemble.judges: is never used: it is for strategy `score`, and here is `vote`
        models[2].ensemble.rank: is never used: it is for strategy `rank`, and here is `vote`
        models[2].ensemble.weighted: is never used: it is for strategy `weighted`, and here is `vote`
        "#);
    insta::assert_snapshot!(with(
        "judge: {model: b}, vote: {require: majority}, overrides: {strategy: [rank, first]}"
    ), @"models[2].ensemble.vote: is never used: it is for strategy `vote` or `weighted`, and here is `judge`, `rank`, `first`");
    insta::assert_snapshot!(with("judges: [], strategy: score"), @"models[2].ensemble.judges: must not be empty");
    insta::assert_snapshot!(with(
        "strategy: score, judges: [{model: a, prompt: {judge: '{{candidates}}', rank: 'x'}}]"
    ), @r#"
        models[2].ensemble.judges[0].prompt.judge: is never used: `judges` are asked for scores alone
        models[2].ensemble.judges[0].prompt.rank: is never used: `judges` are asked for scores alone
        "#);
    insta::assert_snapshot!(with("overrides: {judge: [a]}"), @"models[2].ensemble.overrides.judge: is never used: no judge is asked by `vote`");
    insta::assert_snapshot!(with(
        "judge: {model: b}, strategy: weighted, vote: {on_no_consensus: fail}, overrides: {judge: [a], strategy: [first]}"
    ), @"models[2].ensemble.overrides.judge: is never used: no judge is asked by `weighted`, `first`");
    insta::assert_snapshot!(with("single_candidate: judge"), @"models[2].ensemble.single_candidate: `judge` needs strategy `judge`, which writes an answer: expected `return`");
    insta::assert_snapshot!(with("strategy: rank, judge: {model: b}, single_candidate: judge"), @"models[2].ensemble.single_candidate: `judge` needs strategy `judge`, which writes an answer: expected `return`");
}

#[test]
fn what_callers_may_choose_uses_settings_too() {
    ensemble(
        "panel: [{model: a}], judge: {model: b}, single_candidate: judge, strategy: vote, vote: {},
         rank: {}, weighted: {}, average: {}, first: {}, judges: [{model: a}],
         overrides: {strategy: [judge, rank, score, weighted, average, first], judge: [a]}",
    );
}

#[test]
fn first_waits_for_nobody() {
    insta::assert_snapshot!(ensemble_problems(
        "panel: [{model: a}, {model: b, required: true}], strategy: first, min_responses: 3, cascade: {}"
    ), @r#"
        models[2].ensemble.cascade: cannot stand beside strategy `first`, which compares no answers
        models[2].ensemble.min_responses: 3 is more than the 1 that strategy `first` needs
        models[2].ensemble.panel[1].required: cannot stand beside strategy `first`, which waits for no particular member
        "#);
    // What callers choose is asked for without these.
    ensemble(
        "panel: [{model: a}, {model: b, required: true}], min_responses: 2, cascade: {}, overrides: {strategy: [first]}",
    );
    insta::assert_snapshot!(with("strategy: first, first: {hedge_ms: 1}, execution: sequential"), @"models[2].ensemble.first.hedge_ms: cannot stand beside `execution: sequential`: choose one");
    insta::assert_snapshot!(with("first: {hedge_ms: 1}, overrides: {strategy: [first]}"), @"models[2].ensemble.first.hedge_ms: is for ensembles whose own strategy is `first`: one that callers choose has no delay");
    insta::assert_snapshot!(with("strategy: first, first: {hedge_ms: 0}"), @"models[2].ensemble.first.hedge_ms: must be from 1 to 86400000");
}

#[test]
fn a_cascade_fits_its_panel() {
    insta::assert_snapshot!(with("cascade: {start: 4}"), @"models[2].ensemble.cascade.start: 4 is more than the panel's 3");
    insta::assert_snapshot!(ensemble_problems("panel: [{model: a}], cascade: {}"), @"models[2].ensemble.cascade.start: 2 is more than the panel's 1");
    insta::assert_snapshot!(with("cascade: {start: 1, step: 0, agreement: 0}"), @r#"
        models[2].ensemble.cascade.agreement: must be greater than 0 and at most 1
        models[2].ensemble.cascade.start: must be at least 2
        models[2].ensemble.cascade.step: must be at least 1
        "#);
    insta::assert_snapshot!(with("cascade: {agreement: 1.5}, execution: sequential"), @r#"
        models[2].ensemble.cascade: cannot stand beside `execution: sequential`: choose one
        models[2].ensemble.cascade.agreement: must be greater than 0 and at most 1
        "#);
    insta::assert_snapshot!(with("cascade: {start: 3}, execution: sequential"), @"models[2].ensemble.cascade: cannot stand beside `execution: sequential`: choose one");
}

#[test]
fn an_average_is_of_numbers() {
    insta::assert_snapshot!(with("strategy: average, answer: choice"), @"models[2].ensemble.answer: strategy `average` is for numbers: expected `number`, or nothing");
    insta::assert_snapshot!(with("strategy: average, answer: {kind: regex, pattern: x}"), @"models[2].ensemble.answer: strategy `average` is for numbers: expected `number`, or nothing");
}

#[test]
fn an_answer_is_of_a_known_kind() {
    insta::assert_snapshot!(with("answer: nmber"), @r#"models[2].ensemble.answer: expected `auto`, `number`, `choice`, `json`, `code`, `text` or `{kind: …, pattern: …, pointer: …}` (did you mean "number"?)"#);
    insta::assert_snapshot!(with("answer: 3"), @"models[2].ensemble.answer: expected `auto`, `number`, `choice`, `json`, `code`, `text` or `{kind: …, pattern: …, pointer: …}`");
    insta::assert_snapshot!(with("answer: regex"), @"models[2].ensemble.answer: expected `auto`, `number`, `choice`, `json`, `code`, `text` or `{kind: …, pattern: …, pointer: …}`");
    insta::assert_snapshot!(with("answer: {kind: nmber}"), @r#"models[2].ensemble.answer.kind: expected `choice`, `number`, `json`, `regex`, `code` or `text` (did you mean "number"?)"#);
    insta::assert_snapshot!(with("answer: {pattern: x}"), @"models[2].ensemble.answer.kind: is required");
    insta::assert_snapshot!(with("answer: {kind: regex}"), @"models[2].ensemble.answer.pattern: is required by kind `regex`");
    insta::assert_snapshot!(with("answer: {kind: regex, pattern: '(', pointer: /a}"), @r#"
        models[2].ensemble.answer.pattern: not a regular expression: unclosed group
        models[2].ensemble.answer.pointer: is for the kinds `number` and `json` alone
        "#);
    insta::assert_snapshot!(with("answer: {kind: choice, pattern: '(a)(b)'}"), @"models[2].ensemble.answer.pattern: has 2 groups; at most one may capture, write the others as (?:…)");
    insta::assert_snapshot!(with("answer: {kind: json, pattern: x, pointer: a}"), @r#"
        models[2].ensemble.answer.pattern: is for the kinds `choice`, `number` and `regex` alone
        models[2].ensemble.answer.pointer: must be empty or begin with "/", like /result/value
        "#);
    insta::assert_snapshot!(with("answer: {kind: text, pattern: x, pointer: /a}"), @r#"
        models[2].ensemble.answer.pattern: is for the kinds `choice`, `number` and `regex` alone
        models[2].ensemble.answer.pointer: is for the kinds `number` and `json` alone
        "#);
}

#[test]
fn a_prompt_is_a_text_or_one_for_each_strategy() {
    let prompt = |prompt: &str| with(&format!("judge: {{model: b, prompt: {prompt}}}"));
    insta::assert_snapshot!(prompt("3"), @"models[2].ensemble.judge.prompt: expected a string or `{judge: …, rank: …, score: …}`");
    insta::assert_snapshot!(prompt("{judg: x}"), @r#"models[2].ensemble.judge.prompt.judg: unknown key (did you mean "judge"?)"#);
    insta::assert_snapshot!(prompt("{judge: x, rank: '{{candidates}}', score: '{{verdict}}'}"), @r#"
        models[2].ensemble.judge.prompt.judge: must contain the placeholder {{candidates}}
        models[2].ensemble.judge.prompt.rank: must contain the placeholder {{verdict}}, where Consort says in which form to answer
        models[2].ensemble.judge.prompt.score: must contain the placeholder {{candidates}}
        "#);
    insta::assert_snapshot!(with("strategy: rank, judge: {model: b, prompt: '{{candidates}}'}"), @"models[2].ensemble.judge.prompt: must contain the placeholder {{verdict}}, where Consort says in which form to answer");
    insta::assert_snapshot!(with("strategy: vote, judge: {model: b, prompt: '{{candidates}} {{verdict}}'}"), @"models[2].ensemble.judge.prompt: {{verdict}} belongs into prompts for a verdict, once");
}

#[test]
fn requests_that_are_not_the_ensembles_need_a_place_and_a_reason() {
    let both = with("when: request.stream &&");
    assert!(both.starts_with("models[2].ensemble.otherwise: is required by `when`"), "{both}");
    assert!(both.contains("\nmodels[2].ensemble.when: "), "{both}");
    insta::assert_snapshot!(with("otherwise: a"), @"models[2].ensemble.otherwise: is never used: it needs `when`, or `overrides.enable: true`");
    insta::assert_snapshot!(with("overrides: {enable: true}"), @"models[2].ensemble.otherwise: is required by `overrides.enable`: the direct model that the other requests go to");
    insta::assert_snapshot!(with("otherwise: e, overrides: {enable: true}"), @r#"models[2].ensemble.otherwise: "e" is an ensemble; only a direct model can stand here"#);
    insta::assert_snapshot!(with("otherwise: 3, overrides: {enable: true}"), @"models[2].ensemble.otherwise: expected a string, found an integer (put it in quotes)");
    insta::assert_snapshot!(with("otherwise: a, when: 3"), @"models[2].ensemble.when: expected a string, found an integer (put it in quotes)");
    let unreadable = with("otherwise: a, when: request.stream &&");
    assert!(unreadable.starts_with("models[2].ensemble.when: "), "{unreadable}");
}

#[test]
fn overrides_name_what_is_there_once() {
    insta::assert_snapshot!(with(
        "judge: {model: b}, overrides: {strategy: [vote, vote], models: [a, c, a], judge: [e, b, b]}"
    ), @r#"
        models[2].ensemble.overrides.judge[0]: "e" is an ensemble; only a direct model can stand here
        models[2].ensemble.overrides.judge[2]: "b" stands here twice
        models[2].ensemble.overrides.models[1]: unknown model "c"
        models[2].ensemble.overrides.models[2]: "a" stands here twice
        models[2].ensemble.overrides.strategy[1]: `vote` stands here twice
        "#);
    insta::assert_snapshot!(with("overrides: {strategy: [voet, vote], models: [3], enabled: true}"), @r#"
        models[2].ensemble.overrides.enabled: unknown key (did you mean "enable"?)
        models[2].ensemble.overrides.models[0]: expected a string, found an integer (put it in quotes)
        models[2].ensemble.overrides.strategy[0]: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first` (did you mean "vote"?)
        "#);
}

#[test]
fn a_stand_in_is_no_reason_to_complain() {
    insta::assert_snapshot!(with("strategy: rnk, rank: {}, single_candidate: judge, overrides: {judge: [a]}"), @r#"models[2].ensemble.strategy: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first` (did you mean "rank"?)"#);
    insta::assert_snapshot!(with("judge: 3, rank: {}, single_candidate: judge, overrides: {strategy: [score], judge: [a]}"), @"models[2].ensemble.judge: expected a mapping, found an integer");
    insta::assert_snapshot!(with("rank: {}, overrides: {strategy: [rnk]}"), @r#"models[2].ensemble.overrides.strategy[0]: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first` (did you mean "rank"?)"#);
    insta::assert_snapshot!(with(
        "strategy: rnk, judge: {model: b, prompt: '{{candidates}} {{verdict}}'}"
    ), @r#"models[2].ensemble.strategy: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first` (did you mean "rank"?)"#);
}

#[test]
fn a_word_of_a_list_that_is_wrong_does_not_hide_other_problems() {
    insta::assert_snapshot!(problems(&format!(
        "limits: {{max_panel: 0}}\n{MODELS}- {{display_name: e, ensemble: {{panel: [{{model: c}}], overrides: {{strategy: [1], models: [[]]}}}}}}"
    )), @r#"
        limits.max_panel: must be from 1 to 256
        models[2].ensemble.overrides.models[0]: expected a string, found a list
        models[2].ensemble.overrides.strategy[0]: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first`
        models[2].ensemble.panel[0].model: unknown model "c"
        "#);
}

#[test]
fn a_similarity_and_an_agreement_are_shares() {
    insta::assert_snapshot!(with("vote: {similarity: 0, require: most, on_no_consensus: judges}"), @r#"
        models[2].ensemble.vote.on_no_consensus: expected `judge`, `first` or `fail` (did you mean "judge"?)
        models[2].ensemble.vote.require: expected `plurality`, `majority` or `unanimous`
        models[2].ensemble.vote.similarity: must be greater than 0 and at most 1
        "#);
    insta::assert_snapshot!(with("vote: {similarity: 1.01}, trace: true, reasoning: hide"), @r#"
        models[2].ensemble.reasoning: expected `pass` or `drop`
        models[2].ensemble.trace: expected `off`, `header` or `always`
        models[2].ensemble.vote.similarity: must be greater than 0 and at most 1
        "#);
}

fn ad_hoc(fields: &str) -> String {
    problems(&format!("{MODELS}overrides: {{ad_hoc: {{{fields}}}}}"))
}

#[test]
fn an_ad_hoc_alias_is_checked_as_an_ensemble_is() {
    insta::assert_snapshot!(ad_hoc(""), @r#"
        overrides.ad_hoc.alias: is required
        overrides.ad_hoc.models: is required
        "#);
    insta::assert_snapshot!(ad_hoc("alias: a, models: [a, c, a], strategy: [vote, vote], judge: [free]"), @r#"
        overrides.ad_hoc.alias: "a" is the name of another model too
        overrides.ad_hoc.judge[0]: unknown model "free"
        overrides.ad_hoc.models[1]: unknown model "c"
        overrides.ad_hoc.models[2]: "a" stands here twice
        overrides.ad_hoc.strategy[1]: `vote` stands here twice
        "#);
    insta::assert_snapshot!(ad_hoc("alias: free, models: [free], strategy: [rank]"), @r#"
        overrides.ad_hoc.judge: is required by strategy `rank`
        overrides.ad_hoc.models[0]: "free" is an ensemble; only a direct model can stand here
        "#);
    insta::assert_snapshot!(ad_hoc("alias: free, models: [a], strategy: [average, first], judge: [a], answer: code"), @r#"
        overrides.ad_hoc.answer: strategy `average` is for numbers: expected `number`, or nothing
        overrides.ad_hoc.judge: is never used: no strategy here asks a judge
        "#);
    insta::assert_snapshot!(ad_hoc("alias: free, models: [a, b], strategy: [first], min_responses: 2"), @"overrides.ad_hoc.min_responses: 2 is more than the 1 that strategy `first` needs");
    insta::assert_snapshot!(ad_hoc("alias: free, models: [a, b], strategy: [], min_responses: 3"), @r#"
        overrides.ad_hoc.min_responses: 3 is more than the panel's 2
        overrides.ad_hoc.strategy: must not be empty
        "#);
    insta::assert_snapshot!(ad_hoc("alias: free, models: [a], strategy: [rank], judge: [3]"), @"overrides.ad_hoc.judge[0]: expected a string, found an integer (put it in quotes)");
    insta::assert_snapshot!(ad_hoc("alias: \"x\\ny\", models: []"), @r#"
        overrides.ad_hoc.alias: must be of at most 256 bytes, without control characters
        overrides.ad_hoc.models: must not be empty
        "#);
}

#[test]
fn an_alias_that_another_model_has_leaves_that_model_alone() {
    insta::assert_snapshot!(problems(&format!(
        "{MODELS}- {{display_name: e, ensemble: {{panel: [{{model: a}}]}}}}\noverrides: {{ad_hoc: {{alias: a, models: [a]}}}}"
    )), @r#"overrides.ad_hoc.alias: "a" is the name of another model too"#);
}

#[test]
fn a_model_header_is_a_header_of_its_own() {
    let header = |name: &str| problems(&format!("ext_proc: {{model_header: '{name}'}}"));
    insta::assert_snapshot!(header("x model"), @"ext_proc.model_header: is no name of a header");
    insta::assert_snapshot!(header(":authority"), @"ext_proc.model_header: must not be a pseudo header");
    insta::assert_snapshot!(header("X-Envoy-Model"), @"ext_proc.model_header: must not begin with `x-envoy-`: Envoy lets nobody else set these");
    insta::assert_snapshot!(header("Content-Length"), @"ext_proc.model_header: must be a header of its own, like `x-model`");
    insta::assert_snapshot!(header(""), @"ext_proc.model_header: must not be empty");
}

#[test]
fn no_problem_of_an_ensemble_shows_what_the_environment_holds() {
    let secret = "sk-live-0123456789";
    let text = format!(
        r#"{MODELS}
- {{display_name: "${{KEY}}", provider: p, model_name: m}}
- display_name: e
  ensemble:
    panel: [{{model: a}}]
    strategy: "${{KEY}}"
    judge: {{model: b, prompt: {{judge: "{{{{${{KEY}}}}}}", rank: "${{KEY}}"}}}}
    judges: [{{model: "x${{KEY}}"}}]
    answer: {{kind: regex, pattern: "(${{KEY}}", pointer: "${{KEY}}"}}
    when: "${{KEY}} &&"
    otherwise: "y${{KEY}}"
    overrides: {{strategy: ["${{KEY}}"], models: ["z${{KEY}}"], judge: ["${{KEY}}", "${{KEY}}"]}}
    trace: "${{KEY}}"
ext_proc: {{model_header: "${{KEY}} x"}}
overrides: {{ad_hoc: {{alias: "${{KEY}}", models: ["${{KEY}}", "${{KEY}}"]}}}}
"#
    );
    let problems = read(&text, Format::Yaml, &environment([("KEY", secret)])).unwrap_err().to_string();
    assert!(!problems.contains("0123456789"), "{problems}");
    insta::assert_snapshot!(problems, @r#"
        ext_proc.model_header: is no name of a header
        models[3].ensemble.answer.pattern: is no pattern as interpolated
        models[3].ensemble.answer.pointer: is no JSON Pointer as interpolated
        models[3].ensemble.judge.prompt.judge: is no prompt template as interpolated
        models[3].ensemble.judge.prompt.rank: is no prompt template as interpolated
        models[3].ensemble.judges[0].model: unknown model "x${KEY}"
        models[3].ensemble.otherwise: unknown model "y${KEY}"
        models[3].ensemble.overrides.judge[1]: "${KEY}" stands here twice
        models[3].ensemble.overrides.models[0]: unknown model "z${KEY}"
        models[3].ensemble.overrides.strategy[0]: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first`
        models[3].ensemble.strategy: expected `judge`, `rank`, `score`, `vote`, `weighted`, `average` or `first`
        models[3].ensemble.trace: expected `off`, `header` or `always`
        models[3].ensemble.when: is no condition as interpolated
        overrides.ad_hoc.alias: "${KEY}" is the name of another model too
        overrides.ad_hoc.models[1]: "${KEY}" stands here twice
        "#);
}
