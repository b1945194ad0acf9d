use proptest::prelude::*;

use super::*;
use crate::telemetry::decision::{Attempt, Call, Usage};

const RUN: &str = "alias=\"team\",strategy=\"judge\"";

/// The value of one series; none when it is not there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// The sum over all series of this name that have all these labels.
fn total(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of_it = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let matching = of_it.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn call(model: &str, result: &str, started_ms: f64, elapsed_ms: f64) -> Call {
    Call {
        model: model.into(),
        result: result.into(),
        started_ms,
        elapsed_ms,
        attempts: 1,
        ..Call::default()
    }
}

fn used(prompt_tokens: u64, completion_tokens: u64, estimated: bool) -> Option<Usage> {
    Some(Usage { prompt_tokens, completion_tokens, estimated, ..Usage::default() })
}

/// A run with something to tell for each metric.
fn eventful() -> Decision {
    let members = vec![
        Call {
            usage: used(10, 100, false),
            cost_usd: Some(0.25),
            attempts: 3,
            first_byte_ms: Some(500.0),
            tries: vec![Attempt { started_ms: 400.0, ..Attempt::default() }],
            queued_ms: 50.0,
            ..call("a", "usable", 2.0, 698.0)
        },
        call("b", "cancelled", 2.0, 998.0),
        Call { attempts: 0, ..call("c", "limited", 2.0, 0.0) },
        Call { attempts: 0, ..call("a", "not_asked", 0.0, 0.0) },
    ];
    let judges = vec![
        call("a", "timeout", 1004.0, 996.0),
        Call { usage: used(5, 6, true), cost_usd: Some(0.5), ..call("b", "answered", 2000.0, 1000.0) },
    ];
    Decision {
        alias: "team".into(),
        strategy: "judge".into(),
        outcome: Outcome::Degraded.into(),
        error_code: "judge_failed".into(),
        quorum_ms: Some(700.0),
        panel_ms: 1000.0,
        total_ms: 3001.0,
        agreement: Some(0.5),
        calls_saved: 2,
        degraded: vec!["judge_fallback".into()],
        ignored: vec!["x-ensemble-strategy".into()],
        condition_failed: true,
        members,
        judges,
        ..Decision::default()
    }
}

fn announced() -> Metrics {
    let metrics = Metrics::default();
    metrics.announce([("a", "openai"), ("b", "anthropic")].into_iter(), [("team", "judge")].into_iter());
    metrics
}

#[test]
fn every_metric_is_shown_with_its_help_and_type() {
    let metrics = announced();
    metrics.record(&eventful());
    let text = metrics.render();
    let mut expected: Vec<_> = ALL
        .iter()
        .flat_map(|m| {
            let kind = m.kind.label();
            [format!("# HELP {} {}", m.name, m.help), format!("# TYPE {} {kind}", m.name)]
        })
        .collect();
    let mut shown: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
    expected.sort();
    shown.sort_unstable();
    assert_eq!(shown, expected);
}

#[test]
fn a_decision_is_counted() {
    let metrics = announced();
    let before = metrics.render();
    metrics.record(&eventful());
    let after = metrics.render();
    let mut changed: Vec<_> = after
        .lines()
        .filter(|line| {
            !line.starts_with('#') && !line.contains("_bucket{") && !before.lines().any(|l| l == *line)
        })
        .collect();
    changed.sort_unstable();
    insta::assert_snapshot!(changed.join("\n"), @r#"
    consort_agreement_ratio_count{alias="team"} 1
    consort_agreement_ratio_sum{alias="team"} 0.5
    consort_calls_saved_total{alias="team"} 2
    consort_condition_failures_total{alias="team"} 1
    consort_cost_usd_total{model="a"} 0.25
    consort_cost_usd_total{model="b"} 0.5
    consort_degraded_total{alias="team",cause="judge_fallback"} 1
    consort_errors_total{alias="team",code="judge_failed"} 1
    consort_estimated_usage_total{model="b"} 1
    consort_ignored_headers_total{alias="team",header="x-ensemble-strategy"} 1
    consort_judge_failures_total{reason="timeout"} 1
    consort_limited_total{scope="model",name="c"} 1
    consort_member_calls_total{model="a",result="usable"} 1
    consort_member_calls_total{model="b",result="cancelled"} 1
    consort_member_calls_total{model="c",result="limited"} 1
    consort_overhead_seconds_count 1
    consort_overhead_seconds_sum 0.007
    consort_queue_wait_seconds_count{model="a"} 1
    consort_queue_wait_seconds_sum{model="a"} 0.05
    consort_quorum_wait_seconds_count{alias="team"} 1
    consort_quorum_wait_seconds_sum{alias="team"} 0.7
    consort_request_duration_seconds_count{alias="team",outcome="degraded"} 1
    consort_request_duration_seconds_sum{alias="team",outcome="degraded"} 3.001
    consort_requests_total{alias="team",strategy="judge",outcome="degraded"} 1
    consort_retries_total{model="a"} 2
    consort_stragglers_cancelled_total{alias="team"} 1
    gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b",error_type="cancelled"} 1
    gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b"} 1
    gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a",error_type="timeout"} 1
    gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a"} 1
    gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b",error_type="cancelled"} 0.998
    gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b"} 1
    gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a",error_type="timeout"} 0.996
    gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a"} 0.698
    gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b",gen_ai_token_type="input"} 1
    gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b",gen_ai_token_type="output"} 1
    gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a",gen_ai_token_type="input"} 1
    gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a",gen_ai_token_type="output"} 1
    gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b",gen_ai_token_type="input"} 5
    gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="b",gen_ai_token_type="output"} 6
    gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a",gen_ai_token_type="input"} 10
    gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a",gen_ai_token_type="output"} 100
    gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a"} 1
    gen_ai_server_time_to_first_token_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="a"} 0.1
    "#);
}

