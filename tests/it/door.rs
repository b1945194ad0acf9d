//! The plain HTTP door of the real program.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_testkit::http::{self, Call};
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clients::{node_at, node_packages, python_at};
use crate::stack::{ALIAS, CHAT, Stack, config, ms, provider, question};

/// Consort with its plain door alone.
struct Door {
    service: Service,
    provider: Provider,
}

impl Door {
    async fn open(more: &str) -> Self {
        let provider = provider().await;
        let service = Service::start(env!("CARGO_BIN_EXE_consort"), &config(&provider, "", "", more)).await;
        Self { service, provider }
    }

    fn addr(&self) -> SocketAddr {
        self.service.http()
    }

    fn ask(&self, fields: Value) -> Call {
        http::post(self.addr(), CHAT).json(&question(fields))
    }
}

#[tokio::test]
async fn the_official_sdks_get_the_same_from_both_doors() {
    let stack = Stack::start().await;
    stack.provider.model("model-judge").answer(|asked| {
        let text = asked.json["messages"][0]["content"].as_str().unwrap_or_default();
        if text == "break off" && asked.json["stream"] == true {
            Reply::stream(&["It", " is"], ms(1)).cut_after(1)
        } else if asked.json["tools"].is_array() {
            Reply::tool_calls(&[("weather", r#"{"city": "Rome"}"#)])
        } else {
            Reply::stream(&["It", " is", " so."], ms(1))
        }
    });
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).answer(|asked| match asked.json["messages"][0]["content"].as_str() {
            Some("fail") => Reply::error(500, "oops", "server_error", None),
            _ => Reply::text("one"),
        });
    }
    let doors = [stack.envoy.addr(), stack.service.http()];
    for group in ["answers", "tools", "errors"] {
        let [through_envoy, plain] = [python_at(group, doors[0]).await, python_at(group, doors[1]).await];
        assert_eq!(timeless(plain), timeless(through_envoy), "{group}");
    }
    let Some(packages) = node_packages().await else { return };
    let [through_envoy, plain] =
        [node_at("answers", &packages, doors[0]).await, node_at("answers", &packages, doors[1]).await];
    assert_eq!(timeless(plain), timeless(through_envoy));
}

/// Without what differs between any two runs.
fn timeless(mut said: Value) -> Value {
    match &mut said {
        Value::Object(fields) => {
            for (name, value) in fields {
                let own = ["id", "created"].contains(&&**name)
                    && !value.as_str().is_some_and(|id| id.starts_with("call_"));
                *value = if own { Value::Null } else { timeless(value.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = timeless(item.take())),
        _ => {}
    }
    said
}

#[tokio::test]
async fn answers_have_the_same_headers_and_bodies_through_both_doors() {
    let stack = Stack::start().await;
    let plain = |fields| http::post(stack.service.http(), CHAT).json(&question(fields));
    for fields in [json!({}), json!({"stream": true}), json!({"n": 2})] {
        let through_envoy = stack.ask(fields.clone()).send().await;
        for call in [plain(fields.clone()), plain(fields).h2c()] {
            let plain = call.send().await;
            assert_eq!(plain.status, through_envoy.status);
            let names = [
                "content-type",
                "x-ensemble-alias",
                "x-ensemble-strategy",
                "x-ensemble-panel",
                "x-ensemble-responses",
                "x-ensemble-outcome",
                "cache-control",
                "x-should-retry",
            ];
            assert_eq!(names.map(|name| plain.header(name)), names.map(|name| through_envoy.header(name)));
            assert_eq!(plain.events().len(), through_envoy.events().len());
        }
    }
    let runs = stack.runs_logged(9).await;
    let through: Vec<&str> = runs.iter().filter_map(|run| run["outcome"].as_str()).collect();
    assert_eq!(through.len(), 9, "{through:?}");
}

#[tokio::test]
async fn a_direct_model_is_called_live_with_the_callers_own_request() {
    let door = Door::open("").await;
    door.provider.model("model-a").reply(Reply::stream(&["one", " two"], ms(400)));
    let asked = json!({"model": "a", "stream": true, "metadata": {"k": "v"}, "messages": [{"role": "user", "content": "why?"}]});
    let mut live = http::post(door.addr(), CHAT).json(&asked).open().await;
    let mut came = Vec::new();
    while let Some(event) = live.event().await {
        came.push(event);
    }
    assert!(came.last().is_some_and(|event| event.is_done()));
    let between = came[2].at - came[1].at;
    assert!(between > ms(200), "the second word came {between:?} after the first");
    let sent = &door.provider.wait_for("model-a", 1).await[0].json;
    assert_eq!((&sent["model"], &sent["metadata"]["k"]), (&json!("model-a"), &json!("v")));
    let line = door.service.wait_for_log(|line| line["fields"]["message"] == "ensemble answered").await;
    assert_eq!((&line["fields"]["alias"], &line["fields"]["strategy"]), (&json!("a"), &json!("direct")));
    door.provider.model("model-a").reply(Reply::error(
        400,
        "model-a takes no such thing",
        "invalid_request_error",
        None,
    ));
    let refused = http::post(door.addr(), CHAT).json(&asked).send().await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["error"]["message"].as_str()),
        (400, Some("a takes no such thing"))
    );
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_calls_along_within_100_ms() {
    let door = Door::open("").await;
    for model in ["model-a", "model-b", "model-c"] {
        door.provider.model(model).reply(Reply::stall());
    }
    for (n, call) in [door.ask(json!({})), door.ask(json!({"stream": true})), door.ask(json!({})).h2c()]
        .into_iter()
        .enumerate()
    {
        let asking = tokio::spawn(call.try_open());
        door.provider.wait_for("model-c", n + 1).await;
        asking.abort();
        let left = Instant::now();
        door.provider.wait_for_closed("model-a", n + 1).await;
        assert!(left.elapsed() < ms(100), "{:?}", left.elapsed());
    }
    // And in mid-answer.
    for model in ["model-a", "model-b", "model-c"] {
        door.provider.model(model).reply(Reply::text("one"));
    }
    door.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).stall_after(1));
    let mut live = door.ask(json!({"stream": true})).open().await;
    live.event().await.unwrap();
    live.event().await.unwrap();
    drop(live);
    let left = Instant::now();
    door.provider.wait_for_closed("model-judge", 1).await;
    assert!(left.elapsed() < ms(100), "{:?}", left.elapsed());
}

#[tokio::test]
async fn a_silent_run_is_committed_and_kept_alive_by_comments() {
    let door = Door::open("stream: {commit_after_ms: 100, heartbeat_ms: 50}").await;
    door.provider.model("model-a").reply(Reply::text("one").delay(ms(600)));
    let answer = door.ask(json!({"stream": true})).send().await;
    assert!(answer.text().matches(": waiting\n\n").count() >= 3, "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn callers_without_a_key_and_bodies_without_an_end_are_turned_away() {
    let digest: String = Sha256::digest("sk-ours").iter().map(|byte| format!("{byte:02x}")).collect();
    let more = format!(
        "limits: {{max_request_bytes: 100000}}\nhttp: {{api_keys: [{{name: ours, sha256: {digest}}}]}}"
    );
    let door = Door::open(&more).await;
    let refused = door.ask(json!({})).send().await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["error"]["code"].as_str()),
        (401, Some("invalid_api_key"))
    );
    let key = |call: Call| call.header("authorization", "Bearer sk-ours");
    assert_eq!(key(door.ask(json!({}))).send().await.status, 200);
    let listed = key(http::get(door.addr(), "/v1/models")).send().await.json();
    let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(ids, ["a", "b", "c", "judge", ALIAS]);
    let large = json!({"user": "x".repeat(3_000_000)});
    for call in [door.ask(large.clone()), door.ask(large).h2c()] {
        let refused = key(call).send().await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["error"]["code"].as_str()),
            (413, Some("request_too_large"))
        );
    }
    let seen = door.provider.wait_for("model-a", 1).await;
    assert!(seen.iter().all(|asked| asked.header("authorization") == "Bearer sk-of-the-provider"));
}

