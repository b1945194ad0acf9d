//! What callers may change, form and be sent to.

use std::time::Duration;

use super::*;
use crate::ensemble::{Execution, Member, OnNoConsensus, RankMode, Reading, Strategy, Vote};
use crate::upstream::ResponseFormat;

fn strategies(ensemble: &Ensemble) -> Vec<&str> {
    ensemble.overrides.strategies.iter().map(Strategy::name).collect()
}

fn names(members: &[Member]) -> Vec<&str> {
    members.iter().map(|member| &*member.model.name).collect()
}

#[test]
fn callers_may_change_nothing_by_default() {
    let e = ensemble("panel: [{model: a}]");
    let o = &e.overrides;
    assert!(o.strategies.is_empty() && o.models.is_empty() && o.judges.is_empty());
    assert!(!o.min_responses && !o.enable && !o.panel_required);
    assert!(e.when.is_none() && e.otherwise.is_none());
}

#[test]
fn callers_may_change_what_is_listed() {
    let e = ensemble(
        "panel: [{model: a, weight: 3, system: first}, {model: a, weight: 5}], judge: {model: b},
         rank: {mode: pairwise}, vote: {on_no_consensus: fail}, otherwise: b,
         overrides: {strategy: [rank, vote, judge], models: [b, a], judge: [a, b], min_responses: true, enable: true}",
    );
    assert_eq!(strategies(&e), ["rank", "vote", "judge"]);
    assert!(matches!(&e.overrides.strategies[0], Strategy::Rank(rank) if rank.mode == RankMode::Pairwise));
    let Strategy::Vote(Vote { on_no_consensus, .. }) = &e.overrides.strategies[1] else { panic!("no vote") };
    assert!(matches!(on_no_consensus, OnNoConsensus::Fail));
    assert_eq!(names(&e.overrides.models), ["b", "a"]);
    assert_eq!(e.overrides.models[0].weight, 1.0, "a plain member");
    let a = &e.overrides.models[1];
    assert_eq!((a.weight, a.system.as_deref()), (3.0, Some("first")), "as its first place in the panel");
    let judges: Vec<&str> = e.overrides.judges.iter().map(|model| &*model.name).collect();
    assert_eq!(judges, ["a", "b"]);
    assert!(e.overrides.min_responses && e.overrides.enable && !e.overrides.panel_required);
    assert_eq!(e.otherwise.as_ref().map(|model| &*model.name), Some("b"));
}

#[test]
fn the_quorum_follows_a_formed_panel_unless_the_operator_set_it() {
    let follows = |fields: &str| ensemble(&format!("panel: [{{model: a}}]{fields}")).overrides.quorum_follows;
    assert!(follows(""));
    assert!(!follows(", min_responses: 1"));
    let config = yaml(&format!(
        "limits: {{max_panel: 3}}\n{MODELS}- {{display_name: e, ensemble: {{panel: [{{model: a}}]}}}}"
    ));
    assert_eq!(config.unwrap().snapshot.ensemble("e").unwrap().overrides.max_panel, 3);
}

fn ad_hoc(fields: &str) -> Arc<Ensemble> {
    let config = yaml(&format!("{MODELS}overrides: {{ad_hoc: {{alias: free, models: [a, b], {fields}}}}}"));
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    Arc::clone(config.snapshot.ensemble("free").unwrap())
}

#[test]
fn an_ad_hoc_alias_has_the_panel_that_callers_form() {
    let e = ad_hoc("");
    assert_eq!(names(&e.panel), ["a", "b"]);
    assert!(e.panel.iter().all(|member| member.weight == 1.0 && !member.required));
    assert_eq!(names(&e.overrides.models), ["a", "b"]);
    assert!(e.overrides.panel_required && e.overrides.min_responses && e.overrides.quorum_follows);
    assert_eq!((strategies(&e), e.strategy.name(), e.quorum.get()), (vec!["vote"], "vote", 2));
    assert_eq!((e.timeout, e.deadline, e.straggler_grace), (None, None, None));
    assert_eq!(e.execution, Execution::Parallel);
    assert!(matches!(e.reading, Reading::Auto));
}

#[test]
fn an_ad_hoc_alias_is_what_its_fields_say() {
    let judged = ad_hoc("judge: [b, a]");
    assert_eq!((strategies(&judged), judged.strategy.name()), (vec!["judge"], "judge"));
    assert_eq!(&*judged.strategy.clone().judges_mut()[0].model.name, "b", "the first is the default");
    assert_eq!(judged.overrides.judges.len(), 2);
    let e = ad_hoc(
        "strategy: [score, vote, first], judge: [a], min_responses: 1, timeout_ms: 1, deadline_ms: 2,
         straggler_grace_ms: 3, answer: choice",
    );
    assert_eq!((strategies(&e), e.strategy.name()), (vec!["score", "vote", "first"], "score"));
    assert_eq!((e.quorum.get(), e.overrides.quorum_follows), (1, false));
    assert_eq!(e.timeout, Some(Duration::from_millis(1)));
    assert_eq!(e.deadline, Some(Duration::from_millis(2)));
    assert_eq!(e.straggler_grace, Some(Duration::from_millis(3)));
    assert!(matches!(e.reading, Reading::Choice(None)));
    assert!(e.rate_limit.is_none() && e.budget.is_none());
    let bounded = ad_hoc("rate_limit: {rpm: 3}, budget: {usd_per_day: 2.5}");
    assert!(bounded.rate_limit.is_some() && bounded.budget.is_some());
    assert_eq!(ad_hoc("strategy: [first, vote]").quorum.get(), 1);
    assert!(matches!(ad_hoc("strategy: [average]").reads(), Reading::Number { .. }));
}

#[test]
fn more_models_than_a_panel_has_may_be_listed() {
    let config = yaml(&format!(
        "limits: {{max_panel: 1}}\n{MODELS}overrides: {{ad_hoc: {{alias: free, models: [a, b]}}}}"
    ));
    let e = Arc::clone(config.unwrap().snapshot.ensemble("free").unwrap());
    assert_eq!((e.overrides.models.len(), e.overrides.max_panel), (2, 1));
}

#[test]
fn a_direct_model_says_which_response_format_it_takes() {
    let of = |field: &str| {
        let provider = "providers: [{name: p, base_url: 'http://h'}]";
        let text = format!("{provider}\nmodels: [{{display_name: a, provider: p, model_name: m{field}}}]");
        yaml(&text).unwrap().direct_models[0].response_format
    };
    assert_eq!(of(""), ResponseFormat::None);
    assert_eq!(of(", response_format: none"), ResponseFormat::None);
    assert_eq!(of(", response_format: json_object"), ResponseFormat::JsonObject);
    assert_eq!(of(", response_format: json_schema"), ResponseFormat::JsonSchema);
}

#[test]
fn a_redirected_requests_model_may_stand_in_a_header() {
    let defaults = yaml("{}").unwrap().ext_proc;
    assert_eq!((defaults.model_header, defaults.clear_route_cache), (None, false));
    let settings = yaml("ext_proc: {model_header: X-Model, clear_route_cache: true}").unwrap().ext_proc;
    assert_eq!(settings.model_header.as_ref().map(|name| name.as_str()), Some("x-model"));
    assert!(settings.clear_route_cache);
}
