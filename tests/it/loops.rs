//! Members behind the same Envoy: what Consort itself has made is never an ensemble's again.

use consort::signing::{Secrets, digest, marker, now};
use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::eventually;
use consort_testkit::http::{self, Answer, Call};
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use consort_testkit::upstream::hash;
use serde_json::{Value, json};

use crate::stack::{ALIAS, CHAT, KEY, ONE_ATTEMPT, Options, Stack, config, ms, provider, question};

const MARKER: &str = "x-consort-marker";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const SIGNING: &str = "signing: {secrets: [0123456789abcdef0123456789abcdef]}";

/// Attachments: their shipped file, what is changed in it, and whether requests are handed off.
type Attachment = (&'static str, fn(String) -> String);
const ATTACHMENTS: [Attachment; 4] = [
    ("envoy.yaml", |yaml| yaml),
    ("envoy.yaml", duplex),
    ("envoy-buffered.yaml", |yaml| yaml),
    ("envoy-handoff.yaml", |yaml| yaml),
];

fn duplex(yaml: String) -> String {
    let modes = |body, trailers| {
        format!("request_body_mode: {body}\n                request_trailer_mode: {trailers}\n")
    };
    replace_once(yaml, &modes("NONE", "SKIP"), &modes("FULL_DUPLEX_STREAMED", "SEND"))
}

/// Consort whose provider is the Envoy that it is attached to, and that Envoy's upstream the provider.
struct Circle {
    envoy: Envoy,
    service: Service,
    provider: Provider,
}

impl Circle {
    async fn start((file, edit): Attachment, models: &str) -> Self {
        let provider = provider().await;
        let text = |gateway: &str| {
            format!(
                "listen: {{ext_proc: '127.0.0.1:0', http: '127.0.0.1:0'}}
ext_proc: {{handoff: {{enabled: {}}}}}
{SIGNING}
providers:
- {{name: gateway, base_url: 'http://{gateway}/v1', api_key: {KEY}}}
- {{name: scripted, base_url: '{}', api_key: {KEY}}}
models:
{models}",
                file == "envoy-handoff.yaml",
                provider.base_url(),
            )
        };
        // Where Envoy listens is known once it runs.
        let service = Service::start(env!("CARGO_BIN_EXE_consort"), &text("127.0.0.1:9")).await;
        let mut options =
            EnvoyOptions::shipped(file).consort(service.addr()).upstream(provider.addr()).edit(edit);
        if file == "envoy-handoff.yaml" {
            options = options.consort_http(service.http());
        }
        let envoy = Envoy::start(options).await;
        envoy.wait_healthy().await;
        std::fs::write(service.config_path(), text(&envoy.addr().to_string()))
            .expect("the configuration is written");
        service.wait_for_log(|line| line["fields"]["message"] == "configuration reloaded").await;
        Self { envoy, service, provider }
    }

    async fn ask(&self, fields: Value) -> Answer {
        http::post(self.envoy.addr(), CHAT).json(&question(fields)).send().await
    }

    /// How often each model was asked, and that nobody has seen a marker.
    fn asked(&self) -> [usize; 4] {
        let asked = self.provider.requests();
        assert!(asked.iter().all(|asked| asked.header(MARKER).is_empty()), "{asked:?}");
        ["model-a", "model-b", "model-c", "model-judge"].map(|model| self.provider.requests_for(model).len())
    }
}

/// A direct model of a provider's.
fn direct(name: &str, provider: &str, model_name: &str) -> String {
    format!("- {{display_name: {name}, provider: {provider}, model_name: {model_name}, {ONE_ATTEMPT}}}\n")
}

#[tokio::test]
async fn members_that_are_reached_through_the_same_envoy_answer() {
    let names = [("a", "model-a"), ("b", "model-b"), ("judge", "model-judge")];
    let directs: String = names.map(|(name, model)| direct(name, "gateway", model)).concat();
    let models = format!(
        "{directs}- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}], judge: {{model: judge}}}}}}"
    );
    for attachment in ATTACHMENTS {
        let circle = Circle::start(attachment, &models).await;
        let answer = circle.ask(json!({})).await;
        assert_eq!(answer.header("x-ensemble-outcome"), "full", "{attachment:?} {}", answer.text());
        assert_eq!(circle.asked(), [1, 1, 0, 1]);
    }
}

#[tokio::test]
async fn an_ensemble_may_be_named_like_a_model_that_it_asks_through_the_same_envoy() {
    // A member and the judge are the very model that the ensemble stands before.
    let raw = direct("raw", "gateway", "model-a") + &direct("b", "scripted", "model-b");
    let models = format!(
        "{raw}- {{display_name: model-a, ensemble: {{panel: [{{model: raw}}, {{model: b}}], judge: {{model: raw}}}}}}"
    );
    for attachment in ATTACHMENTS {
        let circle = Circle::start(attachment, &models).await;
        circle.provider.model("model-a").reply(Reply::stream(&["It", " is"], ms(1)));
        for (n, stream) in [(1, false), (2, true)] {
            let answer = circle.ask(json!({"model": "model-a", "stream": stream})).await;
            assert_eq!(answer.header("x-ensemble-outcome"), "full", "{attachment:?} {}", answer.text());
            assert_eq!(circle.asked(), [2 * n, n, 0, 0], "{attachment:?}");
        }
        // A stream's line comes behind its last word.
        let runs = eventually("both runs to be logged", ms(10_000), async || {
            let logs = circle.service.logs();
            let runs = logs.iter().filter(|line| line["fields"]["message"] == "ensemble answered").count();
            (runs >= 2).then_some(runs)
        })
        .await;
        assert_eq!(runs, 2, "{attachment:?}");
    }
}

/// A marker as Consort writes them.
fn marked(body: &str, secret: &[u8], issued: u64) -> String {
    marker::issue(digest([body.as_bytes()]), &Secrets::new([secret]).unwrap(), issued).unwrap()
}

fn options() -> [Options; 4] {
    let options = [Options::new(), Options::new().edit(duplex), Options::buffered(), Options::handoff()];
    options.map(|options| options.config(SIGNING))
}

fn post(stack: &Stack, body: &str, marker: &str) -> Call {
    stack.ask_raw(body.to_owned()).header(MARKER, marker)
}

#[tokio::test]
async fn a_marker_lets_one_body_pass_once_and_is_refused_for_all_else() {
    let body = format!(
        r#"{{ "model": "{ALIAS}" , "messages": [{{"role":"user","content":"{}"}}] }}"#,
        "x".repeat(200_000)
    );
    let other = body.replace("user", "system");
    for options in options() {
        let stack = options.start().await;
        let good = marked(&body, SECRET, now());
        let passed = post(&stack, &body, &good).send().await;
        assert_eq!(passed.header("x-upstream"), "echo", "{}", passed.text());
        let arrived = stack.upstream.requests().remove(0);
        assert_eq!((arrived.hash, arrived.complete), (hash(body.as_bytes()), true));
        assert!(!arrived.headers.contains_key(MARKER), "{arrived:?}");
        for (body, marker) in [
            (&body, good),
            (&other, marked(&body, SECRET, now())),
            (&body, marked(&body, SECRET, now() - 60_000)),
        ] {
            let refused = post(&stack, body, &marker).send().await;
            assert_eq!(
                (refused.status.as_u16(), refused.json()["error"]["code"].as_str()),
                (508, Some("loop_detected"))
            );
        }
        assert!(stack.provider.requests().is_empty(), "nobody was asked");
        assert_eq!(stack.upstream.requests().len(), 1);
        let forged = marked(&body, b"fedcba9876543210fedcba9876543210", now());
        for marker in ["", "x.y", &forged] {
            let answer = post(&stack, &body, marker).send().await;
            assert_eq!(answer.header("x-ensemble-outcome"), "full", "{}", answer.text());
        }
        assert_eq!(stack.provider.requests_for("model-a").len(), 3);
        assert!(stack.provider.requests().iter().all(|asked| asked.header(MARKER).is_empty()));
    }
}

#[tokio::test]
async fn no_marker_goes_on_with_a_request_that_passes() {
    let plain = r#"{"model":"gpt-4o","messages":[]}"#;
    for options in options() {
        let stack = options.start().await;
        for marker in ["forged", &marked(plain, SECRET, now())] {
            assert_eq!(post(&stack, plain, marker).send().await.header("x-upstream"), "echo");
            let get = http::get(stack.envoy.addr(), "/v1/models").header(MARKER, marker).send().await;
            assert_eq!(get.header("x-upstream"), "echo");
        }
        let arrived = stack.upstream.requests();
        assert!(arrived.len() == 4 && arrived.iter().all(|a| !a.headers.contains_key(MARKER)), "{arrived:?}");
    }
    // Without Envoy's own fence, too.
    for (options, fence) in [
        (Options::new(), "[x-consort-marker, x-consort-ticket]"),
        (Options::new().edit(duplex), "[x-consort-marker, x-consort-ticket]"),
        (Options::buffered(), "[x-consort-marker, x-consort-ticket]"),
        (Options::handoff(), "[x-consort-marker]"),
    ] {
        let stack = options.edit(move |yaml| replace_once(yaml, fence, "[x-nothing]")).start().await;
        let call = post(&stack, plain, "forged").header("x-consort-ticket", "forged");
        assert_eq!(call.send().await.header("x-upstream"), "echo");
        let arrived = stack.upstream.requests().remove(0);
        assert!(arrived.headers.keys().all(|name| !name.as_str().starts_with("x-consort-")), "{arrived:?}");
    }
}

#[tokio::test]
async fn calls_are_marked_where_they_could_be_taken_for_an_ensembles_request_or_always() {
    for (mode, marked_ones) in
        [("auto", ["model-b"].as_slice()), ("always", &["model-a", "model-b"]), ("never", &[])]
    {
        let whole = move |url: &str| {
            format!(
                "listen: {{ext_proc: '127.0.0.1:0'}}
{SIGNING}
providers: [{{name: scripted, base_url: '{}', api_key: {KEY}, marker: {mode}}}]
models:
{}{}- {{display_name: model-b, ensemble: {{panel: [{{model: a}}, {{model: b}}], strategy: vote}}}}",
                url,
                direct("a", "scripted", "model-a"),
                direct("b", "scripted", "model-b"),
            )
        };
        let stack = Options::new().whole(whole).start().await;
        stack.ask(json!({"model": "model-b"})).send().await;
        let secrets = Secrets::new([SECRET]).unwrap();
        for asked in stack.provider.requests() {
            let is_marked = marked_ones.contains(&&*asked.model);
            let marker = asked.header(MARKER);
            assert_eq!(
                marker::is_authentic(marker.as_bytes(), &secrets),
                is_marked,
                "{mode} {}",
                asked.model
            );
            assert_eq!(marker.is_empty(), !is_marked, "{mode} {}", asked.model);
        }
        assert_eq!(stack.provider.requests().len(), 2);
    }
}

#[tokio::test]
async fn the_plain_door_answers_no_call_of_consorts_own() {
    let provider = provider().await;
    let service = Service::start(env!("CARGO_BIN_EXE_consort"), &config(&provider, "", "", SIGNING)).await;
    let body = question(json!({}));
    let asked = |marker: &str| http::post(service.http(), CHAT).json(&body).header(MARKER, marker);
    for issued in [now(), now() - 100_000] {
        let refused = asked(&marked(&body.to_string(), SECRET, issued)).send().await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["error"]["code"].as_str()),
            (508, Some("loop_detected"))
        );
    }
    assert!(provider.requests().is_empty());
    assert_eq!(asked("forged").send().await.header("x-ensemble-outcome"), "full");
    assert!(provider.requests().iter().all(|asked| asked.header(MARKER).is_empty()));
}