#[tokio::test]
async fn slow_senders_are_hung_up_on() {
    let door = Door::open("http: {head_timeout_ms: 300, body_timeout_ms: 300, idle_timeout_ms: 600}").await;
    for beginning in
        ["", "P", "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let (answer, took) = spoken(door.addr(), beginning, true).await;
        // An HTTP/2 server greets first.
        assert!(answer.is_empty() || beginning.starts_with("PRI"), "{beginning:?}: {answer:?}");
        assert!(took < Duration::from_secs(3), "{beginning:?}: {took:?}");
    }
    let body = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    let (answer, took) = spoken(door.addr(), body, true).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    let (answer, took) = spoken(door.addr(), "GET /health HTTP/1.1\r\nhost: x\r\n\r\n", false).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && took < Duration::from_secs(3), "{answer} {took:?}");
}

/// Says this, then a byte now and then, until the other side hangs up; what came, and after how long.
async fn spoken(addr: SocketAddr, beginning: &str, drips: bool) -> (String, Duration) {
    let began = Instant::now();
    let mut io = TcpStream::connect(addr).await.unwrap();
    io.write_all(beginning.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    loop {
        match tokio::time::timeout(ms(50), io.read_buf(&mut came)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {}
            Err(_elapsed) if drips && !beginning.is_empty() && !beginning.starts_with("PRI") => {
                if io.write_all(b"x").await.is_err() {
                    break;
                }
            }
            Err(_elapsed) => {}
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nobody hangs up: {:?}",
            String::from_utf8_lossy(&came)
        );
    }
    (String::from_utf8_lossy(&came).into_owned(), began.elapsed())
}

#[tokio::test]
async fn tls_shows_the_certificate_that_its_files_have_now() {
    let dir = tempfile::tempdir().unwrap();
    let first = certified(dir.path());
    let files = ["cert", "key"].map(|name| dir.path().join(name).display().to_string());
    let door = Door::open(&format!("http: {{tls: {{cert: '{}', key: '{}'}}}}", files[0], files[1])).await;
    for protocol in ["h2", "http/1.1"] {
        assert_eq!(health_over_tls(door.addr(), &first, protocol).await.unwrap(), protocol);
    }
    let second = certified(dir.path());
    assert!(health_over_tls(door.addr(), &first, "http/1.1").await.is_err(), "it is shown no more");
    assert_eq!(health_over_tls(door.addr(), &second, "http/1.1").await.unwrap(), "http/1.1");
    let plain = http::get(door.addr(), "/health").try_open().await;
    assert!(plain.is_err(), "TLS is not optional");
}

/// Writes a new certificate; its authority, which is itself.
fn certified(dir: &Path) -> RootCertStore {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("key"), signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert"), cert.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    roots
}

/// Asks over TLS; the protocol that was agreed upon.
async fn health_over_tls(addr: SocketAddr, roots: &RootCertStore, protocol: &str) -> std::io::Result<String> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let agreed = String::from_utf8(tls.get_ref().1.alpn_protocol().unwrap_or_default().to_vec()).unwrap();
    if agreed == "http/1.1" {
        tls.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        let _ = tls.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    Ok(agreed)
}

#[tokio::test]
async fn an_open_door_beyond_loopback_is_warned_of() {
    let provider = provider().await;
    let exposed = config(&provider, "", "", "").replace("http: '127.0.0.1:0'", "http: '0.0.0.0:0'");
    let warned =
        |line: &Value| line["fields"]["message"].as_str().is_some_and(|m| m.contains("open to whoever"));
    let binary = env!("CARGO_BIN_EXE_consort");
    assert!(Service::start(binary, &exposed).await.logs().iter().any(warned));
    let keyed = format!("{exposed}http: {{api_keys: ['sha256:{}']}}", "ab".repeat(32));
    let service = Service::start(binary, &keyed).await;
    assert!(!service.logs().iter().any(warned));
    std::fs::write(service.config_path(), &exposed).expect("the configuration is written");
    service.wait_for_log(warned).await;
    assert!(!Door::open("").await.service.logs().iter().any(warned), "loopback");
}

#[tokio::test]
async fn an_exposed_admin_listener_is_warned_of_and_asks_models_only_with_a_key() {
    let provider = provider().await;
    let local = config(&provider, "", "", "");
    let exposed = local.replace("listen: {", "listen: {admin: '0.0.0.0:0', ");
    let keyed = format!("{exposed}http: {{api_keys: ['sha256:{}']}}", "ab".repeat(32));
    let warned = |line: &Value| {
        line["fields"]["message"].as_str().is_some_and(|m| m.contains("admin listener is exposed"))
    };
    let binary = env!("CARGO_BIN_EXE_consort");
    for (config, is_exposed, status) in [(&local, false, 200), (&exposed, true, 403), (&keyed, true, 401)] {
        let service = Service::start(binary, config).await;
        assert_eq!(service.logs().iter().any(warned), is_exposed);
        let admin = SocketAddr::from(([127, 0, 0, 1], service.admin().port()));
        for told in [http::get(admin, "/v1/models"), http::post(admin, CHAT).json(&json!({}))] {
            let told = told.send().await;
            let is_get = told.status == 200;
            assert!(
                told.status == status || (status == 200 && !is_get && told.status == 400),
                "{}",
                told.text()
            );
        }
        assert_eq!(http::get(admin, "/config").send().await.status, 200);
    }
}
