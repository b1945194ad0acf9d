//! The door's paths, over scripted models.

use std::sync::Mutex;

use axum::body::Body;
use axum::http::HeaderMap;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};

use super::*;
use crate::ensemble::fixture::{self, Scripted, fails, says, status, streams};
use crate::ensemble::{Ensemble, Overrides, Trace, When};
use crate::limits::{Admission, Rate, RateLimit, Window};
use crate::upstream::{Call, Caller, Events, Failure};

fn door(caller: impl Caller, keys: Keys) -> Door {
    door_of(Arc::new(caller), keys)
}

fn door_of(caller: Arc<dyn Caller>, keys: Keys) -> Door {
    let team = fixture::ensemble("team");
    let gated = Ensemble {
        when: Some(When::parse("request.headers[':path'] == '/elsewhere'").unwrap()),
        otherwise: Some(fixture::model("plain")),
        overrides: Overrides { enable: true, ..Overrides::default() },
        trace: Trace::Header,
        ..fixture::ensemble("vendor/gated")
    };
    let snapshot = Snapshot::new([team, gated]).with_direct(["a", "plain"].map(fixture::model));
    let runner = Runner::new(caller, Admission::new(4), 1 << 20);
    let settings = Settings {
        caller_key: KeySource::Global,
        max_request_bytes: 1000,
        body_timeout: Duration::from_secs(5),
        pacing: Pacing { commit_after: Duration::from_secs(10), heartbeat: Some(Duration::from_secs(3)) },
        keys,
        ticket_ttl: Duration::from_secs(10),
        secrets: Secrets::of_process(),
    };
    Door::new(Arc::new(snapshot), runner, settings)
}

fn panel() -> Scripted {
    let panel = Scripted::default().model("a", says(10, "one")).model("b", says(20, "two"));
    panel
        .model("c", says(30, "three"))
        .model("judge", says(5, "the judge's"))
        .model("plain", says(5, "plainly"))
}

/// Hears whether calls bring a caller's credential.
struct Overhearing {
    panel: Scripted,
    credentials: Mutex<Vec<bool>>,
}

impl Caller for Overhearing {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        self.credentials.lock().unwrap().push(call.passed.authorization.is_some());
        self.panel.call(call)
    }
}

