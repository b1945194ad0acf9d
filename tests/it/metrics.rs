//! What we ship for those who watch Consort: a dashboard, alert rules, a table of metrics. They name what is there.

use std::collections::BTreeSet;
use std::fs;

use config::{Config, File, FileFormat};
use consort::telemetry::metrics::{self, Kind, Metric};
use consort_testkit::workspace;
use regex::Regex;
use serde_json::Value;

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
