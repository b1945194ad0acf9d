//! What we ship for those who watch Consort: a dashboard, alert rules, a table of metrics. They name what is there.

use std::collections::BTreeSet;
use std::fs;

use config::{Config, File, FileFormat};
use consort::telemetry::metrics::{self, Kind, Metric};
use consort_testkit::provider::Reply;
use consort_testkit::{http, workspace};
use regex::Regex;
use serde_json::{Value, json};

use crate::stack::{ALIAS, KEY, Options, Stack, question};

/// Labels that Prometheus adds to what it scrapes, or that buckets have.
const ADDED: [&str; 2] = ["instance", "le"];

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).expect("a file that we ship")
}

fn found<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
    let pattern = Regex::new(pattern).expect("a pattern");
    pattern.captures_iter(text).map(|captures| captures.get(1).expect("a group").as_str()).collect()
}

/// The metric that a series belongs to.
fn metric_of(series: &str) -> Option<&'static Metric> {
    metrics::ALL.into_iter().find(|metric| match series.strip_prefix(metric.name) {
        Some("") => !matches!(metric.kind, Kind::Histogram(_)),
        Some("_bucket" | "_sum" | "_count") => matches!(metric.kind, Kind::Histogram(_)),
        _ => false,
    })
}

/// The labels that the result of an expression may be told apart by.
fn kept(expression: &str) -> BTreeSet<&str> {
    found(r"\bby \(([^)]*)\)", expression).iter().flat_map(|list| list.split(", ")).collect()
}

/// What an expression names and is not there.
fn strangers(expression: &str) -> Vec<String> {
    let plain = Regex::new(r#""[^"]*""#).expect("a pattern").replace_all(expression, r#""""#);
    let grouped = Regex::new(r"\b(by|on|group_left) \([^)]*\)").expect("a pattern").replace_all(&plain, "");
    let mut wrong = Vec::new();
    let mut labels = BTreeSet::from(ADDED);
    let selectors = Regex::new(r"\b((?:consort|gen_ai)_\w+)(?:\{([^}]*)\})?").expect("a pattern");
    for selector in selectors.captures_iter(&grouped) {
        let Some(metric) = metric_of(&selector[1]) else {
            wrong.push(format!("no series {}", &selector[1]));
            continue;
        };
        labels.extend(metric.labels);
        let matched = selector.get(2).map_or("", |inside| inside.as_str());
        for label in found(r"(\w+)\s*(?:=~|!~|!=|=)", matched) {
            if !metric.labels.contains(&label) {
                wrong.push(format!("{} has no label {label}", metric.name));
            }
        }
    }
    if labels.len() == ADDED.len() && !expression.contains("consort_") {
        wrong.push("nothing of ours".to_owned());
    }
    wrong.extend(
        kept(expression).into_iter().filter(|label| !labels.contains(label)).map(|l| format!("by {l}")),
    );
    wrong
}

#[track_caller]
fn assert_known(place: &str, expression: &str) {
    assert_eq!(strangers(expression), [""; 0], "{place}: {expression}");
    for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
        let count = |bracket| expression.matches(bracket).count();
        assert_eq!(count(open), count(close), "{place}: {expression}");
    }
}

/// What scrapers read now.
async fn scraped(stack: &Stack) -> String {
    let answer = http::get(stack.service.admin(), "/metrics").send().await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    answer.text().to_owned()
}

