//! Replicas are replaced one after the other under load: nobody who was heard is let down, and nobody is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::eventually;
use consort_testkit::http;
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use consort_testkit::upstream::Upstream;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stack::{self, CHAT, ms, question};

const LONG: std::time::Duration = ms(20_000);
/// What a judge says to a streaming caller, piece by piece.
const WORDS: [&str; 12] = ["word "; 12];

/// Two replicas behind one Envoy.
struct Pair {
    envoy: Envoy,
    replicas: [Service; 2],
    provider: Provider,
    upstream: Upstream,
}

impl Pair {
    async fn start(policy: &'static str) -> Self {
        let provider = stack::provider().await;
        provider.model("model-judge").reply(Reply::stream(&WORDS, ms(40)));
        provider.forget_contents();
        let upstream = Upstream::start().await;
        let replicas = [replica(&provider, 0).await, replica(&provider, 0).await];
        let other = replicas[1].addr().port();
        let options =
            EnvoyOptions::shipped("envoy.yaml").consort(replicas[0].addr()).upstream(upstream.addr());
        let envoy = Envoy::start(options.edit(move |yaml| beside(yaml, other, policy))).await;
        envoy.wait_healthy().await;
        Self { envoy, replicas, provider, upstream }
    }

    /// Replaces a replica by another at the same address, and waits for Envoy to see each of the two.
    async fn replace(&mut self, place: usize) {
        let old = &self.replicas[place];
        old.signal("TERM");
        let status = old.wait_exit(LONG).await;
        assert_eq!(status.code(), Some(0), "{:?}", old.logs());
        self.seen_healthy(1).await;
        self.replicas[place] = replica(&self.provider, self.replicas[place].addr().port()).await;
        self.seen_healthy(2).await;
    }

    async fn seen_healthy(&self, n: u64) {
        eventually(&format!("{n} healthy replicas"), LONG, async || {
            (self.envoy.stats("cluster.consort.membership_healthy").await == n).then_some(())
        })
        .await;
    }
}

/// The shipped file with a second endpoint, this way of choosing among them, and a faster health check.
fn beside(yaml: String, other: u16, policy: &str) -> String {
    let consort = yaml.lines().skip_while(|line| *line != "      cluster_name: consort");
    let endpoint =
        consort.into_iter().find(|line| line.contains("- endpoint:")).expect("the endpoint").to_owned();
    let (before, after) = endpoint.split_once("port_value: ").expect("a port");
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    let yaml = replace_once(yaml, &endpoint, &format!("{endpoint}\n{before}port_value: {other}{rest}"));
    let yaml = replace_once(yaml, "lb_policy: LEAST_REQUEST", &format!("lb_policy: {policy}"));
    let yaml = replace_once(yaml, "\n      interval: 3s", "\n      interval: 0.3s");
    replace_once(yaml, "no_traffic_interval: 3s", "no_traffic_interval: 0.3s")
}

async fn replica(provider: &Provider, port: u16) -> Service {
    let config = stack::config(provider, "", "", "")
        .replace("ext_proc: '127.0.0.1:0'", &format!("ext_proc: '127.0.0.1:{port}'"));
    Service::start(env!("CARGO_BIN_EXE_consort"), &config).await
}

/// A caller's kind of request.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A model that no replica knows.
    Plain,
    Answer,
    Stream,
}

/// Asks again and again until told to stop; what was wrong with an answer.
async fn ask(
    kind: Kind,
    envoy: std::net::SocketAddr,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let body = match kind {
            Kind::Plain => json!({"model": "gpt-4o", "messages": []}),
            Kind::Answer => question(json!({})),
            Kind::Stream => question(json!({"stream": true})),
        };
        let answer = match http::post(envoy, CHAT).json(&body).try_open().await {
            Ok(live) => live.rest().await,
            Err(error) => {
                wrong.push(format!("{kind:?}: {error:?}"));
                continue;
            }
        };
        let is_right = answer.status == 200
            && answer.broken.is_none()
            && match kind {
                Kind::Plain => answer.header("x-upstream") == "echo",
                Kind::Answer => {
                    answer.header("x-ensemble-outcome") == "full" && content(&answer.json()) == WORDS.concat()
                }
                Kind::Stream => answer.events().last().is_some_and(|event| event.is_done()),
            };
        if !is_right {
            wrong.push(format!("{kind:?}: {} {:?} {}", answer.status, answer.broken, answer.text()));
        }
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(ms(5)).await;
    }
    wrong
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_default()
}

async fn rolls(policy: &'static str) {
    let mut pair = Pair::start(policy).await;
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for kind in [Kind::Plain, Kind::Answer, Kind::Stream].into_iter().cycle().take(24) {
        callers.spawn(ask(kind, pair.envoy.addr(), Arc::clone(&over), Arc::clone(&asked)));
    }
    eventually("callers to be answered", LONG, async || (asked.load(Ordering::Relaxed) > 50).then_some(()))
        .await;
    for place in [0, 1] {
        pair.replace(place).await;
    }
    over.store(true, Ordering::Relaxed);
    let wrong: Vec<String> = callers.join_all().await.concat();
    assert_eq!(wrong, [""; 0], "{policy}, of {}", asked.load(Ordering::Relaxed));
    let passed = pair.upstream.requests();
    let passed = passed
        .iter()
        .map(|arrived| serde_json::from_slice::<Value>(arrived.body.as_deref().unwrap_or_default()));
    assert!(
        passed.flatten().all(|body| body["model"] == "gpt-4o"),
        "{policy}: an alias has reached the upstream"
    );
}

/// With ROUND_ROBIN, and with what is shipped, which likes a replica that refuses: it is the one that is least busy.
#[tokio::test]
async fn a_rolling_restart_under_load_loses_and_refuses_nothing() {
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        rolls(policy).await;
    }
}