#[test]
fn what_alerts_wait_for_is_there_before_it_happens() {
    let text = announced().render();
    for code in ["internal_error", "overloaded"] {
        let series = format!("consort_errors_total{{alias=\"team\",code=\"{code}\"}}");
        assert_eq!(value(&text, &series), Some(0.0), "{code}");
    }
    for cause in CAUSES {
        let series = format!("consort_degraded_total{{alias=\"team\",cause=\"{cause}\"}}");
        assert_eq!(value(&text, &series), Some(0.0), "{cause}");
    }
}

#[test]
fn who_leaves_before_the_panel_is_done_makes_nobody_a_straggler() {
    let metrics = announced();
    metrics.record(&Decision { panel_ms: 0.0, ..eventful() });
    metrics.record(&Decision { quorum_ms: None, ..eventful() });
    assert_eq!(value(&metrics.render(), "consort_stragglers_cancelled_total{alias=\"team\"}"), Some(0.0));
}

#[test]
fn an_alias_over_its_limit_is_limited_and_an_alias_of_limited_models_is_not() {
    let metrics = announced();
    let refused = Decision {
        outcome: Outcome::Failed.into(),
        error_code: "rate_limit_exceeded".into(),
        members: vec![call("a", "not_asked", 0.0, 0.0)],
        alias: "team".into(),
        ..Decision::default()
    };
    metrics.record(&refused);
    metrics.record(&Decision {
        members: vec![Call { attempts: 0, ..call("a", "limited", 0.0, 0.0) }],
        ..refused
    });
    let text = metrics.render();
    assert_eq!(value(&text, "consort_limited_total{scope=\"alias\",name=\"team\"}"), Some(1.0));
    assert_eq!(value(&text, "consort_limited_total{scope=\"model\",name=\"a\"}"), Some(1.0));
}

#[test]
fn a_model_that_is_gone_from_the_configuration_does_not_cool_for_ever() {
    let metrics = announced();
    let cooling = |model| value(&metrics.render(), &format!("consort_model_cooling{{model=\"{model}\"}}"));
    metrics.within(|| ["a", "b"].map(|model| super::cooling(model).set(1.0)));
    assert_eq!((cooling("a"), cooling("b")), (Some(1.0), Some(1.0)));
    metrics.announce([("b", "anthropic")].into_iter(), std::iter::empty());
    assert_eq!((cooling("a"), cooling("b")), (Some(0.0), Some(1.0)), "what is known of the others stays");
}

#[test]
fn a_refused_configuration_leaves_the_one_before_in_force() {
    let metrics = Metrics::default();
    let state = || {
        let text = metrics.render();
        ["consort_config_generation", "consort_config_last_reload_successful"]
            .map(|name| value(&text, name).unwrap())
    };
    metrics.within(config_applied);
    assert_eq!(state(), [1.0, 1.0]);
    assert!(value(&metrics.render(), "consort_config_last_reload_success_timestamp_seconds") > Some(1.7e9));
    metrics.within(config_refused);
    assert_eq!(state(), [1.0, 0.0]);
    metrics.within(config_applied);
    assert_eq!(state(), [2.0, 1.0]);
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let results =
        prop::sample::select(vec!["usable", "answered", "timeout", "cancelled", "not_asked", "refusal"]);
    let call = (
        prop::sample::select(vec!["a", "b", "z"]),
        results,
        prop::option::of((0u64..5000, 0u64..5000)),
        1u32..4,
    )
        .prop_map(|(model, result, tokens, attempts)| Call {
            usage: tokens
                .filter(|_| result != "not_asked")
                .and_then(|(read, written)| used(read, written, false)),
            cost_usd: tokens
                .filter(|_| result != "not_asked")
                .map(|(read, written)| (read + written) as f64 / 1024.0),
            attempts: if result == "not_asked" { 0 } else { attempts },
            ..call(model, result, 1.0, 2.0)
        });
    prop::collection::vec(call, 0..5)
}

proptest! {
    #[test]
    fn sums_over_metrics_are_sums_over_decisions(
        runs in prop::collection::vec((calls(), calls(), prop::sample::select(Outcome::ENDS.to_vec())), 0..20),
    ) {
        let metrics = announced();
        let mut expected = [0.0; 6];
        for (members, judges, outcome) in runs {
            let judges: Vec<_> = judges.into_iter().filter(|call| call.result != "not_asked").collect();
            let all = || members.iter().chain(&judges);
            let usage = |of: fn(&Usage) -> u64| all().filter_map(|call| call.usage.as_ref().map(of)).sum::<u64>() as f64;
            let asked = all().filter(|call| call.attempts > 0);
            for (sum, more) in expected.iter_mut().zip([
                1.0,
                usage(|usage| usage.prompt_tokens),
                usage(|usage| usage.completion_tokens),
                all().filter_map(|call| call.cost_usd).sum(),
                asked.clone().count() as f64,
                asked.map(|call| f64::from(call.attempts) - 1.0).sum(),
            ]) {
                *sum += more;
            }
            metrics.record(&Decision {
                alias: "team".into(), strategy: "judge".into(), outcome: outcome.into(), members, judges, ..Decision::default()
            });
        }
        let text = metrics.render();
        let found = [
            total(&text, "consort_requests_total", &[RUN]),
            total(&text, "gen_ai_client_token_usage_sum", &["\"input\""]),
            total(&text, "gen_ai_client_token_usage_sum", &["\"output\""]),
            total(&text, "consort_cost_usd_total", &[]),
            total(&text, "gen_ai_client_operation_duration_seconds_count", &[]),
            total(&text, "consort_retries_total", &[]),
        ];
        prop_assert_eq!(found, expected);
    }
}