/// The sum over all series of this name that have all these labels.
fn total(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of_it = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let matching = of_it.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

#[tokio::test]
async fn scrapers_read_what_callers_were_answered_and_providers_bill() {
    const MODELS: [&str; 4] = ["a", "b", "c", "judge"];
    let options = Options::new().whole(|base_url| {
        let models = MODELS.map(|name| {
            format!(
                "- {{display_name: {name}, provider: scripted, model_name: model-{name}, retries: 0, \
                 cooldown: {{failures: 1}}, cost: {{input_per_1k: 2.0, output_per_1k: 6.0}}}}"
            )
        });
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers: [{{name: scripted, base_url: '{base_url}', api_key: {KEY}}}]
models:
{}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}, {{model: c}}], judge: {{model: judge}}}}}}",
            models.join("\n")
        )
    });
    let stack = options.start().await;
    let before = scraped(&stack).await;
    assert!(before.contains(&format!("consort_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))));
    assert_eq!(total(&before, "consort_config_generation", &[]), 1.0);
    assert_eq!(total(&before, "consort_requests_total", &[]), 0.0);

    let secret = json!({"messages": [{"role": "user", "content": "what is the secret?"}]});
    assert_eq!(stack.ask(secret.clone()).send().await.status, 200);
    assert_eq!(stack.ask_stream().send().await.status, 200);
    stack.provider.model("model-c").reply(Reply::error(500, "broken", "server_error", None));
    assert_eq!(stack.ask(secret).send().await.status, 200);
    let plain = question(json!({"model": "somebody-elses"}));
    assert_eq!(stack.ask_raw(plain.to_string()).send().await.header("x-upstream"), "echo");
    stack.provider.model("model-b").reply(Reply::stall());
    let leaving = tokio::spawn(stack.ask(json!({})).send());
    stack.provider.wait_for("model-b", 4).await;
    assert_eq!(total(&scraped(&stack).await, "consort_inflight", &[]), 1.0);
    leaving.abort();
    stack.runs_logged(4).await;

    let after = scraped(&stack).await;
    let alias = format!("alias=\"{ALIAS}\"");
    for (outcome, runs) in [("full", 2.0), ("quorum", 1.0), ("cancelled", 1.0), ("failed", 0.0)] {
        let outcome = format!("outcome=\"{outcome}\"");
        let labels = [&*alias, "strategy=\"judge\"", &*outcome];
        assert_eq!(total(&after, "consort_requests_total", &labels), runs, "{outcome}");
    }
    assert_eq!(total(&after, "consort_passthrough_total", &[]), 1.0);
    assert_eq!(total(&after, "consort_inflight", &[]), 0.0);
    assert_eq!(total(&after, "consort_member_calls_total", &["\"c\"", "\"server_error\""]), 1.0);
    assert_eq!(total(&after, "consort_model_cooling", &["\"c\""]), 1.0);
    assert_eq!(total(&after, "consort_model_cooling", &[]), 1.0);
    for name in MODELS {
        let billed = stack.provider.billed(&format!("model-{name}"));
        let model = format!("gen_ai_request_model=\"{name}\"");
        for (kind, tokens) in [("\"input\"", billed.prompt), ("\"output\"", billed.completion)] {
            assert!(tokens > 0, "{name}");
            assert_eq!(
                total(&after, "gen_ai_client_token_usage_sum", &[&model, kind]),
                tokens as f64,
                "{name}"
            );
        }
        let cost = billed.prompt as f64 * 0.002 + billed.completion as f64 * 0.006;
        let counted = total(&after, "consort_cost_usd_total", &[&format!("model=\"{name}\"")]);
        assert!((counted - cost).abs() < 1e-9, "{name}: {counted} for {cost}");
    }
    let judge = ["gen_ai_request_model=\"judge\"", "gen_ai_provider_name=\"openai\""];
    assert_eq!(total(&after, "gen_ai_client_operation_duration_seconds_count", &judge), 3.0);
    for private in ["secret", "somebody-elses", KEY, "model-a"] {
        assert!(!after.contains(private), "{private}");
    }
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    for (expression, wrong) in [
        ("sum by (model) (rate(consort_cost_usd_total{model=~\"gen_ai_x\"}[5m]))", vec![]),
        ("consort_overhead_seconds", vec!["no series consort_overhead_seconds"]),
        ("consort_inflight_count", vec!["no series consort_inflight_count"]),
        ("consort_inflight{model=\"a\"}", vec!["consort_inflight has no label model"]),
        ("sum by (alias) (consort_inflight)", vec!["by alias"]),
        ("up", vec!["nothing of ours"]),
    ] {
        assert_eq!(strangers(expression), wrong);
    }
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/consort.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    let mut shown = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title} says what it is"
        );
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            assert_known(title, expression);
            let legend = target["legendFormat"].as_str().expect("a legend");
            for label in found(r"\{\{(\w+)\}\}", legend) {
                assert!(kept(expression).contains(label), "{title}: {label} in {expression}");
            }
            shown.extend(
                found(r"\b((?:consort|gen_ai)_\w+)", expression)
                    .into_iter()
                    .filter_map(metric_of)
                    .map(|m| m.name),
            );
        }
    }
    let hidden: Vec<_> =
        metrics::ALL.iter().map(|metric| metric.name).filter(|name| !shown.contains(name)).collect();
    assert_eq!(hidden, ["consort_config_last_reload_success_timestamp_seconds"], "which no panel shows");
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        assert_known("an annotation", annotation["expr"].as_str().expect("an expression"));
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let Some(query) = variable["definition"].as_str() else { continue };
        let [series, label] = found(r"(\w+)", query)[1..] else { panic!("{query}") };
        assert!(metric_of(series).is_some_and(|metric| metric.labels.contains(&label)), "{query}");
    }
}

#[test]
fn the_alerts_watch_what_there_is_and_say_what_to_do() {
    let rules = File::from_str(&read("deploy/prometheus/consort.rules.yaml"), FileFormat::Yaml);
    let rules = Config::builder().add_source(rules).build().expect("YAML");
    let rules: Value = rules.try_deserialize().expect("a tree");
    let alerts: Vec<&Value> = rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .collect();
    let names: Vec<_> = alerts.iter().map(|alert| alert["alert"].as_str().expect("a name")).collect();
    assert_eq!(BTreeSet::from_iter(&names).len(), names.len(), "names are unique");
    for (name, alert) in names.iter().zip(&alerts) {
        let expression = alert["expr"].as_str().expect("an expression");
        assert_known(name, expression);
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}");
        let lasts = alert["for"].as_str().unwrap_or("0m");
        assert!(lasts.trim_end_matches(['m', 'h']).parse::<u32>().is_ok(), "{name} lasts {lasts}");
        let annotations = &alert["annotations"];
        let [summary, description] =
            ["summary", "description"].map(|field| annotations[field].as_str().unwrap_or_default());
        assert!(!summary.is_empty() && description.ends_with('.'), "{name} says what to do");
        for label in found(r"\$labels\.(\w+)", summary) {
            assert!(kept(expression).contains(label), "{name}: {label}");
        }
    }
    let documented = rows("## Alerts");
    assert_eq!(documented.iter().map(|row| row[0].trim_matches('`')).collect::<Vec<_>>(), names);
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let documented: Vec<Vec<String>> = rows("## Metrics");
    let code = metrics::ALL.iter().map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        [
            format!("`{}`", metric.name),
            metric.kind.label().to_owned(),
            labels.join(", "),
            metric.help.to_owned(),
        ]
        .to_vec()
    });
    for (documented, code) in documented.iter().zip(code) {
        assert_eq!(*documented, code);
    }
    assert_eq!(documented.len(), metrics::ALL.len());
}

/// The rows of the first table below a heading of docs/operations.md.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = read("docs/operations.md");
    let section = text.split(&format!("\n{heading}\n")).nth(1).expect("a section");
    let table = section.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}