#[tokio::test]
async fn a_direct_model_that_is_asked_at_the_plain_door_by_its_own_name_does_not_multiply() {
    let text = |door: &str| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0', http: '127.0.0.1:0'}}
{SIGNING}
providers: [{{name: door, base_url: 'http://{door}/v1', api_key: {KEY}}}]
models:
{}limits: {{max_inflight: 8}}",
            direct("self", "door", "self")
        )
    };
    // Where the door is, is known once it runs.
    let service = Service::start(env!("CARGO_BIN_EXE_consort"), &text("127.0.0.1:9")).await;
    std::fs::write(service.config_path(), text(&service.http().to_string())).expect("written");
    service.wait_for_log(|line| line["fields"]["message"] == "configuration reloaded").await;
    let answer = http::post(service.http(), CHAT).json(&question(json!({"model": "self"}))).send().await;
    // What came back got the 508; the caller hears of a model that has failed.
    assert_eq!(answer.json()["error"]["code"], "model_failed", "{}", answer.text());
    let metrics = http::get(service.admin(), "/metrics").send().await;
    assert!(
        metrics.text().contains("consort_loops_refused_total{reason=\"door\"} 1\n"),
        "once: {}",
        metrics.text()
    );
}

#[tokio::test]
async fn a_marker_of_nobodys_is_counted_and_told_of_once() {
    let stack = Options::new().config(SIGNING).start().await;
    for _ in 0..3 {
        let answer = stack.ask(json!({})).header(MARKER, "made.up").send().await;
        assert_eq!(answer.status, 200, "it is a caller's request");
    }
    let metrics = http::get(stack.service.admin(), "/metrics").send().await;
    assert!(metrics.text().contains("consort_markers_ignored_total 3\n"), "{}", metrics.text());
    let told =
        |line: &Value| line["fields"]["message"].as_str().is_some_and(|m| m.starts_with("a marker means"));
    assert_eq!(stack.service.logs().iter().filter(|line| told(line)).count(), 1);
}
