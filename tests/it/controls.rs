//! Which requests are an ensemble's, and how the others reach another model.

use consort_testkit::envoy::replace_once;
use consort_testkit::http::{self, Answer, Call};
use consort_testkit::upstream::{Arrived, Framing, hash};
use serde_json::{Value, json};

use crate::stack::{ALIAS, CHAT, Options, Stack, question};

/// Requests whose user says "expert" are the ensemble's; the others go to the provider's `model-c`.
const EXPERTS: &str = r#"when: 'request.last_user.contains("expert")', otherwise: c"#;

/// Attachments by the mode in which Envoy's filter begins.
fn attachments() -> Vec<(&'static str, Options)> {
    let based = |base: &'static str| {
        Options::new().edit(move |yaml| {
            let modes = |body, trailers| {
                format!("request_body_mode: {body}\n                request_trailer_mode: {trailers}\n")
            };
            replace_once(yaml, &modes("NONE", "SKIP"), &modes(base, "SEND"))
        })
    };
    vec![
        ("NONE", Options::new()),
        ("BUFFERED", Options::buffered()),
        ("FULL_DUPLEX_STREAMED", based("FULL_DUPLEX_STREAMED")),
        ("STREAMED", based("STREAMED")),
    ]
}

fn post(stack: &Stack) -> Call {
    http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json")
}

/// What has reached the upstream, the one request of this test.
fn arrived(stack: &Stack, before: usize) -> Arrived {
    let mut arrived = stack.upstream.requests().split_off(before);
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    arrived.remove(0)
}

fn by_ensemble(answer: &Answer) -> bool {
    let (upstream, ensemble) =
        (answer.header("x-upstream") == "echo", answer.header("x-ensemble-outcome") == "full");
    assert!(upstream != ensemble, "{} {}", answer.status, answer.text());
    ensemble
}

#[tokio::test]
async fn what_is_not_the_ensembles_goes_on_with_one_value_changed() {
    for (base, options) in attachments() {
        let stack = options.ensemble(EXPERTS).start().await;
        for (size, h2c) in [(10, false), (10, true), (300_000, false), (3 << 20, true)] {
            let pad = "x".repeat(size);
            let body = format!(
                r#"{{ "messages":[{{"role":"user","content":"why? {pad}"}}] , "stream":true,
                    "model" : "{ALIAS}", "temperature":0.70,"vendor":{{"model":"{ALIAS}","big":12345678901234567890123}} }}"#
            );
            let expected = body.replacen(ALIAS, "model-c", 1);
            let call = || if h2c { post(&stack).h2c() } else { post(&stack) };
            for way in ["length", "chunked", "trailers"] {
                let before = stack.upstream.requests().len();
                let answer = if way == "length" {
                    call().body(body.clone()).send().await
                } else {
                    let trailers: &[(&str, &str)] = if way == "trailers" { &[("x-check", "1")] } else { &[] };
                    let names: Vec<&str> = trailers.iter().map(|(name, _)| *name).collect();
                    let mut upload = call().upload(&names).await;
                    for piece in body.as_bytes().chunks(100_000) {
                        assert!(upload.piece(piece.to_vec()).await);
                    }
                    upload.finish_with(trailers).await.rest().await
                };
                let row = format!("{base} {size} {way} h2c: {h2c}");
                assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"), "{row}");
                let arrived = arrived(&stack, before);
                assert_eq!(
                    (arrived.length, arrived.hash),
                    (expected.len(), hash(expected.as_bytes())),
                    "{row}"
                );
                // Where Envoy does not keep the body it lets nobody set its length.
                let framing = match (base, way) {
                    ("BUFFERED", "length") => Framing::Length(expected.len() as u64),
                    _ => Framing::Chunked,
                };
                assert_eq!((arrived.framing, arrived.complete), (framing, true), "{row}");
            }
        }
        let experts = stack.ask(json!({"messages": [{"role": "user", "content": "an expert's word"}]}));
        assert!(by_ensemble(&experts.send().await), "{base}");
        assert!(stack.provider.requests_for("model-c").len() == 1, "as a member of the panel");
        stack.provider.assert_clean();
    }
}

/// An upstream that wants a length gets one by Envoy's own buffer filter.
#[tokio::test]
async fn a_buffer_filter_behind_ours_gives_a_changed_body_its_length() {
    let stack = Options::new()
        .ensemble("when: 'false', otherwise: c")
        .edit(|yaml| {
            let router = "          - name: envoy.filters.http.router";
            let buffer = "          - name: envoy.filters.http.buffer
            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 33554432}
";
            replace_once(yaml, router, &format!("{buffer}{router}"))
        })
        .start()
        .await;
    stack.ask(json!({})).send().await;
    let arrived = arrived(&stack, 0);
    assert_eq!(arrived.framing, Framing::Length(arrived.length as u64));
    let body: Value = serde_json::from_slice(&arrived.body.unwrap()).unwrap();
    assert_eq!(body["model"], "model-c");
}

#[tokio::test]
async fn a_condition_decides_by_what_the_request_says() {
    let when =
        r#"request.headers[?"x-tier"].orValue("") == "gold" || request.tools > 0 || request.user == "ann""#;
    for options in [Options::new(), Options::buffered()] {
        let stack = options.ensemble(&format!("when: '{when}', otherwise: c")).start().await;
        let tool =
            json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]);
        for (headers, fields, ensemble) in [
            (&[][..], json!({}), false),
            (&[("X-Tier", "gold")], json!({}), true),
            (&[("X-Tier", "iron")], json!({}), false),
            (&[("X-Tier", "iron")], json!({"stream": true, "tools": []}), false),
            (&[], json!({"tools": tool}), true),
            (&[], json!({"user": "ann", "stream": true}), true),
            (&[], json!({"user": "bob", "n": 2}), false),
        ] {
            let call = headers.iter().fold(stack.ask(fields.clone()), |call, (k, v)| call.header(k, v));
            assert_eq!(by_ensemble(&call.send().await), ensemble, "{headers:?} {fields}");
        }
        let refused = stack.ask(json!({"user": "ann", "n": 2})).send().await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]["param"]), (400, &json!("n")));
        let unread = stack.ask_raw(format!(r#"{{"model":"{ALIAS}","messages":"#)).send().await;
        assert_eq!(unread.status.as_u16(), 400, "nothing to decide by");
        stack.provider.assert_clean();
    }
}