struct Told {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

async fn ask(door: &Door, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Told {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let service = TowerToHyperService::new(router(Live::new(door.clone())));
    let response = service.call(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Told { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn question(model: &str, fields: &Value) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "why?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string()
}

async fn post(door: &Door, body: String) -> Told {
    ask(door, "POST", "/v1/chat/completions", &[("content-type", "application/json")], body).await
}

#[tokio::test(start_paused = true)]
async fn an_ensemble_answers_as_it_does_through_envoy() {
    let told = post(&door(panel(), Keys::default()), question("team", &json!({}))).await;
    assert_eq!((told.status, told.json()["model"].as_str()), (200, Some("team")));
    assert_eq!(told.json()["choices"][0]["message"]["content"], "the judge's");
    let headers = ["content-type", "x-ensemble-alias", "x-ensemble-strategy", "x-ensemble-outcome"];
    assert_eq!(headers.map(|name| told.header(name)), ["application/json", "team", "judge", "full"]);
    assert_eq!(told.header("x-request-id").len(), 32);
}

#[tokio::test(start_paused = true)]
async fn a_direct_model_answers_as_a_panel_of_one_of_which_nothing_is_made() {
    let door = door(panel(), Keys::default());
    let told = post(&door, question("a", &json!({"response_format": {"type": "json_object"}}))).await;
    assert_eq!(told.json()["choices"][0]["message"]["content"], "one", "though it is no JSON");
    let headers = ["x-ensemble-alias", "x-ensemble-strategy", "x-ensemble-panel", "x-ensemble-outcome"];
    assert_eq!(headers.map(|name| told.header(name)), ["a", "direct", "1", "full"]);
    let many = post(&door, question("a", &json!({"n": 2}))).await;
    assert_eq!(many.error(), (400, "unsupported_parameter".to_owned()));
    assert!(!many.body.contains("ensemble"), "{}", many.body);
}

#[tokio::test(start_paused = true)]
async fn a_direct_models_failures_are_told_as_its_own() {
    let rows: [(fn() -> Failure, _); 8] = [
        (|| Failure::Timeout, (504, "model_timeout")),
        (|| status(429, "", None), (429, "rate_limit_exceeded")),
        (|| status(401, "", None), (502, "upstream_auth")),
        (|| status(500, "", None), (502, "model_failed")),
        (|| status(404, "", None), (502, "model_failed")),
        (|| status(400, "provider/a at models.internal has had enough", None), (400, "")),
        (|| Failure::Incomplete, (502, "model_failed")),
        (|| Failure::Cooling { retry_after: Duration::from_secs(7) }, (503, "models_cooling")),
    ];
    for (failure, expected) in rows {
        let door = door(Scripted::default().model("a", fails(1, failure)), Keys::default());
        for stream in [false, true] {
            let told = post(&door, question("a", &json!({"stream": stream}))).await;
            assert_eq!(told.error(), (expected.0, expected.1.to_owned()));
            let leaks = ["ensemble", "provider/", "models.internal"].map(|word| told.body.contains(word));
            assert_eq!(leaks, [false; 3], "{}", told.body);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_direct_models_stream_goes_on_piece_by_piece() {
    let door = door(Scripted::default().model("a", streams(5, &["o", "n", "e"])), Keys::default());
    let told = post(&door, question("a", &json!({"stream": true}))).await;
    assert_eq!(told.header("content-type"), "text/event-stream; charset=utf-8");
    let contents: Vec<&str> = told.body.split("\"content\":\"").skip(1).collect();
    assert_eq!(
        contents.iter().map(|c| c.split('"').next().unwrap()).collect::<Vec<_>>(),
        ["", "o", "n", "e"]
    );
    assert!(told.body.ends_with("data: [DONE]\n\n"), "{}", told.body);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_the_ensembles_is_answered_by_the_model_that_takes_the_others() {
    let door = door(panel(), Keys::default());
    let told = post(&door, question("vendor/gated", &json!({}))).await;
    assert_eq!(told.json()["choices"][0]["message"]["content"], "plainly");
    assert_eq!(told.json()["model"], "vendor/gated", "whoever answers");
    assert_eq!(told.header("x-ensemble-strategy"), "direct");
    let headers = [("x-ensemble-enable", "false")];
    let body = question("vendor/gated", &json!({"n": 2}));
    let told = ask(&door, "POST", "/v1/chat/completions", &headers, body).await;
    assert_eq!(told.error(), (400, "unsupported_parameter".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_committed_and_kept_alive() {
    let slow = panel().model("a", says(20_000, "one")).model("b", says(20_000, "two"));
    let door = door(slow.model("c", says(20_000, "three")), Keys::default());
    let told = post(&door, question("team", &json!({"stream": true}))).await;
    // At 10 s, and then at 13, 16 and 19.
    assert_eq!((told.status, told.body.matches(": waiting\n\n").count()), (200, 4), "{}", told.body);
    assert_eq!(told.header("x-ensemble-outcome"), "", "it was not known yet");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_is_refused_in_openais_envelope() {
    let door = door(panel(), Keys::default());
    let chat = "/v1/chat/completions";
    let json = [("content-type", "application/json")];
    for (method, path, headers, body, expected) in [
        ("POST", chat, &json[..], question("nobody", &json!({})), (404, "model_not_found")),
        ("POST", chat, &json, "{\"messages\":[{}]}".to_owned(), (400, "invalid_value")),
        ("POST", chat, &json, "{\"model\":\"team\"}".to_owned(), (400, "invalid_value")),
        ("POST", chat, &json, "{".to_owned(), (400, "")),
        ("POST", chat, &json, question("team", &json!({"n": 2})), (400, "unsupported_parameter")),
        (
            "POST",
            chat,
            &json,
            question("team", &json!({"user": "x".repeat(1000)})),
            (413, "request_too_large"),
        ),
        (
            "POST",
            chat,
            &[("content-type", "text/plain")],
            question("team", &json!({})),
            (415, "unsupported_media_type"),
        ),
        (
            "POST",
            chat,
            &[("content-encoding", "gzip")],
            question("team", &json!({})),
            (415, "unsupported_media_type"),
        ),
        ("GET", chat, &[], String::new(), (405, "method_not_allowed")),
        ("DELETE", "/v1/models", &[], String::new(), (405, "method_not_allowed")),
        ("GET", "/v1/models/nobody", &[], String::new(), (404, "model_not_found")),
        ("POST", "/v1/embeddings", &json, "{}".to_owned(), (404, "unknown_url")),
        ("GET", "/", &[], String::new(), (404, "unknown_url")),
    ] {
        let told = ask(&door, method, path, headers, body).await;
        assert_eq!(told.error(), (expected.0, expected.1.to_owned()), "{method} {path}");
        assert_eq!(told.header("content-type"), "application/json");
        assert_eq!(told.header("x-request-id").len(), 32, "{method} {path}");
        assert_eq!(told.header("allow").is_empty(), told.status != 405, "{method} {path}");
    }
    for (id, is_kept) in [("the-callers", true), (&*"x".repeat(129), false), ("the callers", false)] {
        let told = ask(&door, "GET", "/x", &[("x-request-id", id)], "").await;
        assert_eq!(told.header("x-request-id") == id, is_kept, "{id}");
        assert!(is_kept || told.header("x-request-id").len() == 32, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let door = door(panel(), Keys::default());
    let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let told = ask(&door, "POST", "/v1/chat/completions", &[], never).await;
    assert_eq!(told.error(), (408, "request_timeout".to_owned()));
}

#[tokio::test]
async fn models_are_listed_in_openais_shape() {
    let door = door(panel(), Keys::default());
    let listed = ask(&door, "GET", "/v1/models", &[], "").await.json();
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!((listed["object"].as_str(), ids), (Some("list"), vec!["a", "plain", "team", "vendor/gated"]));
    for path in ["/v1/models/vendor/gated", "/v1/models/vendor%2Fgated"] {
        let shown = ask(&door, "GET", path, &[], "").await.json();
        assert_eq!(shown, listed["data"][3], "{path}");
    }
    assert!(listed["data"][0]["created"].as_u64().is_some_and(|since| since > 1_700_000_000));
    assert_eq!(ask(&door, "GET", "/health", &[], "").await.json(), json!({"status": "ok"}));
    let head = ask(&door, "HEAD", "/v1/models", &[], "").await;
    assert_eq!((head.status, &*head.body), (StatusCode::OK.as_u16(), ""));
}

#[tokio::test(start_paused = true)]
async fn a_door_with_keys_opens_to_those_alone_and_keeps_them_to_itself() {
    let digest = Sha256::digest("sk-ours").into();
    let keys: Keys = [Key { name: "ours".into(), digest }].into_iter().collect();
    let caller = Arc::new(Overhearing { panel: panel(), credentials: Mutex::default() });
    let credentials = || std::mem::take(&mut *caller.credentials.lock().unwrap());
    let door = door_of(Arc::<Overhearing>::clone(&caller), keys);
    for path in ["/v1/models", "/v1/models/team", "/v1/chat/completions"] {
        for headers in
            [&[][..], &[("authorization", "Bearer sk-other")], &[("authorization", "Basic sk-ours")]]
        {
            let told = ask(&door, "GET", path, headers, "").await;
            assert!(matches!(told.status, 401 | 405), "{path}");
            assert_eq!(told.status == 401, told.header("www-authenticate") == "Bearer");
        }
    }
    let told = ask(&door, "POST", "/v1/chat/completions", &[], question("team", &json!({}))).await;
    assert_eq!(told.error(), (401, "invalid_api_key".to_owned()));
    assert_eq!(ask(&door, "GET", "/health", &[], "").await.status, 200);
    assert_eq!(credentials(), [false; 0], "nobody was asked");
    let headers = [("authorization", "Bearer sk-ours"), ("authorization", "Bearer sk-other")];
    let told = ask(&door, "POST", "/v1/chat/completions", &headers, question("team", &json!({}))).await;
    assert_eq!(told.status, 200);
    assert_eq!(credentials(), [false; 4], "it is ours");
    let open = door.without_keys();
    let headers = [("authorization", "Bearer sk-theirs")];
    let told = ask(&open, "POST", "/v1/chat/completions", &headers, question("a", &json!({}))).await;
    assert_eq!(told.status, 200);
    assert_eq!(credentials(), [true], "the caller's own may travel on");
}

/// The door with one request a minute for each caller, by their `authorization`.
fn rated(door: Door) -> Door {
    let rpm = Window { rate: Rate::Rpm, limit: std::num::NonZeroU64::MIN };
    let rate = RateLimit { windows: vec![rpm], concurrency: None, wait: Duration::ZERO };
    let limited = |name| {
        let ensemble = Ensemble::clone(door.snapshot.ensemble(name).unwrap());
        Ensemble { rate_limit: Some(rate.clone()), ..ensemble }
    };
    let snapshot = Arc::new(Snapshot::new(["team", "vendor/gated"].map(limited)));
    let settings =
        Settings { caller_key: KeySource::Header(AUTHORIZATION), ..Settings::clone(&door.settings) };
    Door { snapshot, settings: Arc::new(settings), ..door }
}

#[tokio::test(start_paused = true)]
async fn callers_with_keys_of_the_door_are_told_apart_by_them() {
    let key = |text: &str| Key { name: "a".into(), digest: Sha256::digest(text).into() };
    let door = rated(door(panel(), ["sk-one", "sk-two"].map(key).into_iter().collect()));
    for (authorization, expected) in
        [("Bearer sk-one", 200), ("Bearer sk-two", 200), ("bearer  sk-one", 429), ("Bearer sk-two", 429)]
    {
        let headers = [("authorization", authorization)];
        let told = ask(&door, "POST", "/v1/chat/completions", &headers, question("team", &json!({}))).await;
        assert_eq!(told.status, expected, "{authorization}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_otherwise_answers_within_the_aliass_limits() {
    let door = rated(door(panel(), Keys::default()));
    let told = post(&door, question("vendor/gated", &json!({}))).await;
    assert_eq!(told.json()["choices"][0]["message"]["content"], "plainly");
    assert_eq!(told.header("x-ratelimit-remaining-requests"), "0");
    let told = post(&door, question("vendor/gated", &json!({}))).await;
    assert_eq!(told.error(), (429, "rate_limit_exceeded".to_owned()));
}

#[tokio::test]
async fn health_is_withdrawn_while_the_door_is_drained() {
    let live = Live::new(door(panel(), Keys::default()));
    let health = async || {
        let request = http::Request::get("/health").body(Body::empty()).unwrap();
        let (parts, body) =
            TowerToHyperService::new(router(live.clone())).call(request).await.unwrap().into_parts();
        (parts.status.as_u16(), body.collect().await.unwrap().to_bytes())
    };
    assert_eq!(health().await, (200, r#"{"status":"ok"}"#.into()));
    live.draining();
    assert_eq!(health().await, (503, r#"{"status":"draining"}"#.into()));
}