#[tokio::test]
async fn a_request_id_decides_a_gradual_roll_out() {
    let stack = Options::new().ensemble("when: 'random < 0.3', otherwise: c").start().await;
    let mut taken = 0;
    for id in 0..60 {
        let id = format!("{id:08x}-5717-4562-b3fc-2c963f66afa6");
        let ask = || stack.ask(json!({})).header("x-request-id", &id).send();
        let first = ask().await;
        assert_eq!(by_ensemble(&first), by_ensemble(&ask().await), "{id}");
        taken += u32::from(by_ensemble(&first));
    }
    assert!((6..36).contains(&taken), "{taken} of 60 for 0.3");
}

#[tokio::test]
async fn a_condition_that_fails_takes_the_ensemble_and_is_told_once() {
    let stack =
        Options::new().ensemble(r#"when: 'request.headers["x-tier"] == "gold"', otherwise: c"#).start().await;
    for _ in 0..3 {
        assert!(by_ensemble(&stack.ask(json!({})).send().await));
    }
    assert!(!by_ensemble(&stack.ask(json!({})).header("x-tier", "iron").send().await));
    stack.runs_logged(3).await;
    let lines = stack.service.logs();
    let told: Vec<&Value> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((&told[0]["fields"]["alias"], &told[0]["fields"]["failures"]), (&json!(ALIAS), &json!(1)));
    let passed =
        lines.iter().find(|line| line["fields"]["message"] == "request passed to `otherwise`").unwrap();
    assert_eq!((&passed["fields"]["model"], &passed["fields"]["why"]), (&json!("c"), &json!("when")));
}

/// Routes by `x-model` before the shipped ones, and marks what took it.
fn routed_by_model(yaml: String, action: &str) -> String {
    let chat = "              - name: chat\n";
    let by_model = "              - name: by-model
                match: {path: /v1/chat/completions, headers: [{name: x-model, string_match: {exact: model-c}}]}
                route: {cluster: upstream}
                request_headers_to_add: [{header: {key: x-routed, value: by-model}}]
";
    let yaml = replace_once(yaml, chat, &format!("{by_model}{chat}"));
    replace_once(yaml, "route_cache_action: RETAIN", &format!("route_cache_action: {action}"))
}

#[tokio::test]
async fn a_routing_header_moves_the_request_to_another_route() {
    for (options, action, clear, routed) in [
        (Options::new(), "DEFAULT", true, "by-model"),
        (Options::buffered(), "DEFAULT", true, "by-model"),
        (Options::new(), "CLEAR", false, "by-model"),
        (Options::new(), "DEFAULT", false, ""),
        (Options::new(), "RETAIN", true, ""),
        (Options::buffered(), "RETAIN", true, ""),
    ] {
        let stack = options
            .ensemble("when: 'request.stream', otherwise: c")
            .config(&format!("ext_proc: {{model_header: x-model, clear_route_cache: {clear}}}"))
            .edit(move |yaml| routed_by_model(yaml, action))
            .start()
            .await;
        let answer = stack.ask(json!({})).header("x-model", "of-the-caller").send().await;
        assert_eq!(answer.header("x-upstream"), "echo", "{}", answer.text());
        let mut upload = post(&stack).upload(&[]).await;
        upload.piece(question(json!({})).to_string()).await;
        assert_eq!(upload.finish().await.rest().await.header("x-upstream"), "echo");
        for arrived in stack.upstream.wait_for(2).await {
            let header = |name: &str| arrived.headers.get(name).map_or("", |value| value.to_str().unwrap());
            assert_eq!((header("x-model"), header("x-routed")), ("model-c", routed), "{action} {clear}");
            assert_eq!(arrived.headers.get_all("x-model").iter().count(), 1);
        }
        assert!(by_ensemble(&stack.ask_stream().send().await));
    }
}

#[tokio::test]
async fn a_caller_may_go_past_the_ensemble_where_its_operator_allows() {
    for options in [Options::new(), Options::buffered()] {
        let open = "{display_name: open, ensemble: {panel: [{model: a}], judge: {model: judge}, otherwise: b, overrides: {enable: true}}}";
        let stack = options.models(&format!("- {open}")).start().await;
        for (alias, value, ensemble) in [
            ("open", "false", false),
            ("open", "FALSE", false),
            ("open", "true", true),
            (ALIAS, "false", true),
            (ALIAS, "nonsense", true),
        ] {
            let ask = stack.ask(json!({"model": alias})).header("x-ensemble-enable", value);
            let answer = ask.send().await;
            let passed = answer.header("x-upstream") == "echo";
            assert_eq!(passed, !ensemble, "{alias} {value}: {}", answer.text());
        }
        let refused = stack.ask(json!({"model": "open"})).header("x-ensemble-enable", "no").send().await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["error"]["message"].as_str().unwrap()),
            (400, "x-ensemble-enable cannot be \"no\"; allowed: true, false")
        );
        for arrived in stack.upstream.requests() {
            let body: Value = serde_json::from_slice(&arrived.body.unwrap()).unwrap();
            assert_eq!(body["model"], "model-b");
        }
    }
}
